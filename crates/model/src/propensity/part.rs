//! Log-odds of a part of the users, against sums over all of them.

use ndarray::ArrayView2;

use super::{LogOdds, NEW_TERMS, Propensity, REPEAT_TERMS, mass};
use crate::clock::Clock;
use crate::error::{Result, same_length};
use crate::interactions::Interactions;
use crate::terms::{Everyone, Terms};

impl Propensity {
    /// What the users of a part add to the sums over everybody at `as_of`.
    ///
    /// # Shapes
    /// user_factors: users of the part × d; item_factors: items × d
    /// # Units
    /// as_of: epoch seconds, after all events
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for factors of others
    /// # Cost
    /// one exponential an event and users × d multiply-adds; 32 bytes an item
    pub fn everyone(
        &self,
        part: &Interactions,
        as_of: i64,
        user_factors: ArrayView2<'_, f32>,
        item_factors: ArrayView2<'_, f32>,
    ) -> Result<Everyone> {
        same_length("user_factors", part.users().len(), user_factors.nrows())?;
        same_length("item_factors", part.items().len(), item_factors.nrows())?;
        Ok(Everyone::of(part, self.clock(as_of), &mass(user_factors, item_factors)))
    }

    /// [`Propensity::log_odds`] of the users of a part, where `everyone` is the sum over all parts.
    ///
    /// Sums over all users are rounded once here and added up in their order there, so the log-odds of the two agree to
    /// within the rounding of f64, which is seldom seen in f32.
    ///
    /// # Shapes
    /// as [`Propensity::log_odds`]; a part without users gives the log-odds of items
    /// # Errors
    /// as [`Propensity::log_odds`]; [`Error::Shape`](crate::Error::Shape) for sums over other items
    /// # Cost
    /// as [`Propensity::log_odds`]
    pub fn log_odds_of_part(
        &self,
        part: &Interactions,
        as_of: i64,
        user_factors: ArrayView2<'_, f32>,
        item_factors: ArrayView2<'_, f32>,
        everyone: &Everyone,
    ) -> Result<LogOdds> {
        same_length("user_factors", part.users().len(), user_factors.nrows())?;
        same_length("item_factors", part.items().len(), item_factors.nrows())?;
        same_length("a user factor", item_factors.ncols(), user_factors.ncols())?;
        same_length("recent", part.items().len(), everyone.recent.len())?;
        same_length("all", part.items().len(), everyone.all.len())?;
        self.new_pairs.check("coefficients of new pairs", NEW_TERMS)?;
        self.repeat_pairs.check("coefficients of pairs with history", REPEAT_TERMS)?;
        let mass = mass(user_factors, item_factors);
        let terms = Terms::of_part(part, self.clock(as_of), &mass, everyone);
        let (slopes, users, items) = self.new_pairs.new_log_odds(&terms);
        let repeat = self.repeat_pairs.repeat_log_odds(part, &terms, user_factors, item_factors)?;
        Ok(LogOdds { slopes, users, items, repeat })
    }

    fn clock(&self, as_of: i64) -> Clock {
        Clock { as_of, horizon: self.horizon_seconds.max(1) }
    }
}
