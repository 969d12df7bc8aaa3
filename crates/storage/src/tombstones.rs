//! Who was forgotten at a location, so that no later job brings them back.
//!
//! A list of ids would itself be personal data, in the one place that is kept for good. So what is kept is the first half of
//! SHA-256 over a random salt of the location and the id: two locations cannot be compared, and nobody is read off a list.
//! It is a pseudonym, not anonymity: who reads the location and guesses an id can test the guess, as in the user states
//! beside it.
//!
//! Lists are numbered objects, created once and never changed; together they are the forgotten of the location. Who shall be
//! let in again is let in by the removal of these objects.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::commit::OURS;
use crate::durable::Put;
use crate::manifest::hex;
use crate::publish::Backoff;
use crate::run::{now, random_id};
use crate::{Error, Result, Versions};

const FORMAT: &str = "item-affinity-forgotten";
const FORMAT_VERSION: &str = "1.0";
const FORMAT_MAJOR: &str = "1";

/// Lists over this size are neither written nor read.
const MAX_BYTES: u64 = 64 << 20;
/// Users of one list; with 35 bytes each it stays far below the limit.
const MOST_USERS: usize = 500_000;
/// How often another job may take the number that we want.
const TRIES: u32 = 10;
/// Numbers that may be missing before the last one: each is asked for by name, at every job.
const MOST_MISSING: u64 = 10_000;
/// So many of them at once.
const ASKED_AT_ONCE: usize = 16;

/// The first half of a hash.
type Mark = [u8; 16];

/// The forgotten of one location, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    lists: Vec<(String, HashSet<Mark>)>,
}

/// One list as it is written.
#[derive(Serialize, Deserialize)]
struct List {
    format: String,
    format_version: String,
    /// When it was written, epoch seconds.
    recorded: i64,
    salt: String,
    users: Vec<String>,
}

impl List {
    fn new(salt: &str, users: impl Iterator<Item = String>, recorded: i64) -> Self {
        let (format, format_version) = (FORMAT.to_owned(), FORMAT_VERSION.to_owned());
        Self { format, format_version, recorded, salt: salt.to_owned(), users: users.collect() }
    }

    fn marks(self) -> Result<(String, Vec<Mark>), String> {
        if self.format != FORMAT || self.format_version.split('.').next() != Some(FORMAT_MAJOR) {
            let found = crate::location::printable(&format!("{} {}", self.format, self.format_version));
            return Err(format!("it is {found}, where {FORMAT} {FORMAT_MAJOR}.x is read"));
        }
        if unhex(&self.salt).is_none() {
            return Err("the list of the forgotten has no salt of 32 digits".to_owned());
        }
        let marks: Option<Vec<Mark>> = self.users.iter().map(|text| unhex(text)).collect();
        marks
            .map(|marks| (self.salt, marks))
            .ok_or_else(|| "the list of the forgotten holds what is no mark".to_owned())
    }
}

impl Tombstones {
    /// Whether nobody was forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// How many were forgotten; who was in several locations counts once for each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lists.iter().map(|(_, marks)| marks.len()).sum()
    }

    /// Whether this user was forgotten.
    #[must_use]
    pub fn contains(&self, user_id: &str) -> bool {
        self.lists.iter().any(|(salt, marks)| marks.contains(&mark(salt, user_id)))
    }

    /// Those of another location as well.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (salt, marks) in other.lists {
            self.add(salt, marks);
        }
        self
    }

    /// The marks as they travel to tasks of a run; for [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// What JSON says.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let recorded = now();
        let list =
            |(salt, marks): &(String, HashSet<Mark>)| List::new(salt, marks.iter().map(|mark| hex(mark)), recorded);
        serde_json::to_vec(&self.lists.iter().map(list).collect::<Vec<_>>())
    }

    /// The marks that [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let lists: Vec<List> = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
        let mut forgotten = Self::default();
        for list in lists {
            let (salt, marks) = list.marks()?;
            forgotten.add(salt, marks);
        }
        Ok(forgotten)
    }

    fn add(&mut self, salt: String, marks: impl IntoIterator<Item = Mark>) {
        match self.lists.iter_mut().find(|(known, _)| *known == salt) {
            Some((_, known)) => known.extend(marks),
            None => self.lists.push((salt, marks.into_iter().collect())),
        }
    }
}

impl Versions {
    /// The forgotten of this location.
    ///
    /// # Errors
    /// [`Error::Commit`] for a list that cannot be read, and where most lists are missing: a job that went on without
    /// them could bring somebody back. What the store answered.
    ///
    /// # Cost
    /// A listing, one request for each list and each number that is missing before the last one, and one more.
    pub async fn tombstones(&self) -> Result<Tombstones> {
        Ok(self.read_tombstones().await?.0)
    }

