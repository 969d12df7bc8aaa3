//! Solution versions that a session has opened: item states are read and verified once, not once a query.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::Session;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use item_affinity_solution::{SolutionRef, SolutionVersion, UserStates};
use item_affinity_storage::Stores;

use crate::error::from_solution;
use crate::memory_limit::resize;
use crate::options;
use crate::shared_parts::SharedParts;

/// Opened versions kept at most; one is a few dozen megabytes of item factors.
const KEPT: usize = 4;

/// Queries whose versions are remembered: more than run at the same time.
const RESOLVED: usize = 64;

/// Tells the queries of a session apart: when each was planned, in nanoseconds; none when nobody knows.
pub(crate) type QueryId = Option<i64>;

/// The query that a plan is made for.
pub(crate) fn query_of(session: &dyn Session) -> QueryId {
    session.execution_props().query_execution_start_time.and_then(|started| started.timestamp_nanos_opt())
}

/// What every function of one session shares: the object stores, the opened solution versions, and what was read of them.
#[derive(Clone)]
pub(crate) struct SolutionCache {
    stores: Stores,
    /// The pool of the session as it is now; none when the session is gone.
    pool: Arc<dyn Fn() -> Option<Arc<dyn MemoryPool>> + Send + Sync>,
    opened: Arc<Mutex<VecDeque<Arc<SolutionVersion>>>>,
    /// Which version a name meant in each of the last queries.
    resolved: Arc<tokio::sync::Mutex<VecDeque<(QueryId, String, SolutionRef)>>>,
    /// The files of user states, for segments.
    parts: SharedParts,
    /// The decoded user states of one version, for scores of single pairs.
    users: Arc<tokio::sync::Mutex<Option<Kept<Arc<UserStates>>>>>,
    /// The pairs with history of the items that were asked for, of one version.
    history: Arc<tokio::sync::Mutex<Option<Kept<HistoryByItem>>>>,
}

/// Something of one version that stays in memory, which it is taken from.
struct Kept<T> {
    version: SolutionRef,
    value: T,
    memory: Option<MemoryReservation>,
}

/// Pairs with history by item index.
pub(crate) type HistoryByItem = HashMap<u32, Arc<PairsOfItem>>;

/// Users with history of one item, ascending, and the log-odds of each pair.
#[derive(Debug)]
pub(crate) struct PairsOfItem {
    users: Vec<u32>,
    log_odds: Vec<f32>,
}

impl PairsOfItem {
    pub(crate) fn log_odds(&self, user: u32) -> Option<f32> {
        self.users.binary_search(&user).ok().map(|at| self.log_odds[at])
    }
}

impl SolutionCache {
    /// Shares what functions of this session read; the session itself is not held by it.
    pub(crate) fn new(stores: Stores, ctx: &SessionContext) -> Self {
        let session = Arc::downgrade(&ctx.state_ref());
        let pool = move || session.upgrade().map(|state| Arc::clone(&state.read().runtime_env().memory_pool));
        Self {
            stores,
            pool: Arc::new(pool),
            opened: Arc::default(),
            resolved: Arc::default(),
            parts: SharedParts::of_session(),
            users: Arc::default(),
            history: Arc::default(),
        }
    }

    /// The files of user states that queries of the session share.
    pub(crate) fn parts(&self) -> SharedParts {
        self.parts.clone()
    }

