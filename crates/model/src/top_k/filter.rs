//! Finds the few pairs of a row of scores that may be among the best, and scores them, in vector code.

use pulp::{Arch, Simd, WithSimd};

use crate::elementary::logistic;
use crate::propensity::{AFFINITY_FLOOR, NewPairSlopes};
use crate::simd::LANES;

/// Vectors compared before any of their numbers is looked at.
const VECTORS: usize = 4;

/// A line over the affinities of an item: what stays below it cannot reach the threshold.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) slope: f32,
    pub(super) least: f32,
}

/// Pairs of one row that are looked at closely.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits {
    /// Where in the row.
    pub(super) at: Vec<u32>,
    /// Their probabilities.
    pub(super) scores: Vec<f32>,
    affinities: Vec<f32>,
    users: Vec<f32>,
}

impl Hits {
    /// Collects the places whose score is not below `least`; NaN is not.
    pub(super) fn reaching(&mut self, scores: &[f32], least: f32) {
        self.at.clear();
        Arch::new().dispatch(Collect { at: &mut self.at, a: scores, b: scores, test: NotBelow(least) });
    }

    /// Collects the pairs that lie on or above the line; NaN does.
    ///
    /// # Shapes
    /// affinities, users: users
    pub(super) fn above(&mut self, line: Line, affinities: &[f32], users: &[f32]) {
        self.at.clear();
        Arch::new().dispatch(Collect { at: &mut self.at, a: affinities, b: users, test: line });
    }

    /// Scores the collected pairs; false if an affinity or log-odds are not finite.
    pub(super) fn score(&mut self, slopes: NewPairSlopes, affinities: &[f32], users: &[f32], item: f32) -> bool {
        self.affinities.clear();
        self.users.clear();
        self.affinities.extend(self.at.iter().map(|at| affinities[*at as usize]));
        self.users.extend(self.at.iter().map(|at| users[*at as usize]));
        self.scores.clear();
        self.scores.resize(self.at.len(), 0.0);
        let Self { affinities, users, scores, .. } = self;
        Arch::new().dispatch(Score { slopes, item, affinities, users, scores })
    }
}

/// What is asked of a pair of numbers, one vector at a time.
trait Test: Copy {
    /// Whether the answer is yes for all pairs.
    fn all(self) -> bool;
    /// Where it is no.
    fn fails<S: Simd>(self, simd: S, a: S::f32s, b: S::f32s) -> S::m32s;
}

#[derive(Clone, Copy)]
struct NotBelow(f32);

impl Test for NotBelow {
    fn all(self) -> bool {
        self.0 == f32::NEG_INFINITY
    }

    #[inline(always)]
    fn fails<S: Simd>(self, simd: S, a: S::f32s, _: S::f32s) -> S::m32s {
        simd.less_than_f32s(a, simd.splat_f32s(self.0))
    }
}

impl Test for Line {
    fn all(self) -> bool {
        self.least == f32::NEG_INFINITY
    }

    #[inline(always)]
    fn fails<S: Simd>(self, simd: S, affinity: S::f32s, user: S::f32s) -> S::m32s {
        let floor = simd.splat_f32s(AFFINITY_FLOOR);
        let floored = simd.select_f32s(simd.less_than_f32s(affinity, floor), floor, affinity);
        let height = simd.add_f32s(simd.mul_f32s(simd.splat_f32s(self.slope), floored), user);
        simd.less_than_f32s(height, simd.splat_f32s(self.least))
    }
}

/// Appends the places of the pairs that pass a test.
struct Collect<'a, T> {
    at: &'a mut Vec<u32>,
    a: &'a [f32],
    b: &'a [f32],
    test: T,
}

impl<T: Test> WithSimd for Collect<'_, T> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a row has at most 2³² − 1 users
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { at, a, b, test } = self;
        let length = a.len().min(b.len());
        if test.all() {
            at.extend(0..length as u32);
            return;
        }
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let mut append = |first: usize, fails: S::m32s, lanes: usize| {
            let mut passes = !bits::<S>(fails) & (u32::MAX >> (u32::BITS as usize - lanes));
            while passes != 0 {
                at.push(first as u32 + passes.trailing_zeros());
                passes &= passes - 1;
            }
        };
        let (whole_a, whole_b) = (S::as_simd_f32s(&a[..length]).0, S::as_simd_f32s(&b[..length]).0);
        let (groups_a, rest_a) = whole_a.as_chunks::<VECTORS>();
        let (groups_b, rest_b) = whole_b.as_chunks::<VECTORS>();
        for (group, (a, b)) in groups_a.iter().zip(groups_b).enumerate() {
            let fails: [S::m32s; VECTORS] = [
                test.fails(simd, a[0], b[0]),
                test.fails(simd, a[1], b[1]),
                test.fails(simd, a[2], b[2]),
                test.fails(simd, a[3], b[3]),
            ];
            let all = simd.and_m32s(simd.and_m32s(fails[0], fails[1]), simd.and_m32s(fails[2], fails[3]));
            if bits::<S>(all) == u32::MAX >> (u32::BITS as usize - lanes) {
                continue;
            }
            for (n, fails) in fails.into_iter().enumerate() {
                append((group * VECTORS + n) * lanes, fails, lanes);
            }
        }
        let done = groups_a.len() * VECTORS;
        for (n, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
            append((done + n) * lanes, test.fails(simd, *a, *b), lanes);
        }
        // The last few, in a vector whose other lanes are not looked at.
        let done = whole_a.len() * lanes;
        if done < length {
            let (mut last_a, mut last_b) = ([0f32; LANES], [0f32; LANES]);
            last_a[..length - done].copy_from_slice(&a[done..length]);
            last_b[..length - done].copy_from_slice(&b[done..length]);
            let fails = test.fails(simd, S::as_simd_f32s(&last_a).0[0], S::as_simd_f32s(&last_b).0[0]);
            append(done, fails, length - done);
        }
    }
}

/// One bit for each lane of a mask, the first lane lowest.
///
/// A mask is a vector of whole lanes, or of bits, or one truth value.
#[inline(always)]
fn bits<S: Simd>(mask: S::m32s) -> u32 {
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
            let (a, b): (Vec<f32>, Vec<f32>) = (0..length).map(|n| (number(n), number(n + 400))).unzip();
            for least in [f32::NEG_INFINITY, -0.2, 0.4, 2.0] {
                let line = Line { slope: 0.7, least };
                #[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN must count
                let above = |n: &u32| {
                    let affinity = a[*n as usize];
                    let floored = if affinity < AFFINITY_FLOOR { AFFINITY_FLOOR } else { affinity };
                    !(0.7 * floored + b[*n as usize] < least)
                };
                let mut hits = Hits::default();
                hits.above(line, &a, &b);
                assert_eq!(hits.at, (0..length as u32).filter(above).collect::<Vec<_>>(), "{length} {least}");
                let mut plain = Vec::new();
                Collect { at: &mut plain, a: &a, b: &b, test: line }.with_simd(pulp::Scalar);
                assert_eq!(plain, hits.at);
                hits.reaching(&a, least);
                #[allow(clippy::neg_cmp_op_on_partial_ord)]
                let reaching = |n: &u32| !(a[*n as usize] < least);
                assert_eq!(hits.at, (0..length as u32).filter(reaching).collect::<Vec<_>>(), "{length} {least}");
            }
        }
    }
}
