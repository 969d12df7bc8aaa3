//! User states as a plain Parquet scan, one file group per partition, every byte verified before it is decoded.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, internal_datafusion_err, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::object_store::path::Path;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use item_affinity_solution::{SolutionVersion, UserPart, user_states_schema};
use item_affinity_storage::{Bytes, Stores};

use crate::candidate_users_exec::CandidateUsersExec;
use crate::error::from_storage;
use crate::shared_parts::{HeldPart, PartKey};
use crate::user_states_exec::UserStatesExec;
use crate::version_source::VersionSource;

/// Columns of the user states that ranking needs, by name and position in the projected scan.
pub(crate) const USER_INDEX: usize = 0;
pub(crate) const FACTOR: usize = 1;
pub(crate) const LOG_ODDS: usize = 2;
pub(crate) const USER_ID: usize = 3;

/// Bytes of a decoded user state besides its factor: two numbers and an id of usual length.
const KEPT_ROW: usize = 32;

/// Scans `user_index, factor, log_odds` of a solution version, and `user_id` where `user_ids` says so, in at most
/// `target_partitions` partitions of about equal size; in a session whose memory has room for all of them a node on top
/// keeps them for the next query.
///
/// The leaf is DataFusion's own Parquet source, so that a cluster can cut it into tasks. Its reader takes a part whole
/// and compares its SHA-256 with the commit before a byte of it is decoded.
pub(crate) fn scan(
    of: &VersionSource,
    version: &SolutionVersion,
    session: &dyn Session,
    user_ids: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    let partitions = session.config_options().execution.target_partitions;
    let schema = user_states_schema(version.model.recipe.hidden_dimension);
    let columns = ["user_index", "factor", "log_odds", "user_id"]
        .iter()
        .take(if user_ids { 4 } else { 3 })
        .map(|name| schema.index_of(name))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let part =
        version.user_parts.first().ok_or_else(|| internal_datafusion_err!("a solution version without users"))?;
    let url = ObjectStoreUrl::parse(part.location.store_url())?;
    let reader = VerifiedParts { source: of.clone(), pool: Arc::clone(&session.runtime_env().memory_pool) };
    let source = ParquetSource::new(Arc::clone(&schema)).with_parquet_file_reader_factory(Arc::new(reader));
    let rows = version.user_parts.iter().map(|p| p.rows as usize).sum();
    let statistics = Statistics::new_unknown(&schema).with_num_rows(Precision::Exact(rows));
    let config = FileScanConfigBuilder::new(url, Arc::new(source))
        .with_file_groups(groups(&version.user_parts, partitions))
        .with_statistics(statistics)
        .with_projection_indices(Some(columns))?
        .build();
    let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
    let decoded = rows.saturating_mul(4 * version.model.recipe.hidden_dimension + KEPT_ROW);
    if !of.shared.would_keep(decoded, &session.runtime_env().memory_pool) {
        return Ok(scan);
    }
    Ok(Arc::new(UserStatesExec::new(scan, version.reference().clone(), of.shared.clone())))
}

/// Cuts the parts into runs of about equal numbers of users; a run is a range of `user_index`.
fn groups(parts: &[UserPart], partitions: usize) -> Vec<FileGroup> {
    let total: u64 = parts.iter().map(|p| u64::from(p.rows)).sum();
    let partitions = partitions.clamp(1, parts.len().max(1));
    let mut groups = vec![Vec::new(); partitions];
    let mut before = 0u64;
    for part in parts {
        // The middle of the part decides, so that no group is left empty by a long part.
        let middle = before + u64::from(part.rows) / 2;
        let group = usize::try_from(middle * partitions as u64 / total.max(1)).unwrap_or(usize::MAX);
        let file = PartitionedFile::new(part.location.path().to_string(), part.entry.bytes);
        groups[group.min(partitions - 1)].push(file);
        before += u64::from(part.rows);
    }
    groups.into_iter().filter(|g| !g.is_empty()).map(FileGroup::new).collect()
}

