//! The best users of one item so far.

use super::shared::Share;
use super::tally::{Buckets, Tally};
use super::{Rank, Scored};

/// The candidates of one item, in no order.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    kept: Vec<Rank>,
    /// Who does not rank before it will never be among the best k.
    threshold: Option<Rank>,
    /// How many were left by the last pruning.
    pruned: usize,
    /// From the first pruning on, if candidates are many.
    tally: Option<Tally>,
}

impl Candidates {
    /// Who does not rank before it will never be among the best k.
    pub(super) fn threshold(&self) -> Option<Rank> {
        self.threshold
    }

    /// Learns what the other parts have said since.
    #[inline(always)]
    pub(super) fn look_around(&mut self, share: &Share, item: usize) {
        self.lower(share.bound(item));
    }

    /// Takes one candidate, if it is good enough.
    #[inline(always)]
    pub(super) fn offer(&mut self, share: &Share, item: usize, score: f32, user_index: u32) {
        let rank = Rank::new(score, user_index);
        if self.threshold.is_none_or(|threshold| rank < threshold) {
            self.kept.push(rank);
            let before = self.kept.len() - 1;
            self.count(share, item, before);
        }
    }

    /// Takes those of the candidates that are good enough; how many they were.
    pub(super) fn offer_all(&mut self, share: &Share, item: usize, mut scores: &[f32], mut users: &[u32]) -> usize {
        let mut taken = 0;
        while !scores.is_empty() {
            let (some, other_scores) = scores.split_at(scores.len().min(self.room(share)));
            let (some_users, other_users) = users.split_at(some.len());
            (scores, users) = (other_scores, other_users);
            let threshold = self.threshold.map_or(u64::MAX, |threshold| threshold.0);
            let before = self.kept.len();
            self.kept.resize(before + some.len(), Rank(0));
            let room = &mut self.kept[before..];
            let mut end = 0;
            for (score, user) in some.iter().zip(some_users) {
                // Without a branch, which would often be mispredicted.
                let rank = Rank::new(*score, *user);
                room[end] = rank;
                end += usize::from(rank.0 < threshold);
            }
            self.kept.truncate(before + end);
            taken += end;
            self.count(share, item, before);
        }
        taken
    }

    /// How many more are taken before they are pruned.
    fn room(&self, share: &Share) -> usize {
        self.pruned.max(share.own).saturating_mul(2).saturating_sub(self.kept.len())
    }

    /// Counts those that were taken since there were so many, tells the other parts of a better bound, and prunes when it is
    /// time.
    #[inline(always)]
    fn count(&mut self, share: &Share, item: usize, before: usize) {
        if let Some(tally) = &mut self.tally {
            tally.count(&self.kept[before..]);
            if let Some(bound) = tally.bound(share.own) {
                share.say(item, bound);
                self.look_around(share, item);
            }
        }
        if self.room(share) == 0 {
            self.prune(share, item);
        }
    }

    /// Keeps who may still be among the best k of all parts, and tells the others.
    #[cold]
    fn prune(&mut self, share: &Share, item: usize) {
        let own = share.own;
        let recount = self.tally.as_ref().is_none_or(|tally| tally.is_coarse(own));
        if recount && 0 < own && own <= self.kept.len() {
            let (_, worst, _) = self.kept.select_nth_unstable(own - 1);
            share.say(item, *worst);
        }
        self.look_around(share, item);
        if let Some(threshold) = self.threshold {
            let mut stay = 0;
            for at in 0..self.kept.len() {
                let rank = self.kept[at];
                self.kept[stay] = rank;
                // The threshold itself may be one of ours.
                stay += usize::from(rank <= threshold);
            }
            self.kept.truncate(stay);
        }
        if 0 < share.k && share.k < self.kept.len() {
            let (_, worst, _) = self.kept.select_nth_unstable(share.k - 1);
            let worst = *worst;
            self.kept.truncate(share.k);
            self.lower(Some(worst));
        }
        if recount {
            self.tally = Tally::of(&self.kept, own);
        }
        self.pruned = self.kept.len();
    }

    fn lower(&mut self, to: Option<Rank>) {
        if to.is_some_and(|to| self.threshold.is_none_or(|threshold| to < threshold)) {
            self.threshold = to;
        }
    }

    /// Those that were taken and not pruned, in no order.
    pub(super) fn users(&self) -> impl Iterator<Item = u32> {
        self.kept.iter().map(|rank| rank.scored().user_index)
    }

    /// Bytes held beside itself.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Rank>() + self.tally.as_ref().map_or(0, Tally::allocated_bytes)
    }

    /// Those who may be among the best k of all parts, at most k, best first. What is in the scratch is of no account.
    pub(super) fn finish(mut self, share: &Share, item: usize, scratch: &mut Vec<Rank>) -> Vec<Scored> {
        self.prune(share, item);
        sort(&mut self.kept, scratch);
        self.kept.into_iter().map(Rank::scored).collect()
    }
}

