//! The event log by user, and its users × items pairs.

mod parts;
mod sorted;

use std::ops::Range;
use std::sync::Arc;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::csr::{Csr, Rows};
use crate::elementary::exp2;
use crate::error::{Error, Result, same_length};
use crate::rows::blocks;
use crate::vocabulary::Vocabulary;

pub use parts::LeftOut;
use sorted::{Columns, by_user};

/// Events in one block of parallel work.
const BLOCK_EVENTS: usize = 1 << 16;
/// The most events of one user: their positions are `u32`.
const MOST: u64 = u32::MAX as u64;

/// Who did something with which item, when, and how much that counts.
///
/// Events lie user by user, inside a user by time, then item, then weight: the order of the input never shows.
/// Both sides of a split share the events and the vocabularies, so that an index means the same everywhere.
#[derive(Clone, Debug)]
pub struct Interactions {
    users: Arc<Vocabulary>,
    items: Arc<Vocabulary>,
    /// Counts events up to each user; users + 1.
    indptr: Vec<usize>,
    /// Where the events of each user start in the columns; ascending.
    starts: Vec<usize>,
    columns: Arc<Columns>,
}

/// The events of one user, oldest first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History<'a> {
    /// Item indexes.
    pub items: &'a [u32],
    /// Epoch seconds.
    pub times: &'a [i64],
    /// Event weights, 1 for an ordinary event.
    pub weights: &'a [f32],
}

/// How fast events lose weight: by half in each half-life before `as_of`; later events count fully.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay {
    /// Seconds, above 0.
    pub half_life_seconds: f64,
    /// Epoch seconds at which an event counts fully.
    pub as_of: i64,
}

