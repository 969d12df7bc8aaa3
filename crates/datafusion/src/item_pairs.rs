//! The pairs with history of the asked items: read once per query, shared by its partitions.

use std::fmt;
use std::sync::Arc;

use datafusion::error::Result;
use item_affinity_model::Csr;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::Stores;
use tokio::sync::OnceCell;

use crate::error::{from_model, from_solution};

/// Where the pairs of the asked items come from; nothing is read before the first partition asks.
pub(crate) struct ItemPairs {
    stores: Stores,
    version: Arc<SolutionVersion>,
    /// Ascending.
    items: Vec<u32>,
    loaded: OnceCell<Arc<Vec<Csr>>>,
}

impl ItemPairs {
    pub(crate) fn new(stores: &Stores, version: &Arc<SolutionVersion>, items: Vec<u32>) -> Self {
        Self { stores: stores.clone(), version: Arc::clone(version), items, loaded: OnceCell::new() }
    }

    /// The asked items as places in the solution version, ascending.
    pub(crate) fn items(&self) -> &[u32] {
        &self.items
    }

    /// Bytes that the pairs take in memory, known before they are read: an item has as many as it has users.
    pub(crate) fn bytes(&self) -> usize {
        let users = self.items.iter().filter_map(|item| self.version.items.users.get(*item as usize));
        users.map(|users| usize::try_from(*users).unwrap_or_default()).sum::<usize>().saturating_mul(8)
    }

    /// The log-odds of pairs with history, items × users, cut into blocks of so many items.
    pub(crate) async fn blocks(&self, items_per_block: usize) -> Result<Arc<Vec<Csr>>> {
        let load = || async {
            let history = self.version.item_history(&self.stores, &self.items).await.map_err(from_solution)?;
            let blocks = blocks_of(history.log_odds, items_per_block).map_err(from_model)?;
            Ok(Arc::new(blocks))
        };
        self.loaded.get_or_try_init(load).await.cloned()
    }
}

fn blocks_of(pairs: Csr, rows: usize) -> item_affinity_model::Result<Vec<Csr>> {
    if pairs.rows() <= rows {
        return Ok(vec![pairs]);
    }
    let cut = |first: usize| {
        let last = pairs.rows().min(first + rows);
        let bounds = &pairs.indptr()[first..=last];
        let range = bounds[0]..bounds[bounds.len() - 1];
        let indptr = bounds.iter().map(|at| at - range.start).collect();
        Csr::new(indptr, pairs.indices()[range.clone()].to_vec(), pairs.values()[range].to_vec(), pairs.columns())
    };
    (0..pairs.rows()).step_by(rows).map(cut).collect()
}

/// Bytes held by pairs.
pub(crate) fn allocated_bytes(blocks: &[Csr]) -> usize {
    blocks.iter().map(|block| block.nnz() * 8 + block.rows() * size_of::<usize>()).sum()
}

impl fmt::Debug for ItemPairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemPairs({} items of {})", self.items.len(), self.version.reference())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_every_pair_once_in_their_order() {
        let whole = Csr::new(vec![0, 2, 2, 3, 5], vec![0, 3, 1, 0, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0], 4).unwrap();
        let blocks = blocks_of(whole.clone(), 3).unwrap();
        assert_eq!(blocks.iter().map(Csr::rows).collect::<Vec<_>>(), [3, 1]);
        for row in 0..4 {
            assert_eq!(blocks[row / 3].row(row % 3), whole.row(row));
        }
        assert_eq!(blocks_of(whole.clone(), 4).unwrap(), [whole]);
    }
}
