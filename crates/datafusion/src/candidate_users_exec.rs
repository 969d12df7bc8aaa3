//! `CandidateUsersExec`: lets only the users of a query through to the ranking.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::{Distribution, EquivalenceProperties};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::among_users::scan_among;
use crate::id_set::IdSet;
use crate::memory_limit::resize;
use crate::user_states::USER_ID;
use crate::user_states_exec::UserStatesExec;

const ASKED: &str = "users_asked";
const UNKNOWN: &str = "users_unknown";
/// One user of so many: below, a scan skips the factors of the others.
const WORTH_SKIPPING: usize = 8;

/// The semi join of user states with the users of a query, by user id.
///
/// Two children: user states, which stream through in their order and keep their partitioning, and the users, one
/// column of ids, which are read once into memory, by whichever partition asks first. A join of the engine would do the
/// same, but its optimizer may turn such a join around when it thinks the users are the larger side, and then factors
/// would be held in memory and lose their order.
///
/// A user who comes more than once counts once, NULL is nobody, and users whom the solution version does not know are
/// counted (`users_unknown`), as in any semi join.
///
/// # Cost
/// One hash and one comparison of ids for each user state; the bytes of the ids and about 14 more for each. Where the
/// filter leaves less than an eighth of the users, factors are decoded for those alone.
#[derive(Debug)]
pub struct CandidateUsersExec {
    states: Arc<dyn ExecutionPlan>,
    users: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    candidates: Mutex<Option<Candidates>>,
    tally: Arc<Tally>,
}

/// The users of the query, read once.
type Candidates = Shared<BoxFuture<'static, Result<Arc<Loaded>, Arc<DataFusionError>>>>;

struct Loaded {
    ids: Arc<IdSet>,
    /// The user states, some of them left out by their scan. One for all partitions, which may share files.
    states: Arc<dyn ExecutionPlan>,
    /// Given back with the ids.
    _memory: MemoryReservation,
}

/// Users found by all partitions, and partitions that are not through.
#[derive(Debug)]
struct Tally {
    known: AtomicUsize,
    open: AtomicUsize,
}

impl CandidateUsersExec {
    /// Puts the node on user states (`user_index, factor, log_odds, user_id`) and on users of one column: strings or
    /// integers.
    #[must_use]
    pub fn new(states: Arc<dyn ExecutionPlan>, users: Arc<dyn ExecutionPlan>) -> Self {
        let partitioning = states.output_partitioning().clone();
        let tally = Tally { known: AtomicUsize::new(0), open: AtomicUsize::new(partitioning.partition_count()) };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(states.schema()),
            partitioning,
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            states,
            users,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            candidates: Mutex::new(None),
            tally: Arc::new(tally),
        }
    }

    /// The user states that are filtered.
    pub(crate) fn states(&self) -> &Arc<dyn ExecutionPlan> {
        &self.states
    }

    /// The same filter over the same user states read in another way; it counts into the metrics of this one.
    pub(crate) fn with_states(&self, states: Arc<dyn ExecutionPlan>) -> Self {
        Self { metrics: self.metrics.clone(), ..Self::new(states, Arc::clone(&self.users)) }
    }

    fn candidates(&self, context: &Arc<TaskContext>) -> Result<Candidates> {
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(candidates) = candidates.as_ref() {
            return Ok(candidates.clone());
        }
        if self.users.output_partitioning().partition_count() != 1 {
            return internal_err!("CandidateUsersExec needs its users in one partition");
        }
        let users = self.users.execute(0, Arc::clone(context))?;
        let memory = MemoryConsumer::new("CandidateUsers").register(context.memory_pool());
        let asked = MetricBuilder::new(&self.metrics).counter(ASKED, 0);
        let states = Arc::clone(&self.states);
        let context = Arc::clone(context);
        let loading = async move { load(users, states, &context, memory, asked).await.map(Arc::new).map_err(Arc::new) };
        let loading = loading.boxed().shared();
        Ok(candidates.insert(loading).clone())
    }
}

