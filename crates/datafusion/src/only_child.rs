//! The input of a node that has one.

use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;

/// The one child that the engine hands to the node `name`.
///
/// # Errors   an internal error when there are none or several
pub(crate) fn only_child(name: &str, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match <[_; 1]>::try_from(children) {
        Ok([child]) => Ok(child),
        Err(_) => internal_err!("{name} takes one input"),
    }
}
