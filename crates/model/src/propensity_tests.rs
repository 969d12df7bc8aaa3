#![allow(clippy::unwrap_used)]

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
