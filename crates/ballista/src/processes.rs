//! Scheduler and executor with the plugin built in.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::ConfigProducer;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::health::ExecutorHealth;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionConfig;
use item_affinity_datafusion::{ItemAffinityOptions, SessionSettings, session, store_registry, unnamed_files};
use item_affinity_storage::{ErrorKind, Stores};
use tokio::net::TcpListener;

use crate::codec::cluster_codec;
use crate::health;
use crate::session::SchedulerAddress;
use crate::slots::CountedSlots;

/// Why a process of a cluster did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A port is taken, or an address is not this machine's.
    #[error("ERR_CLUSTER_BIND: cannot listen at {address}: {reason}; choose another port or --bind-host")]
    Bind {
        /// Host and port.
        address: SocketAddr,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A folder that cannot be made or written.
    #[error("ERR_CLUSTER_WORK_DIR: cannot use {}: {reason}; choose another --work-dir", path.display())]
    WorkDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// What Ballista says.
    #[error("ERR_CLUSTER_PROCESS: the {process} ended: {reason}")]
    Engine {
        /// `scheduler` or `executor`.
        process: &'static str,
        /// In its words.
        reason: ballista_core::error::BallistaError,
    },
}

impl ClusterError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bind { .. } | Self::WorkDir { .. } => ErrorKind::BadInput,
            Self::Engine { .. } => ErrorKind::Storage,
        }
    }
}

/// Settings of a scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerSettings {
    /// The address that it listens at.
    pub bind_host: IpAddr,
    /// The port for clients, executors, `/healthz` and `/readyz`.
    pub port: u16,
    /// How executors and clients reach it.
    pub external_host: String,
    /// An executor that is silent for so long is lost; its tasks run again elsewhere.
    pub executor_timeout: Duration,
    /// Whether clients fetch results through the scheduler, because they cannot reach executors.
    pub proxy_results: bool,
}

/// Settings of an executor.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    /// Its scheduler.
    pub scheduler: SchedulerAddress,
    /// The address that it listens at.
    pub bind_host: IpAddr,
    /// How others reach it; none: the address that the scheduler sees.
    pub external_host: Option<String>,
    /// The port for shuffled rows and results.
    pub port: u16,
    /// The port for tasks.
    pub grpc_port: u16,
    /// The port for `/healthz` and `/readyz`; none: nobody asks.
    pub health_port: Option<u16>,
    /// Where shuffled rows lie until their query is over; temporary files on its disk have no names.
    pub work_dir: PathBuf,
    /// Partitions that run at once.
    pub vcores: usize,
    /// Bytes that its tasks may hold together; none: 70 % of the machine or container.
    pub memory_limit: Option<usize>,
    /// How often it tells the scheduler that it lives.
    pub heartbeat: Duration,
    /// How long it waits for its scheduler when it starts.
    pub connect_timeout: Duration,
}

/// The functions of a session here: plans name functions, and who decodes them looks them up. What Ballista knows by itself
/// lacks those of lists.
fn functions(stores: &Stores) -> datafusion::error::Result<Vec<Arc<ScalarUDF>>> {
    let state = session(stores, SessionSettings::default())?.state();
    let functions = state.scalar_functions().values();
    // A score needs the session that it is asked in.
    Ok(functions.filter(|function| function.name() != "item_affinity_score").cloned().collect())
}

fn config_producer() -> ConfigProducer {
    Arc::new(|| SessionConfig::new_with_ballista().with_option_extension(ItemAffinityOptions::default()))
}

