//! The commit object: the JSON document that makes a version, with the checks of its writer and its reader.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Artifact, Error, Result, Security};

const FORMAT: &str = "item-affinity-commit";
const FORMAT_VERSION: &str = "1.0";
const FORMAT_MAJOR: &str = "1";

/// Commit objects over this size are neither written nor read.
pub(crate) const MAX_COMMIT_BYTES: u64 = 64 << 20;

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
    /// The version of the Delta table that it was a file of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_version: Option<u64>,
}

impl From<&crate::InputFile> for InputPin {
    fn from(file: &crate::InputFile) -> Self {
        Self {
            uri: file.location.to_string(),
            etag: file.meta.e_tag.clone(),
            bytes: file.meta.size,
            last_modified: file.meta.last_modified.timestamp(),
            delta_version: file.delta_version,
        }
    }
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

/// What the job says about its version. No user ids.
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
    /// Anything else that describes the job.
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
    /// The version that names it, 0 before the commit; not part of the document.
    #[serde(skip)]
    pub version: u64,
}

/// One committed version: the complete set of its files, and where it comes from.
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
    /// The complete set of its files, sorted by path.
    pub files: Vec<FileEntry>,
    /// Whether everything was forced to disk; false only on local disk and when asked for.
    #[serde(default = "yes")]
    pub durable: bool,
    /// The name that a person gave the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// Who made it, and how it was protected.
    #[serde(default)]
    pub security: Security,
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

fn yes() -> bool {
    true
}

/// The document around a commit.
#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    format_version: &'static str,
    artifact: Artifact,
    #[serde(flatten)]
    commit: &'a Commit,
}

/// What is read before the rest, to tell another program's document from a damaged one.
#[derive(Deserialize)]
struct Opening {
    format: String,
    format_version: String,
    artifact: Artifact,
}

impl Commit {
    /// The bytes of the commit object.
    pub(crate) fn to_bytes(&self, artifact: Artifact) -> Result<Vec<u8>> {
        let document = Document { format: FORMAT, format_version: FORMAT_VERSION, artifact, commit: self };
        serde_json::to_vec_pretty(&document).map_err(|e| Error::Bug {
            reason: "a commit cannot be written as JSON".to_owned(),
            source: Some(Box::new(e)),
        })
    }

    /// Reads and checks a commit object; `file` and `cure` stand in the message.
    pub(crate) fn from_bytes(bytes: &[u8], version: u64, artifact: Artifact, file: &str, cure: &str) -> Result<Self> {
        let damaged =
            |reason: String| Error::Commit { reason, file: file.to_owned(), cure: cure.to_owned(), source: None };
        let no_json = |e: serde_json::Error| Error::Commit {
            reason: format!("the commit is damaged (line {} column {})", e.line(), e.column()),
            file: file.to_owned(),
            cure: cure.to_owned(),
            source: Some(Box::new(e)),
        };
        let opening: Opening = serde_json::from_slice(bytes).map_err(no_json)?;
        if opening.format != FORMAT {
            return Err(damaged(format!("its format is {:?}, not {FORMAT:?}", opening.format)));
        }
        if opening.format_version.split('.').next() != Some(FORMAT_MAJOR) {
            return Err(Error::Commit {
                reason: format!(
                    "made by format {}, this program reads {FORMAT_MAJOR}.x",
                    crate::location::printable(&opening.format_version)
                ),
                file: file.to_owned(),
                cure: "use a newer item-affinity".to_owned(),
                source: None,
            });
        }
        if opening.artifact != artifact {
            return Err(damaged(format!("it holds {}, not {}", opening.artifact.plural(), artifact.plural())));
        }
        let mut commit: Self = serde_json::from_slice(bytes).map_err(no_json)?;
        commit.check(version).map_err(damaged)?;
        commit.sha256 = sha256(bytes);
        for entry in &mut commit.files {
            entry.version = version;
        }
        Ok(commit)
    }

    fn check(&self, version: u64) -> Result<(), String> {
        if self.version != version {
            return Err(format!("it says version {}", self.version));
        }
        if !is_hex(&self.run_id, 32) || !is_hex(&self.commit_token, 32) {
            return Err("its run id or token is not one of ours".to_owned());
        }
        let parent = self.parent_version.is_some() == self.parent_sha256.is_some()
            && self.parent_version == version.checked_sub(1).filter(|n| *n > 0);
        if !parent {
            return Err("it does not name the version before it".to_owned());
        }
        let mut names = BTreeSet::new();
        for entry in &self.files {
            let shown = crate::location::printable(&entry.path);
            check_name(&entry.path).map_err(|rule| format!("it names the file {shown}: {rule}"))?;
            if !names.insert(&entry.path) {
                return Err(format!("it names the file {shown} twice"));
            }
            if !is_hex(&entry.sha256, 64) {
                return Err(format!("it has no SHA-256 of the file {shown}"));
            }
        }
        Ok(())
    }
}

