//! Reasons for an affinity: what each past item of a user adds to it, exactly.

use ndarray::ArrayView2;

use crate::csr::Csr;
use crate::error::{Error, Result, same_length};
use crate::fixed::Fixed;
use crate::linalg::{add_inner_f64, factor_f64, solve_factored_f64};
use crate::observed::Observed;
use crate::recipe::ItemAffinity;

/// Entries of a history that are added at once.
const PANEL_ROWS: usize = 128;
/// A direction in which the equations are below this share of the strongest is rounding noise of the factors.
const NOISE: f64 = f32::EPSILON as f64;

/// What a past item adds to the affinity of a user for an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reason {
    /// The past item.
    pub item_index: u32,
    /// Its part of the affinity; below 0 if it speaks against the item.
    pub share: f32,
}

/// Why a user has an affinity for an item: `affinity = prior_share + Σ shares over the whole history`.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The item that was asked for.
    pub item_index: u32,
    /// The product of the factors of the user and the item.
    pub affinity: f32,
    /// The part that comes from the attributes of the user; 0 without a prior.
    pub prior_share: f32,
    /// The past items with the largest shares, largest first, then by item.
    pub reasons: Vec<Reason>,
}

/// Item factors prepared to explain affinities, user after user; shared by threads.
pub struct Explainer {
    recipe: ItemAffinity,
    items: usize,
    fixed: Fixed,
}

impl Explainer {
    /// Prepares the items.
    ///
    /// # Errors
    /// # Cost
    /// those of [`FoldIn::new`](crate::FoldIn::new)
    pub fn new(recipe: &ItemAffinity, item_factors: ArrayView2<'_, f32>) -> Result<Self> {
        recipe.validate()?;
        same_length("an item factor", recipe.hidden_dimension, item_factors.ncols())?;
        let fixed = Fixed::new(item_factors, "item", None)?;
        Ok(Self { recipe: recipe.clone(), items: item_factors.nrows(), fixed })
    }

    /// The `count` largest reasons for the affinity of one user for each of some items.
    ///
    /// A folded-in user solves `A_u x_u = Σ_j c_uj y_j + λ_u m_u`, so that with `w = A_u⁻¹ y_i`
    /// ```text
    /// x_u · y_i = Σ_j c_uj (w · y_j) + λ_u (w · m_u)
    /// ```
    /// where the sum runs over the user's past items j. The parts are exact; they are worked out in f64, and agree with
    /// the affinity of the factors from [`FoldIn::fold_in`](crate::FoldIn::fold_in) up to the rounding of those.
    ///
    /// # Shapes
    /// history: items, ascending, and values, as in the user's row of the matrix that it was folded in with;
    /// prior: hidden_dimension, the mean that it was folded in with; out: one entry per asked item, in their order
    /// # Errors
    /// [`Error::Shape`], [`Error::Unsorted`], [`Error::OutOfRange`] and [`Error::NotFinite`] for a bad history, prior or
    /// item; [`Error::NotPositiveDefinite`] as for folding in
    /// # Cost
    /// With n past items and d hidden dimensions `n·d²/2 + d³/6` multiply-adds for the user and `n·d + d²` for each asked
    /// item, or `n²·d/2 + n³/6` and `n·d + n²` if that is less, on the calling thread; 8 bytes times
    /// `d·min(n, d) + (n + d)·items` of memory at most
    /// # Source
    /// Hu, Koren, Volinsky 2008, section 5
    pub fn reasons(
        &self,
        history: (&[u32], &[f32]),
        prior: Option<&[f32]>,
        items: &[u32],
        count: usize,
    ) -> Result<Vec<Explanation>> {
        let (past, values) = history;
        let history = Csr::new(vec![0, past.len()], past.to_vec(), values.to_vec(), self.items)?;
        let observed = Observed::new(&history, "user")?;
        if let Some(item) = items.iter().find(|item| **item as usize >= self.items) {
            return Err(Error::out_of_range("item", item, format!("[0, {})", self.items)));
        }
        let mean = prior.map(|prior| self.along_axes(prior)).transpose()?.unwrap_or_default();
        let parts = User::new(self, &observed, mean).parts(items)?;
        Ok(items.iter().zip(parts).map(|(item, parts)| parts.explain(*item, past, count)).collect())
    }

