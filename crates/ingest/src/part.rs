//! One reader's share of the rows: record batches in, columns of numbers out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, Int64Array, StringArray, UInt8Array};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{DataType, Date32Type, UInt8Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::columns::Source;
use crate::error::{Error, Place, Result, printable};
use crate::event_types::EventTypes;
use crate::event_value::{LARGEST_WEIGHT, Value, judge, values};
use crate::ids::Ids;
use crate::schema::{Dataset, EVENT_VALUE, ITEM_ID, TIMESTAMP, USER_ID};
use crate::tally::{Position, Reason, Sighting, Tally};
use crate::text_codes::{BLANK, FIRST_SPECIAL, NOT_UTF8, TOO_LONG};
use crate::timestamp::{Times, TimestampUnit};

/// The positions of the columns in [`Dataset::columns`] of Interactions.
pub(crate) const USER: usize = 0;
pub(crate) const ITEM: usize = 1;
pub(crate) const TIME: usize = 2;
pub(crate) const TYPE: usize = 3;
pub(crate) const VALUE: usize = 4;
/// The columns of the contract.
pub(crate) const COLUMNS: usize = 5;

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
    fn weighs(&self) -> bool {
        self.value_as_weight || !self.event_weights.is_empty()
    }
}

/// A file of the input as a reader needs it.
#[derive(Debug)]
pub(crate) struct BoundFile {
    /// Its place among the files of the read.
    pub(crate) number: usize,
    /// Its name in messages.
    pub(crate) label: String,
    /// Where each column of the contract comes from.
    pub(crate) sources: Vec<Source>,
    /// The root columns to read, ascending.
    pub(crate) projection: Vec<usize>,
}

impl BoundFile {
    /// The column of a batch, or one made from the folder name; `None` when the file has neither.
    pub(crate) fn column(&self, contract: usize, batch: &RecordBatch) -> Result<Option<ArrayRef>> {
        match &self.sources[contract] {
            Source::Column { index, .. } => {
                let position = self.projection.binary_search(index).ok();
                Ok(position.and_then(|position| batch.columns().get(position)).cloned())
            }
            Source::Partition { name, value } => {
                partition_column(contract, name, value.as_deref(), batch.num_rows(), &self.label).map(Some)
            }
            Source::Absent => Ok(None),
        }
    }

    fn converted<T>(&self, contract: usize, result: std::result::Result<T, ArrowError>) -> Result<T> {
        result.map_err(|source| Error::Convert {
            wanted: Dataset::Interactions.columns()[contract].name,
            place: self.place(contract),
            source,
        })
    }

    fn place(&self, contract: usize) -> Place {
        Place { file: self.label.clone(), row: None, column: self.sources[contract].name().map(ToString::to_string) }
    }
}

/// Bare integer times by the unit that they look like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Magnitudes(pub(crate) [Sighting; 4]);

impl Magnitudes {
    fn add(&mut self, value: i64, position: Position) {
        if let Some(unit) = TimestampUnit::likely(value) {
            self.0[unit as usize].add(position);
        }
    }

    pub(crate) fn merge(&mut self, other: Magnitudes) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            mine.merge(theirs);
        }
    }
}

/// The kept rows of one reader, as arrival numbers of its own, and everything it counted on the way.
pub(crate) struct Part {
    pub(crate) users: Ids,
    pub(crate) items: Ids,
    pub(crate) event_types: EventTypes,
    pub(crate) user: Vec<u32>,
    pub(crate) item: Vec<u32>,
    pub(crate) time: Vec<i64>,
    /// Empty when every event weighs 1.
    pub(crate) weight: Vec<f32>,
    /// The rows whose times are bare integers of a unit that is not known yet.
    pub(crate) bare: Vec<std::ops::Range<usize>>,
    pub(crate) magnitudes: Magnitudes,
    pub(crate) times_at_zero: Sighting,
    pub(crate) times_negative: Sighting,
    pub(crate) values_null: u64,
    /// Nulls by column of the contract, over all rows.
    pub(crate) nulls: [u64; COLUMNS],
    pub(crate) tally: Tally,
    rules: Arc<Rules>,
    user_codes: Vec<u32>,
    item_codes: Vec<u32>,
}

