//! Small Parquet files with every option of the writer.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) compression: Compression,
    pub(crate) dictionary: bool,
    pub(crate) row_group: usize,
    pub(crate) page: usize,
    pub(crate) version_2: bool,
    pub(crate) statistics: EnabledStatistics,
    pub(crate) bloom: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compression: Compression::UNCOMPRESSED,
            dictionary: true,
            row_group: 1_000,
            page: 200,
            version_2: false,
            statistics: EnabledStatistics::Page,
            bloom: false,
        }
    }
}

impl Options {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let compression = prop::sample::select(vec![
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::ZSTD(ZstdLevel::default()),
        ]);
        let statistics =
            prop::sample::select(vec![EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page]);
        (compression, any::<bool>(), 1..200_usize, 1..100_usize, any::<bool>(), statistics, any::<bool>()).prop_map(
            |(compression, dictionary, row_group, page, version_2, statistics, bloom)| Self {
                compression,
                dictionary,
                row_group,
                page,
                version_2,
                statistics,
                bloom,
            },
        )
    }
}

/// Users that come often, with nulls, a number, and a nested column.
pub(crate) fn sample(rows: usize) -> RecordBatch {
    let users: StringArray = (0..rows).map(|i| (i % 17 != 3).then(|| format!("user-{}", i * 7 % 101))).collect();
    let times: Int64Array = (0..rows as i64).map(Some).collect();
    let values: Float32Array = (0..rows).map(|i| Some(i as f32)).collect();
    let tags = ListArray::from_iter_primitive::<Int32Type, _, _>((0..rows).map(|i| Some(vec![Some(i as i32); i % 3])));
    RecordBatch::try_from_iter_with_nullable([
        ("USER_ID", Arc::new(users) as ArrayRef, true),
        ("TIMESTAMP", Arc::new(times), false),
        ("EVENT_VALUE", Arc::new(values), true),
        ("TAGS", Arc::new(tags), true),
    ])
    .unwrap()
}

pub(crate) fn write(batch: &RecordBatch, options: &Options) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(options.compression)
        .set_dictionary_enabled(options.dictionary)
        .set_max_row_group_row_count(Some(options.row_group))
        .set_data_page_row_count_limit(options.page)
        .set_write_batch_size(options.page.min(64))
        .set_writer_version(if options.version_2 { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
        .set_statistics_enabled(options.statistics)
        .set_bloom_filter_enabled(options.bloom)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}
