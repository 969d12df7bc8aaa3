//! The first look at a tile in eight bits, and the full look at what it cannot rule out, where the processor adds up products
//! of bytes (AVX-512 VNNI).

use std::arch::x86_64::{__m512, __m512i, __mmask16, _CMP_NLT_UQ, _mm512_dpbusd_epi32};

use pulp::{NullaryFnOnce, cast, simd_type};

use super::ceiling::{Ceiling, LAST_BITS, MAGIC};
use super::first_look::Maybe;
use super::quantized::{Bounds, Group, LANES, QuantizedUsers, USERS, WIDTH};
use super::tile::Tile;
use crate::propensity::AFFINITY_FLOOR;

const VECTORS: usize = WIDTH / LANES;
/// Groups of pairs whose affinities are added up beside each other: one alone waits for its own sums.
const GROUPS: usize = 2;

simd_type!({
    /// What the processor must have.
    pub(super) struct Vnni {
        avx512f: target_feature!("avx512f"),
        avx512vnni: target_feature!("avx512vnni"),
    }
});

impl Vnni {
    /// Does what [`Tile::collect`] does, with the same hits: pairs whose affinities cannot be large enough are ruled out first.
    ///
    /// # Shapes
    /// tile: of [`WIDTH`] items, with a ceiling that rises; panel: groups of the dimension; users: those of the tile
    /// # Cost
    /// users·width·d multiply-adds of bytes, and d multiply-adds for each pair that is left
    pub(super) fn collect(
        self,
        tile: &mut Tile<'_>,
        panel: (&[Group], &Bounds),
        users: &QuantizedUsers,
        maybe: &mut Maybe,
    ) {
        self.vectorize(RuleOut { vnni: self, tile: &*tile, panel: panel.0, bounds: panel.1, users, maybe });
        self.vectorize(LookInFull { vnni: self, tile, maybe });
    }

    /// Adds four products of bytes to each sum; items have no sign.
    #[inline(always)]
    fn add_products(self, sums: __m512i, items: __m512i, user: __m512i) -> __m512i {
        // SAFETY: self proves that the processor has these instructions.
        unsafe { _mm512_dpbusd_epi32(sums, items, user) }
    }

    /// As [`Ceiling::height`], bit for bit, and whether it reaches the least.
    #[inline(always)]
    fn reaches(self, ceiling: Ceiling, affinities: __m512, log_odds: __m512, least: __m512) -> __mmask16 {
        let f = self.avx512f;
        // The second number if one is none.
        let floored = f._mm512_max_ps(f._mm512_set1_ps(AFFINITY_FLOOR), affinities);
        let bits = f._mm512_srli_epi32::<LAST_BITS>(f._mm512_castps_si512(floored));
        let bits = f._mm512_or_si512(bits, f._mm512_set1_epi32(MAGIC.cast_signed()));
        let of_bits = f._mm512_fmadd_ps(f._mm512_set1_ps(ceiling.bits), f._mm512_castsi512_ps(bits), log_odds);
        let height = f._mm512_fmadd_ps(f._mm512_set1_ps(ceiling.affinity), floored, of_bits);
        f._mm512_cmp_ps_mask::<_CMP_NLT_UQ>(height, least)
    }

    /// The numbers of some items, of those of all items of a panel.
    #[inline(always)]
    fn look_up(self, numbers: &[f32; WIDTH], items: __m512i) -> __m512 {
        let [low, high]: [__m512; VECTORS] = cast(*numbers);
        self.avx512f._mm512_permutex2var_ps(low, items, high)
    }

    /// Adds products to the affinities of some pairs, hidden variable after hidden variable.
    ///
    /// # Shapes
    /// users: pairs × hidden variables; panel: as many or fewer of these × items; items: pairs
    #[inline(always)]
    fn add_up(self, users: [__m512; LANES], panel: &[[f32; WIDTH]], items: __m512i, mut sums: __m512) -> __m512 {
        for (of_users, factors) in self.transpose(users).iter().zip(panel) {
            sums = self.avx512f._mm512_fmadd_ps(*of_users, self.look_up(factors, items), sums);
        }
        sums
    }

