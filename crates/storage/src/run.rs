//! A run: files that nobody sees until they are committed as one version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;

use crate::commit::{OURS, Versions};
use crate::durable::Put;
use crate::lease::{Lease, intent_name};
use crate::manifest::{check_name, sha256};
use crate::metrics::Metrics;
use crate::{Artifact, Commit, CommitBody, Error, FileEntry, FileWriter, Result, publish};

/// Garbage collection may remove the files of a run without a commit after this time, so it may not commit any more.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the store is asked whether it keeps its word, when answers are lost.
const PROBES: u32 = 10;

/// What is named in the notes that we leave.
pub(crate) const TOOL: &str = concat!("item-affinity ", env!("CARGO_PKG_VERSION"));

/// A run that writes files and may commit them as one version. All its files lie below its own id, so that nothing is
/// ever overwritten; a run that does not commit leaves only files that no version names.
#[derive(Debug)]
pub struct Run {
    /// Random 128 bits in hex, new for every start.
    pub run_id: String,
    pub(crate) versions: Versions,
    pub(crate) files: Arc<Mutex<Files>>,
    pub(crate) started: i64,
    lease: Lease,
    clock: Instant,
    seconds: Mutex<BTreeMap<&'static str, f64>>,
}

/// The files of a run.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Every name that was given out.
    names: BTreeSet<String>,
    /// Those that are complete.
    entries: Vec<FileEntry>,
    /// Ends of uploads that were given up, under way.
    aborts: Vec<JoinHandle<()>>,
}

impl Files {
    pub(crate) fn add(files: &Mutex<Self>, entry: FileEntry) {
        files.lock().unwrap_or_else(PoisonError::into_inner).entries.push(entry);
    }

    pub(crate) fn add_abort(files: &Mutex<Self>, abort: JoinHandle<()>) {
        files.lock().unwrap_or_else(PoisonError::into_inner).aborts.push(abort);
    }
}

impl Run {
    /// A run that has written nothing yet, at a location that is fit for one.
    async fn prepare(versions: Versions) -> Result<Self> {
        let folder = &versions.folder;
        if let Some(example) = folder.foreign(OURS).await?
            && !(versions.beside_delta_log && folder.has_delta_log().await?)
        {
            return Err(Error::OutputNotEmpty { file: versions.location().to_string(), example });
        }
        if let Some(disk) = folder.disk.clone() {
            crate::folder::blocking(move || disk.make_folder(&format!("{OURS}/commits"))).await?;
        }
        let (run_id, started) = (random_id(), now());
        let run = Self {
            lease: Lease::new(folder.clone(), &run_id, started),
            run_id,
            files: Arc::default(),
            started,
            clock: Instant::now(),
            seconds: Mutex::default(),
            versions: versions.clone(),
        };
        run.probe().await?;
        Ok(run)
    }

    pub(crate) async fn begin(versions: Versions) -> Result<Self> {
        let mut run = Self::prepare(versions).await?;
        run.lease.take().await?;
        Ok(run)
    }

    /// Begins when no other run is at work. Who sees another steps back and tries again, so of several that come at once
    /// at most one begins.
    pub(crate) async fn begin_alone(
        versions: Versions,
        patience: Duration,
        waiting: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        let mut run = Self::prepare(versions).await?;
        let begun = tokio::time::Instant::now();
        let mut said = false;
        let mut looks = 0_u32;
        loop {
            run.lease.take().await?;
            let clock = run.lease.clock().await?;
            let Some(mut holder) = run.lease.other(clock).await? else { return Ok(run) };
            run.lease.withdraw().await;
            loop {
                if !said {
                    said = true;
                    waiting(&format!(
                        "waiting for run {}, which is at work at {}",
                        holder.run_id,
                        run.versions.location()
                    ));
                }
                if begun.elapsed() >= patience {
                    return Err(Error::Conflict {
                        reason: format!(
                            "run {} is at work here, it said so {} s ago, and this one waited {} s",
                            holder.run_id,
                            holder.seconds,
                            patience.as_secs()
                        ),
                        file: run.versions.location().to_string(),
                        run_id: run.run_id.clone(),
                        cure: "run the job again when it has ended, or give a longer --lock-timeout".to_owned(),
                    });
                }
                looks += 1;
                let longest = 2_000.min(100_u64 << looks.min(6));
                let pause = Duration::from_millis(rand::random_range(longest / 2..=longest));
                let pause = pause.min(patience.saturating_sub(begun.elapsed()));
                tokio::select! {
                    () = run.versions.cancellation.cancelled() => {
                        return Err(Error::Cancelled(run.versions.location().to_string()));
                    }
                    () = tokio::time::sleep(pause) => {}
                }
                match run.lease.other(clock).await? {
                    Some(other) => holder = other,
                    None => break,
                }
            }
        }
    }

