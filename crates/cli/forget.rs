//! `forget`: users leave a solution and its outputs; what is said are counts, never ids.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use item_affinity_job::{ForgetJob, ForgetReport, read_user_ids};
use item_affinity_solution::Observer;
use item_affinity_storage::{Location, Stores};

use crate::args::Global;
use crate::commit_args::CommitArgs;
use crate::exit::Failure;
use crate::gc::counted;
use crate::print::say;
use crate::progress::{Progress, grouped};

#[derive(Args)]
pub(crate) struct ForgetArgs {
    /// Who shall be forgotten: Parquet or CSV with a column user_id.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) users: String,
    /// A solution; may repeat.
    #[arg(long, value_name = "LOCATION", required_unless_present = "output")]
    pub(crate) solution: Vec<String>,
    /// An output of segment; may repeat.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) output: Vec<String>,
    #[command(flatten)]
    pub(crate) commit: CommitArgs,
}

pub(crate) async fn run(global: &Global, args: ForgetArgs) -> Result<ExitCode, Failure> {
    let progress = Arc::new(Progress::new(global));
    let users = read_user_ids(&Stores::from_env(), &Location::parse(&args.users)?).await?;
    let named = users.len() as u64;
    let job = args.solution.iter().fold(ForgetJob::new(users), |job, place| job.solution(place));
    let job = args.output.iter().fold(job, |job, place| job.output(place));
    let reports = job
        .lock_timeout(args.commit.lock_timeout)
        .durable(!args.commit.no_durable)
        .cancellation(global.stop.clone())
        .observer(Arc::clone(&progress) as Arc<dyn Observer>)
        .run()
        .await?;
    progress.end_stage();
    say(&format!("{} named", users_in_words(named)))?;
    for report in &reports {
        say(&receipt(report))?;
    }
    say(
        "no later job at these locations lets them in; the interactions still hold them: take them out there, for all others",
    )?;
    if reports.iter().any(|report| report.location.starts_with("s3://")) {
        say(
            "a bucket with versioning keeps what was removed until its lifecycle rule ends it (NoncurrentVersionExpiration)",
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn users_in_words(users: u64) -> String {
    if users == 1 { "1 user".to_owned() } else { format!("{} users", grouped(users)) }
}

/// What one location lost.
fn receipt(report: &ForgetReport) -> String {
    let ForgetReport { location, version, rewritten, users, pairs, rows, removed_versions, removed_files, .. } = report;
    let lost = match (rewritten, *rows) {
        (false, _) => format!("{location}: version {version} has none of them"),
        (true, 0) => {
            let (users, pairs) = (users_in_words(*users), grouped(*pairs));
            format!("{location}: version {version} is without {users} and {pairs} pairs of theirs; train again")
        }
        (true, rows) => format!("{location}: version {version} is without {} rows", grouped(rows)),
    };
    let versions = match removed_versions.as_slice() {
        [] => "no version".to_owned(),
        [only] => format!("version {only}"),
        [first, .., last] => format!("versions {first} to {last}"),
    };
    format!("{lost}; {versions} removed, {}", counted(*removed_files))
}
