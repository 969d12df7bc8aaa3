#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::ops::ControlFlow;

use ndarray::array;

use super::*;
use crate::als::{Factors, fit, fit_with};
use crate::attributes::{AttributeColumn, Encoding, SideInformation};
use crate::dense_reference::solve_dense;
use crate::fixed::Fixed;
use crate::fold_in::FoldIn;
use crate::half_step::{Method, Solved};
use crate::recipe::ItemAffinity;

fn sparse(dense: &Array2<f32>) -> Csr {
    let (mut indptr, mut indices, mut values) = (vec![0], vec![], vec![]);
    for row in dense.rows() {
        for (column, value) in (0u32..).zip(row).filter(|(_, value)| **value != 0.0) {
            indices.push(column);
            values.push(*value);
        }
        indptr.push(indices.len());
    }
    Csr::new(indptr, indices, values, dense.ncols()).unwrap()
}

fn attributes(dense: &Array2<f32>) -> Attributes {
    let number = || Encoding::Number { mean: 0.0, deviation: 1.0 };
    let column = |n| AttributeColumn { name: format!("c{n}"), encoding: number() };
    Attributes::new(sparse(dense), (0..dense.ncols()).map(column).collect()).unwrap()
}

fn pseudo(seed: usize) -> f32 {
    let hash = (seed.wrapping_mul(2_654_435_761) ^ 0x9e37) % 10_007;
    (hash.wrapping_mul(hash) % 10_007) as f32 / 10_007.0
}

/// Row n has about n · columns / rows entries, the first none.
fn ragged(rows: usize, columns: usize) -> Array2<f32> {
    let value = |r, c| if (c * 7 + r) % columns < r * columns / rows { 1.0 + (c % 4) as f32 } else { 0.0 };
    Array2::from_shape_fn((rows, columns), |(r, c)| value(r, c))
}

fn recipe(hidden_dimension: usize, iterations: usize) -> ItemAffinity {
    let (regularization, unobserved_weight) = (Some(0.02), 0.1);
    ItemAffinity { hidden_dimension, iterations, regularization, unobserved_weight, ..ItemAffinity::default() }
}

fn solve_rows(pairs: &Csr, fixed: &Array2<f32>, recipe: &ItemAffinity, prior: Option<&Array2<f32>>) -> Result<Solved> {
    let observed = Observed::new(pairs, "user")?;
    Fixed::new(fixed.view(), "item", None)?.solve(
        &observed,
        recipe,
        prior.map(|prior| prior.view()),
        Method::Exact,
        None,
        None,
    )
}

/// The penalty of a row as its definition says.
fn lambda(row: ndarray::ArrayView1<'_, f32>, recipe: &ItemAffinity) -> f64 {
    let mass: f64 = row.iter().map(|value| f64::from(*value).ln_1p()).sum();
    f64::from(recipe.penalty_rate()) * (mass + f64::from(recipe.unobserved_weight) * row.len() as f64)
}

/// The half-step with prior means as its equations say, in f64.
fn half_step_dense(dense: &Array2<f32>, y: &Array2<f64>, m: &Array2<f64>, recipe: &ItemAffinity) -> Array2<f64> {
    let mut out = m.clone();
    for ((row, mut x), m) in dense.rows().into_iter().zip(out.rows_mut()).zip(m.rows()) {
        let penalty = lambda(row, recipe);
        let mut a = y.t().dot(y) * f64::from(recipe.unobserved_weight);
        a.diag_mut().mapv_inplace(|value| value + penalty);
        let mut b = m.to_owned() * penalty;
        for (value, y) in row.iter().zip(y.rows()).filter(|(value, _)| **value > 0.0) {
            let c = f64::from(*value).ln_1p();
            b.scaled_add(c, &y);
            a += &(&y.insert_axis(ndarray::Axis(1)) * &y.insert_axis(ndarray::Axis(0)) * c);
        }
        if row.iter().any(|value| *value > 0.0) {
            x.assign(&solve_dense(a, b));
        }
    }
    out
}

