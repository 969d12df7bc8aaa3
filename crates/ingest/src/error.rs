//! What can go wrong between a Parquet file and the model's types.

use std::fmt;

use item_affinity_storage::ErrorKind;

use crate::size_limit::MemoryNeed;
use crate::timestamp::TimestampUnit;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why Interactions, Items or Users cannot be used. Each message is one line that says what to do.
///
/// Row numbers count from 0 within their file, as pandas and DuckDB count them. No message holds a user id.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that cannot be used.
    #[error("{option}: {what}; {cure}")]
    Option {
        /// The option as the command line spells it.
        option: &'static str,
        /// What is wrong with the value.
        what: String,
        /// What to give instead.
        cure: String,
    },

    /// A file has no column for something that the data set must have.
    #[error("ERR_SCHEMA: missing columns [{}], found [{}]; file={file}; {cure}", missing.join(", "), Names(found))]
    MissingColumns {
        /// The contract's names that nothing in the file matches.
        missing: Vec<&'static str>,
        /// The columns of the file.
        found: Vec<String>,
        /// The file.
        file: String,
        /// The mapping that would help, with the nearest name.
        cure: String,
    },

    /// A column has a type that cannot carry what it stands for.
    #[error("ERR_COLUMN_TYPE: {wanted}: found {found}, accepted: {accepted}{why}; {place}; {cure}")]
    ColumnType {
        /// The contract's name of the column.
        wanted: &'static str,
        /// The Arrow type found.
        found: String,
        /// The types that are accepted, in words.
        accepted: &'static str,
        /// Why this type is refused, in brackets, or nothing.
        why: &'static str,
        /// The file and its column.
        place: Box<Place>,
        /// What to do.
        cure: &'static str,
    },

    /// Two columns of one file match the same name.
    #[error("ERR_COLUMN_AMBIGUOUS: {} columns match {wanted}: [{}]; file={file}; {cure}", candidates.len(), Names(candidates))]
    ColumnAmbiguous {
        /// The name that was looked for.
        wanted: String,
        /// The columns that match it.
        candidates: Vec<String>,
        /// The file.
        file: String,
        /// What to do.
        cure: String,
    },

    /// Bare integers cannot be told to be seconds.
    #[error("ERR_TIMESTAMP_UNIT: {what}; {place}; {cure}")]
    TimestampUnit {
        /// What the numbers look like.
        what: String,
        /// Where the first odd one is.
        place: Box<Place>,
        /// The units seen, the most frequent one first.
        units: Vec<TimestampUnit>,
        /// What to do.
        cure: String,
    },

    /// More rows were rejected than the limit allows.
    #[error("ERR_TOO_MANY_BAD_ROWS: {rejected} of {rows} rows rejected ({reasons}); {place}; {cure}")]
    TooManyBadRows {
        /// Rows rejected for the reasons that passed their limit.
        rejected: u64,
        /// Rows read.
        rows: u64,
        /// Counts by reason, the most frequent one first.
        reasons: String,
        /// The first such row.
        place: Box<Place>,
        /// What to do.
        cure: String,
    },

    /// Nothing is left to train on.
    #[error("ERR_NO_INTERACTIONS: {what}; {cure}")]
    NoInteractions {
        /// How the rows were lost.
        what: String,
        /// What to do.
        cure: String,
    },

    /// The data is below the minimum on which a model can be trusted.
    #[error("ERR_TOO_LITTLE_DATA: {what}; {cure}")]
    TooLittleData {
        /// Each minimum that is not met.
        what: String,
        /// What to do.
        cure: String,
    },

    /// All interactions happened at one time, so that there is no order to learn from.
    #[error("ERR_TIMESTAMPS_EQUAL: {what}; {cure}")]
    TimestampsEqual {
        /// How many interactions share the time.
        what: String,
        /// What to do.
        cure: String,
    },

    /// More rows than can be numbered.
    #[error("ERR_TOO_MANY_ROWS: {rows} rows, at most {most} are read; file={file}; {cure}")]
    TooManyRows {
        /// Rows of all files; of a sum that is no number of 64 bits, the largest such number.
        rows: u64,
        /// Rows that can be numbered.
        most: u64,
        /// The first file.
        file: String,
        /// What to do.
        cure: &'static str,
    },

    /// Interactions do not fit into the memory that a job may have.
    #[error("{0}")]
    MemoryLimit(MemoryNeed),

    /// A schema file of Amazon Personalize breaks one of its rules.
    #[error("ERR_SCHEMA_FILE: {what}; file={file}; {cure}")]
    SchemaFile {
        /// What is wrong.
        what: String,
        /// The file.
        file: String,
        /// What to write.
        cure: String,
    },

    /// A CSV file is not what its schema says. Values are not repeated.
    #[error("ERR_CSV: {what}; {place}; {cure}")]
    Csv {
        /// What is wrong.
        what: String,
        /// The file, with row and column where they are known.
        place: Box<Place>,
        /// What to do.
        cure: String,
    },

    /// Columns of a batch that do not fit its schema.
    #[error("a batch of rows does not fit its schema; this is a bug in item-affinity, please report it")]
    Batch(#[from] arrow::error::ArrowError),

    /// A batch could not be converted although its type was accepted.
    #[error(
        "ERR_COLUMN_TYPE: {wanted} cannot be converted; {place}; write the column again with one of the accepted types"
    )]
    Convert {
        /// The contract's name of the column.
        wanted: &'static str,
        /// The file and its column.
        place: Box<Place>,
        /// What Arrow said.
        #[source]
        source: arrow::error::ArrowError,
    },

    /// Storage failed or refused the input.
    #[error(transparent)]
    Storage(#[from] item_affinity_storage::Error),

    /// The model's types refused the data.
    #[error(transparent)]
    Model(#[from] item_affinity_model::Error),

    /// A reading task ended without a result.
    #[error("a reading task ended without a result; this is a bug in item-affinity, please report it")]
    Task(#[source] tokio::task::JoinError),
}

impl Error {
    /// What a caller can do about it, which is also the exit code of the command line.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Option { .. } => ErrorKind::Usage,
            Error::MissingColumns { .. }
            | Error::ColumnType { .. }
            | Error::ColumnAmbiguous { .. }
            | Error::TimestampUnit { .. }
            | Error::TooManyBadRows { .. }
            | Error::NoInteractions { .. }
            | Error::TooLittleData { .. }
            | Error::TimestampsEqual { .. }
            | Error::SchemaFile { .. }
            | Error::Csv { .. }
            | Error::Convert { .. } => ErrorKind::BadInput,
            Error::TooManyRows { .. } | Error::MemoryLimit(_) => ErrorKind::Limit,
            Error::Storage(error) => error.kind(),
            // The only refusals of the model that data can cause are of size: ids or rows past the index width.
            Error::Model(_) => ErrorKind::Limit,
            Error::Task(_) | Error::Batch(_) => ErrorKind::Bug,
        }
    }
}

