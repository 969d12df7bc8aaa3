//! A cache of the codes of values, made for ids that come in random order.
//!
//! Interning is bound by access to memory: the search of a vocabulary reads four places that depend on each other, and
//! none of them is near the last one. Here a value is one cache line away, and the lines of many rows are fetched at
//! the same time ([`RecentCodes::fetch`]), because no row has to wait for the one before it.

/// Keys with their codes; a newer value takes the place of an older one.
pub(crate) struct RecentCodes {
    sets: Vec<Set>,
    /// Values that newer ones took the place of, since there are so many sets.
    forgotten: usize,
}

/// The values that share a place: one cache line. A slot is a key with the code in the bits that are always 0 in a key.
#[repr(align(64))]
#[derive(Clone)]
struct Set([u128; WAYS]);

const WAYS: usize = 4;
const LEAST_SETS: usize = 1 << 8;
/// 16 MiB hold a million values; more of them would not stay in any cache of the processor.
const MOST_SETS: usize = 1 << 18;

/// The bits of a key that are always 0.
const CODE_MASK: u128 = 0xffff_ff00;
const CODE_SHIFT: u32 = 8;
/// A key that no value has and that is never remembered.
pub(crate) const NO_KEY: u128 = 0xfc;
/// What is in a slot that holds nothing; no key ends in it.
const EMPTY: u128 = 0xfd;

impl RecentCodes {
    pub(crate) fn new() -> Self {
        Self { sets: vec![Set([EMPTY; WAYS]); LEAST_SETS], forgotten: 0 }
    }

    /// Brings the places of some keys near, so that to find them does not wait.
    pub(crate) fn fetch(&self, keys: &[u128]) {
        let mut seen = 0;
        for key in keys {
            seen ^= self.sets[self.place(*key)].0[0];
        }
        // The result is of no use; what counts is that the loads happen, side by side.
        std::hint::black_box(seen);
    }

    #[allow(clippy::cast_possible_truncation)] // The mask leaves 24 bits.
    pub(crate) fn find(&self, key: u128) -> Option<u32> {
        let set = &self.sets[self.place(key)];
        let slot = set.0.iter().find(|slot| (**slot ^ key) & !CODE_MASK == 0)?;
        Some(((slot & CODE_MASK) >> CODE_SHIFT) as u32)
    }

    /// Remembers the code of a value that was not found.
    pub(crate) fn remember(&mut self, key: u128, code: u32) {
        let code = u128::from(code) << CODE_SHIFT;
        // Special codes and those beyond 2^24 have no room.
        if code & !CODE_MASK != 0 || key == NO_KEY {
            return;
        }
        // One value in eight of as many as there is room for: there are more of them than the sets that they fall into hold.
        if self.forgotten > WAYS * self.sets.len() / 8 && self.sets.len() < MOST_SETS {
            let larger = vec![Set([EMPTY; WAYS]); 2 * self.sets.len()];
            let smaller = std::mem::replace(&mut self.sets, larger);
            self.forgotten = 0;
            // The newest of a place comes last, as it came before.
            for slot in smaller.iter().flat_map(|set| set.0.iter().rev()).filter(|slot| **slot != EMPTY) {
                self.put(*slot);
            }
        }
        self.put(key | code);
    }

    /// slot: a key with its code
    fn put(&mut self, slot: u128) {
        let place = self.place(slot & !CODE_MASK);
        let set = &mut self.sets[place].0;
        self.forgotten += usize::from(set[WAYS - 1] != EMPTY);
        set.copy_within(..WAYS - 1, 1);
        set[0] = slot;
    }

    /// Multiplies by 2^64 divided by the golden ratio, which spreads keys that differ in few bits (Knuth, 6.4).
    #[allow(clippy::cast_possible_truncation)] // The two halves of a key, and then its highest bits.
    fn place(&self, key: u128) -> usize {
        let folded = (key as u64) ^ ((key >> 64) as u64).rotate_left(23);
        (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.sets.len().trailing_zeros())) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u128) -> u128 {
        (n << 32) | 9
    }

    #[test]
    fn what_is_found_is_the_code_that_was_remembered_however_many_values_there_are() {
        let mut recent = RecentCodes::new();
        let mut found = 0;
        for round in 0..8 {
            for n in 0..5_000_u32 {
                match recent.find(key(u128::from(n))) {
                    Some(code) => {
                        assert_eq!(code, n);
                        found += u32::from(round == 7);
                    }
                    None => recent.remember(key(u128::from(n)), n),
                }
            }
        }
        assert_eq!(recent.sets.len(), 8 * LEAST_SETS, "room for 8192 is enough");
        assert!(found > 4_900, "{found} of 5000 are found when the cache has grown");
    }

    #[test]
    fn what_was_remembered_is_still_there_after_it_has_grown() {
        let mut recent = RecentCodes::new();
        let mut n = 0;
        while recent.sets.len() == LEAST_SETS {
            recent.remember(key(u128::from(n)), n);
            n += 1;
        }
        let found = (0..n).filter(|n| recent.find(key(u128::from(*n))) == Some(*n)).count();
        assert!(found > n as usize * 3 / 4, "{found} of {n}");
    }

    #[test]
    fn a_code_without_room_is_not_remembered() {
        let mut recent = RecentCodes::new();
        for special in [u32::MAX, 1 << 24] {
            recent.remember(key(1), special);
            assert_eq!(recent.find(key(1)), None);
        }
        recent.remember(key(1), (1 << 24) - 1);
        assert_eq!(recent.find(key(1)), Some((1 << 24) - 1));
    }

    #[test]
    fn no_key_and_empty_slots_find_nothing() {
        let mut recent = RecentCodes::new();
        recent.remember(NO_KEY, 7);
        assert_eq!(recent.find(NO_KEY), None);
        assert_eq!(recent.find(0), None, "the empty string is a key like any other");
        recent.remember(0, 3);
        assert_eq!(recent.find(0), Some(3));
    }

    #[test]
    fn keys_of_a_full_set_push_out_the_oldest() {
        let mut recent = RecentCodes::new();
        let first = recent.place(key(0));
        let same: Vec<u128> = (0..100_000).map(key).filter(|key| recent.place(*key) == first).take(WAYS + 1).collect();
        for (code, key) in (0..).zip(&same) {
            recent.remember(*key, code);
        }
        assert_eq!(recent.find(same[0]), None);
        assert_eq!(recent.find(same[WAYS]), Some(4));
        assert_eq!(recent.find(same[1]), Some(1));
    }
}
