//! Explained segments taken apart again: the segments as they are without reasons, and the reasons.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{BatchCoalescer, filter_record_batch, is_not_null};
use datafusion::arrow::datatypes::Int32Type;
use item_affinity_datafusion::SEGMENT_SCHEMA;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::Run;

use crate::error::Result;
use crate::parquet_output::{Facts, ParquetOutput, REASON_COLUMNS, REASON_SCHEMA};
use crate::row_groups::RowGroupBudget;

/// Rows of a batch of segments: that of the engine, so that the file is the same with and without reasons.
const BATCH_ROWS: usize = 8192;

/// Writes the reasons and gives back the segments.
pub(crate) struct ExplainedRows {
    segments: BatchCoalescer,
    reasons: ParquetOutput,
}

impl ExplainedRows {
    pub(crate) async fn create(run: &Run, version: &SolutionVersion, budget: &RowGroupBudget) -> Result<Self> {
        let segments = BatchCoalescer::new(Arc::clone(&SEGMENT_SCHEMA), BATCH_ROWS);
        Ok(Self { segments, reasons: ParquetOutput::reasons(run, Facts::of(version), budget).await? })
    }

    /// Takes rows in the order `(item_id, rank, reason_rank)`.
    pub(crate) async fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let ranks = batch.column(4).as_primitive::<Int32Type>();
        // Each row of the segments once: with its first reason, or with the NULL of a user who has none.
        let first: BooleanArray = ranks.iter().map(|rank| Some(rank.is_none_or(|rank| rank == 1))).collect();
        self.segments.push_batch(filter_record_batch(&batch.project(&[0, 1, 2, 3])?, &first)?)?;
        let reasons = filter_record_batch(&batch.project(&REASON_COLUMNS)?, &is_not_null(ranks)?)?;
        if reasons.num_rows() > 0 {
            let columns = reasons.columns().to_vec();
            self.reasons.write(&RecordBatch::try_new(Arc::clone(&REASON_SCHEMA), columns)?).await?;
        }
        Ok(())
    }

    /// A batch of segments, if a whole one has come together.
    pub(crate) fn next_segments(&mut self) -> Option<RecordBatch> {
        self.segments.next_completed_batch()
    }

    /// The segments that are left when no more rows come.
    pub(crate) fn last_segments(&mut self) -> Result<Option<RecordBatch>> {
        self.segments.finish_buffered_batch()?;
        Ok(self.segments.next_completed_batch())
    }

    /// Completes the file of the reasons and returns its number of rows.
    pub(crate) async fn finish(self) -> Result<u64> {
        Ok(self.reasons.finish().await?.rows.unwrap_or_default())
    }
}
