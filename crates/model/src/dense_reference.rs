//! What the fast solvers are compared with in tests: slow and obviously right.

use ndarray::{Array1, Array2};

/// A system solved by Gaussian elimination in f64.
pub(crate) fn solve_dense(mut a: Array2<f64>, mut b: Array1<f64>) -> Array1<f64> {
    let d = b.len();
    for pivot in 0..d {
        for row in pivot + 1..d {
            let factor = a[[row, pivot]] / a[[pivot, pivot]];
            for column in pivot..d {
                a[[row, column]] -= factor * a[[pivot, column]];
            }
            b[row] -= factor * b[pivot];
        }
    }
    for row in (0..d).rev() {
        let known: f64 = (row + 1..d).map(|column| a[[row, column]] * b[column]).sum();
        b[row] = (b[row] - known) / a[[row, row]];
    }
    b
}
