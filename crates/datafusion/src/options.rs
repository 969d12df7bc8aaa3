//! Session options `item_affinity.*`: every argument of the functions has one.

use std::any::Any;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::common::{plan_datafusion_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};

/// Users per item when nothing else is asked for, as in Amazon Personalize.
pub const DEFAULT_NUM_RESULTS: usize = 25;
/// Users per item that may be asked for, as in Amazon Personalize.
pub const NUM_RESULTS_RANGE: RangeInclusive<usize> = 1..=5_000_000;
/// Items in one request when nothing else is asked for, as in Amazon Personalize.
pub const DEFAULT_MAX_ITEMS: usize = 500;

/// Reasons for each user of a segment when nothing else is asked for.
pub const DEFAULT_REASONS: usize = 3;
/// Reasons for each user of a segment that may be asked for.
pub const REASONS_RANGE: RangeInclusive<usize> = 1..=1_000;

/// Session options of the plugin, set by `SET item_affinity.<name> = …` and shown by `SHOW item_affinity.<name>`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ItemAffinityOptions {
    /// The solution version to answer from: a location, newest committed version, or `location@7`.
    pub solution_version: Option<String>,
    /// Users per item.
    pub num_results: usize,
    /// Items in one request; more are refused.
    pub max_items: usize,
    /// What happens to an item that was not present at training.
    pub on_unknown_item: OnUnknownItem,
    /// Whether users who already interacted with an item are in its segment.
    pub seen: Seen,
    /// The least score of a user in a segment.
    pub min_score: f32,
    /// Reasons for each user, where reasons are asked for.
    pub reasons: usize,
}

impl Default for ItemAffinityOptions {
    fn default() -> Self {
        Self {
            solution_version: None,
            num_results: DEFAULT_NUM_RESULTS,
            max_items: DEFAULT_MAX_ITEMS,
            on_unknown_item: OnUnknownItem::Skip,
            seen: Seen::Include,
            min_score: 0.0,
            reasons: DEFAULT_REASONS,
        }
    }
}

impl ExtensionOptions for ItemAffinityOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    /// Refuses what no query could use, when it is set and not when it is used.
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "solution_version" => self.solution_version = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "num_results" => self.num_results = checked_num_results("item_affinity.num_results", number(key, value)?)?,
            "max_items" => self.max_items = checked_max_items("item_affinity.max_items", number(key, value)?)?,
            "on_unknown_item" => {
                self.on_unknown_item = OnUnknownItem::parse("item_affinity.on_unknown_item", value)?;
            }
            "seen" => self.seen = value.parse()?,
            "min_score" => {
                let number = value.trim().parse().map_err(|_| {
                    plan_datafusion_err!("item_affinity.min_score must be a number in [0, 1], got '{value}'")
                })?;
                self.min_score = checked_min_score("item_affinity.min_score", number)?;
            }
            "reasons" => self.reasons = checked_reasons("item_affinity.reasons", number(key, value)?)?,
            other => {
                let known = self.entries().into_iter().map(|e| e.key).collect::<Vec<_>>().join(", ");
                return plan_err!("there is no option item_affinity.{other}; there are {known}");
            }
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |name: &str, value: Option<String>, description| ConfigEntry {
            key: format!("{}.{name}", Self::PREFIX),
            value,
            description,
        };
        vec![
            entry(
                "solution_version",
                self.solution_version.clone(),
                "The solution version to answer from: a location, newest version, or location@7.",
            ),
            entry("num_results", Some(self.num_results.to_string()), "Users per item."),
            entry("max_items", Some(self.max_items.to_string()), "Items in one request; more are refused."),
            entry(
                "on_unknown_item",
                Some(self.on_unknown_item.to_string()),
                "What happens to an item that was not present at training: skip or error.",
            ),
            entry(
                "seen",
                Some(self.seen.to_string()),
                "Whether users who already interacted with an item are in its segment: include, exclude or only.",
            ),
            entry("min_score", Some(self.min_score.to_string()), "The least score of a user in a segment, 0 to 1."),
            entry(
                "reasons",
                Some(self.reasons.to_string()),
                "Reasons for each user of a segment, where item_affinity_explain asks for them.",
            ),
        ]
    }
}

fn number(key: &str, value: &str) -> Result<i64> {
    value.trim().parse().map_err(|_| plan_datafusion_err!("item_affinity.{key} must be a whole number, got '{value}'"))
}

impl ConfigExtension for ItemAffinityOptions {
    const PREFIX: &'static str = "item_affinity";
}

/// What happens to an item that the solution version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknownItem {
    /// It has no segment; the others have theirs.
    Skip,
    /// The query fails and names it.
    Error,
}