    /// Creates a name twice: a store on which the second time succeeds would let every job win.
    async fn probe(&self) -> Result<()> {
        let folder = &self.versions.folder;
        let name = self.internal("probe");
        let bytes = Bytes::from_static(b"{}");
        // The first answer may be a false "exists" for our own write, or be lost: the name is random, so whatever stands
        // there is ours. The second time must fail, and a lost answer tells nothing.
        let mut answers = 0;
        let mut created = 0;
        let mut tries = 0;
        let fault = loop {
            tries += 1;
            match folder.create(&name, bytes.clone()).await {
                Put::Created => created += 1,
                Put::Exists if folder.size(&name).await?.is_some() => answers += 1,
                Put::Exists => {}
                Put::Unclear(_) if tries < PROBES => continue,
                Put::Refused(error) | Put::Unclear(error) | Put::NotDurable(error) => break Some(error),
            }
            match (created, answers) {
                (2.., _) => {
                    break Some(Error::StoreSetting {
                        reason: "the store overwrites an object that it was asked to create only if absent".to_owned(),
                        file: folder.shown(&name),
                        cure: "use a store with conditional writes (If-None-Match), such as S3".to_owned(),
                        source: None,
                    });
                }
                (_, 1..) => break None,
                _ if tries >= PROBES => {
                    break Some(Error::Store {
                        operation: "PUT",
                        reason: format!("the store said {tries} times that the name is taken, but nothing is there"),
                        file: folder.shown(&name),
                        source: None,
                    });
                }
                _ => {}
            }
        };
        folder.remove(vec![name.clone()]).await;
        fault.map_or(Ok(()), Err)
    }

    /// Notes how long a phase of the job took, for `metrics.json` beside the commit.
    pub fn note_seconds(&self, phase: &'static str, seconds: f64) {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).insert(phase, seconds);
    }

