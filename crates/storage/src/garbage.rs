//! Removing what no version needs: runs that never committed, and versions that are older than anybody wants.
//!
//! The order is what makes it safe beside running jobs: files are listed first and commits are read after them, so a run
//! that commits in between is seen as committed; a version loses its commit first and its files after that, so that no
//! commit names a file that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::commit::{OURS, commit_name};
use crate::folder::Object;
use crate::run::random_id;
use crate::run_member::is_of_task;
use crate::{Artifact, Commit, Error, Result, Run, Versions};

/// A younger run without a commit may still be at work.
const LEAST_AGE: Duration = Duration::from_secs(24 * 3600);

/// What may be removed.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// A run without a commit goes when it wrote nothing for so long, at least a day; a week unless said.
    pub older_than: Duration,
    /// So many of the newest versions stay; all of them when neither this nor `keep_for` is given.
    pub keep_versions: Option<u64>,
    /// Versions that were committed within this time stay.
    pub keep_for: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { older_than: Duration::from_secs(7 * 24 * 3600), keep_versions: None, keep_for: None }
    }
}

/// Why something goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The files of a run that never committed.
    Uncommitted {
        /// The run.
        run_id: String,
        /// How long ago it last wrote something.
        age: Duration,
    },
    /// A version that retention does not keep.
    Expired {
        /// Its number.
        version: u64,
        /// The run that made it.
        run_id: String,
    },
    /// What tasks that were run again left beside the files of a version that stays: Parquet files with names that tasks
    /// give, which the commit does not name.
    Leftover {
        /// Its number.
        version: u64,
        /// The run that made it.
        run_id: String,
    },
    /// Temporary files that a killed process left beside the commits.
    Temporary,
}

/// Files that go for one reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Collected {
    /// Why.
    pub reason: Reason,
    /// Their names below the location, in the order in which they are removed.
    pub files: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
}

/// What a collection removed, or would remove.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collection {
    /// What goes.
    pub collected: Vec<Collected>,
    /// The versions that stay.
    pub kept: Vec<u64>,
    /// Runs without a commit that are too young to go.
    pub young: u64,
    /// What could not be removed.
    pub failed: Vec<Error>,
}

impl Versions {
    /// Finds what no version needs, and removes it when `delete` is set.
    ///
    /// Never touched: a file that a commit names, what others put beside the data of a version that stays, and whatever is
    /// not below the folders of runs. The newest version always stays. Ages are measured by the clock of the store, except
    /// that a dry run, which writes nothing, takes that of this machine.
    ///
    /// # Errors
    /// [`Error::StoreSetting`] for an age under a day or a retention of nothing; [`Error::Commit`] when the commits cannot
    /// all be read; what the store answered. Nothing was removed then.
    pub async fn collect(&self, retention: &Retention, delete: bool) -> Result<Collection> {
        self.check(retention)?;
        self.collect_beside(None, retention, delete).await
    }

