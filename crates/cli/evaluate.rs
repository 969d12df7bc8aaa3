//! `evaluate`: how well segments predict what users do next, beside baselines.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use item_affinity_model::{PersonalizeEvaluation, PersonalizeMetrics, TimeProtocol};
use item_affinity_solution::{EvaluationFormat, EvaluationJob, EvaluationReport, Observer, Protocol};
use item_affinity_storage::{Location, NewFile, Stores};

use crate::args::{DatasetArgs, Global, RecipeArgs};
use crate::evaluation_text::time_table;
use crate::exit::Failure;
use crate::print::{say, text_table};
use crate::progress::{Progress, grouped};
use crate::train::dataset;

#[derive(Args)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// How the data are split; time: the newest tenth of all interactions is the test set; personalize: the newest 20 %
    /// of each user's.
    #[arg(long, value_enum, default_value_t = ProtocolName::Time)]
    pub(crate) protocol: ProtocolName,
    /// The protocol time asks for items with at least so many training interactions.
    #[arg(long, value_name = "N", default_value_t = TimeProtocol::default().least_item_interactions)]
    pub(crate) least_item_interactions: usize,
    /// Users per segment, besides 1 % of the users; may repeat.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k: Vec<u32>,
    /// How the result looks; Parquet is one row for each figure.
    #[arg(long, value_enum, default_value_t = EvaluationFormatName::Table)]
    pub(crate) format: EvaluationFormatName,
    /// Writes the result to this new file instead of stdout, as JSON or Parquet; nothing is overwritten.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) output: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolName {
    Time,
    Personalize,
    Both,
}

/// How the result looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvaluationFormatName {
    Table,
    Json,
    Parquet,
}

pub(crate) async fn run(global: &Global, args: EvaluateArgs) -> Result<ExitCode, Failure> {
    let stores = Stores::from_env();
    let output = output(&args)?;
    if let Some((location, _)) = &output {
        EvaluationReport::check_output(&stores, location).await?;
    }
    let progress = Arc::new(Progress::new(global));
    let protocols: &[Protocol] = match args.protocol {
        ProtocolName::Time => &[Protocol::Time],
        ProtocolName::Personalize => &[Protocol::Personalize],
        ProtocolName::Both => &[Protocol::Time, Protocol::Personalize],
    };
    let ks = args.k.iter().map(|k| *k as usize).collect();
    let report = EvaluationJob::of(dataset(&stores, &args.data).await?)
        .recipe(args.recipe.recipe())
        .protocols(protocols.iter().copied())
        .time_protocol(TimeProtocol { least_item_interactions: args.least_item_interactions, ks })
        .allow_small_data(args.data.log.allow_small_data)
        .threads(global.threads.map(std::num::NonZeroUsize::get))
        .observer(Arc::clone(&progress) as Arc<dyn Observer>)
        .stores(stores.clone())
        .cancellation(global.stop.clone())
        .run()
        .await?;
    progress.end_stage();
    if let Some((location, format)) = output {
        let done = match report.write(&stores, &location, format).await? {
            NewFile::Written => "written to",
            NewFile::AlreadyThere => "already in",
        };
        say(&format!("the evaluation is {done} {location}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.format == EvaluationFormatName::Json {
        say(&report.to_json()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(time) = &report.time {
        say(&time_table(time)?)?;
    }
    if let Some(personalize) = &report.personalize {
        say(&personalize_table(personalize)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file to write, if one is asked for.
fn output(args: &EvaluateArgs) -> Result<Option<(Location, EvaluationFormat)>, Failure> {
    match (&args.output, args.format) {
        (None, EvaluationFormatName::Parquet) => Err(Failure::usage("Parquet is binary; add --output FILE")),
        (None, _) => Ok(None),
        (Some(_), EvaluationFormatName::Table) => {
            Err(Failure::usage("--output writes files for programs; add --format json or --format parquet"))
        }
        (Some(text), EvaluationFormatName::Json) => Ok(Some((Location::parse(text)?, EvaluationFormat::Json))),
        (Some(text), EvaluationFormatName::Parquet) => Ok(Some((Location::parse(text)?, EvaluationFormat::Parquet))),
    }
}

fn personalize_table(result: &PersonalizeEvaluation) -> Result<String, Failure> {
    let row = |name: &str, metrics: &PersonalizeMetrics| {
        vec![
            name.to_owned(),
            format!("{:.4}", metrics.coverage),
            format!("{:.4}", metrics.hits_at_1_percent),
            format!("{:.4}", metrics.recall_at_1_percent),
        ]
    };
    let rows = [
        row("item affinity", &result.model),
        row("most active users", &result.most_active),
        row("random users", &result.random),
    ];
    let header = ["ranking", "coverage", "hits_at_1_percent", "recall_at_1_percent"];
    Ok(format!(
        "protocol personalize: {} training and {} test interactions, {} items with a test interaction, \
         segments of {} of {} users\n{}",
        grouped(result.train_interactions as u64),
        grouped(result.test_interactions as u64),
        grouped(result.test_items as u64),
        grouped(result.k as u64),
        grouped(result.users as u64),
        text_table(&header, &rows)?
    ))
}