    /// Sixteen rows of sixteen numbers become columns.
    #[inline(always)]
    fn transpose(self, rows: [__m512; LANES]) -> [__m512; LANES] {
        let f = self.avx512f;
        let mut pairs = rows;
        for at in (0..LANES).step_by(2) {
            pairs[at] = f._mm512_unpacklo_ps(rows[at], rows[at + 1]);
            pairs[at + 1] = f._mm512_unpackhi_ps(rows[at], rows[at + 1]);
        }
        // Four numbers of four rows each, four times a vector.
        let mut fours = pairs;
        for at in (0..LANES).step_by(4) {
            let wide = |at: usize| f._mm512_castps_pd(pairs[at]);
            let narrow = |vector| f._mm512_castpd_ps(vector);
            fours[at] = narrow(f._mm512_unpacklo_pd(wide(at), wide(at + 2)));
            fours[at + 1] = narrow(f._mm512_unpackhi_pd(wide(at), wide(at + 2)));
            fours[at + 2] = narrow(f._mm512_unpacklo_pd(wide(at + 1), wide(at + 3)));
            fours[at + 3] = narrow(f._mm512_unpackhi_pd(wide(at + 1), wide(at + 3)));
        }
        let mut columns = fours;
        for at in 0..4 {
            let [a, b, c, d] = [0, 4, 8, 12].map(|of| fours[of + at]);
            let (even, even_too) = (f._mm512_shuffle_f32x4::<0x88>(a, b), f._mm512_shuffle_f32x4::<0x88>(c, d));
            let (odd, odd_too) = (f._mm512_shuffle_f32x4::<0xdd>(a, b), f._mm512_shuffle_f32x4::<0xdd>(c, d));
            columns[at] = f._mm512_shuffle_f32x4::<0x88>(even, even_too);
            columns[at + 8] = f._mm512_shuffle_f32x4::<0xdd>(even, even_too);
            columns[at + 4] = f._mm512_shuffle_f32x4::<0x88>(odd, odd_too);
            columns[at + 12] = f._mm512_shuffle_f32x4::<0xdd>(odd, odd_too);
        }
        columns
    }
}

struct RuleOut<'a, 'b> {
    vnni: Vnni,
    tile: &'a Tile<'b>,
    panel: &'a [Group],
    bounds: &'a Bounds,
    users: &'a QuantizedUsers,
    maybe: &'a mut Maybe,
}

impl NullaryFnOnce for RuleOut<'_, '_> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a tile has at most 2³² − 1 users
    fn call(self) {
        let Self { vnni, tile, panel, bounds, users, maybe } = self;
        let f = vnni.avx512f;
        maybe.clear();
        let [least, scales, norms]: [[__m512; VECTORS]; 3] =
            [cast(tile.least_of_panel::<WIDTH>()), cast(bounds.scales), cast(bounds.norms)];
        // Even if a user is no number, items that are not there reach nothing.
        let there_are = u32::MAX >> (WIDTH - tile.least.len());
        for (block, first) in (0..users.len()).step_by(USERS).enumerate() {
            let there = USERS.min(users.len() - first);
            let mut sums: [[__m512i; VECTORS]; USERS] = std::array::from_fn(|user| {
                let begin = if user < there { users.begins[first + user] } else { 0 };
                [f._mm512_set1_epi32(begin); VECTORS]
            });
            for (items, of_users) in panel.iter().zip(users.block(block)) {
                let items: [__m512i; VECTORS] = cast(*items);
                for user in 0..USERS {
                    let whole = f._mm512_set1_epi32(cast(of_users[user]));
                    for vector in 0..VECTORS {
                        sums[user][vector] = vnni.add_products(sums[user][vector], items[vector], whole);
                    }
                }
            }
            // Out of the registers, at places that the compiler knows, as the kernel in f32 does it.
            let mut whole: [[[i32; LANES]; VECTORS]; USERS] = [[[0; LANES]; VECTORS]; USERS];
            for user in 0..USERS {
                for vector in 0..VECTORS {
                    whole[user][vector] = cast(sums[user][vector]);
                }
            }
            let mut reach = [[0 as __mmask16; VECTORS]; USERS];
            let mut any = 0;
            for user in 0..USERS {
                let at = first + user.min(there - 1);
                let log_odds = f._mm512_set1_ps(tile.user_log_odds[at]);
                let scale = f._mm512_set1_ps(users.scales[at]);
                let error = f._mm512_set1_ps(users.norms[at].mul_add(bounds.error, users.errors[at]));
                for vector in 0..VECTORS {
                    let product = f._mm512_mul_ps(f._mm512_cvtepi32_ps(cast(whole[user][vector])), scales[vector]);
                    let affinity = f._mm512_fmadd_ps(scale, product, f._mm512_mul_ps(error, norms[vector]));
                    let reaches = vnni.reaches(tile.ceiling, affinity, log_odds, least[vector]);
                    reach[user][vector] = reaches;
                    any |= reaches;
                }
            }
            if any == 0 {
                continue;
            }
            for (user, reach) in reach[..there].iter().enumerate() {
                let [low, high] = *reach;
                let mut reach = (u32::from(low) | u32::from(high) << LANES) & there_are;
                while reach != 0 {
                    maybe.push(((first + user) as u32, reach.trailing_zeros()));
                    reach &= reach - 1;
                }
            }
        }
    }
}

