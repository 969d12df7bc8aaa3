//! `SegmentsFinalExec`: merges the candidates of all partitions and ranks them.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, RecordBatch, StringArray, StringBuilder, UInt32Array,
};
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::{Float32Type, SchemaRef, UInt32Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraint, Constraints, exec_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use crate::segment_schema::{CANDIDATE_SCHEMA, INDEXED_SEGMENT_SCHEMA, SEGMENT_SCHEMA, segment_order};
use crate::top_k_users_exec::{SegmentQuery, blocking};

/// Merges candidates per item, ranks them from 1 and gives them out in the order `(item_id, rank)`.
///
/// All candidates of an item must reach one partition, in any order; the optimizer puts the exchange below this node
/// when there is more than one.
#[derive(Debug)]
pub struct SegmentsFinalExec {
    query: Arc<SegmentQuery>,
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentsFinalExec {
    /// Puts the node on the candidates of a `TopKUsersPerItemExec`.
    #[must_use]
    pub fn new(query: Arc<SegmentQuery>, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::with_schema(query, input, Arc::clone(&SEGMENT_SCHEMA))
    }

    /// The same rows with the places of item and user behind them, for a node that goes on with them.
    pub(crate) fn indexed(query: Arc<SegmentQuery>, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::with_schema(query, input, Arc::clone(&INDEXED_SEGMENT_SCHEMA))
    }

    fn with_schema(query: Arc<SegmentQuery>, input: Arc<dyn ExecutionPlan>, schema: SchemaRef) -> Self {
        let partitions = input.properties().output_partitioning().partition_count();
        let key = Constraints::new_unverified(vec![Constraint::PrimaryKey(vec![0, 2])]);
        let order =
            EquivalenceProperties::new_with_orderings(Arc::clone(&schema), [segment_order()]).with_constraints(key);
        let properties = PlanProperties::new(
            order,
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { query, input, schema, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for SegmentsFinalExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "SegmentsFinalExec: k={}, order=[item_id, rank]", self.query.num_results)
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
        let item: Arc<dyn PhysicalExpr> = Arc::new(Column::new(CANDIDATE_SCHEMA.field(0).name(), 0));
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
                Ok(Arc::new(Self::with_schema(Arc::clone(&self.query), input, Arc::clone(&self.schema))))
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, Arc::clone(&context))?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let peak_memory = MetricBuilder::new(&self.metrics).gauge("peak_memory_bytes", partition);
        let query = Arc::clone(&self.query);
        let schema = Arc::clone(&self.schema);
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&schema), 2);
        let output = builder.tx();
        builder.spawn(async move {
            let consumer = MemoryConsumer::new(format!("SegmentsFinal[{partition}]")).with_can_spill(false);
            let reservation = consumer.register(context.memory_pool());
            let mut merge = SegmentMerge::new(query);
            while let Some(batch) = input.next().await.transpose()? {
                merge.push(batch)?;
                reservation.try_resize(merge.allocated_bytes())?;
                peak_memory.set_max(merge.allocated_bytes());
            }
            let batch_size = context.session_config().batch_size();
            let elapsed = baseline.elapsed_compute().clone();
            let mut segments = blocking(move || {
                let timer = elapsed.timer();
                let segments = merge.finish(schema, batch_size);
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
    user_ids: Vec<StringArray>,
    id_bytes: usize,
}

impl SegmentMerge {
    fn new(query: Arc<SegmentQuery>) -> Self {
        Self { query, candidates: Vec::new(), user_ids: Vec::new(), id_bytes: 0 }
    }

    fn allocated_bytes(&self) -> usize {
        self.candidates.capacity() * size_of::<Candidate>() + self.id_bytes
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let items = batch.column(0).as_primitive::<UInt32Type>().values();
        let users = batch.column(1).as_primitive::<UInt32Type>().values();
        let scores = batch.column(3).as_primitive::<Float32Type>().values();
        let least = self.query.min_score;
        let known = u32::try_from(self.query.item_ids.len()).unwrap_or(u32::MAX);
        if items.iter().any(|item| *item >= known) {
            return internal_err!("a candidate names an item that was not asked for");
        }
        let Ok(number) = u32::try_from(self.user_ids.len()) else {
            return exec_err!("more than {} batches of candidates; ask for fewer items at a time", u32::MAX);
        };
        for (row, ((item, user_index), score)) in (0..).zip(items.iter().zip(users).zip(scores)) {
            if *score >= least {
                let candidate = Candidate { item: *item, score: *score, user_index: *user_index, batch: number, row };
                self.candidates.push(candidate);
            }
        }
        let ids = batch.column(2).as_string::<i32>().clone();
        self.id_bytes += ids.get_array_memory_size();
        self.user_ids.push(ids);
        Ok(())
    }

    fn finish(mut self, schema: SchemaRef, batch_size: usize) -> Segments {
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
        Segments { merge: self, schema, batch_size: batch_size.max(1), at: 0, item: u32::MAX, rank: 0 }
    }
}

/// Ranked segments as batches.
struct Segments {
    merge: SegmentMerge,
    schema: SchemaRef,
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
        let mut item_id = StringBuilder::new();
        let mut rank = Vec::with_capacity(rows.len());
        for row in rows {
            self.rank = if row.item == self.item { self.rank + 1 } else { 1 };
            self.item = row.item;
            item_id.append_value(&self.merge.query.item_ids[row.item as usize]);
            rank.push(self.rank);
        }
        let ids = self.merge.user_ids.iter().map(|a| a as &dyn Array).collect::<Vec<_>>();
        let places = rows.iter().map(|c| (c.batch as usize, c.row as usize)).collect::<Vec<_>>();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(item_id.finish()),
            Arc::new(Int32Array::from(rank)),
            interleave(&ids, &places)?,
            Arc::new(Float32Array::from_iter_values(rows.iter().map(|c| c.score))),
        ];
        if columns.len() < self.schema.fields().len() {
            columns.push(Arc::new(UInt32Array::from_iter_values(rows.iter().map(|c| c.item))));
            columns.push(Arc::new(UInt32Array::from_iter_values(rows.iter().map(|c| c.user_index))));
        }
        self.at = to;
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }
}

impl Iterator for Segments {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}
