//! One reader's share of the rows: record batches in, columns of numbers out.

use std::sync::Arc;

use arrow::array::Array;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::bound_file::BoundFile;
use crate::census::Census;
use crate::error::Result;
use crate::event_types::EventTypes;
use crate::event_value::{LARGEST_WEIGHT, Value, judge, values};
use crate::ids::Ids;
use crate::magnitudes::Magnitudes;
use crate::schema::{EVENT_VALUE, ITEM_ID, TIMESTAMP, USER_ID};
use crate::source::Rules;
use crate::tally::{Position, Reason, Sighting, Tally};
use crate::text_codes::{BLANK, FIRST_SPECIAL, NOT_UTF8, TOO_LONG};
use crate::timestamp::Times;

/// The positions of the columns in [`Dataset::columns`] of Interactions.
pub(crate) const USER: usize = 0;
pub(crate) const ITEM: usize = 1;
pub(crate) const TIME: usize = 2;
pub(crate) const TYPE: usize = 3;
pub(crate) const VALUE: usize = 4;
/// The columns of the contract.
pub(crate) const COLUMNS: usize = 5;

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
    /// Nulls by column of the contract, over all rows.
    pub(crate) nulls: [u64; COLUMNS],
    pub(crate) tally: Tally,
    /// Where rows are counted and not kept.
    pub(crate) census: Option<Box<Census>>,
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
            nulls: [0; COLUMNS],
            tally: Tally::default(),
            census: None,
            rules,
            user_codes: Vec::new(),
            item_codes: Vec::new(),
        }
    }

    /// Bytes of the ids that it has met.
    pub(crate) fn id_bytes(&self) -> usize {
        self.users.allocated_bytes() + self.items.allocated_bytes()
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::columns::Source;
    use crate::schema::Dataset;
    use crate::timestamp::TimestampUnit;

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
        BoundFile {
            dataset: Dataset::Interactions,
            number: 3,
            label: "f".into(),
            sources: sources.collect(),
            projection: vec![0, 1, 2, 3, 4],
        }
    }

    /// User, item, time, event type and event value.
    type Row = (Option<&'static str>, Option<&'static str>, Option<i64>, Option<&'static str>, Option<f64>);

    fn batch(rows: &[Row]) -> RecordBatch {
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

    fn read(rules: Rules, rows: &[Row]) -> Part {
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
        assert_eq!((part.bare.len(), part.bare[0].clone()), (1, 0..4));
        let milliseconds = part.magnitudes.0[TimestampUnit::Milliseconds as usize];
        assert_eq!((milliseconds.count, milliseconds.first), (4, Some(Position { file: 3, row: 0 })));
    }
}
