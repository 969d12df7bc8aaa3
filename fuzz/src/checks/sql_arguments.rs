//! Calls of the functions, from SQL that somebody else typed.

use std::panic::AssertUnwindSafe;

use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionContext};
use futures::FutureExt;
use item_affinity_datafusion::{SessionSettings, error_kind, error_message, session};
use item_affinity_storage::{ErrorKind, Stores};

use super::small_version;

/// A session whose solution version is the small one.
async fn small_session() -> SessionContext {
    let stores = Stores::in_memory();
    small_version::commit(&stores, &small_version::FILES).await;
    let settings = SessionSettings { memory_limit: Some(256 << 20), target_partitions: Some(1), temp_limit: None };
    let session = session(&stores, settings).expect("a session");
    let set = session.sql("SET item_affinity.solution_version = 'memory:///solution'").await.expect("an option");
    set.collect().await.expect("an option");
    session
}

/// A text as the arguments of each table function: refused, or planned down to its nodes.
pub fn check(data: &[u8]) {
    thread_local! {
        static SESSION: SessionContext = super::block_on(small_session());
    }
    // The engine's own limit of text is of the command line; here short texts say more.
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= 2_000) else { return };
    let session = SESSION.with(Clone::clone);
    for function in ["segments", "explain", "items", "versions", "output"] {
        let query = format!("SELECT * FROM item_affinity_{function}({text})");
        let planned = super::block_on(AssertUnwindSafe(plan(&session, &query)).catch_unwind());
        match planned {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let kind = error_kind(&error);
                // An internal error of the engine is its own defect.
                let internal = matches!(error.find_root(), DataFusionError::Internal(_));
                assert!(internal || kind != ErrorKind::Bug, "{error}");
                assert!(!error_message(&error).to_string().is_empty());
            }
            // The engine panicked, which the command line catches. A panic of our own code fails in the hook: `is_foreign`.
            Err(_) => {}
        }
    }
}

async fn plan(session: &SessionContext, query: &str) -> Result<(), DataFusionError> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = session.sql_with_options(query, options).await?;
    frame.create_physical_plan().await.map(drop)
}
