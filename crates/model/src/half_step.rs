//! One half-step: the factors of all rows against the fixed factors of their columns.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::error::{Error, Result, same_length};
use crate::large_pages::Numbers;
use crate::linalg::{Axes, gram, padded};
use crate::observed::Observed;
use crate::queue::drain;
use crate::recipe::ItemAffinity;
use crate::row_descent::{Descent, EXACT, NEAR};
use crate::row_solve::{Failure, LONG_ROW, Problem, Workspace};
use crate::rows::split_by;

/// Entries in one task, so that taking it costs nothing against doing it.
const TASK_ENTRIES: usize = 2048;
/// What a row costs beside its entries, in entries.
const ROW_COST: usize = 32;

/// The fixed side, expressed along the axes of its Gram matrix: there the part of the equations that all rows share
/// is a diagonal, which every row can invert at once.
pub(crate) struct Fixed {
    pub(crate) d: usize,
    pub(crate) axes: Axes,
    /// Row-major, each row followed by zeros up to the length that the vector kernels take.
    factors: Numbers,
}

/// How far a half-step goes.
pub(crate) enum Method {
    /// To the solution, from nothing. Factors that nobody needs any more may be given for their memory.
    Exact(Option<Array2<f32>>),
    /// Near to it, from these factors or from nothing: enough for factors that are soon replaced.
    Near(Option<Array2<f32>>),
}

/// The factors of all rows, and the value of the objective's part that depends on them.
pub(crate) struct Solved {
    pub(crate) factors: Array2<f32>,
    pub(crate) loss: f64,
}

