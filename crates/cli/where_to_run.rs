//! Where queries run: in this process, or with `--cluster` on a Ballista cluster.

use clap::Args;
use datafusion::execution::context::SessionContext;
use item_affinity_datafusion::SessionSettings;
use item_affinity_storage::Stores;

use crate::exit::Failure;

/// Empty without the feature `ballista`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhereToRun {
    /// Runs the plan on the cluster of this scheduler: df://host:50050.
    #[cfg(feature = "ballista")]
    #[arg(long, value_name = "df://HOST:PORT", env = "ITEM_AFFINITY_CLUSTER")]
    cluster: Option<item_affinity_ballista::SchedulerAddress>,
    /// How long a query may run on the cluster before it ends with 5.
    #[cfg(feature = "ballista")]
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = crate::commit_args::parse_duration)]
    cluster_timeout: std::time::Duration,
}

impl WhereToRun {
    /// The session of a cluster; none: queries run here.
    #[cfg(feature = "ballista")]
    pub(crate) fn remote(&self, stores: &Stores, settings: SessionSettings) -> Result<Option<SessionContext>, Failure> {
        let Some(scheduler) = self.cluster.clone() else { return Ok(None) };
        let cluster = item_affinity_ballista::ClusterSettings { scheduler, timeout: self.cluster_timeout };
        Ok(Some(item_affinity_ballista::cluster_session(stores, settings, cluster)?))
    }

    /// There is no cluster in this build.
    #[cfg(not(feature = "ballista"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    pub(crate) fn remote(&self, _: &Stores, _: SessionSettings) -> Result<Option<SessionContext>, Failure> {
        Ok(None)
    }
}
