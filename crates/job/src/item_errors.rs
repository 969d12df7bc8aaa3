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
    let columns: Vec<ArrayRef> = vec![
        Arc::new(records.iter().map(|r| r.item_id.as_deref()).collect::<StringArray>()),
        Arc::new(records.iter().map(|r| Some(r.code.as_str())).collect::<StringArray>()),
        Arc::new(records.iter().map(|r| Some(r.message.as_str())).collect::<StringArray>()),
    ];
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None)?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    Ok(writer.into_inner()?.into())
}
