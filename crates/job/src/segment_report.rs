//! What a batch segment job did.

use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{Commit, Location};
use serde::Serialize;

use crate::item_errors::ItemErrorRecord;

/// What a job did.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentReport {
    /// Where the segments are.
    pub output: String,
    /// The committed version of the output.
    pub version: u64,
    /// The version of the Delta table that holds the segments, when they are one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_version: Option<u64>,
    /// The solution version that ranked, number included.
    pub solution_version: String,
    /// True when the same job was committed before and nothing was done.
    pub already_done: bool,
    /// Entries of the item list.
    pub asked: u64,
    /// Entries with a segment.
    pub ok: u64,
    /// Entries whose segment has no user.
    pub empty: u64,
    /// Entries with an error record, those with a withheld segment aside.
    pub error: u64,
    /// Entries whose segment is withheld for having too few users; they have a record, too.
    pub suppressed: u64,
    /// Rows written.
    pub rows: u64,
    /// Rows of reasons written; 0 when none were asked for.
    pub reasons: u64,
    /// Distinct users who could be in a segment, when the job was told whom; none: everybody could.
    pub users_asked: Option<u64>,
    /// Users among them whom the solution version does not know.
    pub users_unknown: Option<u64>,
    /// Why entries have no segment; empty when `already_done`, they are in the output then.
    pub item_errors: Vec<ItemErrorRecord>,
    /// What is worth knowing but did not stop the job.
    pub warnings: Vec<String>,
    /// Data files, relative to the output.
    pub files: Vec<String>,
}

impl SegmentReport {
    pub(crate) fn of(version: &SolutionVersion) -> Self {
        Self {
            output: String::new(),
            version: 0,
            delta_version: None,
            solution_version: version.reference().to_string(),
            already_done: false,
            asked: 0,
            ok: 0,
            empty: 0,
            error: 0,
            suppressed: 0,
            rows: 0,
            reasons: 0,
            users_asked: None,
            users_unknown: None,
            item_errors: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    pub(crate) fn already_done(
        output: &Location,
        version: &SolutionVersion,
        done: &Commit,
        delta_version: Option<u64>,
    ) -> Self {
        let count = |name: &str| done.body.counts.get(name).copied().unwrap_or_default();
        Self {
            output: output.to_string(),
            version: done.version,
            delta_version,
            already_done: true,
            asked: count("asked"),
            ok: count("ok"),
            empty: count("empty"),
            error: count("error"),
            suppressed: count("suppressed"),
            rows: count("rows"),
            reasons: count("reasons"),
            users_asked: done.body.counts.get("users_asked").copied(),
            users_unknown: done.body.counts.get("users_unknown").copied(),
            files: done.files.iter().map(|f| f.path.clone()).collect(),
            ..Self::of(version)
        }
    }
}
