//! Data that train in a fraction of a second, and what a version holds, whoever made it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use item_affinity_storage::Commit;

/// 1,200 interactions of 60 users with 30 items, in two groups that like every second item.
pub(crate) fn small_interactions(path: &Path) {
    write(path, 0..1_200, 60);
}

/// The newest 1,100 of them.
pub(crate) fn fewer_interactions(path: &Path) {
    write(path, 100..1_200, 60);
}

/// Five interactions of each of 6,000 users, so that their states are a dozen files.
#[cfg(feature = "ballista")]
pub(crate) fn interactions_of_many(path: &Path) {
    write(path, 0..30_000, 6_000);
}

fn write(path: &Path, rows: Range<i64>, users: i64) {
    let item = |n: i64| (n * 7 + n / users * 11) % 15 * 2 + n % 2;
    let columns: [(&str, ArrayRef); 3] = [
        ("user_id", Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("user-{:02}", n % users))))),
        ("item_id", Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("item-{:02}", item(n)))))),
        ("timestamp", Arc::new(Int64Array::from_iter_values(rows.map(|n| 1_767_225_600 + n * 3_600 * 60 / users)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The files of a version without the id of its run, each with its SHA-256: the same job gives the same.
pub(crate) fn fingerprint(commit: &Commit) -> Vec<(String, String)> {
    let name = |path: &str| path.replace(&commit.run_id, "");
    let mut files: Vec<_> = commit.files.iter().map(|file| (name(&file.path), file.sha256.clone())).collect();
    files.sort();
    files
}