impl OnUnknownItem {
    /// Reads what a person wrote as `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "skip" => Ok(Self::Skip),
            "error" => Ok(Self::Error),
            _ => plan_err!("{name} must be 'skip' or 'error', got '{text}'"),
        }
    }
}

impl fmt::Display for OnUnknownItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "skip",
            Self::Error => "error",
        })
    }
}

/// Whether users who already interacted with an item are in its segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// They are ranked like all others, by the probability that they will do it again.
    #[default]
    Include,
    /// They are left out: only users who never had the item.
    Exclude,
    /// Nobody else is in it.
    Only,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Include => "include",
            Self::Exclude => "exclude",
            Self::Only => "only",
        })
    }
}

impl Seen {
    /// Reads what a person wrote as `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "include" => Ok(Self::Include),
            "exclude" => Ok(Self::Exclude),
            "only" => Ok(Self::Only),
            _ => plan_err!("{name} must be 'include', 'exclude' or 'only', got '{text}'"),
        }
    }
}

impl FromStr for Seen {
    type Err = DataFusionError;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse("item_affinity.seen", text)
    }
}

/// The options of one call, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallOptions {
    pub(crate) num_results: usize,
    pub(crate) max_items: usize,
    pub(crate) on_unknown_item: OnUnknownItem,
    pub(crate) seen: Seen,
    pub(crate) min_score: f32,
    pub(crate) reasons: usize,
}

impl CallOptions {
    /// The session's options, which were checked when they were set.
    pub(crate) fn from_session(config: &ConfigOptions) -> Self {
        let default = ItemAffinityOptions::default();
        let options = config.extensions.get::<ItemAffinityOptions>().unwrap_or(&default);
        Self {
            num_results: options.num_results,
            max_items: options.max_items,
            on_unknown_item: options.on_unknown_item,
            seen: options.seen,
            min_score: options.min_score,
            reasons: options.reasons,
        }
    }
}

/// Checks a number of users per item against [`NUM_RESULTS_RANGE`]; `name` is what the person wrote it as.
pub(crate) fn checked_num_results<N: TryInto<usize> + fmt::Display + Copy>(name: &str, value: N) -> Result<usize> {
    match value.try_into() {
        Ok(n) if NUM_RESULTS_RANGE.contains(&n) => Ok(n),
        _ => plan_err!(
            "{name} must be in {}..={}, got {value}; the default is {DEFAULT_NUM_RESULTS}",
            NUM_RESULTS_RANGE.start(),
            NUM_RESULTS_RANGE.end()
        ),
    }
}

/// Checks a number of items; `name` is what the person wrote it as.
pub(crate) fn checked_max_items<N: TryInto<usize> + fmt::Display + Copy>(name: &str, value: N) -> Result<usize> {
    match value.try_into() {
        Ok(n) if n > 0 => Ok(n),
        _ => plan_err!("{name} must be at least 1, got {value}; the default is {DEFAULT_MAX_ITEMS}"),
    }
}

/// Checks a number of reasons against [`REASONS_RANGE`]; `name` is what the person wrote it as.
pub(crate) fn checked_reasons<N: TryInto<usize> + fmt::Display + Copy>(name: &str, value: N) -> Result<usize> {
    match value.try_into() {
        Ok(n) if REASONS_RANGE.contains(&n) => Ok(n),
        _ => plan_err!(
            "{name} must be in {}..={}, got {value}; the default is {DEFAULT_REASONS}",
            REASONS_RANGE.start(),
            REASONS_RANGE.end()
        ),
    }
}

/// Checks a least score; `name` is what the person wrote it as.
pub(crate) fn checked_min_score(name: &str, value: f64) -> Result<f32> {
    if !(0.0..=1.0).contains(&value) {
        return plan_err!("{name} must be a number in [0, 1], got {value}; the default is 0");
    }
    #[allow(clippy::cast_possible_truncation)] // scores are f32
    let value = value as f32;
    Ok(value)
}

/// The solution version that the session names, if any.
pub(crate) fn solution_version(config: &ConfigOptions) -> Option<&str> {
    config.extensions.get::<ItemAffinityOptions>().and_then(|o| o.solution_version.as_deref())
}

/// The solution version that the session names.
pub(crate) fn required_solution_version(config: &ConfigOptions) -> Result<&str> {
    let Some(text) = solution_version(config) else {
        return plan_err!(
            "no solution version is set; say which with SET item_affinity.solution_version = '<location>' \
             (the folder that item-affinity train wrote to, newest version, or '<location>@7')"
        );
    };
    Ok(text)
}
