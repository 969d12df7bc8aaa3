//! What the terms of one user need of all others: sums that are gathered part by part, in any order.

use std::ops::Range;

use ndarray::Array2;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    ACTIVITY_HALF_LIVES, ITEM_FLOOR, ITEM_TERMS, MASS, POPULARITY_HALF_LIFE, Terms, USER_FLOOR, USER_TERMS, activity,
    decays,
};
use crate::clock::Clock;
use crate::interactions::{History, Interactions};
use crate::lanes::LANES;
use crate::rows::blocks;

/// Runs of users whose sums are taken beside each other, at most.
const PIECES: usize = 8;

/// A sum that is rounded at its end, of twice the digits until then: the order of its parts is not seen in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// The sum as it was rounded on the way.
    pub rounded: f64,
    /// What rounding took from it.
    pub rest: f64,
}

impl Sum {
    /// Adds a number.
    ///
    /// # Source
    /// Knuth, *The Art of Computer Programming* 2, 4.2.2, theorem B
    pub fn add(&mut self, value: f64) {
        let sum = self.rounded + value;
        let back = sum - self.rounded;
        self.rest += (self.rounded - (sum - back)) + (value - back);
        self.rounded = sum;
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        self.add(other.rounded);
        self.rest += other.rest;
    }

    /// The sum.
    #[must_use]
    pub fn value(self) -> f64 {
        self.rounded + self.rest
    }
}

/// What a propensity needs of everybody to tell the log-odds of anybody at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Everyone {
    /// Users with an event.
    pub users: u64,
    /// Users whose events weigh something.
    pub active: u64,
    /// The logarithms of their activities of all time.
    pub activity: Sum,
    /// The logarithms of the users' affinities for all items together.
    pub mass: Sum,
    /// By item: how much its recent events weigh.
    pub recent: Vec<Sum>,
    /// By item: how much all of its events weigh.
    pub all: Vec<Sum>,
}

impl Everyone {
    /// Nobody yet.
    #[must_use]
    pub fn nobody(items: usize) -> Self {
        Self { recent: vec![Sum::default(); items], all: vec![Sum::default(); items], ..Self::default() }
    }

    /// Adds the users of another part, with the same items.
    pub fn merge(&mut self, other: &Self) {
        self.users += other.users;
        self.active += other.active;
        self.activity.merge(other.activity);
        self.mass.merge(other.mass);
        for (mine, theirs) in [(&mut self.recent, &other.recent), (&mut self.all, &other.all)] {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.merge(*theirs));
        }
    }

    /// The users of a part.
    ///
    /// # Shapes
    /// mass: one per user, the logarithm of the affinity for all items together
    /// # Cost
    /// one exponential an event, on all threads of the current rayon pool; 32 bytes an item for each of up to
    /// eight pieces, which have four events an item at least
    pub(crate) fn of(known: &Interactions, clock: Clock, mass: &[f64]) -> Self {
        // Sums of many items for few events would cost more than they save.
        let pieces = (known.len() / (4 * known.items().len()).max(1)).clamp(1, PIECES);
        let pieces = blocks(known.indptr(), known.len().div_ceil(pieces).max(1));
        let of = |users| Arch::new().dispatch(EveryoneOf { known, clock, mass, users });
        let pieces: Vec<Self> = pieces.into_par_iter().map(of).collect();
        let mut all = Self::nobody(known.items().len());
        pieces.iter().for_each(|piece| all.merge(piece));
        all
    }

    #[inline(always)] // becomes vector code
    fn of_users(known: &Interactions, clock: Clock, mass: &[f64], users: Range<usize>) -> Self {
        let mut out = Self::nobody(known.items().len());
        for user in users {
            let History { items, times, weights } = known.history(user);
            if items.is_empty() {
                continue;
            }
            out.users += 1;
            out.mass.add(mass[user]);
            let mut whole = 0.0;
            for ((items, times), weights) in items.chunks(LANES).zip(times.chunks(LANES)).zip(weights.chunks(LANES)) {
                let [decays] = decays(&clock.ages(times), &[POPULARITY_HALF_LIFE]);
                for ((item, decay), weight) in items.iter().zip(decays).zip(weights) {
                    let weight = f64::from(*weight);
                    out.recent[*item as usize].add(weight * decay);
                    out.all[*item as usize].add(weight);
                    whole += weight;
                }
            }
            if whole > 0.0 {
                out.active += 1;
                out.activity.add((whole + USER_FLOOR).ln());
            }
        }
        out
    }
}

