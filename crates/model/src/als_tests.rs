#![allow(clippy::panic, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::ops::ControlFlow;

use ndarray::{Array1, Array2, array};

use super::*;
use crate::dense_reference::solve_dense;
use crate::fold_in::fold_in;
use crate::row_descent::{Descent, EXACT};
use crate::row_solve::{Problem, Workspace};

fn recipe(hidden_dimension: usize, iterations: usize, regularization: f32, unobserved_weight: f32) -> ItemAffinity {
    ItemAffinity {
        hidden_dimension,
        iterations,
        regularization: Some(regularization),
        unobserved_weight,
        ..ItemAffinity::default()
    }
}

fn sparse(dense: &Array2<f32>) -> Csr {
    let (mut indptr, mut indices, mut values) = (vec![0], vec![], vec![]);
    for row in dense.rows() {
        for (column, value) in (0u32..).zip(row).filter(|(_, value)| **value > 0.0) {
            indices.push(column);
            values.push(*value);
        }
        indptr.push(indices.len());
    }
    Csr::new(indptr, indices, values, dense.ncols()).unwrap()
}

fn quietly(recipe: &ItemAffinity, by_user: &Csr) -> Result<Factors> {
    watched(recipe, by_user, |_| ControlFlow::Continue(()))
}

fn watched(
    recipe: &ItemAffinity,
    by_user: &Csr,
    mut observer: impl FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    fit_valid(recipe, by_user, &by_user.transpose(), None, Start::Random, &mut observer)
}

/// The exact half-step of the users.
fn solve_users(by_user: &Csr, items: &Array2<f32>, recipe: &ItemAffinity) -> Solved {
    let users = Observed::new(by_user, "user").unwrap();
    let items = Fixed::new(items.view(), "item", None).unwrap();
    items.solve(&users, recipe, None, Method::Exact, None, None).unwrap()
}

/// A matrix in which about one pair in `sparsity` is observed.
fn scattered(users: usize, items: usize, sparsity: usize) -> Array2<f32> {
    Array2::from_shape_fn((users, items), |(user, item)| {
        let hash = (user * 7919 + item * 104_729) % 1009;
        if hash % sparsity == 0 { 1.0 + (hash % 3) as f32 } else { 0.0 }
    })
}

/// The value whose logarithm is 1 once 1 is added: confidence 1.
const ONE: f32 = std::f32::consts::E - 1.0;

/// The objective as its definition says, in f64.
fn objective(dense: &Array2<f32>, x: &Array2<f64>, y: &Array2<f64>, recipe: &ItemAffinity) -> f64 {
    let confidence = dense.mapv(|v| f64::from(v).ln_1p());
    let (weight, penalty) = (f64::from(recipe.unobserved_weight), f64::from(recipe.penalty_rate()));
    let mut sum = 0.0;
    for ((user, item), c) in confidence.indexed_iter() {
        let score = x.row(user).dot(&y.row(item));
        sum += if *c > 0.0 { c * (1.0 - score).powi(2) } else { 0.0 } + weight * score * score;
    }
    for (row, x) in confidence.rows().into_iter().zip(x.rows()) {
        sum += penalty * (row.sum() + weight * row.len() as f64) * x.dot(&x);
    }
    for (column, y) in confidence.columns().into_iter().zip(y.rows()) {
        sum += penalty * (column.sum() + weight * column.len() as f64) * y.dot(&y);
    }
    sum
}

/// The users' half-step as its equations say, in f64.
fn half_step_dense(dense: &Array2<f32>, y: &Array2<f64>, recipe: &ItemAffinity) -> Array2<f64> {
    let (weight, penalty) = (f64::from(recipe.unobserved_weight), f64::from(recipe.penalty_rate()));
    let d = y.ncols();
    let mut out = Array2::zeros((dense.nrows(), d));
    for (row, mut x) in dense.rows().into_iter().zip(out.rows_mut()) {
        let mut a = y.t().dot(y) * weight;
        let mut b = Array1::zeros(d);
        let mut mass = weight * row.len() as f64;
        for (value, y) in row.iter().zip(y.rows()).filter(|(value, _)| **value > 0.0) {
            let c = f64::from(*value).ln_1p();
            mass += c;
            b.scaled_add(c, &y);
            for (i, j) in (0..d).flat_map(|i| (0..d).map(move |j| (i, j))) {
                a[[i, j]] += c * y[i] * y[j];
            }
        }
        a.diag_mut().mapv_inplace(|value| value + penalty * mass);
        if row.iter().any(|value| *value > 0.0) {
            x.assign(&solve_dense(a, b));
        }
    }
    out
}

