//! The candidates of all partitions become ranked segments: a merge of what is sorted already.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::{Float32Type, SchemaRef, UInt32Type};
use datafusion::common::internal_err;
use datafusion::error::Result;
use item_affinity_model::Rank;

use crate::segment_schema::{ITEM, ITEM_ID, RANK, SCORE, USER_ID, USER_INDEX};
use crate::top_k_users_exec::SegmentQuery;

/// All candidates of the items of one partition.
pub(crate) struct SegmentMerge {
    query: Arc<SegmentQuery>,
    batches: Vec<Candidates>,
    /// Of each asked item.
    chains: Vec<Vec<Chain>>,
    bytes: usize,
}

/// A batch of candidates as it came.
struct Candidates {
    user_index: UInt32Array,
    score: Float32Array,
    /// Where anybody asks for ids.
    user_id: Option<StringArray>,
}

/// Candidates of one item, best first: runs, each worse than the one before. There are about as many chains as partitions,
/// since a partition's next run is worse than its last; a few more where runs of others came behind that one.
struct Chain {
    runs: Vec<Run>,
    last: Rank,
}

/// Rows of a batch, best first.
struct Run {
    batch: usize,
    from: usize,
    to: usize,
}

impl Candidates {
    fn rank(&self, row: usize) -> Rank {
        Rank::new(self.score.value(row), self.user_index.value(row))
    }

    fn allocated_bytes(&self) -> usize {
        self.user_index.get_array_memory_size()
            + self.score.get_array_memory_size()
            + self.user_id.as_ref().map_or(0, Array::get_array_memory_size)
    }
}

impl SegmentMerge {
    pub(crate) fn new(query: Arc<SegmentQuery>) -> Self {
        let chains = query.items.ids().iter().map(|_| Vec::new()).collect();
        Self { query, batches: Vec::new(), chains, bytes: 0 }
    }

    pub(crate) fn allocated_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a batch. Rows of one item lie best first as far as one partition gave them; any other order is right too,
    /// and costs more.
    ///
    /// # Cost   a comparison a row, and one with a few chains for each run
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let items = batch.column(0).as_primitive::<UInt32Type>().values();
        let candidates = Candidates {
            user_index: batch.column(1).as_primitive::<UInt32Type>().clone(),
            score: batch.column(2).as_primitive::<Float32Type>().clone(),
            user_id: self.query.user_ids.then(|| batch.column(3).as_string::<i32>().clone()),
        };
        let mut from = 0;
        while let Some(item) = items.get(from) {
            let Some(chains) = self.chains.get_mut(*item as usize) else {
                return internal_err!("a candidate names an item that was not asked for");
            };
            let first = candidates.rank(from);
            let (mut to, mut last) = (from + 1, first);
            while items.get(to) == Some(item) && candidates.rank(to) > last {
                last = candidates.rank(to);
                to += 1;
            }
            // Scores fall along a run.
            let least = self.query.min_score;
            let wanted = from + candidates.score.values()[from..to].partition_point(|score| *score >= least);
            if wanted > from {
                let run = Run { batch: self.batches.len(), from, to: wanted };
                let last = candidates.rank(wanted - 1);
                match chains.iter_mut().find(|chain| chain.last < first) {
                    Some(chain) => {
                        chain.runs.push(run);
                        chain.last = last;
                    }
                    None => chains.push(Chain { runs: vec![run], last }),
                }
                self.bytes += size_of::<Run>() + size_of::<Chain>();
            }
            from = to;
        }
        self.bytes += candidates.allocated_bytes();
        self.batches.push(candidates);
        Ok(())
    }

    /// The segments, in batches of at most `batch_size` rows with these columns, which are places in
    /// [`INDEXED_SEGMENT_SCHEMA`](crate::segment_schema::INDEXED_SEGMENT_SCHEMA).
    pub(crate) fn finish(self, schema: SchemaRef, columns: Arc<[usize]>, batch_size: usize) -> Segments {
        let local = vec![usize::MAX; self.batches.len()];
        Segments {
            query: self.query,
            batches: self.batches,
            schema,
            columns,
            batch_size: batch_size.max(1),
            waiting: self.chains.into_iter(),
            item: None,
            taken: 0,
            last: None,
            heads: BinaryHeap::new(),
            local,
        }
    }
}

