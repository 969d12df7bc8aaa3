//! The memory pool of a session, and what is said when it is too small.

use std::sync::Arc;

use datafusion::common::resources_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// A share of the memory of a session: its limit by `parts`, or so many bytes where there is none.
pub(crate) fn share(pool: &Arc<dyn MemoryPool>, parts: usize, without_limit: usize) -> usize {
    match pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes / parts,
        _ => without_limit,
    }
}

/// Sets a reservation to so many bytes.
///
/// # Errors   `ResourcesExhausted` when the pool has not so much left; it names what to change
pub(crate) fn resize(reservation: &MemoryReservation, bytes: usize) -> Result<()> {
    reservation.try_resize(bytes).map_err(with_cure)
}

/// The same error with what to change; any other error as it is.
pub(crate) fn with_cure(error: DataFusionError) -> DataFusionError {
    let DataFusionError::ResourcesExhausted(text) = error.find_root() else { return error };
    resources_datafusion_err!(
        "{}; ask for fewer items or a lower num_results, or allow more: SET datafusion.runtime.memory_limit = '4G', \
         --memory-limit on the command line",
        text.trim_end_matches(['.', '\n'])
    )
}
