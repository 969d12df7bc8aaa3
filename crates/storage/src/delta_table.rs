//! The log of a Delta table: which files the table is made of, and one commit more. Only this file names the crate that
//! knows the format; data files are read and written by the rest of this workspace, like all others.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference, TransactionError};
use deltalake_core::kernel::{Action, Add, EagerSnapshot, Metadata, Protocol, Transaction};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::prefix::PrefixStore;

use crate::location::printable;
use crate::store_error::find;
use crate::{Error, Location, Result, Stores};

/// A Delta table as it was at one version of its log.
pub struct DeltaTable {
    location: Location,
    log: LogStoreRef,
    snapshot: EagerSnapshot,
}

/// One data file of a Delta table.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaFile {
    /// Its path below the table, as it is on the store.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was written, epoch milliseconds.
    pub modified: i64,
    /// Values of the partition columns; `None` is null.
    pub partitions: BTreeMap<String, Option<String>>,
    /// Counts and bounds of its columns, as the log holds them.
    pub statistics: Option<serde_json::Value>,
}

/// What one commit does to a table.
#[derive(Debug)]
pub struct DeltaChange {
    /// The name of the job: a table that has it has this change.
    pub transaction: String,
    /// Files that are data from now on.
    pub add: Vec<DeltaFile>,
    /// Files of the table that no longer are.
    pub remove: Vec<DeltaFile>,
    /// Whether the rows of the table become others, or only more.
    pub replaces: bool,
    /// What the log says of the job, beside what it says of every commit.
    pub facts: Vec<(String, serde_json::Value)>,
}

/// What a new table looks like.
#[derive(Debug)]
pub struct NewDeltaTable {
    /// Names and Delta types of its columns.
    pub columns: Vec<(String, &'static str)>,
    /// Columns whose values stand in the log alone.
    pub partition_columns: Vec<String>,
}

impl DeltaTable {
    /// The table as it is now; none where there is no log.
    ///
    /// # Errors
    /// [`Error::Delta`] for a log that cannot be read; what the store answered.
    pub async fn open(stores: &Stores, location: &Location) -> Result<Option<Self>> {
        let log = log_store(stores, location)?;
        match EagerSnapshot::try_new(log.as_ref(), None).await {
            Ok(snapshot) => Ok(Some(Self { location: location.clone(), log, snapshot })),
            Err(error) if is_no_table(&error) => Ok(None),
            Err(error) => Err(delta_error(location, &error)),
        }
    }

    /// The number of its newest commit.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Its columns, those that stand in the log alone included.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.snapshot.arrow_schema()
    }

    /// Columns whose values stand in the log alone.
    #[must_use]
    pub fn partition_columns(&self) -> &[String] {
        self.snapshot.metadata().partition_columns()
    }

    /// The files that the table is made of, sorted by path.
    ///
    /// # Errors
    /// [`Error::Delta`] where plain Parquet files are not the rows of the table: deletion vectors, column mapping, files
    /// of another table.
    pub fn files(&self) -> Result<Vec<DeltaFile>> {
        if let Some(mode) = self.snapshot.metadata().configuration().get("delta.columnMapping.mode")
            && mode != "none"
        {
            return Err(self.refuse(
                format!("the table maps its columns by {}", printable(mode)),
                "write it without delta.columnMapping.mode, or give a plain copy of it",
            ));
        }
        let views = self.snapshot.try_log_data().map_err(|error| delta_error(&self.location, &error))?;
        let mut files = Vec::with_capacity(views.num_files());
        for view in views.iter() {
            let path = view.path().into_owned();
            if view.deletion_vector_descriptor().is_some() {
                return Err(self.refuse(
                    format!("{} has a deletion vector", printable(&path)),
                    "remove them with REORG TABLE … APPLY (PURGE), and set delta.enableDeletionVectors to false",
                ));
            }
            if self.location.child(&path).is_err() {
                return Err(self.refuse(
                    format!("{} lies outside the table, as in a shallow clone", printable(&path)),
                    "give a deep clone",
                ));
            }
            files.push(DeltaFile {
                path,
                bytes: u64::try_from(view.size()).unwrap_or_default(),
                modified: view.modification_time(),
                partitions: view.partition_values_map().into_iter().collect(),
                statistics: view.stats().and_then(|text| serde_json::from_str(&text).ok()),
            });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Whether a change of this name is in the table, and at which version of the table it came.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn transaction(&self, name: &str) -> Result<Option<u64>> {
        let found = self.snapshot.transaction_version(self.log.as_ref(), name).await;
        let found = found.map_err(|error| delta_error(&self.location, &error))?;
        Ok(found.and_then(|version| u64::try_from(version).ok()))
    }

    /// Adds one commit to the table as it was opened; none when another writer came first and nothing was written, or
    /// when the answer was lost: opening the table again tells which.
    ///
    /// # Errors
    /// [`Error::Delta`] for a table that this program may not write; what the store answered.
    pub async fn commit(&self, change: DeltaChange) -> Result<Option<u64>> {
        let removed = change.remove.iter().map(|file| file.path.as_str()).collect::<std::collections::HashSet<_>>();
        let views = self.snapshot.try_log_data().map_err(|error| delta_error(&self.location, &error))?;
        let removes = views.iter().filter(|view| removed.contains(view.path().as_ref()));
        let removes = removes.map(|view| Action::Remove(view.remove_action(true))).collect::<Vec<_>>();
        let next = self.version() + 1;
        write(&self.log, &self.location, Some(&self.snapshot), removes, change, next, self.partition_columns()).await
    }

    /// Makes a table of one commit where there is none; none as for [`commit`](Self::commit).
    ///
    /// # Errors
    /// What the store answered.
    pub async fn create(
        stores: &Stores,
        location: &Location,
        table: NewDeltaTable,
        change: DeltaChange,
    ) -> Result<Option<u64>> {
        let bug = |error| Error::Bug { reason: "a Delta table is not described".to_owned(), source: Some(error) };
        let fields = table
            .columns
            .iter()
            .map(|(name, of)| serde_json::json!({ "name": name, "type": of, "nullable": true, "metadata": {} }));
        let schema = serde_json::json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() });
        let metadata = serde_json::json!({
            "id": uuid_of(&change.transaction),
            "format": { "provider": "parquet", "options": {} },
            "schemaString": schema.to_string(),
            "partitionColumns": table.partition_columns,
            "configuration": {},
            "createdTime": change.add.iter().map(|file| file.modified).max(),
        });
        let protocol = serde_json::json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
        let metadata = serde_json::from_value::<Metadata>(metadata).map_err(|error| bug(error.into()))?;
        let protocol = serde_json::from_value::<Protocol>(protocol).map_err(|error| bug(error.into()))?;
        let first = vec![Action::Protocol(protocol), Action::Metadata(metadata)];
        let log = log_store(stores, location)?;
        write(&log, location, None, first, change, 0, &table.partition_columns).await
    }

