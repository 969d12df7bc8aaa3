//! The one step that makes a version visible, and what each answer of the store means.
//!
//! Two rules make late answers harmless: a number is given up only after another token was read there, and all tries at
//! one number send the same bytes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::commit::{Token, commit_name};
use crate::durable::Put;
use crate::manifest::{MAX_COMMIT_BYTES, sha256};
use crate::run::{Run, TOOL, now, random_id};
use crate::who::os_user;
use crate::{Commit, CommitBody, Error, FileEntry, Result, Security};

/// How often the next number may turn out to be taken by another job.
const MAX_REBASES: u32 = 10;
/// How often the same number is tried while nothing is there.
const MAX_TRIES: u32 = 10;
/// The least time for reading back after a lost answer.
const READ_BACK: Duration = Duration::from_secs(10);

/// What stands at the number that we want.
enum Found {
    Ours,
    Other(Token, Bytes),
    Nothing,
}

/// Commits the files as the version after the newest; as the one after `after` or not at all when that is given.
pub(crate) async fn publish(run: &Run, body: CommitBody, files: Vec<FileEntry>, after: Option<u64>) -> Result<Commit> {
    let versions = &run.versions;
    let newest = versions.numbers().await?.last().copied();
    if let (Some(after), Some(newest)) = (after, newest)
        && newest != after
    {
        let other = versions.read(newest).await?;
        let same = other.body.job_key == body.job_key && !body.job_key.is_empty();
        return if same { Ok(other) } else { Err(overtaken(run, after)) };
    }
    let mut parent = match newest {
        Some(number) => Some((number, sha256(&parent_bytes(run, number).await?))),
        None => None,
    };
    let token = random_id();
    let deadline = Instant::now() + versions.patience;
    let mut wait = Backoff::default();
    for _ in 0..=MAX_REBASES {
        let version = parent.as_ref().map_or(1, |(number, _)| number.saturating_add(1));
        let (parent_version, parent_sha256) = parent.take().unzip();
        let commit = Commit {
            version,
            run_id: run.run_id.clone(),
            commit_token: token.clone(),
            parent_version,
            parent_sha256,
            body: body.clone(),
            files: files.clone(),
            durable: versions.folder.disk.as_ref().is_none_or(|disk| disk.durable),
            job_name: versions.job_name.as_ref().map(ToString::to_string),
            security: Security { os_user: Some(os_user()), encryption: versions.encryption.clone() },
            started: run.started,
            committed_at: now(),
            tool: TOOL.to_owned(),
            sha256: String::new(),
        };
        let bytes = Bytes::from(commit.to_bytes(versions.artifact)?);
        if bytes.len() as u64 > MAX_COMMIT_BYTES {
            let reason = format!("a commit of {} bytes is over the limit of {MAX_COMMIT_BYTES}", bytes.len());
            return Err(Error::Bug { reason, source: None });
        }
        let attempt = Attempt { run, version, token: &token, bytes: bytes.clone(), deadline };
        match attempt.settle(&mut wait).await? {
            Found::Ours | Found::Nothing => {
                let name = commit_name(version);
                return Commit::from_bytes(
                    &bytes,
                    version,
                    versions.artifact,
                    &versions.folder.shown(&name),
                    "report it",
                );
            }
            Found::Other(other, _) if other.job_key == body.job_key && !body.job_key.is_empty() => {
                return versions.read(version).await;
            }
            Found::Other(..) if after.is_some() => return Err(overtaken(run, version.saturating_sub(1))),
            Found::Other(_, bytes) => {
                parent = Some((version, sha256(&bytes)));
                wait.pause().await;
            }
        }
    }
    Err(Error::Conflict {
        reason: format!("other jobs committed {} versions while this one tried to", MAX_REBASES + 1),
        file: versions.location().to_string(),
        run_id: run.run_id.clone(),
        cure: "run the job again; if it happens often, look at the schedule".to_owned(),
    })
}

/// Another job committed the version after the one that this run builds on.
fn overtaken(run: &Run, after: u64) -> Error {
    Error::Conflict {
        reason: format!("another job committed a version after version {after}, on which this one builds"),
        file: run.versions.location().to_string(),
        run_id: run.run_id.clone(),
        cure: "run the job again; it then builds on the newest version".to_owned(),
    }
}

