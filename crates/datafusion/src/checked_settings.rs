//! Settings of the engine that no query could use are refused before it plans with them.

use std::ops::RangeInclusive;

use datafusion::common::plan_err;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;

use crate::batch_rows::MOST_ROWS;

/// Rows of a batch. Operators of the engine, such as the exchange between our nodes, allocate for whole batches, panic for
/// more than an address space holds, and join strings of a batch into one array of at most 2 GiB.
const BATCH_SIZES: RangeInclusive<usize> = 1..=MOST_ROWS;

/// Refuses a `datafusion.execution.batch_size` that operators cannot work with, wherever it was said. `SET` itself is not
/// analyzed, so a session can be set right again.
#[derive(Debug)]
pub(crate) struct CheckedSettings;

impl AnalyzerRule for CheckedSettings {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let said = config.execution.batch_size.get();
        if BATCH_SIZES.contains(&said) {
            return Ok(plan);
        }
        let (least, most) = BATCH_SIZES.into_inner();
        plan_err!(
            "datafusion.execution.batch_size is {said}; set it, or DATAFUSION_EXECUTION_BATCH_SIZE, to {least} to {most}"
        )
    }

    fn name(&self) -> &'static str {
        "checked_settings"
    }
}
