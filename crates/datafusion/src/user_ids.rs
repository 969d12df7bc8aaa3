//! The ids of users while they are ranked: kept for those who may still end up in a segment.

use std::ops::RangeInclusive;

use datafusion::arrow::array::{Array, ArrayRef, StringArray, StringBuilder, UInt32Array};
use datafusion::arrow::compute::interleave;
use datafusion::common::internal_err;
use datafusion::error::Result;

use crate::place_set::PlaceSet;

/// Bytes of ids that are kept without a thought.
const LEAST_COMPACTED: usize = 4 << 20;
/// Users at which an array of ids is full: far from what the offsets of an array can reach.
const FULL: usize = 1 << 16;

/// Ids by place in the solution version, as batches that came one after another.
pub(crate) struct UserIds {
    batches: Vec<Batch>,
    /// Bytes at which those who are in no segment any more are let go.
    compact_at: usize,
}

struct Batch {
    /// Ascending.
    user_index: UInt32Array,
    user_id: StringArray,
}

impl UserIds {
    pub(crate) fn new() -> Self {
        Self { batches: Vec::new(), compact_at: LEAST_COMPACTED }
    }

    /// Bytes held, and those of the set of places that [`UserIds::keep`] and [`UserIds::sort`] make.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.bytes_of_ids() + PlaceSet::bytes(&self.range())
    }

    fn bytes_of_ids(&self) -> usize {
        let bytes = |b: &Batch| b.user_index.get_array_memory_size() + b.user_id.get_array_memory_size();
        self.batches.iter().map(bytes).sum()
    }

    /// Keeps a batch as it came.
    pub(crate) fn push(&mut self, user_index: UInt32Array, user_id: StringArray) {
        if !user_index.is_empty() {
            self.batches.push(Batch { user_index, user_id });
        }
    }

    /// Whether so many bytes are held that [`UserIds::keep`] is worth its cost.
    pub(crate) fn are_many(&self) -> bool {
        self.bytes_of_ids() > self.compact_at
    }

    /// Lets go of all users but these, in any order, so that memory grows with segments and not with users.
    ///
    /// # Cost   12 bytes for each 64 places from the first user held to the last, and a copy of the ids that stay, while the
    /// batches that they come from go one by one; what stays may double before the next time
    pub(crate) fn keep(&mut self, users: impl Iterator<Item = u32>) {
        let kept = PlaceSet::of(users, self.range());
        self.rebuild(|user| kept.position(user).is_some());
        self.compact_at = LEAST_COMPACTED.max(2 * self.bytes_of_ids());
    }

    /// Puts the ids of some users into full batches. Each batch is let go once it is copied.
    fn rebuild(&mut self, wanted: impl Fn(u32) -> bool) {
        let (mut index, mut id, mut batches) = (Vec::new(), StringBuilder::new(), Vec::new());
        for Batch { user_index, user_id } in std::mem::take(&mut self.batches) {
            for (row, user) in user_index.values().iter().enumerate() {
                if wanted(*user) {
                    index.push(*user);
                    id.append_value(user_id.value(row));
                }
                if index.len() == FULL {
                    batches.push(Batch { user_index: std::mem::take(&mut index).into(), user_id: id.finish() });
                }
            }
        }
        if !index.is_empty() {
            batches.push(Batch { user_index: index.into(), user_id: id.finish() });
        }
        self.batches = batches;
    }

    /// From the least place to the greatest.
    fn range(&self) -> RangeInclusive<u32> {
        let first = self.batches.iter().filter_map(|b| b.user_index.values().first()).min();
        let last = self.batches.iter().filter_map(|b| b.user_index.values().last()).max();
        first.copied().unwrap_or(1)..=last.copied().unwrap_or(0)
    }

    /// Ends the gathering; ids can be looked up from here on.
    ///
    /// # Cost   as [`UserIds::keep`], with all ids
    /// # Errors   an internal error when a place came twice
    pub(crate) fn sort(mut self) -> Result<SortedUserIds> {
        self.batches.sort_by_key(|b| b.user_index.value(0));
        if !self.batches.iter().flat_map(|b| b.user_index.values()).is_sorted_by(|a, b| a < b) {
            return internal_err!("user states are not ordered by user_index, each once");
        }
        self.rebuild(|_| true);
        let users = self.batches.iter().flat_map(|b| b.user_index.values().iter().copied());
        let places = PlaceSet::of(users, self.range());
        Ok(SortedUserIds { places, ids: self.batches.into_iter().map(|b| b.user_id).collect() })
    }
}

