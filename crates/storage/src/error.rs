//! What can go wrong between this program and a store, and what a caller may do about it.

use std::fmt;

use crate::ParquetFault;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The class of an error: what a scheduler should do, as an exit code of the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum ErrorKind {
    /// A defect of this program: stop and report it.
    Bug,
    /// Flags and arguments: stop and fix the command.
    Usage,
    /// Input, configuration or a right: a person has to change something.
    BadInput,
    /// Storage: the same command may pass later.
    Storage,
    /// Another job won: retry once, then look at the schedule.
    Conflict,
    /// Whether a commit landed is unknown; nothing was deleted, and a retry is safe.
    CommitUnknown,
    /// A resource limit: raise it or cut the job.
    Limit,
}

impl ErrorKind {
    /// The class of the exit code of a process.
    pub(crate) fn of_exit_code(code: u8) -> Option<Self> {
        use ErrorKind::{BadInput, Bug, CommitUnknown, Conflict, Limit, Storage, Usage};
        [Bug, Usage, BadInput, Storage, Conflict, CommitUnknown, Limit]
            .into_iter()
            .find(|kind| kind.exit_code() == code)
    }

    /// The exit code of a process that ends with such an error.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Bug => 1,
            Self::Usage => 2,
            Self::BadInput => 3,
            Self::Storage => 5,
            Self::Conflict => 6,
            Self::CommitUnknown => 7,
            Self::Limit => 8,
        }
    }
}

