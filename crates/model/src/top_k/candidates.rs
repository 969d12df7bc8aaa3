//! The best users of one item so far.

use super::{Rank, Scored};

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
