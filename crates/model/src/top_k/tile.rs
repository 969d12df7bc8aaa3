//! The ranking kernel: affinities of the items of a panel with the users of a tile, held in registers until it is known
//! that they are too low.

use pulp::{Arch, Simd, WithSimd};

use super::ceiling::Ceiling;
use super::filter::{Hits, bits, lanes_from};

/// What the kernel is given.
pub(super) struct Tile<'a> {
    /// d × width items, from [`ItemPanels`](super::ItemPanels).
    pub(super) panel: &'a [f32],
    pub(super) width: usize,
    /// users × d, row-major.
    pub(super) user_factors: &'a [f32],
    pub(super) user_log_odds: &'a [f32],
    pub(super) ceiling: Ceiling,
    /// What the ceiling of a pair must reach; one for each item that is there, at most width.
    pub(super) least: &'a [f32],
    /// As many; the pairs whose ceiling reaches the least of the item are added.
    pub(super) hits: &'a mut [Hits],
}

impl Tile<'_> {
    /// Collects the pairs whose ceiling is not too low, by item in the order of the users; NaN is not.
    ///
    /// # Cost
    /// users·width·d multiply-adds. An affinity is added up hidden variable after hidden variable, so it has the bits of
    /// [`dot`](super::dot) on every machine.
    pub(super) fn collect(&mut self) {
        Arch::new().dispatch(self);
    }

    /// What ceilings must reach; items that are not there are out of reach.
    #[inline(always)]
    pub(super) fn least_of_panel<const WIDTH: usize>(&self) -> [f32; WIDTH] {
        let mut least = [f32::INFINITY; WIDTH];
        least[..self.least.len()].copy_from_slice(self.least);
        least
    }
}

/// Brings a tile near, line of cache after line, which the processor foresees; several users at a time it does not.
pub(super) fn fetch(factors: &[f32]) {
    const LINE: usize = 64 / size_of::<f32>();
    let seen = factors.iter().step_by(LINE).fold(0, |seen, factor| seen ^ factor.to_bits());
    // The result is of no use; what counts is that the loads happen.
    std::hint::black_box(seen);
}

impl WithSimd for &mut Tile<'_> {
    type Output = ();

    /// As many users at a time as registers hold sums for, beside what is multiplied: 12 vectors of AVX2, 24 of AVX-512
    /// and NEON. A request of one vector of items waits for memory, and takes only as many users as there are registers
    /// for their addresses.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (size_of::<S::f32s>() / size_of::<f32>(), self.width) {
            (16, 32) => collect::<S, 32, 2, 12>(simd, self),
            (16, 16) => collect::<S, 16, 1, 8>(simd, self),
            (8, 16) => collect::<S, 16, 2, 6>(simd, self),
            (8, 8) => collect::<S, 8, 1, 8>(simd, self),
            (4, 16) => collect::<S, 16, 4, 6>(simd, self),
            // Without vectors.
            (_, 32) => collect::<S, 32, 32, 1>(simd, self),
            (_, 8) => collect::<S, 8, 8, 1>(simd, self),
            _ => collect::<S, 16, 16, 1>(simd, self),
        }
    }
}

