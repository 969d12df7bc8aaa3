//! The whole training: factors, a propensity learnt from a held-out window, and the log-odds of now.

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayView2};

use crate::als::{Factors, Iteration, Start, fit_valid};
use crate::attributes::SideInformation;
use crate::beginning::{BEGUN, Beginning, MOST_PAIRS, begin};
use crate::clock::{Clock, HeldOut};
use crate::csr::Csr;
use crate::error::Result;
use crate::fold_in::FoldIn;
use crate::fold_in_part::{PartNow, fold_in_part};
use crate::interactions::Interactions;
use crate::propensity::{self, Known, LogOdds, Propensity};
use crate::recipe::ItemAffinity;
use crate::side_choice::{Chooser, SideChoice};

/// Iterations that carry the factors from the held-out moment to now.
const REFIT_ITERATIONS: usize = 3;
/// Iterations that the fit to what lies before the window leaves to those. Attributes are learnt more slowly than factors:
/// with them fewer are left.
const LEFT_ITERATIONS: usize = 4;
const LEFT_WITH_ATTRIBUTES: usize = 2;

/// A trained model: all that ranking needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// The recipe, with what was chosen for it.
    pub recipe: ItemAffinity,
    /// When it looks from, and how far.
    pub clock: Clock,
    /// The hidden variables, from all events.
    pub factors: Factors,
    /// How affinities and histories become probabilities.
    pub propensity: Propensity,
    /// The log-odds of users, items and pairs with history at the clock's moment.
    pub log_odds: LogOdds,
    /// users × items: what the user factors were solved from; the same pairs as those with history.
    pub histories: Csr,
    /// Which attributes are used, and on what evidence; empty without attributes.
    pub side: SideChoice,
}

