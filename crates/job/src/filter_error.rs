//! What can be wrong with a filter expression or its values.

/// Why a filter cannot be used. Values are never repeated: they may be data of users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The text is no filter expression.
    #[error("FILTER_INVALID: {found}; position={position}; expected {expected}")]
    Syntax {
        /// Character of the expression, from 1.
        position: usize,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// The expression is longer than Amazon Personalize allows.
    #[error(
        "FILTER_INVALID: {found} characters, a filter has 1 to {most}; put long lists of values into $NAMES, or use --users-filter"
    )]
    Length {
        /// Characters of the expression.
        found: usize,
        /// Characters allowed.
        most: usize,
    },
    /// A field that the Users do not have, or whose type does not fit its condition.
    #[error("FILTER_FIELD: {what}; position={position}; {cure}")]
    Field {
        /// Character of the expression, from 1.
        position: usize,
        /// What is wrong.
        what: String,
        /// What to do.
        cure: String,
    },
    /// A value for a parameter is missing, unknown or no value.
    #[error("FILTER_VALUE: {what}; {cure}")]
    Value {
        /// What is wrong.
        what: String,
        /// What to write.
        cure: String,
    },
}

impl FilterError {
    pub(crate) fn syntax(position: usize, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Syntax { position, found: found.into(), expected: expected.into() }
    }
}
