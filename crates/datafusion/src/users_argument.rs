//! The `users` argument: a query, a table or a view with a column `user_id`, whose users alone may be in a segment.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::{ScalarValue, TableReference, plan_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::id_column;

/// The column of ids in a query of users.
pub(crate) const USER_ID: &str = "user_id";

/// What may stand where users are expected; said in every refusal.
const ACCEPTED: &str = "a subquery (SELECT user_id FROM …), or a table or view with a column user_id";

/// The users that a call lets into segments, as planned; nothing is read before the query runs.
#[derive(Clone, Debug)]
pub(crate) enum UsersArgument {
    Relation(TableReference),
    /// One column of ids.
    Query(Arc<LogicalPlan>),
}

impl UsersArgument {
    /// Reads the argument of a function.
    pub(crate) fn from_expr(function: &str, expr: &Expr) -> Result<Self> {
        match expr {
            Expr::ScalarSubquery(subquery) => {
                id_column::refuse_unbound(function, &subquery.subquery)?;
                let plan = LogicalPlan::clone(&subquery.subquery);
                Ok(Self::Query(Arc::new(id_column::of(function, "the query of users", plan, USER_ID)?)))
            }
            Expr::Column(column) if column.relation.is_none() => {
                Ok(Self::Relation(TableReference::bare(column.name.clone())))
            }
            Expr::Column(column) => plan_err!(
                "{function}: users cannot be {column}, one row after another; put a table name with a schema in quotes: \
                 users => '{column}'"
            ),
            Expr::Literal(
                ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) | ScalarValue::LargeUtf8(Some(name)),
                _,
            ) if !name.trim().is_empty() => Ok(Self::Relation(TableReference::parse_str(name))),
            Expr::Placeholder(placeholder) => {
                plan_err!("{function}: users cannot be the parameter {}; give {ACCEPTED}", placeholder.id)
            }
            Expr::Literal(value, _) => plan_err!("{function}: users cannot be {value}; give {ACCEPTED}"),
            other => plan_err!("{function}: users cannot be {other}; give {ACCEPTED}"),
        }
    }

    /// The query of users, one column of ids.
    pub(crate) async fn plan(&self, function: &str, session: &dyn Session) -> Result<Arc<LogicalPlan>> {
        match self {
            Self::Query(plan) => Ok(Arc::clone(plan)),
            Self::Relation(name) => {
                let missing =
                    || plan_datafusion_err!("{function}: there is no table '{name}'; users may be {ACCEPTED}");
                let table = id_column::scan(session, name).await?.ok_or_else(missing)?;
                Ok(Arc::new(id_column::of(function, &format!("table '{name}'"), table, USER_ID)?))
            }
        }
    }
}
