//! The equations of one row, brought nearer to their solution by conjugate gradients.

use pulp::{Arch, Simd, WithSimd};

use crate::lanes::sum_of_products;
use crate::linalg::padded;
use crate::row_solve::{Failure, Problem, finite};
use crate::simd::add_residuals;

/// What may be left of the way to the solution: only rounding.
pub(crate) const EXACT: f64 = 1e-6;
/// The same for factors that the next iteration replaces.
pub(crate) const NEAR: f64 = 3e-2;
/// After so many steps the equations are too awkward for them.
const MOST_STEPS: usize = 32;
/// What one thread needs.
pub(crate) struct Descent {
    x: Vec<f32>,
    residual: Vec<f32>,
    direction: Vec<f32>,
    product: Vec<f32>,
    diagonal: Vec<f32>,
    scale: Vec<f32>,
}

impl Descent {
    pub(crate) fn new(d: usize) -> Self {
        let zeros = || vec![0f32; padded(d)];
        Self { x: zeros(), residual: zeros(), direction: zeros(), product: zeros(), diagonal: zeros(), scale: zeros() }
    }
}

struct Descend<'a> {
    problem: &'a Problem<'a>,
    work: &'a mut Descent,
    x: &'a mut [f32],
    left: f64,
}

impl WithSimd for Descend<'_> {
    type Output = Result<Option<f64>, Failure>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        self.problem.descend_in_lanes(self.work, self.x, self.left)
    }
}

impl Problem<'_> {
    /// Moves `x`, along the axes, towards the solution until this share of the way is left, and returns the value of the
    /// row's objective there; nothing if it takes too many steps, or the shared part alone is singular.
    ///
    /// The objective falls with each step. The shared part of the equations, which is diagonal along the axes, and the
    /// share of the observed pairs that has the same shape scale the steps.
    ///
    /// # Cost
    /// 2·n·d multiply-adds for each step and once before, for a row of n entries
    /// # Source
    /// Hestenes, Stiefel 1952; for these equations: Takács, Pilászy, Tikk 2011
    pub(crate) fn descend(&self, work: &mut Descent, x: &mut [f32], left: f64) -> Result<Option<f64>, Failure> {
        Arch::new().dispatch(Descend { problem: self, work, x, left })
    }

    #[inline(always)] // becomes vector code where it is dispatched
    fn descend_in_lanes(&self, work: &mut Descent, x: &mut [f32], left: f64) -> Result<Option<f64>, Failure> {
        let (columns, confidence) = self.observed.row(self.row);
        let d = self.fixed.d;
        let penalty = self.penalty();
        if !self.shared_diagonal(penalty, &mut work.diagonal) {
            return Ok(None);
        }
        self.set_scale(penalty, &mut work.scale);
        work.x[..d].copy_from_slice(x);
        let mut loss = self.first_residual(work, columns, confidence);
        if let Some(mean) = self.mean {
            for ((residual, x), mean) in work.residual.iter_mut().zip(&work.x).zip(mean) {
                *residual += narrow(penalty) * mean;
                // The diagonal holds the λ x² of λ (x − m)².
                loss += penalty * f64::from(*mean) * (f64::from(*mean) - 2.0 * f64::from(*x));
            }
        }
        let Descent { x: at, residual, direction, product, diagonal, scale } = work;
        let rows = self.fixed.padded_rows();
        let (mut gain, mut enough) = (0.0, 0.0);
        for step in 0.. {
            // With a matrix M that is near that of the equations, M⁻¹r is about the way to the solution, and r·M⁻¹r the
            // square of its length as M measures it.
            let scaled = sum_of_products([residual, residual, scale]);
            if step == 0 {
                enough = left * left * scaled;
            }
            if scaled <= enough {
                break;
            }
            if step == MOST_STEPS {
                return Ok(None);
            }
            let back = narrow(if step == 0 { 0.0 } else { scaled / gain });
            gain = scaled;
            for ((direction, residual), scale) in direction.iter_mut().zip(residual.iter()).zip(scale.iter()) {
                *direction = residual * scale + if step == 0 { 0.0 } else { back * *direction };
            }
            // The product with the matrix, with the sign of the residual.
            for ((product, direction), entry) in product.iter_mut().zip(direction.iter()).zip(diagonal.iter()) {
                *product = -entry * direction;
            }
            add_residuals(rows, columns, confidence, 0.0, direction, product);
            let curvature = -sum_of_products([direction, product]);
            if curvature.is_nan() || curvature <= 0.0 {
                return Ok(None);
            }
            let distance = scaled / curvature;
            loss -= distance * scaled;
            let distance = narrow(distance);
            for ((at, direction), (residual, product)) in
                at.iter_mut().zip(direction.iter()).zip(residual.iter_mut().zip(product.iter()))
            {
                *at += distance * direction;
                *residual += distance * product;
            }
        }
        x.copy_from_slice(&at[..d]);
        finite(x, loss).map(Some)
    }

    /// What scales the steps.
    #[inline(always)]
    fn set_scale(&self, penalty: f64, scale: &mut [f32]) {
        let weight = f64::from(self.recipe.unobserved_weight);
        #[allow(clippy::cast_precision_loss)]
        let mean = self.observed.total(self.row) / self.fixed.columns() as f64;
        for (scale, strength) in scale.iter_mut().zip(&self.fixed.axes.strengths) {
            *scale = narrow(1.0 / ((weight + mean) * strength + penalty));
        }
    }

    /// Sets the residual at `x`, and returns the objective there, both as without a prior mean.
    #[inline(always)]
    fn first_residual(&self, work: &mut Descent, columns: &[u32], confidence: &[f32]) -> f64 {
        for ((residual, x), entry) in work.residual.iter_mut().zip(&work.x).zip(&work.diagonal) {
            *residual = -entry * x;
        }
        let loss = sum_of_products([&work.diagonal, &work.x, &work.x]);
        let Descent { x, residual, .. } = work;
        loss + add_residuals(self.fixed.padded_rows(), columns, confidence, 1.0, x, residual)
    }
}

#[allow(clippy::cast_possible_truncation)]
#[inline(always)]
fn narrow(value: f64) -> f32 {
    value as f32
}