/// Runs a scheduler until it fails.
///
/// # Errors   [`ClusterError::Bind`] when it cannot listen; what Ballista says
pub async fn run_scheduler(stores: &Stores, settings: SchedulerSettings) -> Result<(), ClusterError> {
    let address = SocketAddr::new(settings.bind_host, settings.port);
    free(address).await?;
    // Decoding a plan asks for the store of its files, and reads nothing.
    let registry = store_registry(stores);
    let ended = |reason| ClusterError::Engine { process: "scheduler", reason };
    let plugin = functions(stores).map_err(|e| ended(e.into()))?;
    let session_builder = move |config: SessionConfig| {
        let runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::clone(&registry)).build_arc()?;
        let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime);
        let mut state = builder.with_default_features().build();
        for function in &plugin {
            state.register_udf(Arc::clone(function))?;
        }
        Ok(state)
    };
    let silent = settings.executor_timeout.as_secs().max(1);
    let config = SchedulerConfig {
        bind_host: settings.bind_host.to_string(),
        bind_port: settings.port,
        external_host: settings.external_host,
        executor_timeout_seconds: silent,
        expire_dead_executor_interval_seconds: (silent / 4).clamp(1, 15),
        no_executors_grace_period_seconds: silent,
        enable_embedded_flight_proxy: settings.proxy_results,
        override_config_producer: Some(config_producer()),
        override_session_builder: Some(Arc::new(session_builder)),
        override_physical_codec: Some(cluster_codec(stores.clone())),
        ..SchedulerConfig::default()
    };
    let of_engine = BallistaCluster::new_from_config(&config).await.map_err(ended)?;
    let cluster = BallistaCluster::new(Arc::new(CountedSlots::default()), of_engine.job_state());
    start_server(cluster, address, Arc::new(config)).await.map_err(ended)
}

/// Runs an executor until SIGTERM or SIGINT; then it takes no new task, ends those that it has, and tells the scheduler.
///
/// # Errors   [`ClusterError::Bind`] and [`ClusterError::WorkDir`]; what Ballista says, as of a scheduler that does not
/// answer within `connect_timeout`
pub async fn run_executor(stores: &Stores, settings: ExecutorSettings) -> Result<(), ClusterError> {
    let work_dir = |reason| ClusterError::WorkDir { path: settings.work_dir.clone(), reason };
    std::fs::create_dir_all(&settings.work_dir).map_err(work_dir)?;
    for port in [settings.port, settings.grpc_port] {
        free(SocketAddr::new(settings.bind_host, port)).await?;
    }
    let health = ExecutorHealth::new();
    let probes = match settings.health_port {
        Some(port) => {
            let listener = bind(SocketAddr::new(settings.bind_host, port)).await?;
            Some(tokio::spawn(health::serve(listener, health.clone())))
        }
        None => None,
    };
    let ended = |reason| ClusterError::Engine { process: "executor", reason };
    let mut functions_by_name = BallistaFunctionRegistry::default();
    for function in functions(stores).map_err(|e| ended(e.into()))? {
        functions_by_name.scalar_functions.insert(function.name().to_owned(), function);
    }
    let (stores, spill) = (stores.clone(), settings.work_dir.clone());
    let registry = store_registry(&stores);
    let runtime_producer = move |_: &SessionConfig| {
        RuntimeEnvBuilder::new()
            .with_object_store_registry(Arc::clone(&registry))
            .with_disk_manager_builder(unnamed_files(spill.clone(), None))
            .build_arc()
    };
    let config = ExecutorProcessConfig {
        bind_host: settings.bind_host.to_string(),
        external_host: settings.external_host,
        port: settings.port,
        grpc_port: settings.grpc_port,
        scheduler_host: settings.scheduler.host().to_owned(),
        scheduler_port: settings.scheduler.port(),
        scheduler_connect_timeout_seconds: u16::try_from(settings.connect_timeout.as_secs()).unwrap_or(u16::MAX),
        work_dir: Some(settings.work_dir.display().to_string()),
        vcores: settings.vcores,
        memory_pool_size: settings.memory_limit.map(|bytes| bytes as u64),
        executor_heartbeat_interval_seconds: settings.heartbeat.as_secs().max(1),
        // Rows of queries whose client is gone are removed after a day.
        job_data_ttl_seconds: 86_400,
        job_data_clean_up_interval_seconds: 1_800,
        override_config_producer: Some(config_producer()),
        override_function_registry: Some(Arc::new(functions_by_name)),
        override_runtime_producer: Some(Arc::new(runtime_producer)),
        override_physical_codec: Some(cluster_codec(stores)),
        health,
        ..ExecutorProcessConfig::default()
    };
    let outcome = start_executor_process(Arc::new(config)).await;
    if let Some(probes) = probes {
        probes.abort();
    }
    outcome.map_err(ended)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ClusterError> {
    TcpListener::bind(address).await.map_err(|reason| ClusterError::Bind { address, reason })
}

/// Ballista would say of a taken port only that a service stopped.
async fn free(address: SocketAddr) -> Result<(), ClusterError> {
    bind(address).await.map(drop)
}
