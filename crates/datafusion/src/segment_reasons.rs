//! Reasons for whole segments: rows gathered by user, each user's equations solved once for all items it is in.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{ArrayRef, AsArray, Float32Array, Int32Array, RecordBatch, StringBuilder, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::UInt32Type;
use datafusion::common::{exec_err, internal_err};
use datafusion::error::Result;
use item_affinity_model::{Csr, Explainer, Reason};
use item_affinity_solution::SolutionVersion;

use crate::error::from_model;
use crate::segment_schema::EXPLANATION_SCHEMA;

/// Items that are explained for one user at once: it bounds the memory of a thread.
const ITEM_BLOCK: usize = 512;
/// Columns of the indexed segments, after the four that are passed on.
const ITEM: usize = 4;
const USER_INDEX: usize = 5;

/// The items that each user is asked for, of gathered segments; an entry is a row of the segments.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `user_index`, strictly ascending.
    pub(crate) users: Vec<u32>,
    /// The entries of user u are those from `bounds[u]` to `bounds[u + 1]`.
    bounds: Vec<usize>,
    /// `item_index` by entry.
    items: Vec<u32>,
    /// The entry of each row of the segments.
    entry_of_row: Vec<u32>,
}

impl Asked {
    /// Bytes that so many rows take while they are sorted by user, and afterwards.
    pub(crate) fn bytes_for(rows: usize) -> usize {
        rows.saturating_mul(size_of::<(u32, u32, u32)>() + 2 * size_of::<u32>() + size_of::<usize>())
    }

    /// Sorts the rows of indexed segments by user; `items` tells the place in the version of each asked item.
    pub(crate) fn new(segments: &[RecordBatch], items: &[u32]) -> Result<Self> {
        let rows = segments.iter().map(RecordBatch::num_rows).sum();
        if u32::try_from(rows).is_err() {
            return exec_err!("{rows} rows of segments are more than can be explained at once; ask for fewer users");
        }
        let mut entries = Vec::<(u32, u32, u32)>::with_capacity(rows);
        for batch in segments {
            let places = batch.column(ITEM).as_primitive::<UInt32Type>().values();
            let users = batch.column(USER_INDEX).as_primitive::<UInt32Type>().values();
            for (place, user) in places.iter().zip(users) {
                let Some(item) = items.get(*place as usize) else {
                    return internal_err!("a segment of an item that was not asked for");
                };
                entries.push((*user, *item, u32::try_from(entries.len()).unwrap_or(u32::MAX)));
            }
        }
        entries.sort_unstable();
        let mut asked =
            Self { users: Vec::new(), bounds: vec![0], items: Vec::with_capacity(rows), entry_of_row: vec![0; rows] };
        for (entry, (user, item, row)) in (0u32..).zip(entries) {
            if asked.users.last() != Some(&user) {
                asked.users.push(user);
                asked.bounds.push(asked.items.len());
            }
            asked.items.push(item);
            asked.entry_of_row[row as usize] = entry;
            if let Some(end) = asked.bounds.last_mut() {
                *end = asked.items.len();
            }
        }
        Ok(asked)
    }

    fn most_items_of_a_user(&self) -> usize {
        self.bounds.windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(0)
    }
}

/// Everything that reasons are worked out from; shared by threads.
pub(crate) struct Solver {
    pub(crate) explainer: Explainer,
    pub(crate) asked: Asked,
    /// The asked users × all items: what their factors were solved with.
    pub(crate) history: Csr,
    /// Reasons for each user and item.
    pub(crate) count: usize,
}

/// The reasons of the entries of some users, one entry after another.
pub(crate) struct SomeReasons {
    lengths: Vec<u32>,
    reasons: Vec<Reason>,
}

impl SomeReasons {
    pub(crate) fn bytes(&self) -> usize {
        self.lengths.len() * size_of::<usize>() + self.reasons.len() * size_of::<Reason>()
    }
}

impl Solver {
    /// Bytes that a thread holds at most while it explains a user.
    pub(crate) fn bytes_of_a_thread(&self, dimension: usize) -> usize {
        let longest = self.history.indptr().windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(0);
        let items = self.asked.most_items_of_a_user().min(ITEM_BLOCK);
        // The equations, the right-hand sides, and the shares of all past items once as they are and once in order.
        8 * (dimension * dimension.max(longest.min(dimension)) + (dimension + 3 * longest) * items)
    }

