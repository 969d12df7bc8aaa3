//! Rows that break a rule: counted, said, and past a limit an error of one line.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;

use crate::files::{Folder, T, batch, codes, few, few_with};

/// `rows` sound events, with values, in which each of `nulls` has no user and each of `values` has that value.
fn log(rows: usize, nulls: &[usize], values: &[(usize, f64)]) -> RecordBatch {
    let users: StringArray =
        (0..rows).map(|row| (!nulls.contains(&row)).then(|| format!("canary-{}", row % 50))).collect();
    let items: StringArray = (0..rows).map(|row| Some(format!("i{}", row % 7))).collect();
    let times: Int64Array = (0..rows).map(|row| Some(T + row as i64)).collect();
    let value = |row: usize| values.iter().find(|(bad, _)| *bad == row).map_or(1.0, |(_, value)| *value);
    let values: Float64Array = (0..rows).map(|row| Some(value(row))).collect();
    batch(&[
        ("user_id", Arc::new(users) as ArrayRef),
        ("item_id", Arc::new(items)),
        ("timestamp", Arc::new(times)),
        ("event_value", Arc::new(values)),
    ])
}

#[test]
fn one_null_id_in_a_thousand_rows_is_an_error_of_one_line_that_says_what_to_do() {
    assert_eq!(
        Folder::of(&log(1_000, &[417], &[])).refusal(),
        "ERR_TOO_MANY_BAD_ROWS: 1 of 1000 rows rejected (id_null 1); file=<folder>part.parquet row=417 column=USER_ID; 0 % \
         allowed; leave out rows without an id, or raise --max-bad-rows to at least 0.001"
    );
}

#[test]
fn nan_and_negative_values_are_counted_apart_and_refused_above_one_in_a_hundred() {
    let bad: Vec<(usize, f64)> =
        (0..11).map(|n| (n * 50 + 3, if n < 4 { [f64::NAN, f64::INFINITY][n % 2] } else { -1.0 })).collect();
    assert_eq!(
        Folder::of(&log(1_000, &[], &bad)).refusal(),
        "ERR_TOO_MANY_BAD_ROWS: 11 of 1000 rows rejected (event_value_negative 7, event_value_not_finite 4); \
         file=<folder>part.parquet row=203 column=EVENT_VALUE; 1 % allowed; leave out what was disliked, returned or \
         refunded, or raise --max-bad-rows to at least 0.011"
    );
    let under = Folder::of(&log(1_000, &[], &bad[1..])).read().unwrap();
    assert_eq!((under.counts.kept, under.counts.rejected_rows()), (990, 10));
    assert_eq!(codes(&under), ["ROWS_REJECTED", "ROWS_REJECTED"]);
}

#[test]
fn p19_exactly_the_bad_rows_that_were_put_in_are_counted() {
    for seed in 0..20_usize {
        let rows = 400 + 37 * seed;
        let nulls: Vec<usize> = (0..rows).filter(|row| (row * 31 + seed).is_multiple_of(17)).collect();
        let values: Vec<(usize, f64)> =
            (0..rows).filter(|row| (row * 7 + seed).is_multiple_of(11)).map(|row| (row, -0.5)).collect();
        let read =
            Folder::of(&log(rows, &nulls, &values)).read_with(|source| *source = source.clone().max_bad_rows(1.0));
        let counts = read.unwrap().counts;
        let both = values.iter().filter(|(row, _)| nulls.contains(row)).count();
        assert_eq!(counts.rejected["id_null"].count, nulls.len() as u64);
        assert_eq!(counts.rejected["id_null"].first_row, nulls[0] as u64);
        assert_eq!(counts.rejected["event_value_negative"].count, (values.len() - both) as u64, "one fault a row");
        assert_eq!(counts.rows, counts.kept + counts.rejected_rows());
    }
}

#[test]
fn a_raised_limit_lets_rows_without_an_id_be_left_out() {
    let folder = Folder::of(&log(1_000, &[1, 2, 3], &[]));
    let read = folder.read_with(|source| *source = source.clone().max_bad_rows(0.003)).unwrap();
    assert_eq!(read.counts.kept, 997);
    assert_eq!(
        read.warnings[0].to_string().replace(&folder.location().to_string(), "<folder>/").replace("//", "/"),
        "ROWS_REJECTED: id_null; count=3 first_row=1 column=USER_ID file=<folder>/part.parquet; each row needs a user and \
         an item"
    );
    let message = folder.refusal_with(|source| *source = source.clone().max_bad_rows(0.002));
    assert!(message.contains("0.2 % allowed"), "{message}");
}

