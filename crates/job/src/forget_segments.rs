//! Committed segments without some users: their rows go, those after them move up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::{Int32Type, SchemaRef};
use futures::TryStreamExt;
use item_affinity_datafusion::SEGMENT_SCHEMA;
use item_affinity_storage::{
    Batches, Commit, CommitBody, FileEntry, Run, Stores, Versions, list_parquet, open_parquet, sha256_hex,
};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::item_errors::suppressed;
use crate::json_lines::{UsersKey, write_line};
use crate::parquet_output::{Facts, ParquetOutput, REASON_SCHEMA, REASONS, SEGMENTS};
use crate::row_groups::RowGroupBudget;

/// The segments of one version.
pub(crate) struct CommittedSegments<'a> {
    pub(crate) stores: &'a Stores,
    pub(crate) versions: &'a Versions,
    pub(crate) commit: &'a Commit,
}

/// Which rows go from a file of segments.
#[derive(Default)]
struct Gone {
    /// The ranks of named users, by item, ascending.
    ranks: BTreeMap<String, Vec<i32>>,
    /// Users of these items before.
    users: BTreeMap<String, u64>,
    /// Users that a segment has at least.
    least: u64,
}

impl Gone {
    /// The new rank of a row; none when it goes, with the whole segment if that gets too small.
    fn rank(&self, item: &str, rank: i32) -> Option<i32> {
        let Some(gone) = self.ranks.get(item) else { return Some(rank) };
        let before = match gone.binary_search(&rank) {
            Ok(_) => return None,
            Err(before) => before,
        };
        let left = self.users.get(item).copied().unwrap_or_default() - gone.len() as u64;
        (left >= self.least).then(|| rank - i32::try_from(before).unwrap_or(i32::MAX))
    }
}

