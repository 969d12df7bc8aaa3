//! The best users of one item so far.

use super::shared::Share;
use super::{Rank, Scored};

/// The candidates of one item, in no order.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    kept: Vec<Rank>,
    /// Who does not rank before it will never be among the best k.
    threshold: Option<Rank>,
    /// How many were left by the last pruning.
    pruned: usize,
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
            if self.room(share) == 0 {
                self.prune(share, item);
            }
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
            if self.room(share) == 0 {
                self.prune(share, item);
            }
        }
        taken
    }

    /// How many more are taken before they are pruned.
    fn room(&self, share: &Share) -> usize {
        self.pruned.max(share.own).saturating_mul(2).saturating_sub(self.kept.len())
    }

    /// Keeps who may still be among the best k of all parts, and tells the others.
    #[cold]
    fn prune(&mut self, share: &Share, item: usize) {
        let own = share.own;
        if 0 < own && own <= self.kept.len() {
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
        self.kept.capacity() * size_of::<Rank>()
    }

    /// Those who may be among the best k of all parts, at most k, best first. What is in the scratch is of no account.
    pub(super) fn finish(mut self, share: &Share, item: usize, scratch: &mut Vec<Rank>) -> Vec<Scored> {
        self.prune(share, item);
        sort(&mut self.kept, scratch);
        self.kept.into_iter().map(Rank::scored).collect()
    }
}

/// Below this many a sort by comparisons is faster.
const MANY: usize = 2_000;
const DIGIT_BITS: usize = 8;
const DIGITS: usize = u64::BITS as usize / DIGIT_BITS;

/// Sorts upwards; many by their digits, from the last to the first (Knuth, 5.2.5), in time that grows with their number
/// alone.
fn sort(ranks: &mut Vec<Rank>, scratch: &mut Vec<Rank>) {
    if ranks.len() < MANY {
        ranks.sort_unstable();
        return;
    }
    let digit = |rank: Rank, digit: usize| usize::from(rank.0.to_le_bytes()[digit]);
    let mut counts = [[0usize; 1 << DIGIT_BITS]; DIGITS];
    for rank in ranks.iter() {
        for (place, counts) in counts.iter_mut().enumerate() {
            counts[digit(*rank, place)] += 1;
        }
    }
    scratch.resize(ranks.len(), Rank(0));
    for (place, counts) in counts.iter_mut().enumerate() {
        // All have the same digit, as in the high ones of users.
        if counts[digit(ranks[0], place)] == ranks.len() {
            continue;
        }
        let mut first = 0;
        for count in counts.iter_mut() {
            first += std::mem::replace(count, first);
        }
        for rank in ranks.iter() {
            let to = &mut counts[digit(*rank, place)];
            scratch[*to] = *rank;
            *to += 1;
        }
        std::mem::swap(ranks, scratch);
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn many_ranks_are_sorted_as_few_are() {
        let mut scratch = vec![Rank(7); 3_000];
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
