//! Descriptions of our functions in `information_schema.routines`, and so in `SHOW FUNCTIONS`: the engine keeps those of
//! plain scalar functions alone, not of table functions and not of asynchronous ones.

use datafusion::common::TableReference;
use datafusion::error::Result;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, case, lit};
use datafusion::sql::sqlparser::ast::ObjectName;

const DESCRIPTION: &str = "description";
const EXAMPLE: &str = "syntax_example";

/// What a list of functions says about one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described {
    pub(crate) function: &'static str,
    pub(crate) description: &'static str,
    /// How a call is written, with an example.
    pub(crate) example: &'static str,
}

/// The table of functions with our descriptions in it; none for any other table.
pub(crate) fn routines(
    name: &ObjectName,
    functions: &[Described],
    cx: &dyn RelationPlannerContext,
) -> Result<Option<LogicalPlan>> {
    let name = cx.object_name_to_table_reference(name.clone())?;
    if name.schema() != Some("information_schema") || name.table() != "routines" || functions.is_empty() {
        return Ok(None);
    }
    // Without information_schema there is no such table: the session says so itself.
    let Ok(source) = cx.context_provider().get_table_source(name.clone()) else { return Ok(None) };
    let plan = LogicalPlanBuilder::scan(name.clone(), source, None)?.build()?;
    let columns = plan.schema().columns().into_iter().map(|column| {
        let text: fn(&Described) -> &'static str = match column.name() {
            DESCRIPTION => |of| of.description,
            EXAMPLE => |of| of.example,
            _ => return Ok(Expr::Column(column)),
        };
        let routine = Expr::Column(datafusion::common::Column::new(column.relation.clone(), "routine_name"));
        let (name, engine) = (column.name.clone(), Expr::Column(column));
        let mut ours = case(routine);
        for function in functions {
            ours = ours.when(lit(function.function), lit(text(function)));
        }
        Ok(ours.otherwise(engine)?.alias(name))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let plan = LogicalPlanBuilder::from(plan).project(columns)?.alias(TableReference::clone(&name))?.build()?;
    Ok(Some(plan))
}
