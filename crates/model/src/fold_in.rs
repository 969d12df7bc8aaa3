//! User states from the users' own histories and fixed item factors.

use ndarray::{Array2, ArrayView2};

use crate::csr::Csr;
use crate::error::{Result, same_length};
use crate::fixed::Fixed;
use crate::half_step::Method;
use crate::observed::Observed;
use crate::recipe::ItemAffinity;

/// Gives user factors for histories, also of users that training never saw.
///
/// Each user gets the solution of the same equations as in [`fit`](crate::fit()), to rounding in f32, independent of who
/// else is asked for; a user without history gets zeros.
///
/// # Shapes
/// item_factors: items × hidden_dimension; histories: users × items, values as for [`fit`](crate::fit());
/// out: users × hidden_dimension
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the items differ, and those of [`fit`](crate::fit())
/// # Cost
/// The last half-step of the fit. For many blocks of users keep a [`FoldIn`], which prepares the items once.
/// # Source
/// Hu, Koren, Volinsky 2008, eq. 4
pub fn fold_in(recipe: &ItemAffinity, item_factors: ArrayView2<'_, f32>, histories: &Csr) -> Result<Array2<f32>> {
    FoldIn::new(recipe, item_factors)?.fold_in(histories, None)
}

/// Item factors prepared to give user factors, block after block; shared by threads.
pub struct FoldIn {
    recipe: ItemAffinity,
    items: usize,
    fixed: Fixed,
}

impl FoldIn {
    /// Prepares the items.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) from the recipe, [`Error::Shape`](crate::Error::Shape) unless
    /// the factors are as long as its hidden dimension, [`Error::NotFinite`](crate::Error::NotFinite)
    /// # Cost
    /// 1.5·items·d² multiply-adds and a copy of the item factors
    pub fn new(recipe: &ItemAffinity, item_factors: ArrayView2<'_, f32>) -> Result<Self> {
        recipe.validate()?;
        same_length("an item factor", recipe.hidden_dimension, item_factors.ncols())?;
        let fixed = Fixed::new(item_factors, "item", None)?;
        Ok(Self { recipe: recipe.clone(), items: item_factors.nrows(), fixed })
    }

    /// User factors for a block of histories, as [`fold_in`].
    ///
    /// With prior means a user is drawn to its own instead of zero, and one without history gets it as it is. A user
    /// whose prior mean is all zeros is solved as without one.
    ///
    /// # Shapes
    /// histories: users × items; prior: users × hidden_dimension, from
    /// [`Attributes::prior_means`](crate::Attributes::prior_means)
    /// # Errors
    /// as [`fold_in`]; [`Error::Shape`](crate::Error::Shape) and [`Error::NotFinite`](crate::Error::NotFinite) also for
    /// the prior
    pub fn fold_in(&self, histories: &Csr, prior: Option<ArrayView2<'_, f32>>) -> Result<Array2<f32>> {
        same_length("histories", self.items, histories.columns())?;
        if let Some(prior) = &prior {
            same_length("prior", histories.rows(), prior.nrows())?;
            same_length("a prior mean", self.recipe.hidden_dimension, prior.ncols())?;
        }
        let users = Observed::new(histories, "user")?;
        Ok(self.fixed.solve(&users, &self.recipe, prior, Method::Exact, None, None)?.factors)
    }
}
