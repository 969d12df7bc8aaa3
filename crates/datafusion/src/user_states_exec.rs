//! `UserStatesExec`: keeps decoded user states for the next query of a session.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::UInt32Type;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use item_affinity_solution::SolutionRef;

use crate::only_child::only_child;
use crate::shared_parts::{DecodedStates, SharedParts};
use crate::user_states::USER_INDEX;

/// The user states of one version: from the session's memory when an earlier query left them there, else from the scan
/// below, which it gathers for the next query as they stream by.
///
/// Only plans of a session hold this node, and only where the states fit into what the session may keep; jobs scan.
///
/// # Cost   nothing for a query that finds them; one reference to each batch for the query that leaves them
#[derive(Debug)]
pub struct UserStatesExec {
    scan: Arc<dyn ExecutionPlan>,
    version: SolutionRef,
    shared: SharedParts,
    metrics: ExecutionPlanMetricsSet,
    /// Decided once for all partitions, by the first that runs: half of the states from memory and half from a scan
    /// would not be all of them.
    source: OnceLock<Source>,
}

#[derive(Debug)]
enum Source {
    /// A run of batches for each partition.
    Memory(Vec<Vec<RecordBatch>>, Arc<DecodedStates>),
    /// Gathered on the way, unless another query does so.
    Scan(Option<Arc<Gathered>>),
}

impl UserStatesExec {
    /// Puts the node on a scan of the user states of a version.
    pub(crate) fn new(scan: Arc<dyn ExecutionPlan>, version: SolutionRef, shared: SharedParts) -> Self {
        Self { scan, version, shared, metrics: ExecutionPlanMetricsSet::new(), source: OnceLock::new() }
    }

    pub(crate) fn scan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.scan
    }

    /// The scan below, if a node is this one: what can travel of it.
    #[must_use]
    pub fn scan_of(node: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
        node.downcast_ref::<Self>().map(Self::scan)
    }

    /// Whether the states come from memory when the node runs.
    pub(crate) fn in_memory(&self, context: &TaskContext) -> bool {
        matches!(self.source(context), Source::Memory(..))
    }

    fn source(&self, context: &TaskContext) -> &Source {
        self.source.get_or_init(|| {
            let partitions = self.scan.output_partitioning().partition_count();
            let columns = self.scan.schema().fields().len();
            match self.shared.decoded(&self.version, columns) {
                Some(kept) => Source::Memory(kept.cut(partitions, columns), kept),
                None => Source::Scan(
                    self.shared
                        .claim()
                        .map(|claim| Arc::new(Gathered::new(self, claim, partitions, context.memory_pool()))),
                ),
            }
        })
    }
}

/// What partitions of a scan have given so far.
struct Gathered {
    version: SolutionRef,
    shared: SharedParts,
    pool: Arc<dyn MemoryPool>,
    state: Mutex<GatheredState>,
}

struct GatheredState {
    /// None once the session's memory had no room for more.
    batches: Option<Vec<RecordBatch>>,
    memory: MemoryReservation,
    /// Partitions that have not ended.
    open: usize,
    claim: Option<Arc<()>>,
}

impl Gathered {
    fn new(node: &UserStatesExec, claim: Arc<()>, partitions: usize, pool: &Arc<dyn MemoryPool>) -> Self {
        let memory = MemoryConsumer::new("UserStates").register(pool);
        Self {
            version: node.version.clone(),
            shared: node.shared.clone(),
            pool: Arc::clone(pool),
            state: Mutex::new(GatheredState {
                batches: Some(Vec::new()),
                memory,
                open: partitions,
                claim: Some(claim),
            }),
        }
    }

    fn add(&self, batch: &RecordBatch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let Some(batches) = &mut state.batches else { return };
        if state.memory.try_grow(batch.get_array_memory_size()).is_ok() {
            batches.push(batch.clone());
        } else {
            // The query needs the memory more than the next one does.
            state.batches = None;
            state.memory.free();
            state.claim = None;
        }
    }

    /// One partition has ended; the last one leaves the states to the session.
    fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        if state.open > 0 {
            return;
        }
        let (memory, _claim) = (state.memory.take(), state.claim.take());
        let Some(mut batches) = state.batches.take() else { return };
        batches.retain(|batch| batch.num_rows() > 0);
        batches.sort_by_key(|batch| batch.column(USER_INDEX).as_primitive::<UInt32Type>().value(0));
        self.shared.keep_decoded(&self.version, DecodedStates::new(batches, memory), &self.pool);
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gathered")
    }
}

impl DisplayAs for UserStatesExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                f.write_str("UserStatesExec: kept by the session")
            }
            DisplayFormatType::TreeRender => writeln!(f, "kept by the session"),
        }
    }
}

impl ExecutionPlan for UserStatesExec {
    fn name(&self) -> &'static str {
        "UserStatesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.scan]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

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
        let scan = only_child(self.name(), children)?;
        Ok(Arc::new(Self::new(scan, self.version.clone(), self.shared.clone())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        match inputs {
            [scan] => Ok(Arc::clone(scan)),
            _ => internal_err!("UserStatesExec takes one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let from_memory: Count = MetricBuilder::new(&self.metrics).counter("users_from_memory", partition);
        let gathered = match self.source(&context) {
            Source::Memory(runs, kept) => {
                let batches = runs.get(partition).cloned().unwrap_or_default();
                let kept = Arc::clone(kept);
                let rows = stream::iter(batches).map(move |batch| {
                    // Counted as used while anybody reads them.
                    let _held = &kept;
                    from_memory.add(batch.num_rows());
                    baseline.record_output(batch.num_rows());
                    Ok(batch)
                });
                return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)));
            }
            Source::Scan(gathered) => gathered.clone(),
        };
        let scan = self.scan.execute(partition, context)?;
        let Some(gathered) = gathered else { return Ok(scan) };
        let at_end = Arc::clone(&gathered);
        let scan = scan.inspect(move |batch| {
            if let Ok(batch) = batch {
                gathered.add(batch);
                baseline.record_output(batch.num_rows());
            }
        });
        let end = stream::once(async move { at_end.end() }).filter_map(|()| std::future::ready(None));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), scan.chain(end))))
    }
}
