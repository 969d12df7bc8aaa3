//! `model.json`: what was trained, on how much, and how well it went.

use std::collections::BTreeMap;

use item_affinity_model::ItemAffinity;
use serde::{Deserialize, Deserializer, Serialize};

use crate::tables::{FORMAT, FORMAT_MAJOR, FORMAT_VERSION};

/// What a score of the version means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScoreKind {
    /// The product of a user's and an item's factors: it orders users for an item, and has no unit.
    #[default]
    Affinity,
}

/// Which interactions were trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// Only these event types; all of them when empty.
    pub event_types: Vec<String>,
    /// Only interactions with at least this EVENT_VALUE.
    pub event_value_threshold: Option<f64>,
    /// Weight of an interaction by its event type; 1 for a type that is not named.
    pub event_weights: BTreeMap<String, f32>,
}

/// The model card of a solution version, as it stands in `model.json`.
///
/// It holds nothing that differs between two trainings on the same data: where the data came from and when it was read
/// is in the commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`] of the program that wrote the version.
    pub format_version: String,
    /// The program that wrote the version.
    pub tool: String,
    /// The recipe, with every setting.
    #[serde(deserialize_with = "known_settings")]
    pub recipe: ItemAffinity,
    /// What a score means.
    pub score: ScoreKind,
    /// Which interactions were trained on.
    #[serde(default)]
    pub events: EventFilter,
    /// Time of the newest interaction, in epoch seconds; decay counts from here.
    pub as_of: i64,
    /// Users, each with a state.
    pub users: u64,
    /// Items, each with a state.
    pub items: u64,
    /// Interactions that were trained on.
    pub interactions: u64,
    /// Distinct user-item pairs among them.
    pub pairs: u64,
    /// Objective after each iteration.
    pub loss: Vec<f64>,
    /// Measures of quality, by name; empty until something was measured.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// SHA-256 over all item ids in order, each ended by a line feed: tells versions of other data apart.
    pub item_ids_sha256: String,
    /// The same over all user ids.
    pub user_ids_sha256: String,
}

/// The part of a model card that every version of the format has.
#[derive(Deserialize)]
struct Head {
    format: String,
    format_version: String,
}

/// Why a `model.json` is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CardFault {
    /// Not a model card, or one that contradicts itself.
    Damaged(String),
    /// A major version that this program does not read.
    Version(String),
}

impl ModelCard {
    /// Reads `model.json`: the format first, because a newer major version may have changed anything else.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, CardFault> {
        let damaged = |e: serde_json::Error| CardFault::Damaged(format!("is no model card ({e})"));
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if head.format != FORMAT {
            return Err(CardFault::Damaged(format!("has the format {:?}, not {FORMAT:?}", head.format)));
        }
        if major(&head.format_version) != Some(FORMAT_MAJOR) {
            return Err(CardFault::Version(head.format_version));
        }
        let card: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        card.recipe.validate().map_err(|e| CardFault::Damaged(format!("has an impossible recipe ({e})")))?;
        Ok(card)
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// The name and version of this program, the same for every run.
    pub(crate) fn this_tool() -> String {
        concat!("item-affinity ", env!("CARGO_PKG_VERSION")).to_owned()
    }

    pub(crate) fn current_format() -> (String, String) {
        (FORMAT.to_owned(), FORMAT_VERSION.to_owned())
    }
}

fn major(version: &str) -> Option<u64> {
    let (major, minor) = version.split_once('.')?;
    minor.parse::<u64>().ok()?;
    major.parse().ok()
}

/// Takes the settings that this program knows; a later minor version may have added more.
pub(crate) fn known_settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ItemAffinity, D::Error> {
    use serde::de::Error as _;
    let mut settings = serde_json::Map::<String, serde_json::Value>::deserialize(deserializer)?;
    let known = serde_json::to_value(ItemAffinity::default()).map_err(D::Error::custom)?;
    settings.retain(|name, _| known.get(name).is_some());
    serde_json::from_value(settings.into()).map_err(D::Error::custom)
}
