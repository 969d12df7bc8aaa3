//! The one physical plan: user states, `TopKUsersPerItem`, exchange by item, `SegmentsFinal`.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::plan_err;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::col;
use item_affinity_model::ndarray::Axis;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::Stores;

use crate::item_pairs::ItemPairs;
use crate::options::{CallOptions, OnUnknownItem, Seen, checked_min_score, checked_num_results};
use crate::segment_schema::SEGMENT_SCHEMA;
use crate::segments_final_exec::SegmentsFinalExec;
use crate::segments_function::NAME;
use crate::top_k_users_exec::{SegmentQuery, TopKUsersPerItemExec};
use crate::user_states;

/// What is asked of one solution version, resolved once; the plan is made of it for each execution anew, because a
/// scan can be executed only once.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedSegments {
    stores: Stores,
    version: Arc<SolutionVersion>,
    /// None when the version knows none of the items.
    query: Option<Arc<SegmentQuery>>,
    pub(crate) unknown_items: Vec<String>,
}

impl ResolvedSegments {
    /// Looks the items up.
    pub(crate) fn new(
        stores: &Stores,
        version: &Arc<SolutionVersion>,
        items: &[String],
        options: &CallOptions,
    ) -> Result<Self> {
        let mut known = BTreeSet::new();
        let mut unknown_items = Vec::new();
        for id in items {
            match version.items.ids.index_of(id) {
                Some(index) => drop(known.insert(index)),
                None => unknown_items.push(id.clone()),
            }
        }
        if let (OnUnknownItem::Error, Some(first)) = (options.on_unknown_item, unknown_items.first()) {
            return plan_err!(
                "ITEM_NOT_IN_MODEL: {} of {} items were not present when the solution version was trained, the first \
                 is '{}'; train again, or SET item_affinity.on_unknown_item = 'skip'",
                unknown_items.len(),
                items.len(),
                first.escape_debug()
            );
        }
        // The vocabulary is sorted, so ascending indexes are ascending ids.
        let rows = known.iter().map(|index| *index as usize).collect::<Vec<_>>();
        let query = SegmentQuery {
            solution_version: version.reference().to_string(),
            item_ids: known.iter().filter_map(|index| version.items.ids.id(*index)).map(str::to_owned).collect(),
            item_factors: Arc::new(version.items.factors.select(Axis(0), &rows)),
            item_log_odds: rows.iter().map(|row| version.items.log_odds[*row]).collect(),
            slopes: version.model.slopes,
            num_results: options.num_results,
            seen: options.seen,
            min_score: options.min_score,
            pairs: ItemPairs::new(stores, version, known.iter().copied().collect()),
        };
        query.validate()?;
        let query = (!known.is_empty()).then(|| Arc::new(query));
        Ok(Self { stores: stores.clone(), version: Arc::clone(version), query, unknown_items })
    }

    /// The physical plan for one execution; the optimizer adds the exchange between the two nodes.
    pub(crate) fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(query) = &self.query else {
            return project(Arc::new(EmptyExec::new(Arc::clone(&SEGMENT_SCHEMA))), projection);
        };
        user_states::register_store(session.runtime_env(), &self.stores, &self.version)?;
        let partitions = session.config_options().execution.target_partitions;
        let scan = user_states::scan(&self.stores, &self.version, partitions)?;
        let top = Arc::new(TopKUsersPerItemExec::new(Arc::clone(query), scan));
        project(Arc::new(SegmentsFinalExec::new(Arc::clone(query), top)), projection)
    }
}

/// Leaves out the columns that nobody asked for; the order of the rest stays declared.
fn project(plan: Arc<dyn ExecutionPlan>, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(columns) = projection else { return Ok(plan) };
    let schema = plan.schema();
    let expressions = columns.iter().map(|index| {
        let name = schema.field(*index).name();
        (Arc::new(Column::new(name, *index)) as Arc<dyn PhysicalExpr>, name.clone())
    });
    Ok(Arc::new(ProjectionExec::try_new(expressions.collect::<Vec<_>>(), plan)?))
}

/// What to rank, for callers in Rust.
#[derive(Clone, Debug)]
pub struct SegmentsRequest {
    /// Asked items; duplicates count once.
    pub items: Vec<String>,
    /// Users per item, 1 to 5,000,000.
    pub num_results: usize,
    /// Whether users with history of an item are in its segment.
    pub seen: Seen,
    /// The least score of a user in a segment, 0 to 1.
    pub min_score: f32,
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
/// # Errors   a plan error for `num_results` or `min_score` out of range or an empty list of items
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
        seen: request.seen,
        min_score: checked_min_score("min_score", f64::from(request.min_score))?,
    };
    let mut resolved = ResolvedSegments::new(stores, version, &request.items, &options)?;
    let unknown_items = std::mem::take(&mut resolved.unknown_items);
    let table = Arc::new(ResolvedTable(resolved));
    let logical = LogicalPlanBuilder::scan(NAME, provider_as_source(table), None)?
        .sort([col("item_id").sort(true, false), col("rank").sort(true, false)])?
        .build()?;
    Ok(SegmentsPlan { segments: DataFrame::new(ctx.state(), logical), unknown_items })
}

/// Resolved segments as a table.
#[derive(Debug)]
struct ResolvedTable(ResolvedSegments);

#[async_trait]
impl TableProvider for ResolvedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&SEGMENT_SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.plan(session, projection)
    }
}
