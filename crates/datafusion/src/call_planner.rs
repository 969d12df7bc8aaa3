//! Named arguments: turns `item_affinity_segments(items => …, users => …)` into a call of the plain table function.
//!
//! The planner of a session that has this one finds our functions in any letter case, and queries, tables and common
//! table expressions as arguments. Everything else about a call is the plain function's, so that it means the same.

use std::sync::Arc;

use datafusion::common::{DFSchema, Spans, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, TableFactor,
};

use crate::call_arguments::{Accepted, by_name};
use crate::id_column;
use crate::items_argument::ITEM_ID;
use crate::routine_descriptions::{Described, routines};
use crate::users_argument::USER_ID;

/// Plans calls of these functions, and the list of functions; everything else is left to the session.
#[derive(Debug)]
pub(crate) struct CallPlanner {
    pub(crate) functions: Vec<&'static Accepted>,
    pub(crate) described: Vec<Described>,
}

impl RelationPlanner for CallPlanner {
    fn plan_relation(&self, relation: TableFactor, cx: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let (name, arguments, alias) = match &relation {
            TableFactor::Table { name, args: Some(call), alias, .. } => (name, &call.args, alias),
            TableFactor::Function { name, args, alias, .. } => (name, args, alias),
            TableFactor::Table { name, args: None, alias, .. } => {
                return Ok(match routines(name, &self.described, cx)? {
                    Some(plan) => RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))),
                    None => RelationPlanning::Original(Box::new(relation)),
                });
            }
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        let Some(accepted) = self.find(name) else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let mut exprs = Vec::with_capacity(arguments.len());
        for (place, argument) in arguments.iter().enumerate() {
            let (given, value) = parts(accepted, argument)?;
            let at_place = accepted.names.get(place).copied().filter(|_| place < accepted.by_place);
            let name = given.as_deref().or(at_place).unwrap_or_default();
            let value = match id_column_of(name) {
                Some(column) => relation_value(accepted, column, value, cx)?,
                None => cx.sql_expr_to_logical_expr(value.clone(), &DFSchema::empty())?,
            };
            exprs.push((given, value));
        }
        let exprs = by_name(accepted, exprs)?;
        let source = cx.context_provider().get_table_function_source(accepted.function, exprs)?;
        let plan = LogicalPlanBuilder::scan(accepted.function, source, None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

impl CallPlanner {
    fn find(&self, name: &ObjectName) -> Option<&'static Accepted> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
        self.functions.iter().copied().find(|known| known.function.eq_ignore_ascii_case(&name.value))
    }
}

/// The name in lower case, if there is one, and the value of an argument.
fn parts<'a>(accepted: &Accepted, argument: &'a FunctionArg) -> Result<(Option<String>, &'a SqlExpr)> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Ok((None, value)),
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
        | FunctionArg::ExprNamed { name: SqlExpr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
            Ok((Some(name.value.to_ascii_lowercase()), value))
        }
        other => plan_err!(
            "{} cannot take the argument {other}; write name => value, with {}",
            accepted.function,
            accepted.names.join(", ")
        ),
    }
}

/// The column that a query, a table or a view is read for as this argument; none for arguments that are plain values.
fn id_column_of(argument: &str) -> Option<&'static str> {
    match argument {
        "items" => Some(ITEM_ID),
        "users" => Some(USER_ID),
        _ => None,
    }
}

/// Plans a subquery or a name that the statement knows, such as a common table expression; any other value is the
/// function's to judge, also the name of a table that stands nowhere else in the statement.
fn relation_value(
    accepted: &Accepted,
    column: &str,
    value: &SqlExpr,
    cx: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    let query = match value {
        SqlExpr::Nested(inner) => return relation_value(accepted, column, inner, cx),
        SqlExpr::Subquery(query) => {
            let query = TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
            Some(cx.plan(query)?)
        }
        SqlExpr::Identifier(name) => match cx.plan(table(name.clone())) {
            Ok(plan) => Some(id_column::of(accepted.function, &format!("table '{}'", name.value), plan, column)?),
            Err(_) => None,
        },
        _ => None,
    };
    match query {
        Some(plan) => Ok(subquery(plan)),
        None => cx.sql_expr_to_logical_expr(value.clone(), &DFSchema::empty()),
    }
}

fn subquery(plan: LogicalPlan) -> Expr {
    Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns: Vec::new(), spans: Spans::new() })
}

fn table(name: Ident) -> TableFactor {
    TableFactor::Table {
        name: ObjectName(vec![ObjectNamePart::Identifier(name)]),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}
