//! The one crossing from this project's errors to DataFusion's.

use std::error::Error;
use std::fmt;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use item_affinity_storage::{ErrorKind, from_object_store};

/// Turns an error of the solution room into DataFusion's form.
///
/// Storage faults become `IoError`, the only kind that a cluster retries; what a person has to change keeps its own
/// type behind `External`, so that the command line can still read its exit code.
pub(crate) fn from_solution(error: item_affinity_solution::Error) -> DataFusionError {
    match error.kind() {
        ErrorKind::Storage => DataFusionError::IoError(std::io::Error::other(error)),
        _ => DataFusionError::External(Box::new(error)),
    }
}

/// Turns an error of the storage room into DataFusion's form, by the same rule.
pub(crate) fn from_storage(error: item_affinity_storage::Error) -> DataFusionError {
    match error.kind() {
        ErrorKind::Storage => DataFusionError::IoError(std::io::Error::other(error)),
        _ => DataFusionError::External(Box::new(error)),
    }
}

/// What went wrong in a task of a cluster, or on the way to one. Errors of tasks reach the client as text, so the text
/// says what kind of error it was.
pub struct TaskError {
    kind: ErrorKind,
    message: String,
}

/// What begins the text of an error that travels; its exit code follows, then a colon.
const TASK_ERROR: &str = "ERR_CLUSTER_TASK ";

/// What a person has to change, or may try again.
const KINDS: [ErrorKind; 7] = [
    ErrorKind::Bug,
    ErrorKind::Usage,
    ErrorKind::BadInput,
    ErrorKind::Storage,
    ErrorKind::Conflict,
    ErrorKind::CommitUnknown,
    ErrorKind::Limit,
];

impl TaskError {
    /// An error of this kind; `message` is one line with a code and a cure.
    #[must_use]
    pub fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message }
    }

    /// Finds the error of a task in what a cluster says of a failed query; none: no task said anything.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (code, message) = text.split_once(TASK_ERROR)?.1.split_once(": ")?;
        let kind = KINDS.into_iter().find(|kind| kind.exit_code().to_string() == code)?;
        // A cluster puts its own words around the error, and quotes line breaks.
        let end = message.find(TASK_ERROR_END).unwrap_or(message.len());
        Some(Self { kind, message: message[..end].to_owned() })
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person reads.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The engine's form; only faults of storage are tried again by a cluster.
    #[must_use]
    pub fn into_datafusion(self) -> DataFusionError {
        match self.kind {
            ErrorKind::Storage => DataFusionError::IoError(std::io::Error::other(self)),
            _ => DataFusionError::External(Box::new(self)),
        }
    }
}

/// What ends the text of an error that travels.
const TASK_ERROR_END: &str = " (end of the task's error)";

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TASK_ERROR}{}: {}{TASK_ERROR_END}", self.kind.exit_code(), self.message)
    }
}

/// A cluster writes errors down in their debug form.
impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for TaskError {}

/// Turns an error of the model room into DataFusion's form.
pub(crate) fn from_model(error: item_affinity_model::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The exit code that an error of a query deserves: what our own rooms say about it, else bad input for what the SQL
/// author wrote, storage for I/O, limit for memory.
#[must_use]
pub fn error_kind(error: &DataFusionError) -> ErrorKind {
    match cause(error) {
        Cause::Ours(kind, _) => kind,
        Cause::Task(error) => error.kind(),
        Cause::Store(error) => error.kind(),
        Cause::Engine(root) => match root {
            DataFusionError::IoError(_) => ErrorKind::Storage,
            // Writers of temporary files wrap what the disk answered.
            DataFusionError::ArrowError(error, _) if matches!(**error, ArrowError::IoError(..)) => ErrorKind::Storage,
            DataFusionError::ResourcesExhausted(_) => ErrorKind::Limit,
            DataFusionError::Internal(_) => ErrorKind::Bug,
            _ => ErrorKind::BadInput,
        },
    }
}

/// What a person reads of an error of a query: what our own rooms say, also of a store that the engine asked, without
/// the engine's words before it.
#[must_use]
pub fn error_message(error: &DataFusionError) -> String {
    match cause(error) {
        Cause::Ours(_, error) => error.to_string(),
        Cause::Task(error) => error.message().to_owned(),
        Cause::Store(error) => error.to_string(),
        Cause::Engine(DataFusionError::Plan(text)) => text.clone(),
        Cause::Engine(DataFusionError::SQL(error, _)) => syntax_message(error),
        Cause::Engine(DataFusionError::External(error)) => error.to_string(),
        Cause::Engine(root) => root.to_string(),
    }
}

/// What the parser says, without its own names, and what is most often behind a missing parenthesis.
fn syntax_message(error: &ParserError) -> String {
    let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = error else {
        return format!("this SQL cannot be read: {error}");
    };
    let cure = if text.starts_with("Expected: ),") {
        "; a query that is an argument stands in parentheses of its own: f((SELECT …))"
    } else {
        ""
    };
    format!("this SQL cannot be read: {text}{cure}")
}

/// The error of a chain that says most.
enum Cause<'a> {
    Ours(ErrorKind, &'a (dyn Error + 'static)),
    Task(&'a TaskError),
    Store(item_affinity_storage::Error),
    Engine(&'a DataFusionError),
}

fn cause(error: &DataFusionError) -> Cause<'_> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<item_affinity_solution::Error>() {
            return Cause::Ours(ours.kind(), error);
        }
        if let Some(ours) = error.downcast_ref::<item_affinity_storage::Error>() {
            return Cause::Ours(ours.kind(), error);
        }
        if let Some(ours) = error.downcast_ref::<TaskError>() {
            return Cause::Task(ours);
        }
        if let Some(answer) = error.downcast_ref::<datafusion::object_store::Error>() {
            return Cause::Store(from_object_store(answer));
        }
        next = match error.downcast_ref::<std::io::Error>() {
            // An `io::Error` hides what it wraps from `source`.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    Cause::Engine(error.find_root())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_tasks_keep_kind_and_message_among_the_words_of_a_cluster() {
        for kind in KINDS {
            let task = TaskError::new(kind, "ERR_STORE: 503; file=s3://lake/a: b; run again".to_owned());
            let said = format!("Job 7 failed: Task failed 4 times: \"{:?}\" and so on", task.into_datafusion());
            let back = TaskError::from_text(&said).unwrap();
            assert_eq!((back.kind(), back.message()), (kind, "ERR_STORE: 503; file=s3://lake/a: b; run again"));
            assert_eq!(error_kind(&back.into_datafusion()), kind);
        }
        for text in ["", "Job 7 failed", "ERR_CLUSTER_TASK 9: x", "ERR_CLUSTER_TASK 5"] {
            assert!(TaskError::from_text(text).is_none(), "{text}");
        }
    }
}
