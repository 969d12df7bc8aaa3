//! A trained model as the files of a run.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_storage::Run;

use crate::compute::blocking;
use crate::error::{Error, Result};
use crate::fit::{Trained, Watch};
use crate::observer::Stage;
use crate::tables::{MODEL_CARD, Table};

/// One part is encoded while the one before it goes to the store.
const PARTS_AT_ONCE: usize = 2;

/// Writes item parts, user parts and the model card; nothing is visible before the run commits.
///
/// # Cost
/// Two parts in memory at a time, beside the model.
pub(crate) async fn write(run: &Run, trained: &Arc<Trained>, watch: &Watch<'_>) -> Result<()> {
    let parts: Vec<_> = [Table::Items, Table::Users]
        .into_iter()
        .flat_map(|table| {
            trained.table(table).parts().into_iter().enumerate().map(move |(part, rows)| (table, part, rows))
        })
        .collect();
    let files = parts.len() as u64 + 1;
    watch.observer.stage(Stage::new("writing the solution version", "files", Some(files)));
    let put = |(table, part, rows): (Table, usize, Range<usize>)| async move {
        watch.check()?;
        let count = rows.len() as u64;
        let states = Arc::clone(trained);
        let bytes = blocking("encoding states", move || states.table(table).encode(rows)).await??;
        run.put(&table.part_name(part), bytes, Some(count)).await?;
        Ok::<_, Error>(())
    };
    let mut written = 0;
    let mut puts = stream::iter(parts).map(put).buffered(PARTS_AT_ONCE);
    while puts.try_next().await?.is_some() {
        written += 1;
        watch.observer.advance(written, Some(files));
    }
    watch.check()?;
    let card = trained.card.to_json().map_err(Error::encode)?;
    run.put(MODEL_CARD, Bytes::from(card), None).await?;
    watch.observer.advance(files, Some(files));
    Ok(())
}