/// Ranked segments as batches.
pub(crate) struct Segments {
    query: Arc<SegmentQuery>,
    batches: Vec<Candidates>,
    schema: SchemaRef,
    columns: Arc<[usize]>,
    batch_size: usize,
    /// The chains of the items after the one that is merged.
    waiting: std::vec::IntoIter<Vec<Chain>>,
    item: Option<u32>,
    /// Users of the item that were given out.
    taken: usize,
    /// The last of them.
    last: Option<(u32, Rank)>,
    /// What is left of its chains.
    heads: BinaryHeap<Reverse<Head>>,
    /// Room for where a batch stands among those that a batch of output comes from.
    local: Vec<usize>,
}

/// What is left of a chain, by its best user.
struct Head {
    rank: Rank,
    run: Run,
    rest: std::vec::IntoIter<Run>,
}

/// Users of segments that come after each other.
#[derive(Default)]
struct Rows {
    item: Vec<u32>,
    rank: Vec<i32>,
    best: Vec<Rank>,
    /// Batch and row of each.
    place: Vec<(usize, usize)>,
}

impl Head {
    fn of(mut rest: std::vec::IntoIter<Run>, batches: &[Candidates]) -> Option<Self> {
        let run = rest.next()?;
        Some(Self { rank: batches[run.batch].rank(run.from), run, rest })
    }

