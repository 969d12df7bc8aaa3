//! The hot loop of one partition: user states in, the best users of each item out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{ArrayRef, AsArray, Float32Array, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::{Float32Type, UInt32Type};
use datafusion::common::internal_err;
use datafusion::error::Result;
use item_affinity_model::ndarray::{ArrayView2, Axis, s};
use item_affinity_model::{ItemPanels, Scored, SharedThresholds, TileLogOdds, TopKUsers};
use item_affinity_solution::factor_values;

use crate::asked_items::Ranking;
use crate::error::from_model;
use crate::options::Seen;
use crate::segment_schema::candidate_schema;
use crate::top_k_users_exec::SegmentQuery;
use crate::user_ids::{SortedUserIds, UserIds};
use crate::user_states::{FACTOR, LOG_ODDS, USER_ID, USER_INDEX};

/// Users that are ranked for all items before the next: their factors stay in the second-level cache.
const TILE_USERS: usize = 512;
/// Items that are ranked together.
pub(crate) const ITEM_BLOCK: usize = 512;

/// Scores batches of user states against the asked items and keeps the best `k` users of each.
pub(crate) struct PartitionTopK {
    query: Arc<SegmentQuery>,
    /// Of the asked items; pairs in blocks of [`ITEM_BLOCK`] items.
    ranking: Arc<Ranking>,
    blocks: Vec<(ItemPanels, TopKUsers)>,
    /// None are kept where nobody asks for them.
    ids: UserIds,
}

/// What the partitions of one execution tell each other, by block of items.
pub(crate) fn shared_thresholds(items: usize, partitions: usize) -> Arc<[Arc<SharedThresholds>]> {
    let blocks = (0..items).step_by(ITEM_BLOCK).map(|first| ITEM_BLOCK.min(items - first));
    blocks.map(|items| Arc::new(SharedThresholds::new(items, partitions))).collect()
}

impl PartitionTopK {
    pub(crate) fn new(
        query: Arc<SegmentQuery>,
        ranking: Arc<Ranking>,
        shared: &[Arc<SharedThresholds>],
        partition: usize,
    ) -> Self {
        let blocks = ranking.factors.axis_chunks_iter(Axis(0), ITEM_BLOCK).zip(shared);
        let block = |(factors, shared): (ArrayView2<'_, f32>, &Arc<SharedThresholds>)| {
            (ItemPanels::new(factors), TopKUsers::of_part(query.num_results, Arc::clone(shared), partition))
        };
        let blocks = blocks.map(block).collect();
        Self { query, ranking, blocks, ids: UserIds::new() }
    }

    /// Bytes held: candidates, factors of items, and ids of users; not the shared history.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|(factors, top)| factors.allocated_bytes() + top.allocated_bytes());
        blocks.sum::<usize>() + self.ids.allocated_bytes()
    }

    /// Scores the users of one batch (`user_index, factor, log_odds[, user_id]`) and returns how many there were; ends
    /// early, between tiles, when `stop` is set.
    ///
    /// # Cost   items × users × hidden_dimension multiply-adds, on the calling thread
    pub(crate) fn push(&mut self, batch: &RecordBatch, stop: &AtomicBool) -> Result<usize> {
        let users = batch.num_rows();
        let dimension = self.ranking.factors.ncols();
        let user_index = batch.column(USER_INDEX).as_primitive::<UInt32Type>().clone();
        let factors = factor_values(batch.column(FACTOR).as_fixed_size_binary());
        let Ok(factors) = ArrayView2::from_shape((users, dimension), factors.as_ref()) else {
            return internal_err!("{} factor values for {users} users of dimension {dimension}", factors.len());
        };
        let log_odds = batch.column(LOG_ODDS).as_primitive::<Float32Type>().values();
        if self.query.seen != Seen::Exclude {
            // For the whole batch at once: a tile has only a few of them for each item.
            for ((_, top), history) in self.blocks.iter_mut().zip(&self.ranking.history) {
                top.push_repeat_pairs(user_index.values(), history).map_err(from_model)?;
            }
        }
        let of_new_pairs = if self.query.seen == Seen::Only { 0 } else { users };
        for from in (0..of_new_pairs).step_by(TILE_USERS) {
            if stop.load(Ordering::Relaxed) {
                return Ok(from);
            }
            let to = users.min(from + TILE_USERS);
            let user_factors = factors.slice(s![from..to, ..]);
            for (block, (item_factors, top)) in self.blocks.iter_mut().enumerate() {
                let first = block * ITEM_BLOCK;
                let tile = TileLogOdds {
                    slopes: self.ranking.slopes,
                    users: &log_odds[from..to],
                    items: &self.ranking.log_odds[first..][..item_factors.items()],
                };
                let (tile_users, history) = (&user_index.values()[from..to], &self.ranking.history[block]);
                let pushed = top.push_new_pairs(item_factors, user_factors, tile_users, tile, history);
                pushed.map_err(from_model)?;
            }
        }
        if self.query.user_ids {
            self.ids.push(user_index, batch.column(USER_ID).as_string::<i32>().clone());
            if self.ids.are_many() {
                self.ids.keep(self.blocks.iter().flat_map(|(_, top)| top.users()));
            }
        }
        Ok(users)
    }

    /// Ends the scoring; the candidates come in batches of at most `batch_size` rows, by item, best first. None come when
    /// `stop` is set.
    pub(crate) fn finish(self, batch_size: usize, stop: &AtomicBool) -> Result<Candidates> {
        let ids = self.ids.sort()?;
        let wanted = self.blocks.into_iter().take_while(|_| !stop.load(Ordering::Relaxed));
        let segments = wanted.flat_map(|(_, top)| top.finish()).collect::<Vec<_>>();
        let user_ids = self.query.user_ids;
        Ok(Candidates { ids, user_ids, segments, batch_size: batch_size.max(1), item: 0, at: 0 })
    }
}

/// The best users of each item in one partition, as batches of [`candidate_schema`].
pub(crate) struct Candidates {
    ids: SortedUserIds,
    user_ids: bool,
    segments: Vec<Vec<Scored>>,
    batch_size: usize,
    item: usize,
    at: usize,
}

impl Candidates {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut item = Vec::new();
        let mut users = Vec::new();
        while item.len() < self.batch_size && self.item < self.segments.len() {
            let segment = &mut self.segments[self.item];
            let to = segment.len().min(self.at + self.batch_size - item.len());
            users.extend_from_slice(&segment[self.at..to]);
            item.resize(users.len(), u32::try_from(self.item).unwrap_or(u32::MAX));
            self.at = to;
            if to == segment.len() {
                *segment = Vec::new();
                self.item += 1;
                self.at = 0;
            }
        }
        if users.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(item)),
            Arc::new(UInt32Array::from_iter_values(users.iter().map(|u| u.user_index))),
            Arc::new(Float32Array::from_iter_values(users.iter().map(|u| u.score))),
        ];
        if self.user_ids {
            columns.push(self.ids.of(users.iter().map(|user| user.user_index))?);
        }
        Ok(Some(RecordBatch::try_new(Arc::clone(candidate_schema(self.user_ids)), columns)?))
    }
}

impl Iterator for Candidates {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}
