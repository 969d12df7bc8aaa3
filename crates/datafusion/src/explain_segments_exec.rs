//! `ExplainSegmentsExec`: the plan node that says which past items make the affinity of each user in the segments.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{Boundedness, CardinalityEffect, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet, Time,
};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_model::Explainer;

use crate::asked_items::AskedItems;
use crate::batch_rows::batch_rows;
use crate::error::from_model;
use crate::memory_limit::with_cure;
use crate::only_child::only_child;
use crate::segment_reasons::{AllReasons, Asked, Explanations, Solver};
use crate::segment_schema::{EXPLANATION_SCHEMA, explanation_order, segment_order};
use crate::top_k_users_exec::{CancelOnDrop, blocking};

/// Users that are handed to a thread at once.
const USERS_AT_ONCE: usize = 32;

/// What is to be explained, and from what.
pub struct ExplanationQuery {
    /// The asked items, with the solution version that knows them.
    pub items: Arc<AskedItems>,
    /// Reasons for each user and item at most.
    pub reasons: usize,
}

impl fmt::Debug for ExplanationQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExplanationQuery({} reasons from {})", self.reasons, self.items.source().reference())
    }
}

/// Gives each row of the segments its reasons: the past items with the largest positive shares of the affinity.
///
/// One child, read as one partition in the order `(item_id, rank)`. All rows are gathered, since a user of many segments
/// is solved once; the histories come from one scan over the pairs of the solution version.
///
/// # Cost
/// The pairs of the version are read once. For each user with n past items `n·d²/2 + d³/6` multiply-adds and `n·d` for
/// each of its segments, less when n is below the dimension d, on as many threads as the session has partitions. Memory,
/// from the session's pool: the segments, 32 bytes a row, 8 bytes for each pair of their users and each reason, and a
/// copy of the item factors.
#[derive(Debug)]
pub struct ExplainSegmentsExec {
    query: Arc<ExplanationQuery>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ExplainSegmentsExec {
    /// Puts the node on segments with all columns and the places of item and user behind them.
    #[must_use]
    pub fn new(query: Arc<ExplanationQuery>, input: Arc<dyn ExecutionPlan>) -> Self {
        let schema = Arc::clone(&EXPLANATION_SCHEMA);
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [explanation_order()]),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { query, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// What is explained.
    #[must_use]
    pub fn query(&self) -> &Arc<ExplanationQuery> {
        &self.query
    }
}

impl DisplayAs for ExplainSegmentsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExplanationQuery { reasons, .. } = self.query.as_ref();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "ExplainSegmentsExec: reasons={reasons}, order=[item_id, rank, reason_rank]")
            }
            DisplayFormatType::TreeRender => writeln!(f, "reasons={reasons}"),
        }
    }
}

impl ExecutionPlan for ExplainSegmentsExec {
    fn name(&self) -> &'static str {
        "ExplainSegmentsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![LexOrdering::new(segment_order()).map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::GreaterEqual
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("ExplainSegmentsExec has one partition, {partition} was asked for");
        }
        let input = self.input.execute(0, Arc::clone(&context))?;
        let metrics = Metrics::new(&self.metrics);
        let query = Arc::clone(&self.query);
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&EXPLANATION_SCHEMA), 2);
        let output = builder.tx();
        builder.spawn(async move {
            let consumer = MemoryConsumer::new("ExplainSegments").with_can_spill(false);
            let memory = Memory(consumer.register(context.memory_pool()), metrics.peak_memory.clone());
            let segments = gather(input, &memory).await?;
            let config = context.session_config();
            let (solver, reasons) = explain(&query, &segments, config.target_partitions(), &memory, &metrics).await?;
            let (version, batch_size) = (query.items.source().get().await?, batch_rows(config));
            let mut explanations = Explanations::new(segments, solver, reasons, version, batch_size);
            while let Some(batch) = explanations.next_batch()? {
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

/// What is held from the session's pool, and the most of it so far.
struct Memory(MemoryReservation, Gauge);

impl Memory {
    fn grow(&self, bytes: usize) -> Result<()> {
        self.0.try_grow(bytes).map_err(with_cure)?;
        self.1.set_max(self.0.size());
        Ok(())
    }
}

async fn gather(mut input: SendableRecordBatchStream, memory: &Memory) -> Result<Vec<RecordBatch>> {
    let mut segments = Vec::new();
    while let Some(batch) = input.next().await.transpose()? {
        memory.grow(batch.get_array_memory_size() + Asked::bytes_for(batch.num_rows()))?;
        segments.push(batch);
    }
    Ok(segments)
}

/// Works out the reasons of all rows. Once the stream is dropped, the threads end with the user in hand.
async fn explain(
    query: &Arc<ExplanationQuery>,
    segments: &[RecordBatch],
    threads: usize,
    memory: &Memory,
    metrics: &Metrics,
) -> Result<(Arc<Solver>, AllReasons)> {
    let (what, rows) = (Arc::clone(query), segments.to_vec());
    let asked = blocking(move || Asked::new(&rows, what.items.places())).await?;
    metrics.users_explained.add(asked.users.len());
    let read = metrics.read_time.timer();
    let source = query.items.source();
    let version = source.get().await?;
    let history = version.user_history(&source.stores, &asked.users).await.map_err(|e| source.error(e))?;
    read.done();
    memory.grow(history.nnz() * 8 + size_of_val(history.indptr()))?;
    let (items, dimension) = version.items.factors.dim();
    memory.grow(items * dimension * size_of::<f32>())?;
    let count = query.reasons;
    let solver = blocking(move || {
        let (recipe, factors) = (&version.model.recipe, version.items.factors.view());
        let explainer = Explainer::new(recipe, factors).map_err(from_model)?;
        Ok(Solver { explainer, asked, history, count })
    })
    .await?;
    memory.grow(solver.bytes_of_a_thread(dimension) * threads)?;
    let solver = Arc::new(solver);
    let users = solver.asked.users.len();
    let chunks = (0..users).step_by(USERS_AT_ONCE).map(|first| first..users.min(first + USERS_AT_ONCE));
    let cancel = CancelOnDrop::default();
    let solve = |chunk| {
        let (solver, time, stop) = (Arc::clone(&solver), metrics.solve_time.clone(), Arc::clone(&cancel.0));
        blocking(move || {
            let timer = time.timer();
            let reasons = solver.explain(chunk, &stop);
            timer.done();
            reasons
        })
    };
    let mut solved = stream::iter(chunks).map(solve).buffered(threads.max(1));
    let mut reasons = AllReasons::default();
    while let Some(some) = solved.try_next().await? {
        memory.grow(some.bytes())?;
        reasons.push(some);
    }
    drop(solved);
    Ok((solver, reasons))
}

struct Metrics {
    baseline: BaselineMetrics,
    users_explained: Count,
    read_time: Time,
    solve_time: Time,
    peak_memory: Gauge,
}

impl Metrics {
    fn new(set: &ExecutionPlanMetricsSet) -> Self {
        Self {
            baseline: BaselineMetrics::new(set, 0),
            users_explained: MetricBuilder::new(set).counter("users_explained", 0),
            read_time: MetricBuilder::new(set).subset_time("read_time", 0),
            solve_time: MetricBuilder::new(set).subset_time("solve_time", 0),
            peak_memory: MetricBuilder::new(set).gauge("peak_memory_bytes", 0),
        }
    }
}
