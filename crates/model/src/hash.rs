//! Chance that belongs to a pair, not to a place in the work: the same for any number of threads.

/// A number in [0, 1) that this seed and pair always have.
///
/// # Source
/// SplitMix64: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, 2014
pub(crate) fn uniform(seed: u64, a: u32, b: u32) -> f64 {
    let mut z = seed ^ (u64::from(a) << 32 | u64::from(b));
    for _ in 0..2 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    #[allow(clippy::cast_precision_loss)] // 53 bits
    let high = (z >> 11) as f64;
    high / 9_007_199_254_740_992.0
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_spread_evenly_and_depend_on_all_three() {
        let mut bins = [0u32; 10];
        for a in 0..100 {
            for b in 0..100 {
                let x = uniform(1, a, b);
                assert!((0.0..1.0).contains(&x));
                bins[(x * 10.0) as usize] += 1;
            }
        }
        assert!(bins.iter().all(|bin| (850..1150).contains(bin)), "{bins:?}");
        assert_ne!(uniform(1, 2, 3), uniform(1, 3, 2));
        assert_ne!(uniform(1, 2, 3), uniform(2, 2, 3));
    }
}
