//! One half-step: the factors of all rows against the fixed factors of their columns.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::csr::Csr;
use crate::error::{Error, Result};
use crate::linalg::{Axes, System, gram};
use crate::queue::drain;
use crate::recipe::ItemAffinity;
use crate::rows::split_by;

/// Entries gathered at once: a panel of them stays in the second-level cache with the matrix it is added to.
const PANEL_ROWS: usize = 128;
/// A longer row is cut into pieces of this length, which are added up in their order.
const LONG_ROW: usize = 1 << 16;
/// Entries in one task, so that taking it costs nothing against doing it.
const TASK_ENTRIES: usize = 2048;
/// What a row costs beside its entries, in entries.
const ROW_COST: usize = 32;

/// The rows to be solved for: their observed columns with the confidence of each.
pub(crate) struct Observed<'a> {
    pub(crate) pairs: &'a Csr,
    confidence: Vec<f32>,
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
        let confidence = pairs.values().par_iter().map(|weight| weight.ln_1p()).collect();
        Ok(Self { pairs, confidence, side })
    }

    fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.pairs.indptr()[row]..self.pairs.indptr()[row + 1];
        (&self.pairs.indices()[range.clone()], &self.confidence[range])
    }

    /// The strength of the pull of a row's factors to zero: it grows with the evidence that it has to balance.
    pub(crate) fn penalty(&self, row: usize, recipe: &ItemAffinity) -> f64 {
        let observed: f64 = self.row(row).1.iter().map(|confidence| f64::from(*confidence)).sum();
        #[allow(clippy::cast_precision_loss)]
        let all = f64::from(recipe.unobserved_weight) * self.pairs.columns() as f64;
        f64::from(recipe.regularization) * (observed + all)
    }
}

