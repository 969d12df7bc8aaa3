//! `gc`: lists or removes what no version needs.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use item_affinity_storage::{Collected, Reason, Retention, Stores, UploadCollection};

use crate::commit_args::parse_duration;
use crate::exit::Failure;
use crate::print::say;
use crate::progress::grouped;
use crate::show::Place;

const DAY: u64 = 86_400;

#[derive(Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Removes what is listed; without it nothing is touched.
    #[arg(long)]
    pub(crate) delete: bool,
    /// The files of a run without a commit go when it wrote nothing for so long; at least 1d.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_duration)]
    pub(crate) older_than: Duration,
    /// Versions before the newest N go.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keep_versions: Option<u64>,
    /// Versions that were committed more than D days ago go; with --keep-versions, those that neither keeps.
    #[arg(long, value_name = "D")]
    pub(crate) keep_days: Option<u32>,
    /// Uploads as well that a killed job left open in a bucket, by the same age; no listing of objects shows their parts.
    #[arg(long)]
    pub(crate) uploads: bool,
}

pub(crate) async fn run(args: GcArgs) -> Result<ExitCode, Failure> {
    let stores = Stores::from_env();
    let (versions, pinned) = args.place.versions(&stores)?;
    if let Some(version) = pinned {
        return Err(Failure::usage(format!("gc keeps the newest versions; leave out @{version}")));
    }
    if args.older_than < Duration::from_secs(DAY) {
        return Err(Failure::usage(
            "--older-than: a run that wrote something within a day may be at work; give 1d or more",
        ));
    }
    let retention = Retention {
        older_than: args.older_than,
        keep_versions: args.keep_versions,
        keep_for: args.keep_days.map(|days| Duration::from_secs(u64::from(days) * DAY)),
    };
    let mut found = versions.collect(&retention, args.delete).await?;
    for group in &found.collected {
        say(&line(group))?;
        for file in &group.files {
            say(&format!("  {file}"))?;
        }
    }
    let files = found.collected.iter().map(|group| group.files.len() as u64).sum();
    let bytes = found.collected.iter().map(|group| group.bytes).sum();
    let (done, hint) = match (args.delete, files) {
        (true, _) => ("removed", ""),
        (false, 0) => ("to remove", ""),
        (false, _) => ("to remove", "; --delete removes them"),
    };
    let young = match found.young {
        0 => String::new(),
        1 => "; 1 run without a commit is too young".to_owned(),
        young => format!("; {young} runs without a commit are too young"),
    };
    let kept = match found.kept.as_slice() {
        [] => "no version".to_owned(),
        [only] => format!("version {only}"),
        [first, .., last] => format!("versions {first} to {last}"),
    };
    say(&format!(
        "{} {done}, {} bytes{hint}; {kept} of {} kept{young}",
        counted(files),
        grouped(bytes),
        versions.location()
    ))?;
    // Told with what could not be removed, not instead of it.
    let mut of_uploads = None;
    if args.uploads {
        match versions.collect_uploads(&stores, args.older_than, args.delete).await {
            Ok(mut uploads) => {
                say_uploads(&uploads, args.delete)?;
                found.failed.append(&mut uploads.failed);
            }
            Err(error) if found.failed.is_empty() => return Err(error.into()),
            Err(error) => of_uploads = Some(error),
        }
    }
    if found.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let more = found.failed.len() - 1;
    let first = found.failed.swap_remove(0);
    let more = if more == 0 { String::new() } else { format!("; and {more} more files") };
    let uploads = of_uploads.map(|error| format!("; open uploads: {error}")).unwrap_or_default();
    let reason = format!("{first}{more}; a lock or a retention rule of the bucket may hold it{uploads}");
    Err(Failure::new(first.kind(), reason))
}

fn say_uploads(found: &UploadCollection, delete: bool) -> Result<(), Failure> {
    for upload in &found.open {
        let days = upload.age.as_secs() / DAY;
        say(&format!("run {} left an upload open {days} days ago: {}", upload.run_id, upload.file))?;
    }
    let (done, hint) = match (delete, found.open.is_empty()) {
        (true, _) => ("aborted", ""),
        (false, true) => ("to abort", ""),
        (false, false) => ("to abort", "; --delete aborts them"),
    };
    let young = if found.young == 0 { String::new() } else { format!("; {} are too young", found.young) };
    say(&format!("{} open uploads {done}{hint}{young}", found.open.len()))
}

/// `1 file`, `1,234 files`.
pub(crate) fn counted(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{} files", grouped(files)) }
}

fn line(group: &Collected) -> String {
    let size = format!("{}, {} bytes", counted(group.files.len() as u64), grouped(group.bytes));
    match &group.reason {
        Reason::Uncommitted { run_id, age } => {
            format!("run {run_id} never committed and wrote nothing for {} days: {size}", age.as_secs() / DAY)
        }
        Reason::Expired { version, .. } => format!("version {version} is not kept: {size}"),
        Reason::Leftover { version, .. } => format!("tasks that ran twice left them beside version {version}: {size}"),
        _ => format!("temporary files that a killed process left: {size}"),
    }
}
