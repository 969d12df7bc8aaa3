//! `item_affinity_segments(items [, num_results] [, name => value]…)`: checks its arguments and gives the one plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Constraint, Constraints, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::call_arguments::{Accepted, CallArguments};
use crate::items_argument::ItemsArgument;
use crate::options::{CallOptions, OnUnknownItem, Seen, checked_max_items, checked_min_score, checked_num_results};
use crate::pushed_filters::{self, Narrowed};
use crate::segment_schema::SEGMENT_SCHEMA;
use crate::segments_plan::ResolvedSegments;
use crate::solution_cache::{SolutionCache, query_of};
use crate::users_argument::UsersArgument;

/// The name in SQL.
pub(crate) const NAME: &str = "item_affinity_segments";

/// The table function: for each of these items, the users who will most likely interact with it next.
#[derive(Debug)]
pub(crate) struct SegmentsFunction {
    pub(crate) solutions: SolutionCache,
}

/// What it takes.
pub(crate) static ACCEPTED: Accepted = Accepted {
    function: NAME,
    places: "(items [, num_results])",
    names: &["items", "num_results", "users", "seen", "min_score", "max_items", "on_unknown_item", "solution_version"],
    by_place: 2,
    required: true,
    description: "For each of these items, the users who will most likely interact with it next: item_id, rank, user_id \
         and score, the probability of an interaction within the horizon of the solution version.",
    example: "SELECT * FROM item_affinity_segments(['B001', 'B002'], 100, users => (SELECT user_id FROM users WHERE \
         country = 'DE'), seen => 'exclude', min_score => 0.01)",
};

impl TableFunctionImpl for SegmentsFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = CallArguments::new(&ACCEPTED, args.exprs())?;
        Ok(Arc::new(SegmentsTable {
            call: SegmentsCall::new(self.solutions.clone(), &arguments)?,
            constraints: Constraints::new_unverified(vec![Constraint::PrimaryKey(vec![0, 2])]),
        }))
    }
}

/// What a call of a function asks to be ranked: its arguments, checked as far as they can be when SQL is planned.
#[derive(Debug)]
pub(crate) struct SegmentsCall {
    solutions: SolutionCache,
    function: &'static str,
    items: ItemsArgument,
    users: Option<UsersArgument>,
    num_results: Option<usize>,
    seen: Option<Seen>,
    min_score: Option<f32>,
    max_items: Option<usize>,
    on_unknown_item: Option<OnUnknownItem>,
    solution_version: Option<String>,
}

impl SegmentsCall {
    pub(crate) fn new(solutions: SolutionCache, arguments: &CallArguments<'_>) -> Result<Self> {
        let function = arguments.function();
        let what = |name: &str| format!("{function}: {name}");
        let Some(items) = arguments.value("items") else { return plan_err!("{function} needs the argument items") };
        let number = |name| arguments.whole_number(name);
        let (num_results, max_items) = (number("num_results")?, number("max_items")?);
        let (seen, on_unknown) = (arguments.text("seen")?, arguments.text("on_unknown_item")?);
        Ok(Self {
            solutions,
            function,
            items: ItemsArgument::from_expr(function, items)?,
            users: arguments.value("users").map(|expr| UsersArgument::from_expr(function, expr)).transpose()?,
            num_results: num_results.map(|n| checked_num_results(&what("num_results"), n)).transpose()?,
            seen: seen.map(|text| Seen::parse(&what("seen"), &text)).transpose()?,
            min_score: arguments.number("min_score")?.map(|x| checked_min_score(&what("min_score"), x)).transpose()?,
            max_items: max_items.map(|n| checked_max_items(&what("max_items"), n)).transpose()?,
            on_unknown_item: on_unknown
                .map(|text| OnUnknownItem::parse(&what("on_unknown_item"), &text))
                .transpose()?,
            solution_version: arguments.text("solution_version")?,
        })
    }

    /// Opens the solution version and looks the items up; `narrowed` is what the filters above the call leave.
    pub(crate) async fn resolve(&self, session: &dyn Session, narrowed: &Narrowed) -> Result<ResolvedSegments> {
        let config = session.config_options();
        let mut options = CallOptions::from_session(config);
        options.num_results = self.num_results.unwrap_or(options.num_results);
        options.seen = self.seen.unwrap_or(options.seen);
        options.min_score = self.min_score.unwrap_or(options.min_score);
        options.max_items = self.max_items.unwrap_or(options.max_items);
        options.on_unknown_item = self.on_unknown_item.unwrap_or(options.on_unknown_item);
        let version = match &self.solution_version {
            Some(text) => self.solutions.open_named(text, query_of(session)).await?,
            None => self.solutions.open(config, query_of(session)).await?,
        };
        let items = self.items.resolve(session, self.solutions.stores(), options.max_items).await?;
        let users = match &self.users {
            Some(users) => Some(users.plan(self.function, session).await?),
            None => None,
        };
        let (stores, shared) = (self.solutions.stores(), self.solutions.parts());
        ResolvedSegments::new(stores, shared, &version, &items, users, &options, narrowed)
    }
}

/// One call of the function as a table of segments.
#[derive(Debug)]
struct SegmentsTable {
    call: SegmentsCall,
    constraints: Constraints,
}

#[async_trait]
impl TableProvider for SegmentsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&SEGMENT_SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(pushed_filters::pushed(filters))
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.call.resolve(session, &Narrowed::by(filters, limit)).await?.plan(session, projection).await
    }
}
