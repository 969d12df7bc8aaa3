//! A set of places in a solution version, one bit each, that says how many come before one.

use std::ops::RangeInclusive;

const WORD: usize = u64::BITS as usize;

/// Places within a range.
#[derive(Debug, Default)]
pub(crate) struct PlaceSet {
    first: u32,
    bits: Vec<u64>,
    /// Of each word, how many are in the words before it.
    before: Vec<u32>,
}

/// Words of a set of places within a range.
fn words(within: &RangeInclusive<u32>) -> usize {
    let span = within.end().checked_sub(*within.start());
    span.map_or(0, |span| span as usize + 1).div_ceil(WORD)
}

impl PlaceSet {
    /// Bytes of a set of places within a range, whatever is in it.
    pub(crate) fn bytes(within: &RangeInclusive<u32>) -> usize {
        words(within) * (size_of::<u64>() + size_of::<u32>())
    }

    /// Those of some places, in any order, that lie within a range.
    ///
    /// # Cost   a bit for each place of the range, and 4 bytes for each 64
    pub(crate) fn of(places: impl Iterator<Item = u32>, within: RangeInclusive<u32>) -> Self {
        let mut bits = vec![0u64; words(&within)];
        let (first, last) = within.into_inner();
        for place in places {
            if (first..=last).contains(&place) {
                let at = (place - first) as usize;
                bits[at / WORD] |= 1 << (at % WORD);
            }
        }
        let mut before = Vec::with_capacity(bits.len());
        let mut sum = 0;
        for word in &bits {
            before.push(sum);
            sum += word.count_ones();
        }
        Self { first, bits, before }
    }

    /// How many of the set come before a place; none if it is not in the set.
    pub(crate) fn position(&self, place: u32) -> Option<usize> {
        let at = place.checked_sub(self.first)? as usize;
        let (word, bit) = (*self.bits.get(at / WORD)?, 1u64 << (at % WORD));
        (word & bit != 0).then(|| self.before[at / WORD] as usize + (word & (bit - 1)).count_ones() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_in_a_sorted_list() {
        let places: Vec<u32> = (0..2_000).filter(|n| n % 3 == 1 || n % 64 == 0).map(|n| n + 7).collect();
        let set = PlaceSet::of(places.iter().rev().copied().chain([0, 5_000]), 7..=2_006);
        for place in 0..2_100 {
            assert_eq!(set.position(place), places.binary_search(&place).ok(), "{place}");
        }
        assert_eq!(set.position(u32::MAX), None);
    }

    #[test]
    fn an_empty_range_holds_nothing_and_the_last_place_of_all_has_room() {
        #[allow(clippy::reversed_empty_ranges)]
        let none = PlaceSet::of([3].into_iter(), 5..=4);
        assert_eq!((none.position(3), none.position(5)), (None, None));
        #[allow(clippy::reversed_empty_ranges)]
        let of_none = PlaceSet::bytes(&(5..=4));
        assert_eq!([of_none, PlaceSet::bytes(&(5..=5)), PlaceSet::bytes(&(0..=64))], [0, 12, 24]);
        let last = PlaceSet::of([u32::MAX].into_iter(), u32::MAX - 1..=u32::MAX);
        assert_eq!((last.position(u32::MAX), last.position(u32::MAX - 1)), (Some(0), None));
    }
}
