//! The propensity: how probable it is that a user interacts with an item within the horizon.
//!
//! An affinity tells which items suit a user, not which users come to the shop at all. Two users are comparable only
//! by affinity × intensity (Ma, Liu, Deoras, *Bridging Recommendation and Marketing via Recurrent Intensity Modeling*,
//! ICLR 2022), so the score is the probability
//! ```text
//! P(u interacts with i within the horizon) = sigmoid(b_r + w_r · terms(u, i))        r = new | repeat pair
//! ```
//! over affinity, affinity for all items together, activity of the user, popularity of the item and, for pairs with
//! history, their own events. Both regimes are logistic regressions on a held-out window; see [`fit`](self::fit()).

use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::elementary::ln;
use crate::lanes::{LANES, dot};
use crate::logistic::Logistic;
use crate::terms::{
    ITEM_TERM_NAMES, ITEM_TERMS, MASS, PAIR_TERM_NAMES, PAIR_TERMS, Terms, USER_TERM_NAMES, USER_TERMS,
};

mod fit;
mod log_odds;
mod sample;

pub(crate) use fit::{Known, fit};
pub use log_odds::{LogOdds, NewPairSlopes, probability};

/// The least affinity whose logarithm is told apart.
pub const AFFINITY_FLOOR: f32 = 1e-4;
/// The least affinity for all items together whose logarithm is told apart.
const MASS_FLOOR: f32 = 1e-3;
/// Log-odds where nothing is known: one in a hundred.
const UNKNOWN: f64 = -4.6;
/// Terms that every pair has: affinity, its logarithm, those of the user and of the item.
const NEW_TERMS: usize = 2 + USER_TERMS + ITEM_TERMS;
/// Terms of a pair with history without their products.
const LINEAR_TERMS: usize = NEW_TERMS + PAIR_TERMS;
/// Those that also enter as products with each other.
const CROSSED: usize = 15;
/// Terms of a pair with history.
const REPEAT_TERMS: usize = LINEAR_TERMS + CROSSED * (CROSSED + 1) / 2;

/// A propensity model: everything that turns affinities and histories into probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Propensity {
    /// Seconds that a score looks ahead.
    pub horizon_seconds: i64,
    /// The window that the coefficients were learnt from, none if nothing could be held out.
    pub window: Option<LearntFrom>,
    /// Users are folded in with a history in which an event counts half after so many later events of the user; none:
    /// with the recipe's half-life in days.
    pub user_half_life_events: Option<f64>,
    /// Pairs without earlier interaction.
    pub new_pairs: Regime,
    /// Pairs with one.
    pub repeat_pairs: Regime,
}

/// The held-out window of a propensity model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearntFrom {
    /// Epoch seconds: events before it were features, those from it on labels.
    pub from: i64,
    /// Epoch seconds at which the window ends.
    pub until: i64,
    /// Whether the window is shorter than the horizon, so that probabilities were scaled up by the ratio.
    pub shortened: bool,
}

/// How the pairs of one kind get their log-odds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Regime {
    /// No such pair was seen to interact in the window: it never will.
    Never,
    /// Too few were seen to tell pairs apart: all have the same probability. New pairs are still ordered by affinity.
    Prior {
        /// Log-odds of the share that did.
        log_odds: f64,
    },
    /// A logistic regression.
    Fitted {
        /// Log-odds when all terms are 0.
        intercept: f64,
        /// One coefficient for each of [`Regime::new_pair_term_names`] or [`Regime::repeat_pair_term_names`].
        coefficients: Vec<f64>,
        /// The penalty, on standardized terms.
        ridge: f64,
        /// Pairs of this kind that did interact in the window.
        positives: u64,
        /// Pairs of this kind in all.
        pairs: u64,
    },
}

impl Regime {
    /// Names of the terms of new pairs, in the order of their coefficients.
    #[must_use]
    pub fn new_pair_term_names() -> Vec<String> {
        let mut names = vec!["affinity".to_owned(), "log affinity".to_owned()];
        names.extend(USER_TERM_NAMES.iter().chain(&ITEM_TERM_NAMES).map(|name| (*name).to_owned()));
        names
    }