/// Ids that are looked up by place.
pub(crate) struct SortedUserIds {
    places: PlaceSet,
    /// In the order of their places, each but the last one with [`FULL`] of them.
    ids: Vec<StringArray>,
}

impl SortedUserIds {
    /// The ids of these users, of which all must have been kept.
    pub(crate) fn of(&self, users: impl Iterator<Item = u32>) -> Result<ArrayRef> {
        let mut places = Vec::with_capacity(users.size_hint().0);
        for user in users {
            let Some(position) = self.places.position(user) else {
                return internal_err!("user_index {user} was ranked but never scanned");
            };
            places.push((position / FULL, position % FULL));
        }
        let ids = self.ids.iter().map(|ids| ids as &dyn Array).collect::<Vec<_>>();
        Ok(interleave(&ids, &places)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::arrow::array::AsArray;

    use super::*;

    const USERS: u32 = 1_000_000;

    fn id(user: u32) -> String {
        format!("household-{user:012}")
    }

    #[test]
    fn of_a_million_users_only_those_of_segments_are_held() {
        // The candidates change as users stream by: the last 3,000 so far, and every 1,000th.
        let is_candidate = |user: u32, seen: u32| user.is_multiple_of(1_000) || user + 3_000 >= seen;
        let (mut ids, mut most, mut compactions) = (UserIds::new(), 0, 0);
        for first in (0..USERS).step_by(8_000) {
            let users = first..first + 8_000;
            ids.push(
                UInt32Array::from_iter_values(users.clone()),
                StringArray::from_iter_values(users.clone().map(id)),
            );
            most = most.max(ids.allocated_bytes());
            if ids.are_many() {
                ids.keep((0..users.end).rev().filter(|user| is_candidate(*user, users.end)));
                compactions += 1;
            }
        }
        // All of them would be 30 MB and more.
        assert!(most < 5 << 20, "{most}");
        assert!((5..40).contains(&compactions), "{compactions}");
        let ids = ids.sort().unwrap();
        let candidates = (0..USERS).rev().filter(|user| is_candidate(*user, USERS)).collect::<Vec<_>>();
        let found = ids.of(candidates.iter().copied()).unwrap();
        let found = found.as_string::<i32>();
        for (user, found) in candidates.iter().zip(found) {
            assert_eq!(found, Some(id(*user).as_str()));
        }
        assert!(ids.of([1].into_iter()).is_err());
    }

    #[test]
    fn p25_a_batch_is_let_go_before_the_next_is_copied() {
        let mut ids = UserIds::new();
        let batches = [0..1_000, 1_000..2_000].map(|users| StringArray::from_iter_values(users.map(id)));
        for (first, batch) in (0u32..).step_by(1_000).zip(&batches) {
            ids.push(UInt32Array::from_iter_values(first..first + 1_000), batch.clone());
        }
        let held = |at: usize| batches[at].values().strong_count() > 1;
        assert!(held(0) && held(1));
        ids.rebuild(|user| {
            assert_eq!((held(0), held(1)), (user < 1_000, true), "{user}");
            true
        });
        assert!(!held(1));
    }

    #[test]
    fn p25_the_set_of_places_between_the_first_and_the_last_user_counts() {
        let mut ids = UserIds::new();
        assert_eq!(ids.allocated_bytes(), 0);
        let users = [0, 64_000_000];
        ids.push(UInt32Array::from_iter_values(users), StringArray::from_iter_values(users.map(id)));
        assert!(ids.allocated_bytes() > 12_000_000, "{}", ids.allocated_bytes());
        // It does not make two users many.
        assert!(!ids.are_many());
    }

    #[test]
    fn a_place_that_comes_twice_is_refused() {
        let mut ids = UserIds::new();
        for users in [[4, 5], [1, 4]] {
            ids.push(UInt32Array::from(users.to_vec()), StringArray::from_iter_values(users.map(id)));
        }
        assert!(ids.sort().is_err());
    }
}
