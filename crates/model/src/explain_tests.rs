#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use ndarray::Array2;

use super::*;
use crate::fold_in::FoldIn;

const D: usize = 32;
const ITEMS: usize = 300;

fn number(n: usize) -> f32 {
    ((n * 7919 + 13) % 1009) as f32 / 1009.0 - 0.4
}

fn item_factors() -> Array2<f32> {
    // Directions of very different strength, as fits give them.
    Array2::from_shape_fn((ITEMS, D), |(item, k)| 0.5 * number(item * D + k) / (1.0 + k as f32))
}

fn recipe() -> ItemAffinity {
    ItemAffinity { hidden_dimension: D, ..ItemAffinity::default() }
}

/// Every `step`-th item, with values from below one event to many.
fn history(step: usize) -> (Vec<u32>, Vec<f32>) {
    let items: Vec<u32> = (0..ITEMS).step_by(step).map(|item| item as u32).collect();
    let values = items.iter().map(|item| 0.1 + (item % 17) as f32).collect();
    (items, values)
}

fn prior() -> Vec<f32> {
    (0..D).map(|k| 0.3 * number(k + 5)).collect()
}

/// Gauss's elimination with pivots on the normal equations as the paper writes them.
fn dense_shares(factors: &Array2<f32>, recipe: &ItemAffinity, past: &[u32], values: &[f32], asked: u32) -> Vec<f64> {
    let y = |item: u32, k: usize| f64::from(factors[[item as usize, k]]);
    let weight = f64::from(recipe.unobserved_weight);
    let confidence: Vec<f64> = values.iter().map(|value| f64::from(*value).ln_1p()).collect();
    let penalty = f64::from(recipe.penalty_rate()) * (confidence.iter().sum::<f64>() + weight * ITEMS as f64);
    let mut matrix = vec![vec![0f64; D + 1]; D];
    for (row, equation) in matrix.iter_mut().enumerate() {
        for (column, entry) in equation.iter_mut().take(D).enumerate() {
            *entry = weight * (0..ITEMS as u32).map(|item| y(item, row) * y(item, column)).sum::<f64>();
            *entry += past.iter().zip(&confidence).map(|(j, c)| c * y(*j, row) * y(*j, column)).sum::<f64>();
        }
        equation[row] += penalty;
        equation[D] = y(asked, row);
    }
    for pivot in 0..D {
        let best = (pivot..D).max_by(|a, b| matrix[*a][pivot].abs().total_cmp(&matrix[*b][pivot].abs())).unwrap();
        matrix.swap(pivot, best);
        let by = matrix[pivot].clone();
        for (row, equation) in matrix.iter_mut().enumerate().filter(|(row, _)| *row != pivot) {
            let factor = equation[pivot] / by[pivot];
            equation.iter_mut().zip(&by).for_each(|(entry, by)| *entry -= factor * by);
            assert!(row < D);
        }
    }
    let w: Vec<f64> = (0..D).map(|k| matrix[k][D] / matrix[k][k]).collect();
    past.iter().zip(confidence).map(|(j, c)| c * (0..D).map(|k| w[k] * y(*j, k)).sum::<f64>()).collect()
}

#[test]
fn shares_are_those_of_the_normal_equations_for_short_and_long_histories() {
    let factors = item_factors();
    let explainer = Explainer::new(&recipe(), factors.view()).unwrap();
    for step in [2, 20, 299] {
        let (past, values) = history(step);
        for asked in [0, 7, 299] {
            let found = explainer.reasons((&past, &values), None, &[asked], usize::MAX).unwrap().remove(0);
            let expected = dense_shares(&factors, &recipe(), &past, &values, asked);
            assert_eq!(found.reasons.len(), past.len());
            for reason in &found.reasons {
                let at = past.binary_search(&reason.item_index).unwrap();
                assert!((f64::from(reason.share) - expected[at]).abs() < 1e-5, "{reason:?} {}", expected[at]);
            }
            assert!((f64::from(found.affinity) - expected.iter().sum::<f64>()).abs() < 1e-5);
        }
    }
}

#[test]
fn all_parts_together_are_the_affinity_of_the_folded_in_user() {
    let factors = item_factors();
    let explainer = Explainer::new(&recipe(), factors.view()).unwrap();
    let fold_in = FoldIn::new(&recipe(), factors.view()).unwrap();
    let asked: Vec<u32> = (0..ITEMS as u32).step_by(11).collect();
    let prior = prior();
    for step in [1, 3, 40] {
        for prior in [None, Some(prior.as_slice())] {
            let (past, values) = history(step);
            let row = Csr::new(vec![0, past.len()], past.clone(), values.clone(), ITEMS).unwrap();
            let means = prior.map(|prior| ArrayView2::from_shape((1, D), prior).unwrap());
            let user = fold_in.fold_in(&row, means).unwrap();
            let found = explainer.reasons((&past, &values), prior, &asked, past.len()).unwrap();
            for (item, explanation) in asked.iter().zip(&found) {
                let affinity = user.row(0).dot(&factors.row(*item as usize));
                let sum = explanation.prior_share + explanation.reasons.iter().map(|r| r.share).sum::<f32>();
                assert_eq!(explanation.item_index, *item);
                assert!((sum - affinity).abs() < 1e-4, "{sum} {affinity}");
                assert!((explanation.affinity - affinity).abs() < 1e-4);
                assert_eq!(prior.is_none(), explanation.prior_share == 0.0);
            }
        }
    }
}

