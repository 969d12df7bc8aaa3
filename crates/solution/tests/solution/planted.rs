//! Interactions with a known structure, as Parquet files in a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use item_affinity_model::ItemAffinity;
use item_affinity_solution::{SolutionRef, SolutionVersion, TrainingJob, TrainingReport};
use item_affinity_storage::{Commit, Location, Stores};
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::ArrowWriter;

pub(crate) const GROUPS: usize = 4;

/// Rows of (user, item, epoch seconds).
pub(crate) type Rows = Vec<(String, String, i64)>;

/// Users of group `g` (user number modulo 4) interact with items of their group, and now and then with another one.
pub(crate) fn planted(users: usize, items: usize, each: usize) -> Rows {
    let mut rows = Vec::with_capacity(users * each);
    let mut random = Random(7);
    for user in 0..users {
        for event in 0..each {
            let stray = random.below(10) == 0;
            let group = if stray { random.below(GROUPS) } else { user % GROUPS };
            let item = random.below(items / GROUPS) * GROUPS + group;
            let time = 1_700_000_000 + (event * 86_400 + random.below(86_400)) as i64;
            rows.push((format!("user-{user:05}"), format!("item-{item:03}"), time));
        }
    }
    rows
}

/// A small generator, so that the data are the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

pub(crate) fn parquet(rows: &[(String, String, i64)]) -> Vec<u8> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("USER_ID", DataType::Utf8, false),
        Field::new("ITEM_ID", DataType::Utf8, false),
        Field::new("TIMESTAMP", DataType::Int64, false),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ],
    )
    .unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

/// Rows of a metadata table.
pub(crate) fn table(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let schema = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(schema.collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

pub(crate) fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(crate) async fn put(stores: &Stores, location: &str, bytes: Vec<u8>) {
    let location = Location::parse(location).unwrap();
    stores.store(&location).unwrap().put(location.path(), bytes.into()).await.unwrap();
}

pub(crate) async fn bytes(stores: &Stores, location: &Location) -> Vec<u8> {
    let store = stores.store(location).unwrap();
    store.get(location.path()).await.unwrap().bytes().await.unwrap().to_vec()
}

/// Every object below a location of the memory store.
pub(crate) async fn objects(stores: &Stores, location: &str) -> Vec<Path> {
    use futures::TryStreamExt;
    let location = Location::parse(location).unwrap();
    let listed = stores.store(&location).unwrap().list(Some(location.path()));
    listed.map_ok(|meta| meta.location).try_collect().await.unwrap()
}

/// The smallest recipe, for tests that are about files.
pub(crate) fn small_recipe() -> ItemAffinity {
    ItemAffinity { hidden_dimension: 32, iterations: 3, ..ItemAffinity::default() }
}

/// Stores with 240 users and 40 items in `memory:///events/`.
pub(crate) async fn small_data() -> Stores {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&planted(240, 40, 12))).await;
    stores
}

pub(crate) fn job(stores: &Stores) -> TrainingJob {
    TrainingJob::new("memory:///events/").recipe(small_recipe()).solution("memory:///affinity").stores(stores.clone())
}

pub(crate) async fn trained(stores: &Stores) -> TrainingReport {
    job(stores).run().await.unwrap()
}

pub(crate) async fn open(stores: &Stores, reference: &str) -> item_affinity_solution::Result<SolutionVersion> {
    SolutionVersion::open(stores, &SolutionRef::parse(reference).unwrap()).await
}

/// SHA-256 of the data files by their names below the folder of the run.
pub(crate) fn hashes(commit: &Commit) -> BTreeMap<String, String> {
    let folder = format!("versions/{}/", commit.run_id);
    let name = |path: &str| path.strip_prefix(&folder).unwrap().to_owned();
    commit.files.iter().map(|file| (name(&file.path), file.sha256.clone())).collect()
}
