//! Times of every accepted type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Date64Array, Float64Array, Int32Array, Int64Array, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array, UInt64Array,
};
use item_affinity_ingest::{DataReport, TimestampUnit};

use crate::files::{Folder, T, codes, few_with, longs, strings};

const STEPS: [i64; 4] = [T, T + 1, T + 2, T + 3];

fn range(array: ArrayRef) -> Option<(i64, i64)> {
    let ingested = Folder::of(&few_with("timestamp", array)).read().unwrap();
    assert_eq!(codes(&ingested), [""; 0]);
    ingested.interactions.time_range()
}

#[test]
fn typed_times_of_every_unit_and_integers_of_every_width_are_the_same_seconds() {
    let scaled = |factor: i64| STEPS.map(|step| step * factor).to_vec();
    let arrays: [ArrayRef; 8] = [
        Arc::new(Int64Array::from(STEPS.to_vec())),
        Arc::new(Int32Array::from(STEPS.map(|step| step as i32).to_vec())),
        Arc::new(UInt32Array::from(STEPS.map(|step| step as u32).to_vec())),
        Arc::new(UInt64Array::from(STEPS.map(|step| step as u64).to_vec())),
        Arc::new(TimestampMillisecondArray::from(scaled(1_000)).with_timezone("America/New_York")),
        Arc::new(TimestampMicrosecondArray::from(scaled(1_000_000)).with_timezone("+02:00")),
        Arc::new(TimestampNanosecondArray::from(scaled(1_000_000_000))),
        Arc::new(TimestampSecondArray::from(STEPS.to_vec())),
    ];
    for array in arrays {
        let kind = array.data_type().clone();
        assert_eq!(range(array), Some((T, T + 3)), "{kind}");
    }
}

#[test]
fn dates_are_the_first_second_of_their_day() {
    let day = 19_675_i32;
    assert_eq!(
        range(Arc::new(Date32Array::from(vec![day, day, day + 1, day]))),
        Some((i64::from(day) * 86_400, (i64::from(day) + 1) * 86_400))
    );
    let milliseconds = i64::from(day) * 86_400_000;
    assert_eq!(
        range(Arc::new(Date64Array::from(vec![milliseconds; 4]))),
        Some((i64::from(day) * 86_400, i64::from(day) * 86_400))
    );
}

#[test]
fn bare_milliseconds_are_detected_and_said() {
    let folder = Folder::of(&few_with("timestamp", longs(STEPS.map(|step| step * 1_000 + 999))));
    let ingested = folder.read().unwrap();
    assert_eq!(ingested.interactions.time_range(), Some((T, T + 3)));
    assert_eq!(codes(&ingested), ["TIMESTAMP_UNIT"]);
    assert!(ingested.warnings[0].message.starts_with("read as milliseconds; count=4 first_row=0 column=timestamp; "));
    let said = folder.read_with(|source| source.timestamp_unit = Some(TimestampUnit::Milliseconds)).unwrap();
    assert_eq!(said.interactions.time_range(), Some((T, T + 3)));
    assert_eq!(codes(&said), [""; 0]);
}

#[test]
fn a_file_of_timestamps_and_one_of_bare_milliseconds_are_one_log() {
    let folder = Folder::of(&few_with("timestamp", Arc::new(TimestampSecondArray::from(STEPS.to_vec()))));
    folder.write("second.parquet", &few_with("timestamp", longs(STEPS.map(|step| (step + 10) * 1_000))));
    assert_eq!(folder.read().unwrap().interactions.time_range(), Some((T, T + 13)));
}

#[test]
fn seconds_and_milliseconds_in_one_column_are_refused_with_a_row_of_each() {
    let folder = Folder::of(&few_with("timestamp", longs([T, T + 1, (T + 2) * 1_000, T + 3])));
    assert_eq!(
        folder.refusal(),
        "ERR_TIMESTAMP_UNIT: two clusters of magnitude: 3 rows look like seconds (first row 0), 1 like milliseconds (first \
         row 2); file=<folder>part.parquet row=2 column=timestamp; write all times in one unit, or say --timestamp-unit s \
         if they are all seconds"
    );
}

