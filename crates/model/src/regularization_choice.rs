//! Which regularization a recipe that sets none gets, told by pairs that short fits have not seen.

use std::ops::ControlFlow;

use crate::als::Iteration;
use crate::csr::Csr;
use crate::error::Result;
use crate::hash::uniform;
use crate::recipe::{ItemAffinity, REGULARIZATION, WEAKER_REGULARIZATION};
use crate::side_choice::Chooser;

/// Rounds of the fits that are compared. On all logs that were looked at, two told the same as four.
const ITERATIONS: usize = 2;
/// Known pairs that are looked at, about: those of as many whole users. Fewer would ask for a weaker pull than all
/// need, or leave nothing of taste to be seen.
const MOST_PAIRS: usize = 1_000_000;

/// Chooses a regularization for a recipe that sets none.
///
/// It is 0.005, unless 0.001 foresees new pairs better by the rule of
/// [`choose_side_information`](crate::choose_side_information()): by more than two standard errors, and worse in no third
/// of the items.
///
/// # Shapes
/// known, held_out: users × items
/// # Errors
/// those of [`fit`](crate::fit())
/// # Cost
/// Two fits of 2 iterations, to the pairs of a sample of users, about a million pairs at most. They have the
/// recipe's hidden dimension: with fewer hidden variables a weak pull does not overfit, and seems better than it is.
/// # Source
/// the measure and the rule are this project's own
pub(crate) fn choose_regularization(
    recipe: &ItemAffinity,
    known: &Csr,
    held_out: &Csr,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<f32> {
    #[allow(clippy::cast_precision_loss)]
    let share = MOST_PAIRS as f64 / known.nnz().max(1) as f64;
    let some = (share < 1.0).then(|| known.of_rows(|user| uniform(recipe.seed, user, 0) < share));
    let known = some.as_ref().unwrap_or(known);
    let by_item = known.transpose();
    let chooser = Chooser::new(known, &by_item, held_out, recipe.seed)?;
    let mut measure = |regularization: f32| {
        let short = ItemAffinity { iterations: ITERATIONS, regularization: Some(regularization), ..recipe.clone() };
        chooser.measure(&short, None, observer)
    };
    let usual = measure(REGULARIZATION)?;
    let weaker = measure(WEAKER_REGULARIZATION)?;
    Ok(if chooser.is_better(&usual, &weaker) { WEAKER_REGULARIZATION } else { REGULARIZATION })
}

#[cfg(test)]
#[path = "regularization_choice_tests.rs"]
mod tests;
