//! The ranking kernel: scores of many users for a few items, and the best users of each item.

mod candidates;
mod ceiling;
mod filter;
mod first_look;
mod panels;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // read where there is an instruction for it
mod quantized;
mod rank;
mod shared;
mod tally;
mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayView1, ArrayView2};

use crate::csr::Csr;
use crate::elementary::ln;
use crate::error::{Error, Result, same_length};
use crate::linalg::product_of_rows;
use crate::propensity::{NewPairSlopes, probability};
use candidates::Candidates;
use ceiling::Ceiling;
use filter::Hits;
use first_look::FirstLook;
pub use panels::ItemPanels;
pub use rank::Rank;
use shared::Share;
pub use shared::SharedThresholds;
use tile::{Tile, fetch};

/// To look for what reaches a threshold is of no use where more than one in so many does.
const DENSE: usize = 8;

/// A user with a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The score.
    pub score: f32,
    /// Whose it is.
    pub user_index: u32,
}

/// Keeps the best `k` users of each item while the scores of all users stream by.
///
/// Buffers grow with what is kept, never ahead of it, so a large `k` costs nothing by itself.
///
/// ```
/// # use item_affinity_model::TopKUsers;
/// let mut best = TopKUsers::new(1, 2);
/// best.push(&[0.5, 0.9, 0.1], &[0, 1, 2])?;
/// best.push(&[0.5, 0.7], &[3, 4])?;
/// let users: Vec<u32> = best.finish()[0].iter().map(|scored| scored.user_index).collect();
/// assert_eq!(users, [1, 4]);
/// # Ok::<(), item_affinity_model::Error>(())
/// ```
#[derive(Debug)]
pub struct TopKUsers {
    share: Share,
    items: Vec<ItemTop>,
    /// Of the items of a panel.
    hits: Vec<Hits>,
    /// What ceilings of the pairs of these must reach.
    least: Vec<f32>,
    first_look: FirstLook,
}

/// The ranking of one item.
#[derive(Debug)]
struct ItemTop {
    candidates: Candidates,
    /// What the threshold asks of log-odds, for the threshold that it was worked out for.
    bar: Bar,
    /// Users with history that come before the last that was looked for.
    seen_before: usize,
    /// Whether so many scores are taken that all are offered.
    dense: bool,
}

/// The least log-odds that reach a threshold.
#[derive(Clone, Copy, Debug)]
struct Bar {
    threshold: Option<Rank>,
    least: f32,
}

impl Default for ItemTop {
    fn default() -> Self {
        Self {
            candidates: Candidates::default(),
            bar: Bar { threshold: None, least: f32::NEG_INFINITY },
            seen_before: 0,
            dense: true,
        }
    }
}

/// What turns the affinities of a tile of new pairs into probabilities.
#[derive(Clone, Copy, Debug)]
pub struct TileLogOdds<'a> {
    /// How affinity counts.
    pub slopes: NewPairSlopes,
    /// What each user of the tile adds.
    pub users: &'a [f32],
    /// What each item adds.
    pub items: &'a [f32],
}

impl TopKUsers {
    /// Nobody yet, for this many items.
    #[must_use]
    pub fn new(items: usize, k: usize) -> Self {
        Self::of_part(k, Arc::new(SharedThresholds::new(items, 1)), 0)
    }

    /// Nobody yet, of a part of the users. The best of a part are those who may be among the best `k` of all parts.
    ///
    /// # Panics
    /// if there is no such part. One that comes twice breaks the ranking of the others.
    #[must_use]
    pub fn of_part(k: usize, shared: Arc<SharedThresholds>, part: usize) -> Self {
        let items = (0..shared.items()).map(|_| ItemTop::default()).collect();
        Self {
            share: Share::new(k, shared, part),
            items,
            hits: vec![Hits::default()],
            least: Vec::new(),
            first_look: FirstLook::default(),
        }
    }

