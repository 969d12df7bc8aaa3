//! Interactions from a file that somebody else wrote.

use item_affinity_ingest::{DataReport, InteractionsSource, read_interactions};

/// Bytes as a Parquet file of interactions: read whole into the model's types, or refused.
pub fn check(data: &[u8]) {
    let mut source = InteractionsSource::new(vec![super::location("interactions.parquet")]);
    // Rows are judged one by one, so that one bad row does not hide the next.
    (source.max_bad_row_share, source.max_bad_structure_share) = (1.0, 1.0);
    source.threads = Some(1);
    let read = super::block_on(async {
        let stores = super::stores_with("interactions.parquet", data).await;
        read_interactions(&stores, &source, &|_| {}).await
    });
    match read {
        Ok(ingested) => {
            let interactions = &ingested.interactions;
            assert!(!interactions.is_empty());
            let events = (0..interactions.users().len()).map(|user| interactions.history(user).items.len());
            assert_eq!(events.sum::<usize>(), interactions.len());
            assert!(!DataReport::new(&ingested, None, None).to_string().is_empty());
        }
        Err(error) => super::told(error.kind(), &error),
    }
}
