//! A filter expression as a condition of the query engine over the columns of Users.
//!
//! Values become literals of the plan. They are never formatted into SQL, so no value can be read as anything else.

use datafusion::arrow::datatypes::DataType;
use datafusion::functions::unicode::strpos;
use datafusion::functions_nested::array_has::array_has_any_udf;
use datafusion::functions_nested::make_array::make_array_udf;
use datafusion::functions_nested::string::string_to_array_udf;
use datafusion::logical_expr::{Expr, cast, in_list, lit};
use datafusion::prelude::Column;

use crate::filter_error::FilterError;
use crate::filter_expression::{Action, Comparison, Condition, Expression, Subject, Test, Value};
use crate::filter_tokens::Number;
use crate::filter_values::BoundFilter;

/// A column of Users with its type, as the filter finds it.
pub(crate) struct UserColumn {
    pub(crate) column: Column,
    pub(crate) data_type: DataType,
}

impl BoundFilter {
    /// The condition that holds for the users whom the filter keeps: all of INCLUDE without all of EXCLUDE.
    ///
    /// A field without a value satisfies no condition, neither IN nor NOT IN, so that EXCLUDE does not remove such users.
    pub(crate) fn predicate(&self, columns: &[UserColumn]) -> Result<Expr, FilterError> {
        let part = |action: Action| {
            let expressions = self.0.expressions.iter().filter(|expression| expression.action == action);
            let conditions = expressions.map(|expression| any_of(expression, columns)).collect::<Result<Vec<_>, _>>();
            Ok::<_, FilterError>(conditions?.into_iter().reduce(Expr::or))
        };
        let kept = part(Action::Include)?.map_or_else(|| lit(true), Expr::is_true);
        Ok(match part(Action::Exclude)? {
            Some(removed) => kept.and(removed.is_not_true()),
            None => kept,
        })
    }
}

fn any_of(expression: &Expression, columns: &[UserColumn]) -> Result<Expr, FilterError> {
    let mut alternatives = Vec::new();
    for all_of in &expression.any_of {
        let conditions = all_of.iter().map(|one| condition(one, columns)).collect::<Result<Vec<_>, _>>()?;
        alternatives.extend(conditions.into_iter().reduce(Expr::and));
    }
    Ok(alternatives.into_iter().reduce(Expr::or).unwrap_or_else(|| lit(true)))
}

fn condition(condition: &Condition, columns: &[UserColumn]) -> Result<Expr, FilterError> {
    let wrong = |what: String, cure: String| FilterError::Field { position: condition.position, what, cure };
    let Subject::Field(name) = &condition.subject else {
        return Err(wrong(
            "Interactions.EVENT_TYPE asks for the event log, which a segment job does not read".to_owned(),
            "write the users to a Parquet file with SELECT DISTINCT user_id FROM interactions WHERE event_type IN (…) \
             and give it with --users"
                .to_owned(),
        ));
    };
    let mut matching = columns.iter().filter(|known| known.column.name.eq_ignore_ascii_case(name));
    let found = match (matching.next(), matching.next()) {
        (Some(one), None) => one,
        (Some(_), Some(_)) => {
            let exact = columns.iter().find(|known| &known.column.name == name);
            let cure = "rename one of them".to_owned();
            exact.ok_or_else(|| wrong(format!("several columns of the users are called {name} up to case"), cure))?
        }
        (None, _) => {
            let names = columns.iter().map(|known| known.column.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("no column {name} in the users"), format!("choose one of [{names}]")));
        }
    };
    let value_type = match &found.data_type {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let column = Expr::Column(found.column.clone());
    match &condition.test {
        Test::In { negated, values } => {
            let texts = values.iter().filter_map(|value| match value {
                Value::Literal(text) => Some(text.as_str()),
                Value::Parameter(_) => None,
            });
            let texts = texts.collect::<Vec<_>>();
            let inside = match value_type {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => one_of(column, &texts),
                DataType::Boolean => {
                    let lower = texts.iter().map(|text| lit(text.to_lowercase())).collect();
                    in_list(cast(column, DataType::Utf8), lower, false)
                }
                whole if whole.is_integer() => {
                    in_list(cast(column, DataType::Utf8), texts.iter().map(|text| lit(*text)).collect(), false)
                }
                other => {
                    let cure = if other.is_numeric() { "compare it with =, <, <=, > or >=" } else { SQL };
                    return Err(wrong(format!("IN asks for texts, {name} holds {other}"), cure.to_owned()));
                }
            };
            Ok(if *negated { !inside } else { inside })
        }
        Test::Compare { comparison, value } => {
            let column = match value_type {
                number if number.is_numeric() => column,
                DataType::Boolean => cast(column, DataType::Int8),
                other => {
                    let cure = if other.is_string() { "write IN (\"…\")" } else { SQL };
                    return Err(wrong(format!("a comparison asks for numbers, {name} holds {other}"), cure.to_owned()));
                }
            };
            let number = match value {
                Value::Literal(Number::Whole(whole)) => lit(*whole),
                Value::Literal(Number::Real(real)) => lit(*real),
                Value::Parameter(name) => {
                    return Err(wrong(format!("${name} has no value"), "give it in filterValues".to_owned()));
                }
            };
            Ok(match comparison {
                Comparison::Equal => column.eq(number),
                Comparison::NotEqual => column.not_eq(number),
                Comparison::Less => column.lt(number),
                Comparison::LessOrEqual => column.lt_eq(number),
                Comparison::Greater => column.gt(number),
                Comparison::GreaterOrEqual => column.gt_eq(number),
            })
        }
    }
}

const SQL: &str = "ask for it in SQL with --users-filter";

/// A text equals one of these, or is a list joined by `|` that holds one of them, as a categorical field may be.
fn one_of(column: Expr, texts: &[&str]) -> Expr {
    let literals = || texts.iter().map(|text| lit(*text)).collect::<Vec<_>>();
    let parts = string_to_array_udf().call(vec![column.clone(), lit("|")]);
    let any_part = array_has_any_udf().call(vec![parts, make_array_udf().call(literals())]);
    let is_list = strpos().call(vec![column.clone(), lit("|")]).gt(lit(0));
    in_list(column, literals(), false).or(is_list.and(any_part))
}
