//! Amazon Personalize's filter expressions for user segments: `INCLUDE UserID WHERE Users.COUNTRY IN ("DE", $MORE)`.
//!
//! ```text
//! filter     = expression { "|" expression }
//! expression = ( "INCLUDE" | "EXCLUDE" ) "UserID" "WHERE" condition { ( "AND" | "OR" ) condition }
//! condition  = "Users." field [ "NOT" ] "IN" "(" list ")"
//!            | "Users." field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) ( number | parameter )
//!            | "Interactions.EVENT_TYPE" [ "NOT" ] "IN" "(" ( "\"*\"" | list ) ")"
//! ```
//!
//! AND binds before OR, as in SQL; Amazon Personalize does not say. Keywords and names of data sets come in any case.

use std::fmt;
use std::str::FromStr;

use crate::filter_error::FilterError;
use crate::filter_parser::parse;
use crate::filter_tokens::{Number, quote};

/// Characters of a filter expression at most, as at Amazon Personalize.
pub(crate) const MOST_CHARACTERS: usize = 2_500;
/// Distinct fields of a filter that Amazon Personalize allows; here they are only warned of.
pub(crate) const MOST_FIELDS: usize = 5;

/// A filter expression that was read; its parameters are open until values are given.
///
/// Its text form reads back as the same filter.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterExpression {
    pub(crate) expressions: Vec<Expression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Include,
    Exclude,
}

/// One part between pipes: it holds for a user when all conditions of one of its alternatives do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expression {
    pub(crate) action: Action,
    pub(crate) any_of: Vec<Vec<Condition>>,
}

/// What is asked of a user.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) subject: Subject,
    pub(crate) test: Test,
    /// Character where the subject begins, from 1.
    pub(crate) position: usize,
}

/// Where a condition stands does not matter to what it says.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.subject == other.subject && self.test == other.test
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Subject {
    /// A field of Users.
    Field(String),
    /// The event types of the user's interactions, with any item.
    EventType,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    In { negated: bool, values: Vec<Value<String>> },
    Compare { comparison: Comparison, value: Value<Number> },
}

/// A value, or the parameter that stands for one or several.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<T> {
    Literal(T),
    Parameter(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("=", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        ("<=", Self::LessOrEqual),
        (">", Self::Greater),
        (">=", Self::GreaterOrEqual),
    ];
}

impl FromStr for FilterExpression {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        parse(text)
    }
}

impl FilterExpression {
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.expressions.iter().flat_map(Expression::conditions)
    }

    /// The distinct fields that the filter asks for, event types included.
    pub(crate) fn fields(&self) -> usize {
        let mut fields = self.conditions().map(|condition| &condition.subject).collect::<Vec<_>>();
        fields.sort_by_key(|subject| subject.to_string().to_lowercase());
        fields.dedup_by_key(|subject| subject.to_string().to_lowercase());
        fields.len()
    }

    /// The names of the parameters, without `$`, each once.
    pub fn parameters(&self) -> Vec<&str> {
        let mut names = self.conditions().flat_map(|condition| condition.test.parameters()).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Expression {
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.any_of.iter().flatten()
    }
}

impl Test {
    pub(crate) fn parameters(&self) -> Vec<&str> {
        match self {
            Self::In { values, .. } => values.iter().filter_map(Value::parameter).collect(),
            Self::Compare { value, .. } => value.parameter().into_iter().collect(),
        }
    }
}

impl<T> Value<T> {
    fn parameter(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter(name) => Some(name),
        }
    }
}

impl fmt::Display for FilterExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, expression) in self.expressions.iter().enumerate() {
            let (between, action) = (
                if number > 0 { " | " } else { "" },
                if expression.action == Action::Include { "INCLUDE" } else { "EXCLUDE" },
            );
            write!(f, "{between}{action} UserID WHERE ")?;
            let alternatives = expression
                .any_of
                .iter()
                .map(|all_of| all_of.iter().map(ToString::to_string).collect::<Vec<_>>().join(" AND "));
            f.write_str(&alternatives.collect::<Vec<_>>().join(" OR "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.subject)?;
        match &self.test {
            Test::In { negated, values } => {
                let list = values.iter().map(|value| match value {
                    Value::Literal(text) => quote(text),
                    Value::Parameter(name) => format!("${name}"),
                });
                let not = if *negated { "NOT " } else { "" };
                write!(f, "{not}IN ({})", list.collect::<Vec<_>>().join(", "))
            }
            Test::Compare { comparison, value } => {
                let sign = Comparison::ALL.iter().find(|(_, known)| known == comparison).map_or("=", |(sign, _)| sign);
                match value {
                    Value::Literal(Number::Whole(whole)) => write!(f, "{sign} {whole}"),
                    Value::Literal(Number::Real(real)) => write!(f, "{sign} {real:?}"),
                    Value::Parameter(name) => write!(f, "{sign} ${name}"),
                }
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, "Users.{name}"),
            Self::EventType => f.write_str("Interactions.EVENT_TYPE"),
        }
    }
}
