//! Seeds that programs write: small Parquet files of every encoding, and the files of a small solution version.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch, StringArray,
    StringViewArray, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::Int32Type;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use datafusion::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};

const ROWS: i64 = 24;

fn ids(what: &str, distinct: i64) -> impl Iterator<Item = String> {
    (0..ROWS).map(move |row| format!("{what}-{}", row * 5 % distinct))
}

fn times() -> impl Iterator<Item = i64> {
    (0..ROWS).map(|row| 1_767_225_600 + row * 7_919)
}

fn parquet(columns: Vec<(&str, ArrayRef)>, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Interactions in every encoding and codec that writers use.
fn interactions() -> Vec<(&'static str, Vec<u8>)> {
    let users = || Arc::new(StringArray::from_iter_values(ids("u", 7))) as ArrayRef;
    let items = || Arc::new(StringArray::from_iter_values(ids("i", 4))) as ArrayRef;
    let seconds = || Arc::new(Int64Array::from_iter_values(times())) as ArrayRef;
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let types = StringArray::from_iter((0..ROWS).map(|row| (row % 3 > 0).then_some("view")));
    let values = Float64Array::from_iter((0..ROWS).map(|row| (row % 5 > 0).then_some(0.5)));
    let tags = ListArray::from_iter_primitive::<Int32Type, _, _>((0..ROWS).map(|_| Some([Some(1), None])));
    let numbers = Int64Array::from_iter_values((0..ROWS).map(|row| row % 6));
    vec![
        (
            "dictionary-snappy",
            parquet(
                vec![("user_id", users()), ("item_id", items()), ("timestamp", seconds())],
                WriterProperties::builder().set_compression(Compression::SNAPPY),
            ),
        ),
        (
            "delta-uncompressed",
            parquet(
                vec![("USER_ID", users()), ("ITEM_ID", items()), ("TIMESTAMP", seconds())],
                plain()
                    .set_column_encoding("USER_ID".into(), Encoding::DELTA_BYTE_ARRAY)
                    .set_column_encoding("ITEM_ID".into(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
                    .set_column_encoding("TIMESTAMP".into(), Encoding::DELTA_BINARY_PACKED),
            ),
        ),
        (
            "events-zstd",
            parquet(
                vec![
                    ("user_id", Arc::new(LargeStringArray::from_iter_values(ids("u", 7)))),
                    ("item_id", items()),
                    ("timestamp", Arc::new(TimestampMillisecondArray::from_iter_values(times().map(|t| t * 1_000)))),
                    ("event_type", Arc::new(types)),
                    ("event_value", Arc::new(values)),
                ],
                plain()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_column_encoding("event_value".into(), Encoding::BYTE_STREAM_SPLIT),
            ),
        ),
        (
            "numbers-gzip-pages",
            parquet(
                vec![
                    ("user_id", Arc::new(numbers)),
                    ("item_id", Arc::new(Int32Array::from_iter_values((0..24).map(|row| row % 4)))),
                    ("timestamp", Arc::new(Date32Array::from_iter_values((0..24).map(|row| 20_454 + row)))),
                ],
                WriterProperties::builder()
                    .set_compression(Compression::GZIP(GzipLevel::default()))
                    .set_writer_version(WriterVersion::PARQUET_2_0)
                    .set_max_row_group_row_count(Some(10))
                    .set_data_page_row_count_limit(4)
                    .set_write_batch_size(2)
                    .set_bloom_filter_enabled(true),
            ),
        ),
        (
            "views-brotli-lists",
            parquet(
                vec![
                    ("user_id", Arc::new(StringViewArray::from_iter_values(ids("user-with-a-long-name", 5)))),
                    ("item_id", items()),
                    ("timestamp", seconds()),
                    ("tags", Arc::new(tags)),
                ],
                WriterProperties::builder().set_compression(Compression::BROTLI(BrotliLevel::default())),
            ),
        ),
        (
            "lz4",
            parquet(
                vec![("user_id", users()), ("item_id", items()), ("timestamp", seconds())],
                plain().set_compression(Compression::LZ4_RAW),
            ),
        ),
    ]
}

/// Writes them into the corpora.
pub(super) fn write(corpora: &Path) {
    for (name, bytes) in interactions() {
        for target in ["preflight", "ingest"] {
            std::fs::write(corpora.join(target).join(name), &bytes).unwrap();
        }
    }
    for (which, file) in super::checks::small_version::FILES.iter().enumerate() {
        let mut bytes = vec![u8::try_from(which).unwrap()];
        bytes.extend_from_slice(&file.bytes);
        std::fs::write(corpora.join("solution_version").join(file.name.replace('/', "-")), bytes).unwrap();
    }
}
