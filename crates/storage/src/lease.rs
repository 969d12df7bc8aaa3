//! The lease of a run: who is at work at a location, so that two jobs do not do the same work at once.
//!
//! A lease only saves work; what keeps versions whole is the conditional create of the commit. It is the note
//! `intent.json` of the run, renewed while the run lives. It expires by the time of the store, so the clocks of the
//! machines do not matter; on the machine where its process died it is over at once.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::OURS;
use crate::folder::Folder;
use crate::manifest::sha256;
use crate::run::TOOL;
use crate::{Error, Result};

/// A lease that was not renewed for so long, by the time of the store, is over.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
const RENEWALS_PER_LEASE: u32 = 4;
/// Intents are small; a larger object is none.
const MAX_INTENT_BYTES: u64 = 64 << 10;

/// What a run says about itself before it writes anything else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Intent {
    format: String,
    run_id: String,
    /// Epoch seconds, for people.
    started: i64,
    /// Seconds without a renewal after which the run counts as dead; 0 when it has ended.
    #[serde(default)]
    lease_seconds: u64,
    #[serde(default)]
    process: Option<Process>,
    tool: String,
}

/// A process, told from others on the same machine; the machine is a hash, which tells nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    machine: String,
    id: u32,
    /// When it started, in the clock ticks of the kernel: ids of processes are used again.
    ticks: u64,
}

impl Process {
    /// This process, on systems that can tell.
    fn current() -> Option<Self> {
        let id = std::process::id();
        Some(Self { machine: machine()?, id, ticks: start_ticks(id)? })
    }

    /// Whether it is known to have ended; a process of another machine is not known.
    fn is_dead(&self) -> bool {
        machine().is_some_and(|machine| machine == self.machine) && start_ticks(self.id) != Some(self.ticks)
    }
}

/// This machine since it was booted, and the table of processes that we see of it.
fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(sha256(format!("{}{}", boot.trim(), namespace.display()).as_bytes())[..32].to_owned())
}

/// The start of a process that still runs.
fn start_ticks(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything, spaces and parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    // A process that was killed stays listed until its parent asks for it.
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

impl Intent {
    pub(crate) fn new(run_id: &str, started: i64) -> Self {
        Self {
            format: "item-affinity-intent".to_owned(),
            run_id: run_id.to_owned(),
            started,
            lease_seconds: LEASE.as_secs(),
            process: Process::current(),
            tool: TOOL.to_owned(),
        }
    }

    fn bytes(&self) -> Result<Bytes> {
        let text = serde_json::to_vec(self);
        text.map(Bytes::from).map_err(|e| Error::Bug {
            reason: "an intent cannot be written as JSON".to_owned(),
            source: Some(Box::new(e)),
        })
    }
}

/// The name of the intent of a run.
pub(crate) fn intent_name(run_id: &str) -> String {
    format!("{OURS}/runs/{run_id}/intent.json")
}

/// The lease of one run, renewed by a task until it is released or dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    folder: Folder,
    intent: Intent,
    stop: CancellationToken,
    renewal: Option<JoinHandle<()>>,
    /// Whether the intent is written and has to be taken back.
    held: bool,
}

impl Lease {
    pub(crate) fn new(folder: Folder, run_id: &str, started: i64) -> Self {
        let intent = Intent::new(run_id, started);
        Self { folder, intent, stop: CancellationToken::new(), renewal: None, held: false }
    }

    fn name(&self) -> String {
        intent_name(&self.intent.run_id)
    }

