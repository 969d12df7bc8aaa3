//! Times of every accepted type as epoch seconds, and what bare integers say about their unit.

use std::fmt;
use std::str::FromStr;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, printable};

/// The unit of bare integer times.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds since 1970, as Amazon Personalize takes them.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
}

impl TimestampUnit {
    /// All units, the coarsest first.
    pub const ALL: [TimestampUnit; 4] =
        [TimestampUnit::Seconds, TimestampUnit::Milliseconds, TimestampUnit::Microseconds, TimestampUnit::Nanoseconds];

    /// How many of it make a second.
    pub fn per_second(self) -> i64 {
        match self {
            TimestampUnit::Seconds => 1,
            TimestampUnit::Milliseconds => 1_000,
            TimestampUnit::Microseconds => 1_000_000,
            TimestampUnit::Nanoseconds => 1_000_000_000,
        }
    }

    /// The spelling of the option: `s`, `ms`, `us`, `ns`.
    pub fn symbol(self) -> &'static str {
        match self {
            TimestampUnit::Seconds => "s",
            TimestampUnit::Milliseconds => "ms",
            TimestampUnit::Microseconds => "us",
            TimestampUnit::Nanoseconds => "ns",
        }
    }

    /// The unit that a bare integer most likely has: below 10^11 seconds (to the year 5138), below 10^14 milliseconds,
    /// below 10^17 microseconds (each from 1973 on), else nanoseconds. Zero is no evidence.
    pub(crate) fn likely(value: i64) -> Option<Self> {
        match value.unsigned_abs() {
            0 => None,
            1..100_000_000_000 => Some(TimestampUnit::Seconds),
            100_000_000_000..100_000_000_000_000 => Some(TimestampUnit::Milliseconds),
            100_000_000_000_000..100_000_000_000_000_000 => Some(TimestampUnit::Microseconds),
            _ => Some(TimestampUnit::Nanoseconds),
        }
    }

    /// Whole seconds, rounded down, so that times before 1970 keep their order.
    pub(crate) fn to_seconds(self, value: i64) -> i64 {
        value.div_euclid(self.per_second())
    }
}

impl fmt::Display for TimestampUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimestampUnit::Seconds => "seconds",
            TimestampUnit::Milliseconds => "milliseconds",
            TimestampUnit::Microseconds => "microseconds",
            TimestampUnit::Nanoseconds => "nanoseconds",
        })
    }
}

impl FromStr for TimestampUnit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|unit| unit.symbol() == text || unit.to_string() == text).ok_or_else(|| {
            Error::Option {
                option: "--timestamp-unit",
                what: format!("{:?} is not a unit", printable(text)),
                cure: "give s, ms, us or ns".to_string(),
            }
        })
    }
}

/// Times outside the years 1 to 9999 are no times: files and calendars cannot show them.
pub(crate) const REPRESENTABLE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A value that no unit can make a time of.
pub(crate) const IMPOSSIBLE: i64 = i64::MAX;

/// The times of a batch.
pub(crate) struct Times {
    /// Epoch seconds, or what the file holds when `bare`; [`IMPOSSIBLE`] where the value passes 64 bits.
    pub(crate) values: Vec<i64>,
    /// Which rows have a time.
    pub(crate) present: Option<NullBuffer>,
    /// The values are integers whose unit is not known yet.
    pub(crate) bare: bool,
}

