//! The rows of a logistic regression.

use rayon::prelude::*;

use super::BLOCK_ROWS;

/// Rows with a label and a weight.
pub(crate) struct Sample {
    pub(super) features: usize,
    /// Row-major.
    rows: Vec<f64>,
    pub(super) labels: Vec<bool>,
    pub(super) weights: Vec<f64>,
    /// Whose row it is: rows of one user are held out together.
    users: Vec<u32>,
}

impl Sample {
    /// No rows yet, with memory for some.
    pub(crate) fn new(features: usize, rows: usize) -> Self {
        Self {
            features,
            rows: Vec::with_capacity(rows * features),
            labels: Vec::with_capacity(rows),
            weights: Vec::with_capacity(rows),
            users: Vec::with_capacity(rows),
        }
    }

    pub(crate) fn push(&mut self, features: &[f64], label: bool, weight: f64, user: u32) {
        debug_assert_eq!(features.len(), self.features);
        self.rows.extend_from_slice(features);
        self.labels.push(label);
        self.weights.push(weight);
        self.users.push(user);
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Gives all rows of one label the same weight.
    pub(crate) fn set_weight(&mut self, label: bool, weight: f64) {
        let labelled = self.weights.iter_mut().zip(&self.labels).filter(|(_, of)| **of == label);
        labelled.for_each(|(of, _)| *of = weight);
    }

    pub(crate) fn total_weight(&self, label: bool) -> f64 {
        self.weights.iter().zip(&self.labels).filter(|(_, of)| **of == label).map(|(weight, _)| weight).sum()
    }

    pub(super) fn row(&self, at: usize) -> &[f64] {
        &self.rows[at * self.features..(at + 1) * self.features]
    }

    /// The rows of the users that are kept.
    pub(super) fn of_users(&self, keep: impl Fn(u32) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.len()).filter(|at| keep(self.users[*at])).collect();
        self.select(kept.into_iter())
    }

    /// Every `step`-th row.
    pub(super) fn thinned(&self, step: usize) -> Self {
        self.select((0..self.len()).step_by(step))
    }

    fn select(&self, rows: impl ExactSizeIterator<Item = usize>) -> Self {
        let mut out = Self::new(self.features, rows.len());
        rows.for_each(|at| out.push(self.row(at), self.labels[at], self.weights[at], self.users[at]));
        out
    }

    /// Mean and standard deviation of each feature, over rows as sampled; the deviation is 0 for one that does not vary.
    pub(super) fn scales(&self) -> Vec<(f64, f64)> {
        #[allow(clippy::cast_precision_loss)]
        let n = self.len().max(1) as f64;
        let mean_of = |value: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
            let blocks: Vec<Vec<f64>> = (self.rows.par_chunks(BLOCK_ROWS * self.features.max(1)))
                .map(|rows| {
                    let mut sums = vec![0.0; self.features];
                    for row in rows.chunks_exact(self.features) {
                        sums.iter_mut().zip(row).enumerate().for_each(|(at, (sum, x))| *sum += value(at, *x));
                    }
                    sums
                })
                .collect();
            let total = |at: usize| blocks.iter().map(|sums| sums[at]).sum::<f64>() / n;
            (0..self.features).map(total).collect()
        };
        let means = mean_of(&|_, x| x);
        let variances = mean_of(&|at, x| (x - means[at]) * (x - means[at]));
        let scale = |(mean, variance): (&f64, &f64)| {
            let spread = variance.sqrt();
            // Rounding alone gives a constant column a spread.
            (*mean, if spread > 1e-9 * (1.0 + mean.abs()) { spread } else { 0.0 })
        };
        means.iter().zip(&variances).map(scale).collect()
    }

    pub(super) fn standardize(&mut self, scales: &[(f64, f64)]) {
        self.rows.par_chunks_mut(self.features.max(1)).for_each(|row| {
            for (x, (mean, spread)) in row.iter_mut().zip(scales) {
                *x = if *spread > 0.0 { (*x - mean) / spread } else { 0.0 };
            }
        });
    }
}
