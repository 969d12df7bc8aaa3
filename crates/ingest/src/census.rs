//! Who and what is in an event log, without keeping its rows.

use std::sync::Arc;

use item_affinity_model::{Vocabulary, VocabularyBuilder};
use item_affinity_storage::Tombstones;

use crate::error::Result;
use crate::ids::Ids;
use crate::merge::kept;
use crate::oddities::latest_time;
use crate::part::Part;
use crate::timestamp::TimestampUnit;

/// What one reader has seen; by arrival numbers of its ids.
pub(crate) struct Census {
    known_items: Arc<Vocabulary>,
    tombstones: Arc<Tombstones>,
    item_is_known: Vec<bool>,
    item_events: Vec<u64>,
    user_events: Vec<u64>,
    user_is_known: Vec<bool>,
    user_is_forgotten: Vec<bool>,
    pub(crate) kept: u64,
    /// Rows of users who were forgotten, which count for nothing else.
    pub(crate) forgotten: u64,
    pub(crate) known: u64,
    /// Times that are seconds.
    times: Span,
    /// Bare integers, as if they were seconds and as if they were milliseconds: the unit is known at the end.
    bare: [Span; 2],
    /// Times after the latest that is not odd: seconds, then bare integers in both units.
    ahead: [u64; 3],
    latest: i64,
    pub(crate) weights: Weights,
}

/// The extent of some times, and the largest step that all distances between them are multiples of; 0 for one time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) oldest: i64,
    pub(crate) newest: i64,
    pub(crate) step: i64,
}

impl Span {
    const NONE: Self = Self { oldest: i64::MAX, newest: i64::MIN, step: 0 };

    fn add(&mut self, time: i64) {
        self.merge(Self { oldest: time, newest: time, step: 0 });
    }