    /// Names of the terms of pairs with history, in the order of their coefficients.
    #[must_use]
    pub fn repeat_pair_term_names() -> Vec<String> {
        let mut names = Self::new_pair_term_names();
        names.extend(PAIR_TERM_NAMES.iter().map(|name| (*name).to_owned()));
        let crossed = crossed(&std::array::from_fn::<_, LINEAR_TERMS, _>(|at| at));
        for (at, left) in crossed.iter().enumerate() {
            names.extend(
                crossed[..=at].iter().map(|right| format!("{} × {}", names[*left], names[*right])).collect::<Vec<_>>(),
            );
        }
        names
    }

    fn fitted(fit: Logistic, ridge: f64, positives: u64, pairs: u64) -> Self {
        let Logistic { intercept, coefficients } = fit;
        Self::Fitted { intercept, coefficients, ridge, positives, pairs }
    }
}

/// The terms that enter as products, out of all linear ones.
#[inline(always)] // becomes vector code where all pairs are gone through
fn crossed<T: Copy>(linear: &[T; LINEAR_TERMS]) -> [T; CROSSED] {
    const USER: usize = 2;
    const ITEM: usize = USER + USER_TERMS;
    const PAIR: usize = ITEM + ITEM_TERMS;
    let at = |index: usize| linear[index];
    [
        at(1),
        at(USER + 2),
        at(USER + 3),
        at(USER + 4),
        at(USER + 5),
        at(USER + 6),
        at(ITEM),
        at(ITEM + 1),
        at(PAIR),
        at(PAIR + 1),
        at(PAIR + 2),
        at(PAIR + 3),
        at(PAIR + 4),
        at(PAIR + 5),
        at(PAIR + 6),
    ]
}

/// The terms that every pair has, of N pairs of a user beside each other; affinity counts in means of all affinities.
///
/// Where there are fewer items than lanes, the last ones hold anything.
#[inline(always)] // becomes vector code where all pairs are gone through
fn new_terms<const N: usize>(terms: &Terms, user: usize, items: &[u32], affinities: [f32; N]) -> [[f64; N]; NEW_TERMS] {
    let mut out = [[0.0; N]; NEW_TERMS];
    for (out, affinity) in out[0].iter_mut().zip(affinities) {
        *out = f64::from(affinity) * terms.per_unit;
    }
    for (out, affinity) in out[1].iter_mut().zip(affinities) {
        *out = ln(f64::from(affinity.max(AFFINITY_FLOOR))) - terms.unit;
    }
    let (of_user, of_item) = out[2..].split_at_mut(USER_TERMS);
    for (out, term) in of_user.iter_mut().zip(terms.users.row(user)) {
        *out = [*term; N];
    }
    for (lane, item) in items.iter().enumerate() {
        for (out, term) in of_item.iter_mut().zip(terms.items.row(*item as usize)) {
            out[lane] = *term;
        }
    }
    out
}

#[inline(always)] // becomes vector code where all pairs are gone through
fn linear_terms<T: Copy + Default>(new: &[T; NEW_TERMS], own: &[T; PAIR_TERMS]) -> [T; LINEAR_TERMS] {
    let mut out = [T::default(); LINEAR_TERMS];
    out[..NEW_TERMS].copy_from_slice(new);
    out[NEW_TERMS..].copy_from_slice(own);
    out
}

fn repeat_terms(linear: &[f64; LINEAR_TERMS]) -> [f64; REPEAT_TERMS] {
    let mut out = [0.0; REPEAT_TERMS];
    out[..linear.len()].copy_from_slice(linear);
    let crossed = crossed(linear);
    let mut at = linear.len();
    for (count, left) in crossed.iter().enumerate() {
        for right in &crossed[..=count] {
            out[at] = left * right;
            at += 1;
        }
    }
    out
}

/// The log-odds of pairs with history, with the coefficients of products as a triangle: nothing is written down per pair
/// but the terms themselves.
struct RepeatLogOdds {
    intercept: f64,
    linear: [f64; LINEAR_TERMS],
    /// Row i has the coefficients of the products of crossed term i with those up to it.
    triangle: [[f64; CROSSED]; CROSSED],
}

impl RepeatLogOdds {
    /// # Shapes
    /// coefficients: [`REPEAT_TERMS`]
    fn new(intercept: f64, coefficients: &[f64]) -> Self {
        let (first, mut products) = coefficients.split_at(LINEAR_TERMS);
        let mut linear = [0.0; LINEAR_TERMS];
        linear.copy_from_slice(first);
        let mut triangle = [[0.0; CROSSED]; CROSSED];
        for (at, row) in triangle.iter_mut().enumerate() {
            let (own, rest) = products.split_at(at + 1);
            row[..own.len()].copy_from_slice(own);
            products = rest;
        }
        Self { intercept, linear, triangle }
    }