#[test]
fn a_two_by_two_half_step_by_hand() {
    // Items (1, 0) and (0, 2); user 0 has item 0, user 1 has both, all with confidence 1; w₀ = 0.5, regularization 0.1.
    // YᵀY = diag(1, 4). User 0: λ = 0.1·(1 + 0.5·2) = 0.2, A = diag(0.5 + 0.2 + 1, 2 + 0.2), b = (1, 0).
    // User 1: λ = 0.1·(2 + 1) = 0.3, A = diag(0.5 + 0.3 + 1, 2 + 0.3 + 4), b = (1, 2).
    let by_user = sparse(&array![[ONE, 0.0], [ONE, ONE]]);
    let items = array![[1f32, 0.0], [0.0, 2.0]];
    let recipe = recipe(2, 1, 0.1, 0.5);
    let solved = solve_users(&by_user, &items, &recipe);
    let expected = array![[1.0 / 1.7, 0.0], [1.0 / 1.8, 2.0 / 6.3]];
    assert!(solved.factors.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{}", solved.factors);
    // At the minimum: Σ c − b·x.
    let value = (1.0 - 1.0 / 1.7) + (2.0 - 1.0 / 1.8 - 4.0 / 6.3);
    assert!((solved.loss - value).abs() < 1e-6, "{}", solved.loss);
}

#[test]
fn the_objective_by_hand() {
    // One user, one item, confidence 1, d = 1: (1 − s)² + w₀ s² + λ (x² + y²) with λ = 0.1·(1 + 0.5).
    let recipe = recipe(1, 3, 0.1, 0.5);
    let fitted = quietly(&recipe, &sparse(&array![[ONE]])).unwrap();
    let (x, y) = (f64::from(fitted.user_factors[[0, 0]]), f64::from(fitted.item_factors[[0, 0]]));
    let by_hand = (1.0 - x * y).powi(2) + 0.5 * (x * y).powi(2) + 0.15 * (x * x + y * y);
    assert!((fitted.loss[2] - by_hand).abs() < 1e-6, "{} {by_hand}", fitted.loss[2]);
}

#[test]
fn reaches_the_loss_of_a_dense_reference_in_double_precision() {
    // Short and long rows: 3 % and 30 % observed, against d = 8.
    for sparsity in [30, 3] {
        let dense = scattered(60, 40, sparsity);
        let recipe = recipe(8, 10, 0.05, 0.1);
        let fitted = quietly(&recipe, &sparse(&dense)).unwrap();
        let mut y = random(&recipe, &sparse(&dense).transpose()).mapv(f64::from);
        let mut x = half_step_dense(&dense, &y, &recipe);
        let turned = dense.t().to_owned();
        for iteration in 0..recipe.iterations {
            y = half_step_dense(&turned, &x, &recipe);
            x = half_step_dense(&dense, &y, &recipe);
            let expected = objective(&dense, &x, &y, &recipe);
            let actual = fitted.loss[iteration];
            // All half-steps but the last come near to the solution only.
            assert!((actual - expected).abs() < 1e-2 * expected, "{sparsity} {iteration}: {actual} {expected}");
        }
        let ours =
            objective(&dense, &fitted.user_factors.mapv(f64::from), &fitted.item_factors.mapv(f64::from), &recipe);
        assert!((ours - fitted.loss[9]).abs() < 1e-5 * ours, "the reported loss is that of the factors");
    }
}

#[test]
fn rows_of_every_length_are_solved_as_in_double_precision() {
    // Row n has n + 1 entries: short form, its border, more than one panel.
    let (users, items, d) = (300, 300, 16);
    let dense =
        Array2::from_shape_fn(
            (users, items),
            |(u, i)| if (i * 7 + u) % items <= u { 1.0 + (i % 4) as f32 } else { 0.0 },
        );
    let recipe = recipe(d, 1, 0.02, 0.05);
    let by_user = sparse(&dense);
    let y = Array2::from_shape_fn((items, d), |(i, k)| ((i * 31 + k * 17 + i * k) % 101) as f32 / 101.0 - 0.45);
    let solved = solve_users(&by_user, &y, &recipe);
    let expected = half_step_dense(&dense, &y.mapv(f64::from), &recipe);
    for (row, (ours, expected)) in solved.factors.rows().into_iter().zip(expected.rows()).enumerate() {
        let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
        assert!(
            ours.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-5 * largest.max(1.0)),
            "row {row}"
        );
    }
}

