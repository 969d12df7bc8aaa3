//! `SegmentsFinalExec`: merges the candidates of all partitions and ranks them.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraint, Constraints, ScalarValue, Statistics, plan_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use crate::batch_rows::batch_rows;
use crate::memory_limit::resize;
use crate::only_child::only_child;
use crate::options::Seen;
use crate::segment_merge::SegmentMerge;
use crate::segment_schema::{INDEXED_SEGMENT_SCHEMA, ITEM, ITEM_ID, RANK, SCORE, USER_ID, USER_INDEX};
use crate::top_k_users_exec::SegmentQuery;

/// Merges candidates per item, ranks them from 1 and gives them out in the order `(item_id, rank)`.
///
/// All candidates of an item must reach one partition, in any order; the optimizer puts the exchange below this node
/// when there is more than one.
#[derive(Debug)]
pub struct SegmentsFinalExec {
    query: Arc<SegmentQuery>,
    input: Arc<dyn ExecutionPlan>,
    /// What it gives, as places in [`INDEXED_SEGMENT_SCHEMA`].
    columns: Arc<[usize]>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentsFinalExec {
    /// Puts the node on the candidates of a `TopKUsersPerItemExec`; it gives the columns of
    /// [`crate::SEGMENT_SCHEMA`] that are listed, in this order.
    ///
    /// # Errors   a plan error for a column that there is not, or for `user_id` where the query asks for no ids
    pub fn new(query: Arc<SegmentQuery>, input: Arc<dyn ExecutionPlan>, columns: &[usize]) -> Result<Self> {
        if columns.iter().any(|column| *column > SCORE) {
            return plan_err!("segments have 4 columns, asked for {columns:?}");
        }
        Self::with_columns(query, input, columns.into())
    }

    /// All columns, and the places of item and user behind them, for a node that goes on with them.
    pub(crate) fn indexed(query: Arc<SegmentQuery>, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        Self::with_columns(query, input, [ITEM_ID, RANK, USER_ID, SCORE, ITEM, USER_INDEX].into())
    }

    /// What is asked, and what it gives: places among `item_id, rank, user_id, score` and the places of item and user.
    #[must_use]
    pub fn asked(&self) -> (&Arc<SegmentQuery>, &[usize]) {
        (&self.query, &self.columns)
    }

    /// The node of what [`Self::asked`] of another one says.
    ///
    /// # Errors   as [`Self::new`]
    pub fn with_columns(
        query: Arc<SegmentQuery>,
        input: Arc<dyn ExecutionPlan>,
        columns: Arc<[usize]>,
    ) -> Result<Self> {
        if columns.contains(&USER_ID) && !query.user_ids {
            return plan_err!("a segment query without ids of users cannot give user_id");
        }
        let schema = Arc::new(INDEXED_SEGMENT_SCHEMA.project(&columns)?);
        let properties = PlanProperties::new(
            equivalences(&query, &schema, &columns),
            Partitioning::UnknownPartitioning(input.properties().output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self { query, input, columns, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    /// Whether every item has as many users as any can have: nobody is cut away but by `num_results`.
    fn every_segment_is_full(&self) -> bool {
        let SegmentQuery { seen, min_score, .. } = self.query.as_ref();
        *seen == Seen::Include && *min_score <= 0.0 && !self.query.filtered
    }
}

/// The order of the rows in what the columns show of it: by item, then best first, by rank as by score.
fn equivalences(query: &SegmentQuery, schema: &SchemaRef, columns: &[usize]) -> EquivalenceProperties {
    let sort = |column: usize, descending: bool| {
        let at = columns.iter().position(|given| *given == column)?;
        let options = SortOptions::new(descending, false);
        Some(PhysicalSortExpr::new(Arc::new(Column::new(schema.field(at).name(), at)), options))
    };
    let by_rank = [sort(ITEM_ID, false), sort(RANK, false)];
    let by_score = [sort(ITEM_ID, false), sort(SCORE, true)];
    // What follows a column that is not given is in no order, unless there is one item alone.
    let shown = |order: [Option<PhysicalSortExpr>; 2]| match order {
        [None, rest] if query.items.ids().len() == 1 => rest.into_iter().collect::<Vec<_>>(),
        order => order.into_iter().map_while(|sort| sort).collect(),
    };
    let orders = [shown(by_rank), shown(by_score)].into_iter().filter(|order| !order.is_empty());
    let properties = EquivalenceProperties::new_with_orderings(Arc::clone(schema), orders.collect::<Vec<_>>());
    let place = |column: usize| columns.iter().position(|given| *given == column);
    match (place(ITEM_ID), place(USER_ID)) {
        (Some(item), Some(user)) => {
            let key = Constraint::PrimaryKey(vec![item, user]);
            properties.with_constraints(Constraints::new_unverified(vec![key]))
        }
        _ => properties,
    }
}

impl DisplayAs for SegmentsFinalExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                let columns = self.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
                write!(f, "SegmentsFinalExec: k={}, columns=[{}]", self.query.num_results, columns.join(", "))
            }
            DisplayFormatType::TreeRender => writeln!(f, "k={}", self.query.num_results),
        }
    }
}

impl ExecutionPlan for SegmentsFinalExec {
    fn name(&self) -> &'static str {
        "SegmentsFinalExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let item: Arc<dyn PhysicalExpr> = Arc::new(Column::new(INDEXED_SEGMENT_SCHEMA.field(ITEM).name(), 0));
        InputDistributionRequirements::new(vec![Distribution::KeyPartitioned(vec![item])])
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
        let input = only_child(self.name(), children)?;
        Ok(Arc::new(Self::with_columns(Arc::clone(&self.query), input, Arc::clone(&self.columns))?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// How many rows there will be, so that the optimizer puts the smaller side of a join into memory.
    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let (items, longest) = (self.query.items.ids().len(), self.query.longest_segment());
        let rows = items.saturating_mul(longest);
        let partitions = self.properties.output_partitioning().partition_count().max(1);
        let rows = match args.partition() {
            Some(_) => Precision::Inexact(rows.div_ceil(partitions)),
            None if self.every_segment_is_full() => Precision::Exact(rows),
            None => Precision::Inexact(rows),
        };
        let mut statistics = Statistics::new_unknown(&self.schema()).with_num_rows(rows);
        for (given, column) in self.columns.iter().zip(&mut statistics.column_statistics) {
            column.null_count = Precision::Exact(0);
            column.distinct_count = match *given {
                ITEM_ID | ITEM => Precision::Inexact(items),
                RANK => Precision::Inexact(longest),
                _ => Precision::Absent,
            };
            if *given == RANK {
                column.min_value = Precision::Inexact(ScalarValue::from(1));
                column.max_value = Precision::Inexact(ScalarValue::from(i32::try_from(longest).unwrap_or(i32::MAX)));
            }
        }
        Ok(Arc::new(statistics))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, Arc::clone(&context))?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let peak_memory = MetricBuilder::new(&self.metrics).gauge("peak_memory_bytes", partition);
        let query = Arc::clone(&self.query);
        let (schema, columns) = (self.schema(), Arc::clone(&self.columns));
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&schema), 2);
        let output = builder.tx();
        builder.spawn(async move {
            let consumer = MemoryConsumer::new(format!("SegmentsFinal[{partition}]")).with_can_spill(false);
            let reservation = consumer.register(context.memory_pool());
            let mut merge = SegmentMerge::new(query);
            while let Some(batch) = input.next().await.transpose()? {
                merge.push(&batch)?;
                resize(&reservation, merge.allocated_bytes())?;
                peak_memory.set_max(merge.allocated_bytes());
            }
            let batch_size = batch_rows(context.session_config());
            let elapsed = baseline.elapsed_compute().clone();
            let mut segments = merge.finish(schema, columns, batch_size);
            loop {
                let timer = elapsed.timer();
                let batch = segments.next().transpose()?;
                timer.done();
                let Some(batch) = batch else { break };
                baseline.record_output(batch.num_rows());
                if output.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
            baseline.done();
            Ok(())
        });
        Ok(builder.build())
    }
}