struct LookInFull<'a, 'b> {
    vnni: Vnni,
    tile: &'a mut Tile<'b>,
    maybe: &'a Maybe,
}

impl NullaryFnOnce for LookInFull<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { vnni, tile, maybe } = self;
        let f = vnni.avx512f;
        let (panel, _) = tile.panel.as_chunks::<WIDTH>();
        let d = panel.len();
        let (whole, rest) = panel.as_chunks::<LANES>();
        let least = tile.least_of_panel::<WIDTH>();
        for pairs in maybe.chunks(GROUPS * LANES) {
            // Lanes that are not there are the last pair again.
            let pair = |group: usize, lane: usize| pairs[(group * LANES + lane).min(pairs.len() - 1)];
            let items: [__m512i; GROUPS] =
                std::array::from_fn(|group| cast(std::array::from_fn::<u32, LANES, _>(|lane| pair(group, lane).1)));
            let rows: [[_; LANES]; GROUPS] = std::array::from_fn(|group| {
                std::array::from_fn(|lane| {
                    tile.user_factors[pair(group, lane).0 as usize * d..][..d].as_chunks::<LANES>()
                })
            });
            let mut sums = [f._mm512_setzero_ps(); GROUPS];
            for (chunk, factors) in whole.iter().enumerate() {
                for group in 0..GROUPS {
                    let factors_of = |lane: usize| cast(rows[group][lane].0[chunk]);
                    sums[group] = vnni.add_up(std::array::from_fn(factors_of), factors, items[group], sums[group]);
                }
            }
            if !rest.is_empty() {
                for group in 0..GROUPS {
                    let mut filled = [[0f32; LANES]; LANES];
                    for lane in 0..LANES {
                        filled[lane][..rest.len()].copy_from_slice(rows[group][lane].1);
                    }
                    sums[group] = vnni.add_up(cast(filled), rest, items[group], sums[group]);
                }
            }
            for (group, pairs) in pairs.chunks(LANES).enumerate() {
                let log_odds: [f32; LANES] =
                    std::array::from_fn(|lane| tile.user_log_odds[pair(group, lane).0 as usize]);
                let least = vnni.look_up(&least, items[group]);
                let mut reach = vnni.reaches(tile.ceiling, sums[group], cast(log_odds), least);
                let affinities: [f32; LANES] = cast(sums[group]);
                for ((user, item), affinity) in pairs.iter().zip(affinities) {
                    if reach & 1 == 1 {
                        tile.hits[*item as usize].add(*user as usize, affinity);
                    }
                    reach >>= 1;
                }
            }
        }
    }
}