    /// Adds users to the forgotten of this location, and gives the number of those who were not among them. On local disk
    /// the list is on disk then.
    ///
    /// # Errors
    /// As [`tombstones`](Self::tombstones); what the store answered. It may be done again.
    pub async fn forget<'a>(&self, user_ids: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        let mut left: BTreeSet<&str> = user_ids.into_iter().collect();
        let asked = left.len();
        let (mut known, mut failed) = (None, None);
        let mut wait = Backoff::default();
        'tries: for tries in 0..TRIES {
            if tries > 0 {
                wait.pause().await;
            }
            let (forgotten, last) = self.read_tombstones().await?;
            left.retain(|id| !forgotten.contains(id));
            let before = *known.get_or_insert(asked - left.len());
            if left.is_empty() {
                return Ok((asked - before) as u64);
            }
            // One salt for all lists of a location: each id is hashed once for each salt.
            let salt = forgotten.lists.first().map_or_else(random_id, |(salt, _)| salt.clone());
            for (number, chunk) in (last.saturating_add(1)..).zip(chunks(&left)) {
                let list = List::new(&salt, chunk.iter().map(|id| hex(&mark(&salt, id))), now());
                let bytes = serde_json::to_vec(&list).map_err(|e| Error::Bug {
                    reason: "a list of the forgotten cannot be written as JSON".to_owned(),
                    source: Some(Box::new(e)),
                })?;
                let name = list_name(number);
                match self.folder.create(&name, Bytes::from(bytes)).await {
                    Put::Created => self.folder.sync(vec![name]).await?,
                    Put::Refused(error) | Put::NotDurable(error) => return Err(error),
                    // Taken by another, or perhaps ours: what stands there tells.
                    Put::Exists => continue 'tries,
                    Put::Unclear(error) => {
                        failed = Some(error);
                        continue 'tries;
                    }
                }
            }
            return Ok((asked - before) as u64);
        }
        Err(failed.unwrap_or_else(|| Error::Store {
            operation: "PUT",
            reason: format!("other jobs took the number of the list {TRIES} times"),
            file: self.folder.shown(&format!("{OURS}/forgotten/")),
            source: None,
        }))
    }

    /// The forgotten, and the number of the last list.
    async fn read_tombstones(&self) -> Result<(Tombstones, u64)> {
        let numbers = self.list_numbers().await?;
        let last = numbers.last().copied().unwrap_or_default();
        let mut forgotten = Tombstones::default();
        for number in numbers {
            let name = list_name(number);
            // Removed a moment ago.
            let Some(bytes) = self.folder.read(&name, MAX_BYTES).await? else { continue };
            let (salt, marks) = read_list(&bytes).map_err(|reason| Error::Commit {
                reason,
                file: self.folder.shown(&name),
                cure: "restore it; or remove it, and run forget again for the users that it was made for".to_owned(),
                source: None,
            })?;
            forgotten.add(salt, marks);
        }
        Ok((forgotten, last))
    }

    /// The numbers of the lists. A listing may leave one out, whose users would come in again: so a number that is missing
    /// is looked for by name, which gives nothing where the list was removed on purpose.
    async fn list_numbers(&self) -> Result<BTreeSet<u64>> {
        let names = self.folder.names(&format!("{OURS}/forgotten")).await?;
        let mut numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        let mut last = numbers.last().copied().unwrap_or_default();
        if last > (numbers.len() as u64).saturating_add(MOST_MISSING) {
            return Err(Error::Commit {
                reason: format!("most lists of the forgotten before number {last} are missing"),
                file: self.folder.shown(&list_name(last)),
                cure: "remove it if it is none of the lists that forget wrote; else restore the others".to_owned(),
                source: None,
            });
        }
        let folder = &self.folder;
        let missing: Vec<u64> = (1..last).filter(|number| !numbers.contains(number)).collect();
        let look = |number| async move { Ok::<_, Error>(folder.size(&list_name(number)).await?.map(|_| number)) };
        let found: Vec<Option<u64>> = stream::iter(missing).map(look).buffered(ASKED_AT_ONCE).try_collect().await?;
        numbers.extend(found.into_iter().flatten());
        // Far from the last number that there is.
        while folder.size(&list_name(last + 1)).await?.is_some() {
            last += 1;
            numbers.insert(last);
        }
        Ok(numbers)
    }
}

fn chunks(ids: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    ids.chunks(MOST_USERS).map(<[String]>::to_vec).collect()
}