struct EveryoneOf<'a> {
    known: &'a Interactions,
    clock: Clock,
    mass: &'a [f64],
    users: Range<usize>,
}

impl WithSimd for EveryoneOf<'_> {
    type Output = Everyone;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Everyone {
        Everyone::of_users(self.known, self.clock, self.mass, self.users)
    }
}

struct Activity<'a> {
    history: &'a History<'a>,
    clock: Clock,
    terms: &'a mut [f64],
}

impl WithSimd for Activity<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        activity(self.history, self.clock, self.terms);
    }
}

impl Terms {
    /// The terms of the users of a part, and of all items, against everybody.
    ///
    /// # Shapes
    /// mass: one per user of `known`, as for [`Everyone::of`]; everyone: of the items of `known`
    /// # Cost
    /// one exponential an event, on all threads of the current rayon pool; 64 bytes per user and 16 per item
    pub(crate) fn of_part(known: &Interactions, clock: Clock, mass: &[f64], everyone: &Everyone) -> Self {
        let users = known.users().len();
        let mut user_terms = vec![0f64; users * USER_TERMS];
        user_terms.par_chunks_mut(USER_TERMS).enumerate().for_each(|(user, terms)| {
            Arch::new().dispatch(Activity { history: &known.history(user), clock, terms });
        });
        let (activity, mean) = (mean(everyone.activity, everyone.active), mean(everyone.mass, everyone.users));
        for (terms, mass) in user_terms.chunks_exact_mut(USER_TERMS).zip(mass) {
            terms[ACTIVITY_HALF_LIVES.len()] -= activity;
            terms[MASS] = mass - mean;
        }
        let items = everyone.all.len();
        #[allow(clippy::cast_precision_loss)]
        let unit = mean - (items.max(1) as f64).ln();
        Self {
            clock,
            unit,
            per_unit: (-unit).exp(),
            present: known.indptr().windows(2).map(|bounds| bounds[0] < bounds[1]).collect(),
            users: Array2::from_shape_vec((users, USER_TERMS), user_terms).unwrap_or_default(),
            items: Array2::from_shape_vec((items, ITEM_TERMS), item_terms(everyone)).unwrap_or_default(),
        }
    }
}

/// The terms of the items; popularity of all time is against its mean over the items that have any.
fn item_terms(everyone: &Everyone) -> Vec<f64> {
    let term = |sum: &Sum| (sum.value() + ITEM_FLOOR).ln();
    let (none, mut all, mut known) = (ITEM_FLOOR.ln(), Sum::default(), 0);
    for popularity in everyone.all.iter().map(term).filter(|popularity| *popularity > none) {
        all.add(popularity);
        known += 1;
    }
    let mean = mean(all, known);
    everyone.recent.iter().zip(&everyone.all).flat_map(|(recent, all)| [term(recent), term(all) - mean]).collect()
}

#[allow(clippy::cast_precision_loss)] // counts of users and items are far below 2^53
fn mean(sum: Sum, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum.value() / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_does_not_depend_on_the_order_of_its_parts() {
        let values = (1..2_000).map(|n| (f64::from(n) * 0.7).sin() * 10f64.powi(n % 17)).collect::<Vec<_>>();
        let sum = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(Sum::default(), |mut sum, value| {
                sum.add(value);
                sum
            })
        };
        let (there, back) = (sum(&mut values.iter().copied()), sum(&mut values.iter().rev().copied()));
        let mut halves = sum(&mut values[1_000..].iter().copied());
        halves.merge(sum(&mut values[..1_000].iter().copied()));
        assert_eq!(there.value().to_bits(), back.value().to_bits());
        assert_eq!(there.value().to_bits(), halves.value().to_bits());
        let plain = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
        assert_ne!(plain(&mut values.iter().copied()), plain(&mut values.iter().rev().copied()));
    }
}
