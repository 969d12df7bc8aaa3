//! `item_affinity_segments(items [, num_results])`: checks its arguments and gives the one plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Constraint, Constraints, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::items_argument::ItemsArgument;
use crate::options::{CallOptions, checked_num_results};
use crate::segment_schema::SEGMENT_SCHEMA;
use crate::segments_plan::ResolvedSegments;
use crate::solution_cache::SolutionCache;

/// The name in SQL.
pub(crate) const NAME: &str = "item_affinity_segments";

/// The table function: for each of these items, the users who will most likely interact with it next.
#[derive(Debug)]
pub(crate) struct SegmentsFunction {
    pub(crate) solutions: SolutionCache,
}

impl TableFunctionImpl for SegmentsFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let (items, num_results) = match args.exprs() {
            [items] => (items, None),
            [items, num_results] => (items, Some(num_results)),
            other => {
                return plan_err!("{NAME} takes (items [, num_results]), got {} arguments", other.len());
            }
        };
        Ok(Arc::new(SegmentsTable {
            call: SegmentsCall::new(NAME, self.solutions.clone(), items, num_results)?,
            constraints: Constraints::new_unverified(vec![Constraint::PrimaryKey(vec![0, 2])]),
        }))
    }
}

/// What a call of a function asks to be ranked: its arguments, checked as far as they can be when SQL is planned.
#[derive(Debug)]
pub(crate) struct SegmentsCall {
    solutions: SolutionCache,
    items: ItemsArgument,
    num_results: Option<usize>,
}

impl SegmentsCall {
    pub(crate) fn new(
        function: &'static str,
        solutions: SolutionCache,
        items: &Expr,
        num_results: Option<&Expr>,
    ) -> Result<Self> {
        let num_results = num_results.map(|expr| {
            let what = format!("{function}: num_results");
            checked_num_results(&what, whole_number(&what, "num_results", expr)?)
        });
        Ok(Self { solutions, items: ItemsArgument::from_expr(function, items)?, num_results: num_results.transpose()? })
    }

    /// Opens the session's solution version and looks the items up.
    pub(crate) async fn resolve(&self, session: &dyn Session) -> Result<ResolvedSegments> {
        let mut options = CallOptions::from_session(session.config_options());
        options.num_results = self.num_results.unwrap_or(options.num_results);
        let version = self.solutions.open(session.config_options()).await?;
        let items = self.items.resolve(session, self.solutions.stores(), options.max_items).await?;
        ResolvedSegments::new(self.solutions.stores(), &version, &items, &options)
    }
}

/// A whole number written in the call; `what` is said to a person, `option` is the session option that does the same.
pub(crate) fn whole_number(what: &str, option: &str, expr: &Expr) -> Result<i128> {
    match expr {
        Expr::Placeholder(placeholder) => plan_err!(
            "{what} cannot be the parameter {}; write the number, or SET item_affinity.{option}",
            placeholder.id
        ),
        Expr::Literal(value, _) if value.data_type().is_integer() && !value.is_null() => match value {
            ScalarValue::UInt64(Some(n)) => Ok(i128::from(*n)),
            other => match other.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(n)) => Ok(i128::from(n)),
                other => plan_err!("{what} must be a whole number, got {other}"),
            },
        },
        other => plan_err!("{what} must be a whole number, got {other}"),
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

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.call.resolve(session).await?.plan(session, projection)
    }
}
