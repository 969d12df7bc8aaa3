//! `item_affinity_explain(items [, num_results [, reasons]] [, name => value]…)`: checks its arguments and puts reasons on the one plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::call_arguments::{Accepted, CallArguments};
use crate::options::{CallOptions, checked_reasons};
use crate::pushed_filters::{self, Narrowed};
use crate::segment_schema::EXPLANATION_SCHEMA;
use crate::segments_function::SegmentsCall;
use crate::solution_cache::SolutionCache;

/// The name in SQL.
pub(crate) const NAME: &str = "item_affinity_explain";

/// The table function: the segments of these items, with the past items of each user that speak for the item most.
#[derive(Debug)]
pub(crate) struct ExplainFunction {
    pub(crate) solutions: SolutionCache,
}

/// What it takes.
pub(crate) static ACCEPTED: Accepted = Accepted {
    function: NAME,
    places: "(items [, num_results [, reasons]])",
    names: &[
        "items",
        "num_results",
        "reasons",
        "users",
        "seen",
        "min_score",
        "max_items",
        "on_unknown_item",
        "solution_version",
    ],
    by_place: 3,
    required: true,
    description: "The segments of these items, with the past items of each user that make the affinity: reason_rank, \
         because_item_id and share after item_id, rank, user_id and score.",
    example: "SELECT * FROM item_affinity_explain(['B001'], 100, reasons => 3)",
};

impl TableFunctionImpl for ExplainFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = CallArguments::new(&ACCEPTED, args.exprs())?;
        let reasons = arguments.whole_number("reasons")?;
        let reasons = reasons.map(|n| checked_reasons(&format!("{NAME}: reasons"), n)).transpose()?;
        Ok(Arc::new(ExplanationTable { call: SegmentsCall::new(self.solutions.clone(), &arguments)?, reasons }))
    }
}

/// One call of the function as a table of segments with reasons.
#[derive(Debug)]
struct ExplanationTable {
    call: SegmentsCall,
    reasons: Option<usize>,
}

#[async_trait]
impl TableProvider for ExplanationTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&EXPLANATION_SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
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
        let reasons = self.reasons.unwrap_or(CallOptions::from_session(session.config_options()).reasons);
        self.call
            .resolve(session, &Narrowed::by(filters, limit))
            .await?
            .explained_plan(session, reasons, projection)
            .await
    }
}
