//! The hot loop of one partition: user states in, the best users of each item out.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::{Float32Type, UInt32Type};
use datafusion::common::internal_err;
use datafusion::error::Result;
use item_affinity_model::ndarray::{ArrayView2, s};
use item_affinity_model::{Csr, Scored, TileLogOdds, TopKUsers, score_tile};
use item_affinity_solution::factor_values;

use crate::error::from_model;
use crate::options::Seen;
use crate::segment_schema::CANDIDATE_SCHEMA;
use crate::top_k_users_exec::SegmentQuery;
use crate::user_states::{FACTOR, LOG_ODDS, USER_ID, USER_INDEX};

/// Users in one tile of scores: with [`ITEM_BLOCK`] items it takes 2 MB, which stays in the second-level cache.
const TILE_USERS: usize = 1024;
/// Items in one tile of scores.
pub(crate) const ITEM_BLOCK: usize = 512;

/// Scores batches of user states against the asked items and keeps the best `k` users of each.
pub(crate) struct PartitionTopK {
    query: Arc<SegmentQuery>,
    /// Pairs with history, in blocks of [`ITEM_BLOCK`] items.
    history: Arc<Vec<Csr>>,
    blocks: Vec<TopKUsers>,
    tile: Vec<f32>,
    ids: Vec<SeenUsers>,
}

/// The ids of one batch: kept as they came, looked up only for users who end up in a segment.
struct SeenUsers {
    user_index: UInt32Array,
    user_id: StringArray,
}

impl PartitionTopK {
    pub(crate) fn new(query: Arc<SegmentQuery>, history: Arc<Vec<Csr>>) -> Self {
        let (items, k) = (query.item_factors.nrows(), query.num_results);
        let blocks = (0..items).step_by(ITEM_BLOCK).map(|at| TopKUsers::new(ITEM_BLOCK.min(items - at), k)).collect();
        let tile = vec![0.0; items.min(ITEM_BLOCK) * TILE_USERS];
        Self { query, history, blocks, tile, ids: Vec::new() }
    }

    /// Bytes held: candidates, the tile of scores, and the ids of all users seen; not the shared history.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.blocks.iter().map(TopKUsers::allocated_bytes).sum::<usize>()
            + self.tile.capacity() * size_of::<f32>()
            + self
                .ids
                .iter()
                .map(|b| b.user_index.get_array_memory_size() + b.user_id.get_array_memory_size())
                .sum::<usize>()
    }

    /// Scores the users of one batch (`user_id, user_index, factor, log_odds`) and returns how many there were.
    ///
    /// # Cost   items × users × hidden_dimension multiply-adds, on the calling thread
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<usize> {
        let users = batch.num_rows();
        let dimension = self.query.item_factors.ncols();
        let user_index = batch.column(USER_INDEX).as_primitive::<UInt32Type>().clone();
        let user_id = batch.column(USER_ID).as_string::<i32>().clone();
        let factors = factor_values(batch.column(FACTOR).as_fixed_size_binary());
        let Ok(factors) = ArrayView2::from_shape((users, dimension), factors.as_ref()) else {
            return internal_err!("{} factor values for {users} users of dimension {dimension}", factors.len());
        };
        let log_odds = batch.column(LOG_ODDS).as_primitive::<Float32Type>().values();
        let (new_pairs, repeat_pairs) = (self.query.seen != Seen::Only, self.query.seen != Seen::Exclude);
        for from in (0..users).step_by(TILE_USERS) {
            let to = users.min(from + TILE_USERS);
            let user_factors = factors.slice(s![from..to, ..]);
            for (block, top) in self.blocks.iter_mut().enumerate() {
                let first = block * ITEM_BLOCK;
                let items = self.query.item_factors.nrows().min(first + ITEM_BLOCK) - first;
                let (tile_users, history) = (&user_index.values()[from..to], &self.history[block]);
                if repeat_pairs {
                    top.push_repeat_pairs(tile_users, history).map_err(from_model)?;
                }
                if new_pairs {
                    let item_factors = self.query.item_factors.slice(s![first..first + items, ..]);
                    let affinities = &mut self.tile[..items * (to - from)];
                    score_tile(item_factors, user_factors, affinities).map_err(from_model)?;
                    let tile = TileLogOdds {
                        slopes: self.query.slopes,
                        users: &log_odds[from..to],
                        items: &self.query.item_log_odds[first..first + items],
                    };
                    top.push_new_pairs(affinities, tile_users, tile, history).map_err(from_model)?;
                }
            }
        }
        self.ids.push(SeenUsers { user_index, user_id });
        Ok(users)
    }

    /// Ends the scoring; the candidates come in batches of at most `batch_size` rows, by item, best first.
    pub(crate) fn finish(self, batch_size: usize) -> Result<Candidates> {
        let mut ids = self.ids;
        ids.retain(|b| !b.user_index.is_empty());
        ids.sort_by_key(|b| b.user_index.value(0));
        let ascending = ids.iter().flat_map(|b| b.user_index.values()).is_sorted_by(|a, b| a < b);
        if !ascending {
            return internal_err!("user states are not ordered by user_index, each once");
        }
        let segments = self.blocks.into_iter().flat_map(TopKUsers::finish).collect::<Vec<_>>();
        Ok(Candidates { ids, segments, batch_size: batch_size.max(1), item: 0, at: 0 })
    }
}

/// The best users of each item in one partition, as batches of [`CANDIDATE_SCHEMA`].
pub(crate) struct Candidates {
    ids: Vec<SeenUsers>,
    segments: Vec<Vec<Scored>>,
    batch_size: usize,
    item: usize,
    at: usize,
}

impl Candidates {
    /// Finds where a user's id is kept: batch and row.
    fn place(&self, user_index: u32) -> Option<(usize, usize)> {
        let batch = self.ids.partition_point(|b| b.user_index.value(0) <= user_index).checked_sub(1)?;
        let row = self.ids[batch].user_index.values().binary_search(&user_index).ok()?;
        Some((batch, row))
    }

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
        let mut places = Vec::with_capacity(users.len());
        for user in &users {
            let Some(place) = self.place(user.user_index) else {
                return internal_err!("user_index {} was ranked but never scanned", user.user_index);
            };
            places.push(place);
        }
        let ids = self.ids.iter().map(|b| &b.user_id as &dyn Array).collect::<Vec<_>>();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(item)),
            Arc::new(UInt32Array::from_iter_values(users.iter().map(|u| u.user_index))),
            interleave(&ids, &places)?,
            Arc::new(Float32Array::from_iter_values(users.iter().map(|u| u.score))),
        ];
        Ok(Some(RecordBatch::try_new(Arc::clone(&CANDIDATE_SCHEMA), columns)?))
    }
}

impl Iterator for Candidates {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}
