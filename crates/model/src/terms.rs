//! What the clock says about users, items and pairs with history: decayed counts, as the terms of a propensity.
//!
//! All terms are logarithms of counts or of times in horizons, so that a coefficient is an elasticity, and the same
//! for data of any size and any pace. Counts of all time and affinities are seen against their means: both grow with
//! the data, and coefficients that were learnt at one moment would take that for more demand at the next.

use ndarray::Array2;

use crate::clock::Clock;
use crate::elementary::exp2;
use crate::interactions::{History, Interactions};
use crate::lanes::{LANES, Lanes};
use crate::rows::blocks;

mod everyone;
mod own;

pub use everyone::{Everyone, Sum};
pub(crate) use own::OwnEvents;

/// Half-lives of the activity of a user, in horizons, each four times the one before; its last term counts all time
/// alike.
const ACTIVITY_HALF_LIVES: [f64; 6] = [1.0 / 256.0, 1.0 / 64.0, 1.0 / 16.0, 0.25, 1.0, 4.0];
/// Terms of a user: the activities, then the mass of affinity.
pub(crate) const USER_TERMS: usize = ACTIVITY_HALF_LIVES.len() + 2;
/// Names of the terms of a user, in their order.
pub(crate) const USER_TERM_NAMES: [&str; USER_TERMS] = [
    "activity, half-life 1/256 horizon",
    "activity, half-life 1/64 horizon",
    "activity, half-life 1/16 horizon",
    "activity, half-life 1/4 horizon",
    "activity, half-life 1 horizon",
    "activity, half-life 4 horizons",
    "activity, all time",
    "affinity for all items together",
];
/// Where the mass of affinity stands among the terms of a user.
pub(crate) const MASS: usize = ACTIVITY_HALF_LIVES.len() + 1;
/// Half-life of the recent popularity of an item, in horizons.
const POPULARITY_HALF_LIFE: f64 = 0.25;
/// Terms of an item: recent popularity, popularity of all time.
pub(crate) const ITEM_TERMS: usize = 2;
/// Names of the terms of an item, in their order.
pub(crate) const ITEM_TERM_NAMES: [&str; ITEM_TERMS] = ["popularity, half-life 1/4 horizon", "popularity, all time"];
/// Half-lives of the events of a pair, in horizons, each four times the one before.
const PAIR_HALF_LIVES: [f64; 4] = [0.125, 0.5, 2.0, 8.0];
/// Terms of a pair with history.
pub(crate) const PAIR_TERMS: usize = PAIR_HALF_LIVES.len() + 3;
/// Names of the terms of a pair, in their order.
pub(crate) const PAIR_TERM_NAMES: [&str; PAIR_TERMS] = [
    "own events, half-life 1/8 horizon",
    "own events, half-life 1/2 horizon",
    "own events, half-life 2 horizons",
    "own events, half-life 8 horizons",
    "own events, all time",
    "time since the own last event",
    "time since the own first event",
];

/// What is added to a count before its logarithm, so that none at all is far from one but not infinitely.
const USER_FLOOR: f64 = 1e-3;
const ITEM_FLOOR: f64 = 1e-2;
/// Times below this share of a horizon are alike.
const TIME_FLOOR: f64 = 1e-3;
/// The scale on which the events of a pair are counted: log1p(4) for the first.
const PAIR_SCALE: f64 = 4.0;
/// Events in a block of users.
const BLOCK_EVENTS: usize = 1 << 16;

/// The terms of all users and items at a moment.
pub(crate) struct Terms {
    clock: Clock,
    /// The logarithm of the mean affinity of a user and an item.
    pub(crate) unit: f64,
    /// One through that mean.
    pub(crate) per_unit: f64,
    /// Users with an event.
    present: Vec<bool>,
    /// users × [`USER_TERMS`]
    pub(crate) users: Array2<f64>,
    /// items × [`ITEM_TERMS`]
    pub(crate) items: Array2<f64>,
}

