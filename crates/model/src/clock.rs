//! The moments of a training: when it looks, how far ahead, and which window it learns from.

use std::ops::Range;

use rayon::prelude::*;

use crate::interactions::Interactions;
use crate::rows::blocks;

/// The share of the newest events whose time span is the horizon when none is named.
const NEWEST_SHARE: f64 = 0.1;
/// The share of the events that must lie before the held-out window: a model of less says little about one of all.
const LEAST_BEFORE: f64 = 0.75;
/// Spans of time that are counted, as a power of two.
const SPAN_BITS: u32 = 12;
/// Times that a task counts.
const CHUNK: usize = 1 << 18;

/// The moment from which a model looks ahead, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Epoch seconds: events before it are known, those from it on are foreseen.
    pub as_of: i64,
    /// Seconds that are foreseen, at least 1.
    pub horizon: i64,
}

/// The window at the end of the known events that coefficients are learnt from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HeldOut {
    /// Features come from the events before `clock.as_of`, labels from those at it or later.
    pub(crate) clock: Clock,
    /// Whether the window is shorter than the horizon, because too few events would lie before it.
    pub(crate) shortened: bool,
}

impl Clock {
    /// The clock of a training on these events, which looks ahead from right after the newest of them.
    ///
    /// Without a horizon it is the time in which the newest tenth of the events happened. "Right after" is one step of
    /// the resolution of the times, so that days are followed by the next day, and seconds by the next second. None
    /// without events.
    #[must_use]
    pub fn of(interactions: &Interactions, horizon: Option<i64>) -> Option<Self> {
        let (_, newest) = interactions.time_range()?;
        let as_of = newest.saturating_add(resolution(interactions)?);
        let span = || Some(as_of.saturating_sub(time_at_share(interactions, 1.0 - NEWEST_SHARE)?));
        let horizon = horizon.or_else(span)?.max(1);
        Some(Self { as_of, horizon })
    }

    /// The clock right after the newest of some times, of which all distances are multiples of a step; 0 for one time alone.
    #[must_use]
    pub fn after(newest: i64, step: i64, horizon: i64) -> Self {
        Self { as_of: newest.saturating_add(at_most_a_day(step.unsigned_abs())), horizon: horizon.max(1) }
    }

    /// The held-out window before this clock: as long as the horizon if enough events lie before it, else as long as
    /// they allow. None when nothing can be held out.
    pub(crate) fn held_out(self, interactions: &Interactions) -> Option<HeldOut> {
        let (first, newest) = interactions.time_range()?;
        let wanted = self.as_of.saturating_sub(self.horizon);
        let earliest = time_at_share(interactions, LEAST_BEFORE)?;
        let from = wanted.max(earliest);
        let before_any = from > first && from < self.as_of && newest >= from;
        let clock = Self { as_of: from, horizon: self.horizon };
        before_any.then_some(HeldOut { clock, shortened: from > wanted })
    }
}

/// The time below which this share of the events lies; none without events.
///
/// # Cost
/// Two passes over the times, and a selection among the few that are near it.
pub(crate) fn time_at_share(interactions: &Interactions, share: f64) -> Option<i64> {
    let (first, newest) = interactions.time_range()?;
    let runs = blocks(interactions.indptr(), CHUNK);
    // Equal spans of time, numbered from the oldest.
    let bits = u64::BITS - newest.abs_diff(first).leading_zeros();
    #[allow(clippy::cast_possible_truncation)] // below 2^SPAN_BITS
    let span = |time: i64| (time.abs_diff(first) >> bits.saturating_sub(SPAN_BITS)) as usize;
    let count = |mut counts: Vec<usize>, users: &Range<usize>| {
        for times in interactions.times(users.clone()) {
            times.iter().for_each(|time| counts[span(*time)] += 1);
        }
        counts
    };
    let add = |a: Vec<usize>, b: Vec<usize>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let none = || vec![0; 1 << SPAN_BITS];
    let counts = runs.par_iter().fold(none, count).reduce(none, add);
    let (mut at, mut there) = (place(interactions.len(), share), 0);
    while at >= counts[there] {
        at -= counts[there];
        there += 1;
    }
    let near = |users: Range<usize>| {
        let mut near = Vec::new();
        for times in interactions.times(users) {
            near.extend(times.iter().copied().filter(|time| span(*time) == there));
        }
        near
    };
    let mut near: Vec<i64> = runs.into_par_iter().flat_map_iter(near).collect();
    Some(*near.select_nth_unstable(at).1)
}

/// The place of this share among so many sorted values.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn place(count: usize, share: f64) -> usize {
    (count.saturating_sub(1) as f64 * share) as usize
}

