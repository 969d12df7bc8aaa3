//! The one physical plan: user states, `TopKUsersPerItem`, exchange by item, `SegmentsFinal`, and on request
//! `ExplainSegments` on top.

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
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::col;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::Stores;

use crate::asked_items::AskedItems;
use crate::candidate_users_exec::CandidateUsersExec;
use crate::explain_function::NAME as EXPLAIN_NAME;
use crate::explain_segments_exec::{ExplainSegmentsExec, ExplanationQuery};
use crate::id_column;
use crate::options::{
    CallOptions, DEFAULT_REASONS, OnUnknownItem, Seen, checked_min_score, checked_num_results, checked_reasons,
};
use crate::pushed_filters::Narrowed;
use crate::segment_schema::{EXPLANATION_SCHEMA, SEGMENT_SCHEMA};
use crate::segments_final_exec::SegmentsFinalExec;
use crate::segments_function::NAME;
use crate::shared_parts::SharedParts;
use crate::top_k_users_exec::{SegmentQuery, TopKUsersPerItemExec};
use crate::user_states;
use crate::users_argument::USER_ID;
use crate::version_source::VersionSource;

/// What is asked of one solution version, resolved once; the plan is made of it for each execution anew, because a
/// scan can be executed only once.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedSegments {
    stores: Stores,
    version: Arc<SolutionVersion>,
    /// None when the version knows none of the items.
    query: Option<Arc<SegmentQuery>>,
    /// The query of the users who may be in a segment, one column of ids; none: everybody.
    users: Option<Arc<LogicalPlan>>,
    pub(crate) unknown_items: Vec<String>,
}

impl ResolvedSegments {
    /// Looks the items up; an item that a filter leaves out can still be an unknown one.
    pub(crate) fn new(
        stores: &Stores,
        shared: SharedParts,
        version: &Arc<SolutionVersion>,
        items: &[String],
        users: Option<Arc<LogicalPlan>>,
        options: &CallOptions,
        narrowed: &Narrowed,
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
        known.retain(|index| version.items.ids.id(*index).is_some_and(|item| narrowed.asks_for(item)));
        // The vocabulary is sorted, so ascending indexes are ascending ids.
        let ids = known.iter().filter_map(|index| version.items.ids.id(*index)).map(str::to_owned).collect();
        let source = VersionSource::opened(stores, shared, version);
        let items = Arc::new(AskedItems::new(source, ids, known.into_iter().collect())?);
        let query = SegmentQuery {
            items,
            num_results: narrowed.num_results(options.num_results),
            seen: options.seen,
            min_score: narrowed.min_score(options.min_score),
            user_ids: true,
            users: version.user_parts.iter().map(|part| part.rows as usize).sum(),
            filtered: users.is_some(),
        };
        let query = (!query.items.ids().is_empty()).then(|| Arc::new(query));
        Ok(Self { stores: stores.clone(), version: Arc::clone(version), query, users, unknown_items })
    }

    /// The physical plan for one execution; the optimizer adds the exchange between the two nodes.
    pub(crate) async fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(query) = &self.query else {
            return project(Arc::new(EmptyExec::new(Arc::clone(&SEGMENT_SCHEMA))), projection);
        };
        let all = (0..SEGMENT_SCHEMA.fields().len()).collect::<Vec<_>>();
        let columns = projection.unwrap_or(&all);
        let user_ids = columns.iter().any(|column| SEGMENT_SCHEMA.field(*column).name() == USER_ID);
        let query = Arc::new(SegmentQuery { user_ids, ..SegmentQuery::clone(query) });
        let top = self.top_users(session, &query).await?;
        Ok(Arc::new(SegmentsFinalExec::new(query, top, columns)?))
    }

    /// The same plan with the reasons of each user on top.
    pub(crate) async fn explained_plan(
        &self,
        session: &dyn Session,
        reasons: usize,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(query) = &self.query else {
            return project(Arc::new(EmptyExec::new(Arc::clone(&EXPLANATION_SCHEMA))), projection);
        };
        let segments = Arc::new(SegmentsFinalExec::indexed(Arc::clone(query), self.top_users(session, query).await?)?);
        let what = ExplanationQuery { items: Arc::clone(&query.items), reasons };
        project(Arc::new(ExplainSegmentsExec::new(Arc::new(what), segments)), projection)
    }

    async fn top_users(&self, session: &dyn Session, query: &Arc<SegmentQuery>) -> Result<Arc<dyn ExecutionPlan>> {
        user_states::register_store(session.runtime_env(), &self.stores, &self.version)?;
        // A filter of users looks at their ids, whoever asks for them afterwards.
        let ids = query.user_ids || self.users.is_some();
        let mut states = user_states::scan(query.items.source(), &self.version, session, ids)?;
        if let Some(users) = &self.users {
            states = Arc::new(CandidateUsersExec::new(states, session.create_physical_plan(users).await?));
        }
        Ok(Arc::new(TopKUsersPerItemExec::new(Arc::clone(query), states)))
    }
}

