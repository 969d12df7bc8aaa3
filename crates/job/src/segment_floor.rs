//! No segment of fewer users than asked for: rows of an item wait until there are enough of them, or are dropped.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int32Type;

/// Keeps the rows of segments that are too small from everybody.
pub(crate) struct SegmentFloor {
    /// Users that a segment has at least; 0 or 1 keeps nothing back.
    least: u64,
    item: Option<String>,
    /// Users of that item so far.
    users: u64,
    /// Its rows, while there are not enough users.
    waiting: Vec<RecordBatch>,
}

impl SegmentFloor {
    pub(crate) fn new(least: u64) -> Self {
        Self { least, item: None, users: 0, waiting: Vec::new() }
    }

    /// Takes rows in the order `(item_id, rank)`, reasons or not, and gives those that may go on.
    pub(crate) fn pass(&mut self, batch: RecordBatch) -> Vec<RecordBatch> {
        if self.least <= 1 {
            return vec![batch];
        }
        let mut passed = Vec::new();
        let ids = batch.column(0).as_string::<i32>();
        // Rows from `start` on go on as one slice, as long as nothing has to wait.
        let (mut at, mut start) = (0, 0);
        while at < ids.len() {
            let item = ids.value(at);
            let end = (at + 1..ids.len()).find(|row| ids.value(*row) != item).unwrap_or(ids.len());
            if self.item.as_deref() != Some(item) {
                // What still waits belongs to an item without enough users.
                self.waiting.clear();
                self.item = Some(item.to_owned());
                self.users = 0;
            }
            let before = self.users;
            self.users += users(&batch, at, end);
            if self.users < self.least {
                passed.extend(slice(&batch, start, at));
                self.waiting.extend(slice(&batch, at, end));
                start = end;
            } else if before < self.least && !self.waiting.is_empty() {
                passed.extend(slice(&batch, start, at));
                passed.append(&mut self.waiting);
                start = at;
            }
            at = end;
        }
        passed.extend(slice(&batch, start, at));
        passed
    }
}

/// Users among rows of one item: each of them has one row without a reason or with its first.
fn users(batch: &RecordBatch, start: usize, end: usize) -> u64 {
    match batch.columns().get(4) {
        None => (end - start) as u64,
        Some(ranks) => {
            let ranks = ranks.as_primitive::<Int32Type>();
            (start..end).filter(|row| ranks.is_null(*row) || ranks.value(*row) == 1).count() as u64
        }
    }
}

fn slice(batch: &RecordBatch, start: usize, end: usize) -> Option<RecordBatch> {
    (start < end).then(|| batch.slice(start, end - start))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::*;

    /// Items by the numbers of their users, cut into batches of `rows`.
    fn passed(least: u64, items: &[(&str, usize)], rows: usize) -> Vec<(String, i32)> {
        let ids = items.iter().flat_map(|(id, users)| std::iter::repeat_n(*id, *users)).collect::<Vec<_>>();
        let ranks = items.iter().flat_map(|(_, users)| 1..=i32::try_from(*users).unwrap()).collect::<Vec<_>>();
        let columns = [
            ("item_id", Arc::new(StringArray::from(ids)) as ArrayRef),
            ("rank", Arc::new(Int32Array::from(ranks)) as ArrayRef),
        ];
        let whole = RecordBatch::try_from_iter(columns).unwrap();
        let mut floor = SegmentFloor::new(least);
        let cuts = (0..whole.num_rows()).step_by(rows);
        let batches = cuts.flat_map(|at| floor.pass(whole.slice(at, rows.min(whole.num_rows() - at))));
        let rows = batches.flat_map(|batch| {
            let (ids, ranks) = (batch.column(0).as_string::<i32>().clone(), batch.column(1).clone());
            let ranks = ranks.as_primitive::<Int32Type>().clone();
            (0..batch.num_rows()).map(move |row| (ids.value(row).to_owned(), ranks.value(row))).collect::<Vec<_>>()
        });
        rows.collect()
    }

    #[test]
    fn p39_items_below_the_floor_pass_in_no_cut_of_the_rows() {
        let items = [("a", 2), ("b", 3), ("c", 1), ("d", 4), ("e", 9), ("f", 2)];
        for least in 0..=10 {
            let expected: Vec<_> = items
                .iter()
                .filter(|(_, users)| *users as u64 >= least)
                .flat_map(|(id, users)| (1..=i32::try_from(*users).unwrap()).map(|rank| ((*id).to_owned(), rank)))
                .collect();
            for rows in 1..=21 {
                assert_eq!(passed(least, &items, rows), expected, "at least {least}, batches of {rows}");
            }
        }
    }
}
