//! The same events in any file are the same interactions (promise P20).

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};

use crate::files::{Folder, T, batch, doubles, events, longs, strings};

/// Events with repeated pairs, equal times and ids of many lengths.
fn log() -> RecordBatch {
    let rows = 3_000_usize;
    let users: Vec<String> = (0..rows).map(|row| format!("user-{}", "x".repeat((row * row) % 23))).collect();
    let items: Vec<String> = (0..rows).map(|row| format!("{}", (row * 7919) % 101)).collect();
    batch(&[
        ("user_id", strings(users.iter().map(String::as_str))),
        ("item_id", strings(items.iter().map(String::as_str))),
        ("timestamp", longs((0..rows as i64).map(|row| T + (row * 13) % 500))),
        ("event_type", strings((0..rows).map(|row| ["view", "cart", "buy"][row % 3]))),
        ("event_value", doubles((0..rows).map(|row| (row % 5) as f64 / 4.0))),
    ])
}

type Events = Vec<(String, String, i64, f32)>;

fn read(folder: &Folder, threads: usize) -> Events {
    let read = folder.read_with(|source| {
        source.threads = Some(threads);
        source.event_types = vec!["view".into(), "buy".into()];
        source.event_weights = vec![("buy".into(), 3.5)];
        source.value_as_weight = true;
        source.event_value_threshold = Some(0.25);
    });
    events(&read.unwrap())
}

fn one_file(batch: &RecordBatch, properties: WriterProperties) -> Folder {
    let folder = Folder::new();
    folder.write_as("a.parquet", batch, properties);
    folder
}

#[test]
fn row_order_and_number_of_files_do_not_matter() {
    let log = log();
    let expected = read(&Folder::of(&log), 1);
    assert!(expected.len() > 1_000);
    let rows = log.num_rows();
    // Steps that share no factor with the number of rows visit every row once.
    for (files, step) in [(1, rows - 1), (2, 7), (9, 1_009)] {
        let order = UInt64Array::from_iter_values((0..rows).map(|row| ((row * step) % rows) as u64));
        let moved = take_record_batch(&log, &order).unwrap();
        let folder = Folder::new();
        let each = rows.div_ceil(files);
        for file in 0..files {
            let start = file * each;
            folder.write(&format!("deep/part-{file}.parquet"), &moved.slice(start, each.min(rows - start)));
        }
        for threads in [1, 2, 4] {
            assert_eq!(read(&folder, threads), expected, "{files} files, {threads} threads");
        }
    }
}

#[test]
fn codecs_encodings_and_row_groups_do_not_matter() {
    let log = log();
    let expected = read(&Folder::of(&log), 1);
    let build = WriterProperties::builder;
    let writers = [
        build().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(100)),
        build().set_compression(Compression::ZSTD(ZstdLevel::default())).set_dictionary_enabled(false),
        build().set_compression(Compression::LZ4_RAW).set_writer_version(WriterVersion::PARQUET_2_0),
        build().set_dictionary_enabled(false).set_column_encoding("user_id".into(), Encoding::DELTA_BYTE_ARRAY),
        build().set_dictionary_page_size_limit(64).set_data_page_row_count_limit(50).set_write_batch_size(10),
    ];
    for (number, writer) in writers.into_iter().enumerate() {
        assert_eq!(read(&one_file(&log, writer.build()), 2), expected, "writer {number}");
    }
}

#[test]
fn types_of_columns_and_their_order_do_not_matter() {
    let log = log();
    let expected = read(&Folder::of(&log), 1);
    let dictionary = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    for text in [DataType::LargeUtf8, DataType::Utf8View, DataType::Binary, dictionary] {
        let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
        for name in ["event_value", "timestamp", "event_type", "item_id", "user_id"] {
            let column = Arc::clone(log.column_by_name(name).unwrap());
            let column = match name {
                "user_id" | "item_id" => cast(&column, &text).unwrap(),
                "event_value" => cast(&column, &DataType::Decimal128(9, 3)).unwrap(),
                "timestamp" => cast(&column, &DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None)).unwrap(),
                _ => column,
            };
            columns.push((name, column));
        }
        assert_eq!(read(&Folder::of(&batch(&columns)), 2), expected, "{text}");
    }
    let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
    for (field, column) in log.schema_ref().fields().iter().zip(log.columns()) {
        let number = field.name() == "item_id";
        columns.push((field.name(), if number { cast(column, &DataType::Int16).unwrap() } else { Arc::clone(column) }));
    }
    assert_eq!(read(&Folder::of(&batch(&columns)), 2), expected, "items as Int16");
}
