//! What can go wrong with numbers.

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the model refuses settings, data, or a result of its own.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an argument lies outside its range.
    #[error("{name} must be in {range}, got {value}")]
    OutOfRange {
        /// The setting or argument.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is allowed, as an interval.
        range: String,
    },
    /// The equations of a row have no unique solution.
    #[error(
        "the equations of {side} {row} are not positive definite{}; raise regularization or unobserved_weight above 0",
        during(*.iteration)
    )]
    NotPositiveDefinite {
        /// Whose factors were being solved: `user` or `item`.
        side: &'static str,
        /// The row of the matrix, from 0.
        row: usize,
        /// The iteration, from 1; none outside of a fit.
        iteration: Option<usize>,
    },
    /// A number is NaN or infinite.
    #[error("{what} of row {row} is not finite{}; look for extreme weights or settings", during(*.iteration))]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// The row of the matrix, from 0.
        row: usize,
        /// The iteration, from 1; none outside of a fit.
        iteration: Option<usize>,
    },
    /// Two inputs do not fit together.
    #[error("{name} has {actual} entries where {expected} are needed")]
    Shape {
        /// The input.
        name: &'static str,
        /// Entries needed.
        expected: usize,
        /// Entries given.
        actual: usize,
    },
    /// Values that must ascend strictly do not.
    #[error("{name} must ascend strictly, but entry {position} does not")]
    Unsorted {
        /// The sequence.
        name: &'static str,
        /// The first entry that is not above the one before it, from 0.
        position: usize,
    },
    /// There is more than can be numbered.
    #[error("{count} {name} are more than the {most} that fit")]
    TooMany {
        /// Of what.
        name: &'static str,
        /// How many there are.
        count: u64,
        /// How many are possible.
        most: u64,
    },
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}

fn during(iteration: Option<usize>) -> String {
    iteration.map_or_else(String::new, |iteration| format!(" in iteration {iteration}"))
}

impl Error {
    /// A factor of a `user` or an `item` that is not finite.
    pub(crate) fn factor_not_finite(side: &'static str, row: usize, iteration: Option<usize>) -> Self {
        let what = if side == "item" { "an item factor" } else { "a user factor" };
        Self::NotFinite { what, row, iteration }
    }

    pub(crate) fn out_of_range(name: &'static str, value: impl ToString, range: impl Into<String>) -> Self {
        Self::OutOfRange { name, value: value.to_string(), range: range.into() }
    }
}

/// Checks that an input has as many entries as its partner.
pub(crate) fn same_length(name: &'static str, expected: usize, actual: usize) -> Result<()> {
    if expected == actual { Ok(()) } else { Err(Error::Shape { name, expected, actual }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_the_thing_and_the_cure() {
        let range = Error::out_of_range("hidden_dimension", 31, "[32, 256]");
        assert_eq!(range.to_string(), "hidden_dimension must be in [32, 256], got 31");
        let definite = Error::NotPositiveDefinite { side: "user", row: 17, iteration: Some(2) };
        assert_eq!(
            definite.to_string(),
            "the equations of user 17 are not positive definite in iteration 2; \
             raise regularization or unobserved_weight above 0"
        );
    }
}