/// The largest step, of at most a day, that all distances between times are multiples of; none without events.
fn resolution(interactions: &Interactions) -> Option<i64> {
    let (first, _) = interactions.time_range()?;
    let of_some = |users: Range<usize>| {
        let mut step = 0u64;
        for time in interactions.times(users).flatten() {
            let distance = time.abs_diff(first);
            // Mostly one division says that nothing changes.
            if step == 0 || distance % step != 0 {
                step = gcd(step, distance);
            }
            if step == 1 {
                break;
            }
        }
        step
    };
    let step = blocks(interactions.indptr(), CHUNK).into_par_iter().map(of_some).reduce(|| 0, gcd);
    Some(at_most_a_day(step))
}

/// The part of a step that days are multiples of; a second for no step.
fn at_most_a_day(step: u64) -> i64 {
    const DAY: u64 = 86_400;
    if step == 0 { 1 } else { gcd(step, DAY).cast_signed() }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vocabulary::Vocabulary;

    fn at(times: &[i64]) -> Interactions {
        let one = || Vocabulary::from_sorted(["a"]).unwrap();
        let n = times.len();
        Interactions::new(one(), one(), vec![0; n], vec![0; n], times.to_vec(), vec![1.0; n]).unwrap()
    }

    #[test]
    fn the_horizon_is_the_span_of_the_newest_tenth() {
        let times: Vec<i64> = (0..101).map(|n| 1_000 + n * 7).collect();
        // The times are 7 seconds apart, and 7 does not divide a day.
        assert_eq!(Clock::of(&at(&times), None), Some(Clock { as_of: 1_701, horizon: 71 }));
        assert_eq!(Clock::of(&at(&times), Some(5)), Some(Clock { as_of: 1_701, horizon: 5 }));
        assert_eq!(Clock::of(&at(&[]), None), None);
    }

    #[test]
    fn a_share_of_the_events_is_found_as_by_sorting_them() {
        for (count, spread) in [(1, 1), (7, 2), (10_000, 3), (10_000, 5_000), (30_000, 40_000_000_000)] {
            let mut times: Vec<i64> = (0..count)
                .map(|n: i64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()).rem_euclid(spread))
                .collect();
            times.push(-spread * 3);
            let events = at(&times);
            times.sort_unstable();
            for share in [0.0, 0.3, 0.75, 0.9, 1.0] {
                let expected = times[place(times.len(), share)];
                assert_eq!(time_at_share(&events, share), Some(expected), "{count} {spread} {share}");
            }
        }
        let ends = at(&[i64::MIN, i64::MIN, i64::MAX]);
        assert_eq!((time_at_share(&ends, 0.5), time_at_share(&ends, 1.0)), (Some(i64::MIN), Some(i64::MAX)));
        assert_eq!(time_at_share(&at(&[]), 0.5), None);
    }

    #[test]
    fn days_are_followed_by_the_next_day() {
        let days: Vec<i64> = (0..20).map(|n| n * 86_400).collect();
        assert_eq!(Clock::of(&at(&days), None).unwrap().as_of, 20 * 86_400);
        let weeks: Vec<i64> = (0..20).map(|n| n * 7 * 86_400).collect();
        assert_eq!(Clock::of(&at(&weeks), None).unwrap().as_of, (19 * 7 + 1) * 86_400);
        assert_eq!(Clock::of(&at(&[60, 120, 300]), None).unwrap().as_of, 360);
    }

    #[test]
    fn the_window_is_a_horizon_long_if_enough_lies_before_it() {
        let events = at(&(0..101).collect::<Vec<_>>());
        let clock = |horizon| Clock { as_of: 101, horizon };
        let held_out = |horizon| clock(horizon).held_out(&events).unwrap();
        assert_eq!(held_out(10), HeldOut { clock: Clock { as_of: 91, horizon: 10 }, shortened: false });
        assert_eq!(held_out(90), HeldOut { clock: Clock { as_of: 75, horizon: 90 }, shortened: true });
        assert_eq!(clock(10).held_out(&at(&[5, 5, 5])), None);
        assert_eq!(clock(10).held_out(&at(&[])), None);
    }

    #[test]
    fn times_at_the_ends_of_their_range_overflow_nothing() {
        assert_eq!(Clock::of(&at(&[7, 7]), None), Some(Clock { as_of: 8, horizon: 1 }));
        let newest = Clock::of(&at(&[i64::MAX]), None).unwrap();
        assert_eq!(newest, Clock { as_of: i64::MAX, horizon: 1 });
        assert_eq!(newest.held_out(&at(&[i64::MAX])), None);
        let wide = at(&[i64::MIN, 0, 0, i64::MAX]);
        let clock = Clock::of(&wide, None).unwrap();
        assert_eq!((clock.as_of, clock.horizon), (i64::MAX, i64::MAX));
        assert_eq!(clock.held_out(&wide).map(|held_out| held_out.clock.as_of), Some(0));
        assert_eq!(Clock::of(&at(&[1, 2]), Some(-5)).unwrap().horizon, 1);
    }
}
