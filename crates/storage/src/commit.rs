//! Numbered commits at a location.
use crate::{Commit, FileEntry, Location, Result, Run, Stores};
use bytes::Bytes;
/// What the versions at a location are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Artifact {
    /// Trained models; data under `versions/<run_id>/`.
    SolutionVersion,
    /// Segment outputs; data under `data/run=<run_id>/`.
    Segments,
}
/// A location that holds numbered commits.
#[derive(Clone, Debug)]
pub struct Versions(());
impl Versions {
    /// The versions at a location; reads nothing yet.
    pub fn new(_stores: &Stores, _location: Location, _artifact: Artifact) -> Result<Self> {
        todo!()
    }
    /// Where they are.
    pub fn location(&self) -> &Location {
        todo!()
    }
    /// The numbers of the kept versions, ascending.
    pub async fn numbers(&self) -> Result<Vec<u64>> {
        todo!()
    }
    /// One version.
    pub async fn read(&self, _version: u64) -> Result<Commit> {
        todo!()
    }
    /// The newest version.
    pub async fn latest(&self) -> Result<Option<Commit>> {
        todo!()
    }
    /// The pinned version, or the newest; an error that says what exists when there is none.
    pub async fn resolve(&self, _pinned: Option<u64>) -> Result<Commit> {
        todo!()
    }
    /// The newest kept version that the same job made.
    pub async fn find_job(&self, _job_key: &str) -> Result<Option<Commit>> {
        todo!()
    }
    /// Starts a run.
    pub async fn begin(&self) -> Result<Run> {
        todo!()
    }
    /// Checks that a file of a commit is there with its size.
    pub async fn check_file(&self, _entry: &FileEntry) -> Result<()> {
        todo!()
    }
    /// A whole file of a commit, with its size and SHA-256 checked.
    pub async fn read_file(&self, _entry: &FileEntry) -> Result<Bytes> {
        todo!()
    }
    /// Where a file of a commit is.
    pub fn file_location(&self, _entry: &FileEntry) -> Result<Location> {
        todo!()
    }
}
