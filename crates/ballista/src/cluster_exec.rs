//! `ClusterExec`: a whole plan that runs on a cluster instead of in the process, and the rule that puts it there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::extension::SessionConfigExt;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use datafusion_proto::physical_plan::PhysicalExtensionCodec;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use item_affinity_datafusion::{RefreshExec, TaskError, UserStatesExec};
use item_affinity_storage::ErrorKind;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::codec::encode_plan;
use crate::session::ClusterSettings;
use crate::submission::submit;

/// How long a scheduler may take to answer at all.
const CONNECT: Duration = Duration::from_secs(10);

/// Submits the plan below to a cluster, as it is, and gives its rows.
///
/// It has no children: what is below belongs to the cluster. Rows of a plan with one partition keep their order.
pub struct ClusterExec {
    plan: Arc<dyn ExecutionPlan>,
    cluster: Arc<Cluster>,
    properties: Arc<PlanProperties>,
}

/// Where plans go.
pub(crate) struct Cluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) codec: Arc<dyn PhysicalExtensionCodec>,
}

impl ClusterExec {
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, cluster: Arc<Cluster>) -> Self {
        let ordered = plan.output_partitioning().partition_count() == 1;
        let equivalences = match ordered {
            true => plan.equivalence_properties().clone(),
            false => EquivalenceProperties::new(plan.schema()),
        };
        let partitioning = Partitioning::UnknownPartitioning(1);
        let properties = PlanProperties::new(equivalences, partitioning, EmissionType::Final, Boundedness::Bounded);
        Self { plan, cluster, properties: Arc::new(properties) }
    }

    /// The plan that is submitted.
    #[must_use]
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }
}

impl fmt::Debug for ClusterExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterExec").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl DisplayAs for ClusterExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterExec: {}, plan={}", self.cluster.settings.scheduler, self.plan.name())
    }
}

impl ExecutionPlan for ClusterExec {
    fn name(&self) -> &'static str {
        "ClusterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("ClusterExec has no children") }
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (cluster, plan) = (Arc::clone(&self.cluster), Arc::clone(&self.plan));
        let rows = async move {
            let deadline = Instant::now() + cluster.settings.timeout;
            let submitted = timeout_at(deadline, cluster.submit(plan, &context)).await;
            let stream = submitted.map_err(|_| cluster.settings.too_long())??;
            // Results may be fetched slowly by who reads them; each batch has the time that the query had.
            let rows = futures::stream::unfold((stream, cluster), |(mut stream, cluster)| async move {
                let deadline = Instant::now() + cluster.settings.timeout;
                let next = match timeout_at(deadline, stream.next()).await {
                    Ok(next) => next?.map_err(|e| cluster.settings.failed(&e)),
                    Err(_) => Err(cluster.settings.too_long()),
                };
                Some((next, (stream, cluster)))
            });
            Ok::<_, DataFusionError>(rows)
        };
        let rows = futures::stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

impl Cluster {
    async fn submit(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &TaskContext,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let scheduler = &self.settings.scheduler;
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(scheduler.host_and_port())).await;
        let why = match connected {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", CONNECT.as_secs())),
        };
        if let Some(why) = why {
            let message = format!(
                "ERR_CLUSTER_UNREACHABLE: no scheduler answers at {scheduler}: {why}; start one with item-affinity cluster \
                 scheduler, or correct --cluster"
            );
            return Err(TaskError::new(ErrorKind::Storage, message).into_datafusion());
        }
        let bytes = encode_plan(plan, self.codec.as_ref()).map_err(|e| cannot_travel(&e))?;
        submit_plan(&self.settings, bytes, context).await
    }
}

/// What a person reads of a plan that has no message.
fn cannot_travel(error: &DataFusionError) -> DataFusionError {
    let message = format!("ERR_CLUSTER_PLAN: this query cannot run on a cluster: {error}; leave --cluster out");
    TaskError::new(ErrorKind::BadInput, message).into_datafusion()
}

impl ClusterSettings {
    fn too_long(&self) -> DataFusionError {
        let message = format!(
            "ERR_CLUSTER_TIMEOUT: {} gave no result within {} s; look whether executors are running, or raise \
             --cluster-timeout",
            self.scheduler,
            self.timeout.as_secs()
        );
        TaskError::new(ErrorKind::Storage, message).into_datafusion()
    }

