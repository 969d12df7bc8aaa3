//! The commit object: what a version is.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An input object as it was pinned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputPin {
    /// The object, without secrets.
    pub uri: String,
    /// Its ETag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// When it was last modified, epoch seconds.
    pub last_modified: i64,
}
/// The solution version that segments were made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SolutionPin {
    /// Where it is.
    pub location: String,
    /// Its number.
    pub version: u64,
    /// The SHA-256 of its commit object, in hex.
    pub sha256: String,
}
/// What the job says about its version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommitBody {
    /// Hash of inputs, parameters and solution version: the same job gives the same key.
    pub job_key: String,
    /// The inputs as pinned.
    #[serde(default)]
    pub inputs: Vec<InputPin>,
    /// For segments, the solution version used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solution_version: Option<SolutionPin>,
    /// The Arrow schema of the data files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<serde_json::Value>,
    /// The SHA-256 of the item list, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_list_sha256: Option<String>,
    /// Counts: items asked, ok, empty, error; users; rows; rejected rows by reason.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// Anything else that describes the job. No user ids.
    #[serde(default)]
    pub details: serde_json::Value,
}
/// One file of a version.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name below the location of the versions.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows, when it has rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Its row groups, when it is a Parquet file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_groups: Option<u64>,
    /// The SHA-256 of all its bytes, in hex.
    pub sha256: String,
}
/// One committed version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Commit {
    /// Its number, from 1.
    pub version: u64,
    /// The run that made it.
    pub run_id: String,
    /// The token that tells our own write from another's.
    pub commit_token: String,
    /// The number before it.
    pub parent_version: Option<u64>,
    /// The SHA-256 of the commit object before it, in hex.
    pub parent_sha256: Option<String>,
    /// What the job says.
    #[serde(flatten)]
    pub body: CommitBody,
    /// The complete set of its files.
    pub files: Vec<FileEntry>,
    /// When the run began, epoch seconds.
    pub started: i64,
    /// When the commit was written, epoch seconds.
    #[serde(rename = "ended")]
    pub committed_at: i64,
    /// The program that made it.
    pub tool: String,
    /// The SHA-256 of the commit object, in hex; not part of it.
    #[serde(skip)]
    pub sha256: String,
}
