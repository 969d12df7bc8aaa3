//! The best users of one item so far.

use super::Scored;

/// Score and user as one number that is smaller the better they rank: score down, then user up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u64);

const SIGN: u32 = 1 << 31;

impl Rank {
    /// Scores rank as by [`f32::total_cmp`].
    #[inline(always)]
    pub(super) fn new(score: f32, user_index: u32) -> Self {
        let bits = score.to_bits();
        // Numbers of a sign have bits that grow with their size; those below zero are turned around.
        let ascending = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        Self(u64::from(!ascending) << 32 | u64::from(user_index))
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves
    pub(super) fn scored(self) -> Scored {
        let ascending = !((self.0 >> 32) as u32);
        let bits = if ascending & SIGN == 0 { !ascending } else { ascending & !SIGN };
        Scored { score: f32::from_bits(bits), user_index: self.0 as u32 }
    }
}

/// The candidates of one item, in no order.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    kept: Vec<Rank>,
    /// The k-th best at the last pruning: who does not rank before it will never be among the best k.
    threshold: Option<Rank>,
}

impl Candidates {
    /// Who does not rank before it will never be among the best.
    pub(super) fn threshold(&self) -> Option<Rank> {
        self.threshold
    }

    /// Takes one candidate, if it is good enough; whether it is.
    #[inline(always)]
    pub(super) fn offer(&mut self, k: usize, score: f32, user_index: u32) -> bool {
        let rank = Rank::new(score, user_index);
        if self.threshold.is_some_and(|threshold| rank >= threshold) {
            return false;
        }
        self.kept.push(rank);
        if self.kept.len() >= k.saturating_mul(2) {
            self.prune(k);
        }
        true
    }

    /// Keeps the best k.
    fn prune(&mut self, k: usize) {
        if k > 0 && self.kept.len() > k {
            let (_, threshold, _) = self.kept.select_nth_unstable(k - 1);
            self.threshold = Some(*threshold);
            self.kept.truncate(k);
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

    /// The best k, best first.
    pub(super) fn finish(mut self, k: usize) -> Vec<Scored> {
        self.prune(k);
        self.kept.sort_unstable();
        self.kept.into_iter().map(Rank::scored).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_as_scores_down_and_users_up_and_give_both_back() {
        let scores = [f32::INFINITY, f32::MAX, 1.0, 1e-40, 0.0, -0.0, -1e-40, -1.0, f32::MIN, f32::NEG_INFINITY];
        let ranks: Vec<Rank> = scores.iter().flat_map(|s| [0, 7, u32::MAX].map(|user| Rank::new(*s, user))).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b));
        for (rank, (score, user)) in ranks.iter().zip(scores.iter().flat_map(|s| [0, 7, u32::MAX].map(|u| (s, u)))) {
            let back = rank.scored();
            assert_eq!((back.score.to_bits(), back.user_index), (score.to_bits(), user));
        }
    }
}
