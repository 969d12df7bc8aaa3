//! Log-odds at a moment, in a form that ranks quickly.

use ndarray::{Array2, ArrayView2};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    AFFINITY_FLOOR, NEW_TERMS, Propensity, REPEAT_TERMS, Regime, RepeatLogOdds, affinities, linear_terms, mass,
    new_terms, to_f32,
};
use crate::clock::Clock;
use crate::csr::{Csr, Rows};
use crate::elementary::{ln, logistic};
use crate::error::{Error, Result, same_length};
use crate::interactions::Interactions;
use crate::lanes::LANES;
use crate::terms::{Everyone, Terms, USER_TERMS, user_blocks};

/// Log-odds of what has never been seen to happen: a probability of 1e-13.
const NEVER: f32 = -30.0;

/// Log-odds of new pairs, apart from the affinity: `z = affinity·s + log_affinity·ln(max(s, floor)) + user + item`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewPairSlopes {
    /// Log-odds per unit of affinity, at least 0.
    pub affinity: f32,
    /// Log-odds per unit of the logarithm of affinity, at least 0.
    pub log_affinity: f32,
}

/// Log-odds at a moment, ready for ranking.
#[derive(Clone, Debug, PartialEq)]
pub struct LogOdds {
    /// How affinity counts for a new pair.
    pub slopes: NewPairSlopes,
    /// What each user adds to the log-odds of a new pair, intercept included.
    pub users: Vec<f32>,
    /// What each item adds to the log-odds of a new pair.
    pub items: Vec<f32>,
    /// users × items: the whole log-odds of each pair with history.
    pub repeat: Csr,
}

impl NewPairSlopes {
    /// Whether both are numbers of at least 0, which ranking relies on.
    #[must_use]
    pub fn are_sound(self) -> bool {
        [self.affinity, self.log_affinity].iter().all(|slope| slope.is_finite() && *slope >= 0.0)
    }

    /// The log-odds of a new pair.
    #[must_use]
    #[inline(always)] // becomes vector code in ranking
    pub fn log_odds(self, affinity: f32, user: f32, item: f32) -> f64 {
        f64::from(self.affinity) * f64::from(affinity)
            + f64::from(self.log_affinity) * ln(f64::from(affinity.max(AFFINITY_FLOOR)))
            + f64::from(user)
            + f64::from(item)
    }
}

/// The probability that some log-odds stand for, as it stands in a segment.
#[must_use]
#[allow(clippy::cast_possible_truncation)] // the nearest f32 is what is meant
pub fn probability(log_odds: f64) -> f32 {
    logistic(log_odds) as f32
}

impl Propensity {
    /// Log-odds of all pairs as they stand at `as_of`, in a form that ranks quickly.
    ///
    /// # Shapes
    /// user_factors: users × d, item_factors: items × d, both in the order of `known`
    /// # Units
    /// as_of: epoch seconds, after all events of `known`
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for factors of others, or coefficients of other terms
    /// # Cost
    /// pairs with history × (d + 200) multiply-adds, on all threads of the current rayon pool; 8 bytes a pair
    pub fn log_odds(
        &self,
        known: &Interactions,
        as_of: i64,
        user_factors: ArrayView2<'_, f32>,
        item_factors: ArrayView2<'_, f32>,
    ) -> Result<LogOdds> {
        same_factors(known, user_factors, item_factors)?;
        let mass = mass(user_factors, item_factors);
        let everyone = Everyone::of(known, self.clock(as_of), &mass);
        self.log_odds_by_mass(known, as_of, user_factors, item_factors, &mass, &everyone)
    }

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
        same_factors(part, user_factors, item_factors)?;
        Ok(Everyone::of(part, self.clock(as_of), &mass(user_factors, item_factors)))
    }

    /// [`Propensity::log_odds`] of the users of a part, where `everyone` is the sum over all parts.
    ///
    /// The sums hold twice the digits of an f64, so that their order is not seen in f32.
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
        same_factors(part, user_factors, item_factors)?;
        same_length("recent", part.items().len(), everyone.recent.len())?;
        same_length("all", part.items().len(), everyone.all.len())?;
        let mass = mass(user_factors, item_factors);
        self.log_odds_by_mass(part, as_of, user_factors, item_factors, &mass, everyone)
    }

    fn log_odds_by_mass(
        &self,
        part: &Interactions,
        as_of: i64,
        user_factors: ArrayView2<'_, f32>,
        item_factors: ArrayView2<'_, f32>,
        mass: &[f64],
        everyone: &Everyone,
    ) -> Result<LogOdds> {
        self.new_pairs.check("coefficients of new pairs", NEW_TERMS)?;
        self.repeat_pairs.check("coefficients of pairs with history", REPEAT_TERMS)?;
        let terms = Terms::of_part(part, self.clock(as_of), mass, everyone);
        let (slopes, users, items) = self.new_pairs.new_log_odds(&terms);
        let repeat = self.repeat_pairs.repeat_log_odds(part, &terms, user_factors, item_factors)?;
        Ok(LogOdds { slopes, users, items, repeat })
    }

    fn clock(&self, as_of: i64) -> Clock {
        Clock { as_of, horizon: self.horizon_seconds.max(1) }
    }
}

