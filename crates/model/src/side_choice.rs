//! Whether side information helps, told by pairs that a small fit has not seen.

use std::ops::ControlFlow;

use ndarray::Axis;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::als::{Factors, Iteration, Start, fit_valid};
use crate::attributes::SideInformation;
use crate::csr::Csr;
use crate::error::{Result, same_length};
use crate::recipe::ItemAffinity;
use crate::top_k::score_tile;

/// Hidden variables and rounds of the small fits.
const HIDDEN_DIMENSION: usize = 32;
const ITERATIONS: usize = 4;
/// Items and users that are looked at, at most.
const MOST_ITEMS: usize = 3_000;
const MOST_USERS: usize = 2_000;
/// Items that are scored at once.
const ITEM_BLOCK: usize = 64;
/// The gain must be so many standard errors above zero, and in no group of items so many below it.
const SURE: f64 = 2.0;
/// Groups of items by the number of their pairs, each of a third of the items.
const GROUPS: usize = 3;

/// Whether the attributes of one side are used, and on what evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SideDecision {
    /// Whether they are used.
    pub used: bool,
    /// Soft recall at 1 % of the users without them, from 0 to 1; the better of no attributes and of all alike.
    pub without: f64,
    /// The same with them.
    pub with: f64,
    /// The gain in its own standard errors.
    pub certainty: f64,
    /// The gain among the items with fewest, middle and most pairs.
    pub gain_by_group: [f64; GROUPS],
    /// Items that were looked at.
    pub items: usize,
    /// Held-out pairs that were looked at.
    pub pairs: usize,
}

/// What was decided about each side that has attributes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SideChoice {
    /// The attributes of items.
    pub items: Option<SideDecision>,
    /// The attributes of users.
    pub users: Option<SideDecision>,
}

/// Keeps the side of the side information that helps to foresee new pairs, and drops the other.
///
/// Small fits on the known pairs, without attributes, with those of items, then with those of users on top of what is
/// kept, rank users for items with held-out pairs that are new. So does a fit in which all rows with attributes have the
/// same one: to draw rare items to the mean item helps by itself, and is not to the credit of the attributes. A pair counts `k / (k + r)` where r users without
/// the item are ranked above its own and k is 1 % of the users: a smooth form of recall at 1 %. A side is kept if,
/// against both, the mean over items rises by more than two standard errors, and falls by more than two in no third of
/// the items by their number of pairs. With nothing to tell by, it is dropped.
///
/// # Shapes
/// known, held_out: users × items; side: a row per item and per user
/// # Units
/// known: as for [`fit`](crate::fit()); held_out: only which pairs there are
/// # Errors
/// those of [`fit_with`](crate::fit_with), [`Error::Shape`](crate::Error::Shape) for held-out pairs of other users
/// # Cost
/// One fit of 4 iterations at a hidden dimension of 32, and two more for each side with attributes; scores of at most
/// 3,000 items and 2,000 users, and as many again as there are held-out pairs of these items.
/// # Source
/// the measure and the rule are this project's own
pub fn choose_side_information(
    recipe: &ItemAffinity,
    known: &Csr,
    held_out: &Csr,
    side: SideInformation,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<(SideInformation, SideChoice)> {
    recipe.validate()?;
    Chooser::new(known, &known.transpose(), held_out, recipe.seed)?.side_information(recipe, side, observer)
}

/// Compares fits to known pairs by how well they foresee held-out new pairs.
pub(crate) struct Chooser<'a> {
    known: &'a Csr,
    by_item: &'a Csr,
    sample: Sample,
}

impl<'a> Chooser<'a> {
    /// # Shapes
    /// known, held_out: users × items; by_item: the transpose of known
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for held-out pairs of other users
    pub(crate) fn new(known: &'a Csr, by_item: &'a Csr, held_out: &Csr, seed: u64) -> Result<Self> {
        same_length("held_out", known.rows(), held_out.rows())?;
        same_length("held-out items", known.columns(), held_out.columns())?;
        Ok(Self { known, by_item, sample: Sample::new(known, by_item, held_out, seed) })
    }

    /// How well factors foresee each item that is looked at.
    pub(crate) fn measure(&self, factors: &Factors) -> Result<Vec<f64>> {
        self.sample.measure(factors, self.by_item)
    }

    /// Whether the second of two fits foresees better than the first, by the rule of [`choose_side_information`].
    pub(crate) fn is_better(&self, first: &[f64], second: &[f64]) -> bool {
        self.sample.compare(first, second).used
    }

    /// As [`choose_side_information`].
    pub(crate) fn side_information(
        &self,
        recipe: &ItemAffinity,
        side: SideInformation,
        observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
    ) -> Result<(SideInformation, SideChoice)> {
        let mut choice = SideChoice::default();
        let mut kept = SideInformation::default();
        if side.items.is_none() && side.users.is_none() {
            return Ok((kept, choice));
        }
        let small = ItemAffinity { hidden_dimension: HIDDEN_DIMENSION, iterations: ITERATIONS, ..recipe.clone() };
        let mut measure = |side: &SideInformation| {
            self.measure(&fit_valid(&small, self.known, self.by_item, Some(side), Start::Random, observer)?)
        };
        let mut best = measure(&kept)?;
        if let Some(items) = side.items {
            let alike = measure(&SideInformation { items: Some(items.all_alike()?), users: None })?;
            let tried = SideInformation { items: Some(items), users: None };
            let values = measure(&tried)?;
            let decision = self.sample.decide([&best, &alike], &values);
            if decision.used {
                (kept, best) = (tried, values);
            }
            choice.items = Some(decision);
        }
        if let Some(users) = side.users {
            let alike = measure(&SideInformation { items: kept.items.clone(), users: Some(users.all_alike()?) })?;
            let tried = SideInformation { items: kept.items.clone(), users: Some(users) };
            let decision = self.sample.decide([&best, &alike], &measure(&tried)?);
            if decision.used {
                kept = tried;
            }
            choice.users = Some(decision);
        }
        Ok((kept, choice))
    }
}

