//! What to read as Interactions, and by which rules.

use std::sync::Arc;

use item_affinity_storage::{Location, Tombstones};

use crate::columns::ColumnMapping;
use crate::dataset_schema::DatasetSchema;
use crate::error::{Error, Result, printable};
use crate::schema::{EVENT_TYPE, EVENT_VALUE};
use crate::tally::BadRowLimits;
use crate::timestamp::TimestampUnit;

/// The files of the event log and the rules by which their rows count.
///
/// | Setting | Default | Range | Purpose |
/// | --- | --- | --- | --- |
/// | `event_types` | empty: all | exact text | which events count |
/// | `event_value_threshold` | none | finite | events of at least this value count; one without a value does not |
/// | `event_weights` | empty: all 1 | 0 to 1e30 | what an event counts by its type; a type that is not listed counts 1 |
/// | `value_as_weight` | false | | an event counts its value; one without a value counts 1 |
/// | `timestamp_unit` | detected | s, ms, us, ns | the unit of bare integer times |
/// | `max_bad_row_share` | 0.01 | 0 to 1 | rows that may be rejected for a bad value |
/// | `max_bad_structure_share` | 0 | 0 to 1 | rows that may be rejected for an absent id or time |
///
/// Amazon Personalize takes one event type, ignores event weights for this recipe and never weighs by value.
#[derive(Clone, Debug)]
pub struct InteractionsSource {
    /// Files, folders or globs.
    pub locations: Vec<Location>,
    /// The schema of CSV files; Parquet files say themselves what they hold.
    pub schema: Option<Arc<DatasetSchema>>,
    /// Columns that go by other names.
    pub columns: ColumnMapping,
    /// Event types that count; empty for all.
    pub event_types: Vec<String>,
    /// The least EVENT_VALUE that counts.
    pub event_value_threshold: Option<f64>,
    /// What an event counts by its type; multiplied with the value when that is a weight too.
    pub event_weights: Vec<(String, f32)>,
    /// Whether EVENT_VALUE is a weight, not only a threshold.
    pub value_as_weight: bool,
    /// The unit of integer times, when it is not to be detected. Arrow timestamps carry their own.
    pub timestamp_unit: Option<TimestampUnit>,
    /// The share of rows that may be rejected for a bad value.
    pub max_bad_row_share: f64,
    /// The share of rows that may be rejected because an id or a time is absent.
    pub max_bad_structure_share: f64,
    /// Bytes that reading and sorting may take; no limit unless given.
    pub memory_limit: Option<u64>,
    /// Users who were forgotten: their rows are left out.
    pub forgotten: Arc<Tombstones>,
    /// Readers that work side by side; the number of processors when not given. The result does not depend on it.
    pub threads: Option<usize>,
}

impl InteractionsSource {
    /// All events of these locations, by the default rules.
    pub fn new(locations: Vec<Location>) -> Self {
        Self {
            locations,
            schema: None,
            columns: ColumnMapping::new(),
            event_types: Vec::new(),
            event_value_threshold: None,
            event_weights: Vec::new(),
            value_as_weight: false,
            timestamp_unit: None,
            max_bad_row_share: 0.01,
            max_bad_structure_share: 0.0,
            memory_limit: None,
            forgotten: Arc::default(),
            threads: None,
        }
    }

    /// Lets this share of rows be rejected for any reason, absent ids and times included.
    pub fn max_bad_rows(mut self, share: f64) -> Self {
        self.max_bad_row_share = share;
        self.max_bad_structure_share = share;
        self
    }

