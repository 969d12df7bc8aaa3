//! What can go wrong in a batch segment job.

use datafusion::error::DataFusionError;
use item_affinity_storage::ErrorKind;

use crate::filter_error::FilterError;

/// Why a job did not finish. Nothing was committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The solution version could not be trained or read.
    #[error(transparent)]
    Solution(Box<item_affinity_solution::Error>),
    /// The object store, a file or a commit.
    #[error(transparent)]
    Storage(Box<item_affinity_storage::Error>),
    /// The query engine.
    #[error("{}", item_affinity_datafusion::error_message(.0))]
    Query(#[source] Box<DataFusionError>),
    /// A setting is out of its range.
    #[error("{name} must be {accepted}, got {value}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What it may be.
        accepted: String,
        /// What was asked for.
        value: String,
    },
    /// The list asks for more items than allowed.
    #[error(
        "ITEM_LIST_TOO_LONG: {asked} items, at most {max_items} are allowed in one input file; file={file}; ask for \
         fewer, or raise --max-items"
    )]
    TooManyItems {
        /// Name of the list.
        file: String,
        /// Items in the list.
        asked: usize,
        /// Items allowed.
        max_items: usize,
    },
    /// The filter expression, or a column that it asks for.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Something that the builder was not told.
    #[error("{0}")]
    Missing(&'static str),
    /// The output would be written into its own input.
    #[error("the output {output} lies in the input {input}; choose another output location")]
    OutputInInput {
        /// The output location.
        output: String,
        /// The input location.
        input: String,
    },
    /// Another solution lies where the one was that the newest segments of the output were made from.
    #[error(
        "ERR_SOLUTION_FOREIGN: this is not the solution that the segments there were made from: {what}; file={solution}; \
         name the right solution, or take this one with --allow-foreign-solution"
    )]
    ForeignSolution {
        /// How that shows.
        what: String,
        /// The location of the solution.
        solution: String,
    },
    /// The cancellation token was triggered.
    #[error("cancelled; nothing was committed, the same command starts again")]
    Cancelled,
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What kind of error it is, and so the exit code.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Solution(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Query(error) => item_affinity_datafusion::error_kind(error),
            Self::OutOfRange { .. } | Self::Missing(_) | Self::OutputInInput { .. } => ErrorKind::Usage,
            Self::TooManyItems { .. } | Self::Filter(_) | Self::ForeignSolution { .. } => ErrorKind::BadInput,
            Self::Cancelled => ErrorKind::Storage,
        }
    }
}

impl Error {
    /// Whether the job ended because it was asked to.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Solution(error) => error.is_cancelled(),
            Self::Storage(error) => matches!(**error, item_affinity_storage::Error::Cancelled(_)),
            _ => false,
        }
    }
}

impl From<item_affinity_solution::Error> for Error {
    fn from(error: item_affinity_solution::Error) -> Self {
        Self::Solution(Box::new(error))
    }
}

impl From<item_affinity_ingest::Error> for Error {
    fn from(error: item_affinity_ingest::Error) -> Self {
        item_affinity_solution::Error::from(error).into()
    }
}

impl From<item_affinity_storage::Error> for Error {
    fn from(error: item_affinity_storage::Error) -> Self {
        Self::Storage(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        Self::Query(Box::new(error))
    }
}

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<datafusion::parquet::errors::ParquetError> for Error {
    fn from(error: datafusion::parquet::errors::ParquetError) -> Self {
        DataFusionError::from(error).into()
    }
}
