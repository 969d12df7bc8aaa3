//! Learns a propensity from a held-out window.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::sample::{CAPS, Drawn, Pairs, draw};
use super::{
    LINEAR_TERMS, LearntFrom, NEW_TERMS, Propensity, REPEAT_TERMS, Regime, UNKNOWN, affinities, affinity, linear_terms,
    mass, new_terms, repeat_terms,
};
use crate::clock::HeldOut;
use crate::csr::Csr;
use crate::error::Result;
use crate::fold_in::FoldIn;
use crate::interactions::Interactions;
use crate::logistic::{Logistic, Sample};
use crate::recipe::ItemAffinity;
use crate::terms::Terms;

/// Pairs of a kind that must have interacted in the window before their terms are told apart.
const LEAST_POSITIVES: u64 = 20;
/// Ridges of the regression of new pairs; the window chooses.
const RIDGES: [f64; 7] = [3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0];
/// The ridge of the regression of pairs with history: quality was flat from 10 to 100 on both retail logs.
const REPEAT_RIDGE: f64 = 30.0;
/// Rows that choose the ridge and the half-life; all of them fit the coefficients.
const CHOICE_ROWS: usize = 50_000;
/// Half-lives of a user's history, in own events, that the window may choose instead of the recipe's.
const HALF_LIVES: [f64; 3] = [60.0, 20.0, 8.0];
/// The share of the log-loss that a half-life must save to be chosen.
const HALF_LIFE_GAIN: f64 = 0.005;

/// What is known before the window: the events, and the factors that were fitted to them.
pub(crate) struct Known<'a> {
    pub(crate) interactions: &'a Interactions,
    /// users × items
    pub(crate) by_user: &'a Csr,
    pub(crate) user_factors: ArrayView2<'a, f32>,
    pub(crate) item_factors: ArrayView2<'a, f32>,
    /// What attributes lead to expect of the factors of users.
    pub(crate) user_prior: Option<ArrayView2<'a, f32>>,
}

/// Learns how probable interactions are from what happened in the held-out window.
///
/// For each regime, new pairs and pairs with history, it draws pairs, weighs them by the inverse of the probability
/// that they were drawn with, and fits a logistic regression. A regime without a pair that interacted becomes
/// [`Regime::Never`], one with fewer than [`LEAST_POSITIVES`] a prior, one without any pair the prior of the unknown.
///
/// # Shapes
/// labels: users × items, the pairs of the window, with the vocabularies of `known`
/// # Units
/// until: epoch seconds at which the window ends
/// # Errors
/// those of [`fold_in`](crate::fold_in())
/// # Cost
/// a pass over the history for the terms; up to half a million drawn pairs, each with d multiply-adds for its affinity
/// and `terms²/2` in each of a few Newton steps; the choice of the half-life folds in the users of
/// [`CHOICE_ROWS`] pairs once for each of [`HALF_LIVES`]
/// # Source
/// the form: Ma, Liu, Deoras 2022; the weights: Horvitz and Thompson, *A generalization of sampling without
/// replacement from a finite universe*, 1952
pub(crate) fn fit(
    recipe: &ItemAffinity,
    known: &Known<'_>,
    labels: &Csr,
    held_out: HeldOut,
    until: i64,
) -> Result<Propensity> {
    let clock = held_out.clock;
    let (new, repeat) = draw(known.interactions, known.by_user, labels, CAPS, recipe.seed);
    let mut terms = Terms::new(known.interactions, clock);
    let half_life = choose_half_life(recipe, known, &mut terms, &new)?;
    let fold_in = |events: f64| {
        let histories = known.interactions.recent_pairs(events)?;
        FoldIn::new(recipe, known.item_factors)?.fold_in(&histories, known.user_prior)
    };
    let folded = half_life.map(fold_in).transpose()?;
    let factors =
        Factors { users: folded.as_ref().map_or(known.user_factors, |x| x.view()), items: known.item_factors };
    terms.set_mass(&mass(factors.users, factors.items));
    let scale = window_scale(held_out, until);
    let new_pairs = regime(&new, scale, || {
        let ridge = Logistic::best_ridge(new_rows(&new.thinned(CHOICE_ROWS), &terms, factors), &RIDGES)?;
        Some((Logistic::fit(new_rows(&new, &terms, factors), ridge, &[0, 1])?, ridge))
    });
    let repeat_pairs = regime(&repeat, scale, || {
        let rows = repeat_rows(&repeat, known.interactions, &terms, factors);
        Some((Logistic::fit(rows, REPEAT_RIDGE, &[])?, REPEAT_RIDGE))
    });
    Ok(Propensity {
        horizon_seconds: clock.horizon,
        window: Some(LearntFrom { from: clock.as_of, until, shortened: held_out.shortened }),
        user_half_life_events: half_life,
        new_pairs,
        repeat_pairs,
    })
}

#[derive(Clone, Copy)]
struct Factors<'a> {
    users: ArrayView2<'a, f32>,
    items: ArrayView2<'a, f32>,
}