/// The part of the objective that the rows decide, in f64.
fn objective(dense: &Array2<f32>, x: &Array2<f64>, y: &Array2<f64>, m: &Array2<f64>, recipe: &ItemAffinity) -> f64 {
    let mut sum = 0.0;
    for ((row, item), value) in dense.indexed_iter() {
        let score = x.row(row).dot(&y.row(item));
        sum += f64::from(*value).ln_1p() * (1.0 - score).powi(2) + f64::from(recipe.unobserved_weight) * score * score;
    }
    for ((row, x), m) in dense.rows().into_iter().zip(x.rows()).zip(m.rows()) {
        let away = &x - &m;
        sum += lambda(row, recipe) * away.dot(&away);
    }
    sum
}

#[test]
fn a_half_step_with_a_prior_by_hand() {
    // One item y = 2, one user with confidence 1, w₀ = 0.5, regularization 0.1, mean 3: λ = 0.1·1.5 = 0.15,
    // A = 0.5·4 + 0.15 + 4 = 6.15, b = 2 + 0.15·3 = 2.45. A user without pairs keeps its mean, 3.
    let pairs = sparse(&array![[std::f32::consts::E - 1.0], [0.0]]);
    let mut recipe = recipe(1, 1);
    (recipe.regularization, recipe.unobserved_weight) = (Some(0.1), 0.5);
    let solved = solve_rows(&pairs, &array![[2.0]], &recipe, Some(&array![[3.0], [3.0]])).unwrap();
    assert!((solved.factors[[0, 0]] - 2.45 / 6.15).abs() < 1e-6, "{}", solved.factors);
    assert_eq!(solved.factors[[1, 0]], 3.0);
}

#[test]
fn rows_of_every_length_are_solved_with_a_prior_as_in_double_precision() {
    for d in [1, 8, 24] {
        let dense = ragged(160, 200);
        let y = Array2::from_shape_fn((200, d), |(i, k)| pseudo(i * d + k) - 0.45);
        // Every third row has no prior mean.
        let value = |r: usize, k: usize| if r % 3 == 2 { 0.0 } else { pseudo(r * 31 + k * 7) - 0.5 };
        let m = Array2::from_shape_fn((160, d), |(r, k)| value(r, k));
        let recipe = recipe(d, 1);
        let solved = solve_rows(&sparse(&dense), &y, &recipe, Some(&m)).unwrap();
        let (y, m) = (y.mapv(f64::from), m.mapv(f64::from));
        let expected = half_step_dense(&dense, &y, &m, &recipe);
        for (at, ours) in solved.factors.indexed_iter() {
            assert!((f64::from(*ours) - expected[at]).abs() < 5e-5, "{at:?}: {ours} {}", expected[at]);
        }
        let loss = objective(&dense, &expected, &y, &m, &recipe);
        assert!((solved.loss - loss).abs() < 1e-5 * loss, "{} {loss}", solved.loss);
    }
}

