//! The one physical plan: user states, `TopKUsersPerItem`, exchange by item, `SegmentsFinal`.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::{exec_err, plan_err};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::col;
use item_affinity_model::ndarray::Axis;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::Stores;

use crate::options::{CallOptions, OnUnknownItem, checked_num_results};
use crate::segment_schema::SEGMENT_SCHEMA;
use crate::segments_final_exec::SegmentsFinalExec;
use crate::top_k_users_exec::{SegmentQuery, TopKUsersPerItemExec};
use crate::user_states;

/// A plan of segments and the items that it leaves out.
pub(crate) struct PlannedSegments {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) unknown_items: Vec<String>,
}

/// Plans the segments of these items; the optimizer adds the exchange between the two nodes.
pub(crate) fn segments_plan(
    session: &dyn Session,
    stores: &Stores,
    version: &Arc<SolutionVersion>,
    items: &[String],
    options: &CallOptions,
) -> Result<PlannedSegments> {
    let mut known = BTreeSet::new();
    let mut unknown_items = Vec::new();
    for id in items {
        match version.items.ids.index_of(id) {
            Some(index) => drop(known.insert(index)),
            None => unknown_items.push(id.clone()),
        }
    }
    if let (OnUnknownItem::Error, Some(first)) = (options.on_unknown_item, unknown_items.first()) {
        return exec_err!(
            "ITEM_NOT_IN_MODEL: {} of {} items were not present when the solution version was trained, the first is \
             '{}'; train again, or SET item_affinity.on_unknown_item = 'skip'",
            unknown_items.len(),
            items.len(),
            first.escape_debug()
        );
    }
    if known.is_empty() {
        return Ok(PlannedSegments { plan: Arc::new(EmptyExec::new(Arc::clone(&SEGMENT_SCHEMA))), unknown_items });
    }
    // The vocabulary is sorted, so ascending indexes are ascending ids.
    let rows = known.iter().map(|index| *index as usize).collect::<Vec<_>>();
    let item_ids = known.iter().filter_map(|index| version.items.ids.id(*index)).map(str::to_owned).collect();
    let query = SegmentQuery {
        solution_version: version.reference().to_string(),
        item_ids,
        item_factors: Arc::new(version.items.factors.select(Axis(0), &rows)),
        num_results: options.num_results,
    };
    query.validate()?;
    let query = Arc::new(query);
    user_states::register_store(session.runtime_env(), stores, version)?;
    let partitions = session.config_options().execution.target_partitions;
    let scan = user_states::scan(stores, version, partitions)?;
    let top = Arc::new(TopKUsersPerItemExec::new(Arc::clone(&query), scan));
    Ok(PlannedSegments { plan: Arc::new(SegmentsFinalExec::new(query, top)), unknown_items })
}

/// What to rank, for callers in Rust.
#[derive(Clone, Debug)]
pub struct SegmentsRequest {
    /// Asked items; duplicates count once.
    pub items: Vec<String>,
    /// Users per item, 1 to 5,000,000.
    pub num_results: usize,
}

/// Segments as a DataFrame, and the items that have none.
#[derive(Debug)]
pub struct SegmentsPlan {
    /// `item_id, rank, user_id, score` in the order `(item_id, rank)`.
    pub segments: DataFrame,
    /// Asked items that were not present when the version was trained.
    pub unknown_items: Vec<String>,
}

/// Plans segments of an opened solution version for use from Rust; the same plan as SQL's.
///
/// # Errors   a plan error for `num_results` out of range or an empty list of items
pub fn segments_dataframe(
    ctx: &SessionContext,
    stores: &Stores,
    version: &Arc<SolutionVersion>,
    request: &SegmentsRequest,
) -> Result<SegmentsPlan> {
    if request.items.is_empty() {
        return plan_err!("no items to rank users for");
    }
    let options = CallOptions {
        num_results: checked_num_results("num_results", request.num_results)?,
        max_items: usize::MAX,
        on_unknown_item: OnUnknownItem::Skip,
    };
    let state = ctx.state();
    let PlannedSegments { plan, unknown_items } = segments_plan(&state, stores, version, &request.items, &options)?;
    let table = Arc::new(planned_table::PlannedTable::new(plan));
    let logical = LogicalPlanBuilder::scan(crate::segments_function::NAME, provider_as_source(table), None)?
        .sort([col("item_id").sort(true, false), col("rank").sort(true, false)])?
        .build()?;
    Ok(SegmentsPlan { segments: DataFrame::new(state, logical), unknown_items })
}

mod planned_table {
    //! A physical plan that is already there, as a table.

    use std::sync::Arc;

    use async_trait::async_trait;
    use datafusion::arrow::datatypes::SchemaRef;
    use datafusion::catalog::{Session, TableProvider};
    use datafusion::error::Result;
    use datafusion::logical_expr::{Expr, TableType};
    use datafusion::physical_plan::ExecutionPlan;

    #[derive(Debug)]
    pub(super) struct PlannedTable(Arc<dyn ExecutionPlan>);

    impl PlannedTable {
        pub(super) fn new(plan: Arc<dyn ExecutionPlan>) -> Self {
            Self(plan)
        }
    }

    #[async_trait]
    impl TableProvider for PlannedTable {
        fn schema(&self) -> SchemaRef {
            self.0.schema()
        }

        fn table_type(&self) -> TableType {
            TableType::Temporary
        }

        async fn scan(
            &self,
            _session: &dyn Session,
            projection: Option<&Vec<usize>>,
            _filters: &[Expr],
            _limit: Option<usize>,
        ) -> Result<Arc<dyn ExecutionPlan>> {
            crate::segments_function::project(Arc::clone(&self.0), projection)
        }
    }
}
