//! The event types of a read: which are wanted, what they weigh, and how many rows each has.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use serde::Serialize;

use crate::error::Result;
use crate::text_codes::{FIRST_SPECIAL, NULL, TextCodes};

/// Rows of one event type, before any filter.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EventTypeCount {
    /// The event type as the data spells it.
    pub event_type: String,
    /// Rows that have it.
    pub rows: u64,
}

/// Event types and their rows over a whole read.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct EventTypeCounts {
    /// The most frequent one first.
    pub types: Vec<EventTypeCount>,
    /// Rows whose event type is null or empty.
    pub without: u64,
    /// Rows of event types that are not listed, because there are more than a data set can sensibly have.
    pub unlisted: u64,
}

/// Event types are a handful; a column with more of them is something else, and its values are not collected.
const MOST_LISTED: usize = 1_000;
/// Texts beyond it are not kept.
const LONGEST_LISTED: usize = 1_000;
/// The code of an event type that is not listed.
const UNLISTED: u32 = FIRST_SPECIAL;

pub(crate) struct EventTypes {
    codes: TextCodes,
    table: HashMap<String, u32>,
    /// By code, as are the next two.
    names: Vec<String>,
    wanted: Vec<bool>,
    weights: Vec<f32>,
    rows: Vec<u64>,
    without: u64,
    unlisted: u64,
    filters: bool,
    batch: Vec<u32>,
}

impl EventTypes {
    /// `wanted` empty lets every type pass; a type without a weight weighs 1.
    pub(crate) fn new(wanted: &[String], weights: &[(String, f32)]) -> Self {
        let mut types = Self {
            codes: TextCodes::new(),
            table: HashMap::new(),
            names: Vec::new(),
            wanted: Vec::new(),
            weights: Vec::new(),
            rows: Vec::new(),
            without: 0,
            unlisted: 0,
            filters: !wanted.is_empty(),
            batch: Vec::new(),
        };
        // What the options name has a code of its own from the start, however many types the data has.
        for name in wanted.iter().chain(weights.iter().map(|(name, _)| name)) {
            types.table.entry(name.clone()).or_insert_with(|| {
                let code = types.names.len();
                types.names.push(name.clone());
                types.rows.push(0);
                types.wanted.push(wanted.is_empty() || wanted.contains(name));
                types.weights.push(weights.iter().find(|(other, _)| other == name).map_or(1.0, |(_, weight)| *weight));
                u32::try_from(code).unwrap_or(UNLISTED)
            });
        }
        types
    }

    /// Reads the event types of the next batch.
    pub(crate) fn read(&mut self, array: &ArrayRef) -> Result<()> {
        let Self { codes, table, names, wanted, weights, rows, filters, batch, .. } = self;
        codes.read(array, None, batch, &mut |text| {
            if text.is_empty() {
                return Ok(NULL);
            }
            if let Some(code) = table.get(text) {
                return Ok(*code);
            }
            if names.len() >= MOST_LISTED || text.len() > LONGEST_LISTED {
                return Ok(UNLISTED);
            }
            let code = u32::try_from(names.len()).unwrap_or(UNLISTED);
            table.insert(text.to_string(), code);
            names.push(text.to_string());
            rows.push(0);
            wanted.push(!*filters);
            weights.push(1.0);
            Ok(code)
        })?;
        for code in &self.batch {
            match self.rows.get_mut(*code as usize) {
                Some(rows) => *rows += 1,
                None if *code == UNLISTED => self.unlisted += 1,
                None => self.without += 1,
            }
        }
        Ok(())
    }

    /// A batch of `rows` rows whose file has no event types.
    pub(crate) fn read_nothing(&mut self, rows: usize) {
        self.batch.clear();
        self.batch.resize(rows, NULL);
        self.without += rows as u64;
    }

    /// Which rows of the batch pass the filter; `None` when there is no filter.
    pub(crate) fn passing(&self) -> Option<Vec<bool>> {
        self.filters.then(|| self.batch.iter().map(|code| self.wanted.get(*code as usize) == Some(&true)).collect())
    }

    /// What the event of a row of the batch weighs by its type.
    pub(crate) fn weight(&self, row: usize) -> f32 {
        self.batch.get(row).and_then(|code| self.weights.get(*code as usize)).copied().unwrap_or(1.0)
    }

    /// Adds up the counts of several readers.
    pub(crate) fn merge(readers: impl IntoIterator<Item = Self>) -> EventTypeCounts {
        let mut rows: HashMap<String, u64> = HashMap::new();
        let mut counts = EventTypeCounts::default();
        for reader in readers {
            counts.without += reader.without;
            counts.unlisted += reader.unlisted;
            for (name, seen) in reader.names.into_iter().zip(reader.rows) {
                if seen > 0 {
                    *rows.entry(name).or_default() += seen;
                }
            }
        }
        counts.types = rows.into_iter().map(|(event_type, rows)| EventTypeCount { event_type, rows }).collect();
        counts.types.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.event_type.cmp(&b.event_type)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    fn array(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn a_filter_matches_exactly_and_null_never_matches() {
        let mut types = EventTypes::new(&["view".into(), "buy".into()], &[]);
        types.read(&array(&[Some("view"), Some("View"), None, Some(""), Some("buy"), Some("view ")])).unwrap();
        assert_eq!(types.passing().unwrap(), [true, false, false, false, true, false]);
    }

    #[test]
    fn without_a_filter_nothing_is_masked() {
        let mut types = EventTypes::new(&[], &[]);
        types.read(&array(&[Some("view"), None])).unwrap();
        assert_eq!(types.passing(), None);
    }

    #[test]
    fn a_type_without_a_weight_weighs_one() {
        let mut types = EventTypes::new(&[], &[("view".into(), 0.5), ("buy".into(), 4.0)]);
        types.read(&array(&[Some("buy"), Some("cart"), None, Some("view")])).unwrap();
        assert_eq!((0..4).map(|row| types.weight(row)).collect::<Vec<_>>(), [4.0, 1.0, 1.0, 0.5]);
        types.read_nothing(2);
        assert_eq!(types.weight(0), 1.0);
    }

    #[test]
    fn counts_of_several_readers_add_up_with_the_most_frequent_type_first() {
        let mut one = EventTypes::new(&["never".into()], &[]);
        one.read(&array(&[Some("view"), Some("buy"), None])).unwrap();
        let mut two = EventTypes::new(&["never".into()], &[]);
        two.read(&array(&[Some("view"), Some("aye")])).unwrap();
        two.read_nothing(3);
        let counts = EventTypes::merge([one, two]);
        let listed: Vec<_> = counts.types.iter().map(|count| (count.event_type.as_str(), count.rows)).collect();
        assert_eq!(listed, [("view", 2), ("aye", 1), ("buy", 1)]);
        assert_eq!((counts.without, counts.unlisted), (4, 0));
    }

    #[test]
    fn a_column_of_many_types_is_counted_but_not_collected() {
        let names: Vec<String> = (0..5_000).map(|n| format!("t{n}")).collect();
        let mut types = EventTypes::new(&["t4999".into()], &[]);
        types.read(&(Arc::new(StringArray::from(names)) as ArrayRef)).unwrap();
        assert_eq!(types.passing().unwrap().iter().filter(|pass| **pass).count(), 1);
        let counts = EventTypes::merge([types]);
        assert_eq!(counts.types.len(), MOST_LISTED);
        assert_eq!(counts.unlisted, 4_000);
    }
}
