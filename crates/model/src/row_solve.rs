//! The equations of one row, solved by elimination.

use rayon::prelude::*;

use crate::error::Error;
use crate::fixed::Fixed;
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
            Self::NotFinite => Error::factor_not_finite(side, row, iteration),
        }
    }
}

/// What one thread needs.
pub(crate) struct Workspace {
    system: System,
    panel: Vec<f32>,
    /// The diagonal that all columns and the penalty give.
    diagonal: Vec<f32>,
    right: Vec<f32>,
    sum: Vec<f64>,
}

impl Workspace {
    pub(crate) fn new(d: usize) -> Self {
        Self {
            system: System::new(d),
            panel: vec![0f32; PANEL_ROWS * d],
            diagonal: vec![0f32; d],
            right: vec![0f32; d],
            sum: vec![0f64; d],
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
        self.shared_diagonal(self.penalty(), &mut workspace.diagonal);
        workspace.system.clear(self.fixed.d);
        workspace.sum.fill(0.0);
        self.accumulate(workspace, columns, confidence);
        self.finish(workspace, x)
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
        self.shared_diagonal(self.penalty(), &mut whole.diagonal);
        self.finish(&mut whole, x)
    }

    /// λ of this row.
    pub(crate) fn penalty(&self) -> f64 {
        self.observed.penalty(self.row, self.recipe)
    }

    /// The diagonal `w₀ YᵀY + λ I` along the axes; whether all of it is above rounding noise.
    #[inline(always)] // becomes vector code in a descent
    pub(crate) fn shared_diagonal(&self, penalty: f64, diagonal: &mut [f32]) -> bool {
        let weight = f64::from(self.recipe.unobserved_weight);
        let strengths = &self.fixed.axes.strengths;
        for (entry, strength) in diagonal.iter_mut().zip(strengths) {
            #[allow(clippy::cast_possible_truncation)]
            let value = (weight * strength + penalty) as f32;
            *entry = value;
        }
        let [least, most] = [strengths.first(), strengths.last()]
            .map(|strength| weight * strength.copied().unwrap_or_default() + penalty);
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

    fn finish(&self, workspace: &mut Workspace, x: &mut [f32]) -> Result<f64, Failure> {
        let Workspace { system, diagonal, sum, .. } = workspace;
        let mut all = self.observed.total(self.row);
        if let Some(mean) = self.mean {
            let pull = self.penalty();
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

    /// Copies the factors of some columns into a panel, and hands each to `scale`.
    ///
    /// A plain copy of several rows lets the processor wait for all of them at once: most of them come from main memory.
    fn gather(&self, columns: &[u32], panel: &mut [f32], mut scale: impl FnMut(usize, &mut [f32])) {
        let d = self.fixed.d;
        for (block, (columns, panel)) in columns.chunks(GATHER_ROWS).zip(panel.chunks_mut(GATHER_ROWS * d)).enumerate()
        {
            for (column, row) in columns.iter().zip(panel.chunks_exact_mut(d)) {
                row.copy_from_slice(self.fixed.column(*column));
            }
            for (at, row) in panel.chunks_exact_mut(d).take(columns.len()).enumerate() {
                scale(block * GATHER_ROWS + at, row);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn finite(x: &[f32], loss: f64) -> Result<f64, Failure> {
    if loss.is_finite() && x.iter().all(|x| x.is_finite()) { Ok(loss) } else { Err(Failure::NotFinite) }
}
