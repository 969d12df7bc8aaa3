//! The rows of a half-step, block by block: turned along the axes, solved, and turned back where they are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::fixed::Fixed;
use crate::linalg::TURN_ROWS;
use crate::observed::Observed;
use crate::queue::drain;
use crate::recipe::ItemAffinity;
use crate::row_descent::Descent;
use crate::row_solve::{Failure, LONG_ROW, Problem, Workspace};
use crate::rows::split_by;

/// Entries in one task, so that taking it costs nothing against doing it, and few panels are turned that are not full.
const TASK_ENTRIES: usize = 16_384;
/// What a row costs beside its entries, in entries.
const ROW_COST: usize = 32;

/// What rows begin at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Zeros, which the memory of the result holds too.
    Zeros,
    /// Zeros; the memory of the result holds anything.
    Memory,
    /// The factors in the memory of the result.
    Factors,
}

/// All that the rows of one half-step share.
pub(crate) struct HalfStep<'a> {
    pub(crate) fixed: &'a Fixed,
    pub(crate) observed: &'a Observed<'a>,
    pub(crate) recipe: &'a ItemAffinity,
    /// rows × d
    pub(crate) prior: Option<&'a [f32]>,
    pub(crate) start: Start,
    pub(crate) left: f64,
}

/// Some rows beside each other, at most [`TURN_ROWS`] of them.
struct Block<'a> {
    rows: Range<usize>,
    factors: &'a mut [f32],
    losses: &'a mut [f64],
}

/// What one thread needs.
struct Scratch {
    workspace: Workspace,
    descent: Descent,
    /// Full panels of [`TURN_ROWS`] rows: as rows are outside, along the axes, and the prior means along the axes.
    outside: Vec<f32>,
    along: Vec<f32>,
    means: Vec<f32>,
}

impl Scratch {
    fn new(d: usize) -> Self {
        let panel = || vec![0f32; TURN_ROWS * d];
        let (workspace, descent) = (Workspace::new(d), Descent::new(d));
        Self { workspace, descent, outside: panel(), along: panel(), means: panel() }
    }
}