impl Factors<'_> {
    fn affinity(self, pair: &Drawn) -> f32 {
        affinity(self.users.row(pair.user as usize), self.items.row(pair.item as usize))
    }
}

/// What is added to the log-odds of a window that is shorter than the horizon: events are taken to go on at their rate.
#[allow(clippy::cast_precision_loss)]
fn window_scale(held_out: HeldOut, until: i64) -> f64 {
    let window = until.saturating_sub(held_out.clock.as_of).max(1) as f64;
    if held_out.shortened { (held_out.clock.horizon as f64 / window).max(1.0).ln() } else { 0.0 }
}

fn regime(pairs: &Pairs, scale: f64, fit: impl FnOnce() -> Option<(Logistic, f64)>) -> Regime {
    #[allow(clippy::cast_precision_loss)]
    let prior = || ((pairs.positives as f64 + 0.5) / ((pairs.pairs - pairs.positives) as f64 + 0.5)).ln() + scale;
    match (pairs.positives >= LEAST_POSITIVES).then(fit).flatten() {
        Some((mut fit, ridge)) => {
            fit.intercept += scale;
            Regime::fitted(fit, ridge, pairs.positives, pairs.pairs)
        }
        // Without a pair to look at nothing was seen not to happen either.
        None if pairs.pairs == 0 => Regime::Prior { log_odds: UNKNOWN },
        None if pairs.positives == 0 => Regime::Never,
        None => Regime::Prior { log_odds: prior() },
    }
}

/// The half-life of the history, in own events, that foresees new pairs best; none if the recipe's does about as well.
fn choose_half_life(recipe: &ItemAffinity, known: &Known<'_>, terms: &mut Terms, new: &Pairs) -> Result<Option<f64>> {
    if new.positives < LEAST_POSITIVES {
        return Ok(None);
    }
    let (some, users) = new.of_some_users(CHOICE_ROWS, known.by_user.rows());
    let histories = known.interactions.of_users(|user| users[user]);
    let fold_in = FoldIn::new(recipe, known.item_factors)?;
    let mut loss_with = |users: ArrayView2<'_, f32>| {
        let factors = Factors { users, items: known.item_factors };
        terms.set_mass(&mass(users, factors.items));
        Logistic::loss(new_rows(&some, terms, factors), 100.0, &[0, 1])
    };
    let Some(without) = loss_with(known.user_factors) else { return Ok(None) };
    let mut best = (without * (1.0 - HALF_LIFE_GAIN), None);
    for events in HALF_LIVES {
        let factors = fold_in.fold_in(&histories.recent_pairs(events)?, known.user_prior)?;
        if let Some(loss) = loss_with(factors.view()).filter(|loss| *loss < best.0) {
            best = (loss, Some(events));
        }
    }
    Ok(best.1)
}

/// The rows of drawn new pairs, weighed so that they stand for all.
fn new_rows(pairs: &Pairs, terms: &Terms, factors: Factors<'_>) -> Sample {
    let row =
        |pair: &Drawn| new_terms(terms, pair.user as usize, &[pair.item], [factors.affinity(pair)]).map(|[term]| term);
    let rows: Vec<[f64; NEW_TERMS]> = pairs.drawn.par_iter().map(row).collect();
    let mut sample = Sample::new(NEW_TERMS, rows.len());
    rows.iter().zip(&pairs.drawn).for_each(|(row, pair)| sample.push(row, pair.label, 1.0, pair.user));
    pairs.weigh(&mut sample);
    sample
}

/// The rows of drawn pairs with history, which lie user by user.
fn repeat_rows(pairs: &Pairs, known: &Interactions, terms: &Terms, factors: Factors<'_>) -> Sample {
    let by_user: Vec<&[Drawn]> = pairs.drawn.chunk_by(|a, b| a.user == b.user).collect();
    let rows: Vec<Vec<(Drawn, [f64; LINEAR_TERMS])>> = by_user
        .into_par_iter()
        .map(|drawn| {
            let mut drawn = drawn.to_vec();
            drawn.sort_unstable_by_key(|pair| pair.item);
            let user = drawn[0].user as usize;
            let mut rows = Vec::with_capacity(drawn.len());
            let is_drawn = |item: u32| drawn.binary_search_by_key(&item, |pair| pair.item).is_ok();
            terms.own_events().visit(&known.history(user), is_drawn, |items, own| {
                let affinities = affinities(factors.users.row(user), factors.items, items);
                let linear = linear_terms(&new_terms(terms, user, items, affinities), own);
                // Both ascend, and every drawn pair has history.
                for (lane, pair) in drawn[rows.len()..].iter().take(items.len()).enumerate() {
                    rows.push((*pair, linear.map(|term| term[lane])));
                }
            });
            rows
        })
        .collect();
    // Products are many: they are made where they stay.
    let mut sample = Sample::new(REPEAT_TERMS, pairs.drawn.len());
    for (pair, linear) in rows.iter().flatten() {
        sample.push(&repeat_terms(linear), pair.label, 1.0, pair.user);
    }
    pairs.weigh(&mut sample);
    sample
}
