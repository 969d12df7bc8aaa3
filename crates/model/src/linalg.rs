//! Dense linear algebra on slices. The only file that names faer, always with `Par::Seq`: who runs in parallel is
//! decided by the rows of the data, so that results do not depend on the number of threads.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::simd::LONGEST_VECTOR;

/// Rows in one partial sum of a Gram matrix.
const GRAM_ROWS: usize = 2048;
/// Rows that are turned at once; panels are always full, since the bits of a product may depend on its shape.
pub(crate) const TURN_ROWS: usize = 64;
/// A pivot below this share of its diagonal entry is rounding noise.
const PIVOT_NOISE: f32 = 8.0 * f32::EPSILON;
/// The smallest tile that faer's packed kernel takes at any allowed hidden dimension: its other kernels, for vectors
/// and tiny matrices, add in another order.
const LEAST_TILE: (usize, usize) = (8, 32);

/// `YᵀY` of row-major rows, d × d, the same bits for any number of threads.
///
/// # Cost
/// rows·d² / 2 multiply-adds in f32; the partial sums of blocks of rows are added in f64 in the order of the blocks
pub(crate) fn gram(rows: &[f32], d: usize) -> Vec<f64> {
    let partial: Vec<Vec<f32>> = rows
        .par_chunks(GRAM_ROWS * d)
        .map(|block| {
            let mut sum = vec![0f32; d * d];
            let block = MatRef::from_row_major_slice(block, block.len() / d, d);
            lower_product(MatMut::from_column_major_slice_mut(&mut sum, d, d), Accum::Replace, block.transpose());
            sum
        })
        .collect();
    let mut out = vec![0f64; d * d];
    for sum in partial {
        for column in 0..d {
            for row in column..d {
                out[column * d + row] += f64::from(sum[column * d + row]);
            }
        }
    }
    for column in 0..d {
        for row in column + 1..d {
            out[row * d + column] = out[column * d + row];
        }
    }
    out
}

/// Adds the lower triangle of `PᵀP` of a row-major panel to a column-major d × d matrix, in f64 on the calling thread.
pub(crate) fn add_inner_f64(panel: &[f64], d: usize, out: &mut [f64]) {
    let panel = MatRef::from_row_major_slice(panel, panel.len() / d, d);
    let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    let out = MatMut::from_column_major_slice_mut(out, d, d);
    triangular::matmul(out, lower, Accum::Add, panel.transpose(), full, panel, full, 1f64, Par::Seq);
}

/// Replaces the right side by the solution of a symmetric system whose lower triangle is given by columns; false if
/// the matrix is not positive definite. The matrix is overwritten.
pub(crate) fn solve_f64(matrix: &mut [f64], right: &mut [f64]) -> bool {
    let definite = factor_f64(matrix, right.len(), 0.0);
    if definite {
        solve_factored_f64(matrix, right.len(), right);
    }
    definite
}

