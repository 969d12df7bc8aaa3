//! Outside ids and their dense numbers. The only place in this crate where ids are strings.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use rayon::slice::ParallelSliceMut;

use crate::error::{Error, Result};

/// The most ids that a vocabulary can number; the largest `u32` stays free for callers' marks.
const MOST_IDS: u64 = u32::MAX as u64 - 1;

/// All ids of one kind, unique and sorted by bytes: the order of indexes is the order of ids.
///
/// One string holds all of them, so an id costs its bytes and eight more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    text: String,
    /// Where each id ends in `text`.
    ends: Vec<u64>,
}

impl Vocabulary {
    /// Numbers ids that are already sorted.
    ///
    /// # Errors
    /// [`Error::Unsorted`] at the first id that is not above the one before it by bytes, [`Error::TooMany`].
    pub fn from_sorted<S: AsRef<str>>(ids: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut out = Self::default();
        for id in ids {
            let id = id.as_ref();
            if !out.is_empty() && out.text[out.start(out.len() - 1)..] >= *id {
                return Err(Error::Unsorted { name: "ids", position: out.len() });
            }
            out.push(id)?;
        }
        Ok(out)
    }

    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no id.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The id with this index.
    #[must_use]
    pub fn id(&self, index: u32) -> Option<&str> {
        let index = index as usize;
        (index < self.len()).then(|| self.slice(index))
    }

    /// The index of this id.
    ///
    /// # Cost
    /// A binary search.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.slice(middle).cmp(id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return u32::try_from(middle).ok(),
            }
        }
        None
    }

    /// All ids in the order of their indexes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.slice(index))
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u64>()
    }

    fn push(&mut self, id: &str) -> Result<()> {
        let count = self.ends.len() as u64 + 1;
        if count > MOST_IDS {
            return Err(Error::TooMany { name: "ids", count, most: MOST_IDS });
        }
        self.text.push_str(id);
        self.ends.push(self.text.len() as u64);
        Ok(())
    }

    // Offsets were lengths of `text`, so they fit usize again.
    #[allow(clippy::cast_possible_truncation)]
    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn slice(&self, index: usize) -> &str {
        &self.text[self.start(index)..self.ends[index] as usize]
    }
}

/// Numbers ids as they arrive, then sorts them once.
///
/// ```
/// # use item_affinity_model::VocabularyBuilder;
/// let mut ids = VocabularyBuilder::new();
/// let arrivals = [ids.intern("pear")?, ids.intern("apple")?, ids.intern("pear")?];
/// assert_eq!(arrivals, [0, 1, 0]);
/// let (vocabulary, renumber) = ids.finish();
/// assert_eq!(vocabulary.iter().collect::<Vec<_>>(), ["apple", "pear"]);
/// assert_eq!(renumber, [1, 0]);
/// # Ok::<(), item_affinity_model::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct VocabularyBuilder {
    /// In order of arrival.
    arrived: Vocabulary,
    /// By the hash of the id; the ids themselves stay in the arena.
    table: HashTable<Known>,
    hasher: DefaultHashBuilder,
}

/// An id that has arrived. Short ids are told apart right here, without a look into the arena.
#[derive(Clone, Copy, Debug)]
struct Known {
    prefix: u64,
    length: u32,
    number: u32,
}

impl VocabularyBuilder {
    /// No ids yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The arrival number of an id: a new one at its first arrival, the same one ever after.
    ///
    /// # Errors
    /// [`Error::TooMany`] after 2³² − 2 different ids, or for an id of 4 GiB.
    pub fn intern(&mut self, id: &str) -> Result<u32> {
        let Self { arrived, table, hasher } = self;
        let length = u32::try_from(id.len()).map_err(|_| Error::TooMany {
            name: "bytes in an id",
            count: id.len() as u64,
            most: u64::from(u32::MAX),
        })?;
        let prefix = prefix(id.as_bytes());
        let hash = hasher.hash_one(id.as_bytes());
        let same = |known: &Known| {
            (known.prefix, known.length) == (prefix, length)
                && (length <= 8 || arrived.slice(known.number as usize) == id)
        };
        if let Some(known) = table.find(hash, same) {
            return Ok(known.number);
        }
        let number = u32::try_from(arrived.len()).unwrap_or(u32::MAX);
        arrived.push(id)?;
        let rehash = |known: &Known| hasher.hash_one(arrived.slice(known.number as usize).as_bytes());
        table.insert_unique(hash, Known { prefix, length, number }, rehash);
        Ok(number)
    }

    /// The id with this arrival number.
    #[must_use]
    pub fn arrived(&self, number: u32) -> Option<&str> {
        self.arrived.id(number)
    }