impl Terms {
    /// The terms from the events of `known`, all of which lie before the clock's moment; those of affinity are left for
    /// [`Terms::set_mass`].
    ///
    /// # Shapes
    /// users × [`USER_TERMS`], items × [`ITEM_TERMS`]
    /// # Cost
    /// that of [`Terms::of_part`] and of [`Everyone::of`]
    pub(crate) fn new(known: &Interactions, clock: Clock) -> Self {
        let mass = vec![0f64; known.users().len()];
        Self::of_part(known, clock, &mass, &Everyone::of(known, clock, &mass))
    }

    /// Sets each user's affinity for all items together, from its logarithm, against the mean of users with events.
    pub(crate) fn set_mass(&mut self, mass: &[f64]) {
        let present = mass.iter().zip(&self.present).filter(|(_, present)| **present).map(|(mass, _)| mass);
        let (sum, n) = present.fold((0.0, 0.0), |(sum, n), mass| (sum + mass, n + 1.0));
        let mean = if n > 0.0 { sum / n } else { 0.0 };
        #[allow(clippy::cast_precision_loss)]
        let items = self.items.nrows().max(1) as f64;
        self.unit = mean - items.ln();
        self.per_unit = (-self.unit).exp();
        self.users.column_mut(MASS).iter_mut().zip(mass).for_each(|(term, mass)| *term = mass - mean);
    }

    /// Goes through the pairs of one user after the other.
    pub(crate) fn own_events(&self) -> OwnEvents {
        OwnEvents::new(self.clock)
    }
}

impl Clock {
    /// The ages of up to [`LANES`] events; 0 in lanes without one.
    #[inline(always)]
    fn ages(self, times: &[i64]) -> Lanes {
        let mut ages = [0f64; LANES];
        for (age, time) in ages.iter_mut().zip(times) {
            *age = self.age(*time);
        }
        ages
    }

    /// Horizons since an event; 0 for a later one.
    #[allow(clippy::cast_precision_loss)] // seconds since an event are far below 2^53
    #[inline(always)]
    fn age(self, time: i64) -> f64 {
        self.as_of.saturating_sub(time).max(0) as f64 / self.horizon as f64
    }
}

/// How much events of these ages count by each of some half-lives, each four times the one before: the decay by one is
/// the fourth power of that by the next, so one exponential does for all.
#[inline(always)]
fn decays<const N: usize>(ages: &Lanes, half_lives: &[f64; N]) -> [Lanes; N] {
    let mut decay = *ages;
    for decay in &mut decay {
        *decay = exp2(-*decay / half_lives[N - 1]);
    }
    let mut out = [[0f64; LANES]; N];
    for out in out.iter_mut().rev() {
        *out = decay;
        for decay in &mut decay {
            *decay *= *decay;
            *decay *= *decay;
        }
    }
    out
}

#[inline(always)] // becomes vector code where all users are gone through
fn activity(history: &History<'_>, clock: Clock, terms: &mut [f64]) {
    let mut sums = [[0f64; LANES]; ACTIVITY_HALF_LIVES.len() + 1];
    for (times, weights) in history.times.chunks(LANES).zip(history.weights.chunks(LANES)) {
        // A lane without an event adds nothing.
        let mut weighs = [0f64; LANES];
        for (weighs, weight) in weighs.iter_mut().zip(weights) {
            *weighs = f64::from(*weight);
        }
        let decays = decays(&clock.ages(times), &ACTIVITY_HALF_LIVES);
        for (sums, decays) in sums.iter_mut().zip(decays.iter().chain(&[[1.0; LANES]])) {
            for (sum, (weighs, decay)) in sums.iter_mut().zip(weighs.iter().zip(decays)) {
                *sum += weighs * decay;
            }
        }
    }
    for (term, sums) in terms.iter_mut().zip(&sums) {
        *term = (sums.iter().sum::<f64>() + USER_FLOOR).ln();
    }
}

