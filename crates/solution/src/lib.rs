//! Trained solution versions: train, refresh, open and evaluate them.
//!
//! ```no_run
//! use item_affinity_solution::{SolutionVersion, TrainingJob};
//! use item_affinity_storage::Stores;
//!
//! # async fn example() -> item_affinity_solution::Result<()> {
//! let report = TrainingJob::new("s3://lake/interactions/").solution("s3://lake/affinity").run().await?;
//!
//! let stores = Stores::from_env();
//! let version = SolutionVersion::open(&stores, &report.solution).await?;
//! println!("{}: {} items, {} parts of users", report.solution, version.items.ids.len(), version.user_parts.len());
//! for part in &version.user_parts {
//!     let parquet = version.read_user_part(&stores, part).await?;
//!     println!("{} users in {} bytes", part.rows, parquet.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # On disk
//! ```text
//! <solution>/_item_affinity/commits/00000000000000000007.json    makes version 7 visible
//! <solution>/versions/<run_id>/items/part-00000.parquet          item states, sorted by item_id
//! <solution>/versions/<run_id>/users/part-00000.parquet …        user states, sorted by user_id
//! <solution>/versions/<run_id>/pairs/part-00000.parquet …        pairs with history, sorted by item_index, user_index
//! <solution>/versions/<run_id>/model.json                        the model card
//! ```
//! The same data, recipe and program give the same bytes in every data file; what differs from run to run is in the
//! commit. Nothing of a version is believed before its checksum and its rules are checked, and every fault names the
//! file.

mod compute;
mod dataset;
mod error;
mod estimate;
mod evaluate;
mod evaluation_table;
mod files;
mod fit;
mod forget;
mod history;
mod job_key;
mod load;
mod model_card;
mod moment;
mod next_version;
mod observer;
mod reference;
mod refresh;
mod states;
mod tables;
mod train;
mod user_history;
mod version;
mod write;

pub use dataset::{Dataset, DatasetSchemas, data_report};
pub use error::{Error, Result};
pub use evaluate::{EvaluationJob, EvaluationReport, Protocol};
pub use evaluation_table::{EvaluationFormat, evaluation_schema};
pub use forget::{Forgotten, forget_users, knows_any};
pub use history::{VersionSummary, versions};
pub use model_card::{EventFilter, ModelCard, ScoreKind};
pub use moment::moment;
pub use next_version::{LOCK_TIMEOUT, PhaseSeconds};
pub use observer::{Observer, Silent, Stage};
pub use reference::SolutionRef;
pub use refresh::{
    Changes, GatheredPairs, GatheredUsers, RefreshJob, RefreshReport, RefreshStage, RefreshTask, RefreshTasks,
    RefreshWork, Sums, TaskFailure,
};
pub use tables::decode::MOST_ID_BYTES;
pub use tables::pairs::pairs_schema;
pub use tables::{FORMAT, FORMAT_VERSION, factor_values, item_states_schema, user_states_schema};
pub use train::{TrainingJob, TrainingReport};
pub use version::{ItemHistory, ItemStates, PairPart, SolutionVersion, UserPart, UserStates};
