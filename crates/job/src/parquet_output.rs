//! Segments as one sorted Parquet file: `item_id, rank, user_id, score`.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::AsyncArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::metadata::{KeyValue, SortingColumn};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use item_affinity_datafusion::SEGMENT_SCHEMA;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{FileEntry, FileWriter, Run};

use crate::error::Result;

/// Rows of a row group at most, so that no string array comes near 2 GiB.
const ROW_GROUP_ROWS: usize = 1_000_000;

/// Writes segments in the order they arrive, which is `(item_id, rank)`; the file says so, with statistics and page
/// index, so that readers skip to the items they want.
pub(crate) struct ParquetOutput {
    writer: AsyncArrowWriter<FileWriter>,
    rows: u64,
}

impl ParquetOutput {
    pub(crate) async fn create(run: &Run, version: &SolutionVersion) -> Result<Self> {
        let file = run.writer("part-00000.parquet").await?;
        let sorted = [0, 1].map(|column| SortingColumn { column_idx: column, descending: false, nulls_first: false });
        // Nothing here may change from run to run: run ids and times are in the commit.
        let facts = [
            ("item_affinity.solution_version", version.reference().version.unwrap_or_default().to_string()),
            ("item_affinity.as_of", version.model.as_of.to_string()),
        ];
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_sorting_columns(Some(sorted.to_vec()))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_key_value_metadata(Some(
                facts.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect(),
            ))
            .build();
        let writer = AsyncArrowWriter::try_new(file, Arc::clone(&SEGMENT_SCHEMA), Some(properties))?;
        Ok(Self { writer, rows: 0 })
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        Ok(self.writer.write(batch).await?)
    }

    pub(crate) async fn finish(mut self) -> Result<FileEntry> {
        self.writer.finish().await?;
        Ok(self.writer.into_inner().finish(Some(self.rows)).await?)
    }
}
