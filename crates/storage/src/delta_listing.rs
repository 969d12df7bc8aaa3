//! The files of a Delta table in place of those that lie in its folder.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::listing::Found;
use crate::{Error, InputFile, Location, Result, Stores};

/// What the log says of one file.
struct Logged {
    bytes: u64,
    partitions: Vec<(String, Option<String>)>,
}

/// What the log of a Delta table says of the files that were listed.
#[derive(Clone, Debug)]
pub struct LoggedTable {
    /// The version of the table.
    pub version: u64,
    /// Its columns, in the order of the table.
    pub schema: SchemaRef,
    /// Columns whose values stand in the log alone: those of a file are its partitions, in this order.
    pub partition_columns: Vec<String>,
}

/// The files that the log of a table names, at one version of it.
pub(crate) struct DeltaListing {
    pub(crate) table: LoggedTable,
    files: BTreeMap<Path, Logged>,
}

impl DeltaListing {
    /// Reads the log of the table, and puts its files into `found` in place of what lies in the folder: files that are
    /// no longer data, and those of writers that never committed.
    ///
    /// # Errors
    /// [`Error::Delta`] for a table that is more than its Parquet files; what the store answered.
    #[cfg(feature = "delta")]
    pub(crate) async fn of(stores: &Stores, location: &Location, found: &mut Found) -> Result<Self> {
        let table = crate::DeltaTable::open(stores, location).await?.ok_or_else(|| Error::Delta {
            reason: "the folder _delta_log has no log".to_owned(),
            file: location.to_string(),
            cure: "remove it, or give a table that is whole".to_owned(),
            source: None,
        })?;
        // Null or a value, in the order of the table: a folder name can be neither told nor sorted like that.
        let columns = table.partition_columns().to_vec();
        let mut files = BTreeMap::new();
        for mut file in table.files()? {
            let path = location.child(&file.path)?.path().clone();
            let value = |column: &String| (column.clone(), file.partitions.remove(column).flatten());
            let partitions = columns.iter().map(value).collect();
            files.insert(path, Logged { bytes: file.bytes, partitions });
        }
        let listed = std::mem::take(&mut found.paths);
        found.paths = files.keys().map(|path| (path.clone(), listed.get(path).cloned().flatten())).collect();
        found.ignored = 0;
        let table = LoggedTable { version: table.version(), schema: table.schema(), partition_columns: columns };
        Ok(Self { table, files })
    }

    /// Without the feature there is nothing that reads a log.
    #[cfg(not(feature = "delta"))]
    pub(crate) async fn of(_: &Stores, location: &Location, _: &mut Found) -> Result<Self> {
        Err(Error::Delta {
            reason: "this is a Delta table, and this build lacks the feature delta".to_owned(),
            file: location.to_string(),
            cure: "build with `cargo build --release --locked --features delta`".to_owned(),
            source: None,
        })
    }

    /// A file of the table, pinned with what the log says of it.
    ///
    /// # Errors
    /// [`Error::Delta`] when it has another size than the log says.
    pub(crate) fn input_file(&self, location: Location, meta: ObjectMeta) -> Result<InputFile> {
        let logged = self.files.get(location.path()).ok_or_else(|| Error::Bug {
            reason: "a file of a Delta table is not in its log".to_owned(),
            source: None,
        })?;
        if logged.bytes != meta.size {
            return Err(Error::Delta {
                reason: format!("the log says {} bytes, the file has {}", logged.bytes, meta.size),
                file: location.to_string(),
                cure: "restore the file, or give a table that is whole".to_owned(),
                source: None,
            });
        }
        Ok(InputFile { location, meta, partitions: logged.partitions.clone(), delta_version: Some(self.table.version) })
    }
}
