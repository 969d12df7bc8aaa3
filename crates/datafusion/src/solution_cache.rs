//! Solution versions that a session has opened: item states are read and verified once, not once a query.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use item_affinity_solution::{SolutionRef, SolutionVersion, UserStates};
use item_affinity_storage::Stores;

use crate::error::from_solution;
use crate::options;

/// Opened versions kept at most; one is a few dozen megabytes of item factors.
const KEPT: usize = 4;

/// What every function of one session shares: the object stores and the opened solution versions.
#[derive(Clone, Debug)]
pub(crate) struct SolutionCache {
    stores: Stores,
    opened: Arc<Mutex<VecDeque<Arc<SolutionVersion>>>>,
    /// The decoded user states of one version, for scores of single pairs.
    users: Arc<tokio::sync::Mutex<Option<DecodedUsers>>>,
    /// The pairs with history of the items that were asked for, of one version.
    history: Arc<tokio::sync::Mutex<Option<(SolutionRef, HistoryByItem)>>>,
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

/// The user states of one version.
type DecodedUsers = (SolutionRef, Arc<UserStates>);

impl SolutionCache {
    pub(crate) fn new(stores: Stores) -> Self {
        Self { stores, opened: Arc::default(), users: Arc::default(), history: Arc::default() }
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Opens the version that the session names; the newest one is looked up anew for each query.
    pub(crate) async fn open(&self, config: &ConfigOptions) -> Result<Arc<SolutionVersion>> {
        self.open_named(options::required_solution_version(config)?).await
    }

    /// Opens the version that a text names: a location, newest version, or `location@7`.
    pub(crate) async fn open_named(&self, text: &str) -> Result<Arc<SolutionVersion>> {
        let reference = SolutionRef::parse(text).map_err(from_solution)?;
        let pinned = reference.resolve(&self.stores).await.map_err(from_solution)?;
        if let Some(version) = self.find(&pinned) {
            return Ok(version);
        }
        let version = Arc::new(SolutionVersion::open(&self.stores, &pinned).await.map_err(from_solution)?);
        self.keep(Arc::clone(&version));
        Ok(version)
    }

    /// All user states of a version, decoded; the last version asked for stays in memory.
    pub(crate) async fn user_states(&self, version: &SolutionVersion) -> Result<Arc<UserStates>> {
        let mut kept = self.users.lock().await;
        match kept.as_ref() {
            Some((reference, users)) if reference == version.reference() => Ok(Arc::clone(users)),
            _ => {
                let users = Arc::new(version.user_states(&self.stores).await.map_err(from_solution)?);
                *kept = Some((version.reference().clone(), Arc::clone(&users)));
                Ok(users)
            }
        }
    }

    /// Pairs with history of these items; those that were asked for before are in memory.
    pub(crate) async fn history(&self, version: &SolutionVersion, items: BTreeSet<u32>) -> Result<HistoryByItem> {
        let mut kept = self.history.lock().await;
        let (_, known) = match kept.as_mut() {
            Some(of) if of.0 == *version.reference() => of,
            _ => kept.insert((version.reference().clone(), HistoryByItem::new())),
        };
        let missing: Vec<u32> = items.iter().copied().filter(|item| !known.contains_key(item)).collect();
        if !missing.is_empty() {
            let read = version.item_history(&self.stores, &missing).await.map_err(from_solution)?;
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
