//! Where a plan has its solution version from: opened where the plan was made, opened when it is first needed where the
//! plan has travelled to.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryPool;
use item_affinity_model::Csr;
use item_affinity_solution::{PairPart, SolutionRef, SolutionVersion};
use item_affinity_storage::{ErrorKind, Stores};
use tokio::sync::OnceCell;

use crate::error::{TaskError, from_solution};
use crate::shared_parts::SharedParts;

/// Versions that an executor keeps opened, as a session does.
const KEPT: usize = 4;

/// A solution version that nodes of a plan read from; clones share it.
#[derive(Clone)]
pub struct VersionSource {
    pub(crate) stores: Stores,
    pub(crate) shared: SharedParts,
    reference: SolutionRef,
    commit_sha256: String,
    opened: Arc<OnceCell<Arc<SolutionVersion>>>,
    travelled: bool,
}

impl VersionSource {
    /// A version that is open.
    pub(crate) fn opened(stores: &Stores, shared: SharedParts, version: &Arc<SolutionVersion>) -> Self {
        Self {
            stores: stores.clone(),
            shared,
            reference: version.reference().clone(),
            commit_sha256: version.commit.sha256.clone(),
            opened: Arc::new(OnceCell::new_with(Some(Arc::clone(version)))),
            travelled: false,
        }
    }

    /// The version, number included.
    #[must_use]
    pub fn reference(&self) -> &SolutionRef {
        &self.reference
    }

    /// SHA-256 of the commit that the plan was made with.
    #[must_use]
    pub fn commit_sha256(&self) -> &str {
        &self.commit_sha256
    }

    /// Whether the plan was made elsewhere, so that its leaf is still a plain scan of Parquet.
    pub(crate) fn has_travelled(&self) -> bool {
        self.travelled
    }

    /// The version, opened and checked by whoever asks first.
    pub(crate) async fn get(&self) -> Result<Arc<SolutionVersion>> {
        let open = || async {
            let version = SolutionVersion::open(&self.stores, &self.reference).await.map_err(|e| self.error(e))?;
            if version.commit.sha256 != self.commit_sha256 {
                let message = format!(
                    "ERR_CLUSTER_VERSION: {} is another commit here than where the query was planned; give client and \
                     executors the same store",
                    self.reference
                );
                return Err(TaskError::new(ErrorKind::BadInput, message).into_datafusion());
            }
            Ok(Arc::new(version))
        };
        self.opened.get_or_try_init(open).await.cloned()
    }

    /// The log-odds of the pairs with history of these items, which ascend: items × users.
    pub(crate) async fn history(
        &self,
        version: &Arc<SolutionVersion>,
        items: &[u32],
        pool: &Arc<dyn MemoryPool>,
    ) -> Result<Csr> {
        let Some(pairs) = self.shared.pairs() else {
            let history = version.item_history(&self.stores, items).await;
            return Ok(history.map_err(|e| self.error(e))?.log_odds);
        };
        let read = |part: PairPart| async move {
            let history = version.read_pair_part(&self.stores, &part).await;
            Ok(history.map_err(|e| self.error(e))?.log_odds)
        };
        let users = usize::try_from(version.model.users).unwrap_or(usize::MAX);
        pairs.of_items(version.reference(), &version.pair_parts, users, items, pool, read).await
    }

    /// An error of the solution room in the engine's form; from an executor it travels as text, so it says its kind.
    pub(crate) fn error(&self, error: item_affinity_solution::Error) -> DataFusionError {
        if self.travelled {
            return TaskError::new(error.kind(), error.to_string()).into_datafusion();
        }
        from_solution(error)
    }
}

impl fmt::Debug for VersionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionSource({})", self.reference)
    }
}

/// The solution versions of an executor, or of a scheduler, which opens none: plans of the same version share one.
pub struct TravelledVersions {
    stores: Stores,
    kept: Mutex<VecDeque<VersionSource>>,
}

impl TravelledVersions {
    /// Versions that are reached through `stores` once a plan needs them.
    #[must_use]
    pub fn new(stores: Stores) -> Self {
        Self { stores, kept: Mutex::default() }
    }

    /// The version with this commit; nothing is read yet.
    #[must_use]
    pub fn source(&self, reference: &SolutionRef, commit_sha256: &str) -> VersionSource {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |of: &VersionSource| of.reference == *reference && of.commit_sha256 == commit_sha256;
        let known = kept.iter().position(same).and_then(|at| kept.remove(at));
        let source = known.unwrap_or_else(|| VersionSource {
            stores: self.stores.clone(),
            shared: SharedParts::of_plan(),
            reference: reference.clone(),
            commit_sha256: commit_sha256.to_owned(),
            opened: Arc::default(),
            travelled: true,
        });
        kept.push_back(source.clone());
        if kept.len() > KEPT {
            kept.pop_front();
        }
        source
    }
}

impl fmt::Debug for TravelledVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TravelledVersions")
    }
}