/// The fixed side, expressed along the axes of its Gram matrix: there the part of the equations that all rows share
/// is a diagonal, which every row can invert at once.
pub(crate) struct Fixed {
    d: usize,
    axes: Axes,
    factors: Vec<f32>,
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
            return Err(Error::NotFinite { what: factor_of(side), row, iteration });
        };
        Ok(Self { d, factors: axes.enter(rows), axes })
    }

    /// Solves every row exactly.
    ///
    /// Row u minimizes `Σ_i c_ui (1 − x·y_i)² + w₀ Σ_all (x·y_i)² + λ_u |x|²`, so
    /// `(w₀ YᵀY + λ_u I + Σ_i c_ui y_i y_iᵀ) x = Σ_i c_ui y_i`.
    ///
    /// # Shapes
    /// observed: rows × columns; fixed: columns × d; out: rows × d, zeros for a row without observed columns
    /// # Errors
    /// [`Error::NotPositiveDefinite`] and [`Error::NotFinite`] for the first such row
    /// # Cost
    /// A row of n entries takes `n·d²/2 + d³/6` multiply-adds, or `n²·d/2 + n³/6` if that is less. Per thread: a panel,
    /// a matrix and a vector.
    /// # Source
    /// Hu, Koren, Volinsky 2008, eq. 4; the second form is the matrix inversion lemma.
    pub(crate) fn solve(
        &self,
        observed: &Observed<'_>,
        recipe: &ItemAffinity,
        iteration: Option<usize>,
    ) -> Result<Solved> {
        let d = self.d;
        let rows = observed.pairs.rows();
        let length = |row: usize| observed.pairs.indptr()[row + 1] - observed.pairs.indptr()[row];
        // Longest first, so that no long row is left over at the end.
        #[allow(clippy::cast_possible_truncation)] // a matrix has at most 2³² − 1 rows
        let mut order: Vec<u32> = (0..rows).filter(|row| length(*row) > 0).map(|row| row as u32).collect();
        order.par_sort_unstable_by_key(|row| (std::cmp::Reverse(length(*row as usize)), *row));

        let mut factors = vec![0f32; order.len() * d];
        let mut losses = vec![0f64; order.len()];
        let long = order.partition_point(|row| length(*row as usize) > LONG_ROW);
        let problem = |row: u32| Problem { fixed: self, observed, recipe, row: row as usize };
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
            while let Some((rows, factors, losses)) = queue.take() {
                for ((row, x), loss) in rows.into_iter().zip(factors.chunks_exact_mut(d)).zip(losses) {
                    match problem(row).solve(&mut workspace, x) {
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
        let loss = place.iter().filter_map(|at| losses.get(*at)).sum();
        let factors = self.axes.leave(rows, |row| {
            let at = place[row];
            (at != usize::MAX).then(|| &factors[at * d..(at + 1) * d])
        });
        let factors = Array2::from_shape_vec((rows, d), factors).map_err(|_| Error::Shape {
            name: "factors",
            expected: rows * d,
            actual: 0,
        })?;
        Ok(Solved { factors, loss })
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

/// What went wrong in a row.
enum Failure {
    NotPositiveDefinite,
    NotFinite,
}

impl Failure {
    fn error(self, side: &'static str, row: usize, iteration: Option<usize>) -> Error {
        match self {
            Self::NotPositiveDefinite => Error::NotPositiveDefinite { side, row, iteration },
            Self::NotFinite => Error::NotFinite { what: factor_of(side), row, iteration },
        }
    }
}

fn factor_of(side: &str) -> &'static str {
    if side == "item" { "an item factor" } else { "a user factor" }
}

/// What one thread needs.
struct Workspace {
    system: System,
    panel: Vec<f32>,
    /// The diagonal that all columns and the penalty give; its inverse roots in the short form.
    diagonal: Vec<f32>,
    right: Vec<f32>,
    sum: Vec<f64>,
}

impl Workspace {
    fn new(d: usize) -> Self {
        let largest = d.max(longest_short_row(d));
        Self {
            system: System::new(largest),
            panel: vec![0f32; PANEL_ROWS.max(largest) * d],
            diagonal: vec![0f32; d],
            right: vec![0f32; largest],
            sum: vec![0f64; d],
        }
    }
}

/// Rows up to this length are solved by their entries instead of by the hidden dimension (measured).
fn longest_short_row(d: usize) -> usize {
    d * 3 / 4
}

/// The equations of one row.
struct Problem<'a> {
    fixed: &'a Fixed,
    observed: &'a Observed<'a>,
    recipe: &'a ItemAffinity,
    row: usize,
}

impl Problem<'_> {
    /// Writes the solution along the axes, and returns the value of the row's objective there.
    fn solve(&self, workspace: &mut Workspace, x: &mut [f32]) -> std::result::Result<f64, Failure> {
        let (columns, confidence) = self.observed.row(self.row);
        let shared_definite = self.shared_diagonal(&mut workspace.diagonal);
        if shared_definite && columns.len() <= longest_short_row(self.fixed.d) {
            return self.solve_short(workspace, columns, confidence, x);
        }
        workspace.system.clear(self.fixed.d);
        workspace.sum.fill(0.0);
        self.accumulate(workspace, columns, confidence);
        self.finish(workspace, confidence, x)
    }

    /// The same for a row of any length, on all threads.
    fn solve_in_pieces(&self, x: &mut [f32]) -> std::result::Result<f64, Failure> {
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
            for ((column, c), scaled) in columns.iter().zip(confidence).zip(panel.chunks_exact_mut(d)) {
                let (y, root) = (self.factor(*column), c.sqrt());
                for ((scaled, y), right) in scaled.iter_mut().zip(y).zip(right.iter_mut()) {
                    *scaled = root * y;
                    *right += c * y;
                }
            }
            system.add_inner(&panel[..columns.len() * d]);
            sum.iter_mut().zip(right.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }

    fn finish(
        &self,
        workspace: &mut Workspace,
        confidence: &[f32],
        x: &mut [f32],
    ) -> std::result::Result<f64, Failure> {
        let Workspace { system, diagonal, sum, .. } = workspace;
        #[allow(clippy::cast_possible_truncation)]
        x.iter_mut().zip(sum.iter()).for_each(|(x, sum)| *x = *sum as f32);
        if !x.iter().all(|x| x.is_finite()) {
            return Err(Failure::NotFinite);
        }
        system.add_diagonal(diagonal.iter().copied());
        if !system.solve(x) {
            return Err(Failure::NotPositiveDefinite);
        }
        // At the minimum the quadratic x·Ax − 2 b·x + Σ c is Σ c − b·x.
        let fitted: f64 = x.iter().zip(sum.iter()).map(|(x, sum)| f64::from(*x) * sum).sum();
        let all: f64 = confidence.iter().map(|c| f64::from(*c)).sum();
        finite(x, all - fitted)
    }

    /// With V the observed factors scaled by √c and by the inverse roots of the shared diagonal D, the solution is
    /// `D^(−1/2) Vᵀ α`, where `(I + V Vᵀ) α = √c`: a system of as many equations as the row has entries.
    fn solve_short(
        &self,
        workspace: &mut Workspace,
        columns: &[u32],
        confidence: &[f32],
        x: &mut [f32],
    ) -> std::result::Result<f64, Failure> {
        let (d, n) = (self.fixed.d, columns.len());
        let Workspace { system, panel, diagonal, right, .. } = workspace;
        diagonal.iter_mut().for_each(|entry| *entry = 1.0 / entry.sqrt());
        let (panel, alpha) = (&mut panel[..n * d], &mut right[..n]);
        for (((column, c), scaled), alpha) in
            columns.iter().zip(confidence).zip(panel.chunks_exact_mut(d)).zip(&mut *alpha)
        {
            *alpha = c.sqrt();
            for ((scaled, y), inverse) in scaled.iter_mut().zip(self.factor(*column)).zip(diagonal.iter()) {
                *scaled = *alpha * y * inverse;
            }
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
        // The minimum Σ c − b·x is √c·α here, without a difference of large numbers.
        let loss = alpha.iter().zip(confidence).map(|(alpha, c)| f64::from(*alpha) * f64::from(*c).sqrt()).sum();
        finite(x, loss)
    }

    fn factor(&self, column: u32) -> &[f32] {
        let start = column as usize * self.fixed.d;
        &self.fixed.factors[start..start + self.fixed.d]
    }
}

fn finite(x: &[f32], loss: f64) -> std::result::Result<f64, Failure> {
    if loss.is_finite() && x.iter().all(|x| x.is_finite()) { Ok(loss) } else { Err(Failure::NotFinite) }
}