#[test]
fn nothing_stays_of_the_factors_whose_memory_a_half_step_takes() {
    let (pairs, d) = (sparse(&ragged(160, 200)), 8);
    let observed = Observed::new(&pairs, "user").unwrap();
    let y = Array2::from_shape_fn((200, d), |(i, k)| pseudo(i * d + k) - 0.45);
    let prior = Array2::from_shape_fn((160, d), |(r, k)| pseudo(r * 31 + k * 7) - 0.5);
    let fixed = Fixed::new(y.view(), "item", None).unwrap();
    let recipe = recipe(d, 1);
    let solve = |prior: Option<&Array2<f32>>, method, replaced: Option<Array2<f32>>| {
        let prior = prior.map(|prior| prior.view());
        fixed.solve(&observed, &recipe, prior, method, replaced, None).map(|solved| (solved.factors, solved.loss))
    };
    let noise = Array2::from_elem((160, d), f32::NAN);
    for prior in [None, Some(&prior)] {
        let new = solve(prior, Method::Exact, None).unwrap();
        let none = prior.map_or(Array2::zeros((160, d)).row(0).to_owned(), |prior| prior.row(0).to_owned());
        assert_eq!(new.0.row(0), none);
        assert_eq!(solve(prior, Method::Exact, Some(noise.clone())).unwrap(), new);
        // By columns in memory, as a caller may hold them.
        assert_eq!(solve(prior, Method::Exact, Some(noise.t().to_owned().reversed_axes())).unwrap(), new);
        // Factors that are the solution already stay where they are, and zeros are the start of those who have none.
        let near = solve(prior, Method::Near, Some(new.0.clone())).unwrap();
        assert!(near.0.iter().zip(&new.0).all(|(near, exact)| (near - exact).abs() < 1e-5));
        // So does the other side, in the memory of any other.
        for (rows, value) in [(200, f32::MAX.sqrt() / 1e3), (200, 0.0), (150, 1.0)] {
            let earlier = Fixed::new(Array2::from_elem((rows, d), value).view(), "item", None).unwrap();
            let again = Fixed::in_place_of(Some(earlier), y.view(), "item", None).unwrap();
            let prior = prior.map(|prior| prior.view());
            let solved = again.solve(&observed, &recipe, prior, Method::Exact, None, None).unwrap();
            assert_eq!((solved.factors, solved.loss), new);
        }
        let zeros = Array2::zeros((160, d));
        assert_eq!(solve(prior, Method::Near, Some(zeros)).unwrap(), solve(prior, Method::Near, None).unwrap());
    }
    assert!(matches!(solve(None, Method::Exact, Some(Array2::zeros((159, d)))), Err(Error::Shape { .. })));
    assert!(matches!(solve(None, Method::Exact, Some(Array2::zeros((160, d + 1)))), Err(Error::Shape { .. })));
}

#[test]
fn a_prior_of_zeros_is_none() {
    let pairs = sparse(&ragged(60, 40));
    let y = Array2::from_shape_fn((40, 8), |(i, k)| pseudo(i * 8 + k) - 0.45);
    let plain = solve_rows(&pairs, &y, &recipe(8, 1), None).unwrap();
    let zeros = solve_rows(&pairs, &y, &recipe(8, 1), Some(&Array2::zeros((60, 8)))).unwrap();
    assert_eq!((plain.factors, plain.loss), (zeros.factors, zeros.loss));
}

#[test]
fn while_the_prior_stands_still_the_objective_never_rises() {
    let dense = ragged(50, 40);
    let (by_user, by_item) = (sparse(&dense), sparse(&dense.t().to_owned()));
    let recipe = recipe(6, 1);
    let mean = |rows, seed| Array2::from_shape_fn((rows, 6), |(r, k)| pseudo(r * 6 + k + seed) - 0.5);
    let (user_mean, item_mean) = (mean(50, 1), mean(40, 2));
    let away = |dense: &Array2<f32>, x: &Array2<f32>, m: &Array2<f32>| -> f64 {
        let rows = dense.rows().into_iter().zip(x.rows()).zip(m.rows());
        rows.map(|((row, x), m)| lambda(row, &recipe) * f64::from((&x - &m).mapv(|v| v * v).sum())).sum()
    };
    let mut items = mean(40, 3);
    let mut last = f64::INFINITY;
    for _ in 0..6 {
        let users = solve_rows(&by_user, &items, &recipe, Some(&user_mean)).unwrap();
        let after_users = users.loss + away(&dense.t().to_owned(), &items, &item_mean);
        let solved = solve_rows(&by_item, &users.factors, &recipe, Some(&item_mean)).unwrap();
        let after_items = solved.loss + away(&dense, &users.factors, &user_mean);
        assert!(after_users <= last * (1.0 + 1e-6) && after_items <= after_users * (1.0 + 1e-6));
        (items, last) = (solved.factors, after_items);
    }
}

