//! The one crossing from this project's errors to DataFusion's.

use std::error::Error;

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
        Cause::Store(error) => error.kind(),
        Cause::Engine(root) => match root {
            DataFusionError::IoError(_) => ErrorKind::Storage,
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
