//! A trained model as the files of a run.

use std::sync::Arc;

use bytes::Bytes;
use item_affinity_storage::Run;

use crate::compute::blocking;
use crate::error::{Error, Result};
use crate::fit::{Trained, Watch};
use crate::observer::Stage;
use crate::tables::{MODEL_CARD, Table};

/// Writes item parts, user parts and the model card; nothing is visible before the run commits.
///
/// # Cost
/// One part in memory at a time, beside the model.
pub(crate) async fn write(run: &mut Run, trained: &Arc<Trained>, watch: &Watch<'_>) -> Result<()> {
    let parts: Vec<_> = [Table::Items, Table::Users]
        .into_iter()
        .flat_map(|table| {
            trained.table(table).parts().into_iter().enumerate().map(move |(part, rows)| (table, part, rows))
        })
        .collect();
    let files = parts.len() as u64 + 1;
    watch.observer.stage(Stage::new("writing the solution version", "files", Some(files)));
    let mut written = 0;
    for (table, part, rows) in parts {
        watch.check()?;
        let count = rows.len() as u64;
        let states = Arc::clone(trained);
        let bytes = blocking("encoding states", move || states.table(table).encode(rows)).await??;
        run.put(&table.part_name(part), bytes, Some(count)).await?;
        written += 1;
        watch.observer.advance(written, Some(files));
    }
    watch.check()?;
    let card = trained.card.to_json().map_err(Error::encode)?;
    run.put(MODEL_CARD, Bytes::from(card), None).await?;
    watch.observer.advance(files, Some(files));
    Ok(())
}