/// Leaves out the columns that nobody asked for; the order of the rest stays declared.
pub(crate) fn project(plan: Arc<dyn ExecutionPlan>, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
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
    /// Reasons for each user, 1 to 1,000; none: segments alone.
    pub reasons: Option<usize>,
    /// A query with a column `user_id`, strings or integers: only its users are ranked, so that `num_results` of them
    /// remain where there are so many. A user who comes twice counts once, NULL is nobody, and users whom the version
    /// does not know are passed over. None: everybody.
    pub users: Option<DataFrame>,
}

/// Segments as a DataFrame, and the items that have none.
#[derive(Debug)]
pub struct SegmentsPlan {
    /// `item_id, rank, user_id, score` in the order `(item_id, rank)`; with reasons a row of [`EXPLANATION_SCHEMA`] for
    /// each, in the order `(item_id, rank, reason_rank)`, and one of NULLs for a user who has none.
    pub segments: DataFrame,
    /// Asked items that were not present when the version was trained.
    pub unknown_items: Vec<String>,
}

/// Plans segments of an opened solution version for use from Rust; the same plan as SQL's.
///
/// # Errors   a plan error for `num_results`, `min_score` or `reasons` out of range, an empty list of items, or `users`
/// without one column `user_id` of strings or integers
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
        reasons: checked_reasons("reasons", request.reasons.unwrap_or(DEFAULT_REASONS))?,
    };
    let users = request
        .users
        .as_ref()
        .map(|users| id_column::of(NAME, "the query of users", users.logical_plan().clone(), USER_ID).map(Arc::new));
    let (users, narrowed) = (users.transpose()?, Narrowed::default());
    let shared = SharedParts::of_plan();
    let mut resolved = ResolvedSegments::new(stores, shared, version, &request.items, users, &options, &narrowed)?;
    let unknown_items = std::mem::take(&mut resolved.unknown_items);
    let (name, mut order) = (if request.reasons.is_some() { EXPLAIN_NAME } else { NAME }, vec!["item_id", "rank"]);
    order.extend(request.reasons.map(|_| "reason_rank"));
    let table = Arc::new(ResolvedTable { segments: resolved, reasons: request.reasons });
    let logical = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?
        .sort(order.into_iter().map(|name| col(name).sort(true, false)))?
        .build()?;
    Ok(SegmentsPlan { segments: DataFrame::new(ctx.state(), logical), unknown_items })
}

/// Resolved segments as a table, with reasons if so many are asked for.
#[derive(Debug)]
struct ResolvedTable {
    segments: ResolvedSegments,
    reasons: Option<usize>,
}

#[async_trait]
impl TableProvider for ResolvedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(if self.reasons.is_some() { &EXPLANATION_SCHEMA } else { &SEGMENT_SCHEMA })
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
        match self.reasons {
            Some(reasons) => self.segments.explained_plan(session, reasons, projection).await,
            None => self.segments.plan(session, projection).await,
        }
    }
}
