//! Numbers beside each other, in as many lanes on every machine: sums have the same bits with any vector instructions.
//!
//! What is dispatched is a struct, and all that it calls is inlined always: the compiler gives a function that it leaves apart
//! none of the instructions that its caller was chosen for. A closure will not do, since around one that could be called
//! again there is a function that calls it once, which no attribute reaches.

/// How many.
pub(crate) const LANES: usize = 8;
/// A number in each lane.
pub(crate) type Lanes = [f64; LANES];

/// `Σ a·b·…` of N columns of numbers, added in f64; a longer column is cut off.
#[inline(always)] // becomes vector code where it is dispatched
pub(crate) fn sum_of_products<const N: usize>(columns: [&[f32]; N]) -> f64 {
    let count = columns.iter().map(|column| column.len()).min().unwrap_or_default();
    let columns = columns.map(|column| &column[..count]);
    let mut sums = [0f64; LANES];
    let mut at = 0;
    while at + LANES <= count {
        let mut products = [1f64; LANES];
        for column in columns {
            for (product, value) in products.iter_mut().zip(&column[at..at + LANES]) {
                *product *= f64::from(*value);
            }
        }
        for (sum, product) in sums.iter_mut().zip(products) {
            *sum += product;
        }
        at += LANES;
    }
    for (sum, at) in sums.iter_mut().zip(at..count) {
        let mut product = 1f64;
        for column in columns {
            product *= f64::from(column[at]);
        }
        *sum += product;
    }
    sums.iter().sum()
}

/// `Σ a·b` in f32; a longer column is cut off.
#[inline(always)] // becomes vector code where it is dispatched
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_one_by_one() {
        let numbers = |from: i32, count: i32| (from..from + count).map(|n| (n as f32).sin()).collect::<Vec<_>>();
        for count in [0, 1, 7, 8, 9, 149] {
            let [a, b, c] = [1, 1_000, 2_000].map(|from| numbers(from, count));
            let plain = |at: usize| f64::from(a[at]) * f64::from(b[at]);
            let close = |actual: f64, expected: f64| assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
            close(sum_of_products([&a]), a.iter().map(|a| f64::from(*a)).sum());
            close(sum_of_products([&a, &b]), (0..a.len()).map(plain).sum());
            let longer = numbers(2_000, count + 3);
            let expected: f64 = (0..a.len()).map(|at| plain(at) * f64::from(c[at])).sum();
            close(sum_of_products([&a, &b, &longer]), expected);
            close(f64::from(dot(&a, &b)), (0..a.len()).map(plain).sum());
        }
    }
}
