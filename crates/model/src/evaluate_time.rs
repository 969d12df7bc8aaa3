//! The protocol "time": train on what came before a moment, see who interacted after it.

use std::ops::ControlFlow;

use ndarray::{Array2, Axis, s};
use rayon::prelude::*;

use crate::als::Iteration;
use crate::attributes::SideInformation;
use crate::clock::{Clock, time_at_share};
use crate::csr::Csr;
use crate::error::Result;
use crate::interactions::{Decay, Interactions};
use crate::propensity::probability;
use crate::recipe::ItemAffinity;
use crate::side_choice::SideChoice;
use crate::top_k::score_tile;
use crate::train::{TrainedModel, train};

mod calibration;
mod ranking;
mod summary;

pub use calibration::{Calibration, CalibrationBin};
pub use summary::{Bucket, Interval, RankerQuality, View};

use calibration::CalibrationSample;
use ranking::{ItemOutcome, best_users, outcome};
use summary::summarize;

/// The share of the events that lie before the cut.
const TRAIN_SHARE: f64 = 0.9;
/// Items whose scores are held at once by a thread.
const ITEM_BLOCK: usize = 32;

/// The rankers that are compared, in the order of every list of them.
pub const RANKERS: [&str; 6] =
    ["item_affinity", "plain_als", "earlier_buyers", "most_active_recently", "most_active", "random"];

/// How the protocol "time" is run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct TimeProtocol {
    /// Items with fewer training interactions are not asked for.
    pub least_item_interactions: usize,
    /// Users per segment besides 1 % of the users.
    pub ks: Vec<usize>,
}

impl Default for TimeProtocol {
    fn default() -> Self {
        Self { least_item_interactions: 5, ks: Vec::new() }
    }
}

/// What the protocol "time" found.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TimeEvaluation {
    /// Epoch seconds of the cut.
    pub cut: i64,
    /// Seconds after the cut that were foreseen.
    pub horizon_seconds: i64,
    /// Candidates: users with a training interaction.
    pub users: usize,
    /// Asked items.
    pub items: usize,
    /// 1 % of the users, rounded up.
    pub k: usize,
    /// Interactions before the cut.
    pub train_interactions: usize,
    /// Interactions after it.
    pub test_interactions: usize,
    /// Quality over all pairs of a candidate and an asked item.
    pub all_pairs: View,
    /// Quality over pairs without a training interaction: the others are taken out of the ranking and of the truth.
    pub new_pairs: View,
    /// Probabilities against what happened.
    pub calibration: Calibration,
    /// Of all candidates, how many are in any segment of 1 %.
    pub users_in_any_segment: f64,
    /// In how many segments the user is who leads most of them, as a share of the items.
    pub most_frequent_leader: f64,
    /// Which attributes were used, and on what evidence.
    #[serde(default)]
    pub side: SideChoice,
    /// What a person should know before they trust the probabilities.
    pub warnings: Vec<String>,
}

/// Trains on the oldest nine tenths of the events and tells how well it foresees who interacts in the rest.
///
/// Candidates are the users who have a training interaction; asked are the items with enough of them. The model is
/// ranked beside baselines: factors alone, earlier buyers (by count, then by how recent), the most active users
/// (recently, and of all time), and users by chance.
///
/// # Errors
/// those of [`train`]
/// # Cost
/// one training, then items × users × (d + about 60) operations on all threads of the current rayon pool; a block of
/// 32 × users scores per thread
pub fn evaluate_time(
    recipe: &ItemAffinity,
    protocol: &TimeProtocol,
    interactions: &Interactions,
    side: Option<&SideInformation>,
    observer: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
) -> Result<TimeEvaluation> {
    recipe.validate()?;
    let cut = time_at_share(interactions, TRAIN_SHARE).unwrap_or(0);
    let newest = interactions.time_range().map_or(0, |(_, newest)| newest);
    let (known, later) = interactions.split_at(cut);
    let clock = Clock { as_of: cut, horizon: newest.saturating_sub(cut).saturating_add(1).max(1) };
    let model = train(recipe, &known, side, Some(clock), observer)?;
    let truth = later.pairs(None)?.transpose();
    let contest = Contest::new(&known, &model, protocol, &truth)?;
    let (outcomes, calibration) = contest.run()?;
    Ok(TimeEvaluation {
        cut,
        horizon_seconds: clock.horizon,
        users: contest.users.len(),
        items: contest.items.len(),
        k: contest.ks[0],
        train_interactions: known.len(),
        test_interactions: later.len(),
        all_pairs: summarize(&outcomes, |item| &item.all_pairs, &contest.ks, &contest.activity_buckets),
        new_pairs: summarize(&outcomes, |item| &item.new_pairs, &contest.ks, &contest.activity_buckets),
        calibration: calibration.finish(),
        users_in_any_segment: contest.users_in_any_segment(&outcomes),
        most_frequent_leader: contest.most_frequent_leader(&outcomes),
        side: model.side.clone(),
        warnings: model.propensity.warnings(),
    })
}

