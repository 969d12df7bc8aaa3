//! The protocol of Amazon Personalize's offline metrics, beside two baselines.

use std::ops::ControlFlow;

use ndarray::{Axis, s};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rayon::prelude::*;

use crate::als::{Factors, Iteration, fit};
use crate::csr::Csr;
use crate::error::Result;
use crate::interactions::Interactions;
use crate::metrics::{PersonalizeMetrics, PersonalizeTally, one_percent};
use crate::recipe::ItemAffinity;
use crate::top_k::{TopKUsers, score_tile};

/// The share of each user's interactions that is held out.
const TEST_SHARE: f64 = 0.2;
/// Items and users of a tile of scores.
const TILE: (usize, usize) = (256, 1024);

/// The metrics of a recipe and of two baselines on the same split.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PersonalizeEvaluation {
    /// The recipe, fitted to the training part.
    pub model: PersonalizeMetrics,
    /// For every item the users with the most training interactions.
    pub most_active: PersonalizeMetrics,
    /// For every item other users drawn at random, by the recipe's seed.
    pub random: PersonalizeMetrics,
    /// Distinct users in training.
    pub users: usize,
    /// Items of the catalogue: the denominator of coverage.
    pub items: usize,
    /// The length of the segments compared: 1 % of the users.
    pub k: usize,
    /// Items with at least one test interaction.
    pub test_items: usize,
    /// Interactions that the model was fitted to.
    pub train_interactions: usize,
    /// Interactions held out.
    pub test_interactions: usize,
}

impl PersonalizeEvaluation {
    /// The same with coverage as a share of this many items, for a catalogue that has more than the interactions name.
    #[must_use]
    pub fn with_catalogue_items(mut self, items: usize) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let scale = if items == 0 { 0.0 } else { self.items as f64 / items as f64 };
        for metrics in [&mut self.model, &mut self.most_active, &mut self.random] {
            metrics.coverage *= scale;
        }
        self.items = items;
        self
    }
}