    /// What a cluster says of a failed query, for a person: what a task of ours said, else the kinds that it is known by.
    fn failed(&self, error: &DataFusionError) -> DataFusionError {
        let text = error.to_string();
        if let Some(task) = TaskError::from_text(&text) {
            return task.into_datafusion();
        }
        let scheduler = &self.scheduler;
        // The words of gRPC after the message say nothing to a person.
        let text = text.split(", metadata: MetadataMap").next().unwrap_or_default();
        let unknown = text.contains("Could not parse plan");
        let (kind, message) = if text.contains("must have the same major version")
            || text.contains("ERR_CLUSTER_FORMAT")
        {
            (ErrorKind::BadInput, format!("ERR_CLUSTER_FORMAT: {scheduler} runs another version: {text}"))
        } else if unknown {
            let cure = "leave --cluster out";
            (ErrorKind::BadInput, format!("ERR_CLUSTER_PLAN: this query cannot run on a cluster: {text}; {cure}"))
        } else if text.contains("ResourcesExhausted") || text.contains("Resources exhausted") {
            let cure = "give executors more with --memory-limit, or ask for fewer items";
            (ErrorKind::Limit, format!("ERR_CLUSTER_MEMORY: a task at {scheduler} has no memory left: {text}; {cure}"))
        } else {
            (ErrorKind::Storage, format!("ERR_CLUSTER_FAILED: {scheduler} could not run the query: {text}"))
        };
        TaskError::new(kind, message).into_datafusion()
    }
}

/// Submits a plan as the bytes that [`encode_plan`](crate::encode_plan) gives, and gives its rows once its job is done.
///
/// # Errors   as those of a query of a [`cluster_session`](crate::cluster_session), but without a limit of time
pub async fn submit_plan(
    settings: &ClusterSettings,
    plan: Vec<u8>,
    context: &TaskContext,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let config = context.session_config();
    let of_ballista = config.ballista_config();
    let submitted = submit(&settings.scheduler, plan, context.session_id(), config, &of_ballista);
    submitted.await.map_err(|e| settings.failed(&e))
}

/// Puts [`ClusterExec`] on top of a plan that reads files; it is the last rule, so that nothing changes the plan any more.
pub(crate) struct SubmitPlans(pub(crate) Arc<Cluster>);

impl fmt::Debug for SubmitPlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubmitPlans")
    }
}

impl PhysicalOptimizerRule for SubmitPlans {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let whole = travelling(plan)?;
        if !reads_files(&whole) {
            return Ok(whole);
        }
        // Files are written by the client alone.
        if whole.is::<DataSinkExec>() {
            let inputs = whole.children().into_iter().map(|input| {
                Arc::new(ClusterExec::new(Arc::clone(input), Arc::clone(&self.0))) as Arc<dyn ExecutionPlan>
            });
            let inputs = inputs.collect();
            return datafusion::physical_plan::replace_children_if_necessary(whole, inputs);
        }
        Ok(Arc::new(ClusterExec::new(whole, Arc::clone(&self.0))))
    }

    fn name(&self) -> &'static str {
        "submit_to_cluster"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A plan as it travels: in one piece, without what belongs to this process.
///
/// # Errors   what the engine says to a plan that it cannot put together
pub fn travelling(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let whole = plan.transform_up(|node| {
        if let Some(part) = node.downcast_ref::<ClusterExec>() {
            // What was planned on the way, such as a query of users, is a part of this plan and no query of its own.
            let part = Arc::clone(&part.plan);
            let many = part.output_partitioning().partition_count() > 1;
            return Ok(Transformed::yes(if many { Arc::new(CoalescePartitionsExec::new(part)) } else { part }));
        }
        // What a session remembers is in its own process.
        Ok(match UserStatesExec::scan_of(&node) {
            Some(scan) => Transformed::yes(Arc::clone(scan)),
            None => Transformed::no(node),
        })
    });
    Ok(whole?.data)
}

fn reads_files(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let scan = plan.downcast_ref::<DataSourceExec>();
    // The units of a refresh lie in memory; what they name are files.
    plan.is::<RefreshExec>()
        || scan.is_some_and(|scan| scan.data_source().as_ref().is::<FileScanConfig>())
        || plan.children().into_iter().any(reads_files)
}