/// All rankers on the same items and users.
struct Contest<'a> {
    model: &'a TrainedModel,
    /// Candidates, ascending.
    users: Vec<u32>,
    user_factors: Array2<f32>,
    /// Asked items, ascending.
    items: Vec<u32>,
    /// Segment lengths, the first is 1 % of the users.
    ks: Vec<usize>,
    /// items × users: counts of all events, and of recent ones.
    history: Csr,
    recent: Csr,
    /// items × users: the log-odds of pairs with history.
    repeat: Csr,
    truth: &'a Csr,
    /// By candidate: events of all time, and recent ones.
    activity: Vec<f32>,
    recent_activity: Vec<f32>,
    /// By candidate: the quarter of the users by activity that it is in, the least active first.
    activity_buckets: Vec<u8>,
    /// By candidate: log-odds of new pairs.
    log_odds: Vec<f32>,
    seed: u64,
}

impl<'a> Contest<'a> {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn new(known: &Interactions, model: &'a TrainedModel, protocol: &TimeProtocol, truth: &'a Csr) -> Result<Self> {
        let users: Vec<u32> =
            (0u32..).take(known.users().len()).filter(|u| !known.history(*u as usize).items.is_empty()).collect();
        let mut events = vec![0usize; known.items().len()];
        known.indptr().windows(2).enumerate().for_each(|(user, _)| {
            known.history(user).items.iter().for_each(|item| events[*item as usize] += 1);
        });
        let least = protocol.least_item_interactions.max(1);
        let items: Vec<u32> = (0u32..).take(events.len()).filter(|item| events[*item as usize] >= least).collect();
        let decay = Decay { half_life_seconds: model.clock.horizon as f64, as_of: model.clock.as_of };
        let recent = known.pairs(Some(decay))?;
        let sums = |of: &Csr| -> Vec<f32> {
            users
                .iter()
                .map(|user| of.row(*user as usize).1.iter().map(|w| f64::from(*w)).sum::<f64>() as f32)
                .collect()
        };
        let history = known.pairs(None)?;
        let (activity, recent_activity) = (sums(&history), sums(&recent));
        let rows: Vec<usize> = users.iter().map(|user| *user as usize).collect();
        let mut ks = vec![users.len().div_ceil(100).max(1)];
        ks.extend(&protocol.ks);
        Ok(Self {
            model,
            user_factors: model.factors.user_factors.select(Axis(0), &rows),
            log_odds: rows.iter().map(|user| model.log_odds.users[*user]).collect(),
            activity_buckets: quarters(&activity),
            items,
            ks,
            history: history.transpose(),
            recent: recent.transpose(),
            repeat: model.log_odds.repeat.transpose(),
            truth,
            activity,
            recent_activity,
            users,
            seed: 1,
        })
    }