    /// Takes the scores of some users for all items. A user must not come twice.
    ///
    /// # Shapes
    /// scores: items × users, row-major; user_index: users
    /// # Errors
    /// [`Error::Shape`]; [`Error::NotFinite`] with the row of the item for any NaN or +∞, and for −∞ as soon as it
    /// would be kept. After an error the content is unspecified.
    /// # Cost
    /// One comparison per score, and about `k·log(users / k)` candidates per item when users come in no order of score.
    pub fn push(&mut self, scores: &[f32], user_index: &[u32]) -> Result<()> {
        same_length("scores", self.items.len() * user_index.len(), scores.len())?;
        if self.share.k == 0 || user_index.is_empty() {
            return Ok(());
        }
        for (row, (item, scores)) in self.items.iter_mut().zip(scores.chunks_exact(user_index.len())).enumerate() {
            if !item.push(&self.share, row, &mut self.hits[0], scores, user_index) {
                return Err(Error::NotFinite { what: "a score", row, iteration: None });
            }
        }
        Ok(())
    }

    /// Takes some users with their affinities to all items, as the probabilities of new pairs. A user must not come twice.
    ///
    /// Pairs with history are passed over: [`TopKUsers::push_repeat_pairs`] takes them.
    ///
    /// # Shapes
    /// user_factors: users × d; user_index: users, ascending; history: items × all users
    /// # Errors
    /// [`Error::Shape`]; [`Error::NotFinite`] with the row of the item for any affinity of NaN or +∞, for −∞ as soon as
    /// it would be scored, and for log-odds of NaN. After an error the content is unspecified.
    /// # Cost
    /// items·users·d multiply-adds on the calling thread, best with some hundred users at a time, of bytes where the
    /// processor has them; then for most pairs a handful of instructions that bound log-odds from above. Only pairs that
    /// reach the threshold by them are scored in full.
    pub fn push_new_pairs(
        &mut self,
        item_factors: &ItemPanels,
        user_factors: ArrayView2<'_, f32>,
        user_index: &[u32],
        log_odds: TileLogOdds<'_>,
        history: &Csr,
    ) -> Result<()> {
        same_length("items", self.items.len(), item_factors.items())?;
        same_length("a user factor", item_factors.dimension(), user_factors.ncols())?;
        same_length("user factors", user_index.len(), user_factors.nrows())?;
        same_length("the log-odds of users", user_index.len(), log_odds.users.len())?;
        same_length("the log-odds of items", self.items.len(), log_odds.items.len())?;
        same_length("history", self.items.len(), history.rows())?;
        if self.share.k == 0 || user_index.is_empty() {
            return Ok(());
        }
        let user_factors = user_factors.as_standard_layout();
        let user_factors = user_factors.as_slice().unwrap_or_default();
        let (width, share) = (item_factors.width(), &self.share);
        if self.items.len() <= width {
            // Several panels find it near after the first.
            fetch(user_factors);
        }
        self.hits.resize_with(width, Hits::default);
        self.first_look.next_tile();
        let ceiling = Ceiling::over(log_odds.slopes);
        for (number, items) in self.items.chunks_mut(width).enumerate() {
            let (panel, there) = item_factors.panel(number);
            let row = |item: usize| number * width + item;
            self.least.clear();
            self.least.extend(items.iter_mut().enumerate().map(|(item, top)| {
                top.candidates.look_around(share, row(item));
                ceiling.least(top.least_log_odds(), log_odds.items[row(item)])
            }));
            let hits = &mut self.hits[..there];
            hits.iter_mut().for_each(Hits::clear);
            let (user_log_odds, least) = (log_odds.users, &self.least[..]);
            let tile = Tile { panel, width, user_factors, user_log_odds, ceiling, least, hits: &mut *hits };
            self.first_look.collect(tile, item_factors, number);
            for (item, (top, hits)) in items.iter_mut().zip(hits).enumerate().filter(|(_, (_, hits))| !hits.is_empty())
            {
                let row = row(item);
                if !hits.score(log_odds.slopes, user_log_odds, log_odds.items[row]) {
                    let what = "an affinity, or the log-odds of a pair,";
                    return Err(Error::NotFinite { what, row, iteration: None });
                }
                top.take(share, row, hits, user_index, history.row(row).0);
            }
        }
        Ok(())
    }