impl CommittedSegments<'_> {
    /// The users that a segment had to have when the job ran.
    fn least_users(&self) -> u64 {
        self.commit.body.details["min_segment_users"].as_u64().unwrap_or_default()
    }

    /// The name of a file below the data folder of its run; none for what is not data.
    fn data_name<'e>(&self, entry: &'e FileEntry) -> Option<&'e str> {
        entry.path.strip_prefix("data/run=")?.split_once('/').map(|(_, name)| name)
    }

    async fn rows(&self, entry: &FileEntry) -> Result<Batches> {
        self.versions.check_file(entry).await?;
        let listing = list_parquet(self.stores, &self.versions.file_location(entry)?).await?;
        let [file] = listing.files.as_slice() else { return Err(other(entry, "it is not one file")) };
        let input = open_parquet(self.stores, file).await?;
        let columns = (0..input.schema().fields().len()).collect::<Vec<_>>();
        Ok(input.stream(&columns, 8192).await?)
    }

    /// Whether a named user is in any segment.
    pub(crate) async fn hold_any(&self, users: &BTreeSet<String>) -> Result<bool> {
        for entry in &self.commit.files {
            let found = match self.data_name(entry) {
                Some(SEGMENTS) => !self.gone(entry, users).await?.ranks.is_empty(),
                Some(name) if is_text(name) => name_any(&lines(entry, &self.versions.read_file(entry).await?)?, users),
                _ => false,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn gone(&self, entry: &FileEntry, users: &BTreeSet<String>) -> Result<Gone> {
        let mut gone = Gone { least: self.least_users(), ..Gone::default() };
        let mut all = BTreeMap::<String, u64>::new();
        let mut batches = Box::pin(self.rows(entry).await?);
        while let Some(batch) = batches.try_next().await? {
            let batch = as_written(entry, &batch, &SEGMENT_SCHEMA)?;
            let (items, ranks, ids) = keys(&batch);
            for row in 0..batch.num_rows() {
                match all.get_mut(items.value(row)) {
                    Some(users) => *users += 1,
                    None => drop(all.insert(items.value(row).to_owned(), 1)),
                }
                if users.contains(ids.value(row)) {
                    gone.ranks.entry(items.value(row).to_owned()).or_default().push(ranks.value(row));
                }
            }
        }
        gone.users = all.into_iter().filter(|(item, _)| gone.ranks.contains_key(item)).collect();
        Ok(gone)
    }

    /// Writes the segments without these users into a run: the body of its commit, and the rows that went. None, before
    /// anything is written, when nobody of them is in any segment.
    pub(crate) async fn without(&self, users: &BTreeSet<String>, run: &Run) -> Result<Option<(CommitBody, u64)>> {
        let segments = self.commit.files.iter().find(|entry| self.data_name(entry) == Some(SEGMENTS));
        let gone = match segments {
            Some(entry) => Some((entry, self.gone(entry, users).await?)),
            None => None,
        };
        let mut texts = BTreeMap::new();
        for entry in self.commit.files.iter().filter(|entry| self.data_name(entry).is_some_and(is_text)) {
            texts.insert(entry.path.as_str(), lines(entry, &self.versions.read_file(entry).await?)?);
        }
        let in_table = gone.as_ref().is_some_and(|(_, gone)| !gone.ranks.is_empty());
        if !in_table && !texts.values().any(|lines| name_any(lines, users)) {
            return Ok(None);
        }
        let body = &self.commit.body;
        let facts = Facts {
            solution_version: body.solution_version.as_ref().map_or(0, |pin| pin.version),
            as_of: body.details["as_of"].as_i64().unwrap_or_default(),
        };
        let (mut rows, mut reasons) = (body.counts.get("rows").copied().unwrap_or_default(), None);
        let before = rows;
        if let Some((entry, gone)) = gone {
            let budget = RowGroupBudget::without_session();
            let output = ParquetOutput::segments(run, facts, &budget).await?;
            rows = self.cut(entry, &gone, &SEGMENT_SCHEMA, output).await?;
            if let Some(entry) = self.commit.files.iter().find(|entry| self.data_name(entry) == Some(REASONS)) {
                let output = ParquetOutput::reasons(run, facts, &budget).await?;
                reasons = Some(self.cut(entry, &gone, &REASON_SCHEMA, output).await?);
            }
        }
        for entry in &self.commit.files {
            match self.data_name(entry) {
                Some(SEGMENTS | REASONS) => {}
                Some(name) if is_text(name) => {
                    let lines = texts.remove(entry.path.as_str()).unwrap_or_default();
                    let (text, removed) = without_users(&lines, users, self.least_users())?;
                    rows -= removed.min(rows);
                    run.put(name, text.into(), entry.rows).await?;
                }
                Some(name) => return Err(other(entry, &format!("{name} is no file of segments"))),
                None => {
                    let name = entry.path.rsplit('/').next().unwrap_or_default();
                    run.put_internal(name, self.versions.read_file(entry).await?, entry.rows).await?;
                }
            }
        }
        let mut body = body.clone();
        body.job_key = sha256_hex(format!("forget 1\n{}", self.commit.sha256).as_bytes());
        let removed = before - rows;
        let counts = [("rows", Some(rows)), ("reasons", reasons), ("forgotten_rows", Some(removed))];
        body.counts.extend(counts.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count?))));
        Ok(Some((body, removed)))
    }

    /// Copies the rows of a file that stay, and returns their number.
    async fn cut(&self, entry: &FileEntry, gone: &Gone, schema: &SchemaRef, mut output: ParquetOutput) -> Result<u64> {
        let mut batches = Box::pin(self.rows(entry).await?);
        while let Some(batch) = batches.try_next().await? {
            let batch = as_written(entry, &batch, schema)?;
            let (items, ranks, _) = keys(&batch);
            let now =
                (0..batch.num_rows()).map(|row| gone.rank(items.value(row), ranks.value(row))).collect::<Vec<_>>();
            let stays: BooleanArray = now.iter().map(|rank| Some(rank.is_some())).collect();
            let mut columns = batch.columns().to_vec();
            columns[1] =
                Arc::new(Int32Array::from_iter_values(now.into_iter().map(Option::unwrap_or_default))) as ArrayRef;
            let moved = RecordBatch::try_new(Arc::clone(schema), columns)?;
            output.write(&filter_record_batch(&moved, &stays)?).await?;
        }
        Ok(output.finish().await?.rows.unwrap_or_default())
    }
}