#[test]
fn seconds_in_one_file_and_milliseconds_in_another_are_refused_too() {
    let folder = Folder::of(&few_with("timestamp", longs(STEPS)));
    folder.write("second.parquet", &few_with("timestamp", longs(STEPS.map(|step| step * 1_000))));
    let message = folder.refusal();
    assert!(
        message.contains("4 rows look like seconds (first row 0 of <folder>part.parquet), 4 like milliseconds"),
        "{message}"
    );
    assert!(message.contains("file=<folder>second.parquet row=0"), "{message}");
}

#[test]
fn finer_units_have_to_be_named() {
    for (unit, word) in [(TimestampUnit::Microseconds, "microseconds"), (TimestampUnit::Nanoseconds, "nanoseconds")] {
        let folder = Folder::of(&few_with("timestamp", longs(STEPS.map(|step| step * unit.per_second()))));
        let message = folder.refusal();
        assert!(message.starts_with(&format!("ERR_TIMESTAMP_UNIT: 4 integers look like {word}, ")), "{message}");
        assert!(message.ends_with(&format!("say --timestamp-unit {} if they are {word}", unit.symbol())), "{message}");
        let read = folder.read_with(|source| source.timestamp_unit = Some(unit)).unwrap();
        assert_eq!(read.interactions.time_range(), Some((T, T + 3)));
    }
}

#[test]
fn a_unit_that_is_wrong_for_the_numbers_does_not_pass_unseen() {
    let folder = Folder::of(&few_with("timestamp", longs(STEPS.map(|step| step * 1_000_000))));
    let message = folder.refusal_with(|source| source.timestamp_unit = Some(TimestampUnit::Seconds));
    assert!(
        message.starts_with("ERR_TOO_MANY_BAD_ROWS: 4 of 4 rows rejected (timestamp_out_of_range 4); "),
        "{message}"
    );
    assert!(message.contains("check the unit of the times (--timestamp-unit)"), "{message}");
}

#[test]
fn text_and_floats_are_no_times() {
    let text = Folder::of(&few_with("timestamp", strings(["2024-05-31T10:00:00Z"; 4])));
    assert_eq!(
        text.refusal(),
        "ERR_COLUMN_TYPE: TIMESTAMP: found Utf8, accepted: integers (epoch seconds), timestamps and dates (text has no time \
         zone that can be relied on); file=<folder>part.parquet column=timestamp; write epoch seconds (BIGINT) or a \
         timestamp, for example CAST(ts AS TIMESTAMP), or map another column with --column"
    );
    let floats = Folder::of(&few_with("timestamp", Arc::new(Float64Array::from(vec![1.7e9; 4]))));
    assert!(floats.refusal().starts_with("ERR_COLUMN_TYPE: TIMESTAMP: found Float64"));
}

#[test]
fn odd_times_count_and_are_said() {
    let ahead = 32_503_680_000; // The year 3000.
    let ingested = Folder::of(&few_with("timestamp", longs([0, -5, T, ahead]))).read().unwrap();
    assert_eq!(codes(&ingested), ["TIMESTAMP_ZERO", "TIMESTAMP_NEGATIVE", "TIMESTAMP_FUTURE"]);
    assert_eq!(
        ingested.warnings[1].message,
        "times before 1970; count=1 first_row=1 column=timestamp; they count as given"
    );
    assert_eq!(ingested.interactions.time_range(), Some((-5, ahead)));
}

#[test]
fn values_at_the_edges_of_64_bits_are_rejected_without_overflow() {
    let folder = Folder::of(&few_with("timestamp", longs([i64::MAX, i64::MIN, T, T])));
    let read = folder.read_with(|source| source.max_bad_row_share = 0.5).unwrap();
    assert_eq!(read.counts.rejected["timestamp_out_of_range"].count, 2);
    let unsigned = Folder::of(&few_with("timestamp", Arc::new(UInt64Array::from(vec![u64::MAX, 1, 2, 3]))));
    assert!(unsigned.refusal().contains("timestamp_out_of_range 1"));
}

#[test]
fn times_that_are_all_equal_are_refused_whatever_is_allowed() {
    let ingested = Folder::of(&few_with("timestamp", longs([T; 4]))).read().unwrap();
    let report = DataReport::new(&ingested, None, None);
    let message = report.refusal(true).unwrap_err().to_string();
    assert_eq!(
        message,
        "ERR_TIMESTAMPS_EQUAL: all 4 interactions have the same timestamp; give the time of each interaction, or map its \
         column with --column timestamp=<your column>"
    );
}
