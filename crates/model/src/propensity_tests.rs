#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use ndarray::Array2;

use super::*;
use crate::interactions::Interactions;

#[test]
fn every_term_has_a_name_of_its_own() {
    let names = Regime::repeat_pair_term_names();
    assert_eq!(names.len(), REPEAT_TERMS);
    assert_eq!(Regime::new_pair_term_names().len(), NEW_TERMS);
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    assert_eq!(names[NEW_TERMS + PAIR_TERMS], "log affinity × log affinity");
}

#[test]
fn coefficients_of_other_terms_are_refused() {
    let ids = || crate::vocabulary::Vocabulary::from_sorted(["a"]).unwrap();
    let known = Interactions::new(ids(), ids(), vec![0], vec![0], vec![0], vec![1.0]).unwrap();
    let factors = Array2::ones((1, 2));
    let fitted = |terms: usize| Regime::fitted(Logistic { intercept: 0.0, coefficients: vec![0.1; terms] }, 1.0, 1, 2);
    let log_odds = |new: usize, repeat: usize| {
        let propensity = Propensity { new_pairs: fitted(new), repeat_pairs: fitted(repeat), ..Propensity::unlearnt(1) };
        propensity.log_odds(&known, 1, factors.view(), factors.view()).map(|_| ())
    };
    assert_eq!(log_odds(NEW_TERMS, REPEAT_TERMS), Ok(()));
    assert!(matches!(log_odds(NEW_TERMS - 1, REPEAT_TERMS), Err(crate::Error::Shape { .. })));
    assert!(matches!(log_odds(NEW_TERMS, REPEAT_TERMS + 1), Err(crate::Error::Shape { .. })));
}

#[test]
fn the_triangle_gives_the_log_odds_of_the_terms_one_by_one() {
    let numbers = |seed: usize| (0..).map(move |n: usize| ((n + seed) * 7919 % 1009) as f64 / 504.5 - 1.0);
    let coefficients: Vec<f64> = numbers(1).take(REPEAT_TERMS).collect();
    let fitted = RepeatLogOdds::new(0.25, &coefficients);
    for seed in 2..50 {
        // Two pairs beside each other.
        let mut linear = [[0.0; 2]; LINEAR_TERMS];
        linear.iter_mut().zip(numbers(seed).zip(numbers(seed + 99))).for_each(|(term, (a, b))| *term = [a, b]);
        for (lane, log_odds) in fitted.of(&linear).into_iter().enumerate() {
            let terms = repeat_terms(&linear.map(|term| term[lane]));
            let one_by_one: f64 = terms.iter().zip(&coefficients).map(|(x, c)| x * c).sum();
            assert!((log_odds - 0.25 - one_by_one).abs() < 1e-12);
        }
    }
}
