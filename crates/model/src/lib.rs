//! From who did what, to who will want this next: the numbers of item affinity.
//!
//! Interactions become a sparse users × items matrix; [`fit`] gives every user and item a few hidden variables whose
//! product is an affinity; [`score_tile`] and [`TopKUsers`] rank the users of an item; [`evaluate_personalize`] tells
//! how well that foresees what was held out. The crate knows numbers only: no files, no Arrow, no SQL, nothing async.
//!
//! ```
//! use std::ops::ControlFlow;
//! use item_affinity_model::{Interactions, ItemAffinity, TopKUsers, Vocabulary, fit, score_tile};
//!
//! // Ann and Bob drink tea, Cy and Di coffee; Bob has not tried the cups yet.
//! let users = Vocabulary::from_sorted(["ann", "bob", "cy", "di"])?;
//! let items = Vocabulary::from_sorted(["beans", "cups", "filter", "tea"])?;
//! let events = [(0, 1), (0, 3), (1, 3), (2, 0), (2, 2), (3, 0), (3, 2)];
//! let (user_index, item_index) = events.into_iter().unzip();
//! let log = Interactions::new(users, items, user_index, item_index, vec![0; 7], vec![1.0; 7])?;
//!
//! let by_user = log.pairs(None)?;
//! let recipe = ItemAffinity { hidden_dimension: 32, ..ItemAffinity::default() };
//! let factors = fit(&recipe, &by_user, &by_user.transpose(), &mut |_| ControlFlow::Continue(()))?;
//!
//! let mut scores = vec![0.0; 4 * 4];
//! score_tile(factors.item_factors.view(), factors.user_factors.view(), &mut scores)?;
//! let mut best = TopKUsers::new(4, 2);
//! best.push(&scores, &[0, 1, 2, 3])?;
//! let cups = log.items().index_of("cups").unwrap();
//! let segment: Vec<_> = best.finish()[cups as usize].iter().filter_map(|s| log.users().id(s.user_index)).collect();
//! assert_eq!(segment, ["ann", "bob"]);
//! # Ok::<(), item_affinity_model::Error>(())
//! ```

mod ahead;
mod als;
mod attributes;
mod beginning;
mod clock;
mod csr;
#[cfg(test)]
mod dense_reference;
mod elementary;
mod error;
mod evaluate;
mod evaluate_time;
mod explain;
mod fixed;
mod fold_in;
mod fold_in_part;
mod half_step;
mod hash;
mod interactions;
mod lanes;
mod large_pages;
mod linalg;
mod logistic;
mod metrics;
mod observed;
mod propensity;
mod queue;
mod recipe;
mod row_blocks;
mod row_descent;
mod row_solve;
mod rows;
mod side_choice;
mod side_information;
mod simd;
mod terms;
mod top_k;
mod train;
mod vocabulary;

pub use ndarray;

pub use als::{Factors, Iteration, fit, fit_with, refit};
pub use attributes::{AttributeColumn, Attributes, Encoding, MOST_DEVIATIONS, SideInformation};
pub use clock::Clock;
pub use csr::Csr;
pub use error::{Error, Result};
pub use evaluate::{PersonalizeEvaluation, evaluate_personalize};
pub use evaluate_time::{
    Bucket, Calibration, CalibrationBin, Interval, RANKERS, RankerQuality, TimeEvaluation, TimeProtocol, View,
    evaluate_time,
};
pub use explain::{Explainer, Explanation, Reason};
pub use fold_in::{FoldIn, fold_in};
pub use fold_in_part::{PartNow, fold_in_part};
pub use interactions::{Decay, History, Interactions, LeftOut};
pub use metrics::{PersonalizeMetrics, PersonalizeTally, one_percent};
pub use propensity::{AFFINITY_FLOOR, LearntFrom, LogOdds, NewPairSlopes, Propensity, Regime, probability};
pub use recipe::{HIDDEN_DIMENSION_RANGE, ItemAffinity, Setting};
pub use side_choice::{SideChoice, SideDecision, choose_side_information};
pub use terms::{Everyone, Sum};
pub use top_k::{ItemPanels, Rank, Scored, SharedThresholds, TileLogOdds, TopKUsers, dot, score_tile};
pub use train::{TrainedModel, UsersNow, fold_in_users, train};
pub use vocabulary::{Vocabulary, VocabularyBuilder};