    pub(crate) fn merge(&mut self, other: Self) {
        if other.newest < other.oldest {
            return;
        }
        if self.newest < self.oldest {
            *self = other;
            return;
        }
        let apart = other.oldest.saturating_sub(self.oldest);
        if self.step != 1 {
            self.step = gcd(gcd(self.step, other.step), apart.saturating_abs());
        }
        self.oldest = self.oldest.min(other.oldest);
        self.newest = self.newest.max(other.newest);
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether events weigh differently.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weights {
    first: Option<f32>,
    differ: bool,
    positive: bool,
}

impl Weights {
    fn add(&mut self, weight: f32) {
        self.differ |= self.first.is_some_and(|first| first != weight);
        self.first.get_or_insert(weight);
        self.positive |= weight > 0.0;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.differ |= other.differ || self.first.zip(other.first).is_some_and(|(a, b)| a != b);
        self.first = self.first.or(other.first);
        self.positive |= other.positive;
    }

    /// The weight of every event, when all weigh the same.
    pub(crate) fn all_the_same(&self) -> Option<f32> {
        self.first.filter(|_| !self.differ)
    }

    pub(crate) fn are_all_zero(&self) -> bool {
        self.first.is_some() && !self.positive
    }
}

impl Census {
    /// Nobody yet; an item is known when it is one of these, and a user counts who was not forgotten.
    pub(crate) fn of(known_items: Arc<Vocabulary>, tombstones: Arc<Tombstones>) -> Self {
        Self {
            known_items,
            tombstones,
            item_is_known: Vec::new(),
            item_events: Vec::new(),
            user_events: Vec::new(),
            user_is_known: Vec::new(),
            user_is_forgotten: Vec::new(),
            kept: 0,
            forgotten: 0,
            known: 0,
            times: Span::NONE,
            bare: [Span::NONE; 2],
            ahead: [0; 3],
            latest: latest_time(),
            weights: Weights::default(),
        }
    }

    /// The times, once the unit of bare ones is known.
    pub(crate) fn span(&self, unit: TimestampUnit) -> Span {
        let mut span = self.times;
        span.merge(self.bare[usize::from(unit == TimestampUnit::Milliseconds)]);
        span
    }

    /// How many times lie more than a day ahead of this clock.
    pub(crate) fn ahead(&self, unit: TimestampUnit) -> u64 {
        self.ahead[0] + self.ahead[1 + usize::from(unit == TimestampUnit::Milliseconds)]
    }

    fn add_time(&mut self, time: i64) {
        self.times.add(time);
        self.ahead[0] += u64::from(time > self.latest);
    }

    fn add_bare(&mut self, time: i64) {
        for (unit, time) in [time, TimestampUnit::Milliseconds.to_seconds(time)].into_iter().enumerate() {
            self.bare[unit].add(time);
            self.ahead[1 + unit] += u64::from(time > self.latest);
        }
    }
}

impl Part {
    /// Counts the rows and lets them go, where that is asked for.
    pub(crate) fn condense(&mut self) {
        self.leave_out_forgotten();
        let Self { census: Some(census), users, items, user, item, time, weight, bare, .. } = self else { return };
        for number in census.item_is_known.len()..items.len() {
            let known = items.id(number).is_some_and(|id| census.known_items.index_of(id).is_some());
            census.item_is_known.push(known);
        }
        census.item_events.resize(items.len(), 0);
        census.user_events.resize(users.len(), 0);
        census.user_is_known.resize(users.len(), false);
        census.kept += time.len() as u64;
        for (user, item) in user.iter().zip(item.iter()) {
            let (user, item) = (*user as usize, *item as usize);
            census.item_events[item] += 1;
            census.user_events[user] += 1;
            if census.item_is_known[item] {
                census.user_is_known[user] = true;
                census.known += 1;
            }
        }
        let mut row = 0;
        for range in bare.drain(..) {
            time[row..range.start].iter().for_each(|time| census.add_time(*time));
            time[range.clone()].iter().for_each(|time| census.add_bare(*time));
            row = range.end;
        }
        time[row..].iter().for_each(|time| census.add_time(*time));
        weight.iter().for_each(|weight| census.weights.add(*weight));
        for column in [user, item] {
            column.clear();
        }
        time.clear();
        weight.clear();
    }

    fn leave_out_forgotten(&mut self) {
        let Self { census: Some(census), users, user, item, time, weight, bare, .. } = self else { return };
        if census.tombstones.is_empty() {
            return;
        }
        for number in census.user_is_forgotten.len()..users.len() {
            let forgotten = users.id(number).is_some_and(|id| census.tombstones.contains(id));
            census.user_is_forgotten.push(forgotten);
        }
        let stays: Vec<bool> = user.iter().map(|user| !census.user_is_forgotten[*user as usize]).collect();
        let gone = stays.iter().filter(|stays| !**stays).count();
        if gone == 0 {
            return;
        }
        census.forgotten += gone as u64;
        for column in [user, item] {
            *column = kept(std::mem::take(column), &stays);
        }
        *time = kept(std::mem::take(time), &stays);
        *weight = kept(std::mem::take(weight), &stays);
        let staying = |rows: std::ops::Range<usize>| stays[rows].iter().filter(|stays| **stays).count();
        for range in bare {
            let start = staying(0..range.start);
            *range = start..start + staying(range.clone());
        }
    }
}

/// The ids of all readers, with what they count for.
pub(crate) struct Counted {
    /// Ids with a known item, or known items.
    pub(crate) known: Vocabulary,
    pub(crate) ids: u64,
    pub(crate) with_two_or_more: u64,
}

impl Counted {
    pub(crate) fn users(parts: &mut [Part]) -> Result<Self> {
        Self::of(parts.iter_mut().filter_map(|part| {
            let census = part.census.as_mut()?;
            let flags = std::mem::take(&mut census.user_is_known);
            Some((std::mem::replace(&mut part.users, Ids::new()), std::mem::take(&mut census.user_events), flags))
        }))
    }

    pub(crate) fn items(parts: &mut [Part]) -> Result<Self> {
        Self::of(parts.iter_mut().filter_map(|part| {
            let census = part.census.as_mut()?;
            let flags = std::mem::take(&mut census.item_is_known);
            Some((std::mem::replace(&mut part.items, Ids::new()), std::mem::take(&mut census.item_events), flags))
        }))
    }

    /// Ids in order, from readers that each have them in the order of arrival.
    fn of(readers: impl Iterator<Item = (Ids, Vec<u64>, Vec<bool>)>) -> Result<Self> {
        struct Sorted {
            ids: Vocabulary,
            events: Vec<u64>,
            known: Vec<bool>,
            next: u32,
        }
        let mut sorted: Vec<Sorted> = readers
            .map(|(ids, by_arrival, known_by_arrival)| {
                let (ids, renumber) = VocabularyBuilder::finish(ids.into_vocabulary());
                let (mut events, mut known) = (vec![0; ids.len()], vec![false; ids.len()]);
                // An id that only filtered or rejected rows have may have come after the last kept row.
                for ((number, count), flag) in renumber.iter().zip(by_arrival).zip(known_by_arrival) {
                    (events[*number as usize], known[*number as usize]) = (count, flag);
                }
                Sorted { ids, events, known, next: 0 }
            })
            .collect();
        let (mut ids, mut with_two_or_more) = (0, 0);
        let known = Vocabulary::from_sorted(std::iter::from_fn(|| {
            loop {
                let heads = sorted.iter().filter_map(|part| part.ids.id(part.next));
                let smallest = heads.min()?.to_owned();
                let (mut events, mut known) = (0u64, false);
                for part in &mut sorted {
                    if part.ids.id(part.next) == Some(smallest.as_str()) {
                        events += part.events[part.next as usize];
                        known |= part.known[part.next as usize];
                        part.next += 1;
                    }
                }
                ids += u64::from(events > 0);
                with_two_or_more += u64::from(events > 1);
                if known && events > 0 {
                    return Some(smallest);
                }
            }
        }))?;
        Ok(Self { known, ids, with_two_or_more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_keeps_the_step_of_its_times_in_any_order() {
        let span = |times: &[i64]| {
            let mut span = Span::NONE;
            times.iter().for_each(|time| span.add(*time));
            span
        };
        assert_eq!(span(&[600, 0, 240]), Span { oldest: 0, newest: 600, step: 120 });
        assert_eq!(span(&[5, 5]), Span { oldest: 5, newest: 5, step: 0 });
        let (mut left, right) = (span(&[0, 600]), span(&[1_260, 60]));
        left.merge(right);
        assert_eq!(left, span(&[0, 60, 600, 1_260]));
        left.merge(Span::NONE);
        assert_eq!(left.newest, 1_260);
    }

    #[test]
    fn weights_tell_whether_they_are_alike() {
        let weights = |values: &[f32]| {
            let mut weights = Weights::default();
            values.iter().for_each(|value| weights.add(*value));
            weights
        };
        assert_eq!(weights(&[2.0, 2.0]).all_the_same(), Some(2.0));
        assert_eq!(weights(&[2.0, 1.0]).all_the_same(), None);
        let mut merged = weights(&[2.0]);
        merged.merge(weights(&[1.0]));
        assert_eq!((merged.all_the_same(), merged.are_all_zero()), (None, false));
        assert!(weights(&[0.0, 0.0]).are_all_zero() && !weights(&[]).are_all_zero());
    }
}
