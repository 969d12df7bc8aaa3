//! The nodes of a refresh whose users are folded in part by part: `ReadInteractionsExec`, `FoldInUsersExec`,
//! `WriteRefreshedPairsExec`.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use item_affinity_solution::{GatheredPairs, GatheredUsers, RefreshStage, RefreshTask, RefreshWork};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::Sender;

use crate::memory_limit::resize;
use crate::only_child::only_child;
use crate::version_source::VersionSource;

/// A step of the plan, from the leaves up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshStep {
    /// Units of interactions become events, each with the part of its user.
    ReadInteractions,
    /// Events, a part of the users in one partition, become sums over the users, or files of user states and rows of
    /// pairs.
    FoldInUsers,
    /// Rows of pairs, a group of items in one partition, become files.
    WritePairs,
}

/// What is refreshed, and how: shared by the nodes of a plan that was made here. A node that was decoded has a `work` of its
/// own: its version is that of other tasks, and item factors are prepared anew.
#[derive(Clone)]
pub struct RefreshPlan {
    task: Arc<RefreshTask>,
    version: VersionSource,
    work: Arc<OnceCell<Arc<RefreshWork>>>,
}

impl RefreshPlan {
    /// A plan of this task; the version is opened when the first partition needs it.
    #[must_use]
    pub fn new(task: Arc<RefreshTask>, version: VersionSource) -> Self {
        Self { task, version, work: Arc::default() }
    }

    /// What every task is told.
    #[must_use]
    pub fn task(&self) -> &RefreshTask {
        &self.task
    }

    async fn work(&self) -> Result<Arc<RefreshWork>> {
        let begin = || async {
            let version = self.version.get().await?;
            let work = RefreshWork::new(Arc::clone(&self.task), &self.version.stores, version);
            work.map(Arc::new).map_err(|e| self.version.error(e))
        };
        self.work.get_or_try_init(begin).await.cloned()
    }
}

impl fmt::Debug for RefreshPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshPlan({})", self.task.solution_version)
    }
}

/// One step of a refresh, with one child.
///
/// Results do not depend on partitions: parts of users and groups of items are cut before the plan is made.
#[derive(Debug)]
pub struct RefreshExec {
    step: RefreshStep,
    plan: RefreshPlan,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RefreshExec {
    /// Puts a step on the one below it; the lowest stands on a column of units.
    #[must_use]
    pub fn new(step: RefreshStep, plan: RefreshPlan, input: Arc<dyn ExecutionPlan>) -> Self {
        let schema = schema(step, &plan.task);
        let partitions = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { step, plan, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// Which step it is, of what.
    #[must_use]
    pub fn what(&self) -> (RefreshStep, &RefreshPlan) {
        (self.step, &self.plan)
    }
}

/// The rows of a step.
fn schema(step: RefreshStep, task: &RefreshTask) -> SchemaRef {
    match step {
        RefreshStep::ReadInteractions => RefreshTask::events_schema(),
        RefreshStep::FoldInUsers => task.folded_schema(),
        RefreshStep::WritePairs => RefreshTask::files_schema(),
    }
}

impl DisplayAs for RefreshExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RefreshTask { solution_version, stage, .. } = self.plan.task.as_ref();
        write!(f, "{}: stage={stage:?}, solution_version={solution_version}", self.name())
    }
}

impl ExecutionPlan for RefreshExec {
    fn name(&self) -> &'static str {
        match self.step {
            RefreshStep::ReadInteractions => "ReadInteractionsExec",
            RefreshStep::FoldInUsers => "FoldInUsersExec",
            RefreshStep::WritePairs => "WriteRefreshedPairsExec",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// A part of the users, or a group of items, must be in one partition whole.
    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let needed = match self.step {
            RefreshStep::ReadInteractions => Distribution::UnspecifiedDistribution,
            RefreshStep::FoldInUsers | RefreshStep::WritePairs => {
                let name = self.input.schema().field(0).name().clone();
                Distribution::KeyPartitioned(vec![Arc::new(Column::new(&name, 0))])
            }
        };
        InputDistributionRequirements::new(vec![needed])
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
        Ok(Arc::new(Self::new(self.step, self.plan.clone(), only_child(self.name(), children)?)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let consumer = MemoryConsumer::new(format!("{}[{partition}]", self.name())).with_can_spill(false);
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), 2);
        let step = Step {
            plan: self.plan.clone(),
            input,
            output: builder.tx(),
            reservation: consumer.register(context.memory_pool()),
            rows: context.session_config().batch_size().max(1),
            baseline: BaselineMetrics::new(&self.metrics, partition),
        };
        match self.step {
            RefreshStep::ReadInteractions => builder.spawn(step.read()),
            RefreshStep::FoldInUsers => builder.spawn(step.fold_in()),
            RefreshStep::WritePairs => builder.spawn(step.write_pairs()),
        }
        Ok(builder.build())
    }
}

/// One partition of a step at work.
struct Step {
    plan: RefreshPlan,
    input: SendableRecordBatchStream,
    output: Sender<Result<RecordBatch>>,
    reservation: datafusion::execution::memory_pool::MemoryReservation,
    /// Rows of a batch.
    rows: usize,
    baseline: BaselineMetrics,
}

impl Step {
    async fn read(mut self) -> Result<()> {
        let work = self.plan.work().await?;
        while let Some(units) = self.input.next().await.transpose()? {
            let Some(texts) = units.column(0).as_string_opt::<i32>() else {
                return internal_err!("units of a refresh are not texts");
            };
            for unit in texts.iter().flatten() {
                let events = work.read(unit).await.map_err(|e| self.failed(e))?;
                resize(&self.reservation, events.iter().map(RecordBatch::get_array_memory_size).sum())?;
                for batch in events {
                    if !self.send(&batch).await {
                        return Ok(());
                    }
                }
            }
        }
        self.baseline.done();
        Ok(())
    }

