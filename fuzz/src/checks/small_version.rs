//! A solution version of a few users and items, trained in memory: what damage and calls are tried on.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use item_affinity_solution::{SolutionRef, SolutionVersion, TrainingJob};
use item_affinity_storage::{Artifact, Bytes, CommitBody, Stores, Versions};

/// The name of a file below the folder of its run, its bytes and its rows.
#[derive(Clone)]
pub struct File {
    /// Such as `users/part-00000.parquet`.
    pub name: String,
    /// All of it.
    pub bytes: Bytes,
    /// As the commit says.
    pub rows: Option<u64>,
}

/// The files of the version, in the order of their names.
pub static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    // Another thread, since the one that asks may be inside of a runtime.
    std::thread::spawn(|| super::block_on(train())).join().expect("a training")
});

/// Trains on 240 interactions of 12 users with 6 items.
async fn train() -> Vec<File> {
    let rows = 0..240_i64;
    let columns: [(&str, ArrayRef); 3] = [
        ("user_id", Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("user-{:02}", n % 12))))),
        ("item_id", Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("item-{}", n * 7 % 11 % 6))))),
        ("timestamp", Arc::new(Int64Array::from_iter_values(rows.map(|n| 1_767_225_600 + n * 3_600)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a batch");
    writer.close().expect("a footer");
    let stores = super::stores_with("interactions.parquet", &bytes).await;
    let job = TrainingJob::new("memory:///interactions.parquet").solution("memory:///solution").stores(stores.clone());
    let trained = job.hidden_dimension(32).allow_small_data(true).run().await.expect("a training");
    let version = SolutionVersion::open(&stores, &trained.solution).await.expect("the version that was trained");
    let versions = Versions::new(&stores, super::location("solution"), Artifact::SolutionVersion)
        .expect("memory needs no settings");
    let mut files = Vec::new();
    for entry in &version.commit.files {
        let name = entry.path.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
        let bytes = versions.read_file(entry).await.expect("a file that was just written");
        files.push(File { name, bytes, rows: entry.rows });
    }
    files
}

/// Commits files as version 1 at `memory:///solution`: every checksum is right, whatever the files hold.
pub async fn commit(stores: &Stores, files: &[File]) -> SolutionRef {
    let location = super::location("solution");
    let versions =
        Versions::new(stores, location.clone(), Artifact::SolutionVersion).expect("memory needs no settings");
    let run = versions.begin().await.expect("an empty location");
    for file in files {
        run.put(&file.name, file.bytes.clone(), file.rows).await.expect("a name that is no input");
    }
    let commit = run.commit(CommitBody { job_key: "small".to_owned(), ..CommitBody::default() }).await;
    SolutionRef { location, version: Some(commit.expect("nobody else is there").version) }
}
