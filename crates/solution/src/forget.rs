//! A version without some of its users: their states and pairs go, everything else stays as it is.

use std::collections::BTreeSet;

use bytes::Bytes;
use item_affinity_model::ndarray::{Array2, Axis};
use item_affinity_model::{Csr, Vocabulary};
use item_affinity_storage::{CommitBody, Run, Stores, sha256_hex};

use crate::compute::blocking;
use crate::error::{Error, Result};
use crate::files::VersionReader;
use crate::model_card::FORGOTTEN;
use crate::reference::SolutionRef;
use crate::states::ids_sha256;
use crate::tables::encode::StateTable;
use crate::tables::pairs::{self, PairTable};
use crate::tables::{MODEL_CARD, Table, attribute_weights};
use crate::version::{ItemHistory, SolutionVersion, UserStates};

/// What a version lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forgotten {
    /// Users.
    pub users: u64,
    /// Their pairs with an item.
    pub pairs: u64,
}

/// Whether a version has a state of any of these users.
///
/// # Errors
/// As [`SolutionVersion::open`].
pub async fn knows_any(stores: &Stores, reference: &SolutionRef, users: &BTreeSet<String>) -> Result<bool> {
    let version = SolutionVersion::open(stores, reference).await?;
    let ids = version.user_states(stores).await?.ids;
    Ok(users.iter().any(|id| ids.index_of(id).is_some()))
}

/// Puts these users on the list of the forgotten of the location, writes a version without them into a run, and gives the
/// body of its commit; none when it knows none of them.
///
/// Item states are copied: what the others' factors, the items' and the coefficients learnt from these users stays in
/// them until the next training, which the model card says. The caller commits right after the version.
///
/// # Errors
/// As [`SolutionVersion::open`]; [`Error::NobodyLeft`]; what the store answered to the writing.
///
/// # Cost
/// All states and pairs of the version in memory, twice while they are cut.
pub async fn forget_users(
    stores: &Stores,
    reference: &SolutionRef,
    users: &BTreeSet<String>,
    run: &Run,
) -> Result<Option<(CommitBody, Forgotten)>> {
    let version = SolutionVersion::open(stores, reference).await?;
    let states = version.user_states(stores).await?;
    let kept: Vec<u32> =
        (0u32..).zip(states.ids.iter()).filter(|(_, id)| !users.contains(*id)).map(|(n, _)| n).collect();
    if kept.is_empty() {
        return Err(Error::NobodyLeft { solution: reference.to_string() });
    }
    // Before anything is written: whoever reads the interactions from now on passes over them.
    run.forget(users.iter().map(String::as_str)).await?;
    if kept.len() == states.ids.len() {
        return Ok(None);
    }
    let items = (0u32..).take(version.items.ids.len()).collect::<Vec<_>>();
    let history = version.item_history(stores, &items).await?;
    let (users_before, pairs_before) = (states.ids.len(), history.log_odds.nnz());
    let left = blocking("cutting states", move || Remaining::of(&states, &history, &kept)).await??;
    let forgotten =
        Forgotten { users: (users_before - left.ids.len()) as u64, pairs: (pairs_before - left.pairs.len()) as u64 };

    let reader = VersionReader::new(stores, &reference.location, version.commit.clone())?;
    let files = reader.files()?;
    for (part, entry) in files.items.iter().enumerate() {
        let bytes = reader.parquet(&entry.entry).await?;
        run.put(&Table::Items.part_name(part), bytes, entry.entry.rows).await?;
    }
    // Values of attributes, not of anybody: each stands for at least two users.
    if let Some(entry) = &files.user_attributes {
        run.put(attribute_weights::FILE, reader.parquet(entry).await?, entry.rows).await?;
    }
    for (part, rows) in left.table().parts().into_iter().enumerate() {
        let count = rows.len() as u64;
        run.put(&Table::Users.part_name(part), left.table().encode(rows)?, Some(count)).await?;
    }
    for (part, rows) in left.pairs.parts().into_iter().enumerate() {
        let count = rows.len() as u64;
        run.put(&pairs::part_name(part), left.pairs.encode(rows)?, Some(count)).await?;
    }
    let mut card = version.model;
    card.users = left.ids.len() as u64;
    card.pairs = left.pairs.len() as u64;
    card.interactions = left.interactions.iter().sum::<i64>().unsigned_abs();
    card.pair_parts = left.pairs.first_items();
    card.user_ids_sha256 = ids_sha256(&left.ids);
    card.warnings.push(format!(
        "{FORGOTTEN}: {} users were taken out of this version; what items and other users learnt from them is in it until \
         the next training",
        forgotten.users
    ));
    run.put(MODEL_CARD, Bytes::from(card.to_json().map_err(Error::encode)?), None).await?;

    let mut body = version.commit.body;
    body.job_key = sha256_hex(format!("forget 1\n{}", version.commit.sha256).as_bytes());
    let counts = [
        ("users", card.users),
        ("pairs", card.pairs),
        ("interactions", card.interactions),
        ("forgotten", forgotten.users),
    ];
    body.counts.extend(counts.map(|(name, count)| (name.to_owned(), count)));
    Ok(Some((body, forgotten)))
}

