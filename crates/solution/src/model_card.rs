//! `model.json`: what was trained, on how much, and how well it went.

use std::collections::BTreeMap;

use item_affinity_model::{ItemAffinity, NewPairSlopes, Propensity, SideChoice, TimeEvaluation};
use serde::{Deserialize, Deserializer, Serialize};

use crate::tables::{FORMAT, FORMAT_MAJOR, FORMAT_VERSION};

/// What a score of the version means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScoreKind {
    /// The calibrated probability that the user interacts with the item within the horizon.
    #[default]
    Probability,
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
    /// Whether an interaction counts its EVENT_VALUE.
    pub value_as_weight: bool,
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
    /// The moment right after the newest interaction, in epoch seconds: scores look ahead from here.
    pub as_of: i64,
    /// Seconds that scores look ahead.
    pub horizon_seconds: i64,
    /// Time of the oldest interaction that was read, in epoch seconds.
    pub first_interaction: i64,
    /// Time of the newest one, in epoch seconds; a refresh may have left out what it is with.
    pub last_interaction: i64,
    /// Users, each with a state.
    pub users: u64,
    /// Items, each with a state.
    pub items: u64,
    /// Interactions that the states come from.
    pub interactions: u64,
    /// Distinct user-item pairs among them.
    pub pairs: u64,
    /// Objective after each iteration; empty for a refresh, which fits nothing.
    pub loss: Vec<f64>,
    /// How affinities and histories become probabilities.
    pub propensity: Propensity,
    /// How the affinity of a new pair counts in its log-odds.
    pub slopes: NewPairSlopes,
    /// The item of the first row of each part of pairs.
    pub pair_parts: Vec<u32>,
    /// Which attributes are used, and on what evidence.
    #[serde(default)]
    pub side: SideChoice,
    /// Columns of Items whose attributes are used.
    #[serde(default)]
    pub item_attributes: Vec<String>,
    /// Columns of Users whose attributes are used.
    #[serde(default)]
    pub user_attributes: Vec<String>,
    /// What a person should know before they trust the probabilities.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Quality on the newest tenth of the events, by a model of the rest; none unless it was asked for.
    #[serde(default)]
    pub evaluation: Option<TimeEvaluation>,
    /// The version that was trained, of which a refresh has the item factors and coefficients; none for a training.
    #[serde(default)]
    pub refreshed_from: Option<u64>,
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

/// What a warning begins with that says whose interactions are still in item factors.
pub(crate) const FORGOTTEN: &str = "FORGOTTEN";

impl ModelCard {
    /// Warnings that stay true until a training.
    pub(crate) fn marks(&self) -> Vec<String> {
        self.warnings.iter().filter(|warning| warning.starts_with(FORGOTTEN)).cloned().collect()
    }

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
        // The ranking kernel passes over pairs below a line that is a bound only for slopes that do not fall.
        if !card.slopes.are_sound() {
            return Err(CardFault::Damaged("has slopes that are negative or not finite".to_owned()));
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use item_affinity_model::Regime;

    use super::*;

    fn card() -> ModelCard {
        let (format, format_version) = ModelCard::current_format();
        ModelCard {
            format,
            format_version,
            tool: ModelCard::this_tool(),
            recipe: ItemAffinity { half_life_days: Some(30.5), ..ItemAffinity::default() },
            score: ScoreKind::Probability,
            events: EventFilter { event_types: vec!["view".to_owned()], ..EventFilter::default() },
            as_of: 1_700_000_000,
            horizon_seconds: 86_400,
            first_interaction: 1_600_000_000,
            last_interaction: 1_699_999_999,
            users: 3,
            items: 2,
            interactions: 9,
            pairs: 5,
            // A value that the quick way of reading floats gets wrong in the last place.
            loss: vec![51.248_172_317_833_045, 1.0 / 3.0],
            propensity: Propensity {
                horizon_seconds: 86_400,
                window: None,
                user_half_life_events: Some(8.0),
                new_pairs: Regime::Prior { log_odds: -51.248_172_317_833_045 },
                repeat_pairs: Regime::Never,
            },
            slopes: NewPairSlopes { affinity: 1.5, log_affinity: 0.1 },
            pair_parts: vec![0],
            side: SideChoice::default(),
            item_attributes: vec!["BRAND".to_owned()],
            user_attributes: Vec::new(),
            warnings: vec!["few".to_owned()],
            evaluation: None,
            refreshed_from: Some(3),
            metrics: BTreeMap::from([("recall_at_1_percent".to_owned(), 0.25)]),
            item_ids_sha256: "aa".to_owned(),
            user_ids_sha256: "bb".to_owned(),
        }
    }

    fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Result<ModelCard, CardFault> {
        let mut value = serde_json::to_value(card()).unwrap();
        change(&mut value);
        ModelCard::from_json(&serde_json::to_vec(&value).unwrap())
    }

    #[test]
    fn a_card_is_read_back_as_it_was_written() {
        let text = card().to_json().unwrap();
        assert_eq!(ModelCard::from_json(&text).unwrap(), card());
        assert!(text.ends_with(b"}\n"));
    }

    #[test]
    fn other_majors_are_told_by_their_version() {
        for version in ["2.0", "0.9", "10.1", "1", "new"] {
            let outcome = changed(|card| card["format_version"] = version.into());
            assert_eq!(outcome, Err(CardFault::Version(version.to_owned())));
        }
        assert_eq!(changed(|card| card["format_version"] = "1.12".into()).unwrap().format_version, "1.12");
    }

    #[test]
    fn unknown_fields_and_settings_are_passed_over() {
        let outcome = changed(|card| {
            card["weather"] = "mild".into();
            card["recipe"]["ridge"] = 7.into();
        });
        assert_eq!(outcome, Ok(card()));
    }

    #[test]
    fn slopes_that_the_ranking_cannot_bound_are_damage() {
        for (slope, value) in [("affinity", -1.5), ("log_affinity", -0.1), ("affinity", 1e300)] {
            let outcome = changed(|card| card["slopes"][slope] = value.into());
            assert!(matches!(outcome, Err(CardFault::Damaged(_))), "{slope} {value}");
        }
        let flat = changed(|card| card["slopes"]["log_affinity"] = 0.into());
        assert_eq!(flat.unwrap().slopes.log_affinity, 0.0);
    }

    #[test]
    fn missing_fields_are_damage() {
        for field in ["format", "recipe", "users", "loss", "item_ids_sha256"] {
            let outcome = changed(|card| {
                card.as_object_mut().unwrap().remove(field);
            });
            assert!(matches!(outcome, Err(CardFault::Damaged(_))), "{field}");
        }
        for text in ["", "[]", "PAR1", "{\"format\": 1}"] {
            assert!(matches!(ModelCard::from_json(text.as_bytes()), Err(CardFault::Damaged(_))), "{text}");
        }
    }
}
