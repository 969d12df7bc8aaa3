//! The few pairs of an item that may be among the best, found in a row of scores, and their probabilities, in vector code.

use pulp::{Arch, Simd, WithSimd};

use crate::elementary::logistic;
use crate::propensity::NewPairSlopes;
use crate::simd::LONGEST_VECTOR;

/// Vectors compared before any of their numbers is looked at.
const VECTORS: usize = 4;

/// Pairs of one item that are looked at closely.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits {
    /// Where in the tile, with their affinities: both at once, as they are found.
    pub(super) found: Vec<(u32, f32)>,
    /// Where in the tile.
    pub(super) at: Vec<u32>,
    /// Their affinities.
    pub(super) affinities: Vec<f32>,
    /// Their probabilities.
    pub(super) scores: Vec<f32>,
    /// What their users add to log-odds.
    of_users: Vec<f32>,
    /// Who they are.
    pub(super) users: Vec<u32>,
}

impl Hits {
    pub(super) fn clear(&mut self) {
        self.found.clear();
        self.at.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a tile has at most 2³² − 1 users
    pub(super) fn add(&mut self, at: usize, affinity: f32) {
        self.found.push((at as u32, affinity));
    }

    /// Collects the places whose score is not below `least`; NaN is not.
    pub(super) fn reaching(&mut self, scores: &[f32], least: f32) {
        self.clear();
        Arch::new().dispatch(Collect { at: &mut self.at, scores, least });
    }

    /// Scores the pairs that were added; false if an affinity or log-odds are not finite.
    ///
    /// # Shapes
    /// users: of the tile
    pub(super) fn score(&mut self, slopes: NewPairSlopes, users: &[f32], item: f32) -> bool {
        self.at.clear();
        self.at.extend(self.found.iter().map(|(at, _)| *at));
        self.affinities.clear();
        self.affinities.extend(self.found.iter().map(|(_, affinity)| *affinity));
        self.of_users.clear();
        self.of_users.extend(self.at.iter().map(|at| users[*at as usize]));
        self.scores.clear();
        self.scores.resize(self.at.len(), 0.0);
        let Self { affinities, of_users, scores, .. } = self;
        Arch::new().dispatch(Score { slopes, item, affinities, users: of_users, scores })
    }

    /// Notes who the users of the scored pairs are.
    ///
    /// # Shapes
    /// user_index: of the tile, ascending
    pub(super) fn name(&mut self, user_index: &[u32]) {
        self.users.clear();
        self.users.extend(self.at.iter().map(|at| user_index[*at as usize]));
    }

    /// Leaves a named user out of `users` and `scores`, if it is there.
    pub(super) fn forget(&mut self, user: u32) {
        if let Ok(at) = self.users.binary_search(&user) {
            self.users.remove(at);
            self.scores.remove(at);
        }
    }
}

/// Appends the places of the scores that are not below the least.
struct Collect<'a> {
    at: &'a mut Vec<u32>,
    scores: &'a [f32],
    least: f32,
}

impl WithSimd for Collect<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a row has at most 2³² − 1 users
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { at, scores, least } = self;
        if least == f32::NEG_INFINITY {
            at.extend(0..scores.len() as u32);
            return;
        }
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let least = simd.splat_f32s(least);
        let mut append = |first: usize, fails: S::m32s, lanes: usize| {
            let mut passes = !bits::<S>(fails) & lanes_from(lanes);
            while passes != 0 {
                at.push(first as u32 + passes.trailing_zeros());
                passes &= passes - 1;
            }
        };
        let whole = S::as_simd_f32s(scores).0;
        let (groups, rest) = whole.as_chunks::<VECTORS>();
        for (group, scores) in groups.iter().enumerate() {
            let fails: [S::m32s; VECTORS] = std::array::from_fn(|n| simd.less_than_f32s(scores[n], least));
            let all = simd.and_m32s(simd.and_m32s(fails[0], fails[1]), simd.and_m32s(fails[2], fails[3]));
            if bits::<S>(all) == lanes_from(lanes) {
                continue;
            }
            for (n, fails) in fails.into_iter().enumerate() {
                append((group * VECTORS + n) * lanes, fails, lanes);
            }
        }
        let done = groups.len() * VECTORS;
        for (n, scores) in rest.iter().enumerate() {
            append((done + n) * lanes, simd.less_than_f32s(*scores, least), lanes);
        }
        // The last few, in a vector whose other lanes are not looked at.
        let done = whole.len() * lanes;
        if done < scores.len() {
            let mut last = [0f32; LONGEST_VECTOR];
            last[..scores.len() - done].copy_from_slice(&scores[done..]);
            append(done, simd.less_than_f32s(S::as_simd_f32s(&last).0[0], least), scores.len() - done);
        }
    }
}

/// The lowest bits, one for each of so many lanes.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // at most 16
pub(super) fn lanes_from(lanes: usize) -> u32 {
    u32::MAX.checked_shr(u32::BITS - lanes as u32).unwrap_or(0)
}

/// One bit for each lane of a mask, the first lane lowest.
///
/// A mask is a vector of whole lanes, or of bits, or one truth value.
#[inline(always)]
pub(super) fn bits<S: Simd>(mask: S::m32s) -> u32 {
    let bytes = pulp::bytemuck::bytes_of(&mask);
    match bytes {
        [only] => u32::from(*only),
        [low, high] => u32::from(*low) | u32::from(*high) << 8,
        lanes => {
            let (lanes, _) = lanes.as_chunks::<4>();
            let mut bits = 0;
            for (lane, bytes) in lanes.iter().enumerate() {
                bits |= u32::from(u32::from_ne_bytes(*bytes) != 0) << lane;
            }
            bits
        }
    }
}

/// Scores pairs; the output is false if an affinity or log-odds are not finite.
struct Score<'a> {
    slopes: NewPairSlopes,
    item: f32,
    affinities: &'a [f32],
    users: &'a [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Score<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let Self { slopes, item, affinities, users, scores } = self;
        let length = scores.len();
        let (affinities, users) = (&affinities[..length], &users[..length]);
        let mut sound = true;
        for at in 0..length {
            let log_odds = slopes.log_odds(affinities[at], users[at], item);
            sound &= affinities[at].is_finite() & !log_odds.is_nan();
            #[allow(clippy::cast_possible_truncation)] // the nearest f32 is what is meant
            let probability = logistic(log_odds) as f32;
            scores[at] = probability;
        }
        sound
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_those_of_plain_loops_for_any_length() {
        let number = |n: usize| match n % 29 {
            7 => f32::NAN,
            11 => f32::INFINITY,
            13 => f32::NEG_INFINITY,
            _ => (n * 7919 % 1009) as f32 / 1009.0 - 0.3,
        };
        for length in 0..200 {
            let scores: Vec<f32> = (0..length).map(number).collect();
            for least in [f32::NEG_INFINITY, -0.2, 0.4, 2.0] {
                let mut hits = Hits::default();
                hits.reaching(&scores, least);
                #[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN must count
                let reaching = |n: &u32| !(scores[*n as usize] < least);
                assert_eq!(hits.at, (0..length as u32).filter(reaching).collect::<Vec<_>>(), "{length} {least}");
                let mut plain = Vec::new();
                Collect { at: &mut plain, scores: &scores, least }.with_simd(pulp::Scalar);
                assert_eq!(plain, hits.at);
            }
        }
    }
}