    /// Removes all versions before the newest `keep_versions`, and the files of all other runs without a commit, whatever
    /// their age: `run` is the only one at work here, since it was begun by [`begin_alone`](Self::begin_alone) and holds
    /// its lease. A run that was thought dead and wakes up finds its files gone, and does not commit.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn collect_alone(&self, run: &Run, keep_versions: u64) -> Result<Collection> {
        let retention =
            Retention { older_than: Duration::ZERO, keep_versions: Some(keep_versions.max(1)), ..Retention::default() };
        self.collect_beside(Some(run), &retention, true).await
    }

    /// Whether a Delta table lies here, whose log says which of the files are read.
    ///
    /// # Errors
    /// What the store answered.
    pub async fn has_delta_log(&self) -> Result<bool> {
        self.folder.has_delta_log().await
    }

    async fn collect_beside(&self, run: Option<&Run>, retention: &Retention, delete: bool) -> Result<Collection> {
        let keeps_all = run.is_none() && retention.keep_versions.is_none() && retention.keep_for.is_none();
        if !keeps_all && self.folder.has_delta_log().await? {
            return Err(Error::StoreSetting {
                reason: "the files of versions are data of a Delta table".to_owned(),
                file: self.location().to_string(),
                cure:
                    "leave out --keep-versions and --keep-days, and let DELETE and VACUUM of the table remove what it \
                       needs no more"
                        .to_owned(),
                source: None,
            });
        }
        if let Some(example) = self.folder.foreign(OURS).await? {
            return Err(Error::OutputNotEmpty { file: self.location().to_string(), example });
        }
        // Files first, commits after: see above.
        let mut objects = self.folder.objects(data_root(self.artifact)).await?;
        objects.extend(self.folder.objects(OURS).await?);
        let own = run.map(|run| run.run_id.as_str());
        objects.retain(|object| own.is_none() || run_of(self.artifact, &object.name) != own);
        let mut commits = Vec::new();
        for number in self.numbers().await? {
            commits.push(self.read(number).await?);
        }
        let now = if delete && !objects.is_empty() { self.store_now().await? } else { own_now() };
        let expired = expired(&commits, retention, now);
        let mut found = plan(self.artifact, objects, &commits, &expired, retention.older_than, now);
        found.kept = commits.iter().map(|commit| commit.version).filter(|version| !expired.contains(version)).collect();
        if delete {
            self.remove_all(&mut found).await;
        }
        Ok(found)
    }

    pub(crate) fn check(&self, retention: &Retention) -> Result<()> {
        let refused = |reason: String, cure: &str| {
            Err(Error::StoreSetting { reason, file: self.location().to_string(), cure: cure.to_owned(), source: None })
        };
        if retention.older_than < LEAST_AGE {
            let reason = "a run that wrote something within a day may still be at work".to_owned();
            return refused(reason, "give --older-than 1d or more");
        }
        if retention.keep_versions == Some(0) {
            return refused("the newest version always stays".to_owned(), "give --keep-versions 1 or more");
        }
        Ok(())
    }

    /// The clock of the store, from an object that is written for that and removed.
    pub(crate) async fn store_now(&self) -> Result<i64> {
        let name = format!("{OURS}/runs/{}/clock", random_id());
        self.folder.replace(&name, Bytes::from_static(b"{}")).await?;
        let modified = self.folder.modified(&name).await;
        self.folder.remove(vec![name.clone()]).await;
        modified?.ok_or_else(|| Error::Store {
            operation: "HEAD",
            reason: "an object that was just written is not there".to_owned(),
            file: self.folder.shown(&name),
            source: None,
        })
    }

    /// Removes what was found. A version whose commit stays keeps its files, and so do all after it.
    async fn remove_all(&self, found: &mut Collection) {
        let mut stopped = false;
        for group in &mut found.collected {
            let is_version = matches!(group.reason, Reason::Expired { .. });
            let mut left = Vec::new();
            for name in std::mem::take(&mut group.files) {
                if stopped && is_version {
                    continue;
                }
                match self.folder.delete(&name).await {
                    Ok(()) => left.push(name),
                    Err(error) => {
                        found.failed.push(error);
                        stopped |= is_version;
                    }
                }
            }
            group.files = left;
        }
        found.collected.retain(|group| !group.files.is_empty());
    }
}

/// The clock of this machine, in milliseconds.
pub(crate) fn own_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The versions that retention does not keep: from the oldest on, never the newest, and never one after a kept one.
fn expired(commits: &[Commit], retention: &Retention, now_millis: i64) -> BTreeSet<u64> {
    if retention.keep_versions.is_none() && retention.keep_for.is_none() {
        return BTreeSet::new();
    }
    let newest = commits.len().saturating_sub(1);
    let kept = |at: usize, commit: &Commit| {
        let by_count = retention.keep_versions.is_some_and(|keep| ((commits.len() - at) as u64) <= keep);
        let by_age = retention.keep_for.is_some_and(|keep| {
            let age = (now_millis / 1_000).saturating_sub(commit.committed_at);
            u64::try_from(age).unwrap_or_default() < keep.as_secs()
        });
        at == newest || by_count || by_age
    };
    let goes = commits.iter().enumerate().take_while(|(at, commit)| !kept(*at, commit));
    goes.map(|(_, commit)| commit.version).collect()
}

