//! A solution version in memory: item states whole, user states as parts to be read one by one.

use item_affinity_model::ndarray::Array2;
use item_affinity_model::{Csr, Vocabulary};
use item_affinity_storage::{Commit, FileEntry, Location};

use crate::model_card::ModelCard;
use crate::reference::SolutionRef;

/// An opened solution version; [`SolutionVersion::open`] makes one.
#[derive(Debug)]
#[non_exhaustive]
pub struct SolutionVersion {
    /// Where it is, with its number.
    pub reference: SolutionRef,
    /// The commit that makes it visible.
    pub commit: Commit,
    /// What was trained, on how much, and how well it went.
    pub model: ModelCard,
    /// State of every item.
    pub items: ItemStates,
    /// The files of the user states, in the order of `user_index`.
    pub user_parts: Vec<UserPart>,
    /// The files of the pairs with history, in the order of `item_index`.
    pub pair_parts: Vec<PairPart>,
}

/// One file of pairs with history.
#[derive(Clone, Debug)]
pub struct PairPart {
    /// The file as the commit names it.
    pub entry: FileEntry,
    /// `item_index` of its first row.
    pub first_item: u32,
    /// The last `item_index` that may be in it.
    pub last_item: u32,
    /// Rows.
    pub rows: u32,
}

/// The pairs of some items with history.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemHistory {
    /// Asked items × all users: the whole log-odds of each pair.
    pub log_odds: Csr,
    /// The same pairs: what the user's factors were solved with.
    pub weights: Csr,
}

/// What the model knows of each item; row `i` of everything belongs to item `i` of `ids`.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemStates {
    /// Item ids, in byte order.
    pub ids: Vocabulary,
    /// Items × hidden_dimension.
    pub factors: Array2<f32>,
    /// What each adds to the log-odds of a new pair.
    pub log_odds: Vec<f32>,
    /// Interactions with the item.
    pub interactions: Vec<i64>,
    /// Distinct users among them.
    pub users: Vec<i64>,
    /// Time of the newest one, in epoch seconds.
    pub last_interaction: Vec<i64>,
}

/// One file of user states: a range of `user_index` and a unit of work.
#[derive(Clone, Debug)]
pub struct UserPart {
    /// The file as the commit names it.
    pub entry: FileEntry,
    /// Where the file is.
    pub location: Location,
    /// `user_index` of its first row; the others count up from it.
    pub first_user_index: u32,
    /// Rows.
    pub rows: u32,
}

/// What the model knows of each user, all parts together; row `u` of everything belongs to user `u` of `ids`.
#[derive(Clone, Debug, PartialEq)]
pub struct UserStates {
    /// User ids, in byte order.
    pub ids: Vocabulary,
    /// Users × hidden_dimension.
    pub factors: Array2<f32>,
    /// What each adds to the log-odds of a new pair.
    pub log_odds: Vec<f32>,
    /// Interactions of the user.
    pub interactions: Vec<i64>,
    /// Time of the newest one, in epoch seconds.
    pub last_interaction: Vec<i64>,
}

impl SolutionVersion {
    /// Where the version is, with its number.
    #[must_use]
    pub fn reference(&self) -> &SolutionRef {
        &self.reference
    }
}
