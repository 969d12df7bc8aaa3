//! Delta tables in SQL: `CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION 's3://lake/t'`.
//!
//! The log says which files are the table and what their partition columns are; the engine's own Parquet source reads
//! them. A table stays at the version that it was registered with.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{CreateExternalTable, Expr};
use datafusion::object_store::ObjectStore;
use datafusion::physical_plan::ExecutionPlan;
use item_affinity_storage::{Listing, Location, Stores, list_parquet};
use url::Url;

use crate::error::from_storage;

/// A Delta table at one version.
pub struct DeltaProvider {
    schema: SchemaRef,
    /// The columns in the files, and those whose values stand in the log.
    in_files: SchemaRef,
    in_log: Vec<Arc<Field>>,
    files: Vec<PartitionedFile>,
    store_url: Url,
    store: Arc<dyn ObjectStore>,
}

impl DeltaProvider {
    /// The table that a listing is of; none where the files are no Delta table.
    ///
    /// # Errors   a value of a partition column that its type has no place for; storage errors
    pub fn of(stores: &Stores, listing: &Listing) -> Result<Option<Self>> {
        let (Some(table), Some(first)) = (&listing.table, listing.files.first()) else { return Ok(None) };
        let is_logged = |field: &Arc<Field>| table.partition_columns.contains(field.name());
        let in_files = table.schema.fields().iter().filter(|field| !is_logged(field)).cloned().collect::<Vec<_>>();
        let mut in_log = Vec::with_capacity(table.partition_columns.len());
        for name in &table.partition_columns {
            in_log.push(Arc::clone(&table.schema.fields()[table.schema.index_of(name)?]));
        }
        let mut files = Vec::with_capacity(listing.files.len());
        for file in &listing.files {
            let mut partitioned = PartitionedFile::from(file.meta.clone());
            for (field, (_, value)) in in_log.iter().zip(&file.partitions) {
                partitioned.partition_values.push(match value {
                    Some(value) => ScalarValue::try_from_string(value.clone(), field.data_type())?,
                    None => ScalarValue::try_from(field.data_type())?,
                });
            }
            files.push(partitioned);
        }
        Ok(Some(Self {
            schema: Arc::clone(&table.schema),
            in_files: Arc::new(Schema::new(in_files)),
            in_log,
            files,
            store_url: first.location.store_url(),
            store: stores.store(&first.location).map_err(from_storage)?,
        }))
    }

    /// Where a column of the table stands among those of the scan: first those of the files, then those of the log.
    fn scanned(&self, column: usize) -> Result<usize> {
        let name = self.schema.field(column).name();
        let logged = self.in_log.iter().position(|field| field.name() == name);
        match logged {
            Some(at) => Ok(self.in_files.fields().len() + at),
            None => Ok(self.in_files.index_of(name)?),
        }
    }
}

impl fmt::Debug for DeltaProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaProvider({} files)", self.files.len())
    }
}

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        session.runtime_env().register_object_store(&self.store_url, Arc::clone(&self.store));
        let all = || (0..self.schema.fields().len()).collect::<Vec<_>>();
        let columns = projection.cloned().unwrap_or_else(all);
        let columns = columns.into_iter().map(|column| self.scanned(column)).collect::<Result<Vec<_>>>()?;
        let source = ParquetSource::new(
            TableSchema::builder(Arc::clone(&self.in_files)).with_table_partition_cols(self.in_log.clone()).build(),
        );
        let partitions = session.config_options().execution.target_partitions.clamp(1, self.files.len().max(1));
        let mut groups = vec![Vec::new(); partitions];
        for (number, file) in self.files.iter().enumerate() {
            groups[number % partitions].push(file.clone());
        }
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(&self.store_url)?, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Makes a table of `STORED AS DELTATABLE`.
pub(crate) struct DeltaTables {
    pub(crate) stores: Stores,
}

impl fmt::Debug for DeltaTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeltaTables")
    }
}

#[async_trait]
impl TableProviderFactory for DeltaTables {
    async fn create(&self, _: &dyn Session, command: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
        let [text] = command.locations.as_slice() else {
            return plan_err!("ERR_DELTA: a Delta table has one folder; give one LOCATION");
        };
        let location = Location::parse(text).map_err(from_storage)?;
        let listing = list_parquet(&self.stores, &location).await.map_err(from_storage)?;
        match DeltaProvider::of(&self.stores, &listing)? {
            Some(provider) => Ok(Arc::new(provider)),
            None => plan_err!(
                "ERR_DELTA: there is no folder _delta_log; file={location}; use STORED AS PARQUET for files without a log"
            ),
        }
    }
}
