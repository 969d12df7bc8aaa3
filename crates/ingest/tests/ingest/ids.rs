//! Ids of every accepted type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, Float64Array, Int8Array, Int32Array, Int64Array,
    LargeStringArray, ListArray, StringViewArray, UInt64Array,
};
use arrow::datatypes::{Int8Type, Int32Type, UInt16Type};

use crate::files::{Folder, events, few_with};

fn users(array: ArrayRef) -> Vec<String> {
    let ingested = Folder::of(&few_with("user_id", array)).read().unwrap();
    assert_eq!(ingested.interactions.len(), 4);
    ingested.interactions.users().iter().map(ToString::to_string).collect()
}

#[test]
fn strings_of_every_layout_give_the_same_ids() {
    let values = ["u2", "u1", "u2", "a name that is longer than twelve bytes"];
    let expected = ["a name that is longer than twelve bytes", "u1", "u2"];
    let small: DictionaryArray<Int8Type> = values.into_iter().collect();
    let wide: DictionaryArray<UInt16Type> = values.into_iter().collect();
    let arrays: [ArrayRef; 5] = [
        Arc::new(LargeStringArray::from_iter_values(values)),
        Arc::new(StringViewArray::from_iter_values(values)),
        Arc::new(BinaryArray::from_iter_values(values)),
        Arc::new(small),
        Arc::new(wide),
    ];
    for array in arrays {
        let kind = array.data_type().clone();
        assert_eq!(users(array), expected, "{kind}");
    }
}

#[test]
fn integers_are_kept_as_decimal_text() {
    assert_eq!(users(Arc::new(Int8Array::from(vec![7, -7, 7, 100]))), ["-7", "100", "7"]);
    assert_eq!(users(Arc::new(Int32Array::from(vec![7, 8, 9, 10]))), ["10", "7", "8", "9"]);
    assert_eq!(users(Arc::new(UInt64Array::from(vec![u64::MAX, 1, 2, 1]))), ["1", "18446744073709551615", "2"]);
    let largest = Int64Array::from(vec![9_007_199_254_740_993, 9_007_199_254_740_992, i64::MIN, i64::MAX]);
    assert_eq!(users(Arc::new(largest)).len(), 4, "neighbours beyond 2^53 stay apart");
}

#[test]
fn integers_and_strings_of_two_files_are_the_same_ids() {
    let folder = Folder::of(&few_with("user_id", Arc::new(Int64Array::from(vec![1, 2, 2, 3]))));
    folder.write("second.parquet", &few_with("user_id", crate::files::strings(["3", "01", "1", "1"])));
    let ingested = folder.read().unwrap();
    let users: Vec<_> = ingested.interactions.users().iter().collect();
    assert_eq!(users, ["01", "1", "2", "3"]);
    assert_eq!(ingested.columns[0].types, ["Int64", "Utf8"]);
}

#[test]
fn ids_are_kept_byte_for_byte() {
    let odd = [" 1", "1 ", "nul\u{0}\n\ttab", "e\u{301}"];
    let ingested = Folder::of(&few_with("user_id", crate::files::strings(odd))).read().unwrap();
    let mut sorted = odd;
    sorted.sort_unstable();
    assert_eq!(ingested.interactions.users().iter().collect::<Vec<_>>(), sorted);
    assert_eq!(events(&ingested).len(), 4);
}

#[test]
fn floats_decimals_and_lists_are_no_ids() {
    let floats = Folder::of(&few_with("user_id", Arc::new(Float64Array::from(vec![123.0, 1.0, 2.0, 3.0]))));
    assert_eq!(
        floats.refusal(),
        "ERR_COLUMN_TYPE: USER_ID: found Float64, accepted: strings and integers (ids as floats would lose digits over \
         2^53); file=<folder>part.parquet column=user_id; write the ids as strings or integers, or map another column \
         with --column"
    );
    let decimals = Decimal128Array::from(vec![1, 2, 3, 4]).with_precision_and_scale(10, 0).unwrap();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..4).map(|n| Some(vec![Some(n)])));
    for array in [Arc::new(decimals) as ArrayRef, Arc::new(lists)] {
        let message = Folder::of(&few_with("item_id", array)).refusal();
        assert!(message.starts_with("ERR_COLUMN_TYPE: ITEM_ID: found "), "{message}");
        assert!(message.contains("accepted: strings and integers; file="), "{message}");
    }
}

#[test]
fn bytes_that_are_no_text_are_rejected_rows() {
    let bytes: Vec<&[u8]> = vec![b"u1", b"\xff\xfe", b"u2", b"u3"];
    let folder = Folder::of(&few_with("user_id", Arc::new(BinaryArray::from_vec(bytes))));
    let message = folder.refusal();
    assert!(message.starts_with("ERR_TOO_MANY_BAD_ROWS: 1 of 4 rows rejected (id_not_utf8 1); "), "{message}");
    let read = folder.read_with(|source| source.max_bad_row_share = 0.25).unwrap();
    assert_eq!(read.counts.rejected["id_not_utf8"].first_row, 1);
    assert_eq!(read.interactions.len(), 3);
}