async fn load(
    mut users: SendableRecordBatchStream,
    states: Arc<dyn ExecutionPlan>,
    context: &TaskContext,
    memory: MemoryReservation,
    asked: Count,
) -> Result<Loaded> {
    let mut ids = IdSet::new();
    while let Some(batch) = users.try_next().await? {
        let texts = cast(batch.column(0), &DataType::Utf8)?;
        for id in texts.as_string::<i32>().iter().flatten() {
            if !ids.insert(id) {
                return exec_err!("more than {} users in a filter", u32::MAX);
            }
        }
        resize(&memory, ids.allocated_bytes())?;
    }
    asked.add(ids.len());
    let ids = Arc::new(ids);
    Ok(Loaded { states: within_scan(states, &ids, context)?, ids, _memory: memory })
}

/// The scan of user states with the filter within it, where it leaves so few that skipping the others is worth its cost.
fn within_scan(
    states: Arc<dyn ExecutionPlan>,
    ids: &Arc<IdSet>,
    context: &TaskContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    let rows = StatisticsContext::new().compute(states.as_ref(), &StatisticsArgs::new())?.num_rows;
    let few = rows.get_value().is_some_and(|users| ids.len() <= users / WORTH_SKIPPING);
    // States that lie in memory are quicker passed over than read again.
    let scan = match states.downcast_ref::<UserStatesExec>() {
        Some(kept) if kept.in_memory(context) => return Ok(states),
        Some(kept) => kept.scan(),
        None => &states,
    };
    let narrowed = few.then(|| scan_among(scan, Arc::clone(ids))).flatten();
    Ok(narrowed.unwrap_or(states))
}

/// The rows of a batch of user states whose users are asked for.
fn among(batch: &RecordBatch, ids: &IdSet) -> Result<RecordBatch> {
    let users = batch.column(USER_ID).as_string::<i32>();
    let keep = BooleanArray::from_unary(users, |id| ids.contains(id));
    Ok(filter_record_batch(batch, &keep)?)
}

impl DisplayAs for CandidateUsersExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => f.write_str("CandidateUsersExec: on=[user_id]"),
            DisplayFormatType::TreeRender => writeln!(f, "on=[user_id]"),
        }
    }
}

impl ExecutionPlan for CandidateUsersExec {
    fn name(&self) -> &'static str {
        "CandidateUsersExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.states, &self.users]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::UnspecifiedDistribution, Distribution::SinglePartition])
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 2]>::try_from(children) {
            Ok([states, users]) => Ok(Arc::new(Self::new(states, users))),
            Err(_) => internal_err!("CandidateUsersExec takes user states and users"),
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let candidates = self.candidates(&context)?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let unknown = MetricBuilder::new(&self.metrics).counter(UNKNOWN, partition);
        let tally = Arc::clone(&self.tally);
        let rows = async move {
            let loaded = candidates.await.map_err(DataFusionError::Shared)?;
            let states = loaded.states.execute(partition, context)?;
            let of_batch = Arc::clone(&loaded);
            let of_end = Arc::clone(&tally);
            let found = states.map(move |batch| {
                let timer = baseline.elapsed_compute().timer();
                let found = among(&batch?, &of_batch.ids)?;
                timer.done();
                tally.known.fetch_add(found.num_rows(), Ordering::Relaxed);
                baseline.record_output(found.num_rows());
                Ok(found)
            });
            // Whoever ends last knows how many were found by all.
            let end = futures::stream::once(async move {
                if of_end.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                    unknown.add(loaded.ids.len().saturating_sub(of_end.known.load(Ordering::Acquire)));
                }
            });
            let end = end.filter_map(|()| std::future::ready(None));
            Ok::<_, DataFusionError>(found.try_filter(|found| std::future::ready(found.num_rows() > 0)).chain(end))
        };
        let rows = futures::stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.states.schema(), rows)))
    }
}

/// How many users a query asked to be ranked, each once, and how many of them the solution version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateCounts {
    /// Distinct users of the query; NULL is nobody.
    pub asked: u64,
    /// Users among them without a state.
    pub unknown: u64,
}

impl CandidateCounts {
    /// What a plan counted that has been read to its end; none for a plan without a filter of users.
    #[must_use]
    pub fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        if let Some(node) = plan.downcast_ref::<CandidateUsersExec>() {
            let metrics = node.metrics.clone_inner();
            let count = |name| metrics.sum_by_name(name).map_or(0, |value| value.as_usize() as u64);
            return Some(Self { asked: count(ASKED), unknown: count(UNKNOWN) });
        }
        plan.children().into_iter().find_map(Self::of)
    }
}
