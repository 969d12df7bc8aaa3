//! `item_affinity_output(location)`: the committed segments of a job as a table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_err;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::object_store::{ObjectMeta, ObjectStoreExt};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::col;
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_solution::SolutionRef;
use item_affinity_storage::{Artifact, Location, Stores, Versions};

use crate::call_arguments::{Accepted, CallArguments};
use crate::checked_footers::{FOOTERS_AT_ONCE, check_footers};
use crate::error::{from_solution, from_storage};
use crate::segment_schema::SEGMENT_SCHEMA;

/// What it takes.
pub(crate) static ACCEPTED: Accepted = Accepted {
    function: "item_affinity_output",
    places: "(location)",
    names: &["location"],
    by_place: 1,
    required: true,
    description: "The committed segments of a job, the newest or those of location@3: item_id, rank, user_id, score.",
    example: "SELECT * FROM item_affinity_output('s3://lake/segments/spring')",
};

/// The table function: the newest committed segments at a location, or those of `location@3`.
#[derive(Debug)]
pub(crate) struct OutputFunction {
    pub(crate) stores: Stores,
}

impl TableFunctionImpl for OutputFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = CallArguments::new(&ACCEPTED, args.exprs())?;
        let Some(text) = arguments.text("location")? else {
            return plan_err!("{} needs the argument location", ACCEPTED.function);
        };
        let reference = SolutionRef::parse(&text).map_err(from_solution)?;
        Ok(Arc::new(OutputTable { stores: self.stores.clone(), reference }))
    }
}

#[derive(Debug)]
struct OutputTable {
    stores: Stores,
    /// Location and version are written alike for outputs and solutions.
    reference: SolutionRef,
}

#[async_trait]
impl TableProvider for OutputTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&SEGMENT_SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Row groups and pages are left out by their statistics; the rows of the others are filtered above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (files, metas): (Vec<_>, Vec<_>) = self.files().await?.into_iter().unzip();
        let store = self.stores.store(&self.reference.location).map_err(from_storage)?;
        session.runtime_env().register_object_store(&self.reference.location.store_url(), Arc::clone(&store));
        check_footers(&store, &self.reference.location.store_url(), metas).await?;
        let urls = files.iter().map(|file| ListingTableUrl::parse(file.url().as_str())).collect::<Result<Vec<_>>>()?;
        let order = vec![col("item_id").sort(true, false), col("rank").sort(true, false)];
        let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
            .with_file_extension("")
            .with_file_sort_order(vec![order]);
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .with_schema(Arc::clone(&SEGMENT_SCHEMA));
        ListingTable::try_new(config)?.scan(session, projection, filters, limit).await
    }
}

impl OutputTable {
    /// The files of the segments, as the commit names them, each there with its size.
    async fn files(&self) -> Result<Vec<(Location, ObjectMeta)>> {
        let SolutionRef { location, version } = &self.reference;
        let versions = Versions::new(&self.stores, location.clone(), Artifact::Segments).map_err(from_storage)?;
        let commit = versions.resolve(*version).await.map_err(from_storage)?;
        let store = self.stores.store(location).map_err(from_storage)?;
        let mut looks = Vec::new();
        for entry in &commit.files {
            let parts = entry.path.split('/').collect::<Vec<_>>();
            let hidden = parts.iter().any(|part| part.starts_with('_'));
            if hidden || !entry.path.ends_with(".parquet") {
                continue;
            }
            let file = versions.file_location(entry).map_err(from_storage)?;
            let (versions, entry, store) = (versions.clone(), entry.clone(), Arc::clone(&store));
            looks.push(async move {
                versions.check_file(&entry).await.map_err(from_storage)?;
                let meta = store.head(file.path()).await?;
                Ok::<_, DataFusionError>((file, meta))
            });
        }
        if looks.is_empty() {
            return plan_err!(
                "{}: version {} of {location} is not Parquet; read the file <input>.out that it wrote",
                ACCEPTED.function,
                commit.version
            );
        }
        stream::iter(looks).buffered(FOOTERS_AT_ONCE).try_collect().await
    }
}