impl Fixed {
    /// # Errors
    /// [`Error::NotFinite`] for factors whose squares do not fit.
    pub(crate) fn new(factors: ArrayView2<'_, f32>, side: &'static str, iteration: Option<usize>) -> Result<Self> {
        let d = factors.ncols();
        let rows = factors.as_standard_layout();
        let rows = rows.as_slice().unwrap_or_default();
        let Some(axes) = Axes::new(&gram(rows, d), d) else {
            let row = rows.chunks_exact(d).position(|row| !row.iter().all(|x| (x * x).is_finite())).unwrap_or(0);
            return Err(Error::NotFinite { what: Failure::what(side), row, iteration });
        };
        let factors = axes.enter_scattered(factors.nrows(), padded(d), |row| Some(&rows[row * d..(row + 1) * d]));
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

    /// Copies the factors of some columns, with the zeros that follow them.
    ///
    /// A plain copy of several rows lets the processor wait for all of them at once: most of them come from main memory.
    pub(crate) fn copy_rows(&self, columns: &[u32], out: &mut [f32]) {
        let stride = padded(self.d);
        for (column, row) in columns.iter().zip(out.chunks_exact_mut(stride)) {
            let start = *column as usize * stride;
            row.copy_from_slice(&self.factors[start..start + stride]);
        }
    }

    /// Solves every row, or comes near to it.
    ///
    /// Row u minimizes `Σ_i c_ui (1 − x·y_i)² + w₀ Σ_all (x·y_i)² + λ_u |x|²`, so
    /// `(w₀ YᵀY + λ_u I + Σ_i c_ui y_i y_iᵀ) x = Σ_i c_ui y_i`. With a prior mean m the last
    /// term is `λ_u |x − m|²`, which adds `λ_u m` to the right side.
    ///
    /// # Shapes
    /// observed: rows × columns; fixed: columns × d; prior: rows × d; out: rows × d, the prior mean for a row without
    /// observed columns, or zeros
    /// # Errors
    /// [`Error::NotPositiveDefinite`] and [`Error::NotFinite`] for the first such row
    /// # Cost
    /// A row of n entries takes 2·n·d multiply-adds for each step of its descent, about two steps to come near and six to
    /// the solution. Rows that these do not bring there, and rows of more than 65,536 entries, take `n·d²/2 + d³/6`. Per
    /// thread: the factors of the longest row, a panel, a matrix and a few vectors.
    /// # Source
    /// Hu, Koren, Volinsky 2008, eq. 4
    pub(crate) fn solve(
        &self,
        observed: &Observed<'_>,
        recipe: &ItemAffinity,
        prior: Option<ArrayView2<'_, f32>>,
        method: Method,
        iteration: Option<usize>,
    ) -> Result<Solved> {
        let d = self.d;
        let rows = observed.pairs.rows();
        let means = prior.as_ref().map(|prior| self.along_axes(prior, observed.side)).transpose()?;
        let mean = |row: usize| {
            let mean = &means.as_ref()?[row * d..(row + 1) * d];
            mean.iter().any(|value| *value != 0.0).then_some(mean)
        };
        let length = |row: usize| observed.pairs.indptr()[row + 1] - observed.pairs.indptr()[row];
        // Longest first, so that no long row is left over at the end.
        #[allow(clippy::cast_possible_truncation)] // a matrix has at most 2³² − 1 rows
        let mut order: Vec<u32> = (0..rows).filter(|row| length(*row) > 0).map(|row| row as u32).collect();
        order.par_sort_unstable_by_key(|row| (std::cmp::Reverse(length(*row as usize)), *row));

        let (left, from_nothing, old) = match method {
            Method::Exact(spent) => (EXACT, true, spent),
            Method::Near(start) => (NEAR, start.is_none(), start),
        };
        let mut factors = match &old {
            Some(start) if !from_nothing => {
                same_length("factors to start from", rows, start.nrows())?;
                let start = start.as_standard_layout();
                let values = start.as_slice().unwrap_or_default();
                let row = |at: usize| Some(&values[order[at] as usize * d..(order[at] as usize + 1) * d]);
                self.axes.enter_each(order.len(), row)
            }
            _ => vec![0f32; order.len() * d],
        };
        let mut losses = vec![0f64; order.len()];
        let long = order.partition_point(|row| length(*row as usize) > LONG_ROW);
        let problem = |row: u32| Problem { fixed: self, observed, recipe, row: row as usize, mean: mean(row as usize) };
        let failed = |row: u32, failure: Failure| failure.error(observed.side, row as usize, iteration);

        for ((row, x), loss) in order[..long].iter().zip(factors.chunks_exact_mut(d)).zip(&mut losses) {
            *loss = problem(*row).solve_in_pieces(x).map_err(|failure| failed(*row, failure))?;
        }
        let sizes = task_sizes(order[long..].iter().map(|row| length(*row as usize)));
        let value_sizes: Vec<usize> = sizes.iter().map(|size| size * d).collect();
        let mut rest = order[long..].iter();
        let tasks: Vec<_> = split_by(&mut factors[long * d..], &value_sizes)
            .into_iter()
            .zip(split_by(&mut losses[long..], &sizes))
            .map(|(factors, losses)| (rest.by_ref().take(losses.len()).copied().collect::<Vec<u32>>(), factors, losses))
            .collect();
        // The first row that fails, whichever thread sees it.
        let failure = std::sync::Mutex::new(None::<(u32, Failure)>);
        drain(tasks, |queue| {
            let mut workspace = Workspace::new(d);
            let mut descent = Descent::new(d);
            while let Some((rows, factors, losses)) = queue.take() {
                if from_nothing {
                    // New memory, which is dear to read before it is written: see `side_information`.
                    factors.fill(0.0);
                }
                for ((row, x), loss) in rows.into_iter().zip(factors.chunks_exact_mut(d)).zip(losses) {
                    let problem = problem(row);
                    let solved = match problem.descend(&mut descent, x, left) {
                        Ok(Some(value)) => Ok(value),
                        Ok(None) => problem.solve(&mut workspace, x),
                        Err(failure) => Err(failure),
                    };
                    match solved {
                        Ok(value) => *loss = value,
                        Err(new) => {
                            let mut kept = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            if kept.as_ref().is_none_or(|(known, _)| row < *known) {
                                *kept = Some((row, new));
                            }
                        }
                    }
                }
            }
        });
        if let Some((row, failure)) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(failed(row, failure));
        }

        // Back to the order of the rows. Sums are taken in that order too.
        let mut place = vec![usize::MAX; rows];
        for (at, row) in order.iter().enumerate() {
            place[*row as usize] = at;
        }
        let mut loss = place.iter().filter_map(|at| losses.get(*at)).sum();
        let memory = old.map_or_else(Vec::new, |old| old.into_raw_vec_and_offset().0);
        let factors = self.axes.leave(rows, memory, |row| {
            let at = place[row];
            (at != usize::MAX).then(|| &factors[at * d..(at + 1) * d])
        });
        let mut factors = Array2::from_shape_vec((rows, d), factors).map_err(|_| Error::Shape {
            name: "factors",
            expected: rows * d,
            actual: 0,
        })?;
        if let Some(prior) = prior {
            for row in (0..rows).filter(|row| length(*row) == 0) {
                factors.row_mut(row).assign(&prior.row(row));
                loss += mean(row).map_or(0.0, |mean| self.unobserved(mean, recipe));
            }
        }
        Ok(Solved { factors, loss })
    }

    /// Prior means along the axes.
    fn along_axes(&self, prior: &ArrayView2<'_, f32>, side: &'static str) -> Result<Vec<f32>> {
        let prior = prior.as_standard_layout();
        let values = prior.as_slice().unwrap_or_default();
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let what = if side == "item" { "the prior mean of an item" } else { "the prior mean of a user" };
            return Err(Error::NotFinite { what, row: at / self.d.max(1), iteration: None });
        }
        Ok(self.axes.enter(values))
    }

    /// `w₀ Σ_all (x·y)²` of a row along the axes.
    fn unobserved(&self, x: &[f32], recipe: &ItemAffinity) -> f64 {
        let sum: f64 = x.iter().zip(&self.axes.strengths).map(|(x, strength)| strength * f64::from(*x).powi(2)).sum();
        f64::from(recipe.unobserved_weight) * sum
    }
}

/// How many rows, of these lengths, go into each task.
fn task_sizes(lengths: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut sizes = Vec::new();
    let (mut rows, mut entries) = (0, 0);
    for length in lengths {
        rows += 1;
        entries += length + ROW_COST;
        if entries >= TASK_ENTRIES {
            sizes.push(rows);
            (rows, entries) = (0, 0);
        }
    }
    if rows > 0 {
        sizes.push(rows);
    }
    sizes
}
