//! The one order of users: score down, then user up.

use super::Scored;

/// Score and user as one number that is smaller the better they rank: score down, then user up.
///
/// ```
/// # use item_affinity_model::Rank;
/// assert!(Rank::new(0.5, 9) < Rank::new(0.4, 1) && Rank::new(0.4, 1) < Rank::new(0.4, 2));
/// assert_eq!(Rank::new(0.5, 9).scored().user_index, 9);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub(super) u64);

const SIGN: u32 = 1 << 31;

impl Rank {
    /// Scores rank as by [`f32::total_cmp`].
    #[must_use]
    #[inline(always)]
    pub fn new(score: f32, user_index: u32) -> Self {
        let bits = score.to_bits();
        // Numbers of a sign have bits that grow with their size; those below zero are turned around.
        let ascending = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        Self(u64::from(!ascending) << 32 | u64::from(user_index))
    }

    /// The two that it was made of.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the two halves
    pub fn scored(self) -> Scored {
        let ascending = !((self.0 >> 32) as u32);
        let bits = if ascending & SIGN == 0 { !ascending } else { ascending & !SIGN };
        Scored { score: f32::from_bits(bits), user_index: self.0 as u32 }
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
