//! How many candidates of an item there are by rank, so that its bound rises with every tile.

use super::Rank;

/// Buckets of an item with many candidates; one of 100,000 knows its bound to about a hundredth of them.
const BUCKETS: usize = 1024;
/// With fewer candidates a selection now and then costs as little.
const LEAST: usize = 64;
/// Candidates that are looked at to find where the first bucket begins.
const SAMPLE: usize = 256;
/// So many of the sample have no bucket of their own: a few far ahead would stretch all others.
const AHEAD: usize = SAMPLE / 32;

/// Equally many ranks side by side, the best first.
#[derive(Debug)]
pub(super) struct Buckets {
    /// What ranks before it is in the first bucket too.
    first: u64,
    /// A bucket has `2^width` ranks.
    width: u32,
}

impl Buckets {
    /// Of so many buckets, at least two, as many as it takes from one rank to another that is not before it.
    pub(super) fn new(first: Rank, last: Rank, count: usize) -> Self {
        let width = u64::BITS - ((last.0 - first.0) / count as u64).leading_zeros();
        Self { first: first.0, width }
    }

    /// The number of the bucket of a rank.
    pub(super) fn of(&self, rank: Rank) -> usize {
        usize::try_from(rank.0.saturating_sub(self.first) >> self.width).unwrap_or(usize::MAX)
    }

    /// The last rank of a bucket.
    fn last_of(&self, bucket: usize) -> Rank {
        let width = (1 << self.width) - 1;
        Rank(self.first.saturating_add(((bucket as u64) << self.width).saturating_add(width)))
    }
}

/// Counts the candidates of an item in buckets of equally many ranks, the best first.
///
/// Of the wanted number of users at least as many are always in the buckets before the end, so the last rank of these is a
/// bound. It holds whatever the buckets are; they decide only how close it is.
#[derive(Debug)]
pub(super) struct Tally {
    buckets: Buckets,
    counts: Vec<u32>,
    /// Buckets from here on say nothing any more.
    end: usize,
    /// Candidates before the end.
    within: usize,
}

impl Tally {
    /// Counts the candidates so far; none if they are too few to be worth it.
    pub(super) fn of(candidates: &[Rank], wanted: usize) -> Option<Self> {
        if wanted < LEAST || candidates.len() < wanted {
            return None;
        }
        let mut sample: Vec<Rank> = candidates.iter().step_by(candidates.len().div_ceil(SAMPLE)).copied().collect();
        let ahead = AHEAD.min(sample.len() - 1);
        let (_, first, _) = sample.select_nth_unstable(ahead);
        let count = BUCKETS.min(wanted.next_power_of_two());
        let buckets = Buckets::new(*first, *candidates.iter().max()?, count);
        let mut tally = Self { buckets, counts: vec![0; count], end: count, within: 0 };
        tally.count(candidates);
        Some(tally)
    }

    /// Counts more of them; none ranks after the last bound.
    pub(super) fn count(&mut self, candidates: &[Rank]) {
        let last = self.counts.len() - 1;
        for rank in candidates {
            let bucket = self.buckets.of(*rank).min(last);
            self.counts[bucket] += 1;
            self.within += usize::from(bucket < self.end);
        }
    }

    /// A better bound than before, if there is one: so many candidates are not after it.
    pub(super) fn bound(&mut self, wanted: usize) -> Option<Rank> {
        let before = self.end;
        while let Some(count) = self.counts[..self.end].last().map(|count| *count as usize)
            && wanted <= self.within - count
        {
            self.within -= count;
            self.end -= 1;
        }
        (self.end < before).then(|| self.buckets.last_of(self.end - 1))
    }

    /// Bytes held beside itself.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u32>()
    }

    /// Whether the bound lets in too many more than are wanted for the buckets to be of use.
    pub(super) fn is_coarse(&self, wanted: usize) -> bool {
        self.within > wanted + wanted / 8
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    /// Scores in no order, of several shapes: how close a bound is depends on them, whether it holds does not.
    fn shapes(many: usize) -> Vec<(&'static str, Vec<Rank>)> {
        let uniform = |n: usize| (n * 7919 % 10_007) as f32 / 10_007.0;
        let ranks = |score: &dyn Fn(usize) -> f32| (0..many).map(|n| Rank::new(score(n), n as u32)).collect();
        vec![
            ("even", ranks(&uniform)),
            ("over many sizes", ranks(&|n| (20.0 * uniform(n) - 22.0).exp())),
            ("around zero", ranks(&|n| uniform(n) - 0.5)),
            ("all equal", ranks(&|_| 0.25)),
            ("two values", ranks(&|n| if n % 3 == 0 { 1.0 } else { 1e-3 })),
            ("a few far ahead", ranks(&|n| if n % 1000 == 7 { 1e30 } else { 1e-3 * uniform(n) })),
            ("ever better", ranks(&|n| n as f32)),
            ("ever worse", ranks(&|n| -(n as f32))),
        ]
    }

    #[test]
    fn a_bound_has_the_wanted_number_before_it_and_few_more() {
        for (shape, ranks) in shapes(40_000) {
            for wanted in [64, 1_000, 9_000] {
                let (first, later) = ranks.split_at(2 * wanted);
                let mut first = first.to_vec();
                let (_, worst, _) = first.select_nth_unstable(wanted - 1);
                let mut last = *worst;
                first.retain(|rank| *rank <= last);
                let mut tally = Tally::of(&first, wanted).unwrap();
                for (turn, some) in later.chunks(100).enumerate() {
                    let taken: Vec<Rank> = some.iter().filter(|rank| **rank < last).copied().collect();
                    tally.count(&taken);
                    let Some(bound) = tally.bound(wanted) else { continue };
                    assert!(bound < last || turn == 0, "{shape}: {bound:?} after {last:?}");
                    last = last.min(bound);
                    let seen = 2 * wanted + 100 * turn + some.len();
                    let before = ranks[..seen].iter().filter(|rank| **rank <= bound).count();
                    assert!(wanted <= before, "{shape}: {before} of {wanted}");
                    let left = ranks[..seen].iter().filter(|rank| **rank <= last).count();
                    assert!(tally.is_coarse(wanted) || left <= wanted + wanted / 8, "{shape}: {left} of {wanted}");
                }
                if ["even", "over many sizes", "all equal", "a few far ahead"].contains(&shape) && wanted > 64 {
                    assert!(!tally.is_coarse(wanted), "{shape}: {} for {wanted}", tally.within);
                }
            }
        }
    }

    #[test]
    fn the_first_and_the_last_rank_there_are_overflow_nothing() {
        let ends = [f32::MAX, f32::MIN];
        let ranks: Vec<Rank> =
            (0..200).map(|n| Rank::new(ends[n % 2], if n % 2 == 0 { 0 } else { u32::MAX })).collect();
        let mut tally = Tally::of(&ranks, 100).unwrap();
        assert_eq!(tally.within, 200);
        let bound = tally.bound(100).unwrap();
        assert!(ranks[0] <= bound && bound < ranks[1]);
        assert_eq!(tally.bound(100), None);
    }

    #[test]
    fn few_candidates_are_not_counted() {
        let ranks: Vec<Rank> = (0..100).map(|n| Rank::new(0.5, n)).collect();
        assert!(Tally::of(&ranks, LEAST - 1).is_none() && Tally::of(&ranks, 101).is_none());
        assert!(Tally::of(&ranks, LEAST).is_some_and(|tally| tally.allocated_bytes() == 4 * LEAST));
    }
}
