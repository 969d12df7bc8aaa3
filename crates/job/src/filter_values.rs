//! The values of one line's `filterValues` put into a filter expression.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::filter_error::FilterError;
use crate::filter_expression::{Action, Condition, Expression, FilterExpression, Test, Value};
use crate::filter_parser::{number_of, parse_values};
use crate::filter_tokens::{Number, Token};

/// A filter without open parameters. Only parts that have all their values are left of it.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundFilter(pub(crate) FilterExpression);

impl FilterExpression {
    /// Puts values into the parameters: keys without `$`, case sensitive; values as `filterValues` writes them.
    ///
    /// As at Amazon Personalize an INCLUDE needs all its values, and an EXCLUDE without one of its values is left out.
    ///
    /// # Errors   [`FilterError::Value`] for a missing value of an INCLUDE, an unknown key, and a value that is none
    pub fn bind(&self, values: &BTreeMap<String, String>) -> Result<BoundFilter, FilterError> {
        let known = self.parameters();
        if let Some(unknown) = values.keys().find(|key| !known.contains(&key.as_str())) {
            let shown = unknown.chars().take(40).collect::<String>();
            let cure = match known.as_slice() {
                [] => "the filter has no $NAME; leave filterValues out".to_owned(),
                known => format!("the filter has ${}; keys are case sensitive and have no $", known.join(", $")),
            };
            return Err(FilterError::Value { what: format!("unknown key {shown:?} in filterValues"), cure });
        }
        let mut expressions = Vec::new();
        for expression in &self.expressions {
            let missing = expression
                .conditions()
                .flat_map(|condition| condition.test.parameters())
                .find(|name| !values.contains_key(*name));
            match (missing, expression.action) {
                (None, _) => expressions.push(bound(expression, values)?),
                (Some(_), Action::Exclude) => {}
                (Some(name), Action::Include) => {
                    return Err(FilterError::Value {
                        what: format!("no value for ${name}, which an INCLUDE needs"),
                        cure: format!("write {{\"itemId\": \"…\", \"filterValues\": {{\"{name}\": \"\\\"…\\\"\"}}}}"),
                    });
                }
            }
        }
        Ok(BoundFilter(FilterExpression { expressions }))
    }
}

fn bound(expression: &Expression, values: &BTreeMap<String, String>) -> Result<Expression, FilterError> {
    let conditions = |all_of: &Vec<Condition>| {
        all_of
            .iter()
            .map(|condition| {
                let test = match &condition.test {
                    Test::In { negated, values: list } => Test::In { negated: *negated, values: texts(list, values)? },
                    Test::Compare { comparison, value } => {
                        Test::Compare { comparison: *comparison, value: Value::Literal(number(value, values)?) }
                    }
                };
                Ok(Condition { test, ..condition.clone() })
            })
            .collect::<Result<Vec<_>, FilterError>>()
    };
    let any_of = expression.any_of.iter().map(conditions).collect::<Result<_, _>>()?;
    Ok(Expression { action: expression.action, any_of })
}

fn texts(list: &[Value<String>], values: &BTreeMap<String, String>) -> Result<Vec<Value<String>>, FilterError> {
    let mut found = Vec::new();
    for value in list {
        match value {
            Value::Literal(text) => found.push(text.clone()),
            Value::Parameter(name) => {
                for token in of(name, values)? {
                    match token {
                        Token::Text(text) => found.push(text),
                        _ => return Err(no_value(name, "a number where texts are asked for".to_owned())),
                    }
                }
            }
        }
    }
    Ok(found.into_iter().map(Value::Literal).collect())
}

fn number(value: &Value<Number>, values: &BTreeMap<String, String>) -> Result<Number, FilterError> {
    match value {
        Value::Literal(number) => Ok(*number),
        Value::Parameter(name) => match of(name, values)?.as_slice() {
            [one] => number_of(one).ok_or_else(|| no_value(name, "a text that is no number".to_owned())),
            several => Err(no_value(name, format!("{} values where one is asked for", several.len()))),
        },
    }
}

fn of(name: &str, values: &BTreeMap<String, String>) -> Result<Vec<Token>, FilterError> {
    let text = values.get(name).map(String::as_str).unwrap_or_default();
    parse_values(text).map_err(|error| match error {
        FilterError::Syntax { position, found, expected } => {
            no_value(name, format!("{found} at character {position}, expected {expected}"))
        }
        other => other,
    })
}

fn no_value(name: &str, what: String) -> FilterError {
    FilterError::Value {
        what: format!("the value of ${name}: {what}"),
        cure: format!(
            "write \"{name}\": \"\\\"one\\\",\\\"two\\\"\", each text in quotes of its own, or \"{name}\": \"30\""
        ),
    }
}

/// The `filterValues` of a line's JSON; none there are no values.
pub(crate) fn filter_values(line: Option<&Json>) -> Result<BTreeMap<String, String>, FilterError> {
    let wrong = |what: &str| FilterError::Value {
        what: what.to_owned(),
        cure: "write \"filterValues\": {\"COUNTRY\": \"\\\"Japan\\\"\"}".to_owned(),
    };
    match line.and_then(|line| line.get("filterValues")) {
        None | Some(Json::Null) => Ok(BTreeMap::new()),
        Some(Json::Object(values)) => values
            .iter()
            .map(|(key, value)| match value {
                Json::String(text) => Ok((key.clone(), text.clone())),
                Json::Number(number) => Ok((key.clone(), number.to_string())),
                _ => Err(wrong("a value of filterValues is no string")),
            })
            .collect(),
        Some(_) => Err(wrong("filterValues is no object")),
    }
}