/// The plan of a ranking that was made elsewhere, its scan of user states with verified bytes: what travels is a plain
/// scan of Parquet. Nothing but a filter of users may stand between.
pub(crate) fn verified(
    plan: &Arc<dyn ExecutionPlan>,
    source: &VersionSource,
    pool: &Arc<dyn MemoryPool>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(filter) = plan.downcast_ref::<CandidateUsersExec>() {
        return Ok(Arc::new(filter.with_states(verified(filter.states(), source, pool)?)));
    }
    let scan = plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.downcast_to_file_source::<ParquetSource>());
    let Some((config, parquet)) = scan else {
        return internal_err!("the user states of a ranking come from {}, not from a scan of Parquet", plan.name());
    };
    let reader = VerifiedParts { source: source.clone(), pool: Arc::clone(pool) };
    let parquet = parquet.clone().with_parquet_file_reader_factory(Arc::new(reader));
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(parquet)).build();
    Ok(DataSourceExec::from_data_source(config))
}

/// Gives DataFusion's Parquet source readers over verified bytes.
#[derive(Clone)]
struct VerifiedParts {
    source: VersionSource,
    pool: Arc<dyn MemoryPool>,
}

impl fmt::Debug for VerifiedParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedParts({})", self.source.reference())
    }
}

impl ParquetFileReaderFactory for VerifiedParts {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(VerifiedPart { parts: self.clone(), file: file.object_meta.location, held: None }))
    }
}

/// One user part: read whole at the first request, then served from memory, which it shares with other queries.
struct VerifiedPart {
    parts: VerifiedParts,
    file: Path,
    held: Option<HeldPart>,
}

impl VerifiedPart {
    async fn bytes(&mut self) -> Result<Bytes, ParquetError> {
        if let Some(held) = &self.held {
            return Ok(held.bytes());
        }
        let held = self.read().await.map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(self.held.insert(held).bytes())
    }

    async fn read(&self) -> Result<HeldPart> {
        let VerifiedParts { source, pool } = &self.parts;
        let version = source.get().await?;
        let of_file = |part: &&UserPart| *part.location.path() == self.file;
        let Some((index, part)) = version.user_parts.iter().enumerate().find(|(_, part)| of_file(part)) else {
            return internal_err!("{} is no user part of {}", self.file, source.reference());
        };
        let key = PartKey { version: version.reference().clone(), part: index };
        let size = usize::try_from(part.entry.bytes).unwrap_or(usize::MAX);
        let read = || async { version.read_user_part(&source.stores, part).await.map_err(|e| source.error(e)) };
        source.shared.part(key, size, pool, read).await
    }
}

impl AsyncFileReader for VerifiedPart {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { slice(&self.bytes().await?, &range) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            let bytes = self.bytes().await?;
            ranges.iter().map(|range| slice(&bytes, range)).collect()
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.bytes().await?;
            let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            reader.try_parse(&bytes)?;
            Ok(Arc::new(reader.finish()?))
        }
        .boxed()
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Result<Bytes, ParquetError> {
    let from = usize::try_from(range.start).unwrap_or(usize::MAX);
    let to = usize::try_from(range.end).unwrap_or(usize::MAX);
    if from > to || to > bytes.len() {
        return Err(ParquetError::EOF(format!("range {from}..{to} of {} bytes", bytes.len())));
    }
    Ok(bytes.slice(from..to))
}

/// Makes the store of a solution version known to the session, under the address that its scan will ask for.
pub(crate) fn register_store(
    env: &datafusion::execution::runtime_env::RuntimeEnv,
    stores: &Stores,
    version: &SolutionVersion,
) -> Result<()> {
    if let Some(part) = version.user_parts.first() {
        let store = stores.store(&part.location).map_err(from_storage)?;
        env.register_object_store(&part.location.store_url(), store);
    }
    Ok(())
}
