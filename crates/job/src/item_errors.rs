//! Items without a segment: one record each, beside the segments of the others.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use serde::Serialize;

use crate::error::Result;
use crate::filter_error::FilterError;
use crate::segment_requests::FILTER_VALUE;

/// Why one asked item has no segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ItemErrorRecord {
    /// The item, where the request could be read so far.
    pub item_id: Option<String>,
    /// A stable name: `ITEM_NOT_IN_MODEL`, `ITEM_ID_MISSING`, `ITEM_LINE_INVALID`, `FILTER_VALUE`,
    /// `SUPPRESSED_MIN_K`.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl ItemErrorRecord {
    pub(crate) fn of_filter(item_id: &str, line: Option<u64>, error: &FilterError) -> Self {
        // The code stands in a field of its own.
        let text = error.to_string();
        let message = text.split_once(": ").map_or(text.as_str(), |(_, message)| message);
        let place = line.map(|line| format!("; line={line}")).unwrap_or_default();
        Self { item_id: Some(item_id.to_owned()), code: FILTER_VALUE.to_owned(), message: format!("{message}{place}") }
    }

    /// It does not say how many users there are: that is what shall not be known.
    pub(crate) fn suppressed(item_id: &str, least_users: u64) -> Self {
        Self { item_id: Some(item_id.to_owned()), code: SUPPRESSED.to_owned(), message: suppressed(least_users) }
    }

    pub(crate) fn not_in_model(item_id: &str) -> Self {
        Self {
            item_id: Some(item_id.to_owned()),
            code: "ITEM_NOT_IN_MODEL".to_owned(),
            message: "not present when the solution version was trained; train again with interactions of this item"
                .to_owned(),
        }
    }
}

/// The code of a record for an item whose segment is withheld.
const SUPPRESSED: &str = "SUPPRESSED_MIN_K";

/// Bytes of texts in one batch, so that no string array comes near 2 GiB: ids that are asked for may be of any length.
const BATCH_BYTES: usize = 256 << 20;

/// Why a segment is withheld.
pub(crate) fn suppressed(least_users: u64) -> String {
    format!("the segment has fewer users than --min-segment-users {least_users}")
}

/// The records as a Parquet file: `item_id, code, message`.
pub(crate) fn to_parquet(records: &[ItemErrorRecord]) -> Result<Bytes> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("item_id", DataType::Utf8, true),
        Field::new("code", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
    ]));
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None)?;
    for records in batches(records, BATCH_BYTES) {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(records.iter().map(|r| r.item_id.as_deref()).collect::<StringArray>()),
            Arc::new(records.iter().map(|r| Some(r.code.as_str())).collect::<StringArray>()),
            Arc::new(records.iter().map(|r| Some(r.message.as_str())).collect::<StringArray>()),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    Ok(writer.into_inner()?.into())
}

/// Records in runs of at most so many bytes, or of one that is longer.
fn batches(records: &[ItemErrorRecord], most: usize) -> impl Iterator<Item = &[ItemErrorRecord]> {
    let mut left = records;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |record: &&ItemErrorRecord| {
            let texts = [record.item_id.as_ref().map_or(0, String::len), record.code.len(), record.message.len()];
            bytes = texts.iter().fold(bytes, |bytes, text| bytes.saturating_add(*text));
            bytes <= most
        };
        let rows = left.iter().take_while(fits).count().max(1);
        let (batch, rest) = left.split_at_checked(rows)?;
        left = rest;
        Some(batch)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn p24_records_are_cut_by_bytes_and_all_are_written() {
        let id = |n: usize| "x".repeat(n % 7 * 10);
        let records: Vec<_> = (0..100).map(|n| ItemErrorRecord::not_in_model(&id(n))).collect();
        let one = records.iter().map(|r| r.code.len() + r.message.len() + 60).max().unwrap();
        for (most, least) in [(0, 100), (1, 100), (one, 50), (3 * one, 20), (usize::MAX, 1)] {
            let cut: Vec<_> = batches(&records, most).collect();
            assert_eq!(cut.concat(), records, "{most}");
            let bytes = |batch: &[ItemErrorRecord]| {
                batch.iter().map(|r| r.item_id.as_ref().unwrap().len() + r.code.len() + r.message.len()).sum::<usize>()
            };
            assert!(cut.iter().all(|batch| batch.len() == 1 || bytes(batch) <= most), "{most}");
            assert!(cut.len() >= least && (most < usize::MAX || cut.len() == 1), "{most}: {} batches", cut.len());
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(to_parquet(&records).unwrap()).unwrap().build().unwrap();
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 100);
        assert!(batches(&[], 7).next().is_none());
    }
}
