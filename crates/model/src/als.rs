//! Fits the factors of users and items by alternating half-steps.

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayView1, ArrayView2};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::attributes::{Attributes, SideInformation};
use crate::csr::Csr;
use crate::error::{Error, Result, same_length};
use crate::fixed::Fixed;
use crate::half_step::{Method, Solved};
use crate::observed::Observed;
use crate::recipe::ItemAffinity;
use crate::side_information::Regression;

/// The hidden variables of all users and items.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// users × hidden_dimension; for a user without pairs its prior mean, or zeros.
    pub user_factors: Array2<f32>,
    /// items × hidden_dimension; for an item without pairs its prior mean, or zeros.
    pub item_factors: Array2<f32>,
    /// The objective after each iteration; without side information it does not rise.
    pub loss: Vec<f64>,
    /// What each feature of the items adds to the prior mean of an item's factors, features × hidden_dimension, as it
    /// was in the last half-step; none without item attributes.
    pub item_weights: Option<Array2<f32>>,
    /// The same for users.
    pub user_weights: Option<Array2<f32>>,
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
/// An iteration solves all items, then all users: by steps of conjugate gradients to within 3 % of the way, and in the
/// last half-step to the solution. So the user factors are what [`fold_in`](crate::fold_in()) gives for the same
/// histories and the final item factors.
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
/// An iteration takes about 12·nnz·d multiply-adds, and (users + items)·d² for each side, on all threads of the current
/// rayon pool; the last half-step twice its share. Besides the result: 4 bytes per pair in each direction, one more
/// copy of the larger side's factors. The bits of the result are the same for any number of threads.
/// # Source
/// Hu, Koren, Volinsky, *Collaborative filtering for implicit feedback datasets*, 2008, eq. 3; penalties by frequency:
/// Rendle, Krichene, Zhang, Koren, *Revisiting the performance of iALS on item recommendation benchmarks*, 2021, eq. 4;
/// conjugate gradients for it: Takács, Pilászy, Tikk, *Applications of the conjugate gradient method for implicit
/// feedback collaborative filtering*, 2011
pub fn fit(
    recipe: &ItemAffinity,
    by_user: &Csr,
    by_item: &Csr,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    fit_with(recipe, by_user, by_item, None, None, observer)
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
    fit_with(recipe, by_user, by_item, None, Some(item_factors), observer)
}

/// [`fit`] with what is known about items and users, and from given item factors if there are any.
///
/// Rows with attributes are drawn to what these lead to expect instead of to zero: `λ_i |y_i − Wᵀf_i|²` takes the
/// place of `λ_i |y_i|²`, with W from a regression of the factors on the features. W is refreshed before each
/// half-step from the factors that the half-step is about to replace, so the losses of two iterations are not of
/// the same objective: each is that of the priors it was solved with. While W stands still the objective never rises.
/// A row without pairs gets its prior mean; the other side sees it among the pairs without interaction.
///
/// Without side information the result is that of [`fit`] or [`refit`], bit for bit.
///
/// # Shapes
/// side: one row of attributes per item and per user; item_factors: items × hidden_dimension
/// # Units
/// as [`fit`]
/// # Errors
/// those of [`fit`] and [`refit`]; [`Error::Shape`] for attributes of other rows
/// # Cost
/// as [`fit`]; for each side with attributes also, in each iteration, up to 11·nnz·d multiply-adds with the nnz of its
/// features, and one more copy of its factors. The bits are the same for any number of threads.
/// # Source
/// Agarwal, Chen, *Regression-based latent factor models*, 2009
pub fn fit_with(
    recipe: &ItemAffinity,
    by_user: &Csr,
    by_item: &Csr,
    side: Option<&SideInformation>,
    item_factors: Option<ArrayView2<'_, f32>>,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    recipe.validate()?;
    if let Some(known) = &item_factors {
        same_length("item_factors", by_item.rows(), known.nrows())?;
        same_length("an item factor", recipe.hidden_dimension, known.ncols())?;
    }
    let start = item_factors.map_or(Start::Random, |known| Start::Items(known.to_owned()));
    fit_valid(recipe, by_user, by_item, side, start, observer)
}

/// What a fit goes on from.
pub(crate) enum Start {
    /// Random item factors, and the user factors that belong to them.
    Random,
    /// items × hidden_dimension, and the user factors that belong to them.
    Items(Array2<f32>),
    /// Both sides of a fit to almost the same pairs: a half-step less.
    Factors { user_factors: Array2<f32>, item_factors: Array2<f32> },
}

