//! Files of a run that other processes write: tasks of a cluster write, the process that began the run commits.

use bytes::Bytes;

use crate::commit::OURS;
use crate::lease::intent_name;
use crate::manifest::{check_name, sha256};
use crate::run::{Files, random_id};
use crate::{Error, FileEntry, Result, Run, Versions};

/// Bytes of a note, at most.
const LONGEST_NOTE: u64 = 1 << 30;

/// Digits of the random part of a name.
const RANDOM_DIGITS: usize = 16;

/// Whether a file has a name that [`RunMember::put_parquet`] gives, and so was written by a task.
pub(crate) fn is_of_task(name: &str) -> bool {
    let random = name.strip_suffix(".parquet").and_then(|stem| stem.rsplit_once('-')).map(|(_, random)| random);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    random.is_some_and(|random| random.len() == RANDOM_DIGITS && random.bytes().all(is_hex))
}

/// A run that another process began, and for which this one writes files.
///
/// Every file gets a name of its own, so that a task that is run again, or twice at the same time, overwrites nothing:
/// what the process that began the run does not adopt is left to garbage collection.
#[derive(Clone, Debug)]
pub struct RunMember {
    versions: Versions,
    run_id: String,
}

impl RunMember {
    /// Joins a run by its id.
    ///
    /// # Errors
    /// [`Error::Name`] for a text that is no id of a run.
    pub fn new(versions: Versions, run_id: &str) -> Result<Self> {
        let is_id = run_id.len() == 32 && run_id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_id {
            return Err(Error::Name { reason: "this is no id of a run", name: crate::location::printable(run_id) });
        }
        Ok(Self { versions, run_id: run_id.to_owned() })
    }

    /// Writes a Parquet file as `<name>-<random>.parquet`; names sort as what stands before the random part does.
    ///
    /// # Errors
    /// [`Error::Name`] for a name that leads out of the run; what the store answered.
    pub async fn put_parquet(&self, name: &str, bytes: Bytes, rows: u64) -> Result<FileEntry> {
        let folder = self.versions.artifact.data_folder(&self.run_id);
        let path = format!("{folder}/{name}-{}.parquet", &random_id()[..RANDOM_DIGITS]);
        check_name(&path).map_err(|reason| Error::Name { reason, name: crate::location::printable(name) })?;
        let footer = crate::preflight(&bytes, &path)?;
        let entry = FileEntry {
            bytes: bytes.len() as u64,
            rows: Some(rows),
            row_groups: Some(footer.row_groups as u64),
            sha256: sha256(&bytes),
            version: 0,
            path,
        };
        self.versions.folder.write(&entry.path, bytes).await?;
        // The name is on disk before the process that commits hears of it.
        self.versions.folder.sync(vec![entry.path.clone()]).await?;
        Ok(entry)
    }

    /// Writes what tasks of the run have to know and no version holds.
    ///
    /// # Errors
    /// [`Error::Name`] for a name that leads out of the run; what the store answered.
    pub async fn put_note(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.versions.folder.replace(&self.note(name)?, bytes).await
    }

    /// Reads such a note.
    ///
    /// # Errors
    /// [`Error::Store`] when there is none; what the store answered.
    pub async fn note_of(&self, name: &str) -> Result<Bytes> {
        let path = self.note(name)?;
        let bytes = self.versions.folder.read(&path, LONGEST_NOTE).await?;
        bytes.ok_or_else(|| Error::Store {
            operation: "GET",
            reason: "a note of a run is not there".to_owned(),
            file: self.versions.folder.shown(&path),
            source: None,
        })
    }

    /// Removes such a note, when nobody needs it any more; what cannot be removed goes with the run.
    pub async fn remove_note(&self, name: &str) {
        if let Ok(path) = self.note(name) {
            self.versions.folder.remove(vec![path]).await;
        }
    }

    fn note(&self, name: &str) -> Result<String> {
        let path = format!("{OURS}/runs/{}/{name}", self.run_id);
        check_name(&path).map_err(|reason| Error::Name { reason, name: crate::location::printable(name) })?;
        Ok(path)
    }
}

impl Run {
    /// Makes a file that a [`RunMember`](RunMember) of this run wrote part of it.
    ///
    /// # Errors
    /// [`Error::Name`] for a file outside the data folder of the run, or one that it has already.
    pub fn adopt(&self, entry: FileEntry) -> Result<()> {
        let refuse = |reason| Err(Error::Name { reason, name: crate::location::printable(&entry.path) });
        let folder = format!("{}/", self.artifact().data_folder(&self.run_id));
        let Some(name) = entry.path.strip_prefix(&folder) else { return refuse("this is no file of the run") };
        self.reserve(name, entry.path.clone())?;
        Files::add(&self.files, entry);
        Ok(())
    }

    /// [`Run::abandon`], and removes what members of the run wrote, as far as they have ended and as far as possible.
    pub async fn abandon_with_members(self) {
        let (folder, intent) = (&self.versions.folder, intent_name(&self.run_id));
        for below in [self.artifact().data_folder(&self.run_id), format!("{OURS}/runs/{}", self.run_id)] {
            if let Ok(objects) = folder.objects(&below).await {
                // The lease goes last.
                let names = objects.into_iter().map(|object| object.name).filter(|name| *name != intent);
                folder.remove(names.collect()).await;
            }
        }
        self.abandon().await;
    }
}
