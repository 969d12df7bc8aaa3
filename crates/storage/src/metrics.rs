//! Telemetry of a run, beside its commit: how long it took and what it used. Nothing reads it but people and dashboards.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Commit;

/// What a run measured, by name; written as `metrics.json` after the commit.
#[derive(Debug, Serialize)]
pub(crate) struct Metrics<'a> {
    format: &'static str,
    run_id: &'a str,
    version: u64,
    started: i64,
    ended: i64,
    wall_seconds: f64,
    /// Of the process, which may have done other work too.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    files: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    seconds: BTreeMap<&'static str, f64>,
    counts: &'a BTreeMap<String, u64>,
}

impl<'a> Metrics<'a> {
    pub(crate) fn new(commit: &'a Commit, wall_seconds: f64, seconds: BTreeMap<&'static str, f64>) -> Self {
        Self {
            format: "item-affinity-metrics",
            run_id: &commit.run_id,
            version: commit.version,
            started: commit.started,
            ended: commit.committed_at,
            wall_seconds,
            cpu_seconds: cpu_seconds(),
            peak_memory_bytes: peak_memory(),
            files: commit.files.len() as u64,
            bytes: commit.files.iter().map(|file| file.bytes).sum(),
            seconds,
            counts: &commit.body.counts,
        }
    }
}

/// The most memory that this process ever held, on systems that tell.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The processor time of this process in user and system mode, on systems that tell.
fn cpu_seconds() -> Option<f64> {
    /// Linux counts in hundredths of a second, whatever the kernel was built with.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = [fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?];
    Some(ticks.map(f64::from).iter().sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let held = vec![1_u8; 8 << 20];
        assert!(peak_memory().unwrap() > held.len() as u64);
        let before = cpu_seconds().unwrap();
        while cpu_seconds().unwrap() < before + 0.05 {
            std::hint::black_box(held.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
    }
}