/// Replaces a symmetric matrix, whose lower triangle is given by columns, by its Cholesky factor; false if it is not
/// positive definite, or a pivot is at most this share of its diagonal entry.
pub(crate) fn factor_f64(matrix: &mut [f64], d: usize, noise: f64) -> bool {
    let diagonal: Vec<f64> = matrix.iter().step_by(d + 1).copied().collect();
    let scratch = llt::factor::cholesky_in_place_scratch::<f64>(d, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let lower = MatMut::from_column_major_slice_mut(matrix, d, d);
    let stack = MemStack::new(&mut memory);
    if llt::factor::cholesky_in_place(lower, Default::default(), Par::Seq, stack, Default::default()).is_err() {
        return false;
    }
    matrix.iter().step_by(d + 1).zip(diagonal).all(|(root, entry)| root * root > noise * entry)
}

/// Replaces right sides, one after the other, by the solutions of a system that [`factor_f64`] has factored.
pub(crate) fn solve_factored_f64(factored: &[f64], d: usize, right: &mut [f64]) {
    let columns = right.len() / d;
    llt::solve::solve_in_place::<f64, f64>(
        MatRef::from_column_major_slice(factored, d, d),
        MatMut::from_column_major_slice_mut(right, d, columns),
        Par::Seq,
        MemStack::new(&mut []),
    );
}

/// The axes of a set of vectors in which their Gram matrix is diagonal.
pub(crate) struct Axes {
    d: usize,
    /// Row-major d × d; column k is axis k.
    directions: Vec<f32>,
    /// The Gram matrix along each axis, at least 0, ascending.
    pub(crate) strengths: Vec<f64>,
}

impl Axes {
    /// The axes of a Gram matrix, none if it is not finite.
    pub(crate) fn new(gram: &[f64], d: usize) -> Option<Self> {
        if gram.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let scratch = self_adjoint_evd_scratch::<f64>(d, ComputeEigenvectors::Yes, Par::Seq, Default::default());
        let mut memory = MemBuffer::new(scratch);
        let mut strengths = vec![0f64; d];
        let mut vectors = vec![0f64; d * d];
        self_adjoint_evd(
            MatRef::from_column_major_slice(gram, d, d),
            DiagMut::from_slice_mut(&mut strengths),
            Some(MatMut::from_column_major_slice_mut(&mut vectors, d, d)),
            Par::Seq,
            MemStack::new(&mut memory),
            Default::default(),
        )
        .ok()?;
        // Rounding may leave an absent direction a hair below zero.
        strengths.iter_mut().for_each(|strength| *strength = strength.max(0.0));
        #[allow(clippy::cast_possible_truncation)]
        let directions = (0..d * d).map(|at| vectors[(at % d) * d + at / d] as f32).collect();
        Some(Self { d, directions, strengths })
    }

    /// Row-major rows, expressed along the axes.
    pub(crate) fn enter(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; rows.len()];
        self.enter_scattered(rows, self.d, &mut out);
        out
    }

    /// The same to rows that are `stride` apart; what is between them stays.
    pub(crate) fn enter_scattered(&self, rows: &[f32], stride: usize, out: &mut [f32]) {
        let d = self.d;
        out.par_chunks_mut(TURN_ROWS * stride).zip(rows.par_chunks(TURN_ROWS * d)).for_each_init(
            || (vec![0f32; TURN_ROWS * d], vec![0f32; TURN_ROWS * d]),
            |(panel, product), (out, rows)| {
                panel[..rows.len()].copy_from_slice(rows);
                panel[rows.len()..].fill(0.0);
                self.enter_panel(panel, product);
                for (out, product) in out.chunks_exact_mut(stride).zip(product.chunks_exact(d)) {
                    out[..d].copy_from_slice(product);
                }
            },
        );
    }

    /// A panel of [`TURN_ROWS`] rows, expressed along the axes.
    pub(crate) fn enter_panel(&self, panel: &[f32], out: &mut [f32]) {
        self.turn(panel, MatRef::from_row_major_slice(&self.directions, self.d, self.d), out);
    }

    /// A panel of [`TURN_ROWS`] rows along the axes, expressed as before.
    pub(crate) fn leave_panel(&self, panel: &[f32], out: &mut [f32]) {
        self.turn(panel, MatRef::from_row_major_slice(&self.directions, self.d, self.d).transpose(), out);
    }

    fn turn(&self, panel: &[f32], directions: MatRef<'_, f32>, out: &mut [f32]) {
        let out = MatMut::from_row_major_slice_mut(out, TURN_ROWS, self.d);
        let panel = MatRef::from_row_major_slice(panel, TURN_ROWS, self.d);
        matmul(out, Accum::Replace, panel, directions, 1f32, Par::Seq);
    }
}

/// A symmetric system of up to `largest` equations, solved in place again and again without allocation.
pub(crate) struct System {
    /// The lower triangle, by columns `stride` apart.
    matrix: Vec<f32>,
    diagonal: Vec<f32>,
    order: usize,
    stride: usize,
    memory: MemBuffer,
}

impl System {
    pub(crate) fn new(largest: usize) -> Self {
        let scratch = llt::factor::cholesky_in_place_scratch::<f32>(largest, Par::Seq, Default::default());
        Self {
            matrix: vec![0f32; largest * stride(largest)],
            diagonal: vec![0f32; largest],
            order: 0,
            stride: 0,
            memory: MemBuffer::new(scratch),
        }
    }

    /// Starts with the zero matrix of this order.
    pub(crate) fn clear(&mut self, order: usize) {
        self.order = order;
        self.stride = stride(order);
        self.matrix[..order * self.stride].fill(0.0);
    }

