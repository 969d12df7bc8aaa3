//! `ForgetJob`: users leave a solution and its outputs, in the newest version and in all that are kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use item_affinity_solution::{Forgotten, LOCK_TIMEOUT, Observer, Silent, SolutionRef, Stage, forget_users, knows_any};
use item_affinity_storage::{Artifact, Commit, ErrorKind, Location, Run, Stores, Versions};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::forget_segments::CommittedSegments;

/// Takes users out of a solution and of outputs of segment jobs.
///
/// First they are put on the list of the forgotten of the location, as salted hashes: from then on every training, refresh
/// and segment job there passes over them, whatever its data hold. A solution all of whose users are named is an error
/// before that: nothing is written there, nor at the locations after it. Where the newest version holds one of them, the next
/// version is committed without them; then every version up to the last one that holds any is removed, with what runs
/// without a commit left. It may be killed at any moment and run again; where nobody is left of them it does nothing. While
/// it runs, no other job runs at the same location.
///
/// What others learnt from these users stays in the factors until the next training.
#[must_use = "a job does nothing until it is run"]
pub struct ForgetJob {
    users: BTreeSet<String>,
    places: Vec<(String, Artifact)>,
    stores: Stores,
    observer: Arc<dyn Observer>,
    cancellation: CancellationToken,
    lock_timeout: Duration,
    durable: bool,
}

/// What a location lost. No user ids.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ForgetReport {
    /// The location.
    pub location: String,
    /// Its newest version.
    pub version: u64,
    /// Whether that version was made by this job.
    pub rewritten: bool,
    /// Users that the version before it had; for a solution.
    pub users: u64,
    /// Their pairs with an item; for a solution.
    pub pairs: u64,
    /// Rows that went; for segments.
    pub rows: u64,
    /// The versions that were removed.
    pub removed_versions: Vec<u64>,
    /// Files that were removed, those of runs without a commit included.
    pub removed_files: u64,
}

impl ForgetJob {
    /// Forgets these users.
    pub fn new(users: BTreeSet<String>) -> Self {
        Self {
            users,
            places: Vec::new(),
            stores: Stores::from_env(),
            observer: Arc::new(Silent),
            cancellation: CancellationToken::new(),
            lock_timeout: LOCK_TIMEOUT,
            durable: true,
        }
    }

    /// Adds a solution.
    pub fn solution(mut self, location: &str) -> Self {
        self.places.push((location.to_owned(), Artifact::SolutionVersion));
        self
    }

    /// Adds an output of segment jobs.
    pub fn output(mut self, location: &str) -> Self {
        self.places.push((location.to_owned(), Artifact::Segments));
        self
    }

    /// Sets the object stores; without them they come from the environment.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.stores = stores;
        self
    }

    /// Sets who watches.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the token that stops the job: between locations, and before a commit.
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// How long to wait while another job is at work at a location: ten minutes unless said.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Whether files on local disk are forced to the disk before the commit, as they are unless said.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Runs the job, one location after the other, solutions first: segments that are made meanwhile come from them.
    ///
    /// # Errors   see [`Error`]; the locations before it are done then, and the job can be run again
    pub async fn run(self) -> Result<Vec<ForgetReport>> {
        let mut places = Vec::new();
        for (text, artifact) in &self.places {
            let SolutionRef { location, version } = SolutionRef::parse(text)?;
            if version.is_some() {
                return Err(Error::Missing("all versions of a location are looked at; leave out the @ and its number"));
            }
            places.push((location, *artifact));
        }
        if places.is_empty() {
            return Err(Error::Missing("name --solution, --output, or both"));
        }
        places.sort_by_key(|(_, artifact)| *artifact == Artifact::Segments);
        let places = places
            .into_iter()
            .map(|(location, artifact)| Place::new(&self, location, artifact))
            .collect::<Result<Vec<_>>>()?;
        for place in &places {
            place.check().await?;
        }
        let mut reports = Vec::new();
        for place in &places {
            if self.cancellation.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.observer.stage(Stage::new("forgetting", "versions", None));
            reports.push(place.forget().await?);
        }
        Ok(reports)
    }
}

/// One location.
struct Place<'a> {
    job: &'a ForgetJob,
    versions: Versions,
    artifact: Artifact,
}

impl<'a> Place<'a> {
    fn new(job: &'a ForgetJob, location: Location, artifact: Artifact) -> Result<Self> {
        let versions = Versions::new(&job.stores, location, artifact)?
            .with_durability(job.durable)
            .with_cancellation(job.cancellation.clone());
        Ok(Self { job, versions, artifact })
    }

    async fn begin(&self) -> Result<Run> {
        Ok(self.versions.begin_alone(self.job.lock_timeout, &|text| self.job.observer.note(text)).await?)
    }

    /// Refuses, before anything is written anywhere, a location that holds no version, and one of which somebody else keeps
    /// the older versions.
    async fn check(&self) -> Result<()> {
        if self.artifact == Artifact::Segments && self.versions.has_delta_log().await? {
            return Err(item_affinity_storage::Error::StoreSetting {
                reason: "the segments are rows of a Delta table, in whose log and files they stay".to_owned(),
                file: self.versions.location().to_string(),
                cure: "DELETE the users from the table and VACUUM it with your Delta writer, and forget them in the solution"
                    .to_owned(),
                source: None,
            }
            .into());
        }
        self.versions.resolve(None).await?;
        Ok(())
    }