    /// The largest positive shares for each entry of some users; cut short when `stop` says that nobody waits.
    pub(crate) fn explain(&self, users: Range<usize>, stop: &AtomicBool) -> Result<SomeReasons> {
        let mut found = SomeReasons { lengths: Vec::new(), reasons: Vec::new() };
        for user in users {
            let items = &self.asked.items[self.asked.bounds[user]..self.asked.bounds[user + 1]];
            for items in items.chunks(ITEM_BLOCK) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(found);
                }
                // The part of a prior is the rest of the affinity: it does not touch the shares of past items.
                let explained = self.explainer.reasons(self.history.row(user), None, items, self.count);
                for of_item in explained.map_err(from_model)? {
                    let before = found.reasons.len();
                    found.reasons.extend(of_item.reasons.into_iter().take_while(|reason| reason.share > 0.0));
                    found.lengths.push(u32::try_from(found.reasons.len() - before).unwrap_or(u32::MAX));
                }
            }
        }
        Ok(found)
    }
}

/// The reasons of all entries, in their order.
#[derive(Default)]
pub(crate) struct AllReasons {
    ends: Vec<usize>,
    reasons: Vec<Reason>,
}

impl AllReasons {
    pub(crate) fn push(&mut self, some: SomeReasons) {
        let mut end = self.reasons.len();
        self.ends.extend(some.lengths.iter().map(|length| {
            end += *length as usize;
            end
        }));
        self.reasons.extend(some.reasons);
    }

    fn of(&self, entry: u32) -> &[Reason] {
        let entry = entry as usize;
        let start = entry.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.reasons[start..self.ends[entry]]
    }
}

/// Segments with their reasons as batches of [`EXPLANATION_SCHEMA`], in the order of the segments.
pub(crate) struct Explanations {
    segments: std::vec::IntoIter<RecordBatch>,
    solver: Arc<Solver>,
    reasons: AllReasons,
    version: Arc<SolutionVersion>,
    batch_size: usize,
    /// The batch of segments in hand, the row and the reason that come next.
    batch: Option<RecordBatch>,
    row: u32,
    reason: usize,
    /// Rows of the segments before that batch.
    rows_before: usize,
}

impl Explanations {
    pub(crate) fn new(
        segments: Vec<RecordBatch>,
        solver: Arc<Solver>,
        reasons: AllReasons,
        version: Arc<SolutionVersion>,
        batch_size: usize,
    ) -> Self {
        Self {
            segments: segments.into_iter(),
            solver,
            reasons,
            version,
            batch_size: batch_size.max(1),
            batch: None,
            row: 0,
            reason: 0,
            rows_before: 0,
        }
    }

    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let batch = loop {
            match self.batch.take().or_else(|| self.segments.next()) {
                None => return Ok(None),
                Some(batch) if (self.row as usize) < batch.num_rows() => break batch,
                Some(batch) => {
                    self.rows_before += batch.num_rows();
                    self.row = 0;
                }
            }
        };
        let (mut rows, mut ranks, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        let mut because = StringBuilder::new();
        while rows.len() < self.batch_size && (self.row as usize) < batch.num_rows() {
            let reasons = self.reasons.of(self.solver.asked.entry_of_row[self.rows_before + self.row as usize]);
            let reason = reasons.get(self.reason);
            rows.push(self.row);
            because.append_option(reason.and_then(|reason| self.version.items.ids.id(reason.item_index)));
            shares.push(reason.map(|reason| reason.share));
            self.reason += 1;
            ranks.push(reason.and_then(|_| i32::try_from(self.reason).ok()));
            if self.reason >= reasons.len() {
                (self.row, self.reason) = (self.row + 1, 0);
            }
        }
        let rows = UInt32Array::from(rows);
        let kept = batch.columns()[..ITEM].iter().map(|column| take(column.as_ref(), &rows, None));
        let mut columns: Vec<ArrayRef> = kept.collect::<std::result::Result<_, _>>()?;
        columns.push(Arc::new(Int32Array::from(ranks)));
        columns.push(Arc::new(because.finish()));
        columns.push(Arc::new(Float32Array::from(shares)));
        self.batch = Some(batch);
        Ok(Some(RecordBatch::try_new(Arc::clone(&EXPLANATION_SCHEMA), columns)?))
    }
}
