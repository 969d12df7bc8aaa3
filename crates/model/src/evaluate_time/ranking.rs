//! One item: the best users by each ranker, and how many of them interacted.

use std::cmp::Ordering;

use super::RANKERS;

/// What happened for one item.
#[derive(Clone, Debug)]
pub(super) struct ItemOutcome {
    /// Users with a training interaction.
    pub(super) buyers: usize,
    pub(super) all_pairs: Outcome,
    pub(super) new_pairs: Outcome,
    /// The model's segment of 1 %: places of candidates, best first.
    pub(super) segment: Vec<u32>,
}

/// Hits of all rankers for one item, in one view.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Users who interacted.
    pub(super) truth: usize,
    /// The same by activity of the user.
    pub(super) truth_by_activity: [usize; 4],
    pub(super) rankers: [RankerOutcome; RANKERS.len()],
}

/// Hits of one ranker for one item.
#[derive(Clone, Debug, Default)]
pub(super) struct RankerOutcome {
    /// Hits among the first k, for each k.
    pub(super) hits: Vec<usize>,
    /// The share of the best possible discounted gain, for each k; 0 without truth.
    pub(super) ndcg: Vec<f64>,
    /// Hits among the first 1 %, by activity of the user.
    pub(super) hits_by_activity: [usize; 4],
}

/// The places of the best `k` users: score down, then place up.
pub(super) fn best_users(scores: &[f32], k: usize) -> Vec<u32> {
    let rank = |a: &(f32, u32), b: &(f32, u32)| -> Ordering { b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)) };
    let mut users: Vec<(f32, u32)> = scores.iter().copied().zip(0u32..).collect();
    if k < users.len() && k > 0 {
        users.select_nth_unstable_by(k - 1, rank);
    }
    users.truncate(k);
    users.sort_unstable_by(rank);
    users.into_iter().map(|(_, user)| user).collect()
}

/// Counts the hits of each ranker's segment.
pub(super) fn outcome(
    segments: &[Vec<u32>; RANKERS.len()],
    truth: &[u32],
    ks: &[usize],
    activity_buckets: &[u8],
) -> Outcome {
    let bucket = |user: u32| usize::from(activity_buckets[user as usize]);
    let mut out = Outcome { truth: truth.len(), ..Outcome::default() };
    truth.iter().for_each(|user| out.truth_by_activity[bucket(*user)] += 1);
    for (of_ranker, segment) in out.rankers.iter_mut().zip(segments) {
        let hit: Vec<bool> = segment.iter().map(|user| truth.binary_search(user).is_ok()).collect();
        for k in ks {
            let hits = hit.iter().take(*k);
            of_ranker.hits.push(hits.clone().filter(|hit| **hit).count());
            let gain: f64 = hits.enumerate().filter(|(_, hit)| **hit).map(|(rank, _)| discount(rank)).sum();
            let best: f64 = (0..truth.len().min(*k)).map(discount).sum();
            of_ranker.ndcg.push(if best > 0.0 { gain / best } else { 0.0 });
        }
        for (user, _) in segment.iter().zip(&hit).take(ks[0]).filter(|(_, hit)| **hit) {
            of_ranker.hits_by_activity[bucket(*user)] += 1;
        }
    }
    out
}

/// What a hit counts at this place, from 0.
#[allow(clippy::cast_precision_loss)]
fn discount(rank: usize) -> f64 {
    1.0 / (rank as f64 + 2.0).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_users_come_first_and_ties_by_place() {
        let scores = [0.5, 0.9, 0.5, 0.1, 0.9];
        assert_eq!(best_users(&scores, 3), [1, 4, 0]);
        assert!(best_users(&scores, 0).is_empty());
        assert_eq!(best_users(&scores, 9), [1, 4, 0, 2, 3]);
    }

    #[test]
    fn hits_and_gains_by_hand() {
        let segments = std::array::from_fn(|_| vec![3, 0, 2]);
        let outcome = outcome(&segments, &[0, 2], &[2, 3], &[0, 1, 3, 3]);
        let first = &outcome.rankers[0];
        assert_eq!((outcome.truth, outcome.truth_by_activity), (2, [1, 0, 0, 1]));
        assert_eq!((first.hits.as_slice(), first.hits_by_activity), (&[1, 2][..], [1, 0, 0, 0]));
        let (second, third) = (1.0 / 3f64.log2(), 0.5);
        assert!((first.ndcg[0] - second / (1.0 + second)).abs() < 1e-12);
        assert!((first.ndcg[1] - (second + third) / (1.0 + second)).abs() < 1e-12);
    }
}
