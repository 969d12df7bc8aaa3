//! `item_affinity_segments(items [, num_results])`: checks its arguments and gives the one plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Constraint, Constraints, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::items_argument::ItemSource;
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
            solutions: self.solutions.clone(),
            items: ItemSource::from_expr(items)?,
            num_results: num_results.map(num_results_argument).transpose()?,
            constraints: Constraints::new_unverified(vec![Constraint::PrimaryKey(vec![0, 2])]),
        }))
    }
}

fn num_results_argument(expr: &Expr) -> Result<usize> {
    let what = format!("{NAME}: num_results");
    match expr {
        Expr::Placeholder(placeholder) => plan_err!(
            "{what} cannot be the parameter {}; write the number, or SET item_affinity.num_results",
            placeholder.id
        ),
        Expr::Literal(value, _) if value.data_type().is_integer() && !value.is_null() => match value {
            ScalarValue::UInt64(Some(n)) => checked_num_results(&what, *n),
            other => match other.cast_to(&datafusion::arrow::datatypes::DataType::Int64)? {
                ScalarValue::Int64(Some(n)) => checked_num_results(&what, n),
                other => plan_err!("{what} must be a whole number, got {other}"),
            },
        },
        other => plan_err!("{what} must be a whole number, got {other}"),
    }
}

/// One call of the function as a table of segments.
#[derive(Debug)]
struct SegmentsTable {
    solutions: SolutionCache,
    items: ItemSource,
    num_results: Option<usize>,
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
        let mut options = CallOptions::from_session(session.config_options());
        options.num_results = self.num_results.unwrap_or(options.num_results);
        let version = self.solutions.open(session.config_options()).await?;
        let items = self.items.resolve(session, self.solutions.stores(), options.max_items).await?;
        ResolvedSegments::new(self.solutions.stores(), &version, &items, &options)?.plan(session, projection)
    }
}
