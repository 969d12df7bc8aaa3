//! State files as bytes: the same rows always give the same bytes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, Float32Array, Int64Array, StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow::buffer::Buffer;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use item_affinity_model::Vocabulary;
use item_affinity_model::ndarray::{ArrayView2, s};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;

use super::{Table, writer_properties};
use crate::error::{Error, Result};

/// A batch as a Parquet file.
pub(super) fn parquet_file(batch: &RecordBatch) -> Result<Bytes> {
    // The Arrow schema in the footer would say again what the Parquet types say, and is one more thing to distrust.
    let options = ArrowWriterOptions::new().with_properties(writer_properties()).with_skip_arrow_metadata(true);
    let mut file = Vec::with_capacity(batch.get_array_memory_size());
    let mut writer = ArrowWriter::try_new_with_options(&mut file, batch.schema(), options).map_err(Error::encode)?;
    writer.write(batch).map_err(Error::encode)?;
    writer.close().map_err(Error::encode)?;
    Ok(Bytes::from(file))
}

/// All rows of one table, from which parts are cut.
pub(crate) struct StateTable<'a> {
    pub(crate) table: Table,
    pub(crate) ids: &'a Vocabulary,
    pub(crate) factors: ArrayView2<'a, f32>,
    /// What each row adds to the log-odds of a new pair.
    pub(crate) log_odds: &'a [f32],
    /// Events of each row.
    pub(crate) interactions: &'a [i64],
    /// Distinct users of each item; `None` for users.
    pub(crate) users: Option<&'a [i64]>,
    /// Newest event of each row, in epoch seconds.
    pub(crate) last_interaction: &'a [i64],
}

impl StateTable<'_> {
    /// The row ranges of the parts.
    pub(crate) fn parts(&self) -> Vec<Range<usize>> {
        let rows = self.ids.len();
        let step = self.table.rows_per_part(rows);
        (0..rows).step_by(step).map(|start| start..rows.min(start + step)).collect()
    }

    /// One part as a Parquet file of one row group.
    ///
    /// # Cost
    /// Three copies of the part's factors in memory at most: the column, its pages, the file.
    pub(crate) fn encode(&self, rows: Range<usize>) -> Result<Bytes> {
        parquet_file(&self.batch(rows).map_err(Error::encode)?)
    }

    /// All rows as a Parquet file of one row group, their places counted from the first one's.
    ///
    /// # Cost
    /// As [`StateTable::encode`].
    pub(crate) fn encode_from(&self, first_index: u32) -> Result<Bytes> {
        let batch = self.batch(0..self.ids.len()).map_err(Error::encode)?;
        let (schema, mut columns, _) = batch.into_parts();
        let places: UInt32Array = (first_index..).take(self.ids.len()).collect::<Vec<_>>().into();
        let at = schema.index_of(self.table.index()).map_err(Error::encode)?;
        columns[at] = Arc::new(places);
        parquet_file(&RecordBatch::try_new(schema, columns).map_err(Error::encode)?)
    }

    fn batch(&self, rows: Range<usize>) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
        let dimension = self.factors.ncols();
        let schema = self.table.schema(dimension);
        let indexes = rows.clone().map(u32::try_from).collect::<std::result::Result<Vec<u32>, _>>();
        let indexes = indexes.map_err(|e| arrow::error::ArrowError::ExternalError(Box::new(e)))?;
        let ids: StringArray = indexes.iter().map(|index| self.ids.id(*index)).collect();
        let last: Option<Vec<i64>> =
            self.last_interaction[rows.clone()].iter().map(|seconds| seconds.checked_mul(1_000)).collect();
        let last = last.ok_or_else(|| {
            arrow::error::ArrowError::ArithmeticOverflow("a time beyond 64-bit milliseconds".to_owned())
        })?;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(ids),
            Arc::new(UInt32Array::from(indexes)),
            Arc::new(self.factor_array(rows.clone())?),
            Arc::new(Float32Array::from(self.log_odds[rows.clone()].to_vec())),
            Arc::new(Int64Array::from(self.interactions[rows.clone()].to_vec())),
        ];
        if let Some(users) = self.users {
            columns.push(Arc::new(Int64Array::from(users[rows].to_vec())));
        }
        columns.push(Arc::new(TimestampMillisecondArray::from(last).with_timezone("UTC")));
        RecordBatch::try_new(schema, columns)
    }

    fn factor_array(&self, rows: Range<usize>) -> std::result::Result<FixedSizeBinaryArray, arrow::error::ArrowError> {
        let width = i32::try_from(self.factors.ncols() * size_of::<f32>())
            .map_err(|e| arrow::error::ArrowError::ExternalError(Box::new(e)))?;
        // Little-endian by way of the bits: on the usual machines this is one copy.
        let bits: Vec<u32> = self.factors.slice(s![rows, ..]).iter().map(|value| value.to_bits().to_le()).collect();
        FixedSizeBinaryArray::try_new(width, Buffer::from_vec(bits), None)
    }
}
