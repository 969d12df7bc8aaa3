//! What attributes say about factors: ridge regression of the factors of all rows on their features.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::attributes::Attributes;
use crate::csr::Csr;
use crate::error::{Error, Result};
use crate::observed::Observed;
use crate::rows::{blocks, split_by};

/// The evidence, as a number of whole rows, that a feature needs to count half.
const RIDGE: f64 = 5.0;
/// Confidence at which a row's factors count half in the regression: with less, they are mostly the prior itself.
const HALF_EVIDENCE: f64 = 30.0;
/// Conjugate gradient steps, at most: each iteration of the fit goes on where the last one ended.
const STEPS: usize = 4;
/// The residual, as a share of the right side, at which a column is solved.
const TOLERANCE: f64 = 0.01;
/// Entries in one task.
const TASK_ENTRIES: usize = 4096;

/// The features of one side by both directions, with the weight of each row, through all iterations of a fit.
pub(crate) struct Regression<'a> {
    attributes: &'a Attributes,
    by_feature: Csr,
    /// How much each row counts: 0 without interactions or without features.
    evidence: Vec<f32>,
    /// The diagonal of the equations, which scales them.
    diagonal: Vec<f64>,
}

impl<'a> Regression<'a> {
    /// # Errors
    /// [`Error::Shape`] for attributes of other rows
    pub(crate) fn new(attributes: &'a Attributes, observed: &Observed<'_>) -> Result<Self> {
        let rows = observed.pairs.rows();
        if attributes.rows() != rows {
            let name = if observed.side == "item" { "item attributes" } else { "user attributes" };
            return Err(Error::Shape { name, expected: rows, actual: attributes.rows() });
        }
        #[allow(clippy::cast_possible_truncation)]
        let evidence: Vec<f32> = (0..rows)
            .map(|row| {
                let sum: f64 = observed.row(row).1.iter().map(|confidence| f64::from(*confidence)).sum();
                (sum / (sum + HALF_EVIDENCE)) as f32
            })
            .collect();
        let by_feature = attributes.matrix().transpose();
        let diagonal = (0..by_feature.rows())
            .map(|feature| {
                let (rows, values) = by_feature.row(feature);
                let entry = |(row, value): (&u32, &f32)| f64::from(evidence[*row as usize]) * f64::from(*value).powi(2);
                RIDGE + rows.iter().zip(values).map(entry).sum::<f64>()
            })
            .collect();
        Ok(Self { attributes, by_feature, evidence, diagonal })
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        self.attributes
    }

