//! What can go wrong with solution versions, and what a person can do about it.

use item_affinity_ingest::MemoryNeed;
use item_affinity_storage::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of training, refreshing, loading or evaluating.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed, or a location holds something else than was expected.
    #[error(transparent)]
    Storage(#[from] item_affinity_storage::Error),

    /// The interactions or metadata are not usable.
    #[error(transparent)]
    Ingest(#[from] item_affinity_ingest::Error),

    /// The recipe or the numbers are not usable.
    #[error(transparent)]
    Model(item_affinity_model::Error),

    /// A version number that cannot be.
    #[error(
        "ERR_VERSION: {version:?} is no version number; file={location}; versions count from 1, as in {location}@1"
    )]
    Reference {
        /// The location before the `@`.
        location: String,
        /// The digits after it.
        version: String,
    },

    /// A file of a solution version is not what the commit or the format says.
    #[error("ERR_SOLUTION_DAMAGED: {what}; file={file}; {cure}")]
    Damaged {
        /// What is wrong.
        what: String,
        /// The file, as the commit names it.
        file: String,
        /// The last version before it, if there is one, and what else helps.
        cure: String,
    },

    /// A file of a solution version that belongs to a model of other data.
    #[error("ERR_SOLUTION_FOREIGN: {what}; file={file}; {cure}")]
    Foreign {
        /// What does not fit together.
        what: String,
        /// The file, as the commit names it.
        file: String,
        /// The last version before it, if there is one, and what else helps.
        cure: String,
    },

    /// A solution version of a format that this program does not read.
    #[error("ERR_SOLUTION_FORMAT: made by format {found}, this program reads {reads}; file={file}; {cure}")]
    Format {
        /// The version of the format that was found.
        found: String,
        /// The versions that this program reads.
        reads: String,
        /// The file that says so.
        file: String,
        /// What to do.
        cure: String,
    },

    /// A job without a place to write to.
    #[error("ERR_NO_SOLUTION_LOCATION: training has nowhere to write; say where with solution")]
    NoSolutionLocation,

    /// A solution below the interactions that it is trained on: the next training would read its files.
    #[error(
        "ERR_OUTPUT_IN_INPUT: the solution lies inside the interactions {interactions}; file={solution}; choose a folder outside of it"
    )]
    OutputInInput {
        /// The location of the solution.
        solution: String,
        /// The location of the interactions.
        interactions: String,
    },

    /// A refresh of a version that uses attributes of users, without these.
    #[error("ERR_REFRESH_USER_ATTRIBUTES: the version uses attributes of users ({columns}); file={solution}; {cure}")]
    UserAttributes {
        /// Their columns, comma-separated.
        columns: String,
        /// The version.
        solution: String,
        /// What helps.
        cure: String,
    },

    /// A refresh with data that end before those of the version.
    #[error(
        "ERR_REFRESH_OLDER_DATA: the interactions end at {newest}, those of the version at {known}; file={solution}; name \
         the whole history up to now"
    )]
    Older {
        /// The newest interaction that was given, in UTC.
        newest: String,
        /// The newest one that the version has seen, in UTC.
        known: String,
        /// The version.
        solution: String,
    },

    /// A refresh with data of other items.
    #[error(
        "ERR_REFRESH_NO_KNOWN_ITEM: none of the {interactions} interactions is with an item of the version; \
         file={solution}; check the item ids and --column item_id=, or train"
    )]
    NoKnownItem {
        /// How many were read.
        interactions: usize,
        /// The version.
        solution: String,
    },

    /// Every user of a version shall be forgotten.
    #[error(
        "ERR_NOBODY_LEFT: all users of the version are named, and a version without users cannot be; file={solution}; \
         remove the whole solution instead"
    )]
    NobodyLeft {
        /// The version.
        solution: String,
    },

    /// Tasks in other processes failed.
    #[error("{message}")]
    Tasks {
        /// What kind of error it was there.
        kind: ErrorKind,
        /// One line with a code and a cure.
        message: String,
    },

    /// Training gave numbers that no version may hold.
    #[error(
        "ERR_NOT_FINITE: {what} has values that are not finite numbers; raise regularization, or lower the event weights"
    )]
    NotFinite {
        /// Which numbers.
        what: &'static str,
    },

    /// The computation does not fit into the memory that the job may have.
    #[error("{0}")]
    MemoryLimit(MemoryNeed),

    /// The threads of the computation could not be started.
    #[error("ERR_THREADS: {threads} threads could not be started; ask for fewer")]
    Threads {
        /// How many were asked for; 0 means one per core.
        threads: usize,
        /// Why.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },

    /// The job was asked to stop. Nothing was committed.
    #[error("ERR_CANCELLED: stopped as asked; nothing was committed")]
    Cancelled,

    /// A file could not be encoded: our mistake.
    #[error("ERR_BUG: a state file could not be encoded; please report this")]
    Encode {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A computation panicked: our mistake.
    #[error("ERR_BUG: {stage} panicked; please report this")]
    Panicked {
        /// What was being done.
        stage: &'static str,
    },
}

impl Error {
    /// The kind of error, which decides the exit code.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Ingest(error) => error.kind(),
            Self::Tasks { kind, .. } => *kind,
            Self::Model(error) => model_kind(error),
            Self::Reference { .. } | Self::NoSolutionLocation | Self::OutputInInput { .. } => ErrorKind::Usage,
            Self::Damaged { .. } | Self::Foreign { .. } => ErrorKind::BadInput,
            Self::Format { .. } | Self::NotFinite { .. } => ErrorKind::BadInput,
            Self::UserAttributes { .. } | Self::Older { .. } | Self::NoKnownItem { .. } | Self::NobodyLeft { .. } => {
                ErrorKind::BadInput
            }
            Self::Threads { .. } | Self::MemoryLimit(_) => ErrorKind::Limit,
            // The same command may pass later. A caller that was signalled asks `is_cancelled` first.
            Self::Cancelled => ErrorKind::Storage,
            Self::Encode { .. } | Self::Panicked { .. } => ErrorKind::Bug,
        }
    }

    /// Whether the job ended because it was asked to.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Storage(item_affinity_storage::Error::Cancelled(_)))
    }

    pub(crate) fn encode(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Encode { source: Box::new(source) }
    }
}

impl From<MemoryNeed> for Error {
    fn from(need: MemoryNeed) -> Self {
        Self::MemoryLimit(need)
    }
}

impl From<item_affinity_model::Error> for Error {
    fn from(error: item_affinity_model::Error) -> Self {
        match error {
            item_affinity_model::Error::Cancelled => Self::Cancelled,
            error => Self::Model(error),
        }
    }
}

/// The model refuses settings, data, or nothing that a caller could have known.
fn model_kind(error: &item_affinity_model::Error) -> ErrorKind {
    use item_affinity_model::Error;
    match error {
        Error::OutOfRange { .. } => ErrorKind::Usage,
        Error::NotPositiveDefinite { .. } | Error::NotFinite { .. } => ErrorKind::BadInput,
        Error::TooMany { .. } => ErrorKind::Limit,
        _ => ErrorKind::Bug,
    }
}