/// Fits on the oldest 80 % of each user's interactions and tells how well it foresees the newest 20 %.
///
/// Personalize does not say which 20 % it holds out; this takes the newest. Users who had an item before are ranked
/// like all others. See [`PersonalizeMetrics`] for the metrics.
///
/// # Errors
/// those of [`fit`]
/// # Cost
/// One fit, then items × users × d multiply-adds on all threads of the current rayon pool, with a few MB each.
pub fn evaluate_personalize(
    recipe: &ItemAffinity,
    interactions: &Interactions,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<PersonalizeEvaluation> {
    recipe.validate()?;
    let (train, test) = interactions.split_last_share(TEST_SHARE);
    let as_of = train.time_range().map_or(0, |(_, newest)| newest);
    let by_user = train.pairs(recipe.decay(as_of))?;
    let factors = fit(recipe, &by_user, &by_user.transpose(), observer)?;
    drop(by_user);
    let actual = test.pairs(None)?.transpose();
    // Candidates are the users who have a training interaction, most active first.
    let activity = |user: u32| train.history(user as usize).items.len();
    #[allow(clippy::cast_possible_truncation)] // a vocabulary has fewer than 2³² ids
    let mut users: Vec<u32> = (0..train.users().len() as u32).filter(|user| activity(*user) > 0).collect();
    let model = model_tally(&factors, &users, &actual)?;
    let most_active = {
        users.sort_by_key(|user| std::cmp::Reverse(activity(*user)));
        let segment = &users[..users.len().min(one_percent(users.len()))];
        tally(users.len(), &actual, |_| segment.to_vec())
    };
    let random = {
        let mut random = StdRng::seed_from_u64(recipe.seed);
        let count = one_percent(users.len()).min(users.len());
        tally(users.len(), &actual, |_| {
            sample(&mut random, users.len(), count).into_iter().map(|at| users[at]).collect()
        })
    };
    let items = interactions.items().len();
    Ok(PersonalizeEvaluation {
        model: model.metrics(items),
        most_active: most_active.metrics(items),
        random: random.metrics(items),
        users: users.len(),
        items,
        k: model.k(),
        test_items: model.test_items(),
        train_interactions: train.len(),
        test_interactions: test.len(),
    })
}

/// Ranks the users for every item, in blocks of items.
fn model_tally(factors: &Factors, users: &[u32], actual: &Csr) -> Result<PersonalizeTally> {
    let k = one_percent(users.len());
    let rows: Vec<usize> = users.iter().map(|user| *user as usize).collect();
    let states = factors.user_factors.select(Axis(0), &rows);
    let items = factors.item_factors.nrows();
    let starts: Vec<usize> = (0..items).step_by(TILE.0).collect();
    let segments = |start: usize| -> Result<Vec<Vec<u32>>> {
        let block = factors.item_factors.slice(s![start..items.min(start + TILE.0), ..]);
        let mut best = TopKUsers::new(block.nrows(), k);
        let mut scores = vec![0f32; block.nrows() * TILE.1];
        for (users, states) in users.chunks(TILE.1).zip(states.axis_chunks_iter(Axis(0), TILE.1)) {
            let scores = &mut scores[..block.nrows() * users.len()];
            score_tile(block, states, scores)?;
            best.push(scores, users)?;
        }
        // An item without training interactions has no segment.
        let known = block.rows().into_iter().map(|item| item.iter().any(|x| *x != 0.0));
        let users = |segment: Vec<_>| segment.iter().map(|scored: &crate::Scored| scored.user_index).collect();
        Ok(best.finish().into_iter().zip(known).map(|(best, known)| if known { users(best) } else { vec![] }).collect())
    };
    let mut out = PersonalizeTally::new(users.len());
    // A few blocks at a time bound the memory.
    for starts in starts.chunks(64) {
        let blocks: Vec<Vec<Vec<u32>>> = starts.par_iter().map(|start| segments(*start)).collect::<Result<_>>()?;
        for (item, segment) in (starts[0]..).zip(blocks.iter().flatten()) {
            out.add(segment, actual.row(item).0);
        }
    }
    Ok(out)
}

/// Tallies one segment per item.
fn tally(users: usize, actual: &Csr, mut segment: impl FnMut(usize) -> Vec<u32>) -> PersonalizeTally {
    let mut out = PersonalizeTally::new(users);
    for item in 0..actual.rows() {
        out.add(&segment(item), actual.row(item).0);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vocabulary::Vocabulary;

    fn ids(count: usize) -> Vocabulary {
        Vocabulary::from_sorted((0..count).map(|n| format!("{n:04}"))).unwrap()
    }

    /// Two groups of 100 users and 20 items each; users take four items of their group again and again.
    fn two_groups() -> Interactions {
        let (mut user_index, mut item_index, mut time) = (vec![], vec![], vec![]);
        for user in 0..200u32 {
            for step in 0..10u32 {
                user_index.push(user);
                item_index.push(user % 2 * 20 + (user * 7 + step % 4 * 3) % 20);
                time.push(i64::from(step));
            }
        }
        let weight = vec![1.0; time.len()];
        Interactions::new(ids(200), ids(41), user_index, item_index, time, weight).unwrap()
    }

    #[test]
    fn planted_groups_are_foreseen_better_than_by_activity_or_chance() {
        let recipe = ItemAffinity { hidden_dimension: 32, iterations: 5, ..ItemAffinity::default() };
        let result = evaluate_personalize(&recipe, &two_groups(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((result.users, result.items, result.k, result.test_items), (200, 41, 2, 40));
        assert_eq!((result.train_interactions, result.test_interactions), (1600, 400));
        assert!(result.model.hits_at_1_percent > 3.0 * result.random.hits_at_1_percent, "{result:?}");
        assert!(result.model.recall_at_1_percent > 3.0 * result.most_active.recall_at_1_percent, "{result:?}");
        // The item that nobody touched has no segment, but the baselines name users for it.
        assert_eq!(result.model.coverage, 40.0 / 41.0);
        assert_eq!(result.most_active.coverage, 1.0);
        let wider = result.with_catalogue_items(82);
        assert!((wider.model.coverage - 40.0 / 82.0).abs() < 1e-12);
        assert_eq!(wider.items, 82);
    }

    #[test]
    fn nothing_to_learn_from_gives_zeros() {
        let none = Interactions::new(ids(0), ids(3), vec![], vec![], vec![], vec![]).unwrap();
        let result = evaluate_personalize(&ItemAffinity::default(), &none, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((result.users, result.test_items), (0, 0));
        assert_eq!(result.model, PersonalizeMetrics::default());
    }
}