    /// Optional columns that the rules need.
    pub(crate) fn needed(&self) -> Vec<&'static str> {
        let mut needed = Vec::new();
        if !self.event_types.is_empty() || !self.event_weights.is_empty() {
            needed.push(EVENT_TYPE);
        }
        if self.event_value_threshold.is_some() || self.value_as_weight {
            needed.push(EVENT_VALUE);
        }
        needed
    }

    /// Whether every row that is not rejected is kept.
    pub(crate) fn keeps_all(&self) -> bool {
        self.event_types.is_empty() && self.event_value_threshold.is_none()
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            timestamp_unit: self.timestamp_unit,
            event_types: self.event_types.clone(),
            event_weights: self.event_weights.clone(),
            event_value_threshold: self.event_value_threshold,
            value_as_weight: self.value_as_weight,
        }
    }

    pub(crate) fn limits(&self) -> BadRowLimits {
        BadRowLimits { structure: self.max_bad_structure_share, values: self.max_bad_row_share }
    }

    /// Refuses settings that cannot be meant, before any file is opened.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |option, what: String, cure: &str| Err(Error::Option { option, what, cure: cure.to_string() });
        if self.locations.is_empty() {
            return wrong("--interactions", "no location is given".into(), "name a file, a folder or a glob");
        }
        for share in [self.max_bad_row_share, self.max_bad_structure_share] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(
                    "--max-bad-rows",
                    format!("{share} is not in 0..=1"),
                    "use 0.01 for one row in a hundred",
                );
            }
        }
        if let Some(threshold) = self.event_value_threshold
            && !threshold.is_finite()
        {
            return wrong("--event-value-threshold", format!("{threshold} is not a finite number"), "give a number");
        }
        if self.event_types.iter().any(String::is_empty) {
            return wrong("--event-type", "an event type is empty".into(), "leave it out to take all event types");
        }
        for (position, (name, weight)) in self.event_weights.iter().enumerate() {
            let name_shown = printable(name);
            if !(0.0..=1e30).contains(weight) {
                return wrong(
                    "--event-weights",
                    format!("{name_shown}={weight} is not in 0..=1e30"),
                    "use 1 for a plain event",
                );
            }
            if self.event_weights[..position].iter().any(|(other, _)| other == name) {
                return wrong("--event-weights", format!("{name_shown} has two weights"), "name each event type once");
            }
        }
        Ok(())
    }
}

/// What the options of a read say about rows.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) timestamp_unit: Option<TimestampUnit>,
    pub(crate) event_types: Vec<String>,
    pub(crate) event_weights: Vec<(String, f32)>,
    pub(crate) event_value_threshold: Option<f64>,
    pub(crate) value_as_weight: bool,
}

impl Rules {
    /// Whether an event can weigh anything but 1.
    pub(crate) fn weighs(&self) -> bool {
        self.value_as_weight || !self.event_weights.is_empty()
    }
}

/// Reads event weights as the command line takes them: `view=1,purchase=4`.
///
/// # Errors
/// [`Error::Option`] when a part has no `=` or its right side is no number.
pub fn parse_event_weights(text: &str) -> Result<Vec<(String, f32)>> {
    let wrong = |part: &str| Error::Option {
        option: "--event-weights",
        what: format!("{:?} is no weight", printable(part)),
        cure: "give them as view=1,purchase=4".to_string(),
    };
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (name, weight) = part.rsplit_once('=').ok_or_else(|| wrong(part))?;
            let weight = weight.trim().parse::<f32>().map_err(|_| wrong(part))?;
            if name.trim().is_empty() { Err(wrong(part)) } else { Ok((name.trim().to_string(), weight)) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> InteractionsSource {
        InteractionsSource::new(vec![Location::parse("memory:///events/").unwrap()])
    }

    fn refusal(change: impl FnOnce(&mut InteractionsSource)) -> String {
        let mut source = source();
        change(&mut source);
        source.validate().unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_valid_and_need_no_optional_column() {
        assert!(source().validate().is_ok());
        assert!(source().needed().is_empty());
    }

    #[test]
    fn rules_that_look_at_a_column_need_it() {
        let mut weighted = source();
        weighted.event_weights = vec![("view".into(), 2.0)];
        weighted.value_as_weight = true;
        assert_eq!(weighted.needed(), [EVENT_TYPE, EVENT_VALUE]);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_the_name_of_their_option() {
        assert!(refusal(|source| source.locations.clear()).starts_with("--interactions: "));
        assert!(refusal(|source| source.max_bad_row_share = 1.5).starts_with("--max-bad-rows: 1.5 is not in 0..=1; "));
        assert!(refusal(|source| source.max_bad_structure_share = f64::NAN).starts_with("--max-bad-rows: NaN"));
        assert!(refusal(|source| source.event_value_threshold = Some(f64::INFINITY)).contains("inf is not a finite"));
        assert!(refusal(|source| source.event_types = vec![String::new()]).starts_with("--event-type: "));
        assert!(refusal(|source| source.event_weights = vec![("a".into(), -1.0)]).contains("a=-1 is not in 0..=1e30"));
        assert!(refusal(|source| source.event_weights = vec![("a".into(), 1.0); 2]).contains("a has two weights"));
    }

    #[test]
    fn event_weights_are_read_from_text() {
        let weights = parse_event_weights("view=1, add to cart=2.5,").unwrap();
        assert_eq!(weights, [("view".to_string(), 1.0), ("add to cart".to_string(), 2.5)]);
        for text in ["view", "view=much", "=1"] {
            let error = parse_event_weights(text).unwrap_err().to_string();
            assert_eq!(error, format!("--event-weights: {text:?} is no weight; give them as view=1,purchase=4"));
        }
    }
}
