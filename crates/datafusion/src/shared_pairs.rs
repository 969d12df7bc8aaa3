//! Pairs with history that queries of a session share: a part of them is read, checked and decoded once, and kept for the
//! next query where memory allows.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_model::Csr;
use item_affinity_solution::{PairPart, SolutionRef};

use crate::error::from_model;
use crate::memory_limit::share;

/// Bytes kept where the session's memory is not limited; else an eighth of the limit.
const KEPT_WITHOUT_LIMIT: usize = 256 << 20;
/// Parts read at once, so that the next one is there when the last one is decoded.
const READ_AHEAD: usize = 2;

/// The pairs of one version at a time, by part; clones share them.
#[derive(Clone, Default)]
pub(crate) struct SharedPairs(Arc<Mutex<Option<Kept>>>);

struct Kept {
    version: SolutionRef,
    parts: HashMap<usize, Arc<Csr>>,
    memory: MemoryReservation,
}

impl SharedPairs {
    /// The log-odds of the pairs of some items, which ascend: items × users, of whom the version has so many. `read` gives
    /// those of one of its parts, with a row for each item from the part's first to its last.
    ///
    /// # Errors   what `read` says
    pub(crate) async fn of_items<F>(
        &self,
        version: &SolutionRef,
        parts: &[PairPart],
        users: usize,
        items: &[u32],
        pool: &Arc<dyn MemoryPool>,
        read: impl Fn(PairPart) -> F,
    ) -> Result<Csr>
    where
        F: Future<Output = Result<Csr>>,
    {
        let parts = parts.iter().cloned().enumerate().filter(|(_, part)| part.holds_any(items));
        let pairs_of = |(number, part): (usize, PairPart)| {
            let known = self.kept(version, number);
            let read = &read;
            async move {
                let pairs = match known {
                    Some(pairs) => pairs,
                    None => {
                        let pairs = Arc::new(read(part.clone()).await?);
                        self.keep(version, number, &pairs, pool);
                        pairs
                    }
                };
                Ok::<_, datafusion::error::DataFusionError>((part, pairs))
            }
        };
        let mut parts = stream::iter(parts).map(pairs_of).buffered(READ_AHEAD);
        let (mut indptr, mut indices, mut log_odds) = (vec![0], Vec::new(), Vec::new());
        while let Some((part, pairs)) = parts.try_next().await? {
            let first = items.partition_point(|item| *item < part.first_item);
            let last = items.partition_point(|item| *item <= part.last_item);
            for (row, item) in (first..last).zip(&items[first..last]) {
                // An item that goes on in the next part comes again, before any later one.
                indptr.resize(row + 1, indices.len());
                let (of_item, values) = pairs.row((item - part.first_item) as usize);
                indices.extend_from_slice(of_item);
                log_odds.extend_from_slice(values);
            }
        }
        indptr.resize(items.len() + 1, indices.len());
        Csr::new(indptr, indices, log_odds, users).map_err(from_model)
    }

