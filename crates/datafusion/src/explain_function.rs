//! `item_affinity_explain(items [, num_results [, reasons]])`: checks its arguments and puts reasons on the one plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::options::{CallOptions, checked_reasons};
use crate::segment_schema::EXPLANATION_SCHEMA;
use crate::segments_function::{SegmentsCall, whole_number};
use crate::solution_cache::SolutionCache;

/// The name in SQL.
pub(crate) const NAME: &str = "item_affinity_explain";

/// The table function: the segments of these items, with the past items of each user that speak for the item most.
#[derive(Debug)]
pub(crate) struct ExplainFunction {
    pub(crate) solutions: SolutionCache,
}

impl TableFunctionImpl for ExplainFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let (items, num_results, reasons) = match args.exprs() {
            [items] => (items, None, None),
            [items, num_results] => (items, Some(num_results), None),
            [items, num_results, reasons] => (items, Some(num_results), Some(reasons)),
            other => {
                return plan_err!("{NAME} takes (items [, num_results [, reasons]]), got {} arguments", other.len());
            }
        };
        let reasons = reasons.map(|expr| {
            let what = format!("{NAME}: reasons");
            checked_reasons(&what, whole_number(&what, "reasons", expr)?)
        });
        let call = SegmentsCall::new(NAME, self.solutions.clone(), items, num_results)?;
        Ok(Arc::new(ExplanationTable { call, reasons: reasons.transpose()? }))
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

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let reasons = self.reasons.unwrap_or(CallOptions::from_session(session.config_options()).reasons);
        self.call.resolve(session).await?.explained_plan(session, reasons, projection)
    }
}