impl Interactions {
    /// Sorts events, given in any order, by user.
    ///
    /// # Shapes
    /// one entry per event in each of the four columns
    /// # Units
    /// time: epoch seconds; weight: at least 0, 1 for an ordinary event
    /// # Errors
    /// [`Error::Shape`] for columns of different length, [`Error::OutOfRange`] for an index without an id or a weight
    /// that is negative, NaN or infinite, [`Error::TooMany`] for a user with more than 2³² − 1 events.
    /// # Cost
    /// O(events · log(events of a user)), parallel by blocks of users; the peak is the input and 16 bytes more per event, or
    /// 24 if not all weigh the same.
    pub fn new(
        users: impl Into<Arc<Vocabulary>>,
        items: impl Into<Arc<Vocabulary>>,
        user_index: Vec<u32>,
        item_index: Vec<u32>,
        time: Vec<i64>,
        weight: Vec<f32>,
    ) -> Result<Self> {
        let (users, items) = (users.into(), items.into());
        same_length("item_index", user_index.len(), item_index.len())?;
        same_length("time", user_index.len(), time.len())?;
        same_length("weight", user_index.len(), weight.len())?;
        in_range("user_index", &user_index, users.len())?;
        in_range("item_index", &item_index, items.len())?;
        if let Some(bad) = weight.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(Error::out_of_range("weight", bad, "[0, infinity)"));
        }
        let indptr = count(&user_index, users.len());
        if let Some(most) = indptr.windows(2).map(|bounds| (bounds[1] - bounds[0]) as u64).max().filter(|n| *n > MOST) {
            return Err(Error::TooMany { name: "events of a user", count: most, most: MOST });
        }
        let columns = Arc::new(by_user(&indptr, user_index, Columns { item_index, time, weight }));
        Ok(Self { starts: indptr[..users.len()].to_vec(), users, items, indptr, columns })
    }

    /// The users, whether or not they have events here.
    #[must_use]
    pub fn users(&self) -> &Vocabulary {
        &self.users
    }

    /// The items, whether or not they have events here.
    #[must_use]
    pub fn items(&self) -> &Vocabulary {
        &self.items
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indptr.last().copied().unwrap_or_default()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events of the user with this index, oldest first.
    #[must_use]
    pub fn history(&self, user: usize) -> History<'_> {
        let range = self.range(user);
        let Columns { item_index, time, weight } = &*self.columns;
        History { items: &item_index[range.clone()], times: &time[range.clone()], weights: &weight[range] }
    }

    /// Where the events of a user are in the columns.
    fn range(&self, user: usize) -> Range<usize> {
        self.starts[user]..self.starts[user] + self.indptr[user + 1] - self.indptr[user]
    }

    /// Counts events up to each user; users + 1.
    pub(crate) fn indptr(&self) -> &[usize] {
        &self.indptr
    }

    /// The times of the events of each of some users.
    pub(crate) fn times(&self, users: Range<usize>) -> impl Iterator<Item = &[i64]> {
        users.map(|user| &self.columns.time[self.range(user)])
    }

    /// The oldest and the newest time.
    #[must_use]
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let mut range: Option<(i64, i64)> = None;
        for of_user in (0..self.starts.len()).map(|user| self.range(user)).filter(|of_user| !of_user.is_empty()) {
            let (first, last) = (self.columns.time[of_user.start], self.columns.time[of_user.end - 1]);
            range = Some(range.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
        }
        range
    }

    /// How many users have at least this many events.
    #[must_use]
    pub fn users_with_at_least(&self, events: usize) -> usize {
        self.indptr.windows(2).filter(|bounds| bounds[1] - bounds[0] >= events).count()
    }

    /// Bytes held on the heap, without the vocabularies; both sides of a split count the events that they share.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let Columns { item_index, time, weight } = &*self.columns;
        (self.indptr.capacity() + self.starts.capacity()) * size_of::<usize>()
            + item_index.capacity() * size_of::<u32>()
            + time.capacity() * size_of::<i64>()
            + weight.capacity() * size_of::<f32>()
    }

    /// The distinct users × items pairs with the sum of the (decayed) weights of their events, added in f64 in the order of
    /// the events.
    ///
    /// # Units
    /// values: sums of weights; a weight at age a counts `2^(−a / half_life)` times
    /// # Errors
    /// [`Error::OutOfRange`] for a half-life that is not above 0, [`Error::NotFinite`] for a sum beyond f32.
    /// # Cost
    /// O(events · log(events of a user)), parallel by blocks of users; 8 bytes per pair for the result, twice that at
    /// the peak.
    pub fn pairs(&self, decay: Option<Decay>) -> Result<Csr> {
        let Some(decay) = decay else { return self.weighted_pairs(|_, _| {}) };
        if !(decay.half_life_seconds.is_finite() && decay.half_life_seconds > 0.0) {
            return Err(Error::out_of_range("half_life_seconds", decay.half_life_seconds, "(0, infinity)"));
        }
        self.weighted_pairs(
            #[inline(always)]
            |history, weights| {
                for (weight, time) in weights.iter_mut().zip(history.times) {
                    *weight *= decay.at(*time);
                }
            },
        )
    }

    /// The distinct pairs, where an event counts by how many events its user had after it: half after `half_life` of
    /// them.
    ///
    /// # Errors
    /// as [`Interactions::pairs`]
    /// # Cost
    /// as [`Interactions::pairs`]
    pub fn recent_pairs(&self, half_life: f64) -> Result<Csr> {
        if !(half_life.is_finite() && half_life > 0.0) {
            return Err(Error::out_of_range("half_life", half_life, "(0, infinity)"));
        }
        self.weighted_pairs(
            #[inline(always)]
            |_, weights| {
                let newest = weights.len().saturating_sub(1);
                for (at, weight) in weights.iter_mut().enumerate() {
                    #[allow(clippy::cast_precision_loss)] // a user has fewer than 2³² events
                    let later = (newest - at) as f64;
                    *weight *= exp2(-later / half_life);
                }
            },
        )
    }

    /// The distinct pairs, with weights that `decay` changes for the events of a user.
    fn weighted_pairs(&self, decay: impl Fn(&History<'_>, &mut [f64]) + Sync) -> Result<Csr> {
        let parts: Vec<Rows> = blocks(&self.indptr, BLOCK_EVENTS)
            .into_par_iter()
            .map(|users| Arch::new().dispatch(PairsOf { interactions: self, users, decay: &decay }))
            .collect::<Result<_>>()?;
        Ok(Csr::of_parts(&parts, self.items.len()))
    }

    #[inline(always)] // becomes vector code in the passes over all users
    fn pairs_of(&self, users: Range<usize>, decay: &impl Fn(&History<'_>, &mut [f64])) -> Result<Rows> {
        let mut out = Rows::default();
        let (mut order, mut weights) = (Vec::new(), Vec::new());
        for user in users {
            let history = self.history(user);
            weights.clear();
            weights.extend(history.weights.iter().map(|weight| f64::from(*weight)));
            decay(&history, &mut weights);
            for events in ItemEvent::by_item(history.by_item(
                #[inline(always)]
                |_| true,
                &mut order,
            )) {
                #[allow(clippy::cast_possible_truncation)]
                let sum = events.iter().map(|event| weights[event.position()]).sum::<f64>() as f32;
                if !sum.is_finite() {
                    return Err(Error::NotFinite {
                        what: "the sum of the weights of a pair",
                        row: user,
                        iteration: None,
                    });
                }
                out.indices.push(events[0].item());
                out.values.push(sum);
            }
            out.ends.push(out.indices.len());
        }
        Ok(out)
    }
}

struct PairsOf<'a, D> {
    interactions: &'a Interactions,
    users: Range<usize>,
    decay: &'a D,
}

