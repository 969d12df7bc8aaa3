//! How complete columns are, and what kinds of values they hold, in bounded memory.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use serde::Serialize;

use crate::columns::Source;
use crate::error::printable;
use crate::inputs::Inputs;
use crate::part::COLUMNS;
use crate::schema::Dataset;
use crate::tally::share;

/// How complete a column of the contract is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Completeness {
    /// The contract's name.
    pub name: &'static str,
    /// The Arrow types in the files, each once.
    pub types: Vec<String>,
    /// Rows in the files.
    pub rows: u64,
    /// Rows without a value.
    pub missing: u64,
}

impl Completeness {
    /// The share of rows that have a value.
    pub fn complete(&self) -> f64 {
        1.0 - share(self.missing, self.rows)
    }

    /// The columns that any of the files has, with types but without counts.
    pub(crate) fn of_files(inputs: &Inputs) -> Vec<Vec<String>> {
        (0..COLUMNS)
            .map(|contract| {
                let mut types = Vec::new();
                for file in &inputs.opened {
                    if let Some(found) = source_type(&file.bound.sources[contract])
                        && !types.contains(&found)
                    {
                        types.push(found);
                    }
                }
                types
            })
            .collect()
    }

    /// Puts types and counts together; a column that no file has is left out.
    pub(crate) fn with_nulls(types: Vec<Vec<String>>, nulls: &[u64; COLUMNS], rows: u64) -> Vec<Self> {
        let columns = Dataset::Interactions.columns().iter().zip(types).zip(nulls);
        columns
            .filter(|((_, types), _)| !types.is_empty())
            .map(|((contract, types), missing)| Self { name: contract.name, types, rows, missing: *missing })
            .collect()
    }
}

fn source_type(source: &Source) -> Option<String> {
    match source {
        Source::Column { data_type, .. } => Some(printable(&data_type.to_string())),
        Source::Partition { .. } => Some("folder name".to_string()),
        Source::Absent => None,
    }
}

/// Categories counted before the count is given up: beyond it a column is text, not a category.
pub const MOST_CATEGORIES: usize = 1_000;
/// The longest category in characters, as in Amazon Personalize.
pub const LONGEST_CATEGORY: usize = 1_000;

/// What a metadata column holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnProfile {
    /// The column's own name.
    pub name: String,
    /// The Arrow types in the files, each once.
    pub types: Vec<String>,
    /// Rows in the files that have the column.
    pub rows: u64,
    /// Rows that are null, empty or not a number.
    pub missing: u64,
    /// Distinct categories of a string column, lists such as `horror|comedy` split; at most [`MOST_CATEGORIES`].
    pub categories: Option<u64>,
    /// There are more categories than were counted.
    pub more_categories: bool,
    /// Values longer than [`LONGEST_CATEGORY`] characters.
    pub long_values: u64,
    /// The smallest number of a numeric column.
    pub minimum: Option<f64>,
    /// The largest number of a numeric column.
    pub maximum: Option<f64>,
    #[serde(skip)]
    seen: HashSet<Box<str>>,
}

impl ColumnProfile {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            types: Vec::new(),
            rows: 0,
            missing: 0,
            categories: None,
            more_categories: false,
            long_values: 0,
            minimum: None,
            maximum: None,
            seen: HashSet::new(),
        }
    }

    /// The share of rows that have a value.
    pub fn complete(&self) -> f64 {
        1.0 - share(self.missing, self.rows)
    }

    /// Adds the values of a batch.
    pub(crate) fn add(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        let shown = printable(&array.data_type().to_string());
        if !self.types.contains(&shown) {
            self.types.push(shown);
        }
        self.rows += array.len() as u64;
        match plain_type(array.data_type()) {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                for value in cast(array, &DataType::Utf8View)?.as_string_view() {
                    self.add_text(value);
                }
            }
            number if number.is_numeric() => {
                for value in cast(array, &DataType::Float64)?.as_primitive::<Float64Type>() {
                    match value.filter(|value| !value.is_nan()) {
                        Some(value) => {
                            self.minimum = Some(self.minimum.map_or(value, |least| least.min(value)));
                            self.maximum = Some(self.maximum.map_or(value, |most| most.max(value)));
                        }
                        None => self.missing += 1,
                    }
                }
            }
            _ => self.missing += array.logical_null_count() as u64,
        }
        Ok(())
    }

    fn add_text(&mut self, value: Option<&str>) {
        self.categories.get_or_insert(0);
        let Some(value) = value.filter(|value| !value.trim().is_empty()) else {
            self.missing += 1;
            return;
        };
        if value.len() > LONGEST_CATEGORY && value.chars().nth(LONGEST_CATEGORY).is_some() {
            self.long_values += 1;
            return;
        }
        if self.more_categories {
            return;
        }
        for category in value.split('|').map(str::trim).filter(|category| !category.is_empty()) {
            if self.seen.contains(category) {
                continue;
            }
            if self.seen.len() == MOST_CATEGORIES {
                self.more_categories = true;
                break;
            }
            self.seen.insert(category.into());
        }
        self.categories = Some(self.seen.len() as u64);
    }
}

/// The type of the values of a dictionary, or the type itself.
pub(crate) fn plain_type(found: &DataType) -> &DataType {
    match found {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, DictionaryArray, Float32Array, LargeStringArray, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn profile(arrays: Vec<ArrayRef>) -> ColumnProfile {
        let mut profile = ColumnProfile::new("genres");
        for array in arrays {
            profile.add(&array).unwrap();
        }
        profile
    }

    #[test]
    fn lists_in_a_string_are_split_and_empty_strings_are_missing() {
        let values = vec![Some("horror|comedy"), None, Some(""), Some(" "), Some("comedy | drama"), Some("a|")];
        let dictionary: DictionaryArray<Int32Type> = values.iter().copied().collect();
        for array in [
            Arc::new(StringArray::from(values.clone())) as ArrayRef,
            Arc::new(LargeStringArray::from(values)) as ArrayRef,
            Arc::new(dictionary) as ArrayRef,
        ] {
            let profile = profile(vec![array]);
            assert_eq!((profile.rows, profile.missing, profile.categories), (6, 3, Some(4)));
            assert_eq!(profile.complete(), 0.5);
        }
    }

    #[test]
    fn categories_are_counted_up_to_a_bound_and_long_values_apart() {
        let many: Vec<String> = (0..1_500).map(|n| format!("c{n}")).chain(["x".repeat(1_001)]).collect();
        let profile = profile(vec![Arc::new(StringArray::from(many))]);
        assert_eq!((profile.categories, profile.more_categories, profile.long_values), (Some(1_000), true, 1));
    }

    #[test]
    fn numbers_have_a_range_and_nan_is_missing() {
        let profile = profile(vec![
            Arc::new(Float32Array::from(vec![Some(2.5), Some(f32::NAN), None])),
            Arc::new(Float32Array::from(vec![-1.0])),
        ]);
        assert_eq!((profile.minimum, profile.maximum, profile.missing), (Some(-1.0), Some(2.5), 2));
        assert_eq!(profile.categories, None);
    }

    #[test]
    fn other_types_are_only_counted_and_each_type_is_listed() {
        let profile = profile(vec![
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(StringArray::from(vec!["yes"])),
        ]);
        assert_eq!(profile.types, ["Boolean", "Utf8"]);
        assert_eq!((profile.rows, profile.missing, profile.categories), (3, 1, Some(1)));
    }
}
