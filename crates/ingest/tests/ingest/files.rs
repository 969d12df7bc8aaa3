//! Data sets as Parquet files in a folder that goes away with the test.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use item_affinity_ingest::{Ingested, InteractionsSource, Result, read_interactions};
use item_affinity_storage::{Location, Stores};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// 2023-11-14, in epoch seconds.
pub(crate) const T: i64 = 1_700_000_000;

/// A folder of Parquet files.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with one file.
    pub(crate) fn of(batch: &RecordBatch) -> Self {
        let folder = Self::new();
        folder.write("part.parquet", batch);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, batch: &RecordBatch) {
        self.write_as(name, batch, WriterProperties::default());
    }

    pub(crate) fn write_as(&self, name: &str, batch: &RecordBatch, properties: WriterProperties) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, parquet_bytes(batch, properties)).unwrap();
    }

    pub(crate) fn write_bytes(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn location(&self) -> Location {
        location(self.0.path())
    }

    pub(crate) fn source(&self) -> InteractionsSource {
        InteractionsSource::new(vec![self.location()])
    }

    /// Reads the folder by changed rules.
    pub(crate) fn read_with(&self, change: impl FnOnce(&mut InteractionsSource)) -> Result<Ingested> {
        let mut source = self.source();
        change(&mut source);
        read(&source)
    }

    pub(crate) fn read(&self) -> Result<Ingested> {
        self.read_with(|_| {})
    }

    /// The message with which reading ends.
    pub(crate) fn refusal(&self) -> String {
        self.refusal_with(|_| {})
    }

    pub(crate) fn refusal_with(&self, change: impl FnOnce(&mut InteractionsSource)) -> String {
        let message = self.read_with(change).unwrap_err().to_string();
        assert!(!message.contains('\n'), "one line: {message}");
        message.replace(&self.location().to_string(), "<folder>").replace("<folder>/", "<folder>")
    }
}

pub(crate) fn location(path: &Path) -> Location {
    Location::parse(&format!("{}/", path.display())).unwrap()
}

pub(crate) fn read(source: &InteractionsSource) -> Result<Ingested> {
    wait(read_interactions(&Stores::in_memory(), source, &|_| {}))
}

/// Runs a future to its end on a runtime of its own.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

pub(crate) fn parquet_bytes(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

/// Columns by name; each may hold nulls.
pub(crate) fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, array)| (*name, Arc::clone(array), true)))
        .unwrap()
}

/// Four sound events of three users and two items.
pub(crate) fn few() -> [(&'static str, ArrayRef); 3] {
    [
        ("user_id", strings(["u2", "u1", "u2", "u3"])),
        ("item_id", strings(["b", "a", "a", "b"])),
        ("timestamp", longs([T, T + 1, T + 2, T + 3])),
    ]
}

/// The four events with one column in place of another of the same name.
pub(crate) fn few_with(column: &str, array: ArrayRef) -> RecordBatch {
    let mut columns = few().to_vec();
    match columns.iter_mut().find(|(name, _)| *name == column) {
        Some(place) => place.1 = array,
        None => columns.push((Box::leak(column.to_string().into_boxed_str()), array)),
    }
    batch(&columns)
}

pub(crate) fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(crate) fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub(crate) fn doubles(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// Every event as `user item time weight`, in the model's order.
pub(crate) fn events(ingested: &Ingested) -> Vec<(String, String, i64, f32)> {
    let log = &ingested.interactions;
    let mut events = Vec::new();
    for (user, id) in log.users().iter().enumerate() {
        let history = log.history(user);
        for ((item, time), weight) in history.items.iter().zip(history.times).zip(history.weights) {
            events.push((id.to_string(), log.items().id(*item).unwrap().to_string(), *time, *weight));
        }
    }
    events
}

/// The codes of the warnings.
pub(crate) fn codes(ingested: &Ingested) -> Vec<&'static str> {
    ingested.warnings.iter().map(|warning| warning.code).collect()
}
