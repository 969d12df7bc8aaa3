//! The column of ids of a table, a view or a query that stands as an argument of a function.

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::Session;
use datafusion::common::{Column, ExprSchema, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

/// Plans the reading of a table or view of the session's catalog; none when there is none of this name.
pub(crate) async fn scan(session: &dyn Session, name: &TableReference) -> Result<Option<LogicalPlan>> {
    let options = &session.config_options().catalog;
    let full = name.clone().resolve(&options.default_catalog, &options.default_schema);
    let schema = session.catalog_list().catalog(&full.catalog).and_then(|c| c.schema(&full.schema));
    let Some(schema) = schema else { return Ok(None) };
    let Some(table) = schema.table(&full.table).await? else { return Ok(None) };
    Ok(Some(LogicalPlanBuilder::scan(name.clone(), provider_as_source(table), None)?.build()?))
}

/// Leaves one column of a plan, found by its name in any letter case; `what` is the plan as a person wrote it.
///
/// # Errors   a plan error when there is no such column, more than one, or one that holds no ids
pub(crate) fn of(function: &str, what: &str, plan: LogicalPlan, name: &str) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let named = columns.iter().filter(|c| c.name.eq_ignore_ascii_case(name)).collect::<Vec<_>>();
    let [column] = named.as_slice() else {
        let found = columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        return plan_err!(
            "{function}: {what} has {} column {name}, found [{found}]; write (SELECT <column> AS {name} FROM …)",
            if named.is_empty() { "no" } else { "more than one" }
        );
    };
    let column: Column = (*column).clone();
    let found = plan.schema().field_from_column(&column)?.data_type();
    if !holds_ids(found) {
        return plan_err!("{function}: {name} of {what} is a string or an integer, found {found}");
    }
    if columns.len() == 1 {
        return Ok(plan);
    }
    LogicalPlanBuilder::from(plan).project([Expr::Column(column)])?.build()
}

/// Refuses a query that a value is missing for: it is planned once, before values are bound and without outer rows.
pub(crate) fn refuse_unbound(function: &str, plan: &LogicalPlan) -> Result<()> {
    let mut parameters = plan.get_parameter_names()?.into_iter().collect::<Vec<_>>();
    parameters.sort();
    if let Some(parameter) = parameters.first() {
        return plan_err!(
            "{function}: its queries cannot take the parameter {parameter}, since they are planned with the statement; \
             write the value, or use a table that holds it"
        );
    }
    if !plan.all_out_ref_exprs().is_empty() {
        let outer = plan.all_out_ref_exprs().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return plan_err!(
            "{function}: its queries run once, not once a row, and cannot take {outer} of an outer row; use a query \
             that stands alone and JOIN the segments by item_id"
        );
    }
    Ok(())
}

/// Ids are strings or integers, also dictionary-encoded.
pub(crate) fn holds_ids(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => holds_ids(value),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        other => other.is_integer(),
    }
}
