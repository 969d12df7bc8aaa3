//! User parts that queries of a session share: read and checked once while anybody needs them, and kept for the next query
//! where memory allows, first as bytes, and decoded after a query that read them all.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use item_affinity_solution::SolutionRef;
use item_affinity_storage::Bytes;
use tokio::sync::OnceCell;

use crate::memory_limit::{resize, share};
use crate::shared_pairs::SharedPairs;

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
    /// None for a plan.
    pairs: Option<SharedPairs>,
}

#[derive(Default)]
struct Parts {
    /// Whoever reads a part finds those who read it at the same time.
    open: HashMap<PartKey, Weak<OnceCell<Part>>>,
    kept: HashMap<PartKey, Arc<OnceCell<Part>>>,
    /// Of one version at most.
    decoded: Option<(SolutionRef, Arc<DecodedStates>)>,
    /// Held by the one query that gathers them.
    gathering: Weak<()>,
}

impl Parts {
    fn kept_bytes(&self) -> usize {
        let bytes = self.kept.values().filter_map(|kept| Some(kept.get()?.bytes.len())).sum::<usize>();
        bytes + self.decoded.as_ref().map_or(0, |(_, states)| states.memory.size())
    }
}

/// All user states of a version, decoded, taken from the session's memory as long as anybody holds them.
#[derive(Debug)]
pub(crate) struct DecodedStates {
    /// Ascending by `user_index`; none is empty.
    batches: Vec<RecordBatch>,
    memory: MemoryReservation,
}

impl DecodedStates {
    pub(crate) fn new(batches: Vec<RecordBatch>, memory: MemoryReservation) -> Self {
        Self { batches, memory }
    }

    fn columns(&self) -> usize {
        self.batches.first().map_or(0, RecordBatch::num_columns)
    }