/// A failure of the storage layer. The text of each is one line with a code, the file and a cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that does not name a location.
    #[error("ERR_LOCATION: {reason}; {cure}")]
    Location {
        /// What is wrong with it; never holds user info or a query.
        reason: String,
        /// What to write instead.
        cure: String,
    },
    /// A location that SQL may not reach, or a change that it may not make.
    #[error("ERR_SQL_POLICY: {reason}; file={file}; {cure}")]
    Policy {
        /// The rule.
        reason: &'static str,
        /// The location.
        file: String,
        /// What allows it.
        cure: &'static str,
    },
    /// Nothing to read at a location.
    #[error("ERR_NO_INPUT: {reason}; file={file}; {cure}")]
    NoInput {
        /// What was looked for and not found.
        reason: String,
        /// The location as a person would type it.
        file: String,
        /// What to do.
        cure: String,
    },
    /// An object is larger than what is read whole.
    #[error("ERR_TOO_LARGE: the object has {size} bytes, the limit is {limit}; file={file}; split it")]
    TooLarge {
        /// The object.
        file: String,
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A Delta table that cannot be read or written.
    #[error("ERR_DELTA: {reason}; file={file}; {cure}")]
    Delta {
        /// What is wrong.
        reason: String,
        /// The folder of the table.
        file: String,
        /// What to do.
        cure: String,
        /// What it was told by.
        #[source]
        source: Option<Source>,
    },
    /// An input that cannot be read as a file: a pipe, a device, a dangling or looping link.
    #[error("ERR_INPUT_FILE: {reason}; file={file}; give a regular file, a folder or a glob")]
    InputFile {
        /// What it is instead.
        reason: String,
        /// The path.
        file: String,
    },
    /// A Parquet object that breaks a rule.
    #[error("{}: {reason}; file={file}{}{}; {}", fault.code(), Field(" row_group=", row_group), Field(" column=", column), fault.cure())]
    Parquet {
        /// The rule.
        fault: ParquetFault,
        /// What was found.
        reason: String,
        /// The object.
        file: String,
        /// The row group, from 0, when known.
        row_group: Option<usize>,
        /// The column, when known.
        column: Option<String>,
        /// What the decoder said, when it was the decoder.
        #[source]
        source: Option<Source>,
    },
    /// What a process said that decoded an input apart from this one.
    #[error("{message}")]
    Isolated {
        /// Its class.
        kind: ErrorKind,
        /// Its text, which is that of another of these errors.
        message: String,
    },
    /// No credentials for a store.
    #[error(
        "ERR_CREDENTIALS: {reason}; file={file}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (profiles are not read: \
         use `aws configure export-credentials --format env`), or AWS_SKIP_SIGNATURE=true for a public bucket"
    )]
    Credentials {
        /// What is missing.
        reason: String,
        /// The object that was asked for.
        file: String,
    },
    /// A store refused an operation for lack of a right.
    #[error("ERR_STORE_DENIED: {operation} was refused ({detail}); file={file}; {right}")]
    StoreDenied {
        /// The operation, as the store calls it.
        operation: &'static str,
        /// The object.
        file: String,
        /// Status and code of the store.
        detail: String,
        /// The right that is missing, as advice.
        right: String,
        /// The answer of the store.
        #[source]
        source: Option<Source>,
    },
    /// An object, a bucket or a folder is not there.
    #[error("ERR_NOT_FOUND: {operation}: {reason}; file={file}; {cure}")]
    NotFound {
        /// The operation.
        operation: &'static str,
        /// What is missing.
        reason: String,
        /// The object.
        file: String,
        /// What to do.
        cure: String,
        /// The answer of the store.
        #[source]
        source: Option<Source>,
    },
    /// A store or a file system that cannot do what a commit needs, or a setting that is wrong.
    #[error("ERR_STORE_SETTING: {reason}; file={file}; {cure}")]
    StoreSetting {
        /// What is wrong.
        reason: String,
        /// The location.
        file: String,
        /// What to change.
        cure: String,
        /// The answer of the store.
        #[source]
        source: Option<Source>,
    },
    /// A store failed after all retries; the same command may pass later.
    #[error("ERR_STORE: {operation} failed: {reason}; file={file}; run the command again later")]
    Store {
        /// The operation.
        operation: &'static str,
        /// What happened, in short.
        reason: String,
        /// The object.
        file: String,
        /// The answer of the store.
        #[source]
        source: Option<Source>,
    },
    /// No space left on a local disk.
    #[error(
        "ERR_DISK_FULL: {operation} of {bytes} bytes failed: {reason}; file={file}; free space and run the command again"
    )]
    DiskFull {
        /// The operation.
        operation: &'static str,
        /// The bytes that had to be written.
        bytes: u64,
        /// What the system said.
        reason: String,
        /// The path.
        file: String,
        /// The answer of the system.
        #[source]
        source: std::io::Error,
    },
    /// An output location holds objects that are not ours.
    #[error(
        "ERR_OUTPUT_NOT_EMPTY: the location holds other objects, such as {example}; file={file}; give another location"
    )]
    OutputNotEmpty {
        /// The location.
        file: String,
        /// One object that is there.
        example: String,
    },
    /// A file that would be overwritten.
    #[error("ERR_OUTPUT_EXISTS: the name is taken by something else; file={0}; give another name, or remove it")]
    OutputExists(String),
    /// A version that is not there.
    #[error("ERR_NO_VERSION: {reason}; file={file}; {cure}")]
    NoVersion {
        /// What was asked for and what exists.
        reason: String,
        /// The location.
        file: String,
        /// What to do.
        cure: String,
    },
    /// A commit object that cannot be trusted.
    #[error("ERR_COMMIT: {reason}; file={file}; {cure}")]
    Commit {
        /// What is wrong with it.
        reason: String,
        /// The commit object.
        file: String,
        /// What to do; names the last good version when there is one.
        cure: String,
        /// What the parser said.
        #[source]
        source: Option<Source>,
    },
    /// A file that a commit names is missing, cut or changed.
    #[error("{code}: {reason}; file={file}; {cure}")]
    Damaged {
        /// `ERR_SOLUTION_DAMAGED` or `ERR_COMMIT_INCOMPLETE`.
        code: &'static str,
        /// The version that names the file.
        version: u64,
        /// What is wrong with it.
        reason: String,
        /// The file.
        file: String,
        /// What to do.
        cure: String,
    },
    /// Other jobs took every number that this one tried to commit, or the run is too old to commit.
    #[error("ERR_CONFLICT: {reason}; file={file} run={run_id}; {cure}")]
    Conflict {
        /// What happened.
        reason: String,
        /// The location.
        file: String,
        /// The run that did not commit.
        run_id: String,
        /// What to do.
        cure: String,
    },
    /// Whether the commit landed is unknown. Nothing was deleted.
    #[error(
        "ERR_COMMIT_UNKNOWN: the answer to the commit of run {run_id} was lost: {reason}; file={file}; \
             ask `item-affinity show {place} --run {run_id}` later, or run the same command again"
    )]
    CommitUnknown {
        /// What happened.
        reason: String,
        /// The commit object.
        file: String,
        /// The location, after the option of the command line that names it.
        place: String,
        /// The run whose commit is in doubt.
        run_id: String,
        /// The answer of the store.
        #[source]
        source: Option<Source>,
    },
    /// The job was asked to stop before its commit began.
    #[error("ERR_CANCELLED: stopped as asked; nothing was committed; file={0}; run the same command again")]
    Cancelled(String),
    /// A query holds more temporary files than it may.
    #[error(
        "ERR_TEMP_LIMIT: the query needs more than {limit} bytes of temporary files; file={folder}; raise --temp-limit, \
         or give the query more memory with --memory-limit"
    )]
    TempLimit {
        /// Bytes that it may hold.
        limit: u64,
        /// The folder on whose disk they are.
        folder: String,
    },
    /// A name that a run may not write.
    #[error("ERR_NAME: {reason}; name={name}; this is a defect of the calling program")]
    Name {
        /// The rule that it breaks.
        reason: &'static str,
        /// The name.
        name: String,
    },
    /// A defect of this program.
    #[error("ERR_BUG: {reason}; this is a defect of item-affinity, please report it")]
    Bug {
        /// What does not add up.
        reason: String,
        /// Where it came from.
        #[source]
        source: Option<Source>,
    },
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Isolated { kind, .. } => *kind,
            Self::Location { .. } => ErrorKind::Usage,
            Self::Parquet { fault: ParquetFault::DecodedBudget, .. } | Self::TooLarge { .. } => ErrorKind::Limit,
            Self::TempLimit { .. } => ErrorKind::Limit,
            Self::NoInput { .. }
            | Self::Policy { .. }
            | Self::InputFile { .. }
            | Self::Delta { .. }
            | Self::Parquet { .. }
            | Self::Credentials { .. }
            | Self::StoreDenied { .. }
            | Self::NotFound { .. }
            | Self::StoreSetting { .. }
            | Self::OutputNotEmpty { .. }
            | Self::OutputExists(_)
            | Self::NoVersion { .. }
            | Self::Commit { .. }
            | Self::Damaged { .. } => ErrorKind::BadInput,
            // The same command may pass later. A caller that was signalled asks for the variant first.
            Self::Store { .. } | Self::DiskFull { .. } | Self::Cancelled(_) => ErrorKind::Storage,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::CommitUnknown { .. } => ErrorKind::CommitUnknown,
            Self::Name { .. } | Self::Bug { .. } => ErrorKind::Bug,
        }
    }
}

/// An optional part of a message.
struct Field<'a, T>(&'static str, &'a Option<T>);

impl<T: fmt::Display> fmt::Display for Field<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(value) => write!(f, "{}{value}", self.0),
            None => Ok(()),
        }
    }
}
