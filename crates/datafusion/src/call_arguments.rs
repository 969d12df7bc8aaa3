//! The arguments of a call: by place as the SQL planner hands them over, by name as [`crate::call_planner`] does.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, lit};

use crate::routine_descriptions::Described;

/// Stands before the arguments of a call that were sorted by their names, and in the place of each that is not given.
const BY_NAME: &str = "item_affinity arguments by name";

/// What a function takes.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The name of the function.
    pub(crate) function: &'static str,
    /// How its arguments by place are written, for a person.
    pub(crate) places: &'static str,
    /// All arguments; the first so many may come by place.
    pub(crate) names: &'static [&'static str],
    pub(crate) by_place: usize,
    /// Whether there is no call without the first argument.
    pub(crate) required: bool,
    /// What it gives, for lists of functions.
    pub(crate) description: &'static str,
    /// A call, for lists of functions.
    pub(crate) example: &'static str,
}

impl Accepted {
    pub(crate) fn described(&self) -> Described {
        Described { function: self.function, description: self.description, example: self.example }
    }
}

/// Sorts the arguments of a call by their names, for a planner that hands over expressions without names.
///
/// # Errors   a plan error that lists what is allowed: an unknown name, a name twice, a place after a name
pub(crate) fn by_name(accepted: &Accepted, given: Vec<(Option<String>, Expr)>) -> Result<Vec<Expr>> {
    let Accepted { function, names, by_place, .. } = accepted;
    let count = given.len();
    let mut values = vec![None; names.len()];
    let mut after_named = false;
    for (at, (name, value)) in given.into_iter().enumerate() {
        let place = match name {
            Some(name) => {
                after_named = true;
                let Some(place) = names.iter().position(|known| known.eq_ignore_ascii_case(&name)) else {
                    return plan_err!("{function} has no argument {name}; there are {}", names.join(", "));
                };
                place
            }
            None if after_named => {
                return plan_err!("{function}: {value} comes after a named argument; give it a name as well");
            }
            None if at >= *by_place => return too_many(accepted, count),
            None => at,
        };
        if values[place].replace(value).is_some() {
            return plan_err!("{function}: the argument {} is given twice", names[place]);
        }
    }
    if count == 0 && accepted.required {
        return too_many(accepted, 0);
    }
    let values = values.into_iter().map(|value| value.unwrap_or_else(|| lit(BY_NAME)));
    Ok(std::iter::once(lit(BY_NAME)).chain(values).collect())
}

/// The arguments of one call, each at the place of its name.
#[derive(Debug)]
pub(crate) struct CallArguments<'a> {
    accepted: &'static Accepted,
    values: Vec<Option<&'a Expr>>,
}

impl<'a> CallArguments<'a> {
    /// # Errors   a plan error that lists what is allowed, for too many arguments or none at all
    pub(crate) fn new(accepted: &'static Accepted, exprs: &'a [Expr]) -> Result<Self> {
        let mut values = match exprs {
            [first, by_name @ ..] if is_mark(first) => {
                by_name.iter().map(|expr| Some(expr).filter(|expr| !is_mark(expr))).collect::<Vec<_>>()
            }
            by_place if by_place.len() > accepted.by_place || (by_place.is_empty() && accepted.required) => {
                return too_many(accepted, by_place.len());
            }
            by_place => by_place.iter().map(Some).collect(),
        };
        values.resize(accepted.names.len(), None);
        Ok(Self { accepted, values })
    }

    pub(crate) fn function(&self) -> &'static str {
        self.accepted.function
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'a Expr> {
        let place = self.accepted.names.iter().position(|known| *known == name)?;
        self.values[place]
    }

    /// A whole number written in the call.
    pub(crate) fn whole_number(&self, name: &str) -> Result<Option<i128>> {
        self.literal(name, "a whole number", |value| match value {
            ScalarValue::UInt64(Some(n)) => Some(i128::from(*n)),
            other if other.data_type().is_integer() => match other.cast_to(&DataType::Int64).ok()? {
                ScalarValue::Int64(Some(n)) => Some(i128::from(n)),
                _ => None,
            },
            _ => None,
        })
    }

    /// A number written in the call.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>> {
        self.literal(name, "a number", |value| {
            if !value.data_type().is_numeric() {
                return None;
            }
            match value.cast_to(&DataType::Float64).ok()? {
                ScalarValue::Float64(Some(x)) => Some(x),
                _ => None,
            }
        })
    }

    /// A text written in the call.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        self.literal(name, "a text in single quotes", |value| value.try_as_str().flatten().map(str::to_owned))
    }

    fn literal<T>(&self, name: &str, what: &str, read: impl Fn(&ScalarValue) -> Option<T>) -> Result<Option<T>> {
        let Some(expr) = self.value(name) else { return Ok(None) };
        let function = self.accepted.function;
        match expr {
            Expr::Placeholder(placeholder) => {
                let id = &placeholder.id;
                // A location is the one argument of this kind without a session option.
                let option = if name == "location" { String::new() } else { format!(", or SET item_affinity.{name}") };
                plan_err!(
                    "{function}: {name} cannot be the parameter {id}, since a call is planned once; write {what}{option}"
                )
            }
            Expr::Literal(value, _) if !value.is_null() => match read(value) {
                Some(value) => Ok(Some(value)),
                None => plan_err!("{function}: {name} must be {what}, got {value}"),
            },
            other => plan_err!("{function}: {name} must be {what}, got {other}"),
        }
    }
}

fn is_mark(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.try_as_str().flatten() == Some(BY_NAME))
}

/// Says what the function takes, by place and by name.
fn too_many<T>(accepted: &Accepted, count: usize) -> Result<T> {
    let Accepted { function, places, names, by_place, .. } = accepted;
    match names.get(*by_place..).unwrap_or_default() {
        [] => plan_err!("{function} takes {places}, got {count} arguments"),
        rest => {
            plan_err!("{function} takes {places}, got {count} arguments; by name there are also {}", rest.join(", "))
        }
    }
}
