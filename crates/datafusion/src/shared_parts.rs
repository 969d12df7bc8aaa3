//! User parts that queries of a session share: read and checked once while anybody needs them, and kept for the next query
//! where memory allows.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use item_affinity_solution::SolutionRef;
use item_affinity_storage::Bytes;
use tokio::sync::OnceCell;

use crate::memory_limit::resize;

/// Bytes kept between queries where the session's memory is not limited; else a quarter of the limit.
const KEPT_WITHOUT_LIMIT: usize = 1 << 30;

/// One part of one solution version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartKey {
    pub(crate) version: SolutionRef,
    pub(crate) part: usize,
}

/// The parts that are read now or kept; clones share them.
#[derive(Clone)]
pub(crate) struct SharedParts {
    parts: Arc<Mutex<Parts>>,
    keeps: bool,
}

#[derive(Default)]
struct Parts {
    /// Whoever reads a part finds those who read it at the same time.
    open: HashMap<PartKey, Weak<OnceCell<Part>>>,
    kept: HashMap<PartKey, Arc<OnceCell<Part>>>,
    kept_bytes: usize,
}

/// The bytes of a part, taken from the session's memory as long as anybody holds them.
struct Part {
    bytes: Bytes,
    _memory: MemoryReservation,
}

/// A part in use.
pub(crate) struct HeldPart(Arc<OnceCell<Part>>);

impl HeldPart {
    pub(crate) fn bytes(&self) -> Bytes {
        self.0.get().map(|part| part.bytes.clone()).unwrap_or_default()
    }
}

impl SharedParts {
    /// Parts of a session, which may ask again.
    pub(crate) fn of_session() -> Self {
        Self { parts: Arc::default(), keeps: true }
    }

    /// Parts of a plan that runs once: none outlives its readers.
    pub(crate) fn of_plan() -> Self {
        Self { parts: Arc::default(), keeps: false }
    }

    /// The bytes of a part of so many bytes; `read` runs once for all who ask at the same time.
    ///
    /// # Errors   what `read` says, and `ResourcesExhausted` when the pool has no room for the part
    pub(crate) async fn part<F>(
        &self,
        key: PartKey,
        size: usize,
        pool: &Arc<dyn MemoryPool>,
        read: impl FnOnce() -> F,
    ) -> Result<HeldPart>
    where
        F: Future<Output = Result<Bytes>>,
    {
        let cell = self.cell(&key);
        cell.get_or_try_init(|| async {
            let memory = MemoryConsumer::new(format!("UserPart[{}]", key.part)).register(pool);
            resize(&memory, size)?;
            Ok::<_, datafusion::error::DataFusionError>(Part { bytes: read().await?, _memory: memory })
        })
        .await?;
        self.keep(key, &cell, size, pool);
        Ok(HeldPart(cell))
    }

    fn cell(&self, key: &PartKey) -> Arc<OnceCell<Part>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = parts.open.get(key).and_then(Weak::upgrade) {
            return cell;
        }
        let cell = Arc::<OnceCell<Part>>::default();
        parts.open.retain(|_, open| open.strong_count() > 0);
        parts.open.insert(key.clone(), Arc::downgrade(&cell));
        cell
    }

    /// Keeps a part if there is room; parts of other versions make room. Parts of the same version never push each other
    /// out: a scan of more than fits would then find none of its parts again.
    fn keep(&self, key: PartKey, cell: &Arc<OnceCell<Part>>, size: usize, pool: &Arc<dyn MemoryPool>) {
        let limit = match pool.memory_limit() {
            _ if !self.keeps => return,
            MemoryLimit::Finite(bytes) => bytes / 4,
            _ => KEPT_WITHOUT_LIMIT,
        };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.kept.contains_key(&key) {
            return;
        }
        if parts.kept_bytes + size > limit {
            parts.kept.retain(|kept, _| kept.version == key.version);
            parts.kept_bytes = parts.kept.values().filter_map(|kept| Some(kept.get()?.bytes.len())).sum();
        }
        if parts.kept_bytes + size <= limit {
            parts.kept_bytes += size;
            parts.kept.insert(key, Arc::clone(cell));
        }
    }
}

impl fmt::Debug for SharedParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedParts")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use datafusion::error::DataFusionError;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    const SIZE: usize = 1_000;

    fn key(version: u64, part: usize) -> PartKey {
        PartKey { version: SolutionRef::parse(&format!("memory:///s@{version}")).unwrap(), part }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_is_read_once_for_all_and_kept_within_a_quarter_of_the_memory() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10 * SIZE));
        let (parts, reads) = (SharedParts::of_session(), Arc::new(AtomicUsize::new(0)));
        let take = async |key: PartKey| {
            let reads = Arc::clone(&reads);
            let read = || async move {
                reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                Ok(Bytes::from(vec![7; SIZE]))
            };
            parts.part(key, SIZE, &pool, read).await
        };
        let (a, b, c) = tokio::join!(take(key(1, 0)), take(key(1, 0)), take(key(1, 0)));
        for held in [a, b, c] {
            assert_eq!(held.unwrap().bytes().len(), SIZE);
        }
        assert_eq!((reads.load(Ordering::Relaxed), pool.reserved()), (1, SIZE));
        // Two parts fit into a quarter; the third goes with its readers, and pushes none out.
        for part in [1, 2, 0, 1] {
            take(key(1, part)).await.unwrap();
        }
        assert_eq!((reads.load(Ordering::Relaxed), pool.reserved()), (3, 2 * SIZE));
        // Another version takes the place of the first.
        take(key(2, 0)).await.unwrap();
        take(key(2, 1)).await.unwrap();
        take(key(2, 2)).await.unwrap();
        assert_eq!((reads.load(Ordering::Relaxed), pool.reserved()), (6, 2 * SIZE));
        // Whoever holds more than there is is told what to change.
        let mut held = Vec::new();
        let refused = loop {
            match take(key(3, held.len())).await {
                Ok(part) => held.push(part),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused.find_root(), DataFusionError::ResourcesExhausted(_)), "{refused}");
        assert!(refused.to_string().contains("SET datafusion.runtime.memory_limit"), "{refused}");
        drop(held);
        assert!(pool.reserved() <= 2 * SIZE);
        drop(parts);
        assert_eq!(pool.reserved(), 0);
    }
}