    fn reserved(&self, name: &str, bytes: usize) -> Result<Option<MemoryReservation>> {
        let Some(pool) = (self.pool)() else { return Ok(None) };
        let memory = MemoryConsumer::new(name).register(&pool);
        resize(&memory, bytes)?;
        Ok(Some(memory))
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Opens the version that the session names.
    pub(crate) async fn open(&self, config: &ConfigOptions, query: QueryId) -> Result<Arc<SolutionVersion>> {
        self.open_named(options::required_solution_version(config)?, query).await
    }

    /// Opens the version that a text names: a location, newest version, or `location@7`. The newest one is looked up
    /// anew for each query, and once for all calls in it: a commit in the meantime does not show.
    pub(crate) async fn open_named(&self, text: &str, query: QueryId) -> Result<Arc<SolutionVersion>> {
        let pinned = self.resolve(text, query).await?;
        if let Some(version) = self.find(&pinned) {
            return Ok(version);
        }
        let version = Arc::new(SolutionVersion::open(&self.stores, &pinned).await.map_err(from_solution)?);
        self.keep(Arc::clone(&version));
        Ok(version)
    }

    async fn resolve(&self, text: &str, query: QueryId) -> Result<SolutionRef> {
        let reference = SolutionRef::parse(text).map_err(from_solution)?;
        if query.is_none() {
            return reference.resolve(&self.stores).await.map_err(from_solution);
        }
        // Whoever asks at the same time waits for the same answer.
        let mut resolved = self.resolved.lock().await;
        if let Some((_, _, pinned)) = resolved.iter().find(|(of, named, _)| *of == query && named == text) {
            return Ok(pinned.clone());
        }
        let pinned = reference.resolve(&self.stores).await.map_err(from_solution)?;
        resolved.push_back((query, text.to_owned(), pinned.clone()));
        if resolved.len() > RESOLVED {
            resolved.pop_front();
        }
        Ok(pinned)
    }

    /// All user states of a version, decoded; the last version asked for stays in memory.
    pub(crate) async fn user_states(&self, version: &SolutionVersion) -> Result<Arc<UserStates>> {
        let mut kept = self.users.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.version == *version.reference()) {
            return Ok(Arc::clone(&kept.value));
        }
        // The states of another version make room first.
        *kept = None;
        let memory = self.reserved("UserStates", decoded_bytes(version))?;
        let users = Arc::new(version.user_states(&self.stores).await.map_err(from_solution)?);
        *kept = Some(Kept { version: version.reference().clone(), value: Arc::clone(&users), memory });
        Ok(users)
    }

    /// Pairs with history of these items; those that were asked for before are in memory.
    pub(crate) async fn history(&self, version: &SolutionVersion, items: BTreeSet<u32>) -> Result<HistoryByItem> {
        let mut kept = self.history.lock().await;
        let kept = match kept.as_mut() {
            Some(of) if of.version == *version.reference() => of,
            _ => kept.insert(Kept {
                version: version.reference().clone(),
                value: HistoryByItem::new(),
                memory: self.reserved("PairsWithHistory", 0)?,
            }),
        };
        let known = &mut kept.value;
        let missing: Vec<u32> = items.iter().copied().filter(|item| !known.contains_key(item)).collect();
        if !missing.is_empty() {
            let read = version.item_history(&self.stores, &missing).await.map_err(from_solution)?;
            if let Some(memory) = &kept.memory {
                resize(memory, memory.size() + read.log_odds.nnz() * 8)?;
            }
            for (row, item) in missing.into_iter().enumerate() {
                let (users, log_odds) = read.log_odds.row(row);
                let pairs = PairsOfItem { users: users.to_vec(), log_odds: log_odds.to_vec() };
                known.insert(item, Arc::new(pairs));
            }
        }
        Ok(items.iter().filter_map(|item| Some((*item, Arc::clone(known.get(item)?)))).collect())
    }

    fn find(&self, pinned: &SolutionRef) -> Option<Arc<SolutionVersion>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let at = opened.iter().position(|v| v.reference() == pinned)?;
        let version = opened.remove(at)?;
        opened.push_back(Arc::clone(&version));
        Some(version)
    }

    /// Keeps a version as the newest used one; the one unused for longest goes.
    fn keep(&self, version: Arc<SolutionVersion>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push_back(version);
        if opened.len() > KEPT {
            opened.pop_front();
        }
    }
}

impl fmt::Debug for SolutionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SolutionCache")
    }
}

/// Bytes of the user states of a version in memory: factors and numbers as they are, ids and what reading them takes by
/// the size of the files.
fn decoded_bytes(version: &SolutionVersion) -> usize {
    let users = version.user_parts.iter().map(|part| part.rows as usize).sum::<usize>();
    let files = version.user_parts.iter().map(|part| part.entry.bytes);
    let largest = files.max().map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let row = 4 * version.model.recipe.hidden_dimension + 48;
    users.saturating_mul(row).saturating_add(largest.saturating_mul(2))
}