impl Times {
    /// Reads an array that the contract admits for TIMESTAMP.
    pub(crate) fn of(array: &ArrayRef, unit: Option<TimestampUnit>) -> std::result::Result<Self, ArrowError> {
        let decoded;
        let array = match array.data_type() {
            DataType::Dictionary(_, values) => {
                decoded = cast(array, values)?;
                &decoded
            }
            _ => array,
        };
        let seconds = |values: &[i64], unit: TimestampUnit| -> Vec<i64> {
            if unit == TimestampUnit::Seconds {
                values.to_vec()
            } else {
                values.iter().map(|value| unit.to_seconds(*value)).collect()
            }
        };
        let values = match array.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().values().to_vec(),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                seconds(array.as_primitive::<TimestampMillisecondType>().values(), TimestampUnit::Milliseconds)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                seconds(array.as_primitive::<TimestampMicrosecondType>().values(), TimestampUnit::Microseconds)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                seconds(array.as_primitive::<TimestampNanosecondType>().values(), TimestampUnit::Nanoseconds)
            }
            DataType::Date32 => {
                array.as_primitive::<Date32Type>().values().iter().map(|days| i64::from(*days) * 86_400).collect()
            }
            DataType::Date64 => seconds(array.as_primitive::<Date64Type>().values(), TimestampUnit::Milliseconds),
            _ => {
                let raw: Vec<i64> = if array.data_type() == &DataType::UInt64 {
                    let raw = array.as_primitive::<UInt64Type>().values();
                    raw.iter().map(|value| i64::try_from(*value).unwrap_or(IMPOSSIBLE)).collect()
                } else {
                    cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec()
                };
                let present = array.logical_nulls();
                return Ok(match unit {
                    // The mark must survive the division.
                    Some(unit) => {
                        let keep =
                            |value: &i64| if *value == IMPOSSIBLE { IMPOSSIBLE } else { unit.to_seconds(*value) };
                        Self { values: raw.iter().map(keep).collect(), present, bare: false }
                    }
                    None => Self { values: raw, present, bare: true },
                });
            }
        };
        Ok(Self { values, present: array.logical_nulls(), bare: false })
    }

    /// Whether a row has a time, before its unit is known.
    pub(crate) fn is_possible(&self, row: usize) -> bool {
        let value = self.values[row];
        if self.bare { value != IMPOSSIBLE && value != i64::MIN } else { REPRESENTABLE.contains(&value) }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.present.as_ref().is_some_and(|present| present.is_null(row))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Date64Array, Int32Array, Int64Array, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    };

    use super::*;

    const T: i64 = 1_700_000_000;

    fn seconds(array: ArrayRef, unit: Option<TimestampUnit>) -> Vec<i64> {
        Times::of(&array, unit).unwrap().values
    }

    #[test]
    fn typed_times_of_every_unit_become_seconds_rounded_down() {
        assert_eq!(seconds(Arc::new(TimestampSecondArray::from(vec![T, -T])), None), [T, -T]);
        let zoned = TimestampMillisecondArray::from(vec![T * 1000 + 999, -1]).with_timezone("Europe/Berlin");
        assert_eq!(seconds(Arc::new(zoned), None), [T, -1]);
        assert_eq!(seconds(Arc::new(TimestampMicrosecondArray::from(vec![T * 1_000_000])), None), [T]);
        assert_eq!(seconds(Arc::new(TimestampNanosecondArray::from(vec![T * 1_000_000_000 + 1])), None), [T]);
        assert_eq!(seconds(Arc::new(Date32Array::from(vec![-1, 1])), None), [-86_400, 86_400]);
        assert_eq!(seconds(Arc::new(Date64Array::from(vec![86_400_000])), None), [86_400]);
    }

    #[test]
    fn a_typed_time_is_never_bare_and_its_unit_is_not_overridden() {
        let array: ArrayRef = Arc::new(TimestampSecondArray::from(vec![T]));
        let times = Times::of(&array, Some(TimestampUnit::Nanoseconds)).unwrap();
        assert!(!times.bare);
        assert_eq!(times.values, [T]);
    }

    #[test]
    fn bare_integers_keep_their_value_until_the_unit_is_known() {
        let array: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None]));
        let times = Times::of(&array, None).unwrap();
        assert!(times.bare && times.is_null(1) && !times.is_null(0));
        assert_eq!(times.values[0], 7);
        let given = Times::of(&(Arc::new(Int64Array::from(vec![T * 1000])) as ArrayRef), "ms".parse().ok()).unwrap();
        assert!(!given.bare);
        assert_eq!(given.values, [T]);
    }

    #[test]
    fn values_at_the_edges_of_64_bits_are_impossible_and_do_not_overflow() {
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
        for unit in [None, Some(TimestampUnit::Seconds), Some(TimestampUnit::Nanoseconds)] {
            let times = Times::of(&unsigned, unit).unwrap();
            assert!(!times.is_possible(0) && times.is_possible(1), "{unit:?}");
        }
        let edges: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]));
        let times = Times::of(&edges, None).unwrap();
        assert!(!times.is_possible(0) && !times.is_possible(1));
        let typed: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MIN, i64::MAX, *REPRESENTABLE.end()]));
        let times = Times::of(&typed, None).unwrap();
        assert!(!times.is_possible(0) && !times.is_possible(1) && times.is_possible(2));
    }

    #[test]
    fn magnitude_tells_the_unit_of_any_time_from_1973_to_2286() {
        for year in [3_i64, 30, 54, 80, 316] {
            let second = year * 31_557_600 + 10_000_000;
            for unit in TimestampUnit::ALL {
                if unit == TimestampUnit::Nanoseconds && year > 292 {
                    continue; // Nanoseconds in 64 bits end in 2262.
                }
                assert_eq!(TimestampUnit::likely(second * unit.per_second()), Some(unit), "{year} {unit}");
            }
        }
        assert_eq!(TimestampUnit::likely(0), None);
        assert_eq!(TimestampUnit::likely(i64::MIN), Some(TimestampUnit::Nanoseconds));
    }

    #[test]
    fn units_are_read_by_symbol_and_by_word() {
        assert_eq!("us".parse::<TimestampUnit>().unwrap(), TimestampUnit::Microseconds);
        assert_eq!("seconds".parse::<TimestampUnit>().unwrap(), TimestampUnit::Seconds);
        let error = "minutes".parse::<TimestampUnit>().unwrap_err();
        assert_eq!(error.to_string(), "--timestamp-unit: \"minutes\" is not a unit; give s, ms, us or ns");
    }
}
