//! Session options `item_affinity.*`: every argument of the functions has one.

use std::fmt;
use std::ops::RangeInclusive;

use datafusion::common::{config::ConfigExtension, extensions_options, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;

/// Users per item when nothing else is asked for, as in Amazon Personalize.
pub const DEFAULT_NUM_RESULTS: usize = 25;
/// Users per item that may be asked for, as in Amazon Personalize.
pub const NUM_RESULTS_RANGE: RangeInclusive<usize> = 1..=5_000_000;
/// Items in one request when nothing else is asked for, as in Amazon Personalize.
pub const DEFAULT_MAX_ITEMS: usize = 500;

extensions_options! {
    /// Session options of the plugin, set by `SET item_affinity.<name> = …`.
    pub struct ItemAffinityOptions {
        /// The solution version to answer from: a location, newest committed version, or `location@7`.
        pub solution_version: Option<String>, default = None
        /// Users per item.
        pub num_results: usize, default = DEFAULT_NUM_RESULTS
        /// Items in one request; more are refused.
        pub max_items: usize, default = DEFAULT_MAX_ITEMS
        /// What happens to an item that was not present at training: `skip` or `error`.
        pub on_unknown_item: String, default = "skip".to_string()
    }
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

/// The options of one call, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallOptions {
    pub(crate) num_results: usize,
    pub(crate) max_items: usize,
    pub(crate) on_unknown_item: OnUnknownItem,
}

impl CallOptions {
    /// Reads the session options and checks them, since the option struct itself accepts any value of its type.
    pub(crate) fn from_session(config: &ConfigOptions) -> Result<Self> {
        let default = ItemAffinityOptions::default();
        let options = config.extensions.get::<ItemAffinityOptions>().unwrap_or(&default);
        if options.max_items == 0 {
            return plan_err!("item_affinity.max_items must be at least 1, got 0; the default is {DEFAULT_MAX_ITEMS}");
        }
        let on_unknown_item = match options.on_unknown_item.to_ascii_lowercase().as_str() {
            "skip" => OnUnknownItem::Skip,
            "error" => OnUnknownItem::Error,
            other => return plan_err!("item_affinity.on_unknown_item must be 'skip' or 'error', got '{other}'"),
        };
        Ok(Self {
            num_results: checked_num_results("item_affinity.num_results", options.num_results)?,
            max_items: options.max_items,
            on_unknown_item,
        })
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

/// The solution version that the session names, if any.
pub(crate) fn solution_version(config: &ConfigOptions) -> Option<&str> {
    config.extensions.get::<ItemAffinityOptions>().and_then(|o| o.solution_version.as_deref()).filter(|s| !s.is_empty())
}