    /// Takes the pairs with history of some users, whose log-odds are known as a whole. A user must not come twice.
    ///
    /// # Shapes
    /// user_index: users, ascending; history: items × all users, values: log-odds
    /// # Errors
    /// [`Error::Shape`]; [`Error::NotFinite`] with the row of the item for log-odds of NaN
    /// # Cost
    /// one comparison per pair with history of these users, and one exponential for those that may be among the best
    pub fn push_repeat_pairs(&mut self, user_index: &[u32], history: &Csr) -> Result<()> {
        same_length("history", self.items.len(), history.rows())?;
        if self.share.k == 0 {
            return Ok(());
        }
        let (Some(first), Some(last)) = (user_index.first(), user_index.last()) else { return Ok(()) };
        let gapless = (last - first) as usize == user_index.len() - 1;
        for (row, item) in self.items.iter_mut().enumerate() {
            let (users, log_odds) = history.row(row);
            let among = item.seen_among(users, user_index);
            for (user, log_odds) in users[among.clone()].iter().zip(&log_odds[among]) {
                if log_odds.is_nan() {
                    return Err(Error::NotFinite { what: "the log-odds", row, iteration: None });
                }
                if *log_odds < item.least_log_odds() {
                    continue;
                }
                if gapless || user_index.binary_search(user).is_ok() {
                    item.candidates.offer(&self.share, row, probability(f64::from(*log_odds)), *user);
                }
            }
        }
        Ok(())
    }

    /// Whoever may still be among the best of an item: at most `2k` users of each, in no order.
    pub fn users(&self) -> impl Iterator<Item = u32> {
        self.items.iter().flat_map(|item| item.candidates.users())
    }

    /// Bytes held for candidates.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.items.capacity() * size_of::<ItemTop>()
            + self.items.iter().map(|item| item.candidates.allocated_bytes()).sum::<usize>()
    }

    /// The best users of each item, best first, at most `k`.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Scored>> {
        let Self { share, items, .. } = self;
        let mut scratch = Vec::new();
        items.into_iter().enumerate().map(|(item, top)| top.candidates.finish(&share, item, &mut scratch)).collect()
    }
}

impl ItemTop {
    /// False if a score is not finite.
    fn push(&mut self, share: &Share, item: usize, hits: &mut Hits, scores: &[f32], user_index: &[u32]) -> bool {
        self.candidates.look_around(share, item);
        let least = self.candidates.threshold().map_or(f32::NEG_INFINITY, |threshold| threshold.scored().score);
        let (scores, users) = if self.dense {
            (scores, user_index)
        } else {
            hits.reaching(scores, least);
            hits.name(user_index);
            hits.scores.clear();
            hits.scores.extend(hits.at.iter().map(|at| scores[*at as usize]));
            (&hits.scores[..], &hits.users[..])
        };
        // Every NaN and every +∞ comes here, since neither is below a threshold. No early end, which would keep it slow.
        if !scores.iter().fold(true, |all, score| all & (score.is_finite() | (*score < least))) {
            return false;
        }
        let taken = self.candidates.offer_all(share, item, scores, users);
        self.dense = DENSE * taken >= user_index.len();
        true
    }

    /// Takes the pairs that were collected, but those with history.
    fn take(&mut self, share: &Share, item: usize, hits: &mut Hits, user_index: &[u32], seen: &[u32]) {
        hits.name(user_index);
        for user in &seen[self.seen_among(seen, user_index)] {
            hits.forget(*user);
        }
        self.candidates.offer_all(share, item, &hits.scores, &hits.users);
    }

    /// The least log-odds with which a pair may be among the best.
    #[allow(clippy::cast_possible_truncation)]
    fn least_log_odds(&mut self) -> f32 {
        let threshold = self.candidates.threshold();
        if self.bar.threshold != threshold {
            // A score that rounds to the threshold lies above the number below it.
            let below = threshold.map_or(0.0, |threshold| f64::from(threshold.scored().score.next_down()));
            let least = if below > 0.0 { ln(below / (1.0 - below)) as f32 } else { f32::NEG_INFINITY };
            self.bar = Bar { threshold, least: least.next_down() };
        }
        self.bar.least
    }

