//! Arguments of every command that commits a version.

use std::time::Duration;

use clap::Args;
use item_affinity_storage::JobName;

use crate::args::parse_bytes;

#[derive(Args, Clone, Debug)]
pub(crate) struct CommitArgs {
    /// How long to wait while another job is at work at the same location; 0s ends at once with exit code 6.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, help_heading = "Commit")]
    pub(crate) lock_timeout: Duration,
    /// On local disk, does not force files to the disk before the commit: a power cut may then lose what was committed.
    #[arg(long, help_heading = "Commit")]
    pub(crate) no_durable: bool,
}

/// Arguments of jobs that schedulers run.
#[derive(Args, Clone, Debug)]
pub(crate) struct NameArgs {
    /// A name for the job, kept in the commit and shown by show: 1 to 63 letters, digits, - and _.
    #[arg(long, value_name = "NAME", help_heading = "Commit")]
    pub(crate) job_name: Option<JobName>,
}

/// Arguments of jobs that make solution versions.
#[derive(Args, Clone, Debug)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// Bytes that the job may take, as 512MB or 4GB; it ends with 8 before a step that takes more. No limit unless said.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) memory_limit: Option<usize>,
}

impl JobArgs {
    /// Bytes that the job may take.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory_limit.map(|bytes| bytes as u64)
    }
}

/// `0s`, `90m`, `36h`, `28d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("'{text}' is not a duration; write 0s, 90m, 36h or 28d");
    let unit = text.chars().last().ok_or_else(refused)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(refused()),
    };
    let number = text.get(..text.len() - unit.len_utf8()).and_then(|number| number.parse::<u64>().ok());
    // A century is longer than anybody waits, and far from any overflow.
    let seconds = number.and_then(|number| number.checked_mul(seconds)).filter(|all| *all <= 36_500 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_have_a_unit_and_an_end() {
        for (text, seconds) in [("0s", 0), ("90m", 5_400), ("36h", 129_600), ("7d", 604_800)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "7", "d", "-1s", "1.5h", "1w", "36501d", "99999999999999999999d", "1 d", "1\u{fc}"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