    /// Adds `PᵀP` of a row-major panel whose rows are as long as the system.
    pub(crate) fn add_inner(&mut self, panel: &[f32]) {
        let panel = MatRef::from_row_major_slice(panel, panel.len() / self.order, self.order);
        lower_product(self.lower(), Accum::Add, panel.transpose());
    }

    /// Adds the matrix of a system of the same order.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, value) in self.matrix.iter_mut().zip(&other.matrix) {
            *sum += value;
        }
    }

    /// Adds to the diagonal.
    pub(crate) fn add_diagonal(&mut self, values: impl Iterator<Item = f32>) {
        for (entry, value) in self.matrix.iter_mut().step_by(self.stride + 1).zip(values) {
            *entry += value;
        }
    }

    /// Replaces the right side by the solution; false if the matrix is not positive definite.
    pub(crate) fn solve(&mut self, right: &mut [f32]) -> bool {
        let Self { matrix, diagonal, order, stride, memory } = self;
        let (order, stride) = (*order, *stride);
        let entries = || (0..order).map(|at| at * (stride + 1));
        for (kept, at) in diagonal.iter_mut().zip(entries()) {
            *kept = matrix[at];
        }
        let lower = MatMut::from_column_major_slice_with_stride_mut(matrix, order, order, stride);
        let stack = MemStack::new(memory);
        if llt::factor::cholesky_in_place(lower, Default::default(), Par::Seq, stack, Default::default()).is_err() {
            return false;
        }
        if entries().zip(diagonal.iter()).any(|(at, kept)| matrix[at] * matrix[at] <= PIVOT_NOISE * kept) {
            return false;
        }
        llt::solve::solve_in_place::<f32, f32>(
            MatRef::from_column_major_slice_with_stride(matrix, order, order, stride),
            MatMut::from_column_major_slice_mut(right, order, 1),
            Par::Seq,
            MemStack::new(&mut []),
        );
        true
    }

    fn lower(&mut self) -> MatMut<'_, f32> {
        MatMut::from_column_major_slice_with_stride_mut(&mut self.matrix, self.order, self.order, self.stride)
    }
}

/// How far apart rows of this length are kept for the vector kernels.
pub(crate) fn padded(d: usize) -> usize {
    d.next_multiple_of(LONGEST_VECTOR)
}

/// Columns this far apart do not fall into the same cache set.
fn stride(order: usize) -> usize {
    let whole = order.next_multiple_of(8);
    if whole.is_multiple_of(32) { whole + 8 } else { whole }
}

/// The lower triangle of `out (+)= left · leftᵀ`.
fn lower_product(out: MatMut<'_, f32>, accum: Accum, left: MatRef<'_, f32>) {
    let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    triangular::matmul(out, lower, accum, left, full, left.transpose(), full, 1f32, Par::Seq);
}

