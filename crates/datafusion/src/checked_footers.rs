//! Footers of Parquet files are checked before the engine's reader sees them, which takes a bad one for a command to
//! allocate, or panics.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::CreateExternalTable;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_storage::{InputFile, Location, check_footer};
use url::Url;

use crate::error::from_storage;

/// Footers read at the same time: the wait is the store's.
const FOOTERS_AT_ONCE: usize = 16;

/// Makes a table of `STORED AS PARQUET` of files that all pass; a file that comes to the folder later is not looked at.
pub(crate) struct CheckedTables;

impl fmt::Debug for CheckedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedTables")
    }
}

#[async_trait]
impl TableProviderFactory for CheckedTables {
    async fn create(&self, session: &dyn Session, command: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
        for text in &command.locations {
            let url = ListingTableUrl::parse(text)?;
            let store = session.runtime_env().object_store(url.object_store())?;
            let files = url.list_all_files(session, store.as_ref(), "").await?.try_collect::<Vec<_>>().await?;
            let base = Url::parse(url.object_store().as_str()).map_err(|e| DataFusionError::External(Box::new(e)))?;
            check_footers(&store, &base, files).await?;
        }
        ListingTableFactory::new().create(session, command).await
    }
}

/// Refuses files of a store that are no Parquet files, or damaged ones.
///
/// base: the address of the store
pub(crate) async fn check_footers(store: &Arc<dyn ObjectStore>, base: &Url, files: Vec<ObjectMeta>) -> Result<()> {
    let check = |meta: ObjectMeta| {
        let (store, mut url) = (Arc::clone(store), base.clone());
        async move {
            url.set_path(meta.location.as_ref());
            let location = Location::parse(url.as_str()).map_err(from_storage)?;
            let file = InputFile { location, meta, partitions: Vec::new(), delta_version: None };
            check_footer(&store, &file).await.map(drop).map_err(from_storage)
        }
    };
    // Collected first: a lazy map of borrowed files would keep the future from being sent between threads.
    let checks: Vec<_> = files.into_iter().map(check).collect();
    stream::iter(checks).buffered(FOOTERS_AT_ONCE).try_collect().await
}