impl Part {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self {
            users: Ids::new(),
            items: Ids::new(),
            event_types: EventTypes::new(&rules.event_types, &rules.event_weights),
            user: Vec::new(),
            item: Vec::new(),
            time: Vec::new(),
            weight: Vec::new(),
            bare: Vec::new(),
            magnitudes: Magnitudes::default(),
            times_at_zero: Sighting::default(),
            times_negative: Sighting::default(),
            values_null: 0,
            nulls: [0; COLUMNS],
            tally: Tally::default(),
            rules,
            user_codes: Vec::new(),
            item_codes: Vec::new(),
        }
    }

    /// Adds the rows of a batch that starts at `first_row` of its file.
    pub(crate) fn add(&mut self, file: &BoundFile, first_row: u64, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let mut columns = Vec::with_capacity(COLUMNS);
        for contract in 0..COLUMNS {
            let column = file.column(contract, batch)?;
            self.nulls[contract] += column.as_ref().map_or(rows, |column| column.logical_null_count()) as u64;
            columns.push(column);
        }
        // The contract requires the first three; a batch without them is not the file that was bound.
        let (Some(user), Some(item), Some(time)) = (&columns[USER], &columns[ITEM], &columns[TIME]) else {
            return file.converted(USER, Err(ArrowError::SchemaError("a projected column is absent".to_string())));
        };
        match &columns[TYPE] {
            Some(types) => self.event_types.read(types)?,
            None => self.event_types.read_nothing(rows),
        }
        let wanted = self.event_types.passing();
        self.users.read(user, wanted.as_deref(), &mut self.user_codes)?;
        self.items.read(item, wanted.as_deref(), &mut self.item_codes)?;
        let times = file.converted(TIME, Times::of(time, self.rules.timestamp_unit))?;
        let values = columns[VALUE].as_ref().map(|column| file.converted(VALUE, values(column))).transpose()?;

        let first_kept = self.time.len();
        let weighs = self.rules.weighs();
        self.tally.rows += rows as u64;
        for row in 0..rows {
            if wanted.as_ref().is_some_and(|wanted| !wanted[row]) {
                self.tally.filtered_by_event_type += 1;
                continue;
            }
            let position = Position { file: file.number, row: first_row + row as u64 };
            let (user, item) = (self.user_codes[row], self.item_codes[row]);
            if user >= FIRST_SPECIAL {
                self.tally.reject(id_reason(user), USER_ID, position);
                continue;
            }
            if item >= FIRST_SPECIAL {
                self.tally.reject(id_reason(item), ITEM_ID, position);
                continue;
            }
            if times.is_null(row) {
                self.tally.reject(Reason::TimestampNull, TIMESTAMP, position);
                continue;
            }
            if !times.is_possible(row) {
                self.tally.reject(Reason::TimestampOutOfRange, TIMESTAMP, position);
                continue;
            }
            let value = match values.as_ref().map_or(Value::Good(None), |values| judge(values, row)) {
                Value::Good(value) => value,
                Value::NotFinite => {
                    self.tally.reject(Reason::EventValueNotFinite, EVENT_VALUE, position);
                    continue;
                }
                Value::Negative => {
                    self.tally.reject(Reason::EventValueNegative, EVENT_VALUE, position);
                    continue;
                }
            };
            if self.rules.event_value_threshold.is_some_and(|least| value.is_none_or(|value| value < least)) {
                self.tally.filtered_by_event_value += 1;
                continue;
            }
            if weighs {
                let by_value = if self.rules.value_as_weight { value.unwrap_or(1.0) } else { 1.0 };
                let weight = by_value * f64::from(self.event_types.weight(row));
                if weight > LARGEST_WEIGHT {
                    self.tally.reject(Reason::EventValueTooLarge, EVENT_VALUE, position);
                    continue;
                }
                #[allow(clippy::cast_possible_truncation)] // Rounds to the nearest f32: at most 1e30.
                self.weight.push(weight as f32);
                self.values_null += u64::from(value.is_none());
            }
            let time = times.values[row];
            if times.bare {
                self.magnitudes.add(time, position);
            }
            if time <= 0 {
                if time == 0 { &mut self.times_at_zero } else { &mut self.times_negative }.add(position);
            }
            self.user.push(user);
            self.item.push(item);
            self.time.push(time);
        }
        if times.bare {
            self.note_bare(first_kept..self.time.len());
        }
        Ok(())
    }

    fn note_bare(&mut self, rows: std::ops::Range<usize>) {
        match self.bare.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ if rows.is_empty() => {}
            _ => self.bare.push(rows),
        }
    }
}