async fn parent_bytes(run: &Run, number: u64) -> Result<Bytes> {
    let versions = &run.versions;
    versions.commit_bytes(number).await?.ok_or_else(|| Error::Commit {
        reason: format!("commit {number} vanished"),
        file: versions.folder.shown(&commit_name(number)),
        cure: "run the job again when nobody removes versions".to_owned(),
        source: None,
    })
}

/// All tries at one number.
struct Attempt<'a> {
    run: &'a Run,
    version: u64,
    token: &'a str,
    bytes: Bytes,
    deadline: Instant,
}

impl Attempt<'_> {
    /// Tries until the number is ours or another's.
    async fn settle(&self, wait: &mut Backoff) -> Result<Found> {
        let name = commit_name(self.version);
        let mut doubt: Option<Error> = None;
        let mut tries = 0;
        loop {
            // Once a try may have landed, what stands there in the end has to be known.
            if tries == 0 && self.run.versions.cancellation.is_cancelled() {
                return Err(Error::Cancelled(self.run.versions.location().to_string()));
            }
            tries += 1;
            match self.run.versions.folder.create(&name, self.bytes.clone()).await {
                Put::Created => return Ok(Found::Ours),
                Put::NotDurable(error) => {
                    let reason = format!("it is there, but not as asked for: {error}");
                    return Err(self.unknown(&reason, Some(error)));
                }
                Put::Refused(error) if doubt.is_none() => return Err(error),
                Put::Refused(error) | Put::Unclear(error) => doubt = Some(error),
                Put::Exists => {}
            }
            match self.read_back(wait).await? {
                Found::Nothing => {}
                known => return Ok(known),
            }
            if tries >= MAX_TRIES || Instant::now() >= self.deadline {
                // An earlier try whose answer was lost may still land, so only a clean series of "no" is an answer.
                return Err(match doubt {
                    Some(error) => self.unknown("it is not there, but may still come", Some(error)),
                    None => Error::Store {
                        operation: "PUT",
                        reason: format!("the store said {tries} times that the name is taken, but nothing is there"),
                        file: self.run.versions.folder.shown(&name),
                        source: None,
                    },
                });
            }
            wait.pause().await;
        }
    }

    /// What stands at the number now; asks again while the store does not answer.
    async fn read_back(&self, wait: &mut Backoff) -> Result<Found> {
        let until = self.deadline.max(Instant::now() + READ_BACK);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match tokio::time::timeout_at(until, self.run.versions.commit_bytes(self.version)).await {
                Ok(Ok(None)) => return Ok(Found::Nothing),
                Ok(Ok(Some(bytes))) => return self.whose(bytes),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            if tries >= MAX_TRIES || Instant::now() >= until {
                return Err(self.unknown("the store cannot be asked", error));
            }
            wait.pause().await;
        }
    }

    fn whose(&self, bytes: Bytes) -> Result<Found> {
        match serde_json::from_slice::<Token>(&bytes) {
            Ok(token) if token.commit_token == self.token => Ok(Found::Ours),
            Ok(token) => Ok(Found::Other(token, bytes)),
            Err(source) => Err(Error::Commit {
                reason: "another program wrote an object that is no commit".to_owned(),
                file: self.run.versions.folder.shown(&commit_name(self.version)),
                cure: "find out who did, and remove it".to_owned(),
                source: Some(Box::new(source)),
            }),
        }
    }

    fn unknown(&self, reason: &str, source: Option<Error>) -> Error {
        Error::CommitUnknown {
            reason: reason.to_owned(),
            file: self.run.versions.folder.shown(&commit_name(self.version)),
            place: format!("{} {}", self.run.versions.artifact.option(), self.run.versions.location()),
            run_id: self.run.run_id.clone(),
            source: source.map(|error| Box::new(error) as _),
        }
    }
}

/// Waits that double, each cut by a random part so that jobs do not meet again.
#[derive(Default)]
pub(crate) struct Backoff {
    waits: u32,
}

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        let longest = 20_u64.saturating_mul(1 << self.waits.min(7));
        self.waits += 1;
        tokio::time::sleep(Duration::from_millis(rand::random_range(longest / 2..=longest))).await;
    }
}