    fn refuse(&self, reason: String, cure: &str) -> Error {
        Error::Delta { reason, file: self.location.to_string(), cure: cure.to_owned(), source: None }
    }
}

impl fmt::Debug for DeltaTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaTable({}@{})", self.location, self.version())
    }
}

/// The log of a table, on the store that everything else of this process uses.
fn log_store(stores: &Stores, location: &Location) -> Result<LogStoreRef> {
    let root = stores.store(location)?;
    let table = Arc::new(PrefixStore::new(Arc::clone(&root), location.path().clone()));
    let mut url = location.url().clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(default_logstore(table, root, &url, &StorageConfig::default()))
}

async fn write(
    log: &LogStoreRef,
    location: &Location,
    table: Option<&EagerSnapshot>,
    mut actions: Vec<Action>,
    change: DeltaChange,
    version: u64,
    partition_columns: &[String],
) -> Result<Option<u64>> {
    for file in change.add {
        actions.push(Action::Add(Add {
            path: file.path,
            partition_values: file.partitions.into_iter().collect(),
            size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
            modification_time: file.modified,
            data_change: true,
            stats: file.statistics.map(|statistics| statistics.to_string()),
            ..Add::default()
        }));
    }
    let operation = DeltaOperation::Write {
        mode: if change.replaces { SaveMode::Overwrite } else { SaveMode::Append },
        partition_by: (!partition_columns.is_empty()).then(|| partition_columns.to_vec()),
        predicate: None,
    };
    // The number of the commit tells later which of two jobs came last.
    let transaction = Transaction::new(change.transaction, i64::try_from(version).unwrap_or(i64::MAX));
    let properties = CommitProperties::default()
        .with_metadata(change.facts)
        .with_application_transaction(transaction)
        // What another writer did may concern what is removed here: the caller looks again and begins anew.
        .with_max_retries(0)
        .with_cleanup_expired_logs(Some(false));
    let commit = CommitBuilder::from(properties).with_actions(actions);
    let table = table.map(|table| table as &dyn TableReference);
    match commit.build(table, Arc::clone(log), operation).await {
        Ok(done) => Ok(Some(done.version())),
        Err(error) if is_race(&error) => Ok(None),
        Err(error) => Err(delta_error(location, &error)),
    }
}

/// A random-looking id that a job gives its table again when it is run again.
fn uuid_of(text: &str) -> String {
    let hex = crate::sha256_hex(text.as_bytes());
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

fn is_no_table(error: &DeltaTableError) -> bool {
    matches!(error, DeltaTableError::NotATable(_) | DeltaTableError::NotInitialized)
        || error.to_string().contains("No files in log segment")
}

fn is_race(error: &DeltaTableError) -> bool {
    match error {
        // The second: a store refused the first commit because of another one, and then there is none.
        DeltaTableError::VersionAlreadyExists(_) | DeltaTableError::InvalidVersion(_) => true,
        DeltaTableError::Transaction { source } => matches!(
            source,
            TransactionError::VersionAlreadyExists(_)
                | TransactionError::MaxCommitAttempts(_)
                | TransactionError::CommitConflict(_)
        ),
        _ => false,
    }
}

/// Our words for what the crate says; its own may hold whole lines of a log.
fn delta_error(location: &Location, error: &DeltaTableError) -> Error {
    if let Some(store) = find::<object_store::Error>(error as &(dyn StdError + 'static)) {
        return match store {
            object_store::Error::NotFound { .. } => Error::Delta {
                reason: "an object that the log needs is gone".to_owned(),
                file: location.to_string(),
                cure: "restore it, or give a table that is whole".to_owned(),
                source: None,
            },
            other => crate::from_object_store(other),
        };
    }
    let reason = match error {
        DeltaTableError::InvalidJsonLog { version, .. } => format!("a line of commit {version} is no JSON"),
        DeltaTableError::InvalidStatsJson { .. } => "statistics of a file are no JSON".to_owned(),
        DeltaTableError::Parquet { .. } => "a checkpoint cannot be read".to_owned(),
        other => {
            let text = printable(&other.to_string());
            // These speak of the table; others may repeat what stands in a line of the log.
            let of_the_table = ["nsupported", "rotocol", "metadata found", "append-only", "eatures"];
            match of_the_table.iter().any(|word| text.contains(word)) {
                true => text.trim_end_matches('.').to_owned(),
                false => "the log cannot be read".to_owned(),
            }
        }
    };
    Error::Delta { reason, file: location.to_string(), cure: "repair or replace the table".to_owned(), source: None }
}