#[test]
fn weights_solve_the_ridge_equations() {
    let (rows, features, d) = (120, 9, 5);
    let f = Array2::from_shape_fn((rows, features), |(r, k)| if (r + k) % 3 == 0 { pseudo(r * 9 + k) } else { 0.0 });
    let y = Array2::from_shape_fn((rows, d), |(r, k)| pseudo(r * 5 + k) - 0.3);
    let dense = ragged(rows, 30);
    let (attributes, pairs) = (attributes(&f), sparse(&dense));
    let observed = Observed::new(&pairs, "item").unwrap();
    let regression = Regression::new(&attributes, &observed).unwrap();
    let mut weights = regression.solve(y.view(), None).unwrap();
    for _ in 0..5 {
        weights = regression.solve(y.view(), Some(weights)).unwrap();
    }
    let mut a = Array2::<f64>::eye(features) * RIDGE;
    let mut b = Array2::<f64>::zeros((features, d));
    for row in 0..rows {
        let confidence: f64 = dense.row(row).iter().map(|value| f64::from(*value).ln_1p()).sum();
        let evidence = confidence / (confidence + HALF_EVIDENCE);
        for i in 0..features {
            for j in 0..features {
                a[[i, j]] += evidence * f64::from(f[[row, i]]) * f64::from(f[[row, j]]);
            }
            for k in 0..d {
                b[[i, k]] += evidence * f64::from(f[[row, i]]) * f64::from(y[[row, k]]);
            }
        }
    }
    for k in 0..d {
        let expected = solve_dense(a.clone(), b.column(k).to_owned());
        let most = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
        for (ours, expected) in weights.column(k).iter().zip(&expected) {
            assert!((f64::from(*ours) - expected).abs() < 0.02 * most, "{k}: {ours} {expected}");
        }
    }
}

/// Four groups; each user has some of the items of its group, and the last item of each group has no pairs.
fn planted() -> (Array2<f32>, Attributes, Attributes) {
    let (users, items) = (80, 60);
    let value = |u: usize, i: usize| u % 4 == i % 4 && i < items - 4 && pseudo(u * 61 + i) < 0.4;
    let dense = Array2::from_shape_fn((users, items), |(u, i)| if value(u, i) { 1.0 } else { 0.0 });
    let group = |rows| attributes(&Array2::from_shape_fn((rows, 4), |(r, k)| if r % 4 == k { 1.0 } else { 0.0 }));
    (dense, group(items), group(users))
}

fn fitted(dense: &Array2<f32>, side: Option<&SideInformation>) -> Factors {
    let by_user = sparse(dense);
    let mut go_on = |_| ControlFlow::Continue(());
    fit_with(&recipe(32, 8), &by_user, &by_user.transpose(), side, None, &mut go_on).unwrap()
}

#[test]
fn attributes_rescue_items_without_pairs() {
    let (dense, items, _) = planted();
    let side = SideInformation { items: Some(items), users: None };
    let factors = fitted(&dense, Some(&side));
    let scores = factors.user_factors.dot(&factors.item_factors.t());
    for cold in 56..60 {
        let mut users: Vec<usize> = (0..80).collect();
        users.sort_by(|a, b| scores[[*b, cold]].total_cmp(&scores[[*a, cold]]));
        assert!(users[..20].iter().all(|user| user % 4 == cold % 4), "item {cold}: {users:?}");
    }
    let means = side.items.unwrap().prior_means(factors.item_weights.as_ref().unwrap().view()).unwrap();
    assert_eq!(factors.item_factors.row(57), means.row(57));
    assert_eq!(factors.user_weights, None);
    assert!(fitted(&dense, None).item_factors.row(57).iter().all(|value| *value == 0.0));
}

