//! Kernels in vector instructions, chosen at run time for the machine: AVX-512, AVX2, NEON or plain numbers.

use pulp::{Arch, Simd, WithSimd};

use crate::ahead::Ahead;

/// Rows of factors are padded with zeros to a multiple of this, the longest vector there is: kernels have no remainders.
pub(crate) const LONGEST_VECTOR: usize = 16;
/// Rows that are worked on together: as many sums as the processor adds at the same time.
const ROWS: usize = 8;

/// Adds `Σ_r c_r (target − y_r·v) y_r` over the factors y of some columns to `out`, and returns `Σ_r c_r (target − y_r·v)²`.
///
/// Rows are read where they are, eight at a time, while the next eight are on their way. The first time most of them come from
/// far away; after that those of all but the longest lists are in the second-level cache, where a copy of them would be too.
///
/// # Shapes
/// factors: all columns × stride; columns, confidence: rows; v, out: stride, a multiple of [`LONGEST_VECTOR`]
/// # Cost
/// 2·rows·stride multiply-adds, each row read once from memory
pub(crate) fn add_residuals(
    factors: &[f32],
    columns: &[u32],
    confidence: &[f32],
    target: f32,
    v: &[f32],
    out: &mut [f32],
) -> f64 {
    Arch::new().dispatch(AddResiduals { factors, columns, confidence, target, v, out })
}

struct AddResiduals<'a> {
    factors: &'a [f32],
    columns: &'a [u32],
    confidence: &'a [f32],
    target: f32,
    v: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for AddResiduals<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let stride = self.v.len();
        let (v, _) = S::as_simd_f32s(self.v);
        let (out, _) = S::as_mut_simd_f32s(self.out);
        let mut squares = 0f64;
        let factors = self.factors;
        let row = |column: u32| &S::as_simd_f32s(&factors[column as usize * stride..][..stride]).0[..v.len()];
        let ahead = Ahead::new();
        let mut next = self.columns.chunks(ROWS).skip(1);
        let mut columns = self.columns.chunks_exact(ROWS);
        let mut confidences = self.confidence.chunks_exact(ROWS);
        for (columns, confidence) in (&mut columns).zip(&mut confidences) {
            for column in next.next().unwrap_or_default() {
                ahead.fetch(&factors[*column as usize * stride..][..stride]);
            }
            let rows: [&[S::f32s]; ROWS] = std::array::from_fn(|r| row(columns[r]));
            let mut sums = [simd.splat_f32s(0.0); ROWS];
            for (k, v) in v.iter().enumerate() {
                for r in 0..ROWS {
                    sums[r] = simd.mul_add_e_f32s(rows[r][k], *v, sums[r]);
                }
            }
            let mut weights = [simd.splat_f32s(0.0); ROWS];
            for r in 0..ROWS {
                let residual = self.target - simd.reduce_sum_f32s(sums[r]);
                let weight = confidence[r] * residual;
                squares += f64::from(weight) * f64::from(residual);
                weights[r] = simd.splat_f32s(weight);
            }
            for (k, out) in out.iter_mut().enumerate().take(v.len()) {
                let (mut even, mut odd) = (*out, simd.splat_f32s(0.0));
                for r in (0..ROWS).step_by(2) {
                    even = simd.mul_add_e_f32s(weights[r], rows[r][k], even);
                    odd = simd.mul_add_e_f32s(weights[r + 1], rows[r + 1][k], odd);
                }
                *out = simd.add_f32s(even, odd);
            }
        }
        for (column, confidence) in columns.remainder().iter().zip(confidences.remainder()) {
            let row = row(*column);
            let mut sum = simd.splat_f32s(0.0);
            for (y, v) in row.iter().zip(v) {
                sum = simd.mul_add_e_f32s(*y, *v, sum);
            }
            let residual = self.target - simd.reduce_sum_f32s(sum);
            let weight = confidence * residual;
            squares += f64::from(weight) * f64::from(residual);
            let weight = simd.splat_f32s(weight);
            for (out, y) in out.iter_mut().zip(row) {
                *out = simd.mul_add_e_f32s(weight, *y, *out);
            }
        }
        squares
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss)]
mod tests {
    use super::*;

    #[test]
    fn residuals_are_those_of_plain_loops_for_any_number_of_rows() {
        let stride = 3 * LONGEST_VECTOR;
        let numbers = |count: usize, seed: usize| -> Vec<f32> {
            (0..count).map(|n| (((n + seed) * 7919 % 1009) as f32 / 1009.0) - 0.5).collect()
        };
        let factors = numbers(5 * stride, 1);
        for rows in 0..=2 * ROWS + 1 {
            let columns: Vec<u32> = (0u32..).take(rows).map(|row| row * 3 % 5).collect();
            let (v, start) = (numbers(stride, 2), numbers(stride, 3));
            let confidence: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32).collect();
            let mut expected: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
            let mut squares = 0.0;
            for (column, c) in columns.iter().zip(&confidence) {
                let y = &factors[*column as usize * stride..][..stride];
                let product: f64 = y.iter().zip(&v).map(|(y, v)| f64::from(*y) * f64::from(*v)).sum();
                let weight = f64::from(*c) * (0.75 - product);
                squares += weight * (0.75 - product);
                expected.iter_mut().zip(y).for_each(|(out, y)| *out += weight * f64::from(*y));
            }
            let mut out = start.clone();
            let found = add_residuals(&factors, &columns, &confidence, 0.75, &v, &mut out);
            assert!((found - squares).abs() <= 1e-5 * squares, "{rows}: {found} {squares}");
            for (out, expected) in out.iter().zip(&expected) {
                assert!((f64::from(*out) - expected).abs() < 1e-4, "{rows}: {out} {expected}");
            }
            let mut plain = start.clone();
            let (factors, columns, confidence) = (&factors, &columns, &confidence);
            let work = AddResiduals { factors, columns, confidence, target: 0.75, v: &v, out: &mut plain };
            work.with_simd(pulp::Scalar);
            assert!(plain.iter().zip(&out).all(|(a, b)| (a - b).abs() < 1e-4), "{rows}");
        }
    }
}
