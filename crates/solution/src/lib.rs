//! Trained solution versions: train, open and evaluate them.

mod compute;
mod dataset;
mod error;
mod estimate;
mod evaluate;
mod files;
mod fit;
mod history;
mod job_key;
mod load;
mod model_card;
mod observer;
mod reference;
mod states;
mod tables;
mod train;
mod version;
mod write;

pub use dataset::{Dataset, data_report};
pub use error::{Error, Result};
pub use evaluate::{EvaluationJob, EvaluationReport};
pub use history::{VersionSummary, versions};
pub use model_card::{EventFilter, ModelCard, ScoreKind};
pub use observer::{Observer, Silent, Stage};
pub use reference::SolutionRef;
pub use tables::{FORMAT, FORMAT_VERSION, factor_values, item_states_schema, user_states_schema};
pub use train::{PhaseSeconds, TrainingJob, TrainingReport};
pub use version::{ItemStates, SolutionVersion, UserPart, UserStates};
