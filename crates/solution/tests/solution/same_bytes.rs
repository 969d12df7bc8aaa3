//! The same data gives the same files, whatever the threads, the order of rows, or the files they came in.

use std::collections::BTreeMap;

use item_affinity_storage::Stores;

use crate::planted::{Random, Rows, hashes, job, open, parquet, planted, put};

async fn files_of(rows: &Rows, files: usize, threads: usize) -> BTreeMap<String, String> {
    let stores = Stores::in_memory();
    for (part, rows) in rows.chunks(rows.len().div_ceil(files)).enumerate() {
        put(&stores, &format!("memory:///events/part-{part}.parquet"), parquet(rows)).await;
    }
    job(&stores).threads(Some(threads)).run().await.unwrap();
    hashes(&open(&stores, "memory:///affinity").await.unwrap().commit)
}

/// More users than a part holds, so that the order of parts counts too.
fn rows() -> Rows {
    planted(800, 40, 3)
}

#[tokio::test]
async fn one_two_and_four_threads_give_the_same_bytes() {
    let rows = rows();
    let one = files_of(&rows, 1, 1).await;
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        [
            "items/part-00000.parquet",
            "model.json",
            "pairs/part-00000.parquet",
            "users/part-00000.parquet",
            "users/part-00001.parquet"
        ]
    );
    assert_eq!(files_of(&rows, 1, 2).await, one);
    assert_eq!(files_of(&rows, 1, 4).await, one);
}

#[tokio::test]
async fn shuffled_rows_in_other_files_give_the_same_bytes() {
    let mut rows = rows();
    let sorted = files_of(&rows, 1, 2).await;
    Random(42).shuffle(&mut rows);
    assert_eq!(files_of(&rows, 1, 2).await, sorted);
    assert_eq!(files_of(&rows, 7, 2).await, sorted);
}

#[tokio::test]
async fn other_data_gives_other_bytes() {
    let mut rows = rows();
    let before = files_of(&rows, 1, 2).await;
    rows[0].1 = "item-017".to_owned();
    let after = files_of(&rows, 1, 2).await;
    for name in ["items/part-00000.parquet", "users/part-00000.parquet"] {
        assert_ne!(before[name], after[name], "{name}");
    }
}