/// `left · rightᵀ` of row-major matrices with rows of length d, row-major into `out`; each entry has the same bits
/// whatever else is in the product.
pub(crate) fn product_of_rows(left: &[f32], right: &[f32], d: usize, out: &mut [f32]) {
    let (m, n) = (left.len() / d, right.len() / d);
    if m >= LEAST_TILE.0 && n >= LEAST_TILE.1 {
        let (left, right) = (MatRef::from_row_major_slice(left, m, d), MatRef::from_row_major_slice(right, n, d));
        let out = MatMut::from_row_major_slice_mut(out, m, n);
        return matmul(out, Accum::Replace, left, right.transpose(), 1f32, Par::Seq);
    }
    let (padded_m, padded_n) = (m.max(LEAST_TILE.0), n.max(LEAST_TILE.1));
    let left = [left, &vec![0f32; (padded_m - m) * d]].concat();
    let right = [right, &vec![0f32; (padded_n - n) * d]].concat();
    let mut padded = vec![0f32; padded_m * padded_n];
    product_of_rows(&left, &right, d, &mut padded);
    for (row, values) in out.chunks_exact_mut(n).zip(padded.chunks_exact(padded_n)) {
        row.copy_from_slice(&values[..n]);
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|n| ((n * 7919 % 1009) as f32 / 1009.0) - 0.5).collect()
    }

    #[test]
    fn gram_of_two_rows_by_hand() {
        // (1 2)ᵀ(1 2) + (3 4)ᵀ(3 4)
        assert_eq!(gram(&[1., 2., 3., 4.], 2), [10., 14., 14., 20.]);
        assert_eq!(gram(&[], 2), [0.; 4]);
    }

    #[test]
    fn a_system_in_double_precision_by_hand() {
        // (1 2)ᵀ(1 2) + diag(3, 0) = (4 2; 2 4); (4 2; 2 4) x = (8, 10)  =>  x = (1, 2)
        let mut matrix = [3., 0., 0., 0.];
        add_inner_f64(&[1., 2.], 2, &mut matrix);
        assert_eq!([matrix[0], matrix[1], matrix[3]], [4., 2., 4.]);
        let mut right = [8., 10.];
        assert!(solve_f64(&mut matrix, &mut right));
        assert!((right[0] - 1.0).abs() < 1e-14 && (right[1] - 2.0).abs() < 1e-14);
        assert!(!solve_f64(&mut [1., 1., 1., 1.], &mut [1., 1.]) || !solve_f64(&mut [-1., 0., 0., 1.], &mut [1., 1.]));
    }

    #[test]
    fn along_its_axes_a_gram_matrix_is_diagonal() {
        let (rows, d) = (numbers(300 * 37), 37);
        let axes = Axes::new(&gram(&rows, d), d).unwrap();
        assert!(axes.strengths.is_sorted());
        let turned = axes.enter(&rows);
        let again = gram(&turned, d);
        for row in 0..d {
            for column in 0..d {
                let expected = if row == column { axes.strengths[row] } else { 0.0 };
                assert!((again[row * d + column] - expected).abs() < 1e-3, "{row} {column}");
            }
        }
        let mut back = vec![f32::NAN; TURN_ROWS * d];
        axes.leave_panel(&turned[..TURN_ROWS * d], &mut back);
        assert!(rows.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5));
        // A row has the same bits wherever it is in a panel, and however many rows are turned.
        for row in [0, 1, 63, 64, 299] {
            assert_eq!(axes.enter(&rows[row * d..(row + 1) * d]), turned[row * d..(row + 1) * d], "row {row}");
        }
        let mut scattered = vec![7f32; 300 * 48];
        axes.enter_scattered(&rows, 48, &mut scattered);
        for (row, values) in scattered.chunks_exact(48).enumerate() {
            assert_eq!(values[..d], turned[row * d..(row + 1) * d], "row {row}");
            assert_eq!(values[d..], [7.0; 11], "row {row}");
        }
        assert!(Axes::new(&[f64::NAN], 1).is_none());
    }

    #[test]
    fn a_two_by_two_system_by_hand() {
        // (4 2; 2 3) x = (8, 7)  =>  x = (1.25, 1.5)
        let mut system = System::new(4);
        system.clear(2);
        system.add_inner(&[2., 1.]); // (4 2; 2 1)
        system.add_diagonal([0., 2.].into_iter());
        let mut right = [8., 7.];
        assert!(system.solve(&mut right));
        assert!((right[0] - 1.25).abs() < 1e-6 && (right[1] - 1.5).abs() < 1e-6, "{right:?}");
    }

    #[test]
    fn singular_and_indefinite_systems_are_told() {
        let mut system = System::new(3);
        system.clear(2);
        system.add_inner(&[1., 1.]);
        assert!(!system.solve(&mut [1., 1.]));
        system.clear(2);
        system.add_diagonal([1., -1.].into_iter());
        assert!(!system.solve(&mut [1., 1.]));
        system.clear(2);
        system.add_inner(&[1., 2., 3., 4., 5., 6.]);
        assert!(system.solve(&mut [1., 1.]));
    }

    #[test]
    fn an_entry_of_a_product_does_not_depend_on_its_neighbours() {
        for d in [32, 149, 256] {
            let (left, right) = (numbers(40 * d), numbers(100 * d));
            let mut whole = vec![0f32; 40 * 100];
            product_of_rows(&left, &right, d, &mut whole);
            for (i, m, j, n) in
                [(0, 1, 0, 1), (39, 1, 0, 100), (0, 40, 99, 1), (3, 2, 5, 2), (8, 8, 1, 33), (0, 40, 50, 50)]
            {
                let mut part = vec![0f32; m * n];
                product_of_rows(&left[i * d..(i + m) * d], &right[j * d..(j + n) * d], d, &mut part);
                for row in 0..m {
                    let start = (i + row) * 100 + j;
                    assert_eq!(part[row * n..(row + 1) * n], whole[start..start + n], "{m} x {n} at {i}, {j}, d {d}");
                }
            }
        }
    }
}
