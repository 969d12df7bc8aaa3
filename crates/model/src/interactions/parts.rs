//! Parts of an event log: before a moment and after it, of some users, with the items of an earlier training.

use std::ops::Range;
use std::sync::Arc;

use super::{Columns, Interactions};
use crate::error::Result;
use crate::vocabulary::Vocabulary;

/// Marks an item without a number; no vocabulary is that long.
const UNKNOWN: u32 = u32::MAX;

/// What [`Interactions::onto_items`] leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Events with other items.
    pub interactions: usize,
    /// Those items.
    pub items: usize,
    /// Users who have no event with a known item.
    pub users: usize,
}

impl Interactions {
    /// The events with these items, numbered as they are there, and what is left out.
    ///
    /// The items may have no event any more. Every user has one: those who have none with a known item are not among
    /// the users of the result.
    ///
    /// # Errors
    /// none that a caller can bring about: the ids of a vocabulary ascend
    /// # Cost
    /// O(events + items · log(items)), in place unless another part shares the events; the ids of the users once more
    pub fn onto_items(self, items: impl Into<Arc<Vocabulary>>) -> Result<(Self, LeftOut)> {
        let items = items.into();
        let events = self.len();
        let Self { users, items: before, indptr, starts, columns } = self;
        let Columns { mut item_index, mut time, mut weight } = Arc::unwrap_or_clone(columns);
        // Both vocabularies ascend by bytes, so that the events of a user stay sorted.
        let numbers: Vec<u32> = before.iter().map(|id| items.index_of(id).unwrap_or(UNKNOWN)).collect();
        let mut left_out = vec![false; before.len()];
        let (mut kept, mut ends, mut present) = (0usize, vec![0usize], Vec::new());
        let mut silent = 0;
        for ((user, bounds), first) in (0u32..).zip(indptr.windows(2)).zip(starts) {
            let start = kept;
            for at in first..first + bounds[1] - bounds[0] {
                let old = item_index[at] as usize;
                if numbers[old] == UNKNOWN {
                    left_out[old] = true;
                    continue;
                }
                (item_index[kept], time[kept], weight[kept]) = (numbers[old], time[at], weight[at]);
                kept += 1;
            }
            if kept > start {
                present.push(user);
                ends.push(kept);
            } else {
                silent += usize::from(bounds[0] < bounds[1]);
            }
        }
        let interactions = events - kept;
        item_index.truncate(kept);
        time.truncate(kept);
        weight.truncate(kept);
        let starts = ends[..ends.len() - 1].to_vec();
        let columns = Arc::new(Columns { item_index, time, weight });
        let left_out = LeftOut { interactions, items: left_out.iter().filter(|left| **left).count(), users: silent };
        let users = Vocabulary::from_sorted(present.iter().filter_map(|user| users.id(*user)))?;
        Ok((Self { users: Arc::new(users), items, indptr: ends, starts, columns }, left_out))
    }

    /// The older and the newer part: of each user's n events the newest ⌊n · share⌋ are in the second.
    ///
    /// `share` is taken into [0, 1]. This is the split of Amazon Personalize with the part left open there, which
    /// events are held out, fixed as the newest.
    #[must_use]
    pub fn split_last_share(&self, share: f64) -> (Self, Self) {
        // A product that rounding left a hair below a whole number still counts as that number.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let newest = |events: usize| ((events as f64 * share.clamp(0.0, 1.0) + 1e-9) as usize).min(events);
        self.split(|all| all.end - newest(all.len()))
    }

    /// Only the events of some users; the vocabularies stay.
    pub(crate) fn of_users(&self, keep: impl Fn(usize) -> bool) -> Self {
        self.select(|user, all| if keep(user) { all } else { all.start..all.start })
    }

    /// The events before `time`, and those at `time` or later.
    #[must_use]
    pub fn split_at(&self, time: i64) -> (Self, Self) {
        self.split(|all| all.start + self.columns.time[all].partition_point(|at| *at < time))
    }

    /// Cuts every user's events at the position that `cut` gives.
    fn split(&self, cut: impl Fn(Range<usize>) -> usize) -> (Self, Self) {
        let cuts: Vec<usize> = (0..self.starts.len()).map(|user| cut(self.range(user))).collect();
        (self.select(|user, all| all.start..cuts[user]), self.select(|user, all| cuts[user]..all.end))
    }