    /// Puts users on the list of the forgotten of the location, whatever becomes of this run; see
    /// [`Versions::forget`].
    ///
    /// # Errors
    /// What the store answered.
    pub async fn forget<'a>(&self, user_ids: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        self.versions.forget(user_ids).await
    }

    pub(crate) fn artifact(&self) -> Artifact {
        self.versions.artifact
    }

    fn internal(&self, name: &str) -> String {
        format!("{OURS}/runs/{}/{name}", self.run_id)
    }

    fn data(&self, name: &str) -> String {
        format!("{}/{name}", self.artifact().data_folder(&self.run_id))
    }

    /// Gives out a name, once.
    pub(crate) fn reserve(&self, name: &str, path: String) -> Result<String> {
        let refuse = |reason| Error::Name { reason, name: crate::location::printable(name) };
        check_name(name).map_err(refuse)?;
        check_name(&path).map_err(refuse)?;
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if name == "_SUCCESS" || !files.names.insert(path.clone()) {
            return Err(refuse("this run already has a file of this name"));
        }
        Ok(path)
    }

    /// Writes one data file at once; `name` is relative to the data folder of the run, such as
    /// `items/part-00000.parquet`.
    ///
    /// # Errors
    /// [`Error::Name`] for a name that leads out of the run or was given before; what the store answered.
    pub async fn put(&self, name: &str, bytes: Bytes, rows: Option<u64>) -> Result<FileEntry> {
        let path = self.reserve(name, self.data(name))?;
        self.write(path, bytes, rows).await
    }

    /// Writes one file that belongs to the version but is not data, such as `errors.parquet`, below
    /// `_item_affinity/runs/<run_id>/`.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_internal(&self, name: &str, bytes: Bytes, rows: Option<u64>) -> Result<FileEntry> {
        if matches!(name, "intent.json" | "probe" | "metrics.json") {
            return Err(Error::Name { reason: "this name is taken by the protocol", name: name.to_owned() });
        }
        let path = self.reserve(name, self.internal(name))?;
        self.write(path, bytes, rows).await
    }

    async fn write(&self, path: String, bytes: Bytes, rows: Option<u64>) -> Result<FileEntry> {
        let footer = path.ends_with(".parquet").then(|| crate::preflight(&bytes, &path).ok()).flatten();
        let entry = FileEntry {
            bytes: bytes.len() as u64,
            rows,
            row_groups: footer.map(|footer| footer.row_groups as u64),
            sha256: sha256(&bytes),
            version: 0,
            path,
        };
        self.versions.folder.write(&entry.path, bytes).await?;
        Files::add(&self.files, entry.clone());
        Ok(entry)
    }

    /// Streams one data file; several writers may be open at once.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn writer(&self, name: &str) -> Result<FileWriter> {
        let path = self.reserve(name, self.data(name))?;
        FileWriter::open(self.versions.folder.clone(), path, Arc::clone(&self.files)).await
    }

    /// Makes the files visible as the next version, in one step.
    ///
    /// The commit that comes back is that of another run when that run did the same job (`job_key`) first: compare its
    /// `run_id`. The files of this run are removed then.
    ///
    /// # Errors
    /// [`Error::Conflict`] when other jobs took ten numbers in a row, or the run is a week old;
    /// [`Error::CommitUnknown`] when the answer was lost and the store cannot be asked: nothing is deleted then. After
    /// any other error nothing is visible, and the files of the run are removed.
    pub async fn commit(self, body: CommitBody) -> Result<Commit> {
        self.commit_as(body, None).await
    }

    /// As [`commit`](Self::commit), for files that build on what was there: only right after version `after`.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit); [`Error::Conflict`] as soon as another job took the next number.
    pub async fn commit_after(self, body: CommitBody, after: u64) -> Result<Commit> {
        self.commit_as(body, Some(after)).await
    }

    async fn commit_as(mut self, body: CommitBody, after: Option<u64>) -> Result<Commit> {
        let committed = self.try_commit(body, after).await;
        match &committed {
            Ok(commit) if commit.run_id == self.run_id => {
                self.announce(commit).await;
                self.lease.release().await;
            }
            Err(Error::CommitUnknown { .. }) => self.lease.leave().await,
            Ok(_) | Err(_) => self.remove_files().await,
        }
        committed
    }

    async fn try_commit(&self, body: CommitBody, after: Option<u64>) -> Result<Commit> {
        if self.clock.elapsed() > MAX_AGE {
            return Err(Error::Conflict {
                reason: "the run is older than a week, so its files may be gone".to_owned(),
                file: self.versions.location().to_string(),
                run_id: self.run_id.clone(),
                cure: "run the job again".to_owned(),
            });
        }
        let mut entries = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            if files.entries.len() != files.names.len() {
                return Err(Error::Bug { reason: "a file of the run was not finished".to_owned(), source: None });
            }
            files.entries.clone()
        };
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let folder = &self.versions.folder;
        futures::stream::iter(entries.clone())
            .map(|entry| async move {
                if folder.size(&entry.path).await? == Some(entry.bytes) {
                    return Ok(());
                }
                Err(Error::Store {
                    operation: "HEAD",
                    reason: "a file of this run is gone or was cut before the commit".to_owned(),
                    file: folder.shown(&entry.path),
                    source: None,
                })
            })
            .buffer_unordered(16)
            .try_collect::<()>()
            .await?;
        let notes = [intent_name(&self.run_id), crate::commit::commit_name(1)];
        folder.sync(entries.iter().map(|entry| entry.path.clone()).chain(notes).collect()).await?;
        publish::publish(self, body, entries, after).await
    }

    /// Hints for people and programs that list folders; a failure is no error.
    async fn announce(&self, commit: &Commit) {
        let folder = &self.versions.folder;
        let success = serde_json::json!({ "committer": TOOL, "version": commit.version, "run_id": self.run_id });
        let latest = serde_json::json!({
            "version": commit.version, "run_id": self.run_id, "commit": crate::commit::commit_name(commit.version),
        });
        let success = folder.replace(&self.data("_SUCCESS"), success.to_string().into()).await;
        let latest = folder.replace(&format!("{OURS}/latest.json"), latest.to_string().into()).await;
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let metrics = Metrics::new(commit, self.clock.elapsed().as_secs_f64(), seconds);
        let metrics = match serde_json::to_vec(&metrics) {
            Ok(bytes) => folder.replace(&self.internal("metrics.json"), bytes.into()).await,
            Err(_) => Ok(()),
        };
        for error in [success, latest, metrics].into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "the version is committed, but a hint for other programs was not written");
        }
    }

    /// Removes the files of the run, as far as possible. Open writers remove their own when they are dropped.
    pub async fn abandon(mut self) {
        self.remove_files().await;
    }

    async fn remove_files(&mut self) {
        let (names, aborts) = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            (files.names.iter().cloned().collect::<Vec<_>>(), std::mem::take(&mut files.aborts))
        };
        // The process may end right after this.
        for abort in aborts {
            let _ = abort.await;
        }
        self.versions.folder.remove(names).await;
        self.lease.withdraw().await;
    }
}

/// 128 random bits in hex.
pub(crate) fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Epoch seconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
