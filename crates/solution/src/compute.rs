//! Long computations away from the async runtime, on as many threads as were asked for.

use tokio::task::spawn_blocking;

use crate::error::{Error, Result};

/// Runs a computation where it may take long; a panic in it becomes an error that names the stage.
pub(crate) async fn blocking<T: Send + 'static>(
    stage: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|_| Error::Panicked { stage })
}

/// Threads of a computation: the number asked for, or one per core.
pub(crate) fn pool(threads: Option<usize>) -> Result<rayon::ThreadPool> {
    let threads = threads.unwrap_or(0);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("item-affinity-{index}"))
        .build()
        .map_err(|source| Error::Threads { threads, source })
}