/// The columns of a file in the types that we write, whatever the reader made of them.
fn as_written(entry: &FileEntry, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name());
        let column = column.ok_or_else(|| other(entry, &format!("it has no column {}", field.name())))?;
        Ok(cast(column, field.data_type())?)
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>>>()?)?)
}

/// `item_id, rank, user_id`.
fn keys(batch: &RecordBatch) -> (&StringArray, &Int32Array, &StringArray) {
    (batch.column(0).as_string(), batch.column(1).as_primitive::<Int32Type>(), batch.column(2).as_string())
}

fn other(entry: &FileEntry, what: &str) -> Error {
    let reason = format!("ERR_COMMIT_INCOMPLETE: {what}; file={}; run the segment job again", entry.path);
    datafusion::error::DataFusionError::Plan(reason).into()
}

/// Whether a file is Amazon Personalize's output.
fn is_text(name: &str) -> bool {
    name.ends_with(".out")
}

fn name_any(lines: &[Line], users: &BTreeSet<String>) -> bool {
    lines.iter().any(|line| line.users.iter().any(|user| users.contains(user)))
}

/// One line of Amazon Personalize's output.
struct Line {
    input: Value,
    users: Vec<String>,
    users_key: UsersKey,
    error: Option<String>,
}

fn lines(entry: &FileEntry, bytes: &[u8]) -> Result<Vec<Line>> {
    let text = std::str::from_utf8(bytes).map_err(|_| other(entry, "it is not UTF-8"))?;
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        let output = value.get("output")?;
        let (users, users_key) = match output.get("usersList") {
            Some(users) => (users, UsersKey::UsersList),
            None => (output.get("recommendedUsers")?, UsersKey::RecommendedUsers),
        };
        let users = users.as_array()?.iter().map(|user| user.as_str().map(str::to_owned)).collect::<Option<_>>()?;
        let error = value.get("error").and_then(Value::as_str).map(str::to_owned);
        Some(Line { input: value.get("input")?.clone(), users, users_key, error })
    };
    text.lines().map(|line| read(line).ok_or_else(|| other(entry, "it holds a line that is no segment"))).collect()
}

/// The lines again, and how many users went.
fn without_users(lines: &[Line], users: &BTreeSet<String>, least: u64) -> Result<(Vec<u8>, u64)> {
    let (mut text, mut removed) = (Vec::new(), 0);
    for line in lines {
        let mut left: Vec<String> = line.users.iter().filter(|user| !users.contains(*user)).cloned().collect();
        let mut error = line.error.clone();
        if left.len() < line.users.len() && (left.len() as u64) < least {
            left.clear();
            error = Some(suppressed(least));
        }
        removed += (line.users.len() - left.len()) as u64;
        write_line(&mut text, line.users_key, line.input.clone(), &left, error.as_deref())?;
    }
    Ok((text, removed))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranks_after_a_user_who_went_move_up_and_small_segments_go_whole() {
        let mut gone = Gone { least: 2, ..Gone::default() };
        gone.ranks.insert("a".to_owned(), vec![1, 3]);
        gone.users.insert("a".to_owned(), 4);
        assert_eq!([1, 2, 3, 4].map(|rank| gone.rank("a", rank)), [None, Some(1), None, Some(2)]);
        assert_eq!(gone.rank("b", 3), Some(3));
        gone.users.insert("a".to_owned(), 3);
        assert_eq!([1, 2, 3].map(|rank| gone.rank("a", rank)), [None; 3]);
    }
}