impl HalfStep<'_> {
    fn length(&self, row: usize) -> usize {
        self.observed.pairs.indptr()[row + 1] - self.observed.pairs.indptr()[row]
    }

    /// Solves the rows that are too long for one thread, one after the other: their factors along the axes.
    fn long_rows(&self, losses: &mut [f64]) -> Result<BTreeMap<usize, Vec<f32>>, (usize, Failure)> {
        let d = self.fixed.d;
        let solved = (0..losses.len()).filter(|row| self.length(*row) > LONG_ROW).map(|row| {
            let mean = self.prior.map(|prior| self.fixed.axes.enter(&prior[row * d..(row + 1) * d]));
            let mut x = vec![0f32; d];
            let problem = self.problem(row, mean.as_deref());
            losses[row] = problem.solve_in_pieces(&mut x).map_err(|failure| (row, failure))?;
            Ok((row, x))
        });
        solved.collect()
    }

    /// Solves all rows: the factors, rows × d, and the value of the objective of each.
    ///
    /// # Errors
    /// the first row that fails, one of the long ones if any of these does
    pub(crate) fn solve(&self, factors: &mut [f32], losses: &mut [f64]) -> Result<(), (usize, Failure)> {
        let d = self.fixed.d;
        let long = self.long_rows(losses)?;
        // Long rows are only put into their places there.
        let left = |row: usize| if self.length(row) > LONG_ROW { 0 } else { self.length(row) };
        let sizes = block_sizes((0..losses.len()).map(left));
        let value_sizes: Vec<usize> = sizes.iter().map(|size| size * d).collect();
        let mut end = 0;
        let mut blocks: Vec<Block<'_>> = split_by(factors, &value_sizes)
            .into_iter()
            .zip(split_by(losses, &sizes))
            .map(|(factors, losses)| {
                end += losses.len();
                Block { rows: end - losses.len()..end, factors, losses }
            })
            .collect();
        // Largest first, so that no large one is left over at the end.
        let indptr = self.observed.pairs.indptr();
        blocks.sort_by_key(|block| std::cmp::Reverse(indptr[block.rows.end] - indptr[block.rows.start]));
        // The first row that fails, whichever thread sees it.
        let first = Mutex::new(None::<(usize, Failure)>);
        drain(blocks, |queue| {
            let mut scratch = Scratch::new(d);
            while let Some(block) = queue.take() {
                if let Err((row, failure)) = self.solve_block(&mut scratch, &long, block) {
                    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(known, _)| row < *known) {
                        *first = Some((row, failure));
                    }
                }
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn solve_block(
        &self,
        scratch: &mut Scratch,
        long: &BTreeMap<usize, Vec<f32>>,
        block: Block<'_>,
    ) -> Result<(), (usize, Failure)> {
        let (d, axes) = (self.fixed.d, &self.fixed.axes);
        let Scratch { workspace, descent, outside, along, means } = scratch;
        let Block { rows, factors, losses } = block;
        let count = rows.len() * d;
        let prior = self.prior.map(|prior| &prior[rows.start * d..rows.end * d]);
        if let Some(prior) = prior {
            outside[..count].copy_from_slice(prior);
            outside[count..].fill(0.0);
            axes.enter_panel(outside, means);
        }
        if self.start == Start::Factors {
            outside[..count].copy_from_slice(factors);
            outside[count..].fill(0.0);
            axes.enter_panel(outside, along);
        } else {
            along.fill(0.0);
        }
        for (((row, x), mean), loss) in
            rows.clone().zip(along.chunks_exact_mut(d)).zip(means.chunks_exact(d)).zip(losses)
        {
            let mean = (prior.is_some() && mean.iter().any(|value| *value != 0.0)).then_some(mean);
            let problem = self.problem(row, mean);
            if let Some(solved) = long.get(&row) {
                x.copy_from_slice(solved);
            } else if self.length(row) == 0 {
                *loss = mean.map_or(0.0, |mean| self.fixed.unobserved(mean, self.recipe));
            } else {
                let solved = match problem.descend(descent, x, self.left) {
                    Ok(Some(value)) => Ok(value),
                    Ok(None) => problem.solve(workspace, x),
                    Err(failure) => Err(failure),
                };
                *loss = solved.map_err(|failure| (row, failure))?;
            }
        }
        axes.leave_panel(along, outside);
        for (at, (row, out)) in rows.zip(factors.chunks_exact_mut(d)).enumerate() {
            let range = at * d..(at + 1) * d;
            match (self.length(row), prior) {
                (1.., _) => out.copy_from_slice(&outside[range]),
                (0, Some(prior)) => out.copy_from_slice(&prior[range]),
                // New memory is not touched for nothing.
                (0, None) if self.start == Start::Zeros => {}
                (0, None) => out.fill(0.0),
            }
        }
        Ok(())
    }

    fn problem<'a>(&'a self, row: usize, mean: Option<&'a [f32]>) -> Problem<'a> {
        Problem { fixed: self.fixed, observed: self.observed, recipe: self.recipe, row, mean }
    }
}

/// How many rows, of these lengths, go into each block.
fn block_sizes(lengths: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut sizes = Vec::new();
    let (mut rows, mut entries) = (0, 0);
    for length in lengths {
        rows += 1;
        entries += length + ROW_COST;
        if rows == TURN_ROWS || entries >= TASK_ENTRIES {
            sizes.push(rows);
            (rows, entries) = (0, 0);
        }
    }
    if rows > 0 {
        sizes.push(rows);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_full_panels_unless_their_rows_are_long() {
        assert_eq!(block_sizes(std::iter::repeat_n(0, 150)), [64, 64, 22]);
        assert_eq!(block_sizes([20_000, 10, 8_000, 8_400, 1].into_iter()), [1, 3, 1]);
        assert_eq!(block_sizes(std::iter::empty()), [0usize; 0]);
    }
}