    /// The first columns of them as runs of about equal length, one for each partition.
    pub(crate) fn cut(&self, partitions: usize, columns: usize) -> Vec<Vec<RecordBatch>> {
        let columns = (0..columns).collect::<Vec<_>>();
        let total = self.batches.iter().map(RecordBatch::num_rows).sum::<usize>().max(1);
        let (mut runs, mut before) = (vec![Vec::new(); partitions.max(1)], 0);
        for batch in &self.batches {
            let run = before * runs.len() / total;
            before += batch.num_rows();
            // Fewer columns of the same batch: this cannot fail.
            runs[run].extend(batch.project(&columns));
        }
        runs
    }
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
        Self { parts: Arc::default(), pairs: Some(SharedPairs::default()) }
    }

    /// Parts of a plan that runs once: none outlives its readers.
    pub(crate) fn of_plan() -> Self {
        Self { parts: Arc::default(), pairs: None }
    }

    fn keeps(&self) -> bool {
        self.pairs.is_some()
    }

    /// The pairs with history that a session keeps beside its parts.
    pub(crate) fn pairs(&self) -> Option<&SharedPairs> {
        self.pairs.as_ref()
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

    /// The decoded states of a version, if a query left them with at least so many columns.
    pub(crate) fn decoded(&self, version: &SolutionRef, columns: usize) -> Option<Arc<DecodedStates>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, states) = parts.decoded.as_ref()?;
        (of == version && states.columns() >= columns).then(|| Arc::clone(states))
    }

    /// The right to gather states until it is dropped; none while another query has it: many at once would take many
    /// times the memory.
    pub(crate) fn claim(&self) -> Option<Arc<()>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.gathering.strong_count() > 0 {
            return None;
        }
        let claim = Arc::new(());
        parts.gathering = Arc::downgrade(&claim);
        Some(claim)
    }

    /// Whether decoded states of so many bytes may be kept.
    pub(crate) fn would_keep(&self, bytes: usize, pool: &Arc<dyn MemoryPool>) -> bool {
        self.keeps() && bytes <= limit(pool)
    }

    /// Keeps the decoded states of a version in place of those of another, if there is room; bytes go where they are in
    /// the way, and else serve the queries that still scan.
    pub(crate) fn keep_decoded(&self, version: &SolutionRef, states: DecodedStates, pool: &Arc<dyn MemoryPool>) {
        if !self.would_keep(states.memory.size(), pool) {
            return;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.decoded.as_ref().is_some_and(|(of, kept)| of == version && kept.columns() >= states.columns()) {
            return;
        }
        parts.decoded = None;
        if parts.kept_bytes() + states.memory.size() > limit(pool) {
            parts.kept.clear();
        }
        parts.decoded = Some((version.clone(), Arc::new(states)));
    }

    /// Keeps a part if there is room; what is kept of other versions makes room. Parts of the same version never push each other
    /// out: a scan of more than fits would then find none of its parts again.
    fn keep(&self, key: PartKey, cell: &Arc<OnceCell<Part>>, size: usize, pool: &Arc<dyn MemoryPool>) {
        if !self.keeps() {
            return;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let decoded = parts.decoded.as_ref().is_some_and(|(version, _)| *version == key.version);
        if decoded || parts.kept.contains_key(&key) {
            return;
        }
        let limit = limit(pool);
        if parts.kept_bytes() + size > limit {
            parts.kept.retain(|kept, _| kept.version == key.version);
            parts.decoded = None;
        }
        if parts.kept_bytes() + size <= limit {
            parts.kept.insert(key, Arc::clone(cell));
        }
    }
}

/// Bytes that a session keeps at most.
fn limit(pool: &Arc<dyn MemoryPool>) -> usize {
    share(pool, 4, KEPT_WITHOUT_LIMIT)
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

    use datafusion::arrow::array::{ArrayRef, AsArray, UInt32Array};
    use datafusion::arrow::datatypes::UInt32Type;
    use datafusion::error::DataFusionError;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    const SIZE: usize = 1_000;

    fn key(version: u64, part: usize) -> PartKey {
        PartKey { version: SolutionRef::parse(&format!("memory:///s@{version}")).unwrap(), part }
    }

    #[test]
    fn decoded_states_of_one_version_are_kept_and_cut_into_runs() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10 * SIZE));
        let states = |bytes: usize| {
            let memory = MemoryConsumer::new("states").register(&pool);
            memory.try_grow(bytes).unwrap();
            let batch = |from: u32| {
                let index: ArrayRef = Arc::new(UInt32Array::from_iter_values(from..from + 10));
                RecordBatch::try_from_iter([("user_index", Arc::clone(&index)), ("user_id", index)]).unwrap()
            };
            DecodedStates::new((0..7).map(|n| batch(10 * n)).collect(), memory)
        };
        let version = |number| key(number, 0).version;
        let shared = SharedParts::of_session();
        assert!(shared.would_keep(2_500, &pool) && !shared.would_keep(2_501, &pool));
        assert!(!SharedParts::of_plan().would_keep(0, &pool));
        shared.keep_decoded(&version(1), states(2_000), &pool);
        assert!(shared.decoded(&version(2), 1).is_none() && shared.decoded(&version(1), 3).is_none());
        let kept = shared.decoded(&version(1), 2).unwrap();
        for (partitions, lengths) in [(1, vec![70]), (3, vec![30, 20, 20]), (9, vec![10, 10, 10, 10, 10, 10, 10, 0, 0])]
        {
            let runs = kept.cut(partitions, 1);
            let mut rows = runs.iter().map(|run| run.iter().map(RecordBatch::num_rows).sum()).collect::<Vec<usize>>();
            let users = runs.iter().flatten().flat_map(|b| b.column(0).as_primitive::<UInt32Type>().values().to_vec());
            assert!(users.eq(0..70) && runs.iter().flatten().all(|batch| batch.num_columns() == 1));
            rows.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(rows, lengths, "{partitions} partitions");
        }
        // Those of another version take their place; what has no room is not kept.
        drop(kept);
        shared.keep_decoded(&version(2), states(1_000), &pool);
        assert!(shared.decoded(&version(1), 1).is_none() && shared.decoded(&version(2), 2).is_some());
        shared.keep_decoded(&version(3), states(2_600), &pool);
        assert!(shared.decoded(&version(2), 2).is_some());
        assert_eq!(pool.reserved(), 1_000);
        // One query gathers at a time.
        let claim = shared.claim();
        assert!(claim.is_some() && shared.claim().is_none());
        drop(claim);
        assert!(shared.claim().is_some());
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