    /// The log-odds of N pairs beside each other.
    #[inline(always)] // becomes vector code where all pairs are gone through
    fn of<const N: usize>(&self, linear: &[[f64; N]; LINEAR_TERMS]) -> [f64; N] {
        let mut out = [self.intercept; N];
        for (coefficient, terms) in self.linear.iter().zip(linear) {
            add_product(&mut out, &[*coefficient; N], terms);
        }
        let crossed = crossed(linear);
        for (at, (row, left)) in self.triangle.iter().zip(&crossed).enumerate() {
            let mut sum = [0.0; N];
            for (coefficient, right) in row[..=at].iter().zip(&crossed) {
                add_product(&mut sum, &[*coefficient; N], right);
            }
            add_product(&mut out, left, &sum);
        }
        out
    }
}

/// Adds the product of two numbers in each lane.
#[inline(always)]
fn add_product<const N: usize>(out: &mut [f64; N], left: &[f64; N], right: &[f64; N]) {
    for (out, (left, right)) in out.iter_mut().zip(left.iter().zip(right)) {
        *out += left * right;
    }
}

/// The logarithm of each user's affinity for all items together.
fn mass(user_factors: ArrayView2<'_, f32>, item_factors: ArrayView2<'_, f32>) -> Vec<f64> {
    // Added in f64, so that the order of items cannot show.
    let sum = item_factors.mapv(f64::from).sum_axis(Axis(0)).mapv(to_f32);
    let of = |user: usize| f64::from(affinity(user_factors.row(user), sum.view()).max(MASS_FLOOR)).ln();
    (0..user_factors.nrows()).into_par_iter().map(of).collect()
}

/// The affinity of one pair: for terms, not for scores that must agree bit by bit.
#[inline(always)] // becomes vector code where all pairs are gone through
fn affinity(user: ArrayView1<'_, f32>, item: ArrayView1<'_, f32>) -> f32 {
    dot(user.as_slice().unwrap_or_default(), item.as_slice().unwrap_or_default())
}

/// The affinities of a user for up to [`LANES`] items; anything beyond them.
#[inline(always)] // becomes vector code where all pairs are gone through
fn affinities(user: ArrayView1<'_, f32>, item_factors: ArrayView2<'_, f32>, items: &[u32]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (out, item) in out.iter_mut().zip(items) {
        *out = affinity(user, item_factors.row(*item as usize));
    }
    out
}

#[allow(clippy::cast_possible_truncation)]
fn to_f32(value: f64) -> f32 {
    value as f32
}

impl Propensity {
    /// A propensity that knows nothing but affinity: what is left when nothing can be held out to learn from.
    pub(crate) fn unlearnt(horizon_seconds: i64) -> Self {
        let prior = Regime::Prior { log_odds: UNKNOWN };
        Self {
            horizon_seconds,
            window: None,
            user_half_life_events: None,
            new_pairs: prior.clone(),
            repeat_pairs: prior,
        }
    }

    /// What a person should know before they trust the probabilities; empty when there is nothing to say.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        let Some(window) = self.window else {
            out.push(
                "no time could be held out to learn probabilities from: scores order users by affinity alone".into(),
            );
            return out;
        };
        if window.shortened {
            out.push(format!(
                "the horizon of {} s is long for this history: probabilities were learnt from {} s and scaled up",
                self.horizon_seconds,
                window.until.saturating_sub(window.from)
            ));
        }
        for (regime, pairs, effect) in [
            (&self.new_pairs, "pairs without history", "they are ordered by affinity alone"),
            (&self.repeat_pairs, "pairs with history", "they all have the same probability"),
        ] {
            match regime {
                Regime::Never => out
                    .push(format!("no {pairs} interacted in the held-out window: their probability is taken as never")),
                Regime::Prior { .. } => {
                    out.push(format!("too few {pairs} interacted in the held-out window: {effect}"))
                }
                Regime::Fitted { .. } => (),
            }
        }
        out
    }
}

const _: () = assert!(MASS == USER_TERMS - 1);

#[cfg(test)]
#[path = "propensity_tests.rs"]
mod tests;
