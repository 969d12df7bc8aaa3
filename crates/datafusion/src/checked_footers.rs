//! Footers of Parquet files are checked before the engine's reader sees them, which takes a bad one for a command to
//! allocate, or panics.

use std::path::Path;
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

/// Files looked at and footers read at the same time: the wait is the store's.
pub(crate) const FOOTERS_AT_ONCE: usize = 16;

/// Makes a table of `STORED AS PARQUET` of files that all pass; a file that comes to the folder later is not looked at.
#[derive(Debug)]
pub(crate) struct CheckedTables;

#[async_trait]
impl TableProviderFactory for CheckedTables {
    async fn create(&self, session: &dyn Session, command: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
        // A session remembers lists by the name of a table. What an earlier table of this name left may be old; the list that
        // is made here is also the one that the new table is made of.
        if let Some(lists) = session.runtime_env().cache_manager.get_list_files_cache() {
            lists.drop_table_entries(&command.name)?;
        }
        for text in &command.locations {
            let (url, extension) = listed(command, text)?;
            let store = session.runtime_env().object_store(url.object_store())?;
            let mut files =
                url.list_all_files(session, store.as_ref(), &extension).await?.try_collect::<Vec<_>>().await?;
            files.retain(|meta| !is_mark(&url, meta));
            let base = Url::parse(url.object_store().as_str()).map_err(|e| DataFusionError::External(Box::new(e)))?;
            check_footers(&store, &base, files).await?;
        }
        ListingTableFactory::new().create(session, command).await
    }
}

/// What is listed for a table at a location, and how the names of its files end: as [`ListingTableFactory`] does it.
fn listed(command: &CreateExternalTable, text: &str) -> Result<(ListingTableUrl, String)> {
    let url = ListingTableUrl::parse(text)?.with_table_ref(command.name.clone());
    if command.schema.fields().is_empty() && url.is_folder() && url.get_glob().is_none() {
        let url = url.with_glob(&format!("*.{}", command.file_type.to_lowercase()))?;
        return Ok((url, String::new()));
    }
    let extension = match Path::new(text).extension().and_then(|extension| extension.to_str()) {
        Some(extension) if command.locations.len() == 1 && !url.is_collection() => format!(".{extension}"),
        _ => String::new(),
    };
    Ok((url, extension))
}

/// Whether an object in a folder is empty and not named as data are: `_SUCCESS`, or the mark of a folder. Jobs leave them
/// out of their inputs, and the engine reads no empty object.
fn is_mark(url: &ListingTableUrl, meta: &ObjectMeta) -> bool {
    let name = url.strip_prefix(&meta.location).and_then(Iterator::last);
    meta.size == 0
        && name.is_some_and(|name| name.starts_with(['_', '.']) || (!name.contains('.') && !name.starts_with("part-")))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::execution::context::SessionContext;
    use datafusion::object_store::memory::InMemory;
    use datafusion::object_store::path::Path;
    use datafusion::object_store::{ObjectStoreExt, PutPayload};
    use item_affinity_storage::Stores;

    use super::*;
    use crate::{SessionSettings, error_message, session};

    /// Eight bytes that are no Parquet file.
    const BAD: &[u8] = b"PAR1PAR1";

    async fn run(ctx: &SessionContext, sql: String) -> Result<usize> {
        let batches = ctx.sql(&sql).await?.collect().await?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    }

    async fn create(ctx: &SessionContext, name: &str, location: &str) -> Result<usize> {
        run(ctx, format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{location}'")).await
    }

    async fn write(ctx: &SessionContext, rows: usize, file: &str) {
        let rows = format!("SELECT value FROM generate_series(1, {rows})");
        run(ctx, format!("COPY ({rows}) TO '{file}' STORED AS PARQUET")).await.unwrap();
    }

    #[tokio::test]
    async fn files_are_listed_anew_for_each_table_of_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let lake = format!("{}/", folder.path().display());
        let (good, bad) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
        let ctx = session(&Stores::from_env(), SessionSettings::default()).unwrap();
        write(&ctx, 3, &good.display().to_string()).await;
        create(&ctx, "one", &lake).await.unwrap();
        assert_eq!(run(&ctx, "SELECT * FROM one".to_owned()).await.unwrap(), 3);
        // What came since is looked at, under another name and under the same.
        std::fs::write(&bad, BAD).unwrap();
        for name in ["two", "three", "two"] {
            let error = create(&ctx, name, &lake).await.unwrap_err();
            assert!(error_message(&error).starts_with("ERR_TOO_SHORT: "), "{name}: {error}");
        }
        // What is gone does not count any more.
        std::fs::remove_file(&bad).unwrap();
        create(&ctx, "two", &lake).await.unwrap();
        // A file that was written anew is the new one.
        std::fs::remove_file(&good).unwrap();
        write(&ctx, 50, &good.display().to_string()).await;
        run(&ctx, "DROP TABLE one".to_owned()).await.unwrap();
        create(&ctx, "one", &lake).await.unwrap();
        assert_eq!(run(&ctx, "SELECT * FROM one".to_owned()).await.unwrap(), 50);
    }

    #[tokio::test]
    async fn b25_marks_in_a_folder_are_no_files_of_a_table() {
        let stores = Stores::in_memory();
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        stores.register(&Url::parse("s3://lake/").unwrap(), Arc::clone(&memory));
        let ctx = session(&stores, SessionSettings::default()).unwrap();
        write(&ctx, 3, "s3://lake/days/part-00000.parquet").await;
        let put = async |name: &str| memory.put(&Path::from(name), PutPayload::new()).await.unwrap();
        for name in ["days/_SUCCESS", "days/.marked.parquet", "days/2026"] {
            put(name).await;
        }
        create(&ctx, "days", "s3://lake/days/").await.unwrap();
        assert_eq!(run(&ctx, "SELECT * FROM days".to_owned()).await.unwrap(), 3);
        // Empty, and named as data are, or by the location itself.
        put("days/part-00001").await;
        put("_alone").await;
        for location in ["s3://lake/days/", "s3://lake/_alone"] {
            let error = create(&ctx, "other", location).await.unwrap_err();
            assert!(error_message(&error).starts_with("ERR_EMPTY_OBJECT: "), "{location}: {error}");
        }
    }

    #[tokio::test]
    async fn b25_files_that_a_local_table_leaves_out_are_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = session(&Stores::from_env(), SessionSettings::default()).unwrap();
        write(&ctx, 3, &folder.path().join("a.parquet").display().to_string()).await;
        for name in [".a.parquet.crc", "notes.txt"] {
            std::fs::write(folder.path().join(name), "no data").unwrap();
        }
        create(&ctx, "t", &format!("{}/", folder.path().display())).await.unwrap();
        assert_eq!(run(&ctx, "SELECT * FROM t".to_owned()).await.unwrap(), 3);
    }
}
