//! The observed pairs of one side, with the confidence and the penalty that they give.

use rayon::prelude::*;

use crate::csr::Csr;
use crate::elementary::ln;
use crate::error::{Error, Result};
use crate::lanes::sum_of_products;
use crate::recipe::ItemAffinity;

/// The rows to be solved for: their observed columns with the confidence of each.
pub(crate) struct Observed<'a> {
    pub(crate) pairs: &'a Csr,
    confidence: Vec<f32>,
    /// The sum of the confidence of each row.
    totals: Vec<f64>,
    /// Whose rows these are, for messages.
    pub(crate) side: &'static str,
}

impl<'a> Observed<'a> {
    /// # Errors
    /// [`Error::OutOfRange`] for a value below 0.
    pub(crate) fn new(pairs: &'a Csr, side: &'static str) -> Result<Self> {
        if let Some(value) = pairs.values().iter().find(|value| **value < 0.0) {
            return Err(Error::out_of_range("the weight of a pair", value, "[0, infinity)"));
        }
        #[allow(clippy::cast_possible_truncation)] // the nearest f32 is what is meant
        let confidence: Vec<f32> =
            pairs.values().par_iter().map(|weight| ln(1.0 + f64::from(*weight)) as f32).collect();
        let total = |bounds: &[usize]| sum_of_products([&confidence[bounds[0]..bounds[1]]]);
        let totals = pairs.indptr().par_windows(2).map(total).collect();
        Ok(Self { pairs, confidence, totals, side })
    }

    /// Whose factors the columns have, for messages.
    pub(crate) fn other_side(&self) -> &'static str {
        if self.side == "user" { "item" } else { "user" }
    }

    /// The columns of a row with their confidence.
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.pairs.indptr()[row]..self.pairs.indptr()[row + 1];
        (&self.pairs.indices()[range.clone()], &self.confidence[range])
    }

    /// The confidence of a row in all.
    pub(crate) fn total(&self, row: usize) -> f64 {
        self.totals[row]
    }

    /// The strength of the pull of a row's factors to zero: it grows with the evidence that it has to balance.
    pub(crate) fn penalty(&self, row: usize, recipe: &ItemAffinity) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let all = f64::from(recipe.unobserved_weight) * self.pairs.columns() as f64;
        f64::from(recipe.penalty_rate()) * (self.total(row) + all)
    }
}
