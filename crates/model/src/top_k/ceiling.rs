//! How high the log-odds of a new pair can be, in a handful of instructions.

use std::f32::consts::LN_2;

use pulp::Simd;

use crate::propensity::{AFFINITY_FLOOR, NewPairSlopes};

/// What a threshold is lowered by, in log-odds, for each unit of the slopes: more than rounding in f32 can raise a ceiling.
const SLACK: f32 = 1e-3;
/// The last bits of an affinity, which say nothing here.
pub(super) const LAST_BITS: u32 = 8;
/// The bits of 2²³: with some of its last 23 bits set it is 2²³ and the number that these are.
pub(super) const MAGIC: u32 = 0x4b00_0000;
/// What one is in the bits that are left, by which a logarithm to base 2 grows by one.
const OCTAVE: f32 = 32_768.0;
/// `log₂(1 + f) − f` is at most 0.08607 for f from 0 to 1, and the last bits are worth 0.00003.
const ABOVE: f32 = 0.08611;
/// What the bits that are left of 1 are, with the magic ones, in octaves.
const OF_ONE: f32 = 256.0 + 127.0;

/// Lies above the log-odds of new pairs, and rises with affinity, so that what is lower under it cannot reach a threshold.
///
/// The exponent of a number with its mantissa behind it is a logarithm to base 2 that is never more than 0.0861 too low.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceiling {
    /// By unit of affinity.
    pub(super) affinity: f32,
    /// By unit of the bits of an affinity.
    pub(super) bits: f32,
    log_affinity: f32,
}

impl Ceiling {
    pub(super) fn over(slopes: NewPairSlopes) -> Self {
        let NewPairSlopes { affinity, log_affinity } = slopes;
        Self { affinity, bits: log_affinity * LN_2 / OCTAVE, log_affinity }
    }

    /// Whether it rises, as it must.
    pub(super) fn rises(&self) -> bool {
        self.affinity >= 0.0 && self.bits >= 0.0
    }

    /// What [`Ceiling::height`] must reach where log-odds must reach some, for an item that adds some.
    pub(super) fn least(&self, log_odds: f32, item: f32) -> f32 {
        log_odds - item - self.log_affinity * LN_2 * (ABOVE - OF_ONE) - SLACK * (1.0 + self.log_affinity)
    }

    /// How high pairs are without what their item adds, for what their users add; no number for an affinity that is none.
    #[inline(always)]
    pub(super) fn height<S: Simd>(&self, simd: S, affinity: S::f32s, log_odds: S::f32s) -> S::f32s {
        let floor = simd.splat_f32s(AFFINITY_FLOOR);
        let floored = simd.select_f32s(simd.less_than_f32s(affinity, floor), floor, affinity);
        let bits = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_f32s(floored), simd.splat_u32s(LAST_BITS));
        let bits = simd.transmute_f32s_u32s(simd.or_u32s(bits, simd.splat_u32s(MAGIC)));
        let of_bits = simd.mul_add_f32s(simd.splat_f32s(self.bits), bits, log_odds);
        simd.mul_add_f32s(simd.splat_f32s(self.affinity), floored, of_bits)
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_above_the_log_odds_and_near_them() {
        for (affinity, log_affinity) in [(0.0, 0.0), (0.3, 0.4), (0.0, 1.0), (2.0, 0.01), (1.0, 20.0)] {
            let slopes = NewPairSlopes { affinity, log_affinity };
            let ceiling = Ceiling::over(slopes);
            assert!(ceiling.rises());
            for n in -400..300 {
                // From below the floor to 10,000, in steps that meet no power of two.
                let affinity = if n < -350 { -0.1 } else { 1.0317f32.powi(n) };
                let (user, item) = (0.01 * n as f32, -3.0);
                let log_odds = slopes.log_odds(affinity, user, item);
                // The height at which log-odds would be just reached.
                let height = ceiling.height(pulp::Scalar, affinity, user);
                let above = f64::from(height - ceiling.least(log_odds as f32, item));
                assert!(above >= 0.0, "{slopes:?} {affinity}: {above}");
                let negative = f64::from(slopes.affinity) * f64::from((AFFINITY_FLOOR - affinity).max(0.0));
                let rounding = 1e-6 * log_odds.abs();
                let most =
                    0.0618 * f64::from(log_affinity) + 2.1e-3 * (1.0 + f64::from(log_affinity)) + negative + rounding;
                assert!(above <= most, "{slopes:?} {affinity}: {above} and not {most}");
            }
        }
        assert!(
            Ceiling::over(NewPairSlopes { affinity: 0.0, log_affinity: 0.0 })
                .height(pulp::Scalar, f32::NAN, 0.0)
                .is_nan()
        );
        for falling in [(-1.0, 0.0), (0.0, -1.0), (f32::NAN, 0.0)] {
            assert!(!Ceiling::over(NewPairSlopes { affinity: falling.0, log_affinity: falling.1 }).rises());
        }
    }
}