    /// How many different ids have arrived.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrived.len()
    }

    /// Whether no id has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.arrived.allocated_bytes() + self.table.allocation_size()
    }

    /// The sorted vocabulary, and for each arrival number the index that its id has there.
    #[must_use]
    pub fn finish(self) -> (Vocabulary, Vec<u32>) {
        let arrived = self.arrived;
        drop(self.table);
        let mut order: Vec<(u64, u32)> = (0u32..).zip(arrived.iter()).map(|(number, _)| (0, number)).collect();
        sort_from(0, &mut order, &arrived);
        let mut renumber = vec![0; arrived.len()];
        let mut text = String::with_capacity(arrived.text.len());
        let mut ends = Vec::with_capacity(arrived.len());
        for (index, &(_, number)) in (0u32..).zip(&order) {
            renumber[number as usize] = index;
            text.push_str(arrived.slice(number as usize));
            ends.push(text.len() as u64);
        }
        (Vocabulary { text, ends }, renumber)
    }
}

/// Ids with eight equal bytes, of which a comparison of texts sorts at most so many.
const FEW: usize = 16;

/// Sorts ids that are equal up to a byte.
///
/// order: room for a key, and the number of an id
/// # Cost
/// Keys of eight bytes are compared in the sorted array itself; only ids that share them are looked at again, behind them.
fn sort_from(start: usize, order: &mut [(u64, u32)], ids: &Vocabulary) {
    let rest = |number: u32| ids.slice(number as usize).as_bytes().get(start..).unwrap_or_default();
    // Where all have ended, or end in zeros, keys no longer tell them apart.
    if order.len() <= FEW || order.iter().all(|(_, number)| rest(*number).is_empty()) {
        order.sort_unstable_by(|a, b| ids.slice(a.1 as usize).cmp(ids.slice(b.1 as usize)));
        return;
    }
    order.iter_mut().for_each(|(key, number)| *key = prefix(rest(*number)));
    order.par_sort_unstable();
    for equal in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|equal| equal.len() > 1) {
        sort_from(start + KEY_BYTES, equal, ids);
    }
}

const KEY_BYTES: usize = size_of::<u64>();

/// The first eight bytes as a number in the order of the bytes.
fn prefix(id: &[u8]) -> u64 {
    let mut bytes = [0; KEY_BYTES];
    let length = id.len().min(KEY_BYTES);
    bytes[..length].copy_from_slice(&id[..length]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn index_order_is_byte_order_also_beyond_eight_bytes_and_with_zero_bytes() {
        let mut builder = VocabularyBuilder::new();
        let ids = ["item-00010", "item-00009", "a\0", "a", "é", "z", "item-0000", "B", ""];
        for id in ids {
            builder.intern(id).unwrap();
        }
        let (vocabulary, renumber) = builder.finish();
        let mut sorted = ids;
        sorted.sort_unstable_by_key(|id| id.as_bytes());
        assert_eq!(vocabulary.iter().collect::<Vec<_>>(), sorted);
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(vocabulary.id(renumber[number]), Some(*id));
            assert_eq!(vocabulary.index_of(id), Some(renumber[number]));
        }
        assert_eq!(vocabulary.index_of("item-00011"), None);
        assert_eq!(vocabulary.id(9), None);
    }

    #[test]
    fn ids_that_share_many_bytes_are_sorted_as_a_plain_sort_does() {
        let ids = (0..3_000_u32).map(|n| {
            let n = n.wrapping_mul(2_654_435_761) >> 12;
            let long = "a place that many have in common/".repeat(n as usize % 3);
            match n % 5 {
                0 => format!("{long}{n}"),
                1 => format!("{long}\0\0\0{}", "\0".repeat(n as usize % 20)),
                2 => format!("{long}{:09}", n / 1000),
                _ => format!("{long}é{n:020}"),
            }
        });
        let mut builder = VocabularyBuilder::new();
        let mut sorted: Vec<String> = ids.collect();
        for id in &sorted {
            builder.intern(id).unwrap();
        }
        let (vocabulary, _) = builder.finish();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(vocabulary.iter().eq(sorted.iter()));
    }

    #[test]
    fn a_known_id_keeps_its_arrival_number_while_the_table_grows() {
        let mut builder = VocabularyBuilder::new();
        for round in 0..2 {
            for n in 0..10_000u32 {
                assert_eq!(builder.intern(&format!("user {n}")).unwrap(), n, "round {round}");
            }
        }
        assert_eq!(builder.len(), 10_000);
    }

    #[test]
    fn sorted_ids_are_taken_and_others_refused_at_their_position() {
        assert_eq!(Vocabulary::from_sorted(["a", "b", "ba"]).unwrap().len(), 3);
        let unsorted = Error::Unsorted { name: "ids", position: 2 };
        assert_eq!(Vocabulary::from_sorted(["a", "c", "b"]).unwrap_err(), unsorted);
        assert_eq!(Vocabulary::from_sorted(["a", "b", "b"]).unwrap_err(), unsorted);
        assert_eq!(Vocabulary::from_sorted(["", ""]).unwrap_err(), Error::Unsorted { name: "ids", position: 1 });
    }
}
