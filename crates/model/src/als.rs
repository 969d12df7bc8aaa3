//! Fits the factors of users and items by alternating exact half-steps.

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayView2};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::csr::Csr;
use crate::error::{Error, Result, same_length};
use crate::half_step::{Fixed, Solved};
use crate::observed::Observed;
use crate::recipe::ItemAffinity;

/// The hidden variables of all users and items.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// users × hidden_dimension; zeros for a user without pairs.
    pub user_factors: Array2<f32>,
    /// items × hidden_dimension; zeros for an item without pairs.
    pub item_factors: Array2<f32>,
    /// The objective after each iteration; it never rises.
    pub loss: Vec<f64>,
}

/// How far a fit has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Iteration {
    /// Iterations done, from 0.
    pub iteration: usize,
    /// Iterations to be done.
    pub iterations: usize,
    /// The objective at the end of an iteration; none while one is under way.
    pub loss: Option<f64>,
}

/// Finds factors whose product says how strongly each user is drawn to each item.
///
/// They minimize, over the observed pairs with confidence c and over all pairs with the small weight w₀,
/// ```text
/// Σ_observed c_ui (1 − x_u·y_i)² + w₀ Σ_all (x_u·y_i)² + Σ_u λ_u |x_u|² + Σ_i λ_i |y_i|²
///
/// c_ui = log(1 + v_ui)                           v_ui: the sum of the weights of the pair's events
/// λ_u  = regularization · (Σ_i c_ui + w₀ · items)         and likewise λ_i with the number of users
/// ```
/// The logarithm damps counts: the hundredth purchase says less about taste than the first. The penalty grows with
/// the evidence, so that one setting serves rare and popular items, and data sets of any size.
///
/// An iteration solves all items, then all users, exactly. So the user factors are what [`fold_in`](crate::fold_in())
/// gives for the same histories and the final item factors.
///
/// # Shapes
/// by_user: users × items; by_item: its transpose
/// # Units
/// values of the matrices: sums of event weights, at least 0; factors and losses: dimensionless
/// # Errors
/// [`Error::OutOfRange`] from the recipe or a negative weight, [`Error::Shape`] if the matrices contradict each other,
/// [`Error::NotPositiveDefinite`] without regularization for a row that leaves factors open, [`Error::NotFinite`] with
/// iteration and row, [`Error::Cancelled`] when the observer breaks.
/// # Cost
/// An iteration takes about nnz·d² multiply-adds, less for rows shorter than d, on all threads of the current rayon
/// pool. Besides the result: 4 bytes per pair in each direction, and one more copy of the larger side's factors twice.
/// The bits of the result are the same for any number of threads.
/// # Source
/// Hu, Koren, Volinsky, *Collaborative filtering for implicit feedback datasets*, 2008, eq. 3; penalties by frequency:
/// Rendle, Krichene, Zhang, Koren, *Revisiting the performance of iALS on item recommendation benchmarks*, 2021, eq. 4
pub fn fit(
    recipe: &ItemAffinity,
    by_user: &Csr,
    by_item: &Csr,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    recipe.validate()?;
    fit_valid(recipe, by_user, by_item, None, observer)
}

/// [`fit`] that starts from the item factors of an earlier fit instead of random ones: a few iterations then do.
///
/// # Shapes
/// item_factors: items × hidden_dimension
/// # Errors
/// those of [`fit`]; [`Error::Shape`] for item factors of other items
pub fn refit(
    recipe: &ItemAffinity,
    by_user: &Csr,
    by_item: &Csr,
    item_factors: ArrayView2<'_, f32>,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    recipe.validate()?;
    same_length("item_factors", by_item.rows(), item_factors.nrows())?;
    same_length("an item factor", recipe.hidden_dimension, item_factors.ncols())?;
    fit_valid(recipe, by_user, by_item, Some(item_factors), observer)
}

/// [`fit`] for a recipe that is known to be valid, or small on purpose.
pub(crate) fn fit_valid(
    recipe: &ItemAffinity,
    by_user: &Csr,
    by_item: &Csr,
    known: Option<ArrayView2<'_, f32>>,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    same_length("by_item", by_user.columns(), by_item.rows())?;
    same_length("by_user", by_item.columns(), by_user.rows())?;
    same_length("by_item", by_user.nnz(), by_item.nnz())?;
    let (users, items) = (Observed::new(by_user, "user")?, Observed::new(by_item, "item")?);
    let mut report = |iteration, loss| match observer(Iteration { iteration, iterations: recipe.iterations, loss }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    };
    let mut loss = Vec::with_capacity(recipe.iterations);
    report(0, None)?;
    let mut item_factors = known.map_or_else(|| start(recipe, by_item), |known| known.to_owned());
    let mut user_factors = half_step(&users, item_factors.view(), recipe, None)?.factors;
    for iteration in 1..=recipe.iterations {
        report(iteration - 1, None)?;
        item_factors = half_step(&items, user_factors.view(), recipe, Some(iteration))?.factors;
        report(iteration - 1, None)?;
        let solved = half_step(&users, item_factors.view(), recipe, Some(iteration))?;
        user_factors = solved.factors;
        let value = solved.loss + penalty(&items, item_factors.view(), recipe);
        loss.push(value);
        report(iteration, Some(value))?;
    }
    Ok(Factors { user_factors, item_factors, loss })
}

fn half_step(
    rows: &Observed<'_>,
    fixed: ArrayView2<'_, f32>,
    recipe: &ItemAffinity,
    iteration: Option<usize>,
) -> Result<Solved> {
    let other = if rows.side == "user" { "item" } else { "user" };
    Fixed::new(fixed, other, iteration)?.solve(rows, recipe, iteration)
}

/// Small random item factors, by the seed alone; zeros for an item without pairs.
fn start(recipe: &ItemAffinity, by_item: &Csr) -> Array2<f32> {
    let mut random = StdRng::seed_from_u64(recipe.seed);
    #[allow(clippy::cast_precision_loss)] // at most 256
    let size = 0.1 / (recipe.hidden_dimension as f32).sqrt();
    let mut factors = Array2::zeros((by_item.rows(), recipe.hidden_dimension));
    for (mut row, bounds) in factors.rows_mut().into_iter().zip(by_item.indptr().windows(2)) {
        if bounds[0] < bounds[1] {
            row.iter_mut().for_each(|value| *value = random.random_range(-size..size));
        }
    }
    factors
}

/// `Σ λ |y|²` over the rows.
fn penalty(rows: &Observed<'_>, factors: ArrayView2<'_, f32>, recipe: &ItemAffinity) -> f64 {
    let square = |row: ndarray::ArrayView1<'_, f32>| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    factors.rows().into_iter().enumerate().map(|(row, x)| rows.penalty(row, recipe) * square(x)).sum()
}

#[cfg(test)]
#[path = "als_tests.rs"]
mod tests;
