//! The footer preflight, and the reading of whatever passes it.

use futures::TryStreamExt;
use item_affinity_storage::{Result, Stores, list_parquet, open_parquet, preflight};

/// Bytes as a Parquet file: what preflight refuses nobody reads, and what is read has the rows that its footer says.
pub fn check(data: &[u8]) {
    let footer = preflight(data, "input.parquet");
    if let Err(error) = &footer {
        super::told(error.kind(), error);
    }
    let read = super::block_on(async { rows(&super::stores_with("input.parquet", data).await).await });
    match (footer, read) {
        (Ok(footer), Ok(rows)) => assert_eq!(footer.rows, rows),
        (Err(footer), Ok(rows)) => panic!("{rows} rows were read, past {footer}"),
        (_, Err(error)) => super::told(error.kind(), &error),
    }
}

async fn rows(stores: &Stores) -> Result<u64> {
    let mut rows = 0;
    for file in list_parquet(stores, &super::location("input.parquet")).await?.files {
        let input = open_parquet(stores, &file).await?;
        let columns = (0..input.schema().fields().len()).collect::<Vec<_>>();
        let batches = input.stream(&columns, 1_024).await?;
        rows += batches.try_fold(0, |sum, batch| async move { Ok(sum + batch.num_rows() as u64) }).await?;
    }
    Ok(rows)
}