/// [`fit_with`] for a recipe that is known to be valid, or small on purpose, and factors of these users and items.
pub(crate) fn fit_valid(
    recipe: &ItemAffinity,
    by_user: &Csr,
    by_item: &Csr,
    side: Option<&SideInformation>,
    start: Start,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<Factors> {
    same_length("by_item", by_user.columns(), by_item.rows())?;
    same_length("by_user", by_item.columns(), by_user.rows())?;
    same_length("by_item", by_user.nnz(), by_item.nnz())?;
    let (users, items) = (Observed::new(by_user, "user")?, Observed::new(by_item, "item")?);
    let mut user_side = Side::new(&users, side.and_then(|side| side.users.as_ref()))?;
    let mut item_side = Side::new(&items, side.and_then(|side| side.items.as_ref()))?;
    let mut report = |iteration, loss| match observer(Iteration { iteration, iterations: recipe.iterations, loss }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    };
    let mut loss = Vec::with_capacity(recipe.iterations);
    report(0, None)?;
    // A random start says nothing about attributes.
    let mut informed = !matches!(start, Start::Random);
    let mut users_of = |items: &Array2<f32>| user_side.half_step(items.view(), recipe, Method::Near, None, None);
    let (mut user_factors, mut item_factors) = match start {
        Start::Factors { user_factors, item_factors } => (user_factors, item_factors),
        Start::Items(items) => (users_of(&items)?.factors, items),
        Start::Random => {
            let items = random(recipe, by_item);
            (users_of(&items)?.factors, items)
        }
    };
    for iteration in 1..=recipe.iterations {
        report(iteration - 1, None)?;
        if informed {
            item_side.learn(item_factors.view())?;
        }
        let (users, replaced) = (user_factors.view(), Some(item_factors));
        item_factors = item_side.half_step(users, recipe, Method::Near, replaced, Some(iteration))?.factors;
        informed = true;
        report(iteration - 1, None)?;
        user_side.learn(user_factors.view())?;
        // The last is exact, so that folding in gives the same.
        let method = if iteration == recipe.iterations { Method::Exact } else { Method::Near };
        let (items, replaced) = (item_factors.view(), Some(user_factors));
        let solved = user_side.half_step(items, recipe, method, replaced, Some(iteration))?;
        user_factors = solved.factors;
        let value = solved.loss + item_side.penalty(item_factors.view(), recipe);
        loss.push(value);
        report(iteration, Some(value))?;
    }
    let (item_weights, user_weights) = (item_side.weights, user_side.weights);
    Ok(Factors { user_factors, item_factors, loss, item_weights, user_weights })
}

/// The rows of one side with what their attributes lead to expect.
struct Side<'a> {
    observed: &'a Observed<'a>,
    regression: Option<Regression<'a>>,
    weights: Option<Array2<f32>>,
    means: Option<Array2<f32>>,
    /// The other side of the last half-step, whose memory the next one takes.
    fixed: Option<Fixed>,
}

impl<'a> Side<'a> {
    fn new(observed: &'a Observed<'a>, attributes: Option<&'a Attributes>) -> Result<Self> {
        let regression = attributes.map(|attributes| Regression::new(attributes, observed)).transpose()?;
        Ok(Self { observed, regression, weights: None, means: None, fixed: None })
    }

    /// Refreshes the prior from the factors of the last half-step.
    fn learn(&mut self, factors: ArrayView2<'_, f32>) -> Result<()> {
        if let Some(regression) = &self.regression {
            let weights = regression.solve(factors, self.weights.take())?;
            self.means = Some(regression.attributes().prior_means(weights.view())?);
            self.weights = Some(weights);
        }
        Ok(())
    }

    fn half_step(
        &mut self,
        other: ArrayView2<'_, f32>,
        recipe: &ItemAffinity,
        method: Method,
        replaced: Option<Array2<f32>>,
        iteration: Option<usize>,
    ) -> Result<Solved> {
        let fixed = Fixed::in_place_of(self.fixed.take(), other, self.observed.other_side(), iteration)?;
        let means = self.means.as_ref().map(|means| means.view());
        let solved = fixed.solve(self.observed, recipe, means, method, replaced, iteration);
        self.fixed = Some(fixed);
        solved
    }

    /// `Σ λ |y − m|²` over the rows; without a prior m is zero.
    fn penalty(&self, factors: ArrayView2<'_, f32>, recipe: &ItemAffinity) -> f64 {
        let square = |row: usize, y: ArrayView1<'_, f32>| match &self.means {
            Some(means) => {
                let pairs = y.into_iter().zip(means.row(row));
                pairs.map(|(y, mean)| (f64::from(*y) - f64::from(*mean)).powi(2)).sum::<f64>()
            }
            None => y.iter().map(|y| f64::from(*y) * f64::from(*y)).sum::<f64>(),
        };
        let rows = factors.rows().into_iter().enumerate();
        rows.map(|(row, y)| self.observed.penalty(row, recipe) * square(row, y)).sum()
    }
}

/// Small random item factors, by the seed alone; zeros for an item without pairs.
fn random(recipe: &ItemAffinity, by_item: &Csr) -> Array2<f32> {
    let mut numbers = StdRng::seed_from_u64(recipe.seed);
    #[allow(clippy::cast_precision_loss)] // at most 256
    let size = 0.1 / (recipe.hidden_dimension as f32).sqrt();
    let mut factors = Array2::zeros((by_item.rows(), recipe.hidden_dimension));
    for (mut row, bounds) in factors.rows_mut().into_iter().zip(by_item.indptr().windows(2)) {
        if bounds[0] < bounds[1] {
            row.iter_mut().for_each(|value| *value = numbers.random_range(-size..size));
        }
    }
    factors
}

#[cfg(test)]
#[path = "als_tests.rs"]
mod tests;
