//! The values of metadata columns, row by row, in bounded memory for each distinct value.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use item_affinity_model::{Vocabulary, VocabularyBuilder};

use crate::profile::{LONGEST_CATEGORY, plain_type};

/// Distinct values of a column that are kept apart; a column of more is text, not a category.
pub(crate) const MOST_VALUES: usize = 1 << 17;
/// Bytes of distinct values of a column that are kept.
const MOST_BYTES: usize = 64 << 20;

/// The values of one column over all rows of all files.
#[derive(Debug)]
pub(crate) struct ColumnValues {
    pub(crate) name: String,
    pub(crate) values: Values,
    /// Numbers that are NaN or infinite.
    pub(crate) not_finite: u64,
}

/// What a column holds while it is read.
#[derive(Debug)]
pub(crate) enum Values {
    /// No value has been seen yet.
    Nothing,
    /// Codes into the distinct values, in order of arrival: those of row r end at `ends[r]`.
    Text { names: VocabularyBuilder, bytes: usize, ends: Vec<u64>, codes: Vec<u32> },
    /// NaN where there is no value.
    Numbers(Vec<f64>),
    /// The column is not used, for this reason.
    GivenUp { code: &'static str, why: String },
}

/// What a column held.
#[derive(Debug)]
pub(crate) enum Column {
    /// No value.
    Nothing,
    /// Codes into the distinct values, sorted by bytes: those of row r end at `ends[r]`.
    Text { names: Vocabulary, ends: Vec<u64>, codes: Vec<u32> },
    /// NaN where there is no value.
    Numbers(Vec<f64>),
    /// The column is not used, for this reason.
    GivenUp { code: &'static str, why: String },
}

impl ColumnValues {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_string(), values: Values::Nothing, not_finite: 0 }
    }

    /// Adds a batch whose first row is row `start` of the read; rows before it that the column missed have no value.
    pub(crate) fn add(&mut self, start: u64, array: &ArrayRef) -> std::result::Result<(), ArrowError> {
        if matches!(self.values, Values::GivenUp { .. }) || array.logical_null_count() == array.len() {
            return Ok(());
        }
        match plain_type(array.data_type()) {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = cast(array, &DataType::Utf8View)?;
                self.add_texts(start, texts.as_string_view().iter());
            }
            DataType::Boolean => {
                let flags = cast(array, &DataType::Boolean)?;
                let flags = flags.as_boolean().iter();
                self.add_texts(start, flags.map(|flag| flag.map(|flag| if flag { "true" } else { "false" })));
            }
            number if number.is_numeric() => {
                let numbers = cast(array, &DataType::Float64)?;
                self.add_numbers(start, numbers.as_primitive::<Float64Type>().iter());
            }
            time if time.is_temporal() => self.give_up("ATTRIBUTE_TIME", "times are no attributes".to_string()),
            other => self.give_up("ATTRIBUTE_TYPE", format!("values of type {other} are no attributes")),
        }
        Ok(())
    }

    fn give_up(&mut self, code: &'static str, why: String) {
        self.values = Values::GivenUp { code, why };
    }

    fn add_texts<'a>(&mut self, start: u64, texts: impl Iterator<Item = Option<&'a str>>) {
        if matches!(self.values, Values::Nothing) {
            self.values = Values::Text { names: VocabularyBuilder::new(), bytes: 0, ends: vec![], codes: vec![] };
        }
        let Values::Text { names, bytes, ends, codes } = &mut self.values else {
            return self.give_up("ATTRIBUTE_TYPE", "text in one file and numbers in another".to_string());
        };
        pad(ends, start, codes.len() as u64);
        for text in texts {
            for value in text.unwrap_or_default().split('|').map(str::trim).filter(|value| !value.is_empty()) {
                if value.len() > LONGEST_CATEGORY && value.chars().nth(LONGEST_CATEGORY).is_some() {
                    continue;
                }
                let known = names.len();
                let code = names.intern(value);
                *bytes += if names.len() > known { value.len() } else { 0 };
                match code {
                    Ok(code) if names.len() <= MOST_VALUES && *bytes <= MOST_BYTES => codes.push(code),
                    _ => {
                        let why = format!("more than {MOST_VALUES} distinct values, which is text");
                        return self.give_up("ATTRIBUTE_DISTINCT", why);
                    }
                }
            }
            ends.push(codes.len() as u64);
        }
    }

    fn add_numbers(&mut self, start: u64, numbers: impl Iterator<Item = Option<f64>>) {
        if matches!(self.values, Values::Nothing) {
            self.values = Values::Numbers(vec![]);
        }
        let Values::Numbers(all) = &mut self.values else {
            return self.give_up("ATTRIBUTE_TYPE", "text in one file and numbers in another".to_string());
        };
        pad(all, start, f64::NAN);
        for number in numbers {
            let finite = number.filter(|number| number.is_finite());
            self.not_finite += u64::from(number.is_some() && finite.is_none());
            all.push(finite.unwrap_or(f64::NAN));
        }
    }

    /// The column after its last batch.
    pub(crate) fn finish(self) -> Column {
        match self.values {
            Values::Nothing => Column::Nothing,
            Values::Text { names, ends, mut codes, .. } => {
                let (names, renumber) = names.finish();
                for code in &mut codes {
                    *code = renumber[*code as usize];
                }
                Column::Text { names, ends, codes }
            }
            Values::Numbers(numbers) => Column::Numbers(numbers),
            Values::GivenUp { code, why } => Column::GivenUp { code, why },
        }
    }
}

/// The codes of a row's values.
pub(crate) fn codes_of<'a>(ends: &[u64], codes: &'a [u32], row: u64) -> &'a [u32] {
    let Ok(row) = usize::try_from(row) else { return &[] };
    let end = |row: usize| ends.get(row).and_then(|end| usize::try_from(*end).ok());
    let start = row.checked_sub(1).map_or(Some(0), end);
    start.zip(end(row)).and_then(|(start, end)| codes.get(start..end)).unwrap_or_default()
}

/// The number of a row.
pub(crate) fn number_of(numbers: &[f64], row: u64) -> Option<f64> {
    let number = usize::try_from(row).ok().and_then(|row| numbers.get(row));
    number.copied().filter(|number| !number.is_nan())
}

fn pad<T: Copy>(values: &mut Vec<T>, rows: u64, missing: T) {
    if let Ok(rows) = usize::try_from(rows)
        && rows > values.len()
    {
        values.resize(rows, missing);
    }
}
