//! `segment`: item list in, committed segments out.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;

use item_affinity_datafusion::SessionSettings;
use item_affinity_ingest::Dataset;
use item_affinity_job::{BatchSegmentJob, DeltaMode, ItemList, Observer, OutputFormat, SegmentReport, UsersKey};
use item_affinity_storage::{Location, Stores};

use crate::args::Global;
use crate::exit::Failure;
use crate::print::say;
use crate::progress::{Progress, grouped};
use crate::segment_args::{DeltaModeName, SegmentArgs, SegmentFormat, UsersKeyName};
use crate::train::schema;

/// Committed, but some items have error records.
const ITEM_ERRORS: u8 = 4;
/// Error records said on stderr; all of them are in the output.
const SHOWN_ERRORS: usize = 10;

pub(crate) async fn run(global: &Global, args: SegmentArgs) -> Result<ExitCode, Failure> {
    let stores = Stores::from_env();
    let progress = Arc::new(Progress::new(global));
    let mut job = match &args.items {
        Some(text) => {
            let location = Location::parse(text)?;
            refuse_output_in_input(&location, &args.output)?;
            BatchSegmentJob::of_files(&args.solution, ItemList::read_files(&stores, &location).await?)
        }
        None => BatchSegmentJob::new(&args.solution, ItemList::from_ids(args.item.iter().cloned())),
    };
    let format = match args.format {
        SegmentFormat::Parquet => OutputFormat::Parquet,
        SegmentFormat::Delta => OutputFormat::Delta {
            mode: match args.delta_mode {
                DeltaModeName::Append => DeltaMode::Append,
                DeltaModeName::ReplaceVersion => DeltaMode::ReplaceVersion,
                DeltaModeName::ReplaceItems => DeltaMode::ReplaceItems,
            },
        },
        SegmentFormat::JsonLines => OutputFormat::JsonLines {
            users_key: match args.users_key {
                UsersKeyName::UsersList => UsersKey::UsersList,
                UsersKeyName::RecommendedUsers => UsersKey::RecommendedUsers,
            },
        },
    };
    let settings = SessionSettings {
        memory_limit: args.memory_limit,
        temp_limit: args.temp_limit.map(|bytes| bytes as u64),
        target_partitions: global.threads.map(std::num::NonZeroUsize::get),
    };
    if let Some(session) = args.place.remote(&stores, settings)? {
        job = job.session(session);
    }
    if let Some(users) = &args.users {
        let schema = schema(&stores, args.users_schema.as_deref(), Dataset::Users).await?;
        job = job.users(users).users_schema(schema);
    }
    if let Some(condition) = &args.users_filter {
        job = job.users_filter(condition);
    }
    if let Some(filter) = &args.filter {
        job = job.filter(filter.parse().map_err(item_affinity_job::Error::from)?);
    }
    let report = job
        .num_results(usize::try_from(args.num_results).map_err(Failure::usage)?)
        .max_items(args.max_items.get())
        .seen(args.seen.into())
        .min_score(args.min_score)
        .min_segment_users(args.min_segment_users.map_or(0, NonZeroU64::get))
        .reasons(args.reasons.map(usize::try_from).transpose().map_err(Failure::usage)?)
        .output(&args.output)
        .format(format)
        .force(args.force)
        .lock_timeout(args.commit.lock_timeout)
        .durable(!args.commit.no_durable)
        .job_name(args.name.job_name)
        .allow_foreign_solution(args.allow_foreign_solution)
        .cancellation(global.stop.clone())
        .settings(settings)
        .stores(stores)
        .observer(Arc::clone(&progress) as Arc<dyn Observer>)
        .run()
        .await?;
    progress.end_stage();
    say(&summary(&report))?;
    if !global.quiet {
        for record in report.item_errors.iter().take(SHOWN_ERRORS) {
            let item =
                record.item_id.as_deref().map(|id| format!("item '{}': ", id.escape_debug())).unwrap_or_default();
            eprintln!("warning: {}: {item}{}", record.code, record.message);
        }
        if report.item_errors.len() > SHOWN_ERRORS {
            eprintln!("warning: {} more items without a segment", report.item_errors.len() - SHOWN_ERRORS);
        }
    }
    if report.error + report.suppressed > 0 && args.fail_on_item_error {
        return Ok(ExitCode::from(ITEM_ERRORS));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person wants to know of a finished job.
pub(crate) fn summary(report: &SegmentReport) -> String {
    let done = if report.already_done { "already done as" } else { "committed" };
    let files = report.files.iter().map(|f| format!("\n  {f}")).collect::<String>();
    let reasons = match report.reasons {
        0 => String::new(),
        reasons => format!(" and {} reasons", grouped(reasons)),
    };
    let users = match (report.users_asked, report.users_unknown) {
        (Some(asked), Some(unknown)) => format!("\nusers: asked={asked} unknown={unknown}"),
        _ => String::new(),
    };
    let suppressed = match report.suppressed {
        0 => String::new(),
        suppressed => format!(" suppressed={suppressed}"),
    };
    let delta = report.delta_version.map(|version| format!("\ndelta: version={version}")).unwrap_or_default();
    format!(
        "{done} version {} of {}: {} rows{reasons} from {}\nitems: asked={} ok={} empty={} error={}{suppressed}{users}{delta}{files}",
        report.version,
        report.output,
        grouped(report.rows),
        report.solution_version,
        report.asked,
        report.ok,
        report.empty,
        report.error,
    )
}

/// Segments among the item lists would be read as item lists the next time.
fn refuse_output_in_input(items: &Location, output: &str) -> Result<(), Failure> {
    let output = Location::parse(output)?;
    let same_store = items.store_url() == output.store_url();
    if same_store && output.path().prefix_matches(items.path()) {
        return Err(Failure::usage(format!(
            "--output {output} lies in --items {items}; choose another output location"
        )));
    }
    Ok(())
}
