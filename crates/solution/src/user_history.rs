//! Histories of some users, gathered from the pairs, which lie by item.

use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_model::Csr;
use item_affinity_storage::Stores;

use crate::compute::blocking;
use crate::error::Result;
use crate::files::VersionReader;
use crate::load::FETCHED_AHEAD;
use crate::tables::decode::Damage;
use crate::tables::pairs::{self, ExpectedPairs, Pair, read_pairs};
use crate::version::{PairPart, SolutionVersion};

impl SolutionVersion {
    /// Reads what the factors of some users were solved with: the weights of their pairs.
    ///
    /// # Shapes
    /// users: `user_index`es, strictly ascending; out: one row per asked user, one column per item of the version
    ///
    /// # Errors
    /// As [`SolutionVersion::open`].
    ///
    /// # Cost
    /// Every part of the pairs is read whole, once, two at a time; one bit for each user of the version, and 16 bytes
    /// for each pair of an asked user.
    pub async fn user_history(&self, stores: &Stores, users: &[u32]) -> Result<Csr> {
        let reader = VersionReader::new(stores, &self.reference.location, self.commit.clone())?;
        let model = &self.model;
        let fetch = |part: PairPart| async { Ok::<_, crate::Error>((reader.parquet(&part.entry).await?, part)) };
        let mut fetched = stream::iter(self.pair_parts.clone()).map(fetch).buffered(FETCHED_AHEAD);
        let mut rows = UserRows::new(users.to_vec());
        while let Some((bytes, part)) = fetched.try_next().await? {
            let expected = ExpectedPairs { rows: u64::from(part.rows), items: model.items, users: model.users };
            let outcome;
            (rows, outcome) = blocking("reading pairs", move || {
                let outcome = read_pairs(&bytes, expected, |pair| rows.add(pair));
                (rows, outcome)
            })
            .await?;
            outcome.map_err(|what| reader.damaged(&part.entry.path, what))?;
        }
        let items = usize::try_from(model.items).unwrap_or(usize::MAX);
        let history = blocking("turning pairs around", move || rows.finish(items)).await?;
        history.map_err(|what| reader.damaged(&format!("{}/", pairs::FOLDER), what))
    }
}

/// Pairs of the asked users, gathered part by part as items × asked users.
struct UserRows {
    users: Vec<u32>,
    /// One bit for each user up to the last asked one, so that a pair of nobody asked costs next to nothing.
    asked: Vec<u64>,
    indptr: Vec<usize>,
    rows: Vec<u32>,
    weights: Vec<f32>,
}

impl UserRows {
    fn new(users: Vec<u32>) -> Self {
        let mut asked = vec![0u64; users.last().map_or(0, |last| *last as usize / 64 + 1)];
        users.iter().for_each(|user| asked[*user as usize / 64] |= 1 << (user % 64));
        Self { users, asked, indptr: vec![0], rows: Vec::new(), weights: Vec::new() }
    }

    /// Takes a pair; they come by item and user, from the first part to the last.
    fn add(&mut self, pair: Pair) {
        let word = self.asked.get(pair.user as usize / 64).copied().unwrap_or(0);
        if word >> (pair.user % 64) & 1 == 0 {
            return;
        }
        let Ok(row) = self.users.binary_search(&pair.user) else { return };
        // Items without an asked user end where the last one ended.
        self.indptr.resize(pair.item as usize + 1, self.rows.len());
        self.rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        self.weights.push(pair.weight);
    }

    fn finish(mut self, items: usize) -> Result<Csr, Damage> {
        self.indptr.resize(items + 1, self.rows.len());
        let by_item = Csr::new(self.indptr, self.rows, self.weights, self.users.len()).map_err(|e| e.to_string())?;
        Ok(by_item.transpose())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair(item: u32, user: u32, weight: f32) -> Pair {
        Pair { item, user, log_odds: 0.0, weight }
    }

    #[test]
    fn pairs_of_asked_users_become_their_rows_and_the_rest_is_passed_over() {
        let mut rows = UserRows::new(vec![1, 63, 64, 200]);
        for pair in [pair(0, 1, 1.0), pair(0, 2, 9.0), pair(0, 64, 2.0), pair(3, 0, 9.0), pair(3, 1, 3.0)] {
            rows.add(pair);
        }
        rows.add(pair(3, 300, 9.0));
        rows.add(pair(5, 200, 4.0));
        let history = rows.finish(7).unwrap();
        assert_eq!((history.rows(), history.columns(), history.nnz()), (4, 7, 4));
        assert_eq!(history.row(0), (&[0, 3][..], &[1.0, 3.0][..]));
        assert_eq!(history.row(1), (&[][..], &[][..]));
        assert_eq!(history.row(2), (&[0][..], &[2.0][..]));
        assert_eq!(history.row(3), (&[5][..], &[4.0][..]));
    }

    #[test]
    fn no_asked_user_has_no_history() {
        let mut rows = UserRows::new(Vec::new());
        rows.add(pair(2, 0, 1.0));
        let history = rows.finish(3).unwrap();
        assert_eq!((history.rows(), history.columns(), history.nnz()), (0, 3, 0));
    }
}
