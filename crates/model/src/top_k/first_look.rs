//! Which pairs of a tile may be among the best: for most of them one look in eight bits is enough.

#[cfg(not(target_arch = "x86_64"))]
use no_vnni::Vnni;

use super::ItemPanels;
use super::quantized::QuantizedUsers;
use super::tile::Tile;
#[cfg(target_arch = "x86_64")]
use super::vnni::Vnni;

/// Users of a tile with the items of a panel that they may be among the best of, users ascending.
pub(super) type Maybe = Vec<(u32, u32)>;

/// Collects the pairs that may be among the best, tile after tile of a ranking.
#[derive(Debug, Default)]
pub(super) struct FirstLook {
    /// Of the tile, once they are asked for.
    users: QuantizedUsers,
    maybe: Maybe,
    /// Whether so many pairs of a panel passed that to look at them in full is faster.
    crowded: Vec<bool>,
}

impl FirstLook {
    /// Whether items are quantized at all: of no use where there is no instruction for it.
    pub(super) fn is_possible() -> bool {
        Vnni::try_new().is_some()
    }

    /// Begins another tile.
    pub(super) fn next_tile(&mut self) {
        self.users.clear();
    }

    /// Does what [`Tile::collect`] does, for a panel of the items, with the same hits.
    pub(super) fn collect(&mut self, mut tile: Tile<'_>, items: &ItemPanels, number: usize) {
        self.crowded.resize(self.crowded.len().max(number + 1), false);
        let crowded = &mut self.crowded[number];
        let all_pass = tile.least.contains(&f32::NEG_INFINITY);
        match (items.quantized(), Vnni::try_new()) {
            // Bounds from above say nothing where the ceiling falls.
            (Some(quantized), Some(vnni)) if !*crowded && !all_pass && tile.ceiling.rises() => {
                if self.users.is_empty() {
                    self.users.take(tile.user_factors, items.dimension());
                }
                vnni.collect(&mut tile, quantized.panel(number), &self.users, &mut self.maybe);
            }
            _ => tile.collect(),
        }
        *crowded = tile.hits.iter().map(|hits| hits.found.len()).sum::<usize>() > 2 * tile.user_log_odds.len();
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod no_vnni {
    use super::{Maybe, QuantizedUsers, Tile};
    use crate::top_k::quantized::{Bounds, Group};

    /// There is none.
    #[derive(Clone, Copy)]
    pub(super) enum Vnni {}

    impl Vnni {
        pub(super) fn try_new() -> Option<Self> {
            None
        }

        pub(super) fn collect(self, _: &mut Tile<'_>, _: (&[Group], &Bounds), _: &QuantizedUsers, _: &mut Maybe) {
            match self {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use std::ops::Range;

    use ndarray::Array2;

    use super::*;
    use crate::csr::Csr;
    use crate::propensity::{NewPairSlopes, probability};
    use crate::top_k::ceiling::Ceiling;
    use crate::top_k::filter::Hits;
    use crate::top_k::quantized::WIDTH;
    use crate::top_k::{Rank, Scored, TileLogOdds, TopKUsers, dot};

    /// Numbers of several sizes and both signs, in no order.
    fn number(n: usize) -> f32 {
        ((n * 7919 + 13) % 10_007) as f32 / 10_007.0 - 0.5
    }

    /// Rows of all kinds that factors can be, and of some that they should not be.
    fn row(row: usize, d: usize, of: Range<usize>) -> Vec<f32> {
        let plain = |k: usize| number(row * 257 + k * 31) * if k.is_multiple_of(7) { 2.0 } else { 0.3 };
        let kinds: [&dyn Fn(usize) -> f32; 12] = [
            &plain,
            &|_| 0.0,
            &|k| if k == row % d { 3.0 } else { 1e-4 * plain(k) },
            &|k| 1e-20 * plain(k),
            &|_| 0.1 + 0.0137 * (row % 50) as f32,
            &plain,
            &|k| if k == row % d { -1e-38 } else { 0.0 },
            &|k| 1e-33 * plain(k),
            &|k| 1e30 * plain(k),
            &|k| if k == row % d { f32::NAN } else { plain(k) },
            &|k| if k == row % d { f32::INFINITY } else { plain(k) },
            &|k| if k == row % d { f32::NAN } else { 0.0 },
        ];
        let kind = kinds[of.start + row % of.len()];
        (0..d).map(kind).collect()
    }

    fn rows(count: usize, d: usize, of: &Range<usize>, seed: usize) -> Array2<f32> {
        let all: Vec<f32> = (0..count).flat_map(|at| row(at * 5 + seed, d, of.clone())).collect();
        Array2::from_shape_vec((count, d), all).unwrap()
    }

    type Found = Vec<Vec<(u32, u32)>>;

    fn bits(hits: &[Hits]) -> Found {
        hits.iter().map(|hits| hits.found.iter().map(|hit| (hit.0, hit.1.to_bits())).collect()).collect()
    }

    #[test]
    fn a_first_look_loses_no_pair_and_adds_none() {
        if !FirstLook::is_possible() {
            eprintln!("skipped: this processor adds up no products of bytes");
            return;
        }
        let mut looked_at = 0;
        for d in [1, 3, 4, 15, 16, 17, 64, 149] {
            // Sound ones, all, and those of which nothing is left, so that nothing but rounding counts.
            for kinds in [0..6, 0..12, 4..5] {
                let (items, users) = (rows(70, d, &kinds, 3), rows(131, d, &kinds, 11));
                let log_odds: Vec<f32> = (0..users.nrows()).map(|user| 4.0 * number(user) - 2.0).collect();
                let panels = ItemPanels::new(items.view());
                let quantized = panels.quantized().unwrap();
                let user_factors = users.as_slice().unwrap();
                for (affinity, log_affinity) in [(0.0, 0.0), (0.4, 0.0), (0.0, 1.0), (30.0, 0.5)] {
                    let ceiling = Ceiling::over(NewPairSlopes { affinity, log_affinity });
                    // Among the heights that there are, so that pairs are both just as high and just too low.
                    let height = |item: usize, user: usize| {
                        ceiling.height(pulp::Scalar, dot(items.row(item), users.row(user)), log_odds[user])
                    };
                    let least = |item: usize| height(item, item * 11 % users.nrows());
                    let least = |item: usize| if least(item).is_nan() { 0.0 } else { least(item) };
                    let least: Vec<f32> = (0..items.nrows()).map(least).collect();
                    let (mut of_users, mut maybe) = (QuantizedUsers::default(), Maybe::default());
                    of_users.take(user_factors, d);
                    for (number, least) in least.chunks(WIDTH).enumerate() {
                        let (panel, there) = panels.panel(number);
                        let [mut first, mut full] = [vec![Hits::default(); there], vec![Hits::default(); there]];
                        let tile = |hits| Tile {
                            panel,
                            width: WIDTH,
                            user_factors,
                            user_log_odds: &log_odds,
                            ceiling,
                            least,
                            hits,
                        };
                        tile(&mut full).collect();
                        let vnni = Vnni::try_new().unwrap();
                        vnni.collect(&mut tile(&mut first), quantized.panel(number), &of_users, &mut maybe);
                        assert!(bits(&first) == bits(&full), "d = {d}, {kinds:?}, {affinity} {log_affinity}, {number}");
                        if kinds == (0..6) {
                            looked_at += maybe.len();
                        }
                    }
                }
            }
        }
        // Of 293,440 pairs; it would be of no use if it ruled out nothing.
        assert!(looked_at < 150_000, "{looked_at}");
    }

    #[test]
    fn many_items_have_the_users_that_a_sort_of_all_scores_gives() {
        let (items, users, d, tile) = (100, 4_000, 20, 500);
        let of = |count: usize, seed: usize| {
            Array2::from_shape_fn((count, d), |(row, k)| 1.5 * number(row * 641 + k * 97 + seed) + 0.2)
        };
        let (item_factors, user_factors) = (of(items, 1), of(users, 2));
        let of_users: Vec<f32> = (0..users).map(|user| number(user * 3) - 4.0).collect();
        let of_items: Vec<f32> = (0..items).map(|item| number(item * 5)).collect();
        let slopes = NewPairSlopes { affinity: 0.3, log_affinity: 0.4 };
        let panels = ItemPanels::new(item_factors.view());
        let nothing = Csr::new(vec![0; items + 1], vec![], vec![], users).unwrap();
        let index: Vec<u32> = (0..users as u32).collect();
        for k in [1, 30, 3_000] {
            let mut top = TopKUsers::new(items, k);
            for from in (0..users).step_by(tile) {
                let log_odds = TileLogOdds { slopes, users: &of_users[from..][..tile], items: &of_items };
                let factors = user_factors.slice(ndarray::s![from..from + tile, ..]);
                top.push_new_pairs(&panels, factors, &index[from..][..tile], log_odds, &nothing).unwrap();
            }
            for (item, found) in top.finish().into_iter().enumerate() {
                let score = |user: usize| {
                    let affinity = dot(item_factors.row(item), user_factors.row(user));
                    probability(slopes.log_odds(affinity, of_users[user], of_items[item]))
                };
                let mut expected: Vec<Rank> = (0..users).map(|user| Rank::new(score(user), user as u32)).collect();
                expected.sort_unstable();
                let expected: Vec<Scored> = expected[..k].iter().map(|rank| rank.scored()).collect();
                assert!(found == expected, "k = {k}, item {item}");
            }
        }
    }
}
