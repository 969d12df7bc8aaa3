//! Folding in a part of the users, wherever the others are.

use ndarray::{Array2, ArrayView2};

use crate::csr::Csr;
use crate::error::Result;
use crate::fold_in::FoldIn;
use crate::interactions::Interactions;
use crate::propensity::Propensity;
use crate::recipe::ItemAffinity;

/// What depends on the own histories of some users alone.
#[derive(Clone, Debug, PartialEq)]
pub struct PartNow {
    /// users × hidden_dimension
    pub user_factors: Array2<f32>,
    /// users × items: what the user factors were solved from.
    pub histories: Csr,
}

/// Gives the factors of the users of a part as their histories stand at a moment: those of
/// [`fold_in_users`](crate::fold_in_users()) over all users, bit for bit.
///
/// What their log-odds need of all others are sums ([`Propensity::everyone`]), so that a version's users can be folded in
/// part by part: once for the sums, and once for [`Propensity::log_odds_of_part`].
///
/// # Shapes
/// items: of the factors that the part is folded in against; prior: as for [`FoldIn::fold_in`]
/// # Units
/// as_of: epoch seconds, after all events of all parts
/// # Errors
/// those of [`fold_in`](crate::fold_in())
/// # Cost
/// one half-step of the fit over these users
pub fn fold_in_part(
    recipe: &ItemAffinity,
    propensity: &Propensity,
    items: &FoldIn,
    part: &Interactions,
    prior: Option<ArrayView2<'_, f32>>,
    as_of: i64,
) -> Result<PartNow> {
    let histories = match propensity.user_half_life_events {
        Some(events) => part.recent_pairs(events)?,
        None => part.pairs(recipe.decay(as_of))?,
    };
    Ok(PartNow { user_factors: items.fold_in(&histories, prior)?, histories })
}
