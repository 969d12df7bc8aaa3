//! `SegmentsFinalExec`: merges the candidates of all partitions and ranks them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use datafusion::arrow::compute::{SortOptions, interleave};
use datafusion::arrow::datatypes::{Float32Type, SchemaRef, UInt32Type};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraint, Constraints, ScalarValue, Statistics, exec_err, internal_err, plan_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use crate::memory_limit::resize;
use crate::options::Seen;
use crate::segment_schema::INDEXED_SEGMENT_SCHEMA;
use crate::top_k_users_exec::{CancelOnDrop, SegmentQuery, blocking};

/// The columns that this node can give: those of [`INDEXED_SEGMENT_SCHEMA`], by their places in it.
const ITEM_ID: usize = 0;
const RANK: usize = 1;
const USER_ID: usize = 2;
const SCORE: usize = 3;
const ITEM: usize = 4;
const USER_INDEX: usize = 5;

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

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => {
                Ok(Arc::new(Self::with_columns(Arc::clone(&self.query), input, Arc::clone(&self.columns))?))
            }
            _ => internal_err!("SegmentsFinalExec takes one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
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
            let batch_size = context.session_config().batch_size();
            let elapsed = baseline.elapsed_compute().clone();
            let cancel = CancelOnDrop::default();
            let flag = Arc::clone(&cancel.0);
            let mut segments = blocking(move || {
                let timer = elapsed.timer();
                let segments = merge.finish(schema, columns, batch_size, &flag);
                timer.done();
                Ok(segments)
            })
            .await?;
            while let Some(batch) = segments.next().transpose()? {
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

/// A candidate and where its user id is kept; 20 bytes.
#[derive(Clone, Copy)]
struct Candidate {
    item: u32,
    score: f32,
    user_index: u32,
    batch: u32,
    row: u32,
}

/// All candidates of the items of one partition.
struct SegmentMerge {
    query: Arc<SegmentQuery>,
    candidates: Vec<Candidate>,
    /// Of each batch, where anybody asks for ids.
    user_ids: Vec<StringArray>,
    id_bytes: usize,
    batches: u32,
}

impl SegmentMerge {
    fn new(query: Arc<SegmentQuery>) -> Self {
        Self { query, candidates: Vec::new(), user_ids: Vec::new(), id_bytes: 0, batches: 0 }
    }

    fn allocated_bytes(&self) -> usize {
        self.candidates.capacity() * size_of::<Candidate>() + self.id_bytes
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let items = batch.column(0).as_primitive::<UInt32Type>().values();
        let users = batch.column(1).as_primitive::<UInt32Type>().values();
        let scores = batch.column(2).as_primitive::<Float32Type>().values();
        let least = self.query.min_score;
        let known = u32::try_from(self.query.items.ids().len()).unwrap_or(u32::MAX);
        if items.iter().any(|item| *item >= known) {
            return internal_err!("a candidate names an item that was not asked for");
        }
        let number = self.batches;
        if number == u32::MAX {
            return exec_err!("more than {} batches of candidates; ask for fewer items at a time", u32::MAX);
        }
        for (row, ((item, user_index), score)) in (0..).zip(items.iter().zip(users).zip(scores)) {
            if *score >= least {
                let candidate = Candidate { item: *item, score: *score, user_index: *user_index, batch: number, row };
                self.candidates.push(candidate);
            }
        }
        if self.query.user_ids {
            let ids = batch.column(3).as_string::<i32>().clone();
            self.id_bytes += ids.get_array_memory_size();
            self.user_ids.push(ids);
        }
        self.batches = number.saturating_add(1);
        Ok(())
    }

    fn finish(mut self, schema: SchemaRef, columns: Arc<[usize]>, batch_size: usize, stop: &AtomicBool) -> Segments {
        if stop.load(Ordering::Relaxed) {
            self.candidates.clear();
        }
        self.candidates.sort_unstable_by(|a, b| {
            a.item.cmp(&b.item).then(b.score.total_cmp(&a.score)).then(a.user_index.cmp(&b.user_index))
        });
        let k = self.query.num_results;
        let (mut item, mut taken) = (u32::MAX, 0);
        self.candidates.retain(|c| {
            taken = if c.item == item { taken + 1 } else { 1 };
            item = c.item;
            taken <= k
        });
        Segments { merge: self, schema, columns, batch_size: batch_size.max(1), at: 0, item: u32::MAX, rank: 0 }
    }
}

/// Ranked segments as batches.
struct Segments {
    merge: SegmentMerge,
    schema: SchemaRef,
    columns: Arc<[usize]>,
    batch_size: usize,
    at: usize,
    item: u32,
    rank: i32,
}

impl Segments {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let to = self.merge.candidates.len().min(self.at + self.batch_size);
        let rows = &self.merge.candidates[self.at..to];
        if rows.is_empty() {
            return Ok(None);
        }
        let mut ranks = Vec::with_capacity(rows.len());
        for row in rows {
            self.rank = if row.item == self.item { self.rank + 1 } else { 1 };
            self.item = row.item;
            ranks.push(self.rank);
        }
        let columns =
            self.columns.iter().map(|column| self.column(*column, rows, &ranks)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.at = to;
        Ok(Some(batch))
    }

    fn column(&self, column: usize, rows: &[Candidate], ranks: &[i32]) -> Result<ArrayRef> {
        Ok(match column {
            ITEM_ID => {
                let ids = rows.iter().map(|row| self.merge.query.items.ids()[row.item as usize].as_str());
                Arc::new(StringArray::from_iter_values(ids))
            }
            RANK => Arc::new(Int32Array::from(ranks.to_vec())),
            USER_ID => {
                let ids = self.merge.user_ids.iter().map(|a| a as &dyn Array).collect::<Vec<_>>();
                let places = rows.iter().map(|c| (c.batch as usize, c.row as usize)).collect::<Vec<_>>();
                interleave(&ids, &places)?
            }
            SCORE => Arc::new(Float32Array::from_iter_values(rows.iter().map(|c| c.score))),
            ITEM => Arc::new(UInt32Array::from_iter_values(rows.iter().map(|c| c.item))),
            USER_INDEX => Arc::new(UInt32Array::from_iter_values(rows.iter().map(|c| c.user_index))),
            other => return internal_err!("segments have no column {other}"),
        })
    }
}

impl Iterator for Segments {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}
