//! Numbered commits at a location, as a reader sees them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::folder::{Folder, blocking};
use crate::manifest::{MAX_COMMIT_BYTES, sha256};
use crate::{Commit, Error, FileEntry, JobName, Location, Result, Run, Stores};

/// The folder of everything that is not data.
pub(crate) const OURS: &str = "_item_affinity";
const COMMITS: &str = "_item_affinity/commits";

/// What the versions at a location are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// Trained models; data under `versions/<run_id>/`.
    SolutionVersion,
    /// Segment outputs; data under `data/run=<run_id>/`.
    Segments,
}

impl Artifact {
    pub(crate) fn data_folder(self, run_id: &str) -> String {
        match self {
            Self::SolutionVersion => format!("versions/{run_id}"),
            Self::Segments => format!("data/run={run_id}"),
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::SolutionVersion => "solution versions",
            Self::Segments => "segments",
        }
    }

    fn damage_code(self) -> &'static str {
        match self {
            Self::SolutionVersion => "ERR_SOLUTION_DAMAGED",
            Self::Segments => "ERR_COMMIT_INCOMPLETE",
        }
    }

    /// The option of the command line that names such a location.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::SolutionVersion => "--solution",
            Self::Segments => "--output",
        }
    }

    fn remake(self) -> &'static str {
        match self {
            Self::SolutionVersion => "train again",
            Self::Segments => "run the segment job again",
        }
    }
}

/// A location that holds numbered commits. Cheap to clone; reads nothing until asked.
#[derive(Clone, Debug)]
pub struct Versions {
    pub(crate) folder: Folder,
    pub(crate) artifact: Artifact,
    pub(crate) patience: Duration,
    /// What the store is asked for with every write.
    pub(crate) encryption: Option<String>,
    pub(crate) cancellation: CancellationToken,
    pub(crate) beside_delta_log: bool,
    pub(crate) job_name: Option<JobName>,
}

impl Versions {
    /// The versions at a location; the location need not exist yet.
    ///
    /// # Errors
    /// When the environment does not describe a usable store.
    pub fn new(stores: &Stores, location: Location, artifact: Artifact) -> Result<Self> {
        let encryption = stores.encryption(&location);
        let (folder, patience) = (Folder::new(stores, location)?, stores.retry_timeout()?);
        let cancellation = CancellationToken::new();
        Ok(Self { folder, artifact, patience, encryption, cancellation, beside_delta_log: false, job_name: None })
    }

    /// Skips fsync on local disk when `durable` is false; the commit says so. On by default.
    #[must_use]
    pub fn with_durability(mut self, durable: bool) -> Self {
        if let Some(disk) = &mut self.folder.disk {
            disk.durable = durable;
        }
        self
    }

    /// Begins no commit any more once this token is cancelled. A commit that has begun is brought to its end, because
    /// what stands there in the end has to be known.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: CancellationToken) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Lets versions begin in the folder of a Delta table that is there already.
    #[must_use]
    pub fn beside_delta_log(mut self, allowed: bool) -> Self {
        self.beside_delta_log = allowed;
        self
    }