/// The states and pairs of the users who stay.
struct Remaining {
    ids: Vocabulary,
    factors: Array2<f32>,
    log_odds: Vec<f32>,
    interactions: Vec<i64>,
    last_interaction: Vec<i64>,
    pairs: PairTable,
}

impl Remaining {
    fn of(states: &UserStates, history: &ItemHistory, kept: &[u32]) -> Result<Self> {
        let rows: Vec<usize> = kept.iter().map(|user| *user as usize).collect();
        let mut now = vec![None; states.ids.len()];
        for (new, old) in (0u32..).zip(&rows) {
            now[*old] = Some(new);
        }
        Ok(Self {
            ids: Vocabulary::from_sorted(kept.iter().filter_map(|user| states.ids.id(*user)))?,
            factors: states.factors.select(Axis(0), &rows),
            log_odds: rows.iter().map(|row| states.log_odds[*row]).collect(),
            interactions: rows.iter().map(|row| states.interactions[*row]).collect(),
            last_interaction: rows.iter().map(|row| states.last_interaction[*row]).collect(),
            pairs: PairTable::by_item(
                of_users(&history.log_odds, &now, rows.len())?,
                of_users(&history.weights, &now, rows.len())?,
            ),
        })
    }

    fn table(&self) -> StateTable<'_> {
        StateTable {
            table: Table::Users,
            ids: &self.ids,
            factors: self.factors.view(),
            log_odds: &self.log_odds,
            interactions: &self.interactions,
            users: None,
            last_interaction: &self.last_interaction,
        }
    }
}

/// Items × users with the columns of those who stay, under their new numbers.
fn of_users(pairs: &Csr, now: &[Option<u32>], users: usize) -> Result<Csr> {
    let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    for item in 0..pairs.rows() {
        let (old, of) = pairs.row(item);
        for (user, value) in old.iter().zip(of) {
            if let Some(new) = now[*user as usize] {
                indices.push(new);
                values.push(*value);
            }
        }
        indptr.push(indices.len());
    }
    Ok(Csr::new(indptr, indices, values, users)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_those_who_stay_keep_their_values_under_new_numbers() {
        let pairs = Csr::new(vec![0, 3, 3, 5], vec![0, 1, 3, 1, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0], 4).unwrap();
        let left = of_users(&pairs, &[Some(0), None, Some(1), Some(2)], 3).unwrap();
        assert_eq!((left.rows(), left.columns(), left.nnz()), (3, 3, 3));
        assert_eq!(left.row(0), (&[0, 2][..], &[1.0, 3.0][..]));
        assert_eq!(left.row(1), (&[][..], &[][..]));
        assert_eq!(left.row(2), (&[1][..], &[5.0][..]));
    }
}
