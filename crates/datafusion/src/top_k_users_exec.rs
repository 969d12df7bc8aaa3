//! `TopKUsersPerItemExec`: the plan node that scores a partition of user states and keeps the best users of each item.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet, Time,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use item_affinity_model::SharedThresholds;

use crate::asked_items::{self, AskedItems};
use crate::batch_rows::batch_rows;
use crate::memory_limit::resize;
use crate::only_child::only_child;
use crate::options::Seen;
use crate::segment_schema::candidate_schema;
use crate::top_k_users::{ITEM_BLOCK, PartitionTopK, shared_thresholds};
use crate::user_states;

/// What is asked, resolved once against one solution version; it travels inside the nodes.
#[derive(Clone, Debug)]
pub struct SegmentQuery {
    /// The asked items, with the solution version that knows them.
    pub items: Arc<AskedItems>,
    /// Users per item.
    pub num_results: usize,
    /// Whether users with history of the item are in its segment.
    pub seen: Seen,
    /// The least score of a user in a segment.
    pub min_score: f32,
    /// Whether anybody asks for the ids of users; if not, none is read or kept, and places tell users apart.
    pub user_ids: bool,
    /// Users of the solution version.
    pub users: usize,
    /// Whether a filter lets only some of them through.
    pub filtered: bool,
}

impl SegmentQuery {
    /// Users in the segment of an item, at most.
    #[must_use]
    pub fn longest_segment(&self) -> usize {
        self.num_results.min(self.users)
    }
}

/// Gives each user state a probability for the asked items and keeps, per partition, those of the best `num_results` users
/// of each item.
///
/// One child, whose partitioning it keeps. Rows leave by item, best first; the total order is score down, then user id
/// up, so neither tiles nor partitions show in the result. Partitions that run together tell each other how good their users
/// are, and leave out who is beaten elsewhere: together they give every one of the best, and few more.
#[derive(Debug)]
pub struct TopKUsersPerItemExec {
    query: Arc<SegmentQuery>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// What it reads where the plan has travelled: the input with verified user states, one for all partitions.
    verified: Mutex<Option<Arc<dyn ExecutionPlan>>>,
    execution: Mutex<Option<Execution>>,
}

/// The partitions of this node that run together.
#[derive(Debug)]
struct Execution {
    context: Weak<TaskContext>,
    begun: Vec<bool>,
    shared: Arc<[Arc<SharedThresholds>]>,
}

impl TopKUsersPerItemExec {
    /// Puts the node on a scan of `user_index, factor, log_odds`, and `user_id` where the query asks for ids.
    #[must_use]
    pub fn new(query: Arc<SegmentQuery>, input: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(candidate_schema(query.user_ids))),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            query,
            input,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            verified: Mutex::new(None),
            execution: Mutex::new(None),
        }
    }

    /// What is asked.
    #[must_use]
    pub fn query(&self) -> &Arc<SegmentQuery> {
        &self.query
    }

    /// What the partitions of one execution share. An execution is a task context with which no partition has begun yet:
    /// another one may read other users.
    fn shared(&self, partition: usize, context: &Arc<TaskContext>) -> Arc<[Arc<SharedThresholds>]> {
        let mut execution = self.execution.lock().unwrap_or_else(PoisonError::into_inner);
        let current = execution.take().filter(|execution| {
            std::ptr::eq(execution.context.as_ptr(), Arc::as_ptr(context)) && !execution.begun[partition]
        });
        let current = current.unwrap_or_else(|| {
            let partitions = self.properties.output_partitioning().partition_count();
            Execution {
                context: Arc::downgrade(context),
                begun: vec![false; partitions],
                shared: shared_thresholds(self.query.items.ids().len(), partitions),
            }
        });
        let current = execution.insert(current);
        current.begun[partition] = true;
        Arc::clone(&current.shared)
    }

    /// The input, whose user states are verified before they are decoded, wherever the plan was made.
    fn verified_input(&self, context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
        let source = self.query.items.source();
        if !source.has_travelled() {
            return Ok(Arc::clone(&self.input));
        }
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = verified.as_ref() {
            return Ok(Arc::clone(input));
        }
        Ok(Arc::clone(verified.insert(user_states::verified(&self.input, source, context.memory_pool())?)))
    }
}

