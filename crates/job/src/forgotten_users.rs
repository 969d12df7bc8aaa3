//! Users who were forgotten are no candidates, whatever version and whatever users a job is given.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::{DataFrame, ParquetReadOptions};
use futures::TryStreamExt;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{Artifact, Stores, Tombstones, Versions};

use crate::error::Result;
use crate::segment_job::BatchSegmentJob;

impl BatchSegmentJob {
    /// The forgotten of the output and of the solution.
    pub(crate) async fn forgotten(&self, output: &Versions, version: &SolutionVersion) -> Result<Tombstones> {
        let location = version.reference().location.clone();
        let solution = Versions::new(&self.stores, location, Artifact::SolutionVersion)?;
        Ok(output.tombstones().await?.and(solution.tombstones().await?))
    }
}

/// The users of a query, or all users of the version, without the forgotten; and how many were left out. None: everybody of
/// the version may be in a segment.
///
/// # Cost
/// Nothing where nobody was forgotten; else the ids are read once and kept in memory.
pub(crate) async fn without_forgotten(
    ctx: &SessionContext,
    stores: &Stores,
    version: &SolutionVersion,
    users: Option<DataFrame>,
    forgotten: &Tombstones,
) -> Result<(Option<DataFrame>, u64)> {
    if forgotten.is_empty() {
        return Ok((users, 0));
    }
    let ids = match users.clone() {
        Some(users) => users,
        None => of_version(ctx, stores, version).await?,
    };
    let mut rows = ids.select_columns(&["user_id"])?.execute_stream().await?;
    let (schema, mut left, mut gone) = (rows.schema(), Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        let texts = cast(batch.column(0), &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        let stays: BooleanArray = texts.iter().map(|id| Some(id.is_none_or(|id| !forgotten.contains(id)))).collect();
        gone += (stays.len() - stays.true_count()) as u64;
        left.push(filter_record_batch(&batch, &stays)?);
    }
    if gone == 0 {
        return Ok((users, 0));
    }
    Ok((Some(ctx.read_table(Arc::new(MemTable::try_new(schema, vec![left])?))?), gone))
}

/// The ids of all users of a version.
async fn of_version(ctx: &SessionContext, stores: &Stores, version: &SolutionVersion) -> Result<DataFrame> {
    let solution = &version.reference().location;
    ctx.runtime_env().register_object_store(&solution.store_url(), stores.store(solution)?);
    let urls = version.user_parts.iter().map(|part| part.location.url().to_string()).collect::<Vec<_>>();
    let options = ParquetReadOptions { file_extension: "", ..ParquetReadOptions::default() };
    Ok(ctx.read_parquet(urls, options).await?)
}
