//! Solution versions from storage: nothing is believed before its checksum, its sizes and its rows have been checked.
//!
//! Loading runs no code from the version, and allocates no more than the sizes of its files plus a fixed part.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_storage::Stores;

use crate::compute::blocking;
use crate::error::Result;
use crate::files::{Part, VersionReader};
use crate::model_card::ModelCard;
use crate::reference::SolutionRef;
use crate::states::{StateColumns, States, ids_sha256};
use crate::tables::Table;
use crate::tables::decode::{Expected, read_states};
use crate::version::{ItemStates, SolutionVersion, UserPart, UserStates};

/// Files fetched at once, so that the next one is there when the last one is decoded.
const FETCHED_AHEAD: usize = 2;
/// Sizes asked for at once.
const ASKED_AT_ONCE: usize = 16;

impl SolutionVersion {
    /// Opens a version: reads the model card and the item states, and checks that every user part is there.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) when the version does not exist or cannot be read;
    /// [`Error::Damaged`](crate::Error::Damaged) with the name of the file for anything that is not as the commit and
    /// the format say; [`Error::Format`](crate::Error::Format) for a newer major version.
    ///
    /// # Cost
    /// One request per file; item files are read whole and held once while they are decoded.
    pub async fn open(stores: &Stores, reference: &SolutionRef) -> Result<Self> {
        let reader = VersionReader::open(stores, reference).await?;
        let files = reader.files()?;
        let model = reader.card(&files.card).await?;
        reader.agree(&files, &model)?;
        let states = read_table(&reader, Table::Items, &files.items, &model).await?;
        if ids_sha256(&states.ids) != model.item_ids_sha256 {
            return Err(reader.damaged(&files.card.path, "belongs to other items".to_owned()));
        }
        let States { ids, factors, interactions, users, last_interaction } = states;
        let items = ItemStates { ids, factors, interactions, users, last_interaction };
        let user_parts = user_parts(&reader, files.users).await?;
        let reference = SolutionRef { location: reference.location.clone(), version: Some(reader.commit.version) };
        Ok(Self { reference, commit: reader.commit, model, items, user_parts })
    }

    /// Reads one file of user states whole: a Parquet file whose checksum, schema and every row have been checked.
    ///
    /// # Errors
    /// As [`SolutionVersion::open`].
    ///
    /// # Cost
    /// The size of the file in memory, and one pass over it beside the checksum.
    pub async fn read_user_part(&self, stores: &Stores, part: &UserPart) -> Result<Bytes> {
        let reader = VersionReader::new(stores, &self.reference.location, self.commit.clone())?;
        let bytes = reader.parquet(&part.entry).await?;
        let expected = Expected {
            table: Table::Users,
            hidden_dimension: self.model.recipe.hidden_dimension,
            rows: u64::from(part.rows),
            first_index: part.first_user_index,
        };
        let checked = bytes.clone();
        let outcome = blocking("checking user states", move || read_states(&checked, expected, |_| Ok(()))).await?;
        outcome.map_err(|what| reader.damaged(&part.entry.path, what))?;
        Ok(bytes)
    }

    /// Reads the states of all users: for scoring single pairs, not for ranking, which streams the parts.
    ///
    /// # Errors
    /// As [`SolutionVersion::open`]; also [`Error::Damaged`](crate::Error::Damaged) when the parts together are not in order, or are not those
    /// of this model.
    ///
    /// # Cost
    /// Users × (4 · hidden_dimension + 16) bytes and the ids, plus two parts.
    pub async fn user_states(&self, stores: &Stores) -> Result<UserStates> {
        let reader = VersionReader::new(stores, &self.reference.location, self.commit.clone())?;
        let files = reader.files()?;
        let states = read_table(&reader, Table::Users, &files.users, &self.model).await?;
        if ids_sha256(&states.ids) != self.model.user_ids_sha256 {
            return Err(reader.damaged(&files.card.path, "belongs to other users".to_owned()));
        }
        let States { ids, factors, interactions, last_interaction, .. } = states;
        Ok(UserStates { ids, factors, interactions, last_interaction })
    }
}

async fn user_parts(reader: &VersionReader, parts: Vec<Part>) -> Result<Vec<UserPart>> {
    let check = |part: Part| async move {
        reader.check_size(&part.entry).await?;
        let location = reader.versions.file_location(&part.entry)?;
        Ok(UserPart { location, first_user_index: part.first_index, rows: part.rows, entry: part.entry })
    };
    stream::iter(parts).map(check).buffered(ASKED_AT_ONCE).try_collect().await
}

/// Reads all parts of a table, a few requests ahead of the decoder.
async fn read_table(reader: &VersionReader, table: Table, parts: &[Part], card: &ModelCard) -> Result<States> {
    let hidden_dimension = card.recipe.hidden_dimension;
    let rows = parts.iter().map(|part| part.rows as usize).sum();
    let mut columns = StateColumns::with_capacity(table, hidden_dimension, rows);
    // Owned entries: a closure over references would keep the whole future from being sent between threads.
    let entries: Vec<_> = parts.iter().map(|part| part.entry.clone()).collect();
    let fetch = |entry| async move { reader.parquet(&entry).await };
    let mut fetched = stream::iter(entries).map(fetch).buffered(FETCHED_AHEAD);
    for part in parts {
        let Some(bytes) = fetched.try_next().await? else { break };
        let rows = u64::from(part.rows);
        let expected = Expected { table, hidden_dimension, rows, first_index: part.first_index };
        let outcome;
        (columns, outcome) = blocking("reading states", move || {
            let outcome = columns.add(&bytes, expected);
            (columns, outcome)
        })
        .await?;
        outcome.map_err(|what| reader.damaged(&part.entry.path, what))?;
    }
    let states = blocking("reading states", move || columns.finish()).await?;
    states.map_err(|what| reader.damaged(&format!("{}/", table.folder()), what))
}
