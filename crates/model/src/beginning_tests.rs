#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Groups of six items; users of a few groups each, who take some of their items before the window and the rest in it.
fn log(users: usize, groups: u32, each: usize) -> [Csr; 2] {
    let mut random = StdRng::seed_from_u64(3);
    let (mut known, mut held_out) = (vec![Vec::new(); users], vec![Vec::new(); users]);
    for (known, held_out) in known.iter_mut().zip(&mut held_out) {
        for group in (0..each).map(|_| random.random_range(0..groups)).collect::<BTreeSet<_>>() {
            for item in group * 6..group * 6 + 6 {
                if random.random_bool(0.6) { known.push(item) } else { held_out.push(item) }
            }
        }
    }
    [known, held_out].map(|rows| {
        let mut indptr = vec![0];
        indptr.extend(rows.iter().scan(0, |end, row| {
            *end += row.len();
            Some(*end)
        }));
        let indices = rows.concat();
        let values = vec![1.0; indices.len()];
        Csr::new(indptr, indices, values, groups as usize * 6).unwrap()
    })
}

fn recipe(regularization: Option<f32>) -> ItemAffinity {
    ItemAffinity { hidden_dimension: 64, regularization, ..ItemAffinity::default() }
}

fn begun(recipe: &ItemAffinity, [known, held_out]: &[Csr; 2]) -> Beginning {
    begin(recipe, known, &known.transpose(), held_out, MOST_PAIRS, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn the_regularization_is_the_one_that_the_window_asks_for() {
    let chosen = |log| begun(&recipe(None), &log).regularization;
    // With few groups the usual pull learns them; with many it takes the last of them for chance.
    assert_eq!([chosen(log(800, 60, 4)), chosen(log(2_000, 300, 6))], [REGULARIZATION, WEAKER_REGULARIZATION]);
}

#[test]
fn a_training_goes_on_from_the_fit_that_was_chosen() {
    let log = log(800, 60, 4);
    let (free, set) = (begun(&recipe(None), &log), begun(&recipe(Some(REGULARIZATION)), &log));
    assert_eq!(free.regularization, set.regularization);
    assert_eq!(free.item_factors, set.item_factors);
    assert_ne!(set.item_factors, begun(&recipe(Some(0.3)), &log).item_factors);
}

#[test]
fn a_sample_has_whole_users_with_what_they_do_later() {
    let [known, held_out] = log(2_000, 60, 4);
    let recipe = recipe(None);
    let share = 0.4;
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
    let most = |share: f64| (known.nnz() as f64 * share) as usize;
    let (some, later) = sample(&recipe, &known, &held_out, most(share)).unwrap();
    let drawn: Vec<usize> =
        (0..2_000u32).filter(|user| uniform(1, *user, 0) < share).map(|user| user as usize).collect();
    assert!((700..900).contains(&drawn.len()), "{}", drawn.len());
    assert_eq!((some.rows(), later.rows()), (drawn.len(), drawn.len()));
    for (at, user) in drawn.into_iter().enumerate() {
        assert_eq!((some.row(at), later.row(at)), (known.row(user), held_out.row(user)));
    }
    assert!(sample(&recipe, &known, &held_out, known.nnz()).is_none(), "all of them");
    assert!(sample(&recipe, &known, &held_out, most(0.1)).is_none(), "two hundred users");
}

#[test]
fn a_row_without_a_solution_is_named_as_it_stands_in_the_whole() {
    let [known, held_out] = log(2_000, 60, 4);
    let nobody = 50;
    let indptr = known.indptr().iter().map(|at| at.saturating_sub(known.indptr()[nobody])).collect();
    let entries = known.indptr()[nobody]..;
    let (indices, values) = (known.indices()[entries.clone()].to_vec(), known.values()[entries].to_vec());
    let known = Csr::new(indptr, indices, values, known.columns()).unwrap();
    let open = ItemAffinity { unobserved_weight: 0.0, ..recipe(Some(0.0)) };
    let mut go_on = |_| ControlFlow::Continue(());
    let found = begin(&open, &known, &known.transpose(), &held_out, known.nnz() / 2, &mut go_on).unwrap_err();
    assert_eq!(found, Error::NotPositiveDefinite { side: "user", row: nobody, iteration: None });
    let mut stop = |_| ControlFlow::Break(());
    let usual = recipe(Some(REGULARIZATION));
    let stopped = begin(&usual, &known, &known.transpose(), &held_out, known.nnz() / 2, &mut stop).unwrap_err();
    assert_eq!(stopped, Error::Cancelled);
}

/// Whoever begins, the fit to all comes to the same objective.
#[test]
fn a_fit_that_a_sample_began_comes_as_low_as_one_from_nothing() {
    let [known, held_out] = log(3_000, 60, 4);
    let by_item = known.transpose();
    let recipe = ItemAffinity { iterations: 2, ..recipe(Some(REGULARIZATION)) };
    let (some, later) = sample(&recipe, &known, &held_out, known.nnz() / 4).unwrap();
    let start = begin_with(&recipe, &some, &some.transpose(), &later, &mut |_| ControlFlow::Continue(())).unwrap();
    let fit = |start, iterations| {
        let recipe = ItemAffinity { iterations, ..recipe.clone() };
        fit_valid(&recipe, &known, &by_item, None, start, &mut |_| ControlFlow::Continue(())).unwrap().loss
    };
    let (begun, whole) = (fit(Start::Items(start.item_factors), 2), fit(Start::Random, 4));
    assert!(begun[1] <= whole[3] * 1.002, "{begun:?} {whole:?}");
    assert!(whole[1] > whole[3] * 1.002, "two iterations do without a beginning: {whole:?}");
}