/// The items and users that are looked at.
struct Sample {
    /// Items with their new pairs, those with fewest known pairs first.
    items: Vec<(usize, Vec<u32>)>,
    users: Vec<u32>,
}

impl Sample {
    fn new(known: &Csr, by_item: &Csr, held_out: &Csr, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let active = |user: u32| !known.row(user as usize).0.is_empty();
        #[allow(clippy::cast_possible_truncation)] // a matrix has at most 2³² − 1 rows
        let mut users: Vec<u32> = (0..known.rows() as u32).filter(|user| active(*user)).collect();
        users.shuffle(&mut random);
        users.truncate(MOST_USERS);
        users.sort_unstable();
        let new_pairs = held_out.transpose();
        let of_item = |item: usize| {
            let buyers = by_item.row(item).0;
            let new = new_pairs.row(item).0.iter().copied();
            new.filter(|user| active(*user) && buyers.binary_search(user).is_err()).collect::<Vec<u32>>()
        };
        let mut items: Vec<(usize, Vec<u32>)> = (0..by_item.rows())
            .filter(|item| !by_item.row(*item).0.is_empty())
            .map(|item| (item, of_item(item)))
            .filter(|(_, pairs)| !pairs.is_empty())
            .collect();
        items.shuffle(&mut random);
        items.truncate(MOST_ITEMS);
        items.sort_by_key(|(item, _)| (by_item.row(*item).0.len(), *item));
        Self { items, users }
    }

    /// The measure of each item.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), which factors of one fit cannot have
    #[allow(clippy::cast_precision_loss)] // counts of the sample are small
    fn measure(&self, factors: &Factors, by_item: &Csr) -> Result<Vec<f64>> {
        let users: Vec<usize> = self.users.iter().map(|user| *user as usize).collect();
        let states = factors.user_factors.select(Axis(0), &users);
        let of_block = |block: &[(usize, Vec<u32>)]| {
            let items = block.iter().map(|(item, _)| *item).collect::<Vec<_>>();
            let y = factors.item_factors.select(Axis(0), &items);
            let mut scores = vec![0f32; items.len() * users.len()];
            score_tile(y.view(), states.view(), &mut scores)?;
            let mut values = Vec::with_capacity(block.len());
            for (at, (item, pairs)) in block.iter().enumerate() {
                let (y, scores) = (y.row(at), &scores[at * users.len()..(at + 1) * users.len()]);
                let buyers = by_item.row(*item).0;
                let others: Vec<f32> = (self.users.iter().zip(scores))
                    .filter(|(user, _)| buyers.binary_search(user).is_err() && pairs.binary_search(user).is_err())
                    .map(|(_, score)| *score)
                    .collect();
                let k = (others.len() as f64 * 0.01).max(1.0);
                let value = |user: &u32| {
                    let own = factors.user_factors.row(*user as usize).dot(&y);
                    let count = |(above, equal): (u32, u32), score: &f32| {
                        (above + u32::from(*score > own), equal + u32::from(*score == own))
                    };
                    let (above, equal) = others.iter().fold((0, 0), count);
                    k / (k + f64::from(above) + 0.5 * f64::from(equal))
                };
                values.push(pairs.iter().map(value).sum::<f64>() / pairs.len() as f64);
            }
            Ok(values)
        };
        let blocks = self.items.par_chunks(ITEM_BLOCK).map(of_block).collect::<Result<Vec<_>>>()?;
        Ok(blocks.concat())
    }

    /// The decision against the stronger of two rivals.
    fn decide(&self, rivals: [&[f64]; 2], with: &[f64]) -> SideDecision {
        let [plain, alike] = rivals.map(|without| self.compare(without, with));
        let used = plain.used && alike.used;
        let stronger = if plain.without >= alike.without { plain } else { alike };
        SideDecision { used, ..stronger }
    }

    fn compare(&self, without: &[f64], with: &[f64]) -> SideDecision {
        let gains: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
        let (gain, error) = mean_and_error(&gains);
        let groups: Vec<(f64, f64)> = (0..GROUPS)
            .map(|group| mean_and_error(&gains[group * gains.len() / GROUPS..(group + 1) * gains.len() / GROUPS]))
            .collect();
        let mut gain_by_group = [0.0; GROUPS];
        gain_by_group.iter_mut().zip(&groups).for_each(|(out, (gain, _))| *out = *gain);
        let falls = groups.iter().any(|(gain, error)| *gain < -SURE * error);
        SideDecision {
            used: gain > SURE * error && !falls,
            without: mean_and_error(without).0,
            with: mean_and_error(with).0,
            certainty: if error > 0.0 { gain / error } else { 0.0 },
            gain_by_group,
            items: self.items.len(),
            pairs: self.items.iter().map(|(_, pairs)| pairs.len()).sum(),
        }
    }
}

/// The mean and its standard error; zeros for nothing.
#[allow(clippy::cast_precision_loss)]
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count * (count - 1.0).max(1.0))).sqrt())
}

#[cfg(test)]
#[path = "side_choice_tests.rs"]
mod tests;
