//! What is too large to be read: refused from the metadata where they tell, else while it is read.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::schema::Dataset;

/// The most rows of a data set. Further on rows, pairs and the events of a user are counted by `u32`.
const MOST_ROWS: u64 = u32::MAX as u64;
/// Bytes of a row while interactions are sorted: 20 as they were read, and its time, item and user once more.
const ROW_BYTES: u64 = 36;
/// Where rows weigh differently their weight goes with them, in whole words.
const WEIGHED_ROW_BYTES: u64 = 44;

/// A step that takes more memory than a job may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// What is done there.
    pub phase: &'static str,
    /// Bytes that it takes, at least.
    pub needs: u64,
    /// Bytes that it may have.
    pub limit: u64,
}

impl MemoryNeed {
    /// Refuses a step that takes more than the limit; without a limit none.
    pub fn check(phase: &'static str, needs: u64, limit: Option<u64>) -> std::result::Result<(), Self> {
        match limit {
            Some(limit) if needs > limit => Err(Self { phase, needs, limit }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for MemoryNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, needs, limit } = self;
        let megabytes = |bytes: &u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "ERR_MEMORY_LIMIT: {phase} takes about {} MB of memory, the limit is {} MB; raise --memory-limit, or name \
             fewer interactions",
            megabytes(needs),
            megabytes(limit)
        )
    }
}

/// Refuses files that together have more rows than can be numbered.
///
/// rows: of each file, where its metadata tell them
pub(crate) fn refuse_rows(dataset: Dataset, rows: impl Iterator<Item = Option<u64>>, file: &str) -> Result<()> {
    let rows = rows.flatten().fold(0, u64::saturating_add);
    if rows <= MOST_ROWS {
        return Ok(());
    }
    let cure = match dataset {
        Dataset::Interactions => "name fewer files, as of the last year",
        Dataset::Items | Dataset::Users => "name a file with one row for each id",
    };
    Err(Error::TooManyRows { rows, most: MOST_ROWS, file: file.to_owned(), cure })
}

/// The memory of all readers of interactions together.
#[derive(Debug)]
pub(crate) struct ReadMemory {
    limit: Option<u64>,
    row_bytes: u64,
    held: AtomicU64,
}

impl ReadMemory {
    /// weighed: whether rows may weigh differently
    pub(crate) fn new(limit: Option<u64>, weighed: bool) -> Self {
        let row_bytes = if weighed { WEIGHED_ROW_BYTES } else { ROW_BYTES };
        Self { limit, row_bytes, held: AtomicU64::new(0) }
    }

    /// Refuses so many rows before any is read.
    pub(crate) fn refuse(&self, rows: u64) -> Result<()> {
        self.check(rows.saturating_mul(self.row_bytes))
    }

    /// Counts what a reader holds now, where it held `before`; gives what it holds.
    ///
    /// ids: bytes of the ids, which are copied once when readers are put together
    pub(crate) fn grow(&self, before: u64, rows: usize, ids: usize) -> Result<u64> {
        let now = (rows as u64).saturating_mul(self.row_bytes).saturating_add((ids as u64).saturating_mul(2));
        let grown = now.saturating_sub(before);
        self.check(self.held.fetch_add(grown, Ordering::Relaxed).saturating_add(grown))?;
        Ok(before.max(now))
    }

    fn check(&self, bytes: u64) -> Result<()> {
        Ok(MemoryNeed::check("reading interactions", bytes, self.limit)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p23_rows_at_the_edge_of_32_bits_are_read_and_beyond_it_refused_whatever_their_sum() {
        let of = |rows: &[u64]| refuse_rows(Dataset::Interactions, rows.iter().copied().map(Some), "a.parquet");
        let most = u64::from(u32::MAX);
        for rows in [&[][..], &[0], &[most], &[most - 1, 1], &[1 << 31, (1 << 31) - 1]] {
            assert!(of(rows).is_ok(), "{rows:?}");
        }
        for rows in [&[most + 1][..], &[most, 1], &[1 << 31, 1 << 31], &[u64::MAX], &[u64::MAX; 5]] {
            let error = of(rows).unwrap_err();
            let sum = rows.iter().copied().fold(0, u64::saturating_add);
            let says =
                format!("ERR_TOO_MANY_ROWS: {sum} rows, at most 4294967295 are read; file=a.parquet; name fewer");
            assert!(error.to_string().starts_with(&says), "{error}");
            assert_eq!(error.kind().exit_code(), 8);
        }
        assert!(refuse_rows(Dataset::Users, [None, Some(7)].into_iter(), "a.csv").is_ok());
    }

    #[test]
    fn readers_share_one_limit_and_pass_it_together() {
        let memory = ReadMemory::new(Some(3_600), false);
        assert!(memory.refuse(100).is_ok() && memory.refuse(101).is_err() && memory.refuse(u64::MAX).is_err());
        let one = memory.grow(0, 40, 0).unwrap();
        let other = memory.grow(0, 40, 0).unwrap();
        assert_eq!(memory.grow(one, 40, 100).unwrap(), 1_640);
        let error = memory.grow(other, 60, 0).unwrap_err().to_string();
        assert!(error.starts_with("ERR_MEMORY_LIMIT: reading interactions takes about 1 MB"), "{error}");
        assert!(ReadMemory::new(Some(4_400), true).refuse(101).is_err());
        assert!(ReadMemory::new(None, true).grow(0, usize::MAX, usize::MAX).is_ok());
    }
}