    /// Writes the intent and keeps renewing it.
    pub(crate) async fn take(&mut self) -> Result<()> {
        let (name, bytes) = (self.name(), self.intent.bytes()?);
        self.folder.replace(&name, bytes.clone()).await?;
        self.held = true;
        self.stop = CancellationToken::new();
        let (folder, stop) = (self.folder.clone(), self.stop.clone());
        self.renewal = Some(tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LEASE / RENEWALS_PER_LEASE) => {}
                }
                // A run whose lease ran out may still commit: others then have done some work in vain.
                if let Err(error) = folder.replace(&name, bytes.clone()).await {
                    tracing::warn!(%error, "the lease of this run was not renewed");
                }
            }
        }));
        Ok(())
    }

    /// Stops the renewal, and waits for one that is under way: it must not come after what follows.
    async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(renewal) = self.renewal.take() {
            let _ = renewal.await;
        }
    }

    /// Takes the intent back, as if the run had never begun.
    pub(crate) async fn withdraw(&mut self) {
        self.stop().await;
        self.folder.remove(vec![self.name()]).await;
        self.held = false;
    }

    /// Says that the run has ended, and leaves its intent as a record. Without that the lease expires by itself.
    pub(crate) async fn release(&mut self) {
        self.stop().await;
        self.held = false;
        let ended = Intent { lease_seconds: 0, process: None, ..self.intent.clone() };
        let written = match ended.bytes() {
            Ok(bytes) => self.folder.replace(&self.name(), bytes).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the lease of this run was not released; it expires by itself");
        }
    }

    /// Leaves the lease to expire: whether the run has committed is not known.
    pub(crate) async fn leave(&mut self) {
        self.stop().await;
        self.held = false;
    }

    /// When the store says that our intent was last written, as milliseconds of its own clock, and when we asked.
    pub(crate) async fn clock(&self) -> Result<StoreClock> {
        let name = self.name();
        let written = self.folder.modified(&name).await?;
        let written = written.ok_or_else(|| Error::Store {
            operation: "HEAD",
            reason: "the intent of this run vanished".to_owned(),
            file: self.folder.shown(&name),
            source: None,
        })?;
        Ok(StoreClock { written, asked: Instant::now() })
    }

    /// Another run that is at work here.
    pub(crate) async fn other(&self, clock: StoreClock) -> Result<Option<Holder>> {
        let now = clock.now();
        for object in self.folder.objects(&format!("{OURS}/runs")).await? {
            let run_id = object.name.rsplit('/').nth(1).unwrap_or_default();
            let age = u64::try_from(now.saturating_sub(object.modified)).unwrap_or_default();
            if !object.name.ends_with("/intent.json") || run_id == self.intent.run_id || !is_fresh(age, LEASE) {
                continue;
            }
            // What vanished, or is no intent, holds nothing.
            let Some(bytes) = self.folder.read(&object.name, MAX_INTENT_BYTES).await? else { continue };
            let Ok(intent) = serde_json::from_slice::<Intent>(&bytes) else { continue };
            let dead = intent.process.is_some_and(|process| process.is_dead());
            if is_fresh(age, Duration::from_secs(intent.lease_seconds)) && !dead {
                return Ok(Some(Holder { run_id: run_id.to_owned(), seconds: age / 1_000 }));
            }
        }
        Ok(None)
    }
}

fn is_fresh(age_millis: u64, lease: Duration) -> bool {
    u128::from(age_millis) < lease.as_millis()
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        if !self.held {
            return;
        }
        let (folder, name) = (self.folder.clone(), self.name());
        match (&folder.disk, tokio::runtime::Handle::try_current()) {
            (Some(disk), _) => disk.remove(&[name]),
            (None, Ok(runtime)) => drop(runtime.spawn(async move { folder.remove(vec![name]).await })),
            // It expires by itself.
            (None, Err(_)) => {}
        }
    }
}

/// The clock of the store, read once and moved on by our own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreClock {
    written: i64,
    asked: Instant,
}

impl StoreClock {
    fn now(self) -> i64 {
        self.written.saturating_add(i64::try_from(self.asked.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// A run that is at work.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) run_id: String,
    /// How long ago it said so.
    pub(crate) seconds: u64,
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_dead_when_it_was_killed_even_before_anybody_asks_for_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process { id: child.id(), ticks: start_ticks(child.id()).unwrap(), machine: machine().unwrap() };
        assert!(!process.is_dead());
        assert!(Process { ticks: process.ticks + 1, ..process.clone() }.is_dead(), "another process of the same id");
        assert!(!Process { machine: "elsewhere".to_owned(), id: u32::MAX, ticks: 1 }.is_dead());
        child.kill().unwrap();
        let begun = std::time::Instant::now();
        while !process.is_dead() && begun.elapsed().as_secs() < 5 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(process.is_dead());
        child.wait().unwrap();
        assert!(process.is_dead());
        assert!(!Process::current().unwrap().is_dead());
    }
}