/// What goes of the objects: whole runs without a commit, and whole expired versions.
fn plan(
    artifact: Artifact,
    objects: Vec<Object>,
    commits: &[Commit],
    expired: &BTreeSet<u64>,
    older_than: Duration,
    now_millis: i64,
) -> Collection {
    let kept = commits.iter().filter(|commit| !expired.contains(&commit.version));
    let named: BTreeSet<&str> = kept.flat_map(|commit| &commit.files).map(|file| file.path.as_str()).collect();
    let committed: BTreeMap<&str, u64> = commits.iter().map(|c| (c.run_id.as_str(), c.version)).collect();
    let old = |millis: i64| {
        let age = Duration::from_millis(u64::try_from(now_millis.saturating_sub(millis)).unwrap_or_default());
        (age >= older_than, age)
    };
    let mut found = Collection::default();
    let mut runs = BTreeMap::<String, Vec<Object>>::new();
    let mut temporary = Vec::new();
    let sizes: BTreeMap<String, u64> = objects.iter().map(|object| (object.name.clone(), object.bytes)).collect();
    for object in objects {
        match run_of(artifact, &object.name) {
            Some(run_id) => runs.entry(run_id.to_owned()).or_default().push(object),
            None if is_temporary(&object.name) && old(object.modified).0 => temporary.push(object),
            None => {}
        }
    }
    let group = |reason, first: Option<String>, objects: Vec<Object>| {
        let names = objects.into_iter().map(|object| object.name).filter(|name| !named.contains(name.as_str()));
        let files: Vec<String> = first.into_iter().chain(names).collect();
        let bytes = files.iter().filter_map(|name| sizes.get(name)).sum();
        Collected { reason, files, bytes }
    };
    for (run_id, objects) in &runs {
        let last = objects.iter().map(|object| object.modified).max().unwrap_or(i64::MAX);
        match (committed.get(run_id.as_str()), old(last)) {
            (Some(version), _) if !expired.contains(version) => {
                // Whatever else lies there is a file of the protocol, or one that somebody put beside the data.
                let is_left = |object: &&Object| {
                    let data = object.name.starts_with(data_root(artifact)) && is_of_task(&object.name);
                    data && old(object.modified).0
                };
                let left = objects.iter().filter(is_left).cloned().collect();
                let reason = Reason::Leftover { version: *version, run_id: run_id.clone() };
                found.collected.push(group(reason, None, left));
            }
            (Some(_), _) => {}
            (None, (false, _)) => found.young += 1,
            (None, (true, age)) => {
                let reason = Reason::Uncommitted { run_id: run_id.clone(), age };
                found.collected.push(group(reason, None, objects.clone()));
            }
        }
    }
    for commit in commits.iter().filter(|commit| expired.contains(&commit.version)) {
        let reason = Reason::Expired { version: commit.version, run_id: commit.run_id.clone() };
        let objects = runs.get(&commit.run_id).cloned().unwrap_or_default();
        found.collected.push(group(reason, Some(commit_name(commit.version)), objects));
    }
    if !temporary.is_empty() {
        found.collected.push(group(Reason::Temporary, None, temporary));
    }
    found.collected.retain(|group| !group.files.is_empty());
    found
}

/// The folder of the data folders of all runs.
pub(crate) fn data_root(artifact: Artifact) -> &'static str {
    match artifact {
        Artifact::SolutionVersion => "versions",
        Artifact::Segments => "data",
    }
}

/// The run whose folder an object lies in; `None` for everything that is no run's.
pub(crate) fn run_of(artifact: Artifact, name: &str) -> Option<&str> {
    let data = match artifact {
        Artifact::SolutionVersion => "versions/",
        Artifact::Segments => "data/run=",
    };
    let rest = name.strip_prefix(data).or_else(|| name.strip_prefix(OURS)?.strip_prefix("/runs/"))?;
    let (run_id, file) = rest.split_once('/')?;
    let is_id = run_id.len() == 32 && run_id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (is_id && !file.is_empty()).then_some(run_id)
}

/// What a process leaves that is killed between writing a note and giving it its name.
fn is_temporary(name: &str) -> bool {
    let Some((folder, file)) = name.rsplit_once('/') else { return false };
    let random = file.strip_prefix('.').and_then(|file| file.strip_suffix(".tmp"));
    let is_random = random.is_some_and(|r| r.len() == 32 && r.bytes().all(|b| b.is_ascii_hexdigit()));
    is_random && folder.starts_with(OURS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_files_below_a_run_id_are_of_a_run() {
        let id = "0123456789abcdef0123456789abcdef";
        let of = |artifact, name: &str| run_of(artifact, name).map(str::to_owned);
        for name in
            [format!("data/run={id}/part"), format!("data/run={id}/a/b#1"), format!("{OURS}/runs/{id}/intent.json")]
        {
            assert_eq!(of(Artifact::Segments, &name).as_deref(), Some(id), "{name}");
        }
        assert_eq!(of(Artifact::SolutionVersion, &format!("versions/{id}/model.json")).as_deref(), Some(id));
        for name in [
            format!("versions/{id}/model.json"),
            format!("data/run={id}"),
            format!("data/run={id}x/part"),
            "data/run=mine/part".to_owned(),
            format!("data/{id}/part"),
            format!("{OURS}/commits/00000000000000000001.json"),
            format!("{OURS}/latest.json"),
            "holiday.jpg".to_owned(),
        ] {
            assert_eq!(of(Artifact::Segments, &name), None, "{name}");
        }
        assert!(is_temporary(&format!("{OURS}/commits/.{id}.tmp")));
        assert!(!is_temporary(&format!("data/.{id}.tmp")) && !is_temporary(&format!("{OURS}/commits/.x.tmp")));
    }
}
