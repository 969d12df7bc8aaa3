//! A trained model as the files of a run.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_storage::Run;

use crate::compute::blocking;
use crate::error::{Error, Result};
use crate::fit::{Computed, Watch};
use crate::observer::Stage;
use crate::tables::{MODEL_CARD, Table, attribute_weights, pairs};

/// Two parts are encoded while the two before them go to the store.
const PARTS_AT_ONCE: usize = 4;

/// Writes item parts, user parts, parts of pairs, weights of attributes and the model card; nothing is visible before the run commits.
///
/// # Cost
/// Four parts in memory at a time, beside the model.
pub(crate) async fn write(run: &Run, computed: &Arc<Computed>, watch: &Watch<'_>) -> Result<()> {
    let states = [Table::Items, Table::Users].into_iter().flat_map(|table| {
        let parts = computed.table(table).parts().into_iter().enumerate();
        parts.map(move |(part, rows)| (Some(table), table.part_name(part), rows))
    });
    let pairs = computed.pairs.parts().into_iter().enumerate().map(|(part, rows)| (None, pairs::part_name(part), rows));
    let parts: Vec<_> = states.chain(pairs).collect();
    let files = parts.len() as u64 + 1 + u64::from(computed.user_attributes.is_some());
    watch.observer.stage(Stage::new("writing the solution version", "files", Some(files)));
    let put = |(table, name, rows): (Option<Table>, String, Range<usize>)| async move {
        watch.check()?;
        let count = rows.len() as u64;
        let computed = Arc::clone(computed);
        let encode = move || match table {
            Some(table) => computed.table(table).encode(rows),
            None => computed.pairs.encode(rows),
        };
        let bytes = blocking("encoding states", encode).await??;
        run.put(&name, bytes, Some(count)).await?;
        Ok::<_, Error>(())
    };
    let mut written = 0;
    let mut puts = stream::iter(parts).map(put).buffered(PARTS_AT_ONCE);
    while puts.try_next().await?.is_some() {
        written += 1;
        watch.observer.advance(written, Some(files));
    }
    watch.check()?;
    if let Some(weights) = &computed.user_attributes {
        run.put(attribute_weights::FILE, weights.encode()?, Some(weights.rows() as u64)).await?;
    }
    let card = computed.card.to_json().map_err(Error::encode)?;
    run.put(MODEL_CARD, Bytes::from(card), None).await?;
    watch.observer.advance(files, Some(files));
    Ok(())
}