    async fn fold_in(mut self) -> Result<()> {
        let mut users = GatheredUsers::default();
        while let Some(batch) = self.input.next().await.transpose()? {
            users.push(&batch).map_err(|e| self.failed(e))?;
            resize(&self.reservation, users.allocated_bytes())?;
        }
        let work = self.plan.work().await?;
        if self.plan.task.stage == RefreshStage::Measure {
            let mut sums = work.sums_of_nobody();
            while work.measure_next_part(&mut users, &mut sums).await.map_err(|e| self.failed(e))? {
                resize(&self.reservation, users.allocated_bytes())?;
            }
            self.send(&sums.rows().map_err(|e| self.failed(e))?).await;
            self.baseline.done();
            return Ok(());
        }
        while let Some(written) = work.write_next_part(&mut users).await.map_err(|e| self.failed(e))? {
            resize(&self.reservation, users.allocated_bytes())?;
            for batch in written {
                if !self.send(&batch).await {
                    return Ok(());
                }
            }
        }
        self.baseline.done();
        Ok(())
    }

    async fn write_pairs(mut self) -> Result<()> {
        let mut pairs = GatheredPairs::default();
        while let Some(batch) = self.input.next().await.transpose()? {
            pairs.push(&batch).map_err(|e| self.failed(e))?;
            resize(&self.reservation, pairs.allocated_bytes())?;
        }
        let work = self.plan.work().await?;
        let files = work.write_pairs(pairs).await.map_err(|e| self.failed(e))?;
        self.send(&files).await;
        self.baseline.done();
        Ok(())
    }

    /// Sends rows on in batches; false when nobody waits for them any more.
    async fn send(&mut self, batch: &RecordBatch) -> bool {
        for first in (0..batch.num_rows()).step_by(self.rows) {
            let rows = batch.slice(first, self.rows.min(batch.num_rows() - first));
            self.baseline.record_output(rows.num_rows());
            if self.output.send(Ok(rows)).await.is_err() {
                return false;
            }
        }
        true
    }

    fn failed(&self, error: item_affinity_solution::Error) -> DataFusionError {
        self.plan.version.error(error)
    }
}