fn mark(salt: &str, user_id: &str) -> Mark {
    let digest = Sha256::new().chain_update(salt.as_bytes()).chain_update(user_id.as_bytes()).finalize();
    let mut mark = Mark::default();
    mark.iter_mut().zip(digest.iter()).for_each(|(mark, byte)| *mark = *byte);
    mark
}

/// The salt and the marks of a list, or what is wrong with it.
fn read_list(bytes: &[u8]) -> Result<(String, Vec<Mark>), String> {
    serde_json::from_slice::<List>(bytes).map_err(|e| damaged(&e))?.marks()
}

fn damaged(error: &serde_json::Error) -> String {
    format!("the list of the forgotten is damaged (line {} column {})", error.line(), error.column())
}

/// 32 hexadecimal digits in lower case.
fn unhex(text: &str) -> Option<Mark> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut mark = Mark::default();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != mark.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in mark.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(mark)
}

fn list_name(number: u64) -> String {
    format!("{OURS}/forgotten/{number:020}.json")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Artifact, Location, Stores};

    fn versions(stores: &Stores, location: &str) -> Versions {
        Versions::new(stores, Location::parse(location).unwrap(), Artifact::SolutionVersion).unwrap()
    }

    #[tokio::test]
    async fn p38_the_forgotten_are_known_again_and_nobody_else_is() {
        let (stores, folder) = (Stores::in_memory(), tempfile::tempdir().unwrap());
        for location in ["memory:///a", &folder.path().display().to_string()] {
            let versions = versions(&stores, location);
            assert!(versions.tombstones().await.unwrap().is_empty());
            assert_eq!(versions.forget(["anna", "otto"]).await.unwrap(), 2);
            // Again nothing is written, and a second list has the salt of the first.
            assert_eq!(versions.forget(["otto"]).await.unwrap(), 0);
            assert_eq!(versions.forget(["otto", "emil"]).await.unwrap(), 1);
            let known = versions.tombstones().await.unwrap();
            assert_eq!((known.len(), known.lists.len()), (3, 1));
            assert_eq!(Tombstones::from_json(&known.to_json().unwrap()).unwrap(), known);
            assert!(["anna", "otto", "emil"].into_iter().all(|id| known.contains(id)));
            assert!(["Anna", "ann", "", "annaotto"].into_iter().all(|id| !known.contains(id)));
        }
        assert_eq!(std::fs::read_dir(folder.path().join("_item_affinity/forgotten")).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn p40_a_list_names_nobody_and_two_locations_have_nothing_in_common() {
        let stores = Stores::in_memory();
        let mut texts = Vec::new();
        for location in ["memory:///a", "memory:///b"] {
            let versions = versions(&stores, location);
            versions.forget(["canary-user"]).await.unwrap();
            let bytes = versions.folder.read(&list_name(1), MAX_BYTES).await.unwrap().unwrap();
            texts.push(String::from_utf8(bytes.to_vec()).unwrap());
        }
        let plain = hex(&mark("", "canary-user"));
        assert!(texts.iter().all(|text| !text.contains("canary") && !text.contains(&plain)));
        let users = texts.iter().map(|text| serde_json::from_str::<List>(text).unwrap().users).collect::<Vec<_>>();
        assert_ne!(users[0], users[1]);
        let both = versions(&stores, "memory:///a").tombstones().await.unwrap();
        let both = both.and(versions(&stores, "memory:///b").tombstones().await.unwrap());
        assert_eq!(both.lists.len(), 2);
        assert!(both.contains("canary-user"));
    }

    #[tokio::test]
    async fn p38_a_list_that_cannot_be_read_stops_whoever_needs_it() {
        let stores = Stores::in_memory();
        let versions = versions(&stores, "memory:///a");
        versions.forget(["anna"]).await.unwrap();
        let good = versions.folder.read(&list_name(1), MAX_BYTES).await.unwrap().unwrap();
        let good = String::from_utf8(good.to_vec()).unwrap();
        for (bad, says) in [
            (good.replace("1.0", "2.0"), "item-affinity-forgotten 2.0"),
            (good.replace("[\"", "[\"x"), "no mark"),
            (good.replace("\"salt\":\"", "\"salt\":\"../"), "no salt"),
            (good[..good.len() / 2].to_owned(), "damaged (line 1 column "),
            (String::new(), "damaged"),
        ] {
            versions.folder.replace(&list_name(1), Bytes::from(bad)).await.unwrap();
            let error = versions.tombstones().await.unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::BadInput);
            assert!(error.to_string().starts_with("ERR_COMMIT: ") && error.to_string().contains(says), "{error}");
        }
    }
}
