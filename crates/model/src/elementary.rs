//! The logarithm, powers of two and the logistic function, without branches or tables: loops over them become vector code,
//! and every machine gives the same bits.

use std::f64::consts::{LN_2, LOG2_E, SQRT_2};

/// Added to a number of moderate size, rounds it to an integer that stands in the low bits of the sum.
const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
const FRACTION_BITS: u32 = 52;
const ONE: u64 = 1.0f64.to_bits();
/// Coefficients of `2·artanh(s) / s` in s², from the highest.
const ARTANH: [f64; 8] = [2.0 / 15.0, 2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0];
/// Coefficients of `exp(r)` from r¹² down to r⁰.
const EXP: [f64; 13] = [
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];
/// ln 2 as a sum whose first part has few digits, so that its multiples are exact.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// The natural logarithm of a positive number that is not subnormal; nothing sensible for others.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // Puts the mantissa between √½ and √2.
    let above = (bits & ((1 << FRACTION_BITS) - 1)) > (SQRT_2.to_bits() & ((1 << FRACTION_BITS) - 1));
    let exponent = (bits >> FRACTION_BITS) + u64::from(above);
    let mantissa = f64::from_bits(bits.wrapping_sub(exponent << FRACTION_BITS).wrapping_add(ONE));
    // The exponent as a number, by the bits of 2⁵² + exponent.
    let exponent = f64::from_bits(exponent | (1075 << FRACTION_BITS)) - 4_503_599_627_370_496.0 - 1023.0;
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    s * polynomial(&ARTANH, square) + exponent * LN_2
}

/// `1 / (1 + exp(−z))`; NaN for NaN.
#[inline(always)]
pub(crate) fn logistic(z: f64) -> f64 {
    // Beyond this the result is 0 or 1 as an f32.
    let y = -z.clamp(-200.0, 200.0);
    let rounded = y * LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let rest = (y - whole * LN_2_HIGH) - whole * LN_2_LOW;
    1.0 / (1.0 + whole_power(rounded) * polynomial(&EXP, rest))
}

/// `2^x` for x of at most 0; NaN for NaN.
#[inline(always)]
pub(crate) fn exp2(x: f64) -> f64 {
    // Smaller ones would be subnormal.
    let x = x.max(-1000.0);
    let rounded = x + ROUND;
    whole_power(rounded) * polynomial(&EXP, (x - (rounded - ROUND)) * LN_2)
}

/// Two to the whole number that [`ROUND`] was added to.
#[inline(always)]
fn whole_power(rounded: f64) -> f64 {
    f64::from_bits((rounded.to_bits() << FRACTION_BITS).wrapping_add(ONE))
}

/// By Horner's rule, the highest coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut sum = coefficients[0];
    // No iterator: its closures may be compiled apart, without the vector instructions of the caller.
    let mut at = 1;
    while at < N {
        sum = sum * x + coefficients[at];
        at += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_standard_library() {
        let mut x = 1e-4f64;
        while x < 1e38 {
            assert!((ln(x) - x.ln()).abs() <= 1e-13 * x.ln().abs().max(1.0), "{x}: {} {}", ln(x), x.ln());
            x *= 1.000_37;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn powers_of_two_are_those_of_the_standard_library() {
        for n in 0..=90_000 {
            let x = -f64::from(n) / 90.0;
            assert!((exp2(x) - x.exp2()).abs() <= 1e-15 * x.exp2(), "{x}: {} {}", exp2(x), x.exp2());
        }
        assert_eq!((exp2(0.0), exp2(-1.0), exp2(-900.0)), (1.0, 0.5, (-900f64).exp2()));
        assert!(exp2(f64::NEG_INFINITY) < 1e-300);
    }

    #[test]
    fn the_logistic_function_is_that_of_the_standard_library() {
        for n in -60_000..=60_000 {
            let z = f64::from(n) / 500.0;
            let expected = 1.0 / (1.0 + (-z).exp());
            assert!((logistic(z) - expected).abs() <= 1e-14 * expected, "{z}: {} {expected}", logistic(z));
        }
        assert_eq!(logistic(0.0), 0.5);
        assert_eq!((logistic(f64::INFINITY), logistic(1e300)), (1.0, 1.0));
        assert!(logistic(f64::NEG_INFINITY) < 1e-45 && logistic(f64::NAN).is_nan());
    }
}