    /// Ranks everything for every item.
    fn run(&self) -> Result<(Vec<ItemOutcome>, CalibrationSample)> {
        let cells = self.users.len() as u64 * self.items.len() as u64;
        let blocks: Vec<(Vec<ItemOutcome>, CalibrationSample)> = self
            .items
            .par_chunks(ITEM_BLOCK)
            .map(|items| {
                let rows: Vec<usize> = items.iter().map(|item| *item as usize).collect();
                let factors = self.model.factors.item_factors.select(Axis(0), &rows);
                let mut affinities = vec![0f32; items.len() * self.users.len()];
                score_tile(factors.view(), self.user_factors.slice(s![.., ..]), &mut affinities)?;
                let mut sample = CalibrationSample::new(cells);
                let rows = affinities.chunks_exact(self.users.len().max(1));
                let outcomes = items.iter().zip(rows).map(|(item, row)| self.item(*item, row, &mut sample)).collect();
                Ok((outcomes, sample))
            })
            .collect::<Result<_>>()?;
        let (mut outcomes, mut sample) = (Vec::with_capacity(self.items.len()), CalibrationSample::new(cells));
        for (of_block, sampled) in blocks {
            outcomes.extend(of_block);
            sample.extend(sampled);
        }
        Ok((outcomes, sample))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn item(&self, item: u32, affinities: &[f32], sample: &mut CalibrationSample) -> ItemOutcome {
        let at = item as usize;
        let place = |user: &u32| self.users.binary_search(user).ok();
        let truth: Vec<u32> = self.truth.row(at).0.iter().filter_map(|u| place(u).map(|p| p as u32)).collect();
        let seen: Vec<u32> = self.history.row(at).0.iter().filter_map(|u| place(u).map(|p| p as u32)).collect();
        let of_pairs = |of: &Csr| -> Vec<(usize, f32)> {
            let (users, values) = of.row(at);
            users.iter().zip(values).filter_map(|(user, value)| Some((place(user)?, *value))).collect()
        };
        let (slopes, bias) = (self.model.log_odds.slopes, self.model.log_odds.items[at]);
        let mut model: Vec<f32> = affinities
            .iter()
            .zip(&self.log_odds)
            .map(|(affinity, user)| probability(slopes.log_odds(*affinity, *user, bias)))
            .collect();
        of_pairs(&self.repeat).into_iter().for_each(|(user, z)| model[user] = probability(f64::from(z)));
        sample.add(item, &model, &truth);
        let mut buyers = vec![0f32; self.users.len()];
        of_pairs(&self.history).into_iter().for_each(|(user, count)| buyers[user] = count);
        of_pairs(&self.recent).into_iter().for_each(|(user, recent)| buyers[user] += 1e-3 * recent);
        let random: Vec<f32> = (0u32..).take(self.users.len()).map(|user| chance(self.seed, item, user)).collect();
        let scores: [&[f32]; RANKERS.len()] =
            [&model, affinities, &buyers, &self.recent_activity, &self.activity, &random];

        let longest = self.ks.iter().copied().max().unwrap_or(1);
        let new_truth: Vec<u32> = truth.iter().copied().filter(|user| seen.binary_search(user).is_err()).collect();
        // The best of all hold the best of those without history, if enough are taken.
        let best = scores.map(|scores| best_users(scores, longest + seen.len()));
        let first = |of: &Vec<u32>| of.iter().copied().take(longest).collect();
        let unseen =
            |of: &Vec<u32>| of.iter().copied().filter(|user| seen.binary_search(user).is_err()).take(longest).collect();
        let judge = |segments: [Vec<u32>; RANKERS.len()], truth: &[u32]| {
            outcome(&segments, truth, &self.ks, &self.activity_buckets)
        };
        ItemOutcome {
            buyers: self.history.row(at).0.len(),
            all_pairs: judge(best.each_ref().map(first), &truth),
            new_pairs: judge(best.each_ref().map(unseen), &new_truth),
            segment: best[0].iter().copied().take(self.ks[0]).collect(),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn users_in_any_segment(&self, outcomes: &[ItemOutcome]) -> f64 {
        let mut present = vec![false; self.users.len()];
        outcomes.iter().flat_map(|item| &item.segment).for_each(|user| present[*user as usize] = true);
        present.iter().filter(|present| **present).count() as f64 / self.users.len().max(1) as f64
    }

    #[allow(clippy::cast_precision_loss)]
    fn most_frequent_leader(&self, outcomes: &[ItemOutcome]) -> f64 {
        let mut leads = vec![0usize; self.users.len()];
        outcomes.iter().filter_map(|item| item.segment.first()).for_each(|user| leads[*user as usize] += 1);
        leads.iter().copied().max().unwrap_or(0) as f64 / outcomes.len().max(1) as f64
    }
}

/// Which quarter of the users each is in by a count, the lowest first; equal counts are in one quarter.
fn quarters(counts: &[f32]) -> Vec<u8> {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let bound = |quarter: usize| sorted.get(sorted.len() * quarter / 4).copied().unwrap_or(f32::INFINITY);
    let bounds = [bound(1), bound(2), bound(3)];
    counts.iter().map(|count| bounds.iter().map(|bound| u8::from(count >= bound)).sum()).collect()
}

/// A number in [0, 1) for an item and a user.
#[allow(clippy::cast_possible_truncation)]
fn chance(seed: u64, item: u32, user: u32) -> f32 {
    crate::hash::uniform(seed, item, user) as f32
}
