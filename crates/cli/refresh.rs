//! `refresh`: newer interactions in, the next version of a solution out, with the items of the one before.

use std::process::ExitCode;
use std::sync::Arc;

use item_affinity_datafusion::{SessionSettings, refresh_tasks};
use item_affinity_ingest::Dataset;
use item_affinity_solution::{Observer, RefreshJob, RefreshReport};
use item_affinity_storage::Stores;

use crate::args::{Global, RefreshArgs};
use crate::exit::Failure;
use crate::print::say;
use crate::progress::{Progress, grouped};
use crate::train::{already_done, committed, schema};

pub(crate) async fn run(global: &Global, args: RefreshArgs) -> Result<ExitCode, Failure> {
    let progress = Arc::new(Progress::new(global));
    let columns = args.log.columns()?;
    let of_csv = schema(&Stores::from_env(), args.log.interactions_schema.as_deref(), Dataset::Interactions).await?;
    let users_of_csv = schema(&Stores::from_env(), args.users_schema.as_deref(), Dataset::Users).await?;
    let job = args.log.interactions.iter().fold(RefreshJob::new(&args.solution), |job, from| job.interactions(from));
    let job = args.users.iter().fold(job, |job, from| job.users(from));
    let stores = Stores::from_env();
    let partitions = global.threads.map(std::num::NonZeroUsize::get);
    let settings = SessionSettings { target_partitions: partitions, ..SessionSettings::default() };
    let tasks = args.place.remote(&stores, settings)?.map(|ctx| refresh_tasks(&ctx, &stores));
    let report = job
        .tasks(tasks)
        .users_schema(users_of_csv)
        .interactions_schema(of_csv)
        .columns(columns)
        .max_bad_row_share(args.log.max_bad_rows)
        .timestamp_unit(args.log.timestamp_unit.map(Into::into))
        .allow_small_data(args.log.allow_small_data)
        .force(args.force)
        .lock_timeout(args.commit.lock_timeout)
        .durable(!args.commit.no_durable)
        .memory_limit(args.job.memory())
        .job_name(args.job.name.job_name)
        .cancellation(global.stop.clone())
        .threads(global.threads.map(std::num::NonZeroUsize::get))
        .observer(Arc::clone(&progress) as Arc<dyn Observer>)
        .run()
        .await?;
    progress.end_stage();
    say(&summary(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// What a person wants to know of a finished refresh.
fn summary(report: &RefreshReport) -> String {
    let Some(changes) = report.changes.filter(|_| !report.already_done) else {
        return already_done(&report.solution);
    };
    let mut text = committed(&report.solution, &report.model);
    text.push_str(&format!(
        "\nagainst version {}: {} users are new, {} are gone",
        changes.from,
        grouped(changes.new_users),
        grouped(changes.gone_users)
    ));
    if let Some(trained) = report.model.refreshed_from {
        text.push_str(&format!("\nitems and coefficients of version {trained}, user states of now"));
    }
    format!("{text}\nuse it as {}", report.solution)
}