impl<D: Fn(&History<'_>, &mut [f64])> WithSimd for PairsOf<'_, D> {
    type Output = Result<Rows>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<Rows> {
        self.interactions.pairs_of(self.users, self.decay)
    }
}

/// An event of a user: its item, then its position in the history, so that sorting brings the events of an item together,
/// oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ItemEvent(u64);

#[allow(clippy::cast_possible_truncation)] // the two halves of a number
impl ItemEvent {
    pub(crate) fn item(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn position(self) -> usize {
        self.0 as u32 as usize
    }

    /// The events of each item, of events by item.
    pub(crate) fn by_item(events: &[Self]) -> impl Iterator<Item = &[Self]> {
        events.chunk_by(|a, b| a.item() == b.item())
    }
}

impl History<'_> {
    /// The events with items that are kept, by item; `order` is memory to use again.
    #[inline(always)] // becomes vector code in the passes over all users
    pub(crate) fn by_item<'a>(&self, keep: impl Fn(u32) -> bool, order: &'a mut Vec<ItemEvent>) -> &'a [ItemEvent] {
        order.clear();
        for (item, at) in self.items.iter().zip(0u32..) {
            if keep(*item) {
                order.push(ItemEvent(u64::from(*item) << 32 | u64::from(at)));
            }
        }
        order.sort_unstable();
        order
    }
}

impl Decay {
    /// The factor for an event at `time`.
    #[inline(always)] // becomes vector code in the passes over all users
    fn at(self, time: i64) -> f64 {
        // Seconds since an event are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let age = self.as_of.saturating_sub(time).max(0) as f64;
        exp2(-age / self.half_life_seconds)
    }
}

fn in_range(name: &'static str, indexes: &[u32], count: usize) -> Result<()> {
    match indexes.iter().max() {
        Some(index) if *index as usize >= count => Err(Error::out_of_range(name, index, format!("[0, {count})"))),
        _ => Ok(()),
    }
}