#[test]
fn steps_and_elimination_end_at_the_same_factors_and_loss() {
    // Rows of 1 to 300 entries, some drawn to a mean, from a start that is far away.
    let (users, items, d) = (300, 300, 37);
    let dense =
        Array2::from_shape_fn(
            (users, items),
            |(u, i)| if (i * 7 + u) % items <= u { 1.0 + (i % 4) as f32 } else { 0.0 },
        );
    let recipe = recipe(d, 1, 0.005, 0.2);
    let by_user = sparse(&dense);
    let observed = Observed::new(&by_user, "user").unwrap();
    let y = Array2::from_shape_fn((items, d), |(i, k)| ((i * 31 + k * 17 + i * k) % 101) as f32 / 101.0 - 0.45);
    let fixed = Fixed::new(y.view(), "item", None).unwrap();
    let mean = vec![0.3f32; d];
    let (mut workspace, mut descent) = (Workspace::new(d), Descent::new(d));
    for row in 0..users {
        let mean = (row % 3 == 0).then_some(mean.as_slice());
        let problem = Problem { fixed: &fixed, observed: &observed, recipe: &recipe, row, mean };
        let (mut eliminated, mut stepped) = (vec![0f32; d], vec![1f32; d]);
        let Ok(loss) = problem.solve(&mut workspace, &mut eliminated) else { panic!("row {row}") };
        let Ok(Some(other)) = problem.descend(&mut descent, &mut stepped, EXACT) else { panic!("row {row}") };
        assert!((loss - other).abs() < 1e-5 * loss, "row {row}: {loss} {other}");
        let largest = eliminated.iter().fold(0f32, |most, x| most.max(x.abs()));
        for (a, b) in eliminated.iter().zip(&stepped) {
            assert!((a - b).abs() < 2e-5 * largest, "row {row}: {a} {b}");
        }
    }
}

#[test]
fn a_row_longer_than_a_piece_is_solved_like_its_halves() {
    // One user with 70,000 items, all with the same factor y: x·y = n c y² / (n c y² + w₀ n y² + λ) in closed form.
    let items = 70_000usize;
    let by_user = Csr::new(vec![0, items], (0..items as u32).collect(), vec![ONE; items], items).unwrap();
    let recipe = recipe(1, 1, 0.1, 0.5);
    let y = Array2::from_elem((items, 1), 0.5f32);
    let solved = solve_users(&by_user, &y, &recipe);
    let n = items as f64;
    let expected = n * 0.5 / (n * 0.25 + 0.5 * n * 0.25 + 0.1 * 1.5 * n);
    assert!((f64::from(solved.factors[[0, 0]]) - expected).abs() < 1e-4 * expected, "{} {expected}", solved.factors);
}

#[test]
fn a_checkerboard_is_completed() {
    // Users and items of the same parity belong together; a few pairs are hidden.
    let hidden = |u: usize, i: usize| (u * 5 + i).is_multiple_of(11);
    let dense = Array2::from_shape_fn((40, 30), |(u, i)| if (u + i) % 2 == 0 && !hidden(u, i) { 1.0 } else { 0.0 });
    let fitted = quietly(&recipe(4, 10, 0.01, 0.1), &sparse(&dense)).unwrap();
    let scores = fitted.user_factors.dot(&fitted.item_factors.t());
    for ((user, item), score) in scores.indexed_iter() {
        let same = (user + item) % 2 == 0;
        assert!(if same { *score > 0.5 } else { *score < 0.2 }, "user {user}, item {item}: {score}");
    }
}