    /// Where users who ascend are among the users with history.
    ///
    /// # Cost
    /// Small when calls ascend as well, as they do: the search begins where the last one ended.
    fn seen_among(&mut self, seen: &[u32], user_index: &[u32]) -> Range<usize> {
        let (Some(first), Some(last)) = (user_index.first(), user_index.last()) else { return 0..0 };
        let mut from = self.seen_before.min(seen.len());
        if from > 0 && seen[from - 1] >= *first {
            from = 0;
        }
        while from < seen.len() && seen[from] < *first {
            from += 1;
        }
        let mut to = from;
        while to < seen.len() && seen[to] <= *last {
            to += 1;
        }
        self.seen_before = from;
        from..to
    }
}

/// Scores a tile of users for items: `item_factors · user_factorsᵀ`.
///
/// # Shapes
/// item_factors: items × d; user_factors: users × d; scores: items × users, row-major, overwritten
/// # Errors
/// [`Error::Shape`]
/// # Cost
/// items·users·d multiply-adds on the calling thread. Tiles of 512 items and 1024 users stay in cache. A score has
/// the same bits in every tile, for d of at least 32.
pub fn score_tile(
    item_factors: ArrayView2<'_, f32>,
    user_factors: ArrayView2<'_, f32>,
    scores: &mut [f32],
) -> Result<()> {
    let d = item_factors.ncols();
    same_length("a user factor", d, user_factors.ncols())?;
    same_length("scores", item_factors.nrows() * user_factors.nrows(), scores.len())?;
    if scores.is_empty() || d == 0 {
        scores.fill(0.0);
        return Ok(());
    }
    let (items, users) = (item_factors.as_standard_layout(), user_factors.as_standard_layout());
    product_of_rows(items.as_slice().unwrap_or_default(), users.as_slice().unwrap_or_default(), d, scores);
    Ok(())
}