/// Where the events of each user start.
fn count(user_index: &[u32], users: usize) -> Vec<usize> {
    let mut indptr = vec![0usize; users + 1];
    for &user in user_index {
        indptr[user as usize + 1] += 1;
    }
    for user in 0..users {
        indptr[user + 1] += indptr[user];
    }
    indptr
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vocabulary {
        Vocabulary::from_sorted((0..count).map(|n| format!("{n:03}"))).unwrap()
    }

    fn log(events: &[(u32, u32, i64, f32)]) -> Interactions {
        Interactions::new(
            ids(3),
            ids(4),
            events.iter().map(|e| e.0).collect(),
            events.iter().map(|e| e.1).collect(),
            events.iter().map(|e| e.2).collect(),
            events.iter().map(|e| e.3).collect(),
        )
        .unwrap()
    }

    #[test]
    fn events_lie_by_user_and_time_whatever_the_input_order() {
        let mut events = [(2, 1, 30, 1.0), (0, 3, 20, 2.0), (0, 3, 10, 1.0), (0, 1, 20, 1.0), (0, 3, 20, 1.0)];
        let sorted = log(&events);
        assert_eq!(
            sorted.history(0),
            History { items: &[3, 1, 3, 3], times: &[10, 20, 20, 20], weights: &[1., 1., 1., 2.] }
        );
        assert_eq!(sorted.history(1).items.len(), 0);
        assert_eq!(sorted.history(2).items, &[1]);
        events.reverse();
        let again = log(&events);
        assert!((0..3).all(|user| again.history(user) == sorted.history(user)));
        assert_eq!(sorted.time_range(), Some((10, 30)));
        assert_eq!(sorted.users_with_at_least(1), 2);
        assert_eq!(sorted.users_with_at_least(4), 1);
        assert_eq!(log(&[]).time_range(), None);
    }

    #[test]
    fn pairs_sum_the_weights() {
        let pairs = log(&[(0, 3, 20, 2.0), (0, 3, 10, 0.5), (0, 1, 15, 1.0), (2, 0, 5, 0.0)]).pairs(None).unwrap();
        assert_eq!(pairs, Csr::new(vec![0, 2, 2, 3], vec![1, 3, 0], vec![1.0, 2.5, 0.0], 4).unwrap());
    }

    #[test]
    fn an_event_one_half_life_old_counts_half_and_a_future_one_fully() {
        let decay = Decay { half_life_seconds: 10.0, as_of: 100 };
        let events = log(&[(0, 0, 90, 1.0), (0, 0, 80, 1.0), (0, 1, 100, 3.0), (0, 2, 500, 1.0)]);
        assert_eq!(events.pairs(Some(decay)).unwrap().values(), [0.75, 3.0, 1.0]);
        let never = Decay { half_life_seconds: 0.0, ..decay };
        assert!(matches!(events.pairs(Some(never)), Err(Error::OutOfRange { .. })));
        let extremes = log(&[(0, 0, i64::MIN, 1.0), (0, 1, i64::MAX, 1.0)]);
        assert_eq!(extremes.pairs(Some(decay)).unwrap().values(), [0.0, 1.0]);
    }

    #[test]
    fn an_event_counts_by_how_many_came_after_it() {
        let events = log(&[(0, 0, 10, 1.0), (0, 1, 20, 4.0), (0, 0, 30, 1.0), (2, 3, 5, 1.0)]);
        let pairs = events.recent_pairs(1.0).unwrap();
        assert_eq!((pairs.row(0), pairs.row(2)), ((&[0, 1][..], &[1.25, 2.0][..]), (&[3][..], &[1.0][..])));
        assert!(matches!(events.recent_pairs(0.0), Err(Error::OutOfRange { name: "half_life", .. })));
    }

    #[test]
    fn the_newest_fifth_of_each_user_is_held_out() {
        let mut events: Vec<_> = (0..10u32).map(|n| (0, n % 4, i64::from(n), 1.0)).collect();
        events.extend((0..4).map(|n| (1, 0, n, 1.0)));
        let (older, newer) = log(&events).split_last_share(0.2);
        assert_eq!(newer.history(0).times, [8, 9]);
        assert_eq!(newer.history(1).times.len(), 0); // ⌊4 · 0.2⌋ = 0
        assert_eq!((older.len(), newer.len()), (12, 2));
        assert_eq!(older.items(), newer.items());
        assert_eq!(log(&events).split_last_share(f64::NAN).1.len(), 0);
        assert_eq!(log(&events).split_last_share(2.0).0.len(), 0);
    }

    #[test]
    fn a_cut_in_time_puts_its_own_moment_into_the_newer_part() {
        let (older, newer) = log(&[(0, 0, 1, 1.0), (0, 1, 2, 1.0), (0, 2, 3, 1.0), (2, 0, 9, 1.0)]).split_at(2);
        assert_eq!((older.history(0).times, newer.history(0).times), (&[1][..], &[2, 3][..]));
        assert_eq!((older.history(2).times.len(), newer.history(2).times.len()), (0, 1));
    }

    #[test]
    fn bad_columns_are_refused() {
        let new = |user: Vec<u32>, item: Vec<u32>, weight: Vec<f32>| {
            Interactions::new(ids(1), ids(1), user, item, vec![0], weight)
        };
        assert!(matches!(new(vec![1], vec![0], vec![1.]), Err(Error::OutOfRange { name: "user_index", .. })));
        assert!(matches!(new(vec![0], vec![1], vec![1.]), Err(Error::OutOfRange { name: "item_index", .. })));
        assert!(matches!(new(vec![0], vec![0], vec![-1.]), Err(Error::OutOfRange { name: "weight", .. })));
        assert!(matches!(new(vec![0], vec![0], vec![f32::NAN]), Err(Error::OutOfRange { name: "weight", .. })));
        assert!(matches!(new(vec![0], vec![0, 0], vec![1.]), Err(Error::Shape { name: "item_index", .. })));
        assert!(matches!(new(vec![0, 0], vec![0, 0], vec![1., 1.]), Err(Error::Shape { name: "time", .. })));
    }

    #[test]
    fn a_sum_beyond_f32_is_refused_with_its_row() {
        let events = log(&[(2, 0, 1, f32::MAX), (2, 0, 2, f32::MAX)]);
        assert!(matches!(events.pairs(None), Err(Error::NotFinite { row: 2, .. })));
    }
}
