//! One half-step: the factors of all rows against the fixed factors of their columns.

use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result, same_length};
use crate::fixed::Fixed;
use crate::observed::Observed;
use crate::recipe::ItemAffinity;
use crate::row_blocks::{HalfStep, Start};
use crate::row_descent::{EXACT, NEAR};
use crate::row_solve::Failure;

/// How far a half-step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// To the solution, from nothing.
    Exact,
    /// Near to it, from the factors before it or from nothing: enough for factors that are soon replaced.
    Near,
}

/// The factors of all rows, and the value of the objective's part that depends on them.
pub(crate) struct Solved {
    pub(crate) factors: Array2<f32>,
    pub(crate) loss: f64,
}

impl Fixed {
    /// Solves every row, or comes near to it.
    ///
    /// The factors that are replaced give their memory: each block of rows is turned, solved and turned back where it is. On
    /// a virtual machine new memory costs about as much as turning.
    ///
    /// Row u minimizes `Σ_i c_ui (1 − x·y_i)² + w₀ Σ_all (x·y_i)² + λ_u |x|²`, so
    /// `(w₀ YᵀY + λ_u I + Σ_i c_ui y_i y_iᵀ) x = Σ_i c_ui y_i`. With a prior mean m the last
    /// term is `λ_u |x − m|²`, which adds `λ_u m` to the right side.
    ///
    /// # Shapes
    /// observed: rows × columns; fixed: columns × d; prior, replaced, out: rows × d; out: the prior mean for a row without
    /// observed columns, or zeros
    /// # Errors
    /// [`Error::NotPositiveDefinite`] and [`Error::NotFinite`] for the first such row
    /// # Cost
    /// A row of n entries takes 2·n·d multiply-adds for each step of its descent, about two steps to come near and six to
    /// the solution. Rows that these do not bring there, and rows of more than 65,536 entries, take `n·d²/2 + d³/6`. Per
    /// thread: a few panels, a matrix and a few vectors.
    /// # Source
    /// Hu, Koren, Volinsky 2008, eq. 4
    pub(crate) fn solve(
        &self,
        observed: &Observed<'_>,
        recipe: &ItemAffinity,
        prior: Option<ArrayView2<'_, f32>>,
        method: Method,
        replaced: Option<Array2<f32>>,
        iteration: Option<usize>,
    ) -> Result<Solved> {
        let (d, rows) = (self.d, observed.pairs.rows());
        let prior = prior.as_ref().map(|prior| prior.as_standard_layout());
        let prior = prior.as_ref().and_then(|prior| prior.as_slice());
        if let Some(prior) = prior {
            self.check_prior(prior, observed.side)?;
        }
        let mut start = Start::Zeros;
        let mut factors = match replaced {
            Some(replaced) => {
                same_length("factors that are replaced", rows, replaced.nrows())?;
                same_length("a factor that is replaced", d, replaced.ncols())?;
                start = if method == Method::Near { Start::Factors } else { Start::Memory };
                if replaced.is_standard_layout() { replaced } else { replaced.as_standard_layout().into_owned() }
            }
            None => Array2::zeros((rows, d)),
        };
        let mut losses = vec![0f64; rows];
        let failed = |(row, failure): (usize, Failure)| failure.error(observed.side, row, iteration);
        let step = HalfStep { fixed: self, observed, recipe, prior, start, left: method.left() };
        step.solve(factors.as_slice_mut().unwrap_or_default(), &mut losses).map_err(failed)?;
        Ok(Solved { factors, loss: losses.iter().sum() })
    }

    /// # Errors
    /// [`Error::NotFinite`] for the first such row
    fn check_prior(&self, prior: &[f32], side: &'static str) -> Result<()> {
        let Some(at) = prior.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let what = if side == "item" { "the prior mean of an item" } else { "the prior mean of a user" };
        Err(Error::NotFinite { what, row: at / self.d.max(1), iteration: None })
    }
}

impl Method {
    /// Which share of the way may be left.
    fn left(self) -> f64 {
        if self == Self::Exact { EXACT } else { NEAR }
    }
}
