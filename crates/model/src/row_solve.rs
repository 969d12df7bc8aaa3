//! The equations of one row, solved exactly in the cheaper of two forms.

use rayon::prelude::*;

use crate::error::Error;
use crate::half_step::Fixed;
use crate::linalg::System;
use crate::observed::Observed;
use crate::recipe::ItemAffinity;

/// Entries gathered at once: a panel of them stays in the second-level cache with the matrix it is added to.
const PANEL_ROWS: usize = 128;
/// Rows copied before the first of them is worked on; they stay in the first-level cache.
const GATHER_ROWS: usize = 16;
/// A longer row is cut into pieces of this length, which are added up in their order.
pub(crate) const LONG_ROW: usize = 1 << 16;

/// What went wrong in a row.
pub(crate) enum Failure {
    NotPositiveDefinite,
    NotFinite,
}

impl Failure {
    pub(crate) fn error(self, side: &'static str, row: usize, iteration: Option<usize>) -> Error {
        match self {
            Self::NotPositiveDefinite => Error::NotPositiveDefinite { side, row, iteration },
            Self::NotFinite => Error::NotFinite { what: Self::what(side), row, iteration },
        }
    }

    pub(crate) fn what(side: &str) -> &'static str {
        if side == "item" { "an item factor" } else { "a user factor" }
    }
}

/// What one thread needs.
pub(crate) struct Workspace {
    system: System,
    panel: Vec<f32>,
    /// The diagonal that all columns and the penalty give; its inverse roots in the short form.
    diagonal: Vec<f32>,
    right: Vec<f32>,
    sum: Vec<f64>,
    /// The solution that the prior alone gives, where all observed pairs are left out.
    expected: Vec<f32>,
}

impl Workspace {
    pub(crate) fn new(d: usize) -> Self {
        Self {
            system: System::new(d),
            panel: vec![0f32; PANEL_ROWS.max(d) * d],
            diagonal: vec![0f32; d],
            right: vec![0f32; d],
            sum: vec![0f64; d],
            expected: vec![0f32; d],
        }
    }
}

/// The equations of one row.
pub(crate) struct Problem<'a> {
    pub(crate) fixed: &'a Fixed,
    pub(crate) observed: &'a Observed<'a>,
    pub(crate) recipe: &'a ItemAffinity,
    pub(crate) row: usize,
    /// Where the row's factors are drawn to, along the axes; zero if there is none.
    pub(crate) mean: Option<&'a [f32]>,
}

