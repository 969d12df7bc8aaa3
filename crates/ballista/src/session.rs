//! A session whose queries run on a cluster.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK;
use ballista_core::extension::SessionConfigExt;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionContext;
use item_affinity_datafusion::{SessionSettings, register_with, session};
use item_affinity_storage::Stores;

use crate::cluster_exec::{Cluster, SubmitPlans};
use crate::codec::cluster_codec;

/// Where a scheduler listens, written `df://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerAddress {
    host: String,
    port: u16,
}

impl SchedulerAddress {
    /// The address as clients of gRPC write it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host_and_port())
    }

    /// `host:port`.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for SchedulerAddress {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refused = || format!("'{text}' is no scheduler; write df://host:50050");
        let (host, port) = text.strip_prefix("df://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(refused)?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(refused)?;
        if host.is_empty() || host.contains(['/', '@', '?', '#']) || host.contains(char::is_whitespace) {
            return Err(refused());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for SchedulerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "df://{}", self.host_and_port())
    }
}

/// Which cluster, and how long it may take.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Its scheduler.
    pub scheduler: SchedulerAddress,
    /// How long a query may run until its first row, and how long each further batch may take.
    pub timeout: Duration,
}

/// Partitions of a plan unless said: the parts of a small solution version, and more than the cores of the client.
const PARTITIONS: usize = 16;

/// Makes a session with the plugin whose queries of files run on a cluster; the rest, such as DDL, runs in the process.
///
/// # Errors   what DataFusion says of its own settings in the environment (`DATAFUSION_*`)
pub fn cluster_session(stores: &Stores, settings: SessionSettings, cluster: ClusterSettings) -> Result<SessionContext> {
    let partitions = settings.target_partitions.or(Some(PARTITIONS));
    let local = session(stores, SessionSettings { target_partitions: partitions, ..settings })?.state();
    // Filters that one part of a plan finds for another cannot cross from process to process, and so on: Ballista knows.
    let config = local.config().clone().upgrade_for_ballista();
    // One each: what a task of a lost executor had made is known again by the number of the task.
    let config = config.set_usize(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, 1);
    let cluster = Cluster { settings: cluster, codec: cluster_codec(stores.clone()) };
    let state = SessionStateBuilder::new_from_existing(local)
        .with_config(config)
        .with_physical_optimizer_rule(Arc::new(SubmitPlans(Arc::new(cluster))))
        .build();
    let ctx = SessionContext::new_with_state(state);
    // Functions hold the session that they were registered in.
    register_with(&ctx, stores.clone());
    Ok(ctx)
}