    fn kept(&self, version: &SolutionRef, part: usize) -> Option<Arc<Csr>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|kept| kept.version == *version)?.parts.get(&part).cloned()
    }

    /// Keeps a part if there is room, in place of those of another version. Parts of one version push none out.
    fn keep(&self, version: &SolutionRef, part: usize, pairs: &Arc<Csr>, pool: &Arc<dyn MemoryPool>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| kept.version != *version) {
            let memory = MemoryConsumer::new("PairsOfSession").register(pool);
            *kept = Some(Kept { version: version.clone(), parts: HashMap::new(), memory });
        }
        let Some(kept) = kept.as_mut().filter(|kept| !kept.parts.contains_key(&part)) else { return };
        let bytes = pairs.nnz() * 8 + (pairs.rows() + 1) * size_of::<usize>();
        if kept.memory.size() + bytes <= share(pool, 8, KEPT_WITHOUT_LIMIT) && kept.memory.try_grow(bytes).is_ok() {
            kept.parts.insert(part, Arc::clone(pairs));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
    use item_affinity_storage::FileEntry;

    use super::*;

    const USERS: usize = 9;

    /// Items × users in three parts: item 2 has pairs in all of them, items 1 and 4 have none.
    fn parts() -> (Vec<PairPart>, Vec<Csr>) {
        let rows = [
            (0, 2, vec![vec![1, 4], vec![], vec![0, 1]]),
            (2, 2, vec![vec![3, 5]]),
            (2, 5, vec![vec![8], vec![2], vec![], vec![0, 7]]),
        ];
        let part = |(first_item, last_item, users): (u32, u32, Vec<Vec<u32>>)| {
            let indptr = [0].into_iter().chain(users.iter().scan(0, |end, users| {
                *end += users.len();
                Some(*end)
            }));
            let indices = users.concat();
            let values =
                indices.iter().map(|user| f32::from(u16::try_from(*user + 10 * first_item).unwrap())).collect();
            let rows = u32::try_from(indices.len()).unwrap();
            let entry = FileEntry {
                path: String::new(),
                bytes: 0,
                rows: None,
                row_groups: None,
                sha256: String::new(),
                version: 0,
            };
            let pairs = Csr::new(indptr.collect(), indices, values, USERS).unwrap();
            (PairPart { entry, first_item, last_item, rows }, pairs)
        };
        rows.map(part).into_iter().unzip()
    }

    /// The pairs of one of the parts, found by its items.
    fn pairs_of(part: &PairPart) -> Csr {
        let (parts, pairs) = parts();
        let same = |of: &PairPart| (of.first_item, of.last_item) == (part.first_item, part.last_item);
        pairs[parts.iter().position(same).unwrap()].clone()
    }

    #[tokio::test]
    async fn pairs_of_any_items_are_those_of_all_parts_and_each_part_is_read_once() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let (parts, _) = parts();
        let (shared, reads) = (SharedPairs::default(), AtomicUsize::new(0));
        let version = |number| SolutionRef::parse(&format!("memory:///s@{number}")).unwrap();
        let of = async |number: u64, items: &[u32]| {
            let read = |part: PairPart| {
                reads.fetch_add(1, Ordering::Relaxed);
                async move { Ok(pairs_of(&part)) }
            };
            let found = shared.of_items(&version(number), &parts, USERS, items, &pool, read).await.unwrap();
            (found, reads.load(Ordering::Relaxed))
        };
        let csr = |indptr: &[usize], users: &[u32], values: &[f32]| {
            Csr::new(indptr.to_vec(), users.to_vec(), values.to_vec(), USERS).unwrap()
        };
        assert_eq!(of(1, &[5]).await, (csr(&[0, 2], &[0, 7], &[20.0, 27.0]), 1));
        assert_eq!(of(1, &[3, 4]).await, (csr(&[0, 1, 1], &[2], &[22.0]), 1));
        let of_two = [0.0, 1.0, 23.0, 25.0, 28.0];
        assert_eq!(of(1, &[2]).await, (csr(&[0, 5], &[0, 1, 3, 5, 8], &of_two), 3));
        let all = csr(
            &[0, 2, 2, 7, 8, 8, 10],
            &[1, 4, 0, 1, 3, 5, 8, 2, 0, 7],
            &[1.0, 4.0, 0.0, 1.0, 23.0, 25.0, 28.0, 22.0, 20.0, 27.0],
        );
        assert_eq!(of(1, &[0, 1, 2, 3, 4, 5]).await, (all, 3));
        assert_eq!(of(1, &[]).await, (csr(&[0], &[], &[]), 3));
        assert_eq!(of(1, &[6]).await, (csr(&[0, 0], &[], &[]), 3));
        // Another version takes the place of the first.
        assert_eq!(of(2, &[0]).await.1, 4);
        assert_eq!(of(2, &[0]).await.1, 4);
        assert_eq!(of(1, &[0]).await.1, 5);
    }

    #[tokio::test]
    async fn parts_are_kept_within_an_eighth_of_the_memory_and_read_again_beyond_it() {
        let (parts, _) = parts();
        // Parts take 64, 32 and 72 bytes.
        for (memory, reads_of_three) in [(8 * 168, 3), (8 * 167, 5), (8 * 31, 12)] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
            let (shared, reads) = (SharedPairs::default(), AtomicUsize::new(0));
            for _ in 0..3 {
                let read = |part: PairPart| {
                    reads.fetch_add(1, Ordering::Relaxed);
                    async move { Ok(pairs_of(&part)) }
                };
                let version = SolutionRef::parse("memory:///s@1").unwrap();
                let found = shared.of_items(&version, &parts, USERS, &[0], &pool, &read).await.unwrap();
                assert_eq!(found.row(0).0, [1, 4]);
                let found = shared.of_items(&version, &parts, USERS, &[2, 5], &pool, &read).await.unwrap();
                assert_eq!(found.nnz(), 7);
            }
            assert_eq!(reads.load(Ordering::Relaxed), reads_of_three, "{memory} bytes");
            assert!(pool.reserved() <= memory / 8);
            drop(shared);
            assert_eq!(pool.reserved(), 0);
        }
    }
}