/// Factors of these users and items, of one dimension.
fn same_factors(known: &Interactions, users: ArrayView2<'_, f32>, items: ArrayView2<'_, f32>) -> Result<()> {
    same_length("user_factors", known.users().len(), users.nrows())?;
    same_length("item_factors", known.items().len(), items.nrows())?;
    same_length("a user factor", items.ncols(), users.ncols())
}

impl Regime {
    fn check(&self, name: &'static str, terms: usize) -> Result<()> {
        match self {
            Self::Fitted { coefficients, .. } => same_length(name, terms, coefficients.len()),
            Self::Never | Self::Prior { .. } => Ok(()),
        }
    }

    fn new_log_odds(&self, terms: &Terms) -> (NewPairSlopes, Vec<f32>, Vec<f32>) {
        let constant = |log_odds: f32| {
            let slopes = NewPairSlopes { affinity: 1.0, log_affinity: 0.0 };
            (slopes, vec![log_odds; terms.users.nrows()], vec![0.0; terms.items.nrows()])
        };
        match self {
            Self::Never => constant(NEVER),
            Self::Prior { log_odds } => constant(to_f32(*log_odds)),
            Self::Fitted { intercept, coefficients, .. } => {
                let (user, item) = coefficients[2..NEW_TERMS].split_at(USER_TERMS);
                let rows = |terms: &Array2<f64>, start: f64, coefficients: &[f64]| -> Vec<f32> {
                    let row = |row: ndarray::ArrayView1<'_, f64>| {
                        start + row.iter().zip(coefficients).map(|(x, c)| x * c).sum::<f64>()
                    };
                    terms.rows().into_iter().map(|terms| to_f32(row(terms))).collect()
                };
                let slopes = NewPairSlopes {
                    affinity: to_f32(coefficients[0] * terms.per_unit),
                    log_affinity: to_f32(coefficients[1]),
                };
                let start = intercept - coefficients[1] * terms.unit;
                (slopes, rows(&terms.users, start, user), rows(&terms.items, 0.0, item))
            }
        }
    }

    fn repeat_log_odds(
        &self,
        known: &Interactions,
        terms: &Terms,
        user_factors: ArrayView2<'_, f32>,
        item_factors: ArrayView2<'_, f32>,
    ) -> Result<Csr> {
        let fitted = match self {
            Self::Fitted { intercept, coefficients, .. } => Some(RepeatLogOdds::new(*intercept, coefficients)),
            Self::Never | Self::Prior { .. } => None,
        };
        let constant = if let Self::Prior { log_odds } = self { to_f32(*log_odds) } else { NEVER };
        let rows = RepeatRows { known, terms, fitted, constant, user_factors, item_factors };
        let of = |users| Arch::new().dispatch(RepeatRowsOf { rows: &rows, users });
        let parts = user_blocks(known).into_par_iter().map(of).collect::<Result<Vec<_>>>()?;
        Ok(Csr::of_parts(&parts, known.items().len()))
    }
}

/// Gives the log-odds of all pairs with history of some users.
struct RepeatRows<'a> {
    known: &'a Interactions,
    terms: &'a Terms,
    /// None where all pairs have the same.
    fitted: Option<RepeatLogOdds>,
    constant: f32,
    user_factors: ArrayView2<'a, f32>,
    item_factors: ArrayView2<'a, f32>,
}

struct RepeatRowsOf<'a> {
    rows: &'a RepeatRows<'a>,
    users: std::ops::Range<usize>,
}

impl WithSimd for RepeatRowsOf<'_> {
    type Output = Result<Rows>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        self.rows.of(self.users)
    }
}

impl RepeatRows<'_> {
    #[inline(always)] // becomes vector code where it is dispatched
    fn of(&self, users: std::ops::Range<usize>) -> Result<Rows> {
        let (mut rows, mut own_events) = (Rows::default(), self.terms.own_events());
        for user in users {
            let start = rows.values.len();
            own_events.visit(
                &self.known.history(user),
                #[inline(always)]
                |_| true,
                #[inline(always)]
                |items, own| {
                    rows.indices.extend_from_slice(items);
                    let log_odds = match &self.fitted {
                        Some(fitted) => {
                            let affinities = affinities(self.user_factors.row(user), self.item_factors, items);
                            fitted.of(&linear_terms(&new_terms(self.terms, user, items, affinities), own)).map(to_f32)
                        }
                        None => [self.constant; LANES],
                    };
                    rows.values.extend_from_slice(&log_odds[..items.len()]);
                },
            );
            if !rows.values[start..].iter().all(|log_odds| log_odds.is_finite()) {
                return Err(Error::NotFinite { what: "the log-odds of a pair", row: user, iteration: None });
            }
            rows.ends.push(rows.indices.len());
        }
        Ok(rows)
    }
}
