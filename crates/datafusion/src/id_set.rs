//! A set of ids, kept end to end in one buffer.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Distinct ids. One costs its bytes, 8 bytes for where it ends, and about 6 for its place.
pub(crate) struct IdSet {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    places: HashTable<u32>,
    hasher: RandomState,
}

impl IdSet {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), places: HashTable::new(), hasher: RandomState::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds an id, once; false when there is no number left for another.
    pub(crate) fn insert(&mut self, id: &str) -> bool {
        let Ok(place) = u32::try_from(self.ends.len()) else { return false };
        let Self { bytes, ends, places, hasher } = self;
        let hash = hasher.hash_one(id.as_bytes());
        if places.find(hash, |at| slice(bytes, ends, *at) == id.as_bytes()).is_none() {
            bytes.extend_from_slice(id.as_bytes());
            ends.push(bytes.len());
            places.insert_unique(hash, place, |at| hasher.hash_one(slice(bytes, ends, *at)));
        }
        true
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        let hash = self.hasher.hash_one(id.as_bytes());
        self.places.find(hash, |at| slice(&self.bytes, &self.ends, *at) == id.as_bytes()).is_some()
    }

    pub(crate) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>() + self.places.allocation_size()
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[usize], at: u32) -> &'a [u8] {
    let at = at as usize;
    let from = if at == 0 { 0 } else { ends[at - 1] };
    &bytes[from..ends[at]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_once_and_only_whole_ids_are_found() {
        let mut ids = IdSet::new();
        for round in 0..2 {
            for id in (0..1_000).map(|n| (n * 7).to_string()) {
                assert!(ids.insert(&id), "round {round}");
            }
        }
        assert_eq!(ids.len(), 1_000);
        let found = (0..7_000).filter(|n| ids.contains(&n.to_string())).collect::<Vec<_>>();
        assert_eq!(found, (0..1_000).map(|n| n * 7).collect::<Vec<_>>());
        assert!(!ids.contains(""));
        assert!(ids.insert("") && ids.contains("") && ids.len() == 1_001);
        assert!(ids.allocated_bytes() >= 1_001 * 12);
    }
}
