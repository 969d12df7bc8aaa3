//! What a task of a refresh in parts is told, and who runs such tasks.

use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use item_affinity_ingest::LogRules;
use item_affinity_model::Vocabulary;
use item_affinity_storage::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::states::ids_sha256;
use crate::tables::Table;
use crate::tables::pairs::PART_ROWS;

/// Groups of pairs that there are at least, if there are enough pairs.
const PAIR_GROUPS: u64 = 16;
/// Pairs in a group at least, if there are that many.
const LEAST_PAIRS: u64 = 512;

/// What a plan of tasks is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshStage {
    /// To add up what the log-odds of a user need of all others; nothing is written.
    Measure,
    /// To write user states and pairs.
    Write,
}

/// What every task of a refresh is told: which version, which rows count, which users are in which part.
///
/// It travels inside plans. A part is a range of users in the order of their ids, and a file of the new version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefreshTask {
    /// The version that is refreshed, as `location@number`.
    pub solution_version: String,
    /// SHA-256 of its commit.
    pub commit_sha256: String,
    /// What the plan is for.
    pub stage: RefreshStage,
    pub(super) rules: LogRules,
    pub(super) as_of: i64,
    pub(super) run_id: String,
    pub(super) durable: bool,
    /// Whether there are users who were forgotten; who they are stands in a note of the run.
    pub(super) any_forgotten: bool,
    pub(super) parts: Vec<PartOfUsers>,
    /// The first item of each group of pairs; empty while measuring.
    pub(super) pair_groups: Vec<u32>,
}

/// A range of users in the order of their ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PartOfUsers {
    /// The id of its first user; those before it are in earlier parts.
    pub(super) first_id: String,
    pub(super) first_index: u32,
    pub(super) users: u32,
    /// Over the ids, as in a model card: a task whose users are others has lost some or met too many.
    pub(super) ids_sha256: String,
}

/// Runs the tasks of a refresh: in this process, or on a cluster.
pub trait RefreshTasks: Send + Sync {
    /// Runs a plan whose leaves are these units, one text each, and gives its rows, those of a task once, however often it
    /// ran.
    fn run(
        &self,
        task: RefreshTask,
        units: Vec<String>,
    ) -> BoxFuture<'_, std::result::Result<Vec<RecordBatch>, TaskFailure>>;
}

/// Why tasks failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// What kind of error it was.
    pub kind: ErrorKind,
    /// One line with a code and a cure.
    pub message: String,
}

/// Cuts users into the parts that a version of them has.
pub(super) fn parts_of(users: &Vocabulary) -> crate::Result<Vec<PartOfUsers>> {
    let step = Table::Users.rows_per_part(users.len());
    let mut parts = Vec::with_capacity(users.len().div_ceil(step));
    let mut ids = users.iter();
    for first in (0..users.len()).step_by(step) {
        let own = Vocabulary::from_sorted(ids.by_ref().take(step))?;
        parts.push(PartOfUsers {
            first_id: own.id(0).unwrap_or_default().to_owned(),
            first_index: u32::try_from(first).unwrap_or(u32::MAX),
            users: u32::try_from(own.len()).unwrap_or(u32::MAX),
            ids_sha256: ids_sha256(&own),
        });
    }
    Ok(parts)
}

/// The first item of each group of neighbouring items with about as many pairs; users: by item.
pub(super) fn pair_groups(users: &[i64]) -> Vec<u32> {
    let pairs: u64 = users.iter().map(|users| users.unsigned_abs()).sum();
    let enough = (pairs / PAIR_GROUPS).clamp(LEAST_PAIRS, PART_ROWS as u64);
    let (mut groups, mut rows) = (vec![0], 0);
    for (item, users) in (0u32..).zip(users) {
        if rows >= enough {
            groups.push(item);
            rows = 0;
        }
        rows += users.unsigned_abs();
    }
    groups
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_that_a_version_of_so_many_users_has() {
        let users = Vocabulary::from_sorted((0..1_100).map(|n| format!("{n:05}"))).unwrap();
        let parts = parts_of(&users).unwrap();
        let shown: Vec<_> = parts.iter().map(|part| (part.first_id.as_str(), part.first_index, part.users)).collect();
        assert_eq!(shown, [("00000", 0, 512), ("00512", 512, 512), ("01024", 1_024, 76)]);
        assert!(parts_of(&Vocabulary::default()).unwrap().is_empty());
    }

    #[test]
    fn groups_of_pairs_are_runs_of_items() {
        assert_eq!(pair_groups(&[10, 0, 5]), [0]);
        // At least 512 pairs in each but the last, or a sixteenth of all: 1,350.
        assert_eq!(pair_groups(&[600, 0, 5, 600]), [0, 1]);
        assert_eq!(pair_groups(&[600, 0, 5, 1_000, 20_000, 1]), [0, 4, 5]);
        assert_eq!(pair_groups(&[]), [0]);
    }
}