    async fn forget(&self) -> Result<ForgetReport> {
        let run = self.begin().await?;
        let newest = self.versions.resolve(None).await?;
        let mut report = ForgetReport {
            location: self.versions.location().to_string(),
            version: newest.version,
            rewritten: false,
            users: 0,
            pairs: 0,
            rows: 0,
            removed_versions: Vec::new(),
            removed_files: 0,
        };
        let (run, last) = match self.rewrite(&newest, &run, &mut report).await {
            Ok(Some(body)) => {
                report.version = run.commit_after(body, newest.version).await?.version;
                report.rewritten = true;
                (self.begin().await?, Some(newest.version))
            }
            Ok(None) => match self.last_with_any(newest.version).await {
                Ok(last) => (run, last),
                Err(error) => {
                    run.abandon().await;
                    return Err(error);
                }
            },
            Err(error) => {
                run.abandon().await;
                return Err(error);
            }
        };
        let removed = self.remove(&run, last, &mut report).await;
        run.abandon().await;
        removed.map(|()| report)
    }

    /// Writes the newest version anew, if it holds any of the users.
    async fn rewrite(
        &self,
        newest: &Commit,
        run: &Run,
        report: &mut ForgetReport,
    ) -> Result<Option<item_affinity_storage::CommitBody>> {
        let users = &self.job.users;
        if self.artifact == Artifact::SolutionVersion {
            let forgotten = forget_users(&self.job.stores, &self.reference(newest.version), users, run).await?;
            return Ok(forgotten.map(|(body, Forgotten { users, pairs, .. })| {
                (report.users, report.pairs) = (users, pairs);
                body
            }));
        }
        run.forget(users.iter().map(String::as_str)).await?;
        let without = self.segments(newest).without(users, run).await?;
        Ok(without.map(|(body, rows)| {
            report.rows = rows;
            body
        }))
    }

    fn reference(&self, version: u64) -> SolutionRef {
        SolutionRef { location: self.versions.location().clone(), version: Some(version) }
    }

    fn segments<'c>(&'c self, commit: &'c Commit) -> CommittedSegments<'c> {
        CommittedSegments { stores: &self.job.stores, versions: &self.versions, commit }
    }

    /// The last version before `newest` that holds any of the users, or of which that cannot be said.
    async fn last_with_any(&self, newest: u64) -> Result<Option<u64>> {
        let numbers = self.versions.numbers().await?;
        for number in numbers.into_iter().rev().filter(|number| *number < newest) {
            match self.holds_any(number).await {
                Ok(false) => {}
                Ok(true) => return Ok(Some(number)),
                Err(error) if error.kind() == ErrorKind::BadInput => {
                    self.job.observer.warning(&format!("version {number} cannot be read, and goes: {error}"));
                    return Ok(Some(number));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn holds_any(&self, number: u64) -> Result<bool> {
        match self.artifact {
            Artifact::SolutionVersion => {
                Ok(knows_any(&self.job.stores, &self.reference(number), &self.job.users).await?)
            }
            Artifact::Segments => self.segments(&self.versions.read(number).await?).hold_any(&self.job.users).await,
        }
    }

    /// Removes the versions up to `last`, and what runs without a commit left.
    async fn remove(&self, run: &Run, last: Option<u64>, report: &mut ForgetReport) -> Result<()> {
        let numbers = self.versions.numbers().await?;
        let (gone, kept): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|number| Some(*number) <= last);
        if self.artifact == Artifact::Segments {
            self.renew_copies(&gone).await?;
        }
        let found = self.versions.collect_alone(run, kept.len() as u64).await?;
        if let Some(error) = found.failed.into_iter().next() {
            return Err(error.into());
        }
        report.removed_versions = gone;
        report.removed_files = found.collected.iter().map(|group| group.files.len() as u64).sum();
        Ok(())
    }

    /// Amazon Personalize's files under their fixed names: those of the newest version as they are now, others not at all.
    async fn renew_copies(&self, gone: &[u64]) -> Result<()> {
        let newest = self.versions.resolve(None).await?;
        let mut fresh = BTreeSet::new();
        for entry in newest.files.iter().filter(|entry| entry.path.ends_with(".out")) {
            let name = entry.path.rsplit('/').next().unwrap_or_default();
            fresh.insert(name.to_owned());
            if !self.versions.is_copied_out(entry, name).await? {
                self.versions.copy_out(entry, name).await?;
            }
        }
        for number in gone {
            let commit = match self.versions.read(*number).await {
                Ok(commit) => commit,
                Err(error) if error.kind() == ErrorKind::BadInput => continue,
                Err(error) => return Err(error.into()),
            };
            let names = commit.files.iter().filter_map(|entry| entry.path.rsplit('/').next());
            for name in names.filter(|name| name.ends_with(".out") && !fresh.contains(*name)) {
                self.versions.remove_copy(name).await?;
            }
        }
        Ok(())
    }
}