impl DisplayAs for TopKUsersPerItemExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SegmentQuery { items, num_results, seen, min_score, .. } = self.query.as_ref();
        let solution_version = items.source().reference();
        let least = if *min_score > 0.0 { format!(", min_score={min_score}") } else { String::new() };
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(
                f,
                "TopKUsersPerItemExec: items={}, k={num_results}, seen={seen}{least}, solution_version={solution_version}",
                items.ids().len()
            ),
            DisplayFormatType::TreeRender => {
                writeln!(f, "items={}", items.ids().len())?;
                writeln!(f, "k={num_results}")?;
                writeln!(f, "seen={seen}")?;
                if *min_score > 0.0 {
                    writeln!(f, "min_score={min_score}")?;
                }
                writeln!(f, "solution_version={solution_version}")
            }
        }
    }
}

impl ExecutionPlan for TopKUsersPerItemExec {
    fn name(&self) -> &'static str {
        "TopKUsersPerItemExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// Round-robin below this node would only copy factors from thread to thread.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(Arc::clone(&self.query), only_child(self.name(), children)?)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let rows = self.query.items.ids().len().saturating_mul(self.query.longest_segment());
        Ok(Arc::new(Statistics::new_unknown(&self.schema()).with_num_rows(Precision::Inexact(rows))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.verified_input(&context)?.execute(partition, Arc::clone(&context))?;
        let metrics = Metrics::new(&self.metrics, partition);
        let shared_thresholds = self.shared(partition, &context);
        let query = Arc::clone(&self.query);
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), 2);
        let output = builder.tx();
        builder.spawn(async move {
            let consumer = MemoryConsumer::new(format!("TopKUsersPerItem[{partition}]")).with_can_spill(false);
            let reservation = consumer.register(context.memory_pool());
            // The history is shared: the first partition answers for it, before anything is read.
            if partition == 0 {
                resize(&reservation, query.items.pair_bytes().await?)?;
            }
            let ranking = query.items.ranking(ITEM_BLOCK, context.memory_pool()).await?;
            let shared = if partition == 0 { asked_items::allocated_bytes(&ranking.history) } else { 0 };
            let mut top = PartitionTopK::new(Arc::clone(&query), ranking, &shared_thresholds, partition);
            resize(&reservation, shared + top.allocated_bytes())?;
            let mut input = input;
            let cancel = CancelOnDrop::default();
            loop {
                let scan = metrics.scan_time.timer();
                let Some(batch) = input.next().await.transpose()? else { break };
                scan.done();
                let (flag, gemm_time) = (Arc::clone(&cancel.0), metrics.gemm_time.clone());
                // The scoring of a batch takes milliseconds of pure arithmetic: it leaves the async threads free.
                let (state, users) = blocking(move || {
                    let timer = gemm_time.timer();
                    let mut top = top;
                    let users = top.push(&batch, &flag)?;
                    timer.done();
                    Ok((top, users))
                })
                .await?;
                top = state;
                metrics.users_scored.add(users);
                metrics.peak_memory.set_max(shared + top.allocated_bytes());
                resize(&reservation, shared + top.allocated_bytes())?;
            }
            let batch_size = batch_rows(context.session_config());
            let flag = Arc::clone(&cancel.0);
            let mut candidates = blocking(move || top.finish(batch_size, &flag)).await?;
            while let Some(batch) = candidates.next().transpose()? {
                metrics.baseline.record_output(batch.num_rows());
                if output.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
            metrics.baseline.done();
            Ok(())
        });
        Ok(builder.build())
    }
}

/// Runs arithmetic off the async threads; a panic there is an error here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?
}

/// Tells work on a blocking thread, which cannot be aborted, that nobody waits for it any more.
#[derive(Default)]
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Metrics {
    baseline: BaselineMetrics,
    users_scored: Count,
    gemm_time: Time,
    scan_time: Time,
    peak_memory: Gauge,
}

impl Metrics {
    fn new(set: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        Self {
            baseline: BaselineMetrics::new(set, partition),
            users_scored: MetricBuilder::new(set).counter("users_scored", partition),
            gemm_time: MetricBuilder::new(set).subset_time("gemm_time", partition),
            scan_time: MetricBuilder::new(set).subset_time("scan_time", partition),
            peak_memory: MetricBuilder::new(set).gauge("peak_memory_bytes", partition),
        }
    }
}