#[test]
fn planted_groups_are_found() {
    // Four groups; each user has about a third of the items of its group.
    let third = scattered(80, 60, 3);
    let dense = Array2::from_shape_fn((80, 60), |(u, i)| if u % 4 == i % 4 { third[[u, i]] } else { 0.0 });
    let fitted = quietly(&recipe(8, 10, 0.03, 0.1), &sparse(&dense)).unwrap();
    let scores = fitted.user_factors.dot(&fitted.item_factors.t());
    let mean = |same: bool| {
        let chosen = scores.indexed_iter().filter(|((u, i), _)| (u % 4 == i % 4) == same && dense[[*u, *i]] == 0.0);
        let (sum, count) = chosen.fold((0f32, 0f32), |(sum, count), (_, score)| (sum + score, count + 1.0));
        sum / count
    };
    assert!(mean(true) > 5.0 * mean(false).abs(), "{} {}", mean(true), mean(false));
}

#[test]
fn a_pattern_of_rank_at_most_d_is_rebuilt() {
    // Eight distinct rows: rank 8. With next to no penalty and no pull of the rest, observed scores become 1 and, with
    // a slight pull, the others 0.
    let dense = Array2::from_shape_fn((64, 48), |(u, i)| if (i * (u % 8 + 1) + i / 5) % 3 == 0 { 1e6 } else { 0.0 });
    let fitted = quietly(&recipe(12, 80, 1e-6, 0.1), &sparse(&dense)).unwrap();
    let scores = fitted.user_factors.dot(&fitted.item_factors.t());
    for ((user, item), score) in scores.indexed_iter() {
        let expected = if dense[[user, item]] > 0.0 { 1.0 } else { 0.0 };
        assert!((score - expected).abs() < 0.03, "user {user}, item {item}: {score}");
    }
}