    /// Where they are.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.folder.location
    }

    /// The numbers of the kept versions, ascending and without gaps.
    ///
    /// A listing is not trusted alone: a number that it leaves out is looked for by name.
    ///
    /// # Errors
    /// [`Error::Commit`] for a gap, and what the store answered.
    pub async fn numbers(&self) -> Result<Vec<u64>> {
        let names = self.folder.names(COMMITS).await?;
        let mut numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else { return Ok(Vec::new()) };
        if last - first > numbers.len() as u64 + 1_000 {
            return Err(self.gap(first, last));
        }
        for number in first..=last {
            if !numbers.contains(&number) {
                if self.folder.size(&commit_name(number)).await?.is_none() {
                    return Err(self.gap(first, last));
                }
                numbers.insert(number);
            }
        }
        let mut next = last.saturating_add(1);
        while self.folder.size(&commit_name(next)).await?.is_some() {
            numbers.insert(next);
            next = next.saturating_add(1);
        }
        Ok(numbers.into_iter().collect())
    }

    fn gap(&self, first: u64, last: u64) -> Error {
        Error::Commit {
            reason: format!("a commit between {first} and {last} is missing"),
            file: self.folder.shown(&format!("{COMMITS}/")),
            cure: "restore it: versions are removed from the oldest on only".to_owned(),
            source: None,
        }
    }

    /// One version, with its commit checked.
    ///
    /// # Errors
    /// [`Error::NoVersion`] when there is none of this number, [`Error::Commit`] when its commit breaks a rule.
    pub async fn read(&self, version: u64) -> Result<Commit> {
        match self.try_read(version).await? {
            Some(commit) => Ok(commit),
            None => Err(self.no_version(Some(version), &self.numbers().await?)),
        }
    }

    async fn try_read(&self, version: u64) -> Result<Option<Commit>> {
        let name = commit_name(version);
        let Some(bytes) = self.folder.read(&name, MAX_COMMIT_BYTES).await? else { return Ok(None) };
        let cure = format!("restore it, use an earlier version or {}", self.artifact.remake());
        Commit::from_bytes(&bytes, version, self.artifact, &self.folder.shown(&name), &cure).map(Some)
    }

    /// The raw bytes of a commit.
    pub(crate) async fn commit_bytes(&self, version: u64) -> Result<Option<Bytes>> {
        self.folder.read(&commit_name(version), MAX_COMMIT_BYTES).await
    }

    /// The newest version; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Commit`] when its commit or the chain to the one before it is damaged: the message names the newest
    /// version that is good.
    pub async fn latest(&self) -> Result<Option<Commit>> {
        let numbers = self.numbers().await?;
        let Some(&newest) = numbers.last() else { return Ok(None) };
        match self.read_in_chain(newest).await {
            Err(Error::Commit { reason, file, source, cure }) => {
                let cure = match self.last_good(&numbers).await {
                    Some(good) => {
                        format!("use version {good} ({}@{good}) or {}", self.location(), self.artifact.remake())
                    }
                    None => cure,
                };
                Err(Error::Commit { reason, file, cure, source })
            }
            other => other.map(Some),
        }
    }

    /// A version whose parent, as far as it is kept, is the object that it was made after.
    pub(crate) async fn read_in_chain(&self, version: u64) -> Result<Commit> {
        let commit = self.read(version).await?;
        let Some(parent) = commit.parent_version else { return Ok(commit) };
        let broken = |reason: String| Error::Commit {
            reason,
            file: self.folder.shown(&commit_name(version)),
            cure: format!("find out who changed the commits, then {}", self.artifact.remake()),
            source: None,
        };
        let Some(bytes) = self.commit_bytes(parent).await? else { return Ok(commit) };
        if commit.parent_sha256.as_deref() != Some(&sha256(&bytes)) {
            return Err(broken(format!("commit {parent} was changed after commit {version} was made")));
        }
        let twin = serde_json::from_slice::<Token>(&bytes).is_ok_and(|token| token.commit_token == commit.commit_token);
        if twin { Err(broken(format!("commits {parent} and {version} have one token"))) } else { Ok(commit) }
    }

    async fn last_good(&self, numbers: &[u64]) -> Option<u64> {
        for &number in numbers.iter().rev().skip(1) {
            if self.read_in_chain(number).await.is_ok() {
                return Some(number);
            }
        }
        None
    }

    /// The pinned version, or the newest.
    ///
    /// # Errors
    /// [`Error::NoVersion`] that says what exists, and as [`read`](Self::read) and [`latest`](Self::latest).
    pub async fn resolve(&self, pinned: Option<u64>) -> Result<Commit> {
        match pinned {
            Some(version) => self.read(version).await,
            None => self.latest().await?.ok_or_else(|| self.no_version(None, &[])),
        }
    }

    fn no_version(&self, asked: Option<u64>, numbers: &[u64]) -> Error {
        let exist = match numbers {
            [] => format!("there are no committed {}", self.artifact.plural()),
            [only] => format!("only version {only} exists"),
            [first, .., last] => format!("versions {first} to {last} exist"),
        };
        let reason = asked.map_or_else(|| exist.clone(), |asked| format!("version {asked} does not exist, {exist}"));
        let cure = if numbers.is_empty() { "check the location" } else { "give one of these, or none for the newest" };
        Error::NoVersion { reason, file: self.location().to_string(), cure: cure.to_owned() }
    }

    /// The newest kept version that was made by the same job; then there is nothing to do.
    ///
    /// # Errors
    /// What the store answered. A damaged commit is logged and cannot be the one.
    pub async fn find_job(&self, job_key: &str) -> Result<Option<Commit>> {
        self.find(|commit| commit.body.job_key == job_key).await
    }

    /// The version that a run committed.
    ///
    /// # Errors
    /// [`Error::NoVersion`] when it committed none, and what the store answered.
    pub async fn find_run(&self, run_id: &str) -> Result<Commit> {
        let found = self.find(|commit| commit.run_id == run_id).await?;
        found.ok_or_else(|| Error::NoVersion {
            reason: "this run has committed nothing".to_owned(),
            file: self.location().to_string(),
            cure: "run the same command again".to_owned(),
        })
    }

    async fn find(&self, is_it: impl Fn(&Commit) -> bool) -> Result<Option<Commit>> {
        for number in self.numbers().await?.into_iter().rev() {
            match self.try_read(number).await {
                Ok(Some(commit)) if is_it(&commit) => return Ok(Some(commit)),
                Ok(_) => {}
                Err(error @ Error::Commit { .. }) => tracing::warn!(%error, "passing over a damaged commit"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Starts a run: checks that the location is empty or ours and that the store keeps its word on conditional
    /// writes, and leaves a note of the start.
    ///
    /// # Errors
    /// [`Error::OutputNotEmpty`], [`Error::StoreSetting`] for a store that ignores conditions or a file system without
    /// hard links, [`Error::StoreDenied`] for a missing right.
    pub async fn begin(&self) -> Result<Run> {
        Run::begin(self.clone()).await
    }

    /// As [`begin`](Self::begin), when no other run is at work here: waits for the end of others, which is said once.
    ///
    /// Whoever waited should look again whether there is still something to do.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin); [`Error::Conflict`] when another run is still at work after `patience`;
    /// [`Error::Cancelled`].
    pub async fn begin_alone(&self, patience: Duration, waiting: &(dyn Fn(&str) + Sync)) -> Result<Run> {
        Run::begin_alone(self.clone(), patience, waiting).await
    }

    /// Checks that a file of a commit is there with its size.
    ///
    /// # Errors
    /// [`Error::Damaged`] that names the file and the version.
    pub async fn check_file(&self, entry: &FileEntry) -> Result<()> {
        check_entry(entry)?;
        match self.folder.size(&entry.path).await? {
            Some(size) => self.check_size(entry, size),
            None => Err(self.missing(entry)),
        }
    }

    /// A whole file of a commit, with its size and SHA-256 checked.
    ///
    /// # Errors
    /// [`Error::Damaged`] that names the file and the version.
    pub async fn read_file(&self, entry: &FileEntry) -> Result<Bytes> {
        self.check_file(entry).await?;
        let bytes = match self.folder.read(&entry.path, u64::MAX).await? {
            Some(bytes) => bytes,
            None => return Err(self.missing(entry)),
        };
        self.check_size(entry, bytes.len() as u64)?;
        let (bytes, found) = blocking(move || {
            let found = sha256(&bytes);
            Ok((bytes, found))
        })
        .await?;
        if found == entry.sha256 { Ok(bytes) } else { Err(self.other_bytes(entry)) }
    }

    /// Where a file of a commit is.
    ///
    /// # Errors
    /// [`Error::Name`] when its name leads out of the location.
    pub fn file_location(&self, entry: &FileEntry) -> Result<Location> {
        check_entry(entry)?;
        self.location().child(&entry.path)
    }

    pub(crate) fn check_size(&self, entry: &FileEntry, size: u64) -> Result<()> {
        if size == entry.bytes {
            return Ok(());
        }
        let reason = format!("version {} incomplete: {size} bytes instead of {}", entry.version, entry.bytes);
        Err(self.damaged(entry, reason))
    }

    pub(crate) fn other_bytes(&self, entry: &FileEntry) -> Error {
        self.damaged(entry, format!("sha256 differs from commit {}", entry.version))
    }

    fn missing(&self, entry: &FileEntry) -> Error {
        self.damaged(entry, format!("version {} incomplete: the file is missing", entry.version))
    }

    fn damaged(&self, entry: &FileEntry, reason: String) -> Error {
        let remake = self.artifact.remake();
        let cure = match entry.version {
            0 | 1 => remake.to_owned(),
            version => format!("use an earlier version ({}@{}) or {remake}", self.location(), version - 1),
        };
        let file = self.folder.shown(&entry.path);
        Error::Damaged { code: self.artifact.damage_code(), version: entry.version, reason, file, cure }
    }
}

/// The part of a commit that tells whose it is.
#[derive(Deserialize)]
pub(crate) struct Token {
    pub(crate) commit_token: String,
    #[serde(default)]
    pub(crate) job_key: String,
}

fn check_entry(entry: &FileEntry) -> Result<()> {
    let name = crate::location::printable(&entry.path);
    crate::manifest::check_name(&entry.path).map_err(|reason| Error::Name { reason, name })
}

/// The name of a commit object.
pub(crate) fn commit_name(version: u64) -> String {
    format!("{COMMITS}/{version:020}.json")
}

fn number_of(name: &str) -> Option<u64> {
    const DIGITS: RangeInclusive<u8> = b'0'..=b'9';
    let digits = name.strip_suffix(".json")?;
    let number = digits.len() == 20 && digits.bytes().all(|b| DIGITS.contains(&b));
    digits.parse().ok().filter(|n| number && *n > 0)
}