#[test]
fn the_largest_reasons_come_first_and_a_few_are_a_prefix_of_all() {
    let explainer = Explainer::new(&recipe(), item_factors().view()).unwrap();
    let (past, values) = history(3);
    let all = explainer.reasons((&past, &values), None, &[5, 8], past.len()).unwrap();
    assert!(all.iter().all(|of| of.reasons.windows(2).all(|pair| pair[0].share >= pair[1].share)));
    for count in [0, 1, 4, past.len() + 9] {
        let some = explainer.reasons((&past, &values), None, &[5, 8], count).unwrap();
        for (some, all) in some.iter().zip(&all) {
            assert_eq!(some.reasons, all.reasons[..count.min(past.len())]);
            assert_eq!(some.affinity.to_bits(), all.affinity.to_bits());
        }
    }
}

#[test]
fn equal_shares_come_in_the_order_of_the_items() {
    let mut factors = item_factors();
    for item in [10, 20] {
        let copy = factors.row(30).to_owned();
        factors.row_mut(item).assign(&copy);
    }
    let explainer = Explainer::new(&recipe(), factors.view()).unwrap();
    let found = explainer.reasons((&[10, 20, 30], &[1.0; 3]), None, &[30], 3).unwrap().remove(0);
    let shares: Vec<f32> = found.reasons.iter().map(|reason| reason.share).collect();
    assert!(shares.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-6), "{shares:?}");
}

/// One past item and orthogonal items: all of the affinity for itself, nothing for others.
#[test]
fn shares_by_hand() {
    let mut factors = Array2::zeros((D, D));
    factors.diag_mut().fill(2.0);
    let recipe = ItemAffinity { regularization: Some(0.5), unobserved_weight: 0.25, ..recipe() };
    let explainer = Explainer::new(&recipe, factors.view()).unwrap();
    let value = std::f32::consts::E - 1.0; // confidence 1
    let found = explainer.reasons((&[3], &[value]), None, &[3, 4], 1).unwrap();
    // λ = 0.5 (1 + 0.25 · 32) = 4.5; A = 4 + 0.25 · 4 + 4.5 = 9.5 along the third axis; x·y = 2 · 2 / 9.5.
    assert!((found[0].reasons[0].share - 4.0 / 9.5).abs() < 1e-6, "{found:?}");
    assert!(found[1].reasons[0].share.abs() < 1e-6 && found[1].affinity.abs() < 1e-6);
    let mut prior = vec![0f32; D];
    prior[4] = 1.0;
    let found = explainer.reasons((&[3], &[value]), Some(&prior), &[3, 4], 1).unwrap();
    // Along the fourth axis A = 0.25 · 4 + 4.5, and the prior gives λ · 1 · 2 / A.
    assert!((found[1].prior_share - 9.0 / 5.5).abs() < 1e-5, "{found:?}");
    assert!((found[0].affinity - 4.0 / 9.5).abs() < 1e-5);
}

#[test]
fn without_history_the_prior_is_the_whole_reason() {
    let factors = item_factors();
    let explainer = Explainer::new(&recipe(), factors.view()).unwrap();
    let none = explainer.reasons((&[], &[]), None, &[1], 3).unwrap().remove(0);
    assert_eq!((none.affinity, none.reasons.len()), (0.0, 0));
    let prior = prior();
    let found = explainer.reasons((&[], &[]), Some(&prior), &[1], 3).unwrap().remove(0);
    let expected = ndarray::ArrayView1::from(&prior).dot(&factors.row(1));
    assert!((found.affinity - expected).abs() < 1e-5 && found.prior_share == found.affinity);
}

#[test]
fn what_cannot_be_explained_is_refused() {
    let explainer = Explainer::new(&recipe(), item_factors().view()).unwrap();
    let past: &[u32] = &[1, 2];
    let ask = |past: &[u32], values: &[f32], prior: Option<&[f32]>, items: &[u32]| {
        explainer.reasons((past, values), prior, items, 1).map(|_| ()).unwrap_err()
    };
    assert!(matches!(ask(past, &[1.0], None, &[0]), Error::Shape { name: "values", .. }));
    assert!(matches!(ask(&[2, 1], &[1.0; 2], None, &[0]), Error::Unsorted { .. }));
    assert!(matches!(ask(&[1, 300], &[1.0; 2], None, &[0]), Error::OutOfRange { name: "column", .. }));
    assert!(matches!(ask(past, &[1.0, -1.0], None, &[0]), Error::OutOfRange { .. }));
    assert!(matches!(ask(past, &[1.0, f32::NAN], None, &[0]), Error::NotFinite { .. }));
    assert!(matches!(ask(past, &[1.0; 2], None, &[300]), Error::OutOfRange { name: "item", .. }));
    assert!(matches!(ask(past, &[1.0; 2], Some(&[0.0]), &[0]), Error::Shape { name: "a prior mean", .. }));
    assert!(matches!(ask(past, &[1.0; 2], Some(&[f32::NAN; D]), &[0]), Error::NotFinite { .. }));
    assert_eq!(explainer.reasons((past, &[1.0; 2]), None, &[], 1), Ok(vec![]));
    let loose = ItemAffinity { regularization: Some(0.0), unobserved_weight: 0.0, ..recipe() };
    let loose = Explainer::new(&loose, item_factors().view()).unwrap();
    let singular = loose.reasons((past, &[1.0; 2]), None, &[0], 1);
    assert_eq!(singular, Err(Error::NotPositiveDefinite { side: "user", row: 0, iteration: None }));
    let shape = Explainer::new(&recipe(), Array2::zeros((3, 31)).view()).map(|_| ());
    assert!(matches!(shape, Err(Error::Shape { .. })));
}