#[test]
fn attributes_of_pure_noise_do_no_harm() {
    let (dense, ..) = planted();
    let noise = attributes(&Array2::from_shape_fn((60, 6), |(r, k)| pseudo(r * 97 + k * 13) - 0.5));
    let gap = |side: Option<&SideInformation>| {
        let factors = fitted(&dense, side);
        let scores = factors.user_factors.dot(&factors.item_factors.t());
        let mean = |same: bool| {
            let chosen = scores
                .indexed_iter()
                .filter(|((u, i), _)| *i < 56 && (u % 4 == i % 4) == same && dense[[*u, *i]] == 0.0);
            let (sum, count) = chosen.fold((0f32, 0f32), |(sum, count), (_, score)| (sum + score, count + 1.0));
            sum / count
        };
        mean(true) - mean(false)
    };
    let (with, without) = (gap(Some(&SideInformation { items: Some(noise), users: None })), gap(None));
    assert!(with > 0.95 * without, "{with} {without}");
}

#[test]
fn user_factors_are_what_fold_in_gives_with_the_prior_means_bit_for_bit() {
    let (mut dense, items, users) = planted();
    dense.row_mut(7).fill(0.0);
    let side = SideInformation { items: Some(items), users: Some(users) };
    let factors = fitted(&dense, Some(&side));
    let means = side.users.unwrap().prior_means(factors.user_weights.as_ref().unwrap().view()).unwrap();
    let fold_in = FoldIn::new(&recipe(32, 8), factors.item_factors.view()).unwrap();
    let states = fold_in.fold_in(&sparse(&dense), Some(means.view())).unwrap();
    assert_eq!(states, factors.user_factors);
    assert_eq!(states.row(7), means.row(7), "a user without history gets its prior mean");
    let wrong = fold_in.fold_in(&sparse(&dense), Some(means.slice(ndarray::s![1.., ..])));
    assert!(matches!(wrong, Err(Error::Shape { name: "prior", .. })));
    let mut broken = means.clone();
    broken[[3, 1]] = f32::NAN;
    let error = fold_in.fold_in(&sparse(&dense), Some(broken.view())).unwrap_err();
    assert_eq!(error, Error::NotFinite { what: "the prior mean of a user", row: 3, iteration: None });
}

#[test]
fn the_bits_are_those_of_any_number_of_threads() {
    let dense = ragged(3000, 90);
    let features = |rows: usize| {
        attributes(&Array2::from_shape_fn((rows, 40), |(r, k)| if (r * 3 + k) % 7 == 0 { pseudo(r + k) } else { 0.0 }))
    };
    let side = SideInformation { items: Some(features(90)), users: Some(features(3000)) };
    let by_user = sparse(&dense);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut go_on = |_| ControlFlow::Continue(());
        let fit = || fit_with(&recipe(32, 2), &by_user, &by_user.transpose(), Some(&side), None, &mut go_on);
        pool.install(fit).unwrap()
    };
    let one = run(1);
    assert!(one.loss.iter().all(|loss| loss.is_finite()) && one.user_weights.is_some());
    assert_eq!(run(2), one);
    assert_eq!(run(4), one);
}

#[test]
fn rows_of_which_nothing_is_known_are_fitted_as_without_attributes() {
    let (dense, ..) = planted();
    let unknown = |rows| Some(attributes(&Array2::zeros((rows, 3))));
    let none = fitted(&dense, None);
    let side = SideInformation { items: unknown(60), users: unknown(80) };
    let same = fitted(&dense, Some(&side));
    assert_eq!(
        (&same.user_factors, &same.item_factors, &same.loss),
        (&none.user_factors, &none.item_factors, &none.loss)
    );
    let by_user = sparse(&dense);
    let plain = fit(&recipe(32, 8), &by_user, &by_user.transpose(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(plain, none);
}

#[test]
fn attributes_of_other_rows_are_refused() {
    let (dense, items, _) = planted();
    let by_user = sparse(&dense);
    let side = SideInformation { items: None, users: Some(items) };
    let mut go_on = |_| ControlFlow::Continue(());
    let error = fit_with(&recipe(32, 1), &by_user, &by_user.transpose(), Some(&side), None, &mut go_on).unwrap_err();
    assert_eq!(error, Error::Shape { name: "user attributes", expected: 80, actual: 60 });
}
