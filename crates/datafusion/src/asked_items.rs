//! The asked items of a query, and what ranking needs of them: read once per query, shared by its partitions.

use std::fmt;
use std::sync::Arc;

use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryPool;
use item_affinity_model::ndarray::{Array2, Axis};
use item_affinity_model::{Csr, NewPairSlopes};
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::ErrorKind;
use tokio::sync::OnceCell;

use crate::error::{TaskError, from_model};
use crate::version_source::VersionSource;

/// Asked items that a solution version knows; nothing is read before the first partition asks.
pub struct AskedItems {
    source: VersionSource,
    ids: Vec<String>,
    places: Vec<u32>,
    loaded: OnceCell<Arc<Ranking>>,
}

/// What ranking needs of the asked items; rows are theirs, in their order.
pub(crate) struct Ranking {
    /// Items × hidden_dimension.
    pub(crate) factors: Array2<f32>,
    /// What each item adds to the log-odds of a new pair.
    pub(crate) log_odds: Vec<f32>,
    /// How affinity counts in the log-odds of a new pair.
    pub(crate) slopes: NewPairSlopes,
    /// The log-odds of pairs with history, items × users, cut into blocks of items.
    pub(crate) history: Vec<Csr>,
}

impl AskedItems {
    /// Names items of a version by their ids and by their places in it, both ascending.
    ///
    /// # Errors   a plan error when they are not ascending, or not as many of one as of the other
    pub fn new(source: VersionSource, ids: Vec<String>, places: Vec<u32>) -> Result<Self> {
        let ascending = ids.is_sorted_by(|a, b| a < b) && places.is_sorted_by(|a, b| a < b);
        if ids.len() != places.len() || !ascending {
            return plan_err!("a segment query needs ascending item ids with one place each");
        }
        Ok(Self { source, ids, places, loaded: OnceCell::new() })
    }

    /// The solution version that knows them.
    #[must_use]
    pub fn source(&self) -> &VersionSource {
        &self.source
    }

    /// Their ids, ascending, each once.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Their places in the solution version, ascending.
    #[must_use]
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// Bytes that their pairs take in memory, known before they are read: an item has as many as it has users.
    pub(crate) async fn pair_bytes(&self) -> Result<usize> {
        let version = self.source.get().await?;
        let users = self.places.iter().filter_map(|item| version.items.users.get(*item as usize));
        Ok(users.map(|users| usize::try_from(*users).unwrap_or_default()).sum::<usize>().saturating_mul(8))
    }

    /// What ranking needs of them, with pairs in blocks of so many items.
    pub(crate) async fn ranking(&self, items_per_block: usize, pool: &Arc<dyn MemoryPool>) -> Result<Arc<Ranking>> {
        let load = || async {
            let version = self.source.get().await?;
            self.are_known_to(&version)?;
            let rows = self.places.iter().map(|place| *place as usize).collect::<Vec<_>>();
            let history = self.source.history(&version, &self.places, pool).await?;
            Ok(Arc::new(Ranking {
                factors: version.items.factors.select(Axis(0), &rows),
                log_odds: rows.iter().map(|row| version.items.log_odds[*row]).collect(),
                slopes: version.model.slopes,
                history: blocks_of(history, items_per_block).map_err(from_model)?,
            }))
        };
        self.loaded.get_or_try_init(load).await.cloned()
    }

    /// Items from a message are believed only when the version has these ids at these places.
    fn are_known_to(&self, version: &SolutionVersion) -> Result<()> {
        let known = |(id, place): (&String, &u32)| version.items.ids.id(*place) == Some(id);
        if self.ids.iter().zip(&self.places).all(known) {
            return Ok(());
        }
        let message = format!("ERR_CLUSTER_PLAN: the plan names items that {} does not have", self.source.reference());
        Err(TaskError::new(ErrorKind::Bug, message).into_datafusion())
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

impl fmt::Debug for AskedItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AskedItems({} of {})", self.ids.len(), self.source.reference())
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
