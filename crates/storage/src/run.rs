//! A run: the files of a version that is not committed yet.
use crate::{Commit, CommitBody, FileEntry, FileWriter, Result};
use bytes::Bytes;
/// A run that writes files and may commit them as one version.
#[derive(Debug)]
pub struct Run {
    /// Random, new for every start.
    pub run_id: String,
}
impl Run {
    /// Writes one data file at once.
    pub async fn put(&mut self, _name: &str, _bytes: Bytes, _rows: Option<u64>) -> Result<FileEntry> {
        todo!()
    }
    /// Streams one data file.
    pub async fn writer(&mut self, _name: &str) -> Result<FileWriter> {
        todo!()
    }
    /// Writes one file below `_item_affinity/runs/<run_id>/`.
    pub async fn put_internal(&mut self, _name: &str, _bytes: Bytes, _rows: Option<u64>) -> Result<FileEntry> {
        todo!()
    }
    /// Makes the files visible as the next version.
    pub async fn commit(self, _body: CommitBody) -> Result<Commit> {
        todo!()
    }
    /// Removes the files of the run, as far as possible.
    pub async fn abandon(self) {
        todo!()
    }
}