    fn along_axes(&self, prior: &[f32]) -> Result<Vec<f64>> {
        same_length("a prior mean", self.fixed.d, prior.len())?;
        if prior.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { what: "the prior mean of a user", row: 0, iteration: None });
        }
        Ok(self.fixed.axes.enter(prior).into_iter().map(f64::from).collect())
    }

    /// The factors of an item along the axes.
    fn factors(&self, item: u32) -> &[f32] {
        self.fixed.column(item)
    }
}

/// The parts of one affinity.
struct Parts {
    /// By past item.
    shares: Vec<f64>,
    prior: f64,
}

impl Parts {
    #[allow(clippy::cast_possible_truncation)]
    fn explain(self, item: u32, past: &[u32], count: usize) -> Explanation {
        let affinity = self.prior + self.shares.iter().sum::<f64>();
        let mut reasons: Vec<Reason> = (past.iter().zip(&self.shares))
            .map(|(item, share)| Reason { item_index: *item, share: *share as f32 })
            .collect();
        let rank = |a: &Reason, b: &Reason| b.share.total_cmp(&a.share).then(a.item_index.cmp(&b.item_index));
        if count > 0 && count < reasons.len() {
            reasons.select_nth_unstable_by(count - 1, rank);
        }
        reasons.truncate(count);
        reasons.sort_unstable_by(rank);
        Explanation { item_index: item, affinity: affinity as f32, prior_share: self.prior as f32, reasons }
    }
}

/// The equations of one user along the axes of the item factors.
struct User<'a> {
    with: &'a Explainer,
    past: &'a [u32],
    confidence: &'a [f32],
    /// The part `w₀ YᵀY + λ I`, which is diagonal there.
    diagonal: Vec<f64>,
    penalty: f64,
    /// Empty without a prior.
    mean: Vec<f64>,
}

impl<'a> User<'a> {
    fn new(with: &'a Explainer, observed: &'a Observed<'_>, mean: Vec<f64>) -> Self {
        let (past, confidence) = observed.row(0);
        let penalty = observed.penalty(0, &with.recipe);
        let weight = f64::from(with.recipe.unobserved_weight);
        let diagonal = with.fixed.axes.strengths.iter().map(|strength| weight * strength + penalty).collect();
        Self { with, past, confidence, diagonal, penalty, mean }
    }

    fn parts(&self, items: &[u32]) -> Result<Vec<Parts>> {
        if self.past.is_empty() {
            // Such a user has its prior mean as it is.
            let prior =
                |item: &u32| self.mean.iter().zip(self.with.factors(*item)).map(|(m, y)| m * f64::from(*y)).sum();
            return Ok(items.iter().map(|item| Parts { shares: Vec::new(), prior: prior(item) }).collect());
        }
        let (least, most) = self.diagonal.iter().fold((f64::INFINITY, 0f64), |(a, b), x| (a.min(*x), b.max(*x)));
        let parts = if self.past.len() < self.with.fixed.d && least > NOISE * most {
            self.short(items)
        } else {
            self.long(items)
        };
        parts.ok_or(Error::NotPositiveDefinite { side: "user", row: 0, iteration: None })
    }

