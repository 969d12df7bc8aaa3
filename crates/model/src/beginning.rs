//! How a training begins: with short fits, which also tell the regularization that a recipe leaves open.

use std::ops::ControlFlow;

use ndarray::Array2;

use crate::als::{Iteration, Start, fit_valid};
use crate::csr::Csr;
use crate::error::{Error, Result};
use crate::hash::uniform;
use crate::recipe::{ItemAffinity, REGULARIZATION, WEAKER_REGULARIZATION};
use crate::side_choice::Chooser;

/// Rounds of the short fits. On all logs that were looked at, two told the same of a regularization as four.
pub(crate) const BEGUN: usize = 2;
/// Known pairs that are looked at, about: those of as many whole users. Fewer would ask for a weaker pull than all
/// need, or leave nothing of taste to be seen.
pub(crate) const MOST_PAIRS: usize = 1_000_000;
/// Fewer users say too little of items, however many pairs they have: then all begin.
const LEAST_USERS: usize = 500;

/// What the fit to all known pairs goes on from.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// That of the recipe, or the chosen one.
    pub(crate) regularization: f32,
    /// items × hidden_dimension; zeros for an item that no user of the sample has.
    pub(crate) item_factors: Array2<f32>,
}

/// Makes the first iterations of a training, of a sample of the users where there are many pairs, and chooses a
/// regularization for a recipe that sets none.
///
/// Item factors of a part of the users are near those of all: with 8.7 million pairs, of which a ninth began, two iterations
/// more foresaw held-out pairs about as well as four from random factors.
///
/// The regularization is 0.005, unless 0.001 foresees new pairs better by the rule of
/// [`choose_side_information`](crate::choose_side_information()): by more than two standard errors, and worse in no third
/// of the items.
///
/// # Shapes
/// known, held_out: users × items; by_item: the transpose of known; most_pairs: [`MOST_PAIRS`] outside of tests
/// # Errors
/// those of [`fit`](crate::fit())
/// # Cost
/// A fit of [`BEGUN`] iterations to about `most_pairs` pairs at most, or two where there is something to choose. They have the
/// recipe's hidden dimension: with fewer hidden variables a weak pull does not overfit, and seems better than it is.
/// # Source
/// the measure and the rule are this project's own
pub(crate) fn begin(
    recipe: &ItemAffinity,
    known: &Csr,
    by_item: &Csr,
    held_out: &Csr,
    most_pairs: usize,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Beginning> {
    if let Some((known, held_out)) = sample(recipe, known, held_out, most_pairs) {
        match begin_with(recipe, &known, &known.transpose(), &held_out, observer) {
            // A row of the sample is nobody's number: the fit to all says which row it is, or does without the sample.
            Err(error) if error != Error::Cancelled => {}
            begun => return begun,
        }
    }
    begin_with(recipe, known, by_item, held_out, observer)
}

/// The known and held-out pairs of users who together have about so many known ones; none if all have no more, or if
/// these users are few.
#[allow(clippy::cast_precision_loss)]
fn sample(recipe: &ItemAffinity, known: &Csr, held_out: &Csr, most_pairs: usize) -> Option<(Csr, Csr)> {
    let share = most_pairs as f64 / known.nnz().max(1) as f64;
    let drawn = |user: u32| uniform(recipe.seed, user, 0) < share;
    let some = (share < 1.0).then(|| known.of_rows(drawn)).filter(|some| some.rows() >= LEAST_USERS)?;
    Some((some, held_out.of_rows(drawn)))
}

fn begin_with(
    recipe: &ItemAffinity,
    known: &Csr,
    by_item: &Csr,
    held_out: &Csr,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Beginning> {
    let mut fit = |regularization: f32| {
        let short = ItemAffinity { iterations: BEGUN, regularization: Some(regularization), ..recipe.clone() };
        fit_valid(&short, known, by_item, None, Start::Random, observer)
    };
    if let Some(regularization) = recipe.regularization {
        return Ok(Beginning { regularization, item_factors: fit(regularization)?.item_factors });
    }
    let chooser = Chooser::new(known, by_item, held_out, recipe.seed)?;
    let mut measured = |regularization: f32| {
        let factors = fit(regularization)?;
        let found = chooser.measure(&factors)?;
        Ok::<_, Error>((found, Beginning { regularization, item_factors: factors.item_factors }))
    };
    let ((usual_found, usual), (weaker_found, weaker)) = (measured(REGULARIZATION)?, measured(WEAKER_REGULARIZATION)?);
    Ok(if chooser.is_better(&usual_found, &weaker_found) { weaker } else { usual })
}

#[cfg(test)]
#[path = "beginning_tests.rs"]
mod tests;