#[test]
fn empty_row_gets_zero_factors() {
    let by_user = sparse(&array![[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
    let fitted = quietly(&recipe(4, 3, 0.1, 0.1), &by_user).unwrap();
    assert!(fitted.user_factors.row(1).iter().all(|x| *x == 0.0));
    assert!(fitted.item_factors.row(1).iter().all(|x| *x == 0.0));
    assert!(fitted.user_factors.row(0).iter().any(|x| *x != 0.0));
}

#[test]
fn no_rows_no_columns_and_no_pairs_are_fitted() {
    for (users, items) in [(0, 0), (0, 3), (3, 0), (2, 2)] {
        let none = Csr::new(vec![0; users + 1], vec![], vec![], items).unwrap();
        let fitted = quietly(&recipe(32, 2, 0.1, 0.1), &none).unwrap();
        assert_eq!((fitted.user_factors.dim(), fitted.item_factors.dim()), ((users, 32), (items, 32)));
        assert_eq!(fitted.loss, [0.0, 0.0]);
    }
}

#[test]
fn d_larger_than_users_and_items_is_fitted() {
    let dense = array![[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]];
    let fitted = quietly(&recipe(64, 20, 0.01, 0.1), &sparse(&dense)).unwrap();
    let scores = fitted.user_factors.dot(&fitted.item_factors.t());
    assert!(scores[[0, 0]] > 0.5 && scores[[0, 1]].abs() < 0.1, "{scores}");
}

#[test]
fn user_factors_are_what_fold_in_gives_bit_for_bit() {
    let by_user = sparse(&scattered(150, 90, 5));
    let recipe = recipe(32, 2, 0.05, 0.1);
    let fitted = quietly(&recipe, &by_user).unwrap();
    assert_eq!(fold_in(&recipe, fitted.item_factors.view(), &by_user).unwrap(), fitted.user_factors);
    for user in [0, 77, 149] {
        let (items, values) = by_user.row(user);
        let alone = Csr::new(vec![0, items.len()], items.to_vec(), values.to_vec(), 90).unwrap();
        let state = fold_in(&recipe, fitted.item_factors.view(), &alone).unwrap();
        assert_eq!(state.row(0), fitted.user_factors.row(user));
    }
}

#[test]
fn without_penalty_an_open_row_is_named_with_the_cure() {
    // No pull from unobserved pairs and no penalty: one pair cannot fix two factors.
    let error = quietly(&recipe(2, 1, 0.0, 0.0), &sparse(&array![[1.0, 1.0], [0.0, 1.0]])).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotPositiveDefinite { side: "user", row: 0, .. }
                | Error::NotPositiveDefinite { side: "user", row: 1, .. }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("raise regularization"));
}

#[test]
fn huge_weights_stay_finite_because_they_are_damped() {
    let fitted = quietly(&recipe(4, 3, 0.01, 0.1), &sparse(&array![[1e38, 1e-38], [1.0, 3e38]])).unwrap();
    assert!(fitted.user_factors.iter().chain(&fitted.item_factors).all(|x| x.is_finite()));
}

#[test]
fn factors_that_are_not_finite_are_named() {
    let by_user = sparse(&array![[1.0, 1.0]]);
    let mut items = Array2::ones((2, 32));
    items[[1, 5]] = f32::INFINITY;
    let error =
        fold_in(&ItemAffinity { hidden_dimension: 32, ..Default::default() }, items.view(), &by_user).unwrap_err();
    assert_eq!(error, Error::NotFinite { what: "an item factor", row: 1, iteration: None });
}

#[test]
fn contradictions_and_negative_weights_are_refused() {
    let (wide, tall) = (sparse(&array![[1.0, 1.0]]), sparse(&array![[1.0], [1.0]]));
    let recipe = ItemAffinity { hidden_dimension: 32, ..Default::default() };
    let mut quiet = |_| ControlFlow::Continue(());
    assert!(matches!(fit(&recipe, &wide, &wide, &mut quiet), Err(Error::Shape { .. })));
    let negative = Csr::new(vec![0, 1], vec![0], vec![-1.0], 2).unwrap();
    assert!(matches!(quietly(&recipe, &negative), Err(Error::OutOfRange { .. })));
    let small = ItemAffinity { hidden_dimension: 2, ..Default::default() };
    assert!(matches!(fit(&small, &wide, &tall, &mut quiet), Err(Error::OutOfRange { name: "hidden_dimension", .. })));
    let items = Array2::zeros((2, 33));
    assert!(matches!(fold_in(&recipe, items.view(), &wide), Err(Error::Shape { expected: 32, actual: 33, .. })));
    assert!(matches!(fold_in(&recipe, Array2::zeros((3, 32)).view(), &wide), Err(Error::Shape { .. })));
}

#[test]
fn the_observer_sees_every_iteration_and_can_stop() {
    let by_user = sparse(&scattered(20, 20, 3));
    let mut seen = vec![];
    let fitted = watched(&recipe(4, 3, 0.1, 0.1), &by_user, |now| {
        seen.push(now);
        ControlFlow::Continue(())
    })
    .unwrap();
    let losses: Vec<_> = seen.iter().filter_map(|now| now.loss.map(|loss| (now.iteration, loss))).collect();
    assert_eq!(losses, [(1, fitted.loss[0]), (2, fitted.loss[1]), (3, fitted.loss[2])]);
    assert!(seen.iter().all(|now| now.iterations == 3) && seen.is_sorted_by_key(|now| now.iteration));
    let stopped = watched(&recipe(4, 3, 0.1, 0.1), &by_user, |now| {
        if now.iteration == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap_err(), Error::Cancelled);
}

#[test]
fn a_refit_goes_on_where_the_fit_ended() {
    let by_user = sparse(&scattered(40, 30, 5));
    let by_item = by_user.transpose();
    let settings = |iterations| ItemAffinity { hidden_dimension: 32, iterations, ..ItemAffinity::default() };
    let go_on = &mut |_: Iteration| ControlFlow::Continue(());
    let whole = fit(&settings(5), &by_user, &by_item, go_on).unwrap();
    let half = fit(&settings(3), &by_user, &by_item, go_on).unwrap();
    let rest = refit(&settings(2), &by_user, &by_item, half.item_factors.view(), go_on).unwrap();
    assert!(rest.loss[0] < half.loss[2], "{:?} {:?}", rest.loss, half.loss);
    for (rest, whole) in rest.loss.iter().zip(&whole.loss[3..]) {
        assert!((rest - whole).abs() < 1e-2 * whole, "{rest} {whole}");
    }
    let others = Array2::zeros((29, 32));
    assert!(matches!(refit(&settings(1), &by_user, &by_item, others.view(), go_on), Err(Error::Shape { .. })));
}
