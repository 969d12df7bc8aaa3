//! The side that a half-step holds fixed.

use ndarray::ArrayView2;

use crate::error::{Error, Result};
use crate::large_pages::Numbers;
use crate::linalg::{Axes, gram, padded};
use crate::recipe::ItemAffinity;

/// The fixed side, expressed along the axes of its Gram matrix: there the part of the equations that all rows share
/// is a diagonal, which every row can invert at once.
pub(crate) struct Fixed {
    pub(crate) d: usize,
    pub(crate) axes: Axes,
    /// Row-major, each row followed by zeros up to the length that the vector kernels take.
    factors: Numbers<f32>,
}

impl Fixed {
    /// # Errors
    /// [`Error::NotFinite`] for factors whose squares do not fit.
    pub(crate) fn new(factors: ArrayView2<'_, f32>, side: &'static str, iteration: Option<usize>) -> Result<Self> {
        Self::in_place_of(None, factors, side, iteration)
    }

    /// The same in the memory of an earlier one, if that had as many factors.
    pub(crate) fn in_place_of(
        earlier: Option<Self>,
        factors: ArrayView2<'_, f32>,
        side: &'static str,
        iteration: Option<usize>,
    ) -> Result<Self> {
        let d = factors.ncols();
        let rows = factors.as_standard_layout();
        let rows = rows.as_slice().unwrap_or_default();
        let Some(axes) = Axes::new(&gram(rows, d), d) else {
            let row = rows.chunks_exact(d).position(|row| !row.iter().all(|x| (x * x).is_finite())).unwrap_or(0);
            return Err(Error::factor_not_finite(side, row, iteration));
        };
        let count = factors.nrows() * padded(d);
        // What follows the rows are zeros there too.
        let memory = earlier.filter(|earlier| earlier.d == d && earlier.factors.len() == count);
        let mut factors = memory.map_or_else(|| Numbers::zeroed(count), |earlier| earlier.factors);
        axes.enter_scattered(rows, padded(d), &mut factors);
        Ok(Self { d, factors, axes })
    }

    /// How many factors there are.
    pub(crate) fn columns(&self) -> usize {
        self.factors.len() / padded(self.d)
    }

    /// The factors of a column along the axes.
    pub(crate) fn column(&self, column: u32) -> &[f32] {
        let start = column as usize * padded(self.d);
        &self.factors[start..start + self.d]
    }

    /// The factors of all columns, each row of them [`padded`] with zeros.
    pub(crate) fn padded_rows(&self) -> &[f32] {
        &self.factors
    }

    /// `w₀ Σ_all (x·y)²` of a row along the axes.
    pub(crate) fn unobserved(&self, x: &[f32], recipe: &ItemAffinity) -> f64 {
        let sum: f64 = x.iter().zip(&self.axes.strengths).map(|(x, strength)| strength * f64::from(*x).powi(2)).sum();
        f64::from(recipe.unobserved_weight) * sum
    }
}
