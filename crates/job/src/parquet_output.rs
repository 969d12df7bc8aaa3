//! Segments as one sorted Parquet file, `item_id, rank, user_id, score`, and their reasons as another.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::metadata::{KeyValue, SortingColumn};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use item_affinity_datafusion::{EXPLANATION_SCHEMA, SEGMENT_SCHEMA};
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{FileEntry, Run};

use crate::error::Result;
use crate::row_groups::{RowGroupBudget, RowGroups};

/// The file of the segments, below the data folder of the run.
pub(crate) const SEGMENTS: &str = "part-00000.parquet";
/// The file of the reasons. Programs that list the folder of the segments pass over names that begin with `_`.
pub(crate) const REASONS: &str = "_reasons/part-00000.parquet";

/// `item_id, rank, user_id, reason_rank, because_item_id, share`, none of them NULL: a user without a reason has no row.
pub(crate) static REASON_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = REASON_COLUMNS.iter().map(|column| {
        let field = EXPLANATION_SCHEMA.field(*column);
        Field::new(field.name(), field.data_type().clone(), false)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
});
/// The columns of the reasons among those of the explained segments.
pub(crate) const REASON_COLUMNS: [usize; 6] = [0, 1, 2, 4, 5, 6];

/// What a file says about where its rows come from. Nothing here may change from run to run: run ids and times are in
/// the commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) solution_version: u64,
    pub(crate) as_of: i64,
}

impl Facts {
    pub(crate) fn of(version: &SolutionVersion) -> Self {
        Self { solution_version: version.reference().version.unwrap_or_default(), as_of: version.model.as_of }
    }
}

/// Writes rows in the order they arrive, which the file says, with statistics and page index, so that readers skip to
/// the items they want.
pub(crate) struct ParquetOutput(RowGroups);

impl ParquetOutput {
    /// Segments come in the order `(item_id, rank)`.
    pub(crate) async fn segments(run: &Run, facts: Facts, budget: &RowGroupBudget) -> Result<Self> {
        Self::create(run, SEGMENTS, &SEGMENT_SCHEMA, &[0, 1], facts, budget).await
    }

    /// Reasons come in the order `(item_id, rank, reason_rank)`.
    pub(crate) async fn reasons(run: &Run, facts: Facts, budget: &RowGroupBudget) -> Result<Self> {
        Self::create(run, REASONS, &REASON_SCHEMA, &[0, 1, 3], facts, budget).await
    }

    async fn create(
        run: &Run,
        name: &str,
        schema: &SchemaRef,
        order: &[i32],
        facts: Facts,
        budget: &RowGroupBudget,
    ) -> Result<Self> {
        let file = run.writer(name).await?;
        let sorted = order.iter().map(|at| SortingColumn { column_idx: *at, descending: false, nulls_first: false });
        let facts = [
            ("item_affinity.solution_version", facts.solution_version.to_string()),
            ("item_affinity.as_of", facts.as_of.to_string()),
        ];
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_sorting_columns(Some(sorted.collect()))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_key_value_metadata(Some(
                facts.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect(),
            ))
            .build();
        Ok(Self(RowGroups::new(file, schema, properties, budget)?))
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(batch).await
    }

    pub(crate) async fn finish(self) -> Result<FileEntry> {
        self.0.finish().await
    }
}