/// The rule that a name in a commit breaks: names stay below the location.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    match () {
        () if name.is_empty() => Err("a name is empty"),
        () if name.len() > 1024 => Err("a name is longer than 1,024 bytes"),
        () if name.starts_with('/') => Err("a name is absolute"),
        () if name.contains("://") || name.contains('\\') => Err("a name has a scheme or a backslash"),
        () if name.chars().any(char::is_control) => Err("a name has control characters"),
        () if name.split('/').any(|part| matches!(part, "" | "." | "..")) => Err("a name has an empty part or dots"),
        () => Ok(()),
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The SHA-256 of bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn commit() -> Commit {
        let entry = |path: &str| FileEntry {
            path: path.to_owned(),
            bytes: 3,
            rows: Some(1),
            row_groups: None,
            sha256: sha256(b"abc"),
            version: 2,
        };
        Commit {
            version: 2,
            run_id: "0123456789abcdef0123456789abcdef".to_owned(),
            commit_token: "f".repeat(32),
            parent_version: Some(1),
            parent_sha256: Some(sha256(b"")),
            body: CommitBody {
                job_key: "k".to_owned(),
                counts: BTreeMap::from([("items".to_owned(), 3)]),
                ..CommitBody::default()
            },
            files: vec![entry("data/run=x/a"), entry("data/run=x/b")],
            durable: true,
            job_name: Some("nightly".to_owned()),
            security: Security { os_user: Some("lake".to_owned()), encryption: None },
            started: 1,
            committed_at: 2,
            tool: "item-affinity 0.1.0".to_owned(),
            sha256: String::new(),
        }
    }

    fn read(bytes: &[u8]) -> Result<Commit> {
        Commit::from_bytes(bytes, 2, Artifact::Segments, "s3://b/out/2.json", "use version 1")
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Error {
        let mut value: Value = serde_json::from_slice(&commit().to_bytes(Artifact::Segments).unwrap()).unwrap();
        change(&mut value);
        read(&serde_json::to_vec(&value).unwrap()).unwrap_err()
    }

    #[test]
    fn commit_reads_back_as_it_was_written() {
        let bytes = commit().to_bytes(Artifact::Segments).unwrap();
        let expected = Commit { sha256: sha256(&bytes), ..commit() };
        assert_eq!(read(&bytes).unwrap(), expected);
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn unknown_fields_of_a_known_major_are_ignored() {
        let mut value: Value = serde_json::from_slice(&commit().to_bytes(Artifact::Segments).unwrap()).unwrap();
        value["format_version"] = json!("1.7");
        value["later"] = json!({"a": [1, 2]});
        value["files"][0]["later"] = json!(1);
        assert_eq!(read(&serde_json::to_vec(&value).unwrap()).unwrap().files, commit().files);
    }

    #[test]
    fn newer_major_is_refused_by_name() {
        let error = changed(|v| v["format_version"] = json!("2.0"));
        assert_eq!(
            error.to_string(),
            "ERR_COMMIT: made by format 2.0, this program reads 1.x; file=s3://b/out/2.json; use a newer item-affinity"
        );
    }

    #[test]
    fn every_break_of_the_rules_is_an_error_with_the_file() {
        type Change = fn(&mut Value);
        let changes: [(Change, &str); 13] = [
            (|v| v["format"] = json!("other"), "format"),
            (|v| v["artifact"] = json!("solution_version"), "it holds solution versions, not segments"),
            (|v| v["version"] = json!(3), "it says version 3"),
            (|v| v["run_id"] = json!("../x"), "run id"),
            (|v| v["commit_token"] = json!(""), "token"),
            (|v| v["parent_version"] = Value::Null, "version before it"),
            (|v| v["parent_sha256"] = Value::Null, "version before it"),
            (|v| v["files"][0]["path"] = json!("../../x"), "dots"),
            (|v| v["files"][0]["path"] = json!("/etc/passwd"), "absolute"),
            (|v| v["files"][0]["path"] = json!("s3://other/x"), "scheme"),
            (|v| v["files"][0]["path"] = json!("data/run=x/b"), "twice"),
            (|v| v["files"][0]["sha256"] = json!("no"), "SHA-256"),
            (|v| v["files"] = json!("none"), "damaged"),
        ];
        for (change, part) in changes {
            let text = changed(change).to_string();
            assert!(text.starts_with("ERR_COMMIT: ") && text.contains("file=s3://b/out/2.json"), "{text}");
            assert!(text.contains(part), "{text} has no {part}");
        }
        for bad in [&b""[..], b"{", b"null", b"[]", &[b'['; 100_000]] {
            assert!(read(bad).unwrap_err().to_string().contains("the commit is damaged"));
        }
    }
}
