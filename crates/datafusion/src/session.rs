//! A DataFusion session with the plugin, whose tables may lie on any store that the environment gives access to.

use std::fmt;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::object_store::ObjectStore;
use datafusion::prelude::SessionConfig;
use item_affinity_storage::Stores;
use url::Url;

use crate::checked_settings::CheckedSettings;
use crate::error::from_storage;
use crate::options::ItemAffinityOptions;
use crate::spill::unnamed_files;

/// How much of the machine a session may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionSettings {
    /// Bytes that queries may hold at once; none: no limit.
    pub memory_limit: Option<usize>,
    /// Bytes of temporary files that queries may hold at once; none: 100 GiB. The files have no names, and lie on the disk of
    /// the folder for temporary files.
    pub temp_limit: Option<u64>,
    /// Partitions of a plan; none: one a core.
    pub target_partitions: Option<usize>,
}

/// Makes a session with the plugin registered, `information_schema` on, and object stores built when first used.
///
/// # Errors   what DataFusion says of its own settings in the environment (`DATAFUSION_*`)
pub fn session(stores: &Stores, settings: SessionSettings) -> Result<SessionContext> {
    let mut config =
        SessionConfig::from_env()?.with_information_schema(true).with_option_extension(ItemAffinityOptions::default());
    if let Some(partitions) = settings.target_partitions {
        config = config.with_target_partitions(partitions.max(1));
    }
    let mut runtime = RuntimeEnvBuilder::new()
        .with_object_store_registry(store_registry(stores))
        .with_disk_manager_builder(unnamed_files(std::env::temp_dir(), settings.temp_limit));
    if let Some(bytes) = settings.memory_limit {
        runtime = runtime.with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)));
    }
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime.build_arc()?)
        .with_default_features()
        .with_analyzer_rule(Arc::new(CheckedSettings))
        .build();
    let ctx = SessionContext::new_with_state(state);
    crate::register_with(&ctx, stores.clone());
    Ok(ctx)
}

/// Object stores for a DataFusion runtime: built when first used, with what the environment says.
#[must_use]
pub fn store_registry(stores: &Stores) -> Arc<dyn ObjectStoreRegistry> {
    Arc::new(StoreRegistry { stores: stores.clone() })
}

/// DataFusion's view of our lazily built stores.
struct StoreRegistry {
    stores: Stores,
}

impl fmt::Debug for StoreRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreRegistry")
    }
}

impl ObjectStoreRegistry for StoreRegistry {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.register(url, store);
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.stores.store_for_url(url).map_err(from_storage)
    }
}