pub(crate) fn id_reason(code: u32) -> Reason {
    match code {
        BLANK => Reason::IdBlank,
        TOO_LONG => Reason::IdTooLong,
        NOT_UTF8 => Reason::IdNotUtf8,
        _ => Reason::IdNull,
    }
}

/// A column that has the value of a folder name in every row.
fn partition_column(contract: usize, name: &str, value: Option<&str>, rows: usize, file: &str) -> Result<ArrayRef> {
    let unreadable = |accepted| Error::ColumnType {
        wanted: Dataset::Interactions.columns()[contract].name,
        found: format!("the folder name {:?}", printable(&format!("{name}={}", value.unwrap_or_default()))),
        accepted,
        why: "",
        place: Place { file: file.to_string(), row: None, column: Some(name.to_string()) },
        cure: "rename the folder, or map a column of the file with --column",
    };
    Ok(match (contract, value) {
        (TIME, Some(value)) => {
            // A day in a folder name is the day's first second, as for a Date32 column.
            let number = value.parse::<i64>().ok();
            match (number, Date32Type::parse(value)) {
                (Some(number), _) => Arc::new(Int64Array::from_value(number, rows)),
                (None, Some(day)) => Arc::new(arrow::array::Date32Array::from_value(day, rows)),
                (None, None) => return Err(unreadable("epoch seconds and days such as 2024-05-31")),
            }
        }
        (VALUE, Some(value)) => {
            let number = value.parse::<f64>().map_err(|_| unreadable("numbers"))?;
            Arc::new(arrow::array::Float64Array::from_value(number, rows))
        }
        (TIME, None) => Arc::new(Int64Array::new_null(rows)),
        (VALUE, None) => Arc::new(arrow::array::Float64Array::new_null(rows)),
        (_, Some(value)) => {
            let keys = UInt8Array::from_value(0, rows);
            let values = Arc::new(StringArray::from(vec![value]));
            let column = DictionaryArray::<UInt8Type>::try_new(keys, values);
            Arc::new(column.map_err(|_| unreadable("strings"))?)
        }
        (_, None) => arrow::array::new_null_array(&DataType::Utf8, rows),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float64Array};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn rules() -> Rules {
        Rules {
            timestamp_unit: None,
            event_types: Vec::new(),
            event_weights: Vec::new(),
            event_value_threshold: None,
            value_as_weight: false,
        }
    }

    fn file() -> BoundFile {
        let sources = ["u", "i", "t", "e", "v"].iter().enumerate().map(|(index, name)| Source::Column {
            index,
            name: name.to_string(),
            data_type: DataType::Null,
        });
        BoundFile { number: 3, label: "f".into(), sources: sources.collect(), projection: vec![0, 1, 2, 3, 4] }
    }

    fn batch(rows: &[(Option<&str>, Option<&str>, Option<i64>, Option<&str>, Option<f64>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.3).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.4).collect::<Float64Array>()),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .zip(["u", "i", "t", "e", "v"])
            .map(|(column, name)| Field::new(name, column.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn read(rules: Rules, rows: &[(Option<&str>, Option<&str>, Option<i64>, Option<&str>, Option<f64>)]) -> Part {
        let mut part = Part::new(Arc::new(rules));
        part.add(&file(), 100, &batch(rows)).unwrap();
        part
    }

    fn reasons(part: &Part) -> Vec<(&'static str, u64, u64, &'static str)> {
        let counts = part.tally.counts(0, &[]);
        counts.rejected.iter().map(|(reason, r)| (*reason, r.count, r.first_row, r.column)).collect()
    }

    #[test]
    fn every_fault_is_counted_once_with_its_first_row() {
        let part = read(
            rules(),
            &[
                (Some("u"), Some("i"), Some(5), None, None),
                (None, None, None, None, Some(-1.0)),
                (Some(""), Some("i"), Some(5), None, None),
                (Some("u"), None, Some(5), None, None),
                (Some("u"), Some("i"), None, None, None),
                (Some("u"), Some("i"), Some(i64::MAX), None, None),
                (Some("u"), Some("i"), Some(5), None, Some(f64::NAN)),
                (Some("u"), Some("i"), Some(5), None, Some(-0.5)),
            ],
        );
        assert_eq!(
            reasons(&part),
            [
                ("event_value_negative", 1, 107, EVENT_VALUE),
                ("event_value_not_finite", 1, 106, EVENT_VALUE),
                ("id_blank", 1, 102, USER_ID),
                ("id_null", 2, 101, USER_ID),
                ("timestamp_null", 1, 104, TIMESTAMP),
                ("timestamp_out_of_range", 1, 105, TIMESTAMP),
            ]
        );
        assert_eq!(part.time, [5]);
        assert_eq!(part.nulls, [1, 2, 2, 8, 5]);
    }

    #[test]
    fn rows_that_the_event_filter_leaves_out_are_not_judged() {
        let filtered = Rules { event_types: vec!["buy".into()], ..rules() };
        let part = read(
            filtered,
            &[
                (None, Some("i"), Some(1), Some("view"), Some(f64::NAN)),
                (Some("u"), Some("i"), Some(1), Some("buy"), None),
                (Some("u"), Some("i"), Some(1), None, None),
            ],
        );
        assert_eq!(reasons(&part), []);
        assert_eq!((part.tally.filtered_by_event_type, part.time.len()), (2, 1));
    }

    #[test]
    fn a_value_at_the_threshold_passes_and_a_null_does_not() {
        let threshold = Rules { event_value_threshold: Some(3.0), ..rules() };
        let rows: Vec<_> = [Some(3.0), Some(2.999), None, Some(4.0)]
            .into_iter()
            .map(|value| (Some("u"), Some("i"), Some(1), None, value))
            .collect();
        let part = read(threshold, &rows);
        assert_eq!((part.tally.filtered_by_event_value, part.time.len()), (2, 2));
        assert!(part.weight.is_empty(), "a threshold alone weighs nothing");
    }

    #[test]
    fn weights_come_from_the_type_and_on_request_from_the_value() {
        let weighted = Rules { event_weights: vec![("buy".into(), 4.0)], value_as_weight: true, ..rules() };
        let part = read(
            weighted,
            &[
                (Some("u"), Some("i"), Some(1), Some("buy"), Some(2.5)),
                (Some("u"), Some("i"), Some(1), Some("view"), Some(0.0)),
                (Some("u"), Some("i"), Some(1), Some("buy"), None),
                (Some("u"), Some("i"), Some(1), Some("buy"), Some(1e30)),
            ],
        );
        assert_eq!(part.weight, [10.0, 0.0, 4.0]);
        assert_eq!(reasons(&part), [("event_value_too_large", 1, 103, EVENT_VALUE)]);
    }

    #[test]
    fn ranges_of_bare_times_grow_together() {
        let row = (Some("u"), Some("i"), Some(1_700_000_000_000), None, None);
        let mut part = Part::new(Arc::new(rules()));
        for start in [0, 2] {
            part.add(&file(), start, &batch(&[row, row])).unwrap();
        }
        assert_eq!(part.bare, [0..4]);
        let milliseconds = part.magnitudes.0[TimestampUnit::Milliseconds as usize];
        assert_eq!((milliseconds.count, milliseconds.first), (4, Some(Position { file: 3, row: 0 })));
    }

    #[test]
    fn a_folder_name_becomes_a_column_of_the_right_type() {
        let days = partition_column(TIME, "dt", Some("1970-01-02"), 2, "f").unwrap();
        assert_eq!(days.as_any().downcast_ref::<Date32Array>().unwrap().values(), &[1, 1]);
        let seconds = partition_column(TIME, "dt", Some("1700000000"), 1, "f").unwrap();
        assert_eq!(seconds.data_type(), &DataType::Int64);
        let types = partition_column(TYPE, "event_type", Some("view"), 3, "f").unwrap();
        assert_eq!((types.len(), types.logical_null_count()), (3, 0));
        assert_eq!(partition_column(USER, "user_id", None, 3, "f").unwrap().logical_null_count(), 3);
        let error = partition_column(TIME, "dt", Some("yesterday"), 1, "f").unwrap_err().to_string();
        assert!(error.contains("found the folder name \"dt=yesterday\""), "{error}");
    }
}