impl Problem<'_> {
    /// Writes the solution along the axes, and returns the value of the row's objective there.
    pub(crate) fn solve(&self, workspace: &mut Workspace, x: &mut [f32]) -> Result<f64, Failure> {
        let (columns, confidence) = self.observed.row(self.row);
        let shared_definite = self.shared_diagonal(&mut workspace.diagonal);
        if shared_definite && columns.len() < self.fixed.d {
            return self.solve_short(workspace, columns, confidence, x);
        }
        workspace.system.clear(self.fixed.d);
        workspace.sum.fill(0.0);
        self.accumulate(workspace, columns, confidence);
        self.finish(workspace, confidence, x)
    }

    /// The same for a row of any length, on all threads.
    pub(crate) fn solve_in_pieces(&self, x: &mut [f32]) -> Result<f64, Failure> {
        let (columns, confidence) = self.observed.row(self.row);
        let pieces: Vec<Workspace> = columns
            .par_chunks(LONG_ROW)
            .zip(confidence.par_chunks(LONG_ROW))
            .map(|(columns, confidence)| {
                let mut piece = Workspace::new(self.fixed.d);
                piece.system.clear(self.fixed.d);
                self.accumulate(&mut piece, columns, confidence);
                piece
            })
            .collect();
        let mut whole = Workspace::new(self.fixed.d);
        whole.system.clear(self.fixed.d);
        for piece in &pieces {
            whole.system.add(&piece.system);
            whole.sum.iter_mut().zip(&piece.sum).for_each(|(sum, value)| *sum += value);
        }
        self.shared_diagonal(&mut whole.diagonal);
        self.finish(&mut whole, confidence, x)
    }

    /// The diagonal `w₀ YᵀY + λ I` along the axes; whether all of it is above rounding noise.
    fn shared_diagonal(&self, diagonal: &mut [f32]) -> bool {
        let penalty = self.observed.penalty(self.row, self.recipe);
        let weight = f64::from(self.recipe.unobserved_weight);
        let (mut least, mut most) = (f64::INFINITY, 0f64);
        for (entry, strength) in diagonal.iter_mut().zip(&self.fixed.axes.strengths) {
            let value = weight * strength + penalty;
            (least, most) = (least.min(value), most.max(value));
            #[allow(clippy::cast_possible_truncation)]
            let value = value as f32;
            *entry = value;
        }
        least > f64::from(f32::EPSILON) * most && least > f64::from(f32::MIN_POSITIVE)
    }

    /// Adds `Σ c y yᵀ` to the system and `Σ c y` to the sum.
    fn accumulate(&self, workspace: &mut Workspace, columns: &[u32], confidence: &[f32]) {
        let d = self.fixed.d;
        let Workspace { system, panel, right, sum, .. } = workspace;
        let right = &mut right[..d];
        for (columns, confidence) in columns.chunks(PANEL_ROWS).zip(confidence.chunks(PANEL_ROWS)) {
            right.fill(0.0);
            self.gather(columns, panel, |at, y| {
                let (c, root) = (confidence[at], confidence[at].sqrt());
                for (y, right) in y.iter_mut().zip(right.iter_mut()) {
                    *right += c * *y;
                    *y *= root;
                }
            });
            system.add_inner(&panel[..columns.len() * d]);
            sum.iter_mut().zip(right.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }

    fn finish(&self, workspace: &mut Workspace, confidence: &[f32], x: &mut [f32]) -> Result<f64, Failure> {
        let Workspace { system, diagonal, sum, .. } = workspace;
        let mut all: f64 = confidence.iter().map(|c| f64::from(*c)).sum();
        if let Some(mean) = self.mean {
            let pull = self.observed.penalty(self.row, self.recipe);
            for (sum, mean) in sum.iter_mut().zip(mean) {
                let mean = f64::from(*mean);
                *sum += pull * mean;
                all += pull * mean * mean;
            }
        }
        #[allow(clippy::cast_possible_truncation)]
        x.iter_mut().zip(sum.iter()).for_each(|(x, sum)| *x = *sum as f32);
        if !x.iter().all(|x| x.is_finite()) {
            return Err(Failure::NotFinite);
        }
        system.add_diagonal(diagonal.iter().copied());
        if !system.solve(x) {
            return Err(Failure::NotPositiveDefinite);
        }
        // At the minimum the quadratic x·Ax − 2 b·x + Σ c + λ|m|² is Σ c + λ|m|² − b·x.
        let fitted: f64 = x.iter().zip(sum.iter()).map(|(x, sum)| f64::from(*x) * sum).sum();
        finite(x, all - fitted)
    }

    /// With V the observed factors scaled by √c and by the inverse roots of the shared diagonal D, the solution is
    /// `D^(−1/2) Vᵀ α`, where `(I + V Vᵀ) α = √c`: a system of as many equations as the row has entries.
    ///
    /// With a prior mean m the pairs have to explain only what is left of their targets at `p = λ D⁻¹ m`, the solution
    /// without pairs: the right side is `√c (1 − p·y)`, and the solution is p plus the above.
    fn solve_short(
        &self,
        workspace: &mut Workspace,
        columns: &[u32],
        confidence: &[f32],
        x: &mut [f32],
    ) -> Result<f64, Failure> {
        let (d, n) = (self.fixed.d, columns.len());
        let Workspace { system, panel, diagonal, right, sum, expected } = workspace;
        // Of the loss, the part that the prior and the unobserved pairs disagree about.
        let mut loss = 0.0;
        if let Some(mean) = self.mean {
            loss = self.expect(diagonal, mean, expected);
        }
        diagonal.iter_mut().for_each(|entry| *entry = 1.0 / entry.sqrt());
        let (panel, alpha) = (&mut panel[..n * d], &mut right[..n]);
        let (mean, expected) = (self.mean, &*expected);
        self.gather(columns, panel, |at, y| {
            let root = confidence[at].sqrt();
            alpha[at] = match mean {
                Some(_) => root * (1.0 - dot(expected, y)),
                None => root,
            };
            y.iter_mut().zip(diagonal.iter()).for_each(|(y, inverse)| *y *= root * inverse);
        });
        // At the minimum the loss is the right side times α, without a difference of large numbers.
        for ((kept, value), c) in sum.iter_mut().zip(alpha.iter()).zip(confidence) {
            *kept = if mean.is_some() { f64::from(*value) } else { f64::from(*c).sqrt() };
        }
        system.set_outer(panel, n);
        system.add_diagonal(std::iter::repeat_n(1.0, n));
        if !system.solve(alpha) {
            return Err(Failure::NotPositiveDefinite);
        }
        x.fill(0.0);
        for (scaled, alpha) in panel.chunks_exact(d).zip(alpha.iter()) {
            x.iter_mut().zip(scaled).for_each(|(x, scaled)| *x += alpha * scaled);
        }
        x.iter_mut().zip(diagonal.iter()).for_each(|(x, inverse)| *x *= inverse);
        if mean.is_some() {
            x.iter_mut().zip(expected).for_each(|(x, expected)| *x += expected);
        }
        loss += alpha.iter().zip(sum.iter()).map(|(alpha, known)| f64::from(*alpha) * known).sum::<f64>();
        finite(x, loss)
    }

    /// Writes `p = λ D⁻¹ m`, and returns `w₀ Σ_all (p·y)² + λ |p − m|²`, which is `Σ λ m² (D − λ) / D`.
    fn expect(&self, diagonal: &[f32], mean: &[f32], expected: &mut [f32]) -> f64 {
        let pull = self.observed.penalty(self.row, self.recipe);
        let mut loss = 0.0;
        for ((expected, mean), entry) in expected.iter_mut().zip(mean).zip(diagonal) {
            let (mean, entry) = (f64::from(*mean), f64::from(*entry));
            let value = pull * mean / entry;
            #[allow(clippy::cast_possible_truncation)]
            let single = value as f32;
            *expected = single;
            loss += value * mean * (entry - pull).max(0.0);
        }
        loss
    }

    /// Copies the factors of some columns into a panel, and hands each to `scale`.
    ///
    /// A plain copy of several rows lets the processor wait for all of them at once: most of them come from main memory.
    fn gather(&self, columns: &[u32], panel: &mut [f32], mut scale: impl FnMut(usize, &mut [f32])) {
        let d = self.fixed.d;
        for (block, (columns, panel)) in columns.chunks(GATHER_ROWS).zip(panel.chunks_mut(GATHER_ROWS * d)).enumerate()
        {
            for (column, row) in columns.iter().zip(panel.chunks_exact_mut(d)) {
                let start = *column as usize * d;
                row.copy_from_slice(&self.fixed.factors[start..start + d]);
            }
            for (at, row) in panel.chunks_exact_mut(d).take(columns.len()).enumerate() {
                scale(block * GATHER_ROWS + at, row);
            }
        }
    }
}

fn finite(x: &[f32], loss: f64) -> Result<f64, Failure> {
    if loss.is_finite() && x.iter().all(|x| x.is_finite()) { Ok(loss) } else { Err(Failure::NotFinite) }
}

/// Eight sums side by side, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + rest
}
