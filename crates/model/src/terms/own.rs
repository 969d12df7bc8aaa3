//! The terms of pairs with history: what a user did with an item.

use super::{PAIR_HALF_LIVES, PAIR_SCALE, PAIR_TERMS, TIME_FLOOR, decays};
use crate::clock::Clock;
use crate::elementary::ln;
use crate::interactions::{History, ItemEvent};
use crate::lanes::{LANES, Lanes};

/// Goes through the pairs of users, and keeps its memory from one user to the next.
pub(crate) struct OwnEvents {
    clock: Clock,
    order: Vec<ItemEvent>,
    /// By event, in the order of `order`: what it counts by each half-life, and of all time.
    counts: Vec<[f64; PAIR_HALF_LIVES.len() + 1]>,
}

impl OwnEvents {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, order: Vec::new(), counts: Vec::new() }
    }

    /// Calls `visit` with up to [`LANES`] items of a history at a time, of those that are kept, ascending, and with the terms
    /// of the pairs, one pair in each lane; lanes beyond the items hold anything.
    ///
    /// # Cost
    /// one exponential an event and seven logarithms a pair, and a sort of the events that are kept
    #[inline(always)] // becomes vector code where all pairs are gone through
    pub(crate) fn visit(
        &mut self,
        history: &History<'_>,
        keep: impl Fn(u32) -> bool,
        mut visit: impl FnMut(&[u32], &[Lanes; PAIR_TERMS]),
    ) {
        let Self { clock, order, counts } = self;
        let events = history.by_item(keep, order);
        counts.clear();
        for events in events.chunks(LANES) {
            let (mut ages, mut weights) = ([0f64; LANES], [0f64; LANES]);
            for (event, (age, weight)) in events.iter().zip(ages.iter_mut().zip(&mut weights)) {
                *age = clock.age(history.times[event.position()]);
                *weight = f64::from(history.weights[event.position()]);
            }
            let decays = decays(&ages, &PAIR_HALF_LIVES);
            for (lane, weight) in weights[..events.len()].iter().enumerate() {
                let [a, b, c, d] = &decays;
                counts.push([weight * a[lane], weight * b[lane], weight * c[lane], weight * d[lane], *weight]);
            }
        }
        let (mut pairs, mut counts) = (ItemEvent::by_item(events).peekable(), &counts[..]);
        while pairs.peek().is_some() {
            let (mut items, mut terms, mut count) = ([0u32; LANES], [[1f64; LANES]; PAIR_TERMS], 0);
            for pair in pairs.by_ref().take(LANES) {
                let (of_pair, rest) = counts.split_at(pair.len());
                counts = rest;
                let mut sums = [0f64; PAIR_HALF_LIVES.len() + 1];
                for event in of_pair {
                    for (sum, count) in sums.iter_mut().zip(event) {
                        *sum += count;
                    }
                }
                for (term, sum) in terms.iter_mut().zip(sums) {
                    term[count] = 1.0 + PAIR_SCALE * sum;
                }
                let age = |event: ItemEvent| clock.age(history.times[event.position()]).max(TIME_FLOOR);
                terms[PAIR_TERMS - 2][count] = age(pair[pair.len() - 1]);
                terms[PAIR_TERMS - 1][count] = age(pair[0]);
                items[count] = pair[0].item();
                count += 1;
            }
            for term in terms.iter_mut().flatten() {
                *term = ln(*term);
            }
            visit(&items[..count], &terms);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::interactions::Interactions;
    use crate::terms::Terms;
    use crate::terms::tests::{close, three_events};
    use crate::vocabulary::Vocabulary;

    fn visited(log: &Interactions, clock: Clock, keep: impl Fn(u32) -> bool) -> Vec<(u32, [f64; PAIR_TERMS])> {
        let mut seen = Vec::new();
        Terms::new(log, clock).own_events().visit(&log.history(0), keep, |items, terms| {
            seen.extend(items.iter().enumerate().map(|(lane, item)| (*item, terms.map(|term| term[lane]))));
        });
        seen
    }

    #[test]
    fn pair_terms_by_hand() {
        let (log, clock) = three_events();
        let seen = visited(&log, clock, |_| true);
        assert_eq!(seen.iter().map(|pair| pair.0).collect::<Vec<_>>(), [0, 1]);
        let own = |h: f64| (4.0 * (0.5f64.powf(1.5 / h) + 2.0 * 0.5f64.powf(0.5 / h))).ln_1p();
        close(&seen[1].1, &[own(0.125), own(0.5), own(2.0), own(8.0), 12f64.ln_1p(), 0.5f64.ln(), 1.5f64.ln()]);
        assert_eq!(visited(&log, clock, |item| item == 1), seen[1..]);
    }

    #[test]
    fn each_pair_of_a_long_history_has_the_terms_that_it_has_alone() {
        let ids = |count: usize| Vocabulary::from_sorted((0..count).map(|n| format!("{n:03}"))).unwrap();
        // 300 events with 30 items, 3 to 17 of each.
        let items: Vec<u32> = (0..300u32).map(|n| (n * n) % 30).collect();
        let times = (0..300).map(|n| n * 7).collect();
        let log = Interactions::new(ids(1), ids(30), vec![0; 300], items, times, vec![1.5; 300]).unwrap();
        let clock = Clock { as_of: 2_100, horizon: 500 };
        let all = visited(&log, clock, |_| true);
        assert!(all.len() > LANES && !all.len().is_multiple_of(LANES), "{}", all.len());
        for pair in &all {
            assert_eq!(visited(&log, clock, |item| item == pair.0), [*pair]);
        }
        assert!(all.windows(2).all(|pairs| pairs[0].0 < pairs[1].0));
    }
}