    /// Some of each user's events, of the same columns.
    fn select(&self, some: impl Fn(usize, Range<usize>) -> Range<usize>) -> Self {
        let mut indptr = Vec::with_capacity(self.indptr.len());
        indptr.push(0usize);
        let (mut starts, mut events) = (Vec::with_capacity(self.starts.len()), 0);
        for user in 0..self.starts.len() {
            let some = some(user, self.range(user));
            starts.push(some.start);
            events += some.len();
            indptr.push(events);
        }
        let [users, items] = [&self.users, &self.items].map(Arc::clone);
        Self { users, items, indptr, starts, columns: Arc::clone(&self.columns) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vocabulary {
        Vocabulary::from_sorted(ids).unwrap()
    }

    /// ann: c at 5, a at 7, b at 7; bob: d at 1 and at 2; cy: nothing; di: b at 3.
    fn log() -> Interactions {
        let (users, items) = (ids(&["ann", "bob", "cy", "di"]), ids(&["a", "b", "c", "d", "e"]));
        let (user_index, item_index) = (vec![3, 0, 0, 0, 1, 1], vec![1, 0, 1, 2, 3, 3]);
        let weight = vec![6.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        Interactions::new(users, items, user_index, item_index, vec![3, 7, 7, 5, 1, 2], weight).unwrap()
    }

    #[test]
    fn events_with_other_items_are_left_out_and_counted() {
        let (kept, left) = log().onto_items(ids(&["0", "a", "bb", "c", "z"])).unwrap();
        // Lost: both events with b, both with d; e has none to lose.
        assert_eq!(left, LeftOut { interactions: 4, items: 2, users: 2 });
        assert_eq!(kept.users().iter().collect::<Vec<_>>(), ["ann"]);
        assert_eq!(kept.items().iter().collect::<Vec<_>>(), ["0", "a", "bb", "c", "z"]);
        let ann = kept.history(0);
        assert_eq!((ann.items, ann.times, ann.weights), (&[3, 1][..], &[5, 7][..], &[3.0, 1.0][..]));
    }

    #[test]
    fn the_same_items_keep_every_event_and_only_drop_users_without_any() {
        let (kept, left) = log().onto_items(ids(&["a", "b", "c", "d", "e"])).unwrap();
        assert_eq!(left, LeftOut::default());
        assert_eq!(kept.users().iter().collect::<Vec<_>>(), ["ann", "bob", "di"]);
        for (new, old) in [(0, 0), (1, 1), (2, 3)] {
            assert_eq!(kept.history(new), log().history(old));
        }
    }

    #[test]
    fn the_result_is_what_the_known_events_alone_give() {
        let known = ids(&["b", "c", "x"]);
        let alone = Interactions::new(
            ids(&["ann", "di"]),
            known.clone(),
            vec![1, 0, 0],
            vec![0, 0, 1],
            vec![3, 7, 5],
            vec![6.0, 2.0, 3.0],
        );
        let (kept, _) = log().onto_items(known).unwrap();
        let alone = alone.unwrap();
        assert_eq!((kept.len(), kept.time_range()), (3, Some((3, 7))));
        assert_eq!(kept.pairs(None).unwrap(), alone.pairs(None).unwrap());
        assert_eq!(kept.users(), alone.users());
    }

    #[test]
    fn one_side_of_a_split_takes_other_items_without_the_other_side() {
        let log = log();
        let (older, newer) = log.split_at(4);
        let newer_events = newer.len();
        let (kept, left) = newer.onto_items(ids(&["a", "b", "x"])).unwrap();
        // At 4 or later only ann is there: c is lost, a and b stay.
        assert_eq!((newer_events, left), (3, LeftOut { interactions: 1, items: 1, users: 0 }));
        assert_eq!(kept.users().iter().collect::<Vec<_>>(), ["ann"]);
        let ann = kept.history(0);
        assert_eq!((ann.items, ann.times, ann.weights), (&[0, 1][..], &[7, 7][..], &[1.0, 2.0][..]));
        // What shared the events has them still.
        assert_eq!((older.len(), log.len()), (3, 6));
        assert_eq!(older.history(1).times, [1, 2]);
        assert_eq!(log.history(0).items, [2, 0, 1]);
    }

    #[test]
    fn without_a_known_item_nothing_is_left() {
        let (kept, left) = log().onto_items(ids(&["x"])).unwrap();
        assert!(kept.is_empty() && kept.users().is_empty());
        assert_eq!(left, LeftOut { interactions: 6, items: 4, users: 3 });
    }
}
