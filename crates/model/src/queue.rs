//! Tasks of very different size, shared out as threads become free.

use std::sync::{Mutex, PoisonError};

/// Tasks that wait, largest first by the care of who fills it.
pub(crate) struct Queue<T>(Mutex<std::vec::IntoIter<T>>);

impl<T> Queue<T> {
    /// The next task, for whoever asks first.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Runs `worker` once on each thread of the pool, until the queue it is given is empty.
///
/// Which thread takes which task is chance: tasks must not add into anything shared.
pub(crate) fn drain<T: Send>(tasks: Vec<T>, worker: impl Fn(&Queue<T>) + Sync) {
    let queue = Queue(Mutex::new(tasks.into_iter()));
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads() {
            scope.spawn(|_| worker(&queue));
        }
    });
}
