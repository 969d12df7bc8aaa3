//! Numbers of item affinity.

mod csr;
mod error;
mod interactions;
mod recipe;
mod rows;
mod vocabulary;

pub use ndarray;

pub use csr::Csr;
pub use error::{Error, Result};
pub use interactions::{Decay, History, Interactions, Pairs};
pub use recipe::{HIDDEN_DIMENSION_RANGE, ItemAffinity, Setting};
pub use vocabulary::{Vocabulary, VocabularyBuilder};