/// All WIDTH items of the panel, in so many VECTORS, with USERS at a time.
#[inline(always)]
fn collect<S: Simd, const WIDTH: usize, const VECTORS: usize, const USERS: usize>(simd: S, tile: &mut Tile<'_>) {
    let of_panel = tile.least_of_panel::<WIDTH>();
    let Tile { panel, width: _, user_factors, user_log_odds, ceiling, least, ref mut hits } = *tile;
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let (panel, _) = panel.as_chunks::<WIDTH>();
    let (users, d) = (user_log_odds.len(), panel.len());
    let zeros = vec![0.0; d];
    let items = least.len();
    let (least, _) = S::as_simd_f32s(&of_panel);
    let one = simd.splat_f32s(1.0);
    for first in (0..users).step_by(USERS) {
        let there = USERS.min(users - first);
        // All are as long as the panel, which spares the loop its checks.
        let rows: [&[f32]; USERS] =
            std::array::from_fn(
                |user| {
                    if user < there { &user_factors[(first + user) * d..][..d] } else { &zeros[..d] }
                },
            );
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; USERS];
        for k in 0..d {
            let (items, _) = S::as_simd_f32s(&panel[k]);
            let items: [S::f32s; VECTORS] = std::array::from_fn(|vector| items[vector]);
            for user in 0..USERS {
                let factor = simd.splat_f32s(rows[user][k]);
                for vector in 0..VECTORS {
                    sums[user][vector] = simd.mul_add_f32s(factor, items[vector], sums[user][vector]);
                }
            }
        }
        // Out of the registers, at places that the compiler knows: it would keep sums in memory throughout if they were looked
        // for by number below.
        let mut affinities = [[0f32; WIDTH]; USERS];
        for user in 0..USERS {
            let (to, _) = S::as_mut_simd_f32s(&mut affinities[user]);
            #[allow(clippy::manual_memcpy)] // a copy of a length that is not known here would look for them by number
            for vector in 0..VECTORS {
                to[vector] = sums[user][vector];
            }
        }
        let mut fails = [[simd.less_than_f32s(one, one); VECTORS]; USERS];
        let mut all = simd.less_than_f32s(simd.splat_f32s(0.0), one);
        for user in 0..there {
            let log_odds = simd.splat_f32s(user_log_odds[first + user]);
            let (of_user, _) = S::as_simd_f32s(&affinities[user]);
            for vector in 0..VECTORS {
                let height = ceiling.height(simd, of_user[vector], log_odds);
                fails[user][vector] = simd.less_than_f32s(height, least[vector]);
                all = simd.and_m32s(all, fails[user][vector]);
            }
        }
        if bits::<S>(all) == lanes_from(lanes) {
            continue;
        }
        for user in 0..there {
            for (vector, fails) in fails[user].into_iter().enumerate() {
                let first_item = vector * lanes;
                let real = lanes_from(items.saturating_sub(first_item).min(lanes));
                let mut passes = !bits::<S>(fails) & real;
                while passes != 0 {
                    let item = first_item + passes.trailing_zeros() as usize;
                    passes &= passes - 1;
                    hits[item].add(first + user, affinities[user][item]);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::propensity::NewPairSlopes;
    use crate::top_k::{ItemPanels, dot};

    fn found(
        panels: &ItemPanels,
        users: &Array2<f32>,
        log_odds: &[f32],
        (ceiling, least): (Ceiling, &[f32]),
        plain: bool,
    ) -> Vec<Hits> {
        let mut all = Vec::new();
        for (number, least) in least.chunks(panels.width()).enumerate() {
            let (panel, there) = panels.panel(number);
            assert_eq!(there, least.len());
            let mut hits = vec![Hits::default(); there];
            let (width, user_factors) = (panels.width(), users.as_slice().unwrap());
            let mut tile =
                Tile { panel, width, user_factors, user_log_odds: log_odds, ceiling, least, hits: &mut hits };
            if plain {
                tile.with_simd(pulp::Scalar)
            } else {
                tile.collect()
            }
            all.extend(hits);
        }
        all
    }

    const SLOPES: NewPairSlopes = NewPairSlopes { affinity: 0.7, log_affinity: 0.2 };

    #[test]
    fn hits_and_their_affinities_are_those_of_plain_loops_for_any_number_of_items_and_users() {
        let number = |n: usize| match n % 101 {
            7 => f32::NAN,
            11 => f32::INFINITY,
            _ => (n * 7919 % 1009) as f32 / 1009.0 - 0.4,
        };
        let ceiling = Ceiling::over(SLOPES);
        for (items, d) in [(1, 1), (3, 5), (16, 32), (17, 33), (31, 2), (33, 40), (70, 7)] {
            let item_factors =
                Array2::from_shape_fn((items, d), |(item, k)| (item * 31 + k * 17) as f32 % 23.0 / 23.0 - 0.3);
            let panels = ItemPanels::new(item_factors.view());
            for users in (0..30).chain([100]) {
                let factors =
                    Array2::from_shape_fn((users, d), |(user, k)| (user * 13 + k * 29) as f32 % 19.0 / 19.0 - 0.3);
                let log_odds: Vec<f32> = (0..users).map(|user| number(user + 60)).collect();
                let least = |item: usize| match item % 4 {
                    0 => f32::NEG_INFINITY,
                    1 => ceiling.least(1.8, 0.0),
                    _ => ceiling.least(-0.4, 0.01 * item as f32),
                };
                let least: Vec<f32> = (0..items).map(least).collect();
                let fast = found(&panels, &factors, &log_odds, (ceiling, &least), false);
                let plain = found(&panels, &factors, &log_odds, (ceiling, &least), true);
                assert_eq!((fast.len(), plain.len()), (items, items));
                for (item, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
                    let affinity = |user: usize| dot(item_factors.row(item), factors.row(user));
                    #[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN must count
                    let above =
                        |user: &usize| !(ceiling.height(pulp::Scalar, affinity(*user), log_odds[*user]) < least[item]);
                    let expected: Vec<u32> = (0..users).filter(above).map(|user| user as u32).collect();
                    let expected: Vec<(u32, u32)> =
                        expected.iter().map(|user| (*user, affinity(*user as usize).to_bits())).collect();
                    let bits = |hits: &Hits| hits.found.iter().map(|hit| (hit.0, hit.1.to_bits())).collect::<Vec<_>>();
                    assert_eq!(
                        (bits(fast), bits(plain)),
                        (expected.clone(), expected),
                        "{items} × {users}, item {item}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_affinity_that_is_no_number_is_a_hit_whatever_is_asked() {
        let panels = ItemPanels::new(Array2::ones((2, 1)).view());
        let users = ndarray::array![[1.0], [f32::NAN], [0.5], [f32::INFINITY]];
        for plain in [false, true] {
            let hits = found(&panels, &users, &[0.0; 4], (Ceiling::over(SLOPES), &[1e30; 2]), plain);
            let users = |hits: &Hits| hits.found.iter().map(|hit| hit.0).collect::<Vec<_>>();
            assert!(hits.iter().all(|hits| users(hits) == [1, 3]), "{hits:?}");
        }
    }
}