/// Below this many a sort by comparisons is faster.
const MANY: usize = 500;
/// Ranks of a bucket, if they are spread evenly: few enough that sorting them by comparisons takes a handful of these.
const OF_BUCKET: usize = 8;

/// Sorts upwards; many in buckets of equally many ranks, which scores and users fill evenly enough. Whatever they fill, it
/// is a sort, as fast as one by comparisons.
fn sort(ranks: &mut Vec<Rank>, scratch: &mut Vec<Rank>) {
    let [Some(first), Some(last)] = [ranks.iter().min(), ranks.iter().max()] else { return };
    if ranks.len() < MANY {
        ranks.sort_unstable();
        return;
    }
    let count = ranks.len() / OF_BUCKET;
    let buckets = Buckets::new(*first, *last, count);
    let mut ends = vec![0; count];
    for rank in ranks.iter() {
        ends[buckets.of(*rank)] += 1;
    }
    let mut end = 0;
    for count in &mut ends {
        end += std::mem::replace(count, end);
    }
    scratch.resize(ranks.len(), Rank(0));
    for rank in ranks.iter() {
        let to = &mut ends[buckets.of(*rank)];
        scratch[*to] = *rank;
        *to += 1;
    }
    let mut begin = 0;
    for end in ends {
        scratch[begin..end].sort_unstable();
        begin = end;
    }
    std::mem::swap(ranks, scratch);
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::top_k::SharedThresholds;

    #[test]
    fn the_best_are_those_of_a_sort_in_whatever_order_they_come_and_few_more_are_held() {
        const USERS: u32 = 60_000;
        for k in [500, 6_000] {
            for (order, step) in [("no order", 7_919), ("ever better", 1), ("ever worse", USERS - 1)] {
                let score = |user: u32| (user * step % USERS) as f32 / USERS as f32 - 0.5;
                let shared = Arc::new(SharedThresholds::new(1, 2));
                let shares = [0, 1].map(|part| Share::new(k, Arc::clone(&shared), part));
                let mut parts = [Candidates::default(), Candidates::default()];
                let (mut taken, mut held) = (0, 0);
                for first in (0..USERS).step_by(500) {
                    let users: Vec<u32> = (first..first + 500).collect();
                    let scores: Vec<f32> = users.iter().map(|user| score(*user)).collect();
                    let part = first as usize / 500 % 2;
                    parts[part].look_around(&shares[part], 0);
                    taken += parts[part].offer_all(&shares[part], 0, &scores, &users);
                    held = held.max(parts[part].kept.len());
                }
                let mut scratch = Vec::new();
                let mut best: Vec<Rank> = parts
                    .into_iter()
                    .zip(&shares)
                    .flat_map(|(part, share)| part.finish(share, 0, &mut scratch))
                    .map(|scored| Rank::new(scored.score, scored.user_index))
                    .collect();
                best.sort_unstable();
                let mut expected: Vec<Rank> = (0..USERS).map(|user| Rank::new(score(user), user)).collect();
                expected.sort_unstable();
                assert!(expected[..k] == best[..k], "{order}, {k}");
                assert!(held <= 2 * k && best.len() <= 2 * k, "{order}, {k}: held {held}, gave {}", best.len());
                if order == "no order" {
                    // k·(1 + ln(users / k)), with what is taken until there is a bound.
                    let least = k as f64 * (1.0 + (f64::from(USERS) / k as f64).ln());
                    assert!(best.len() <= k + k / 4, "{k}: gave {}", best.len());
                    assert!((taken as f64) < 1.3 * least, "{k}: {taken} of {least}");
                }
            }
        }
    }

    #[test]
    fn many_ranks_are_sorted_as_few_are() {
        let mut scratch = vec![Rank(7); 3_000];
        let shapes: [fn(usize) -> f32; 4] =
            [|_| 0.5, |n| n as f32, |n| (n as f32).exp(), |n| if n == 77 { -1e30 } else { 1.0 + n as f32 }];
        for shape in shapes {
            let mut ranks: Vec<Rank> = (0..5_000).map(|n| Rank::new(shape(n * 7919 % 5_000), n as u32)).collect();
            let mut expected = ranks.clone();
            expected.sort_unstable();
            sort(&mut ranks, &mut scratch);
            assert_eq!(ranks, expected);
        }
        for many in [0, 1, MANY - 1, MANY, 10_000] {
            for spread in [1, 100, 1_000_000] {
                let score = |n: usize| ((n * 7919) % spread) as f32 / spread as f32 - 0.4;
                let mut ranks: Vec<Rank> =
                    (0..many).map(|n| Rank::new(score(n), (n as u32).wrapping_mul(2_654_435_761))).collect();
                let mut expected = ranks.clone();
                expected.sort_unstable();
                sort(&mut ranks, &mut scratch);
                assert_eq!(ranks, expected, "{many} {spread}");
            }
        }
    }
}
