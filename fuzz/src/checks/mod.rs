//! What each fuzz target does with an input: a function `check` of bytes that panics when a promise is broken.
//!
//! Every outcome is fine but these: a panic, a hang, an error that is a defect of our own, and an error whose text is empty
//! or could write to a terminal. The targets drive these functions with libFuzzer, and `tests/corpora.rs` replays the
//! corpora.

pub mod commit;
pub mod filter_expression;
pub mod ingest;
pub mod item_list;
pub mod job_file;
pub mod path_policy;
pub mod preflight;
pub mod small_version;
pub mod solution_version;
pub mod sql_arguments;

use std::cell::RefCell;
use std::fmt::Display;
use std::future::Future;

use datafusion::object_store::ObjectStoreExt;
use item_affinity_storage::{Bytes, ErrorKind, Location, Stores};
use tokio::runtime::{Builder, Runtime};

/// Runs a future to its end, on a runtime that this thread keeps for its next input.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with(|kept| {
        let mut kept = kept.borrow_mut();
        let runtime =
            kept.get_or_insert_with(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
        runtime.block_on(work)
    })
}

/// A location of the store in memory.
pub fn location(name: &str) -> Location {
    Location::parse(&format!("memory:///{name}")).expect("a name that is no input")
}

/// Stores in memory that hold one object.
pub async fn stores_with(name: &str, data: &[u8]) -> Stores {
    let stores = Stores::in_memory();
    put(&stores, name, Bytes::copy_from_slice(data)).await;
    stores
}

/// Puts an object into stores in memory, past everything that checks it.
pub async fn put(stores: &Stores, name: &str, bytes: Bytes) {
    let location = location(name);
    let store = stores.store(&location).expect("memory needs no settings");
    store.put(location.path(), bytes.into()).await.expect("memory takes every object");
}

/// An error is of the input, says so on one line, and does nothing to a terminal.
pub fn told(kind: ErrorKind, error: &impl Display) {
    let text = error.to_string();
    assert_ne!(kind, ErrorKind::Bug, "{text}");
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

/// Whether a panic in this source file is one of others, or of the standard library. Caught where our code calls a decoder,
/// it is no finding; one of our own code is, caught or not.
pub fn is_foreign(file: &str) -> bool {
    file.contains("/registry/src/") || file.starts_with("/rustc/") || file.contains("/library/")
}
