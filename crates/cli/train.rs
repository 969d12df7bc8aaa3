//! `train`: interactions in, a committed solution version out.

use std::process::ExitCode;
use std::sync::Arc;

use item_affinity_ingest::{AttributeSelection, Dataset as DatasetKind, DatasetSchema};
use item_affinity_solution::{Dataset, DatasetSchemas, ModelCard, Observer, SolutionRef, TrainingJob, TrainingReport};
use item_affinity_storage::{Location, Stores};

use crate::args::{DatasetArgs, Global, TrainArgs};
use crate::exit::Failure;
use crate::print::say;
use crate::progress::{Progress, grouped};

pub(crate) async fn run(global: &Global, args: TrainArgs) -> Result<ExitCode, Failure> {
    let progress = Arc::new(Progress::new(global));
    let report = TrainingJob::of(dataset(&Stores::from_env(), &args.data).await?)
        .recipe(args.recipe.recipe())
        .solution(&args.solution)
        .allow_small_data(args.data.log.allow_small_data)
        .force(args.force)
        .lock_timeout(args.commit.lock_timeout)
        .durable(!args.commit.no_durable)
        .memory_limit(args.job.memory())
        .job_name(args.job.name.job_name)
        .cancellation(global.stop.clone())
        .evaluate(args.evaluate.then(item_affinity_model::TimeProtocol::default))
        .threads(global.threads.map(std::num::NonZeroUsize::get))
        .observer(Arc::clone(&progress) as Arc<dyn Observer>)
        .run()
        .await?;
    progress.end_stage();
    say(&summary(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// What a person wants to know of a finished training.
pub(crate) fn summary(report: &TrainingReport) -> String {
    if report.already_done {
        return already_done(&report.solution);
    }
    format!("{}\nuse it as {}", committed(&report.solution, &report.model), report.solution)
}

/// What is said when the newest version is of the same job.
pub(crate) fn already_done(solution: &SolutionRef) -> String {
    format!("already done as version {} of {}", solution.version.unwrap_or_default(), solution.location)
}

/// The version that a job committed, and its size.
pub(crate) fn committed(solution: &SolutionRef, model: &ModelCard) -> String {
    format!(
        "committed version {} of {}\n{} users, {} items, {} interactions, hidden_dimension {}",
        solution.version.unwrap_or_default(),
        solution.location,
        grouped(model.users),
        grouped(model.items),
        grouped(model.interactions),
        model.recipe.hidden_dimension,
    )
}

/// The data that the arguments name.
pub(crate) async fn dataset(stores: &Stores, args: &DatasetArgs) -> Result<Dataset, Failure> {
    Ok(Dataset {
        schemas: DatasetSchemas {
            interactions: schema(stores, args.log.interactions_schema.as_deref(), DatasetKind::Interactions).await?,
            items: schema(stores, args.items_schema.as_deref(), DatasetKind::Items).await?,
            users: schema(stores, args.users_schema.as_deref(), DatasetKind::Users).await?,
        },
        interactions: args.log.interactions.clone(),
        items: args.items.clone(),
        users: args.users.clone(),
        columns: args.log.columns()?,
        event_types: args.event_type.clone(),
        event_value_threshold: args.event_value_threshold,
        event_weights: args.weights().map_err(Failure::usage)?,
        value_as_weight: args.value_as_weight,
        max_bad_row_share: args.log.max_bad_rows,
        timestamp_unit: args.log.timestamp_unit.map(Into::into),
        attributes: AttributeSelection { include: args.include_columns.clone(), exclude: args.exclude_columns.clone() },
    })
}

/// The schema of a data set in CSV, where one is given.
pub(crate) async fn schema(
    stores: &Stores,
    location: Option<&str>,
    dataset: DatasetKind,
) -> Result<Option<Arc<DatasetSchema>>, Failure> {
    let Some(location) = location else { return Ok(None) };
    Ok(Some(Arc::new(DatasetSchema::read(stores, &Location::parse(location)?, dataset).await?)))
}
