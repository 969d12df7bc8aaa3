#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::elementary::logistic;

/// Rows whose log-odds are `−1 + 2 x₀ − 0.5 x₁`, and a third feature that does not vary.
fn known(rows: u32) -> Sample {
    let mut random = StdRng::seed_from_u64(1);
    let mut sample = Sample::new(3, 0);
    for user in 0..rows {
        let x = [random.random::<f64>() * 2.0 - 1.0, random.random::<f64>() * 4.0, 7.0];
        let label = random.random::<f64>() < logistic(-1.0 + 2.0 * x[0] - 0.5 * x[1]);
        sample.push(&x, label, 1.0, user);
    }
    sample
}

#[test]
fn known_coefficients_are_found_again() {
    let found = Logistic::fit(known(200_000), 1e-6, &[]).unwrap();
    for (found, expected) in found.coefficients.iter().zip([2.0, -0.5, 0.0]) {
        assert!((found - expected).abs() < 0.03, "{found} {expected}");
    }
    assert!((found.intercept + 1.0).abs() < 0.03, "{found:?}");
}

/// The same minimum by plain gradient descent on the definition.
#[test]
fn the_minimum_is_that_of_gradient_descent() {
    let ridge = 3.0;
    let mut sample = known(300);
    let found = Logistic::fit(known(300), ridge, &[]).unwrap();
    let scales = sample.scales();
    sample.standardize(&scales);
    let mut beta = [0f64; 4];
    for _ in 0..20_000 {
        let mut gradient = [0.0, ridge * beta[1], ridge * beta[2], ridge * beta[3]];
        for at in 0..sample.len() {
            let x = sample.row(at);
            let p = logistic(beta[0] + beta[1] * x[0] + beta[2] * x[1] + beta[3] * x[2]);
            let r = p - f64::from(u8::from(sample.labels[at]));
            gradient[0] += r;
            (1..4).for_each(|j| gradient[j] += r * x[j - 1]);
        }
        (0..4).for_each(|j| beta[j] -= 0.01 * gradient[j]);
    }
    for feature in 0..2 {
        assert!((found.coefficients[feature] - beta[feature + 1] / scales[feature].1).abs() < 1e-6);
    }
}

/// Far more rows than the part that takes the first steps.
#[test]
fn a_start_from_a_part_of_the_rows_ends_where_one_from_nothing_does() {
    let mut sample = known(60_000);
    let found = Logistic::fit(known(60_000), 5.0, &[]).unwrap();
    let scales = sample.scales();
    sample.standardize(&scales);
    let beta = newton(&sample, 5.0, &[false; 3], start(&sample).unwrap(), 1e-14).unwrap();
    for feature in 0..2 {
        assert!((found.coefficients[feature] - beta[feature + 1] / scales[feature].1).abs() < 1e-7);
    }
}

#[test]
fn separable_and_extreme_rows_stay_finite() {
    let mut sample = Sample::new(2, 0);
    for user in 0..100u32 {
        let side = if user % 2 == 0 { 1.0 } else { -1.0 };
        sample.push(&[side * 1e6, side * 1e-12], user % 2 == 0, 1e9, user);
    }
    let found = Logistic::fit(sample, 0.1, &[]).unwrap();
    assert!(logistic(found.log_odds(&[1e6, 1e-12])) > 0.99);
}

#[test]
fn a_sample_of_one_label_has_no_fit() {
    let mut sample = Sample::new(1, 0);
    assert!(Logistic::fit(Sample::new(1, 0), 1.0, &[]).is_none());
    sample.push(&[1.0], true, 1.0, 0);
    sample.push(&[2.0], true, 1.0, 1);
    assert!(Logistic::best_ridge(sample, &[1.0, 10.0]).is_none());
}

#[test]
fn a_weight_counts_as_so_many_rows() {
    let (mut heavy, mut many) = (Sample::new(1, 0), Sample::new(1, 0));
    for at in 0..50u32 {
        let (x, label) = (f64::from(at % 7), at % 3 == 0);
        heavy.push(&[x], label, if label { 3.0 } else { 1.0 }, at);
        (0..if label { 3 } else { 1 }).for_each(|_| many.push(&[x], label, 1.0, at));
    }
    // The ridge acts on standardized features, whose scales differ: without it the two are the same.
    let fit = |sample| Logistic::fit(sample, 0.0, &[]).unwrap();
    let (heavy, many) = (fit(heavy), fit(many));
    assert!((heavy.coefficients[0] - many.coefficients[0]).abs() < 1e-6);
    assert!((heavy.intercept - many.intercept).abs() < 1e-6);
}

#[test]
fn a_coefficient_that_may_not_be_negative_is_held_at_zero() {
    let found = Logistic::fit(known(5_000), 0.1, &[0, 1]).unwrap();
    assert!(found.coefficients[0] > 1.5);
    assert_eq!(found.coefficients[1], 0.0);
}

#[test]
fn noise_gets_a_strong_ridge_and_signal_a_weak_one() {
    let candidates = [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];
    let mut random = StdRng::seed_from_u64(2);
    let mut noise = Sample::new(20, 0);
    for user in 0..400u32 {
        let x: Vec<f64> = (0..20).map(|_| random.random::<f64>()).collect();
        noise.push(&x, random.random::<f64>() < 0.3, 1.0, user);
    }
    let strong = Logistic::best_ridge(noise, &candidates).unwrap();
    let weak = Logistic::best_ridge(known(20_000), &candidates).unwrap();
    assert!(strong >= 1_000.0 && weak <= 100.0, "{strong} {weak}");
}