/// Ranges of users of about equal numbers of events.
pub(crate) fn user_blocks(known: &Interactions) -> Vec<std::ops::Range<usize>> {
    blocks(known.indptr(), BLOCK_EVENTS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vocabulary::Vocabulary;

    pub(super) fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    /// User 0 had item 1 at 60 and 100, item 0 at 80; user 1 nothing; the moment is 100 + 20, the horizon 40.
    pub(super) fn three_events() -> (Interactions, Clock) {
        let ids = || Vocabulary::from_sorted(["a", "b"]).unwrap();
        let log = Interactions::new(ids(), ids(), vec![0; 3], vec![1, 1, 0], vec![60, 100, 80], vec![1.0, 2.0, 1.0]);
        (log.unwrap(), Clock { as_of: 120, horizon: 40 })
    }

    #[test]
    fn terms_by_hand() {
        let (log, clock) = three_events();
        let mut terms = Terms::new(&log, clock);
        terms.set_mass(&[7.0, 8.0]);
        // Ages are 1.5, 0.5 (weight 2) and 1 horizons. Of all time and of affinity, the only user is the mean.
        let activity = |h: f64| (0.5f64.powf(1.5 / h) + 2.0 * 0.5f64.powf(0.5 / h) + 0.5f64.powf(1.0 / h) + 1e-3).ln();
        let mut expected: Vec<f64> = ACTIVITY_HALF_LIVES.into_iter().map(activity).collect();
        expected.extend([0.0, 0.0]);
        close(terms.users.row(0).as_slice().unwrap(), &expected);
        let nothing = 1e-3f64.ln();
        let of_all_time = nothing - 4.001f64.ln();
        close(
            terms.users.row(1).as_slice().unwrap(),
            &[nothing, nothing, nothing, nothing, nothing, nothing, of_all_time, 1.0],
        );
        assert!((terms.unit - (7.0 - 2f64.ln())).abs() < 1e-12);
        let mean = 0.5 * (3.01f64.ln() + 1.01f64.ln());
        let popularity = 0.5f64.powf(6.0) + 2.0 * 0.5f64.powf(2.0);
        close(terms.items.row(1).as_slice().unwrap(), &[(popularity + 0.01).ln(), 3.01f64.ln() - mean]);
        close(terms.items.row(0).as_slice().unwrap(), &[(0.5f64.powf(4.0) + 0.01).ln(), 1.01f64.ln() - mean]);
    }

    #[test]
    fn decays_are_those_of_their_half_lives() {
        for age in [0.0, 1e-3, 0.1, 0.7, 3.0, 40.0, 1e6] {
            let expected = |half_lives: &[f64]| half_lives.iter().map(|h| 0.5f64.powf(age / h)).collect::<Vec<_>>();
            let ages = [0.5, age, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
            close(&decays(&ages, &ACTIVITY_HALF_LIVES).map(|lanes| lanes[1]), &expected(&ACTIVITY_HALF_LIVES));
            close(&decays(&ages, &PAIR_HALF_LIVES).map(|lanes| lanes[1]), &expected(&PAIR_HALF_LIVES));
        }
    }

    #[test]
    fn a_log_that_only_grew_has_the_same_terms_of_all_time() {
        let ids = || Vocabulary::from_sorted(["a", "b", "c"]).unwrap();
        let log = |times: u32| {
            let n = 6 * times as usize;
            let (users, items) = ([0, 0, 0, 1, 1, 2].repeat(times as usize), [0, 1, 2, 0, 0, 1].repeat(times as usize));
            Interactions::new(ids(), ids(), users, items, vec![0; n], vec![1.0; n]).unwrap()
        };
        let clock = Clock { as_of: 1, horizon: 1 };
        let (once, often) = (Terms::new(&log(1), clock), Terms::new(&log(50), clock));
        for user in 0..3 {
            assert!((once.users[[user, 6]] - often.users[[user, 6]]).abs() < 1e-3);
            assert!((once.items[[user, 1]] - often.items[[user, 1]]).abs() < 1e-2);
        }
    }

    #[test]
    fn events_at_the_moment_or_after_it_have_no_age() {
        let (log, _) = three_events();
        let terms = Terms::new(&log, Clock { as_of: 80, horizon: 1 });
        // Weight 2 at 100 and 1 at 80 count fully, the one at 60 is 20 horizons old.
        assert!((terms.users[[0, 4]] - (3.0 + 0.5f64.powi(20) + 1e-3).ln()).abs() < 1e-12);
    }
}