    /// Goes on to the next user; false at the end of the chain.
    fn advance(&mut self, batches: &[Candidates]) -> bool {
        self.run.from += 1;
        if self.run.from == self.run.to {
            let Some(run) = self.rest.next() else { return false };
            self.run = run;
        }
        self.rank = batches[self.run.batch].rank(self.run.from);
        true
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Segments {
    /// Begins the next item; false if there is none.
    fn begin_item(&mut self) -> bool {
        let Some(chains) = self.waiting.next() else { return false };
        self.item = Some(self.item.map_or(0, |item| item + 1));
        self.taken = 0;
        self.heads =
            chains.into_iter().filter_map(|c| Head::of(c.runs.into_iter(), &self.batches)).map(Reverse).collect();
        true
    }

    /// # Errors   for a user who comes twice: a cluster that made rows anew may give both, and must not be believed
    fn next_rows(&mut self) -> Result<Rows> {
        let mut rows = Rows::default();
        while rows.best.len() < self.batch_size {
            let wanted = self.taken < self.query.num_results;
            let (true, Some(item), Some(mut head)) = (wanted, self.item, self.heads.peek_mut()) else {
                if self.begin_item() {
                    continue;
                }
                break;
            };
            if self.last.replace((item, head.0.rank)) == Some((item, head.0.rank)) {
                return internal_err!("a user came twice for item {}", self.query.items.ids()[item as usize]);
            }
            self.taken += 1;
            rows.item.push(item);
            rows.rank.push(i32::try_from(self.taken).unwrap_or(i32::MAX));
            rows.best.push(head.0.rank);
            rows.place.push((head.0.run.batch, head.0.run.from));
            if !head.0.advance(&self.batches) {
                PeekMut::pop(head);
            }
        }
        Ok(rows)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let rows = self.next_rows()?;
        if rows.best.is_empty() {
            return Ok(None);
        }
        let columns = Arc::clone(&self.columns);
        let columns = columns.iter().map(|column| self.column(*column, &rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.best.len()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }

    fn column(&mut self, column: usize, rows: &Rows) -> Result<ArrayRef> {
        let scored = rows.best.iter().map(|rank| rank.scored());
        Ok(match column {
            ITEM_ID => {
                let ids = rows.item.iter().map(|item| self.query.items.ids()[*item as usize].as_str());
                Arc::new(StringArray::from_iter_values(ids))
            }
            RANK => Arc::new(Int32Array::from(rows.rank.clone())),
            USER_ID => self.user_ids(&rows.place)?,
            SCORE => Arc::new(Float32Array::from_iter_values(scored.map(|scored| scored.score))),
            ITEM => Arc::new(UInt32Array::from(rows.item.clone())),
            USER_INDEX => Arc::new(UInt32Array::from_iter_values(scored.map(|scored| scored.user_index))),
            other => return internal_err!("segments have no column {other}"),
        })
    }

    /// The ids at these places, taken from the few batches that hold them.
    fn user_ids(&mut self, places: &[(usize, usize)]) -> Result<ArrayRef> {
        let (mut used, mut ids) = (Vec::new(), Vec::<&dyn Array>::new());
        let mut local_places = Vec::with_capacity(places.len());
        for (batch, row) in places {
            let local = &mut self.local[*batch];
            if *local == usize::MAX {
                let Some(user_id) = &self.batches[*batch].user_id else {
                    return internal_err!("candidates came without the ids of their users");
                };
                *local = ids.len();
                used.push(*batch);
                ids.push(user_id);
            }
            local_places.push((*local, *row));
        }
        used.into_iter().for_each(|batch| self.local[batch] = usize::MAX);
        Ok(interleave(&ids, &local_places)?)
    }
}

impl Iterator for Segments {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
mod tests {
    use datafusion::arrow::compute::concat_batches;
    use item_affinity_model::Scored;
    use item_affinity_solution::SolutionRef;
    use item_affinity_storage::Stores;

    use super::*;
    use crate::asked_items::AskedItems;
    use crate::options::Seen;
    use crate::segment_schema::{INDEXED_SEGMENT_SCHEMA, candidate_schema};
    use crate::version_source::TravelledVersions;

    const ITEMS: u32 = 5;

    fn query(num_results: usize, min_score: f32) -> Arc<SegmentQuery> {
        let nowhere = SolutionRef::parse("nowhere@1").unwrap();
        let source = TravelledVersions::new(Stores::from_env()).source(&nowhere, "");
        let ids = (0..ITEMS).map(|item| format!("item-{item}")).collect();
        let items = Arc::new(AskedItems::new(source, ids, (0..ITEMS).collect()).unwrap());
        let (seen, users) = (Seen::Include, 1_000);
        Arc::new(SegmentQuery { items, num_results, seen, min_score, user_ids: true, users, filtered: false })
    }

    fn hash(n: u32) -> u32 {
        n.wrapping_mul(0x9E37_79B9).rotate_left(11).wrapping_mul(0x85EB_CA6B).rotate_right(7)
    }

    /// Candidates of a partition as its node gives them: by item, best first. Many scores are equal; the last item has none.
    fn candidates(partition: u32, partitions: u32) -> Vec<(u32, Rank)> {
        let mut rows: Vec<(u32, Rank)> = (0..900)
            .filter(|user| user % partitions == partition)
            .flat_map(|user| (0..ITEMS - 1).map(move |item| (user, item)))
            .filter(|(user, item)| !hash(user * 31 + item).is_multiple_of(3))
            .map(|(user, item)| (item, Rank::new((hash(user * 7 + item) % 40) as f32 / 40.0, user)))
            .collect();
        rows.sort_unstable();
        rows
    }

    fn batch(rows: &[(u32, Rank)]) -> RecordBatch {
        let scored = || rows.iter().map(|(_, rank)| rank.scored());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(item, _)| *item))),
            Arc::new(UInt32Array::from_iter_values(scored().map(|s| s.user_index))),
            Arc::new(Float32Array::from_iter_values(scored().map(|s| s.score))),
            Arc::new(StringArray::from_iter_values(scored().map(|s| format!("user-{}", s.user_index)))),
        ];
        RecordBatch::try_new(Arc::clone(candidate_schema(true)), columns).unwrap()
    }

    fn merged(query: &Arc<SegmentQuery>, batches: &[RecordBatch], size: usize) -> RecordBatch {
        let mut merge = SegmentMerge::new(Arc::clone(query));
        batches.iter().for_each(|batch| merge.push(batch).unwrap());
        let columns: Arc<[usize]> = [ITEM_ID, RANK, USER_ID, SCORE, ITEM, USER_INDEX].into();
        let segments: Vec<RecordBatch> =
            merge.finish(Arc::clone(&INDEXED_SEGMENT_SCHEMA), columns, size).map(Result::unwrap).collect();
        assert!(segments.iter().rev().skip(1).all(|batch| batch.num_rows() == size));
        concat_batches(&INDEXED_SEGMENT_SCHEMA, &segments).unwrap()
    }

    fn expected(k: usize, least: f32, partitions: u32) -> RecordBatch {
        let mut rows: Vec<(u32, Rank)> = (0..partitions).flat_map(|p| candidates(p, partitions)).collect();
        rows.sort_unstable();
        let mut taken = [0; ITEMS as usize];
        rows.retain(|(item, rank)| {
            let of_item = &mut taken[*item as usize];
            *of_item += usize::from(rank.scored().score >= least);
            rank.scored().score >= least && *of_item <= k
        });
        let scored: Vec<(u32, Scored)> = rows.iter().map(|(item, rank)| (*item, rank.scored())).collect();
        let ranks = rows.chunk_by(|a, b| a.0 == b.0).flat_map(|of_item| 1..=of_item.len() as i32);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(scored.iter().map(|(item, _)| format!("item-{item}")))),
            Arc::new(Int32Array::from_iter_values(ranks)),
            Arc::new(StringArray::from_iter_values(scored.iter().map(|(_, s)| format!("user-{}", s.user_index)))),
            Arc::new(Float32Array::from_iter_values(scored.iter().map(|(_, s)| s.score))),
            Arc::new(UInt32Array::from_iter_values(scored.iter().map(|(item, _)| *item))),
            Arc::new(UInt32Array::from_iter_values(scored.iter().map(|(_, s)| s.user_index))),
        ];
        RecordBatch::try_new(Arc::clone(&INDEXED_SEGMENT_SCHEMA), columns).unwrap()
    }

    #[test]
    fn segments_are_those_of_a_sort_however_batches_are_cut_mixed_and_joined() {
        for partitions in [1u32, 2, 5] {
            for (k, least) in [(1, 0.0), (100, 0.0), (1_000, 0.0), (1_000, 0.5), (30, 1.0), (30, 2.0)] {
                let query = query(k, least);
                let expected = expected(k, least, partitions);
                for rows_of_a_batch in [1usize, 7, 256, 10_000] {
                    // Batches of the partitions in turns, as an exchange gives them.
                    let mut queues: Vec<_> = (0..partitions)
                        .map(|p| {
                            candidates(p, partitions).chunks(rows_of_a_batch).map(batch).collect::<Vec<_>>().into_iter()
                        })
                        .collect();
                    let mut batches = Vec::new();
                    while let Some(next) = {
                        let turn = hash(batches.len() as u32) % partitions;
                        queues.rotate_left(turn as usize);
                        queues.iter_mut().find_map(Iterator::next)
                    } {
                        batches.push(next);
                    }
                    for size in [1usize, 64, 10_000] {
                        assert_eq!(
                            merged(&query, &batches, size),
                            expected,
                            "{partitions} {k} {least} {rows_of_a_batch}"
                        );
                    }
                    // An exchange may join batches of several partitions into one.
                    let joined: Vec<RecordBatch> =
                        batches.chunks(3).map(|few| concat_batches(candidate_schema(true), few).unwrap()).collect();
                    assert_eq!(merged(&query, &joined, 64), expected);
                }
            }
        }
    }

    #[test]
    fn a_user_who_comes_twice_is_an_error_and_no_row() {
        let rows = candidates(0, 1);
        let mut merge = SegmentMerge::new(query(100, 0.0));
        merge.push(&batch(&rows)).unwrap();
        // The best but one of the second item, from a partition that was made twice.
        let twice = rows.iter().filter(|(item, _)| *item == 1).nth(1).unwrap();
        merge.push(&batch(&[*twice])).unwrap();
        let columns: Arc<[usize]> = [ITEM_ID, RANK, USER_ID, SCORE, ITEM, USER_INDEX].into();
        let mut segments = merge.finish(Arc::clone(&INDEXED_SEGMENT_SCHEMA), columns, 1);
        let error = segments.find_map(Result::err).expect("an error").to_string();
        assert!(error.contains("a user came twice for item item-1"), "{error}");
    }

    #[test]
    fn there_are_about_as_many_chains_of_an_item_as_partitions() {
        for partitions in [1u32, 2, 3, 5] {
            let gave: Vec<_> = (0..partitions).map(|partition| candidates(partition, partitions)).collect();
            let mut merge = SegmentMerge::new(query(10, 0.0));
            // In turns, seven rows each: nearly a hundred runs of each item.
            let longest = gave.iter().map(Vec::len).max().unwrap();
            for at in (0..longest).step_by(7) {
                for rows in gave.iter().filter_map(|rows| rows.get(at..)) {
                    merge.push(&batch(&rows[..rows.len().min(7)])).unwrap();
                }
            }
            let chains: Vec<usize> = merge.chains.iter().map(Vec::len).collect();
            let (last, others) = chains.split_last().unwrap();
            let about = partitions as usize..=partitions as usize + 2;
            assert!(*last == 0 && others.iter().all(|chains| about.contains(chains)), "{partitions}: {chains:?}");
        }
    }

    #[test]
    fn an_item_that_was_not_asked_for_is_refused() {
        let error = SegmentMerge::new(query(1, 0.0)).push(&batch(&[(ITEMS, Rank::new(0.5, 1))])).unwrap_err();
        assert!(error.to_string().contains("was not asked for"), "{error}");
    }
}