impl From<MemoryNeed> for Error {
    fn from(need: MemoryNeed) -> Self {
        Error::MemoryLimit(need)
    }
}

/// Where in the input something is: absent parts are left out of the text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// The file, as a person would type it.
    pub file: String,
    /// The row in the file, from 0.
    pub row: Option<u64>,
    /// The column, by the file's own name or by the contract's.
    pub column: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file={}", self.file)?;
        if let Some(row) = self.row {
            write!(f, " row={row}")?;
        }
        if let Some(column) = &self.column {
            write!(f, " column={}", printable(column))?;
        }
        Ok(())
    }
}

/// Text from data as one harmless line: control characters escaped, cut at 80 characters.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut line = String::with_capacity(text.len().min(LONGEST + 4));
    for (position, character) in text.chars().enumerate() {
        if position == LONGEST {
            line.push('…');
            break;
        }
        // Direction marks could reorder the rest of the line on a terminal.
        let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// A list of names that stays one readable line however many columns a file has.
pub(crate) struct Names<'a>(pub(crate) &'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for (position, name) in self.0.iter().take(SHOWN).enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(&printable(name))?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, ", … {more} more"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_parts_of_a_place_are_left_out() {
        let place = Place { file: "a.parquet".into(), row: None, column: Some("ts".into()) };
        assert_eq!(place.to_string(), "file=a.parquet column=ts");
        let place = Place { file: "a.parquet".into(), row: Some(7), column: None };
        assert_eq!(place.to_string(), "file=a.parquet row=7");
    }

    #[test]
    fn control_characters_and_direction_marks_are_escaped() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{202e}c"), "a\\nb\\u{1b}[31m\\u{202e}c");
    }

    #[test]
    fn long_text_is_cut_at_80_characters() {
        assert_eq!(printable(&"é".repeat(200)).chars().count(), 81);
        assert_eq!(printable(&"é".repeat(80)).chars().count(), 80);
    }

    #[test]
    fn a_long_list_of_names_says_how_many_are_not_shown() {
        let names: Vec<String> = (0..25).map(|n| format!("c{n}")).collect();
        let text = Names(&names).to_string();
        assert!(text.starts_with("c0, c1"), "{text}");
        assert!(text.ends_with("c19, … 5 more"), "{text}");
    }
}
