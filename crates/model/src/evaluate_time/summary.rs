//! From outcomes of items to figures, with intervals.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use super::RANKERS;
use super::ranking::{ItemOutcome, Outcome};

/// Bounds of the buckets of items, by users with a training interaction.
const BUYERS: [usize; 4] = [5, 20, 60, 300];
/// Names of the buckets of users, by how many training interactions they have.
const ACTIVITY: [&str; 4] = ["least active quarter", "second quarter", "third quarter", "most active quarter"];
/// Resamples of the items that an interval comes from.
const RESAMPLES: usize = 400;

/// All rankers, over one kind of pairs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Pairs that interacted.
    pub truth: usize,
    /// Items with at least one of them.
    pub items_with_truth: usize,
    /// One entry for each of [`RANKERS`](super::RANKERS) and segment length, lengths inside rankers.
    pub rankers: Vec<RankerQuality>,
    /// By users with a training interaction of the item, at 1 %: the rankers in their order.
    pub by_item_popularity: Vec<Bucket>,
    /// By activity of the user, at 1 %: the share of pairs that interacted which each ranker has in a segment.
    pub by_user_activity: Vec<Bucket>,
}

/// How well a ranker foresaw, for segments of `k` users.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankerQuality {
    /// Its name.
    pub ranker: String,
    /// Users per segment.
    pub k: usize,
    /// Hits / (k × items), over all asked items.
    pub precision: f64,
    /// The 95 % interval of precision, by resampling items.
    pub precision_interval: Interval,
    /// Mean over the items with truth of hits / truth.
    pub recall: f64,
    /// The 95 % interval of recall.
    pub recall_interval: Interval,
    /// Mean over the items with truth of the discounted gain as a share of the best one.
    pub ndcg: f64,
}

/// A range that holds the true value 95 times in a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Recall inside a part of the items or users.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bucket {
    /// What is in it.
    pub name: String,
    /// Items or users in it.
    pub members: usize,
    /// Recall of each ranker.
    pub recall: Vec<f64>,
}

pub(super) fn summarize(
    items: &[ItemOutcome],
    view: impl Fn(&ItemOutcome) -> &Outcome + Sync,
    ks: &[usize],
    activity_buckets: &[u8],
) -> View {
    let views: Vec<&Outcome> = items.iter().map(&view).collect();
    let resamples = resamples(items.len());
    let mut rankers = Vec::new();
    for (ranker, name) in RANKERS.iter().enumerate() {
        for (place, k) in ks.iter().enumerate() {
            rankers.push(quality(&views, ranker, name, place, *k, &resamples));
        }
    }
    View {
        truth: views.iter().map(|item| item.truth).sum(),
        items_with_truth: views.iter().filter(|item| item.truth > 0).count(),
        rankers,
        by_item_popularity: by_item_popularity(items, &views),
        by_user_activity: by_user_activity(&views, activity_buckets),
    }
}

fn quality(
    views: &[&Outcome],
    ranker: usize,
    name: &str,
    place: usize,
    k: usize,
    resamples: &[Vec<u32>],
) -> RankerQuality {
    let hits: Vec<f64> = views.iter().map(|item| count(item.rankers[ranker].hits[place])).collect();
    let truth: Vec<f64> = views.iter().map(|item| count(item.truth)).collect();
    let recall_of = |item: usize| if truth[item] > 0.0 { Some(hits[item] / truth[item]) } else { None };
    let precision = |items: &mut dyn Iterator<Item = usize>| {
        let (sum, n) = items.fold((0.0, 0.0), |(sum, n), item| (sum + hits[item], n + 1.0));
        if n > 0.0 { sum / (count(k) * n) } else { 0.0 }
    };
    let recall = |items: &mut dyn Iterator<Item = usize>| {
        let (sum, n) = items.filter_map(recall_of).fold((0.0, 0.0), |(sum, n), recall| (sum + recall, n + 1.0));
        if n > 0.0 { sum / n } else { 0.0 }
    };
    let interval = |of: &(dyn Fn(&mut dyn Iterator<Item = usize>) -> f64 + Sync)| {
        let mut values: Vec<f64> =
            resamples.par_iter().map(|items| of(&mut items.iter().map(|item| *item as usize))).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: usize| values.get(values.len() * share / 1000).copied().unwrap_or_default();
        Interval { low: at(25), high: at(975) }
    };
    let gains = views.iter().filter(|item| item.truth > 0).map(|item| item.rankers[ranker].ndcg[place]);
    RankerQuality {
        ranker: name.to_owned(),
        k,
        precision: precision(&mut (0..views.len())),
        precision_interval: interval(&precision),
        recall: recall(&mut (0..views.len())),
        recall_interval: interval(&recall),
        ndcg: mean(gains),
    }
}

/// Draws of as many items, with repetition.
#[allow(clippy::cast_possible_truncation)] // items are numbered by u32
fn resamples(items: usize) -> Vec<Vec<u32>> {
    let mut random = StdRng::seed_from_u64(0);
    let mut draw = || (0..items).map(|_| random.random_range(0..items as u32)).collect();
    if items == 0 { Vec::new() } else { (0..RESAMPLES).map(|_| draw()).collect() }
}

fn by_item_popularity(items: &[ItemOutcome], views: &[&Outcome]) -> Vec<Bucket> {
    let bucket = |buyers: usize| BUYERS.iter().filter(|bound| buyers >= **bound).count();
    let name = |of: usize| match of {
        0 => format!("under {} users", BUYERS[0]),
        last if last == BUYERS.len() => format!("{} users or more", BUYERS[last - 1]),
        of => format!("{} to {} users", BUYERS[of - 1], BUYERS[of] - 1),
    };
    let members = |of: usize| items.iter().zip(views).filter(move |(item, _)| bucket(item.buyers) == of);
    let recall = |of: usize, ranker: usize| {
        let with_truth = members(of).filter(|(_, view)| view.truth > 0);
        mean(with_truth.map(|(_, view)| count(view.rankers[ranker].hits[0]) / count(view.truth)))
    };
    (0..=BUYERS.len())
        .filter(|of| members(*of).next().is_some())
        .map(|of| Bucket {
            name: name(of),
            members: members(of).count(),
            recall: (0..RANKERS.len()).map(|ranker| recall(of, ranker)).collect(),
        })
        .collect()
}

fn by_user_activity(views: &[&Outcome], activity_buckets: &[u8]) -> Vec<Bucket> {
    let recall = |bucket: usize, ranker: usize| {
        let truth: usize = views.iter().map(|item| item.truth_by_activity[bucket]).sum();
        let hits: usize = views.iter().map(|item| item.rankers[ranker].hits_by_activity[bucket]).sum();
        if truth > 0 { count(hits) / count(truth) } else { 0.0 }
    };
    (0..ACTIVITY.len())
        .map(|bucket| Bucket {
            name: ACTIVITY[bucket].to_owned(),
            members: activity_buckets.iter().filter(|of| usize::from(**of) == bucket).count(),
            recall: (0..RANKERS.len()).map(|ranker| recall(bucket, ranker)).collect(),
        })
        .filter(|bucket| bucket.members > 0)
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

#[allow(clippy::cast_precision_loss)]
fn count(of: usize) -> f64 {
    of as f64
}