/// Trains on interactions.
///
/// The factors are fitted to the events before a held-out window, of a part of the users at first where there are many,
/// the propensity is learnt from the window, and a few more iterations then carry the factors over to all events. So the
/// coefficients have seen only what came before the events that they foresee. The window also says which regularization
/// does best, if none is set. Attributes that do not help to foresee the window are dropped; so are all of them when
/// nothing can be held out.
///
/// # Shapes
/// side: one row of attributes per item and per user
/// # Units
/// clock: when the model looks from and how far; without one, [`Clock::of`] with the recipe's horizon
/// # Errors
/// those of [`fit`](crate::fit())
/// # Cost
/// `iterations − 3` iterations of the fit, with attributes `iterations − 1`, at least 4; 2 more of at most about a million
/// pairs, without a regularization 4; with attributes also those of
/// [`choose_side_information`](crate::choose_side_information()); for the propensity a few passes over the history, and
/// logistic regressions on a bounded sample. The pairs before the window and those of all time are never held together.
pub fn train(
    asked: &ItemAffinity,
    interactions: &Interactions,
    side: Option<&SideInformation>,
    clock: Option<Clock>,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<TrainedModel> {
    asked.validate()?;
    let clock = clock.or_else(|| Clock::of(interactions, asked.horizon_seconds()));
    let clock = clock.unwrap_or(Clock { as_of: 0, horizon: asked.horizon_seconds().unwrap_or(1) });
    let mut recipe = asked.clone();
    let held_out = clock.held_out(interactions);
    let learnt =
        held_out.map(|held_out| learn(&mut recipe, interactions, side, clock, held_out, observer)).transpose()?;
    recipe.regularization = Some(recipe.penalty_rate());
    let by_user = interactions.pairs(recipe.decay(clock.as_of))?;
    let by_item = by_user.transpose();
    let (mut factors, propensity, kept, choice) = match learnt {
        None => {
            let factors = fit_valid(&recipe, &by_user, &by_item, None, Start::Random, observer)?;
            (factors, Propensity::unlearnt(clock.horizon), None, SideChoice::default())
        }
        Some(Learnt { start: Factors { user_factors, item_factors, loss, .. }, propensity, kept, choice }) => {
            let (done, iterations) = iterations(&recipe, side);
            let mut observe =
                |now: Iteration| observer(Iteration { iteration: done + now.iteration, iterations, ..now });
            let rest = ItemAffinity { iterations: REFIT_ITERATIONS, ..recipe.clone() };
            let from = Start::Factors { user_factors, item_factors };
            let mut factors = fit_valid(&rest, &by_user, &by_item, kept.as_ref(), from, &mut observe)?;
            factors.loss.splice(0..0, loss);
            (factors, propensity, kept, choice)
        }
    };
    drop(by_item);
    let item_factors = factors.item_factors.view();
    let (log_odds, histories) = if propensity.user_half_life_events.is_some() {
        drop(by_user);
        let prior = user_prior(&factors, kept.as_ref())?;
        let prior = prior.as_ref().map(|prior| prior.view());
        let now = fold_in_users(&recipe, &propensity, item_factors, interactions, prior, clock.as_of)?;
        factors.user_factors = now.user_factors;
        (now.log_odds, now.histories)
    } else {
        (propensity.log_odds(interactions, clock.as_of, factors.user_factors.view(), item_factors)?, by_user)
    };
    Ok(TrainedModel { recipe, clock, factors, propensity, log_odds, histories, side: choice })
}

/// What the held-out window teaches.
struct Learnt {
    /// The fit to the events before it.
    start: Factors,
    propensity: Propensity,
    /// The attributes that help.
    kept: Option<SideInformation>,
    choice: SideChoice,
}

/// Iterations before the window, without those that begin, and in all.
fn iterations(recipe: &ItemAffinity, side: Option<&SideInformation>) -> (usize, usize) {
    let left = if side.is_some() { LEFT_WITH_ATTRIBUTES } else { LEFT_ITERATIONS };
    let before = recipe.iterations.saturating_sub(left + BEGUN).max(1);
    (before, before + REFIT_ITERATIONS)
}

/// Learns what the held-out window teaches, the regularization of a recipe without one included.
fn learn(
    recipe: &mut ItemAffinity,
    interactions: &Interactions,
    side: Option<&SideInformation>,
    clock: Clock,
    held_out: HeldOut,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Learnt> {
    let (done, iterations) = iterations(recipe, side);
    let (known, window) = interactions.split_at(held_out.clock.as_of);
    let before = known.pairs(recipe.decay(held_out.clock.as_of))?;
    let (mut choice, mut kept) = (SideChoice::default(), None);
    let before_by_item = before.transpose();
    let labels = window.pairs(None)?;
    let mut observe = |now: Iteration| observer(Iteration { iteration: 0, iterations, ..now });
    let Beginning { regularization, item_factors } =
        begin(recipe, &before, &before_by_item, &labels, MOST_PAIRS, &mut observe)?;
    recipe.regularization = Some(regularization);
    if let Some(side) = side {
        let chooser = Chooser::new(&before, &before_by_item, &labels, recipe.seed)?;
        let chosen = chooser.side_information(recipe, side.clone(), &mut observe)?;
        (kept, choice) = (Some(chosen.0), chosen.1);
    }
    let mut observe = |now: Iteration| observer(Iteration { iterations, ..now });
    let first = ItemAffinity { iterations: done, ..recipe.clone() };
    let begun = Start::Items(item_factors);
    let start = fit_valid(&first, &before, &before_by_item, kept.as_ref(), begun, &mut observe)?;
    drop(before_by_item);
    let user_prior = user_prior(&start, kept.as_ref())?;
    let known = Known {
        interactions: &known,
        by_user: &before,
        user_factors: start.user_factors.view(),
        item_factors: start.item_factors.view(),
        user_prior: user_prior.as_ref().map(|prior| prior.view()),
    };
    let propensity = propensity::fit(recipe, &known, &labels, held_out, clock.as_of)?;
    Ok(Learnt { start, propensity, kept, choice })
}

/// All that depends on the users' histories up to a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct UsersNow {
    /// users × hidden_dimension
    pub user_factors: Array2<f32>,
    /// The log-odds of users, items and pairs with history.
    pub log_odds: LogOdds,
    /// users × items: what the user factors were solved from.
    pub histories: Csr,
}

/// Gives the states of users as their histories stand at a moment, for item factors and a propensity from an earlier
/// training: new users and new behaviour enter segments without a training.
///
/// # Shapes
/// item_factors: items × hidden_dimension, in the order of the interactions' vocabulary; user_prior: users ×
/// hidden_dimension, from [`Attributes::prior_means`](crate::Attributes::prior_means)
/// # Units
/// as_of: epoch seconds, after all events
/// # Errors
/// those of [`fold_in`](crate::fold_in())
/// # Cost
/// one half-step of the fit, and pairs with history × (d + 200) multiply-adds
pub fn fold_in_users(
    recipe: &ItemAffinity,
    propensity: &Propensity,
    item_factors: ArrayView2<'_, f32>,
    interactions: &Interactions,
    user_prior: Option<ArrayView2<'_, f32>>,
    as_of: i64,
) -> Result<UsersNow> {
    let fold = FoldIn::new(recipe, item_factors)?;
    let PartNow { user_factors, histories } = fold_in_part(recipe, propensity, &fold, interactions, user_prior, as_of)?;
    let log_odds = propensity.log_odds(interactions, as_of, user_factors.view(), item_factors)?;
    Ok(UsersNow { user_factors, log_odds, histories })
}

/// What the attributes of users lead to expect of their factors.
fn user_prior(factors: &Factors, side: Option<&SideInformation>) -> Result<Option<Array2<f32>>> {
    let users = side.and_then(|side| side.users.as_ref());
    users.zip(factors.user_weights.as_ref()).map(|(users, weights)| users.prior_means(weights.view())).transpose()
}
