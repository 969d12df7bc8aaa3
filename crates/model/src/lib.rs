//! Numbers of item affinity.

mod als;
mod csr;
mod error;
mod evaluate;
mod fold_in;
mod half_step;
mod interactions;
mod linalg;
mod metrics;
mod queue;
mod recipe;
mod rows;
mod top_k;
mod vocabulary;

pub use ndarray;

pub use als::{Factors, Iteration, fit};
pub use csr::Csr;
pub use error::{Error, Result};
pub use evaluate::{PersonalizeEvaluation, evaluate_personalize};
pub use fold_in::{FoldIn, fold_in};
pub use interactions::{Decay, History, Interactions, Pairs};
pub use metrics::{PersonalizeMetrics, PersonalizeTally, one_percent};
pub use recipe::{HIDDEN_DIMENSION_RANGE, ItemAffinity, Setting};
pub use top_k::{Scored, TopKUsers, dot, score_tile};
pub use vocabulary::{Vocabulary, VocabularyBuilder};