/// The score of one pair, added up in the order in which [`score_tile`] adds.
#[must_use]
pub fn dot(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f32 {
    a.iter().zip(b.iter()).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn best(k: usize, tiles: &[(&[f32], &[u32])]) -> Vec<(f32, u32)> {
        let mut top = TopKUsers::new(1, k);
        for (scores, users) in tiles {
            top.push(scores, users).unwrap();
        }
        top.finish().remove(0).iter().map(|scored| (scored.score, scored.user_index)).collect()
    }

    #[test]
    fn a_later_user_with_an_equal_score_and_a_lower_index_wins() {
        let scores = [1.0; 6];
        assert_eq!(best(2, &[(&scores, &[9, 8, 7, 6, 5, 4]), (&[1.0], &[3])]), [(1.0, 3), (1.0, 4)]);
        assert_eq!(best(2, &[(&scores, &[1, 2, 3, 4, 5, 6]), (&[1.0], &[0])]), [(1.0, 0), (1.0, 1)]);
    }

    #[test]
    fn parts_with_users_spread_evenly_keep_their_share_and_not_k() {
        let (parts, k, tile) = (4, 1_000, 500);
        let shared = Arc::new(SharedThresholds::new(1, parts));
        let mut tops: Vec<_> = (0..parts).map(|part| TopKUsers::of_part(k, Arc::clone(&shared), part)).collect();
        for first in (0..40_000u32).step_by(tile) {
            let users: Vec<u32> = (first..first + tile as u32).collect();
            let scores: Vec<f32> = users.iter().map(|user| (user * 7919 % 40_009) as f32).collect();
            tops[first as usize / tile % parts].push(&scores, &users).unwrap();
        }
        let kept: Vec<usize> = tops.into_iter().map(|top| top.finish()[0].len()).collect();
        assert!(kept.iter().all(|kept| (100..600).contains(kept)) && kept.iter().sum::<usize>() >= k, "{kept:?}");
    }

    #[test]
    fn a_part_that_has_nobody_lets_the_others_keep_k() {
        let shared = Arc::new(SharedThresholds::new(1, 2));
        let mut top = TopKUsers::of_part(10, Arc::clone(&shared), 1);
        let users: Vec<u32> = (0..1_000).collect();
        top.push(&users.iter().map(|user| *user as f32).collect::<Vec<_>>(), &users).unwrap();
        let found: Vec<u32> = top.finish()[0].iter().map(|scored| scored.user_index).collect();
        assert_eq!(found, (990..1_000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn fewer_users_than_k_are_all_kept_in_order() {
        assert_eq!(best(5, &[(&[-1.0, 3.0], &[7, 2])]), [(3.0, 2), (-1.0, 7)]);
        assert_eq!(best(0, &[(&[-1.0, 3.0], &[7, 2])]), []);
        assert_eq!(best(3, &[]), []);
    }

    #[test]
    fn zero_ranks_before_minus_zero_on_both_sides_of_the_threshold() {
        assert_eq!(best(1, &[(&[-0.0, -0.0], &[0, 1]), (&[0.0], &[9])])[0].1, 9);
        assert_eq!(best(1, &[(&[0.0, 0.0], &[8, 9]), (&[-0.0], &[0])])[0].1, 8);
    }

    #[test]
    fn a_large_k_reserves_nothing() {
        let mut top = TopKUsers::new(500, 5_000_000);
        top.push(&[0.0; 500], &[0]).unwrap();
        assert!(top.allocated_bytes() < 100_000, "{}", top.allocated_bytes());
    }

    #[test]
    fn scores_that_are_not_finite_are_refused_wherever_they_come() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for before in [0usize, 1, 2, 40] {
                let mut top = TopKUsers::new(2, 1);
                let mut scores = vec![1.0; 2 * (before + 1)];
                scores[2 * before + 1] = bad;
                let users: Vec<u32> = (0u32..).take(before + 1).collect();
                assert_eq!(
                    top.push(&scores, &users),
                    Err(Error::NotFinite { what: "a score", row: 1, iteration: None }),
                    "{bad} after {before}"
                );
            }
        }
        assert!(TopKUsers::new(1, 1).push(&[f32::NEG_INFINITY], &[0]).is_err());
    }

    fn tile<'a>(slopes: (f32, f32), users: &'a [f32], items: &'a [f32]) -> TileLogOdds<'a> {
        TileLogOdds { slopes: NewPairSlopes { affinity: slopes.0, log_affinity: slopes.1 }, users, items }
    }

    /// Affinities of one item, as factors of one hidden variable.
    fn push_affinities(
        top: &mut TopKUsers,
        affinities: &[f32],
        users: &[u32],
        log_odds: TileLogOdds<'_>,
        history: &Csr,
    ) -> Result<()> {
        let users_of = ArrayView2::from_shape((affinities.len(), 1), affinities).unwrap();
        top.push_new_pairs(&ItemPanels::new(Array2::ones((1, 1)).view()), users_of, users, log_odds, history)
    }

    fn no_history(items: usize) -> Csr {
        Csr::new(vec![0; items + 1], vec![], vec![], 9).unwrap()
    }

    #[test]
    fn new_and_repeat_pairs_by_hand() {
        let history = Csr::new(vec![0, 1], vec![1], vec![0.5], 3).unwrap();
        let mut top = TopKUsers::new(1, 2);
        // The second user has a history: its affinity of 9 says nothing.
        let log_odds = tile((1.0, 0.5), &[0.1, 0.1, -3.0], &[0.2]);
        push_affinities(&mut top, &[1.0, 9.0, 2.0], &[0, 1, 2], log_odds, &history).unwrap();
        top.push_repeat_pairs(&[0, 1, 2], &history).unwrap();
        let found = top.finish().remove(0);
        assert_eq!(found.iter().map(|scored| scored.user_index).collect::<Vec<_>>(), [0, 1]);
        let expected = [1.0 / (1.0 + (-1.3f64).exp()), 1.0 / (1.0 + (-0.5f64).exp())];
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(found.score) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn affinities_and_log_odds_that_are_not_finite_are_refused_wherever_they_come() {
        let push = |affinity: f32, before: usize, user: f32| {
            let mut affinities = vec![0.5; before];
            affinities.push(affinity);
            let users: Vec<u32> = (0u32..).take(before + 1).collect();
            let mut log_odds = vec![-1.0; before];
            log_odds.push(user);
            let mut top = TopKUsers::new(1, 1);
            push_affinities(&mut top, &affinities, &users, tile((1.0, 0.5), &log_odds, &[0.0]), &no_history(1))
        };
        for before in [0, 1, 9, 70, 200] {
            for (affinity, user) in [(f32::NAN, 0.0), (f32::INFINITY, 0.0), (0.5, f32::NAN)] {
                assert!(
                    matches!(push(affinity, before, user), Err(Error::NotFinite { row: 0, .. })),
                    "{affinity} {before}"
                );
            }
        }
        assert!(push(f32::NEG_INFINITY, 0, 0.0).is_err());
        assert_eq!(push(f32::MIN, 70, 0.0), Ok(()));
        assert_eq!(push(f32::MAX, 70, 0.0), Ok(()));
        // A flat propensity must not turn −∞ into a NaN that is kept.
        let mut top = TopKUsers::new(1, 1);
        let flat = tile((0.0, 0.0), &[0.0], &[0.0]);
        assert!(push_affinities(&mut top, &[f32::NEG_INFINITY], &[0], flat, &no_history(1)).is_err());
    }

    #[test]
    fn nobody_is_asked_for_and_nobody_is_found() {
        let history = Csr::new(vec![0, 1], vec![1], vec![0.5], 3).unwrap();
        let mut top = TopKUsers::new(1, 0);
        push_affinities(&mut top, &[1.0], &[0], tile((1.0, 0.5), &[0.1], &[0.2]), &history).unwrap();
        top.push_repeat_pairs(&[0, 1], &history).unwrap();
        top.push_repeat_pairs(&[], &history).unwrap();
        assert_eq!(top.finish(), [vec![]]);
    }

    #[test]
    fn shapes_that_contradict_are_refused() {
        let mut top = TopKUsers::new(2, 1);
        let mut push = |(items, d): (usize, usize), users: usize, log_odds: usize, of_items: usize, history: usize| {
            let (panels, factors) = (ItemPanels::new(Array2::zeros((items, 3)).view()), Array2::zeros((users, d)));
            let (index, log_odds, of_items) = (vec![3; 1], vec![0.0; log_odds], vec![0.0; of_items]);
            let tile = tile((1.0, 1.0), &log_odds, &of_items);
            top.push_new_pairs(&panels, factors.view(), &index, tile, &no_history(history))
        };
        assert_eq!(push((2, 3), 1, 1, 2, 2), Ok(()));
        for (items, users, log_odds, of_items, history) in [
            ((3, 3), 1, 1, 2, 2),
            ((2, 2), 1, 1, 2, 2),
            ((2, 3), 2, 1, 2, 2),
            ((2, 3), 1, 2, 2, 2),
            ((2, 3), 1, 1, 3, 2),
            ((2, 3), 1, 1, 2, 1),
        ] {
            assert!(matches!(push(items, users, log_odds, of_items, history), Err(Error::Shape { .. })));
        }
        assert!(matches!(top.push_repeat_pairs(&[0], &no_history(1)), Err(Error::Shape { .. })));
        assert!(matches!(TopKUsers::new(2, 1).push(&[1.0; 3], &[0, 1]), Err(Error::Shape { expected: 4, .. })));
        let factors = Array2::zeros((2, 3));
        assert!(matches!(score_tile(factors.view(), factors.view(), &mut [0.0; 3]), Err(Error::Shape { .. })));
        let other = Array2::zeros((2, 4));
        assert!(matches!(score_tile(factors.view(), other.view(), &mut [0.0; 4]), Err(Error::Shape { .. })));
    }

    #[test]
    fn scores_by_hand_and_one_by_one() {
        let items = Array2::from_shape_vec((2, 2), vec![1., 2., 3., 4.]).unwrap();
        let users = Array2::from_shape_vec((3, 2), vec![1., 0., 0., 1., 1., 1.]).unwrap();
        let mut scores = [9.0; 6];
        score_tile(items.view(), users.view(), &mut scores).unwrap();
        assert_eq!(scores, [1., 2., 3., 3., 4., 7.]);
        assert_eq!(dot(items.row(1), users.row(2)), 7.0);
        score_tile(items.t(), items.view(), &mut scores[..4]).unwrap();
        assert_eq!(scores[..4], [7., 15., 10., 22.]);
    }
}
