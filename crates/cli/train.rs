//! `train`: interactions in, a committed solution version out.

use std::process::ExitCode;
use std::sync::Arc;

use item_affinity_ingest::AttributeSelection;
use item_affinity_solution::{Dataset, Observer, TrainingJob, TrainingReport};

use crate::args::{DatasetArgs, Global, TrainArgs};
use crate::exit::Failure;
use crate::print::say;
use crate::progress::{Progress, grouped};

pub(crate) async fn run(global: &Global, args: TrainArgs) -> Result<ExitCode, Failure> {
    let progress = Arc::new(Progress::new(global));
    let report = TrainingJob::of(dataset(&args.data)?)
        .recipe(args.recipe.recipe())
        .solution(&args.solution)
        .allow_small_data(args.data.allow_small_data)
        .force(args.force)
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
    let model = &report.model;
    if report.already_done {
        return format!("already done as version {} of {}", report.version, report.solution.location);
    }
    format!(
        "committed version {} of {}\n{} users, {} items, {} interactions, hidden_dimension {}\nuse it as {}",
        report.version,
        report.solution.location,
        grouped(model.users),
        grouped(model.items),
        grouped(model.interactions),
        model.recipe.hidden_dimension,
        report.solution,
    )
}

/// The data that the arguments name.
pub(crate) fn dataset(args: &DatasetArgs) -> Result<Dataset, Failure> {
    Ok(Dataset {
        interactions: args.interactions.clone(),
        items: args.items.clone(),
        users: args.users.clone(),
        columns: args.columns()?,
        event_types: args.event_type.clone(),
        event_value_threshold: args.event_value_threshold,
        event_weights: args.weights().map_err(Failure::usage)?,
        value_as_weight: args.value_as_weight,
        max_bad_row_share: args.max_bad_rows,
        timestamp_unit: args.timestamp_unit.map(Into::into),
        attributes: AttributeSelection { include: args.include_columns.clone(), exclude: args.exclude_columns.clone() },
    })
}