    /// One system of d equations.
    fn long(&self, items: &[u32]) -> Option<Vec<Parts>> {
        let d = self.with.fixed.d;
        let mut matrix = vec![0f64; d * d];
        let mut panel = Vec::with_capacity(PANEL_ROWS.min(self.past.len()) * d);
        for (past, confidence) in self.past.chunks(PANEL_ROWS).zip(self.confidence.chunks(PANEL_ROWS)) {
            panel.clear();
            for (item, c) in past.iter().zip(confidence) {
                let root = f64::from(*c).sqrt();
                panel.extend(self.with.factors(*item).iter().map(|y| root * f64::from(*y)));
            }
            add_inner_f64(&panel, d, &mut matrix);
        }
        matrix.iter_mut().step_by(d + 1).zip(&self.diagonal).for_each(|(entry, value)| *entry += value);
        let mut solved: Vec<f64> =
            items.iter().flat_map(|item| self.with.factors(*item)).map(|y| f64::from(*y)).collect();
        if !factor_f64(&mut matrix, d, NOISE) {
            return None;
        }
        solve_factored_f64(&matrix, d, &mut solved);
        let parts = solved.chunks_exact(d).map(|w| {
            let shares = self.past.iter().zip(self.confidence).map(|(item, c)| {
                let factors = self.with.factors(*item);
                f64::from(*c) * w.iter().zip(factors).map(|(w, y)| w * f64::from(*y)).sum::<f64>()
            });
            Parts { shares: shares.collect(), prior: self.penalty * dot(w, &self.mean) }
        });
        Some(parts.collect())
    }

    /// One system of as many equations as past items. With V the factors of past items scaled by √c and by the inverse
    /// roots of the diagonal D, and `(I + V Vᵀ) α = V D^(−1/2) y_i`, past item j gives `√c_j α_j`, and the prior
    /// `λ (m · D⁻¹ y_i − V D^(−1/2) m · α)`.
    fn short(&self, items: &[u32]) -> Option<Vec<Parts>> {
        let n = self.past.len();
        let inverse: Vec<f64> = self.diagonal.iter().map(|entry| 1.0 / entry.sqrt()).collect();
        // V by columns.
        let mut columns = vec![0f64; n * self.with.fixed.d];
        for (at, (item, c)) in self.past.iter().zip(self.confidence).enumerate() {
            let root = f64::from(*c).sqrt();
            let entries = self.with.factors(*item).iter().zip(&inverse);
            entries.zip(columns[at..].iter_mut().step_by(n)).for_each(|((y, s), v)| *v = root * s * f64::from(*y));
        }
        let mut matrix = vec![0f64; n * n];
        add_inner_f64(&columns, n, &mut matrix);
        matrix.iter_mut().step_by(n + 1).for_each(|entry| *entry += 1.0);
        if !factor_f64(&mut matrix, n, 0.0) {
            return None;
        }
        let times_scaled = |values: &mut dyn Iterator<Item = f64>, out: &mut [f64]| {
            for ((value, s), column) in values.zip(&inverse).zip(columns.chunks_exact(n)) {
                out.iter_mut().zip(column).for_each(|(out, v)| *out += value * s * v);
            }
        };
        let mut alphas = vec![0f64; items.len() * n];
        for (item, alpha) in items.iter().zip(alphas.chunks_exact_mut(n)) {
            times_scaled(&mut self.with.factors(*item).iter().map(|y| f64::from(*y)), alpha);
        }
        solve_factored_f64(&matrix, n, &mut alphas);
        let mut of_mean = vec![0f64; n];
        times_scaled(&mut self.mean.iter().copied(), &mut of_mean);
        let parts = items.iter().zip(alphas.chunks_exact(n)).map(|(item, alpha)| {
            let y = self.with.factors(*item).iter().map(|y| f64::from(*y));
            let direct: f64 = y.zip(&self.mean).zip(&self.diagonal).map(|((y, m), entry)| y * m / entry).sum();
            let shares = alpha.iter().zip(self.confidence).map(|(alpha, c)| f64::from(*c).sqrt() * alpha);
            Parts { shares: shares.collect(), prior: self.penalty * (direct - dot(&of_mean, alpha)) }
        });
        Some(parts.collect())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