#[test]
fn the_first_bad_row_is_that_of_the_first_file_however_many_readers_there_are() {
    let folder = Folder::new();
    for (name, null) in [("a", 900), ("b", 5), ("c", 1)] {
        folder.write(&format!("{name}.parquet"), &log(1_000, &[null], &[]));
    }
    for threads in [1, 2, 4] {
        let message = folder.refusal_with(|source| source.threads = Some(threads));
        assert!(message.contains("(id_null 3); file=<folder>a.parquet row=900 column=USER_ID"), "{message}");
    }
}

#[test]
fn null_and_blank_ids_and_null_times_are_each_refused_by_default() {
    let text = |values: [Option<&str>; 4]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let cases: [(&str, ArrayRef, &str); 5] = [
        ("item_id", text([Some("a"), None, Some("b"), Some("c")]), "id_null 1"),
        ("user_id", text([Some("a"), Some(""), Some("b"), Some("c")]), "id_blank 1"),
        ("item_id", text([Some("a"), Some("b"), Some(" \t"), Some("c")]), "id_blank 1"),
        ("timestamp", Arc::new(Int64Array::from(vec![Some(T), None, None, Some(T)])), "timestamp_null 2"),
        ("user_id", Arc::new(Int64Array::from(vec![Some(1), None, Some(2), Some(3)])), "id_null 1"),
    ];
    for (column, array, reasons) in cases {
        let message = Folder::of(&few_with(column, array)).refusal();
        assert!(message.contains(&format!("rows rejected ({reasons}); file=<folder>part.parquet row=")), "{message}");
        assert!(message.contains(&format!("column={}", column.to_uppercase())), "{message}");
    }
}

#[test]
fn ids_over_256_characters_are_rejected_however_long_they_are() {
    let fits = "ü".repeat(256);
    let long = "x".repeat(1 << 20);
    let users: ArrayRef = Arc::new(StringArray::from(vec![fits.as_str(), "u", long.as_str(), "u"]));
    let folder = Folder::of(&few_with("user_id", users));
    let message = folder.refusal();
    assert!(message.contains("(id_too_long 1); file=<folder>part.parquet row=2 column=USER_ID"), "{message}");
    assert!(message.len() < 1_000);
    let read = folder.read_with(|source| source.max_bad_row_share = 0.25).unwrap();
    assert_eq!(read.interactions.users().index_of(&fits), Some(1));
}

#[test]
fn limits_that_are_no_shares_are_refused_before_anything_is_read() {
    for share in [-0.1, 1.1, f64::NAN] {
        let message = Folder::new().refusal_with(|source| source.max_bad_row_share = share);
        assert!(message.starts_with("--max-bad-rows: "), "{message}");
    }
}

#[test]
fn rejected_rows_leave_no_ids_behind() {
    let [_, _, time] = few();
    let users = Arc::new(StringArray::from(vec![Some("only-bad"), Some("u1"), Some("u1"), Some("u1")]));
    let items = Arc::new(StringArray::from(vec![None, Some("a"), Some("a"), Some("b")]));
    let folder = Folder::of(&batch(&[("user_id", users), ("item_id", items), time]));
    let read = folder.read_with(|source| source.max_bad_structure_share = 0.25).unwrap();
    assert_eq!(read.interactions.users().iter().collect::<Vec<_>>(), ["u1"]);
}

#[test]
fn no_message_holds_a_user_id() {
    let bad: Vec<(usize, f64)> = (0..1_000).step_by(3).map(|row| (row, f64::NAN)).collect();
    let folder = Folder::of(&log(1_000, &[5], &bad));
    let mut said = vec![folder.refusal(), folder.refusal_with(|source| source.max_bad_structure_share = 1.0)];
    let read = folder.read_with(|source| *source = source.clone().max_bad_rows(1.0)).unwrap();
    said.extend(read.warnings.iter().map(ToString::to_string));
    let report = item_affinity_ingest::DataReport::new(&read, None, None);
    said.push(report.to_string());
    said.push(serde_json::to_string(&report).unwrap());
    said.push(report.refusal(false).unwrap_err().to_string());
    for text in said {
        assert!(!text.contains("canary"), "{text}");
    }
}
