//! The one crossing from this project's errors to DataFusion's.

use datafusion::error::DataFusionError;
use item_affinity_storage::ErrorKind;

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
    let root = error.find_root();
    match root {
        DataFusionError::External(inner) => kind_of(inner.as_ref()),
        DataFusionError::IoError(inner) => match inner.get_ref() {
            Some(inner) => kind_of(inner),
            None => ErrorKind::Storage,
        },
        DataFusionError::ObjectStore(_) => ErrorKind::Storage,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Limit,
        DataFusionError::Internal(_) => ErrorKind::Bug,
        _ => ErrorKind::BadInput,
    }
}

fn kind_of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ErrorKind {
    if let Some(error) = error.downcast_ref::<item_affinity_solution::Error>() {
        error.kind()
    } else if let Some(error) = error.downcast_ref::<item_affinity_storage::Error>() {
        error.kind()
    } else {
        ErrorKind::BadInput
    }
}