    /// Finds the weights W that minimize `Σ_rows e |y − Wᵀf|² + ridge |W|²`, so `(FᵀEF + ridge I) W = FᵀEY`.
    ///
    /// All columns of W are solved side by side by conjugate gradients, scaled by the diagonal, from `start`.
    ///
    /// # Shapes
    /// factors: rows × d; start and out: features × d
    /// # Units
    /// evidence e of a row: `c / (c + 30)` with c the sum of its confidences, in [0, 1)
    /// # Errors
    /// [`Error::NotFinite`] when the factors are too large
    /// # Cost
    /// A step takes 2·nnz·d multiply-adds, of at most 4; six matrices as large as W and one as large as the factors.
    /// The bits are the same for any number of threads.
    /// # Source
    /// Agarwal, Chen 2009, section 4.2; Hestenes, Stiefel, *Methods of conjugate gradients*, 1952
    pub(crate) fn solve(&self, factors: ArrayView2<'_, f32>, start: Option<Array2<f32>>) -> Result<Array2<f32>> {
        let (features, d) = (self.by_feature.rows(), factors.ncols());
        let factors = factors.as_standard_layout();
        let factors = factors.as_slice().unwrap_or_default();
        let weights = start.unwrap_or_else(|| Array2::zeros((features, d)));
        let mut weights = weights.into_raw_vec_and_offset().0;
        let right = self.gather(factors, d);
        let mut residual = right.clone();
        let mut expected = Vec::new();
        if weights.iter().any(|weight| *weight != 0.0) {
            let product = self.product(&weights, d, &mut expected);
            residual.iter_mut().zip(&product).for_each(|(residual, product)| *residual -= product);
        }
        let goal: Vec<f64> =
            self.inner(&right, &right, d).into_iter().map(|square| TOLERANCE * TOLERANCE * square).collect();
        let mut direction = vec![0f32; features * d];
        let mut last: Option<Vec<f64>> = None;
        for _ in 0..STEPS {
            let now = self.inner(&residual, &residual, d);
            if now.iter().zip(&goal).all(|(now, goal)| now <= goal) {
                break;
            }
            // A column that is solved stands still.
            let turn: Vec<f64> =
                now.iter().enumerate().map(|(k, now)| last.as_ref().map_or(0.0, |last| share(*now, last[k]))).collect();
            self.for_each_feature(&mut direction, d, |feature, direction| {
                let residual = &residual[feature * d..(feature + 1) * d];
                let scale = 1.0 / self.diagonal[feature];
                for ((direction, residual), turn) in direction.iter_mut().zip(residual).zip(&turn) {
                    *direction = single(f64::from(*residual) * scale + turn * f64::from(*direction));
                }
            });
            let product = self.product(&direction, d, &mut expected);
            let curvature = plain_inner(&direction, &product, d);
            let step: Vec<f64> = now.iter().zip(&curvature).map(|(now, curvature)| share(*now, *curvature)).collect();
            for (values, change, sign) in [(&mut weights, &direction, 1.0), (&mut residual, &product, -1.0)] {
                self.for_each_feature(values, d, |feature, values| {
                    let change = &change[feature * d..(feature + 1) * d];
                    for ((value, change), step) in values.iter_mut().zip(change).zip(&step) {
                        *value = single(f64::from(*value) + sign * step * f64::from(*change));
                    }
                });
            }
            last = Some(now);
        }
        if let Some(at) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite { what: "the weight of an attribute", row: at / d, iteration: None });
        }
        Array2::from_shape_vec((features, d), weights).map_err(|_| Error::Shape {
            name: "weights",
            expected: features * d,
            actual: 0,
        })
    }

    /// `FᵀE Y` of rows Y.
    fn gather(&self, rows: &[f32], d: usize) -> Vec<f32> {
        let features = self.by_feature.rows();
        let mut out = vec![0f32; features * d];
        let tasks = blocks(self.by_feature.indptr(), TASK_ENTRIES);
        let sizes: Vec<usize> = tasks.iter().map(|task| task.len() * d).collect();
        let add = |rows_of: &[u32], values: &[f32], out: &mut [f32]| {
            for (row, value) in rows_of.iter().zip(values) {
                let at = *row as usize;
                let factor = self.evidence[at] * value;
                out.iter_mut().zip(&rows[at * d..(at + 1) * d]).for_each(|(out, y)| *out += factor * y);
            }
        };
        split_by(&mut out, &sizes).into_par_iter().zip(tasks).for_each(|(out, task)| {
            for (out, feature) in out.chunks_exact_mut(d.max(1)).zip(task) {
                out.fill(0.0);
                let (rows_of, values) = self.by_feature.row(feature);
                if rows_of.len() <= TASK_ENTRIES {
                    add(rows_of, values, out);
                    continue;
                }
                // A feature of very many rows is added up in pieces, in their order.
                let pieces: Vec<Vec<f32>> = rows_of
                    .par_chunks(TASK_ENTRIES)
                    .zip(values.par_chunks(TASK_ENTRIES))
                    .map(|(rows_of, values)| {
                        let mut piece = vec![0f32; d];
                        add(rows_of, values, &mut piece);
                        piece
                    })
                    .collect();
                let mut sum = vec![0f64; d];
                for piece in &pieces {
                    sum.iter_mut().zip(piece).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                out.iter_mut().zip(&sum).for_each(|(out, sum)| *out = single(*sum));
            }
        });
        out
    }

    /// `(FᵀEF + ridge I) V`. What is in `expected`, which is as large as the factors, is of no account.
    fn product(&self, values: &[f32], d: usize, expected: &mut Vec<f32>) -> Vec<f32> {
        let matrix = self.attributes.matrix();
        expected.resize(matrix.rows() * d, 0.0);
        expected.par_chunks_mut(d.max(1)).enumerate().for_each(|(row, out)| {
            // New memory that is read before it is written costs twice, and stops the other threads each time.
            out.fill(0.0);
            if self.evidence[row] > 0.0 {
                let (features, of_row) = matrix.row(row);
                for (feature, value) in features.iter().zip(of_row) {
                    let start = *feature as usize * d;
                    out.iter_mut().zip(&values[start..start + d]).for_each(|(out, weight)| *out += value * weight);
                }
            }
        });
        let mut out = self.gather(expected, d);
        self.for_each_feature(&mut out, d, |feature, out| {
            for (out, value) in out.iter_mut().zip(&values[feature * d..(feature + 1) * d]) {
                *out += single(RIDGE) * value;
            }
        });
        out
    }

    fn for_each_feature(&self, values: &mut [f32], d: usize, change: impl Fn(usize, &mut [f32]) + Sync) {
        values.par_chunks_mut(d.max(1)).enumerate().for_each(|(feature, values)| change(feature, values));
    }

    /// The inner product of each column, scaled by the diagonal.
    fn inner(&self, left: &[f32], right: &[f32], d: usize) -> Vec<f64> {
        inner(left, right, d, |feature| 1.0 / self.diagonal[feature])
    }
}

fn plain_inner(left: &[f32], right: &[f32], d: usize) -> Vec<f64> {
    inner(left, right, d, |_| 1.0)
}

/// Sums of blocks of rows, added in the order of the blocks.
fn inner(left: &[f32], right: &[f32], d: usize, scale: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    const ROWS: usize = 512;
    let size = (ROWS * d).max(1);
    let partial: Vec<Vec<f64>> = left
        .par_chunks(size)
        .zip(right.par_chunks(size))
        .enumerate()
        .map(|(block, (left, right))| {
            let mut sum = vec![0f64; d];
            for (at, (left, right)) in left.chunks_exact(d.max(1)).zip(right.chunks_exact(d.max(1))).enumerate() {
                let scale = scale(block * ROWS + at);
                for ((sum, left), right) in sum.iter_mut().zip(left).zip(right) {
                    *sum += scale * f64::from(*left) * f64::from(*right);
                }
            }
            sum
        })
        .collect();
    let mut sum = vec![0f64; d];
    for piece in &partial {
        sum.iter_mut().zip(piece).for_each(|(sum, value)| *sum += value);
    }
    sum
}

/// A share of nothing is nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[allow(clippy::cast_possible_truncation)]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
#[path = "side_information_tests.rs"]
mod tests;
