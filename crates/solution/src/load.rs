//! Solution versions from storage: nothing is believed before its checksum, its sizes and its rows have been checked.
//!
//! Loading runs no code from the version, and allocates no more than the sizes of its files plus a fixed part.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_model::Csr;
use item_affinity_storage::Stores;

use crate::compute::blocking;
use crate::error::Result;
use crate::files::{Part, VersionReader};
use crate::model_card::ModelCard;
use crate::reference::SolutionRef;
use crate::states::{StateColumns, States, ids_sha256};
use crate::tables::decode::{Damage, Expected, read_states};
use crate::tables::pairs::{ExpectedPairs, Pair, read_pairs};
use crate::tables::{Table, pairs};
use crate::version::{ItemHistory, ItemStates, PairPart, SolutionVersion, UserPart, UserStates};

/// Files fetched at once, so that the next one is there when the last one is decoded.
pub(crate) const FETCHED_AHEAD: usize = 2;
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
            return Err(reader.foreign(&files.card.path, "the model is of other items than the parts"));
        }
        let States { ids, factors, log_odds, interactions, users, last_interaction } = states;
        let items = ItemStates { ids, factors, log_odds, interactions, users, last_interaction };
        let user_parts = user_parts(&reader, files.users).await?;
        let pair_parts = pair_parts(&reader, files.pairs, &model).await?;
        let reference = SolutionRef { location: reference.location.clone(), version: Some(reader.commit.version) };
        Ok(Self { reference, commit: reader.commit, model, items, user_parts, pair_parts })
    }

    /// Reads one file of user states whole: a Parquet file whose checksum, schema and every row have been checked.
    ///
    /// # Errors
    /// As [`SolutionVersion::open`].
    ///
    /// # Cost
    /// The size of the file in memory, and one pass over it beside the checksum.
    pub async fn read_user_part(&self, stores: &Stores, part: &UserPart) -> Result<Bytes> {
        let check = |bytes: Bytes, expected| read_states(&bytes, expected, |_| Ok(())).map(|()| bytes);
        self.with_user_part(stores, part, "checking user states", check).await
    }

    /// Reads the ids of one file of user states, which is checked as by [`SolutionVersion::read_user_part`].
    ///
    /// # Errors
    /// As [`SolutionVersion::open`].
    ///
    /// # Cost
    /// The size of the file and the ids in memory, and one pass over it beside the checksum.
    pub async fn user_ids_of(&self, stores: &Stores, part: &UserPart) -> Result<Vec<String>> {
        let read = |bytes: Bytes, expected: Expected| {
            let mut ids = Vec::with_capacity(usize::try_from(expected.rows).unwrap_or_default());
            read_states(&bytes, expected, |rows| {
                ids.extend(rows.ids.iter().flatten().map(str::to_owned));
                Ok(())
            })
            .map(|()| ids)
        };
        self.with_user_part(stores, part, "reading user ids", read).await
    }

    /// What `read` makes of the bytes of one file of user states, whose checksum is that of the commit.
    async fn with_user_part<T: Send + 'static>(
        &self,
        stores: &Stores,
        part: &UserPart,
        stage: &'static str,
        read: impl FnOnce(Bytes, Expected) -> Result<T, Damage> + Send + 'static,
    ) -> Result<T> {
        let reader = VersionReader::new(stores, &self.reference.location, self.commit.clone())?;
        let bytes = reader.parquet(&part.entry).await?;
        let expected = Expected {
            table: Table::Users,
            hidden_dimension: self.model.recipe.hidden_dimension,
            rows: u64::from(part.rows),
            first_index: part.first_user_index,
        };
        let outcome = blocking(stage, move || read(bytes, expected)).await?;
        outcome.map_err(|what| reader.damaged(&part.entry.path, what))
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
            return Err(reader.foreign(&files.card.path, "the model is of other users than the parts"));
        }
        let States { ids, factors, log_odds, interactions, last_interaction, .. } = states;
        Ok(UserStates { ids, factors, log_odds, interactions, last_interaction })
    }

    /// Reads the pairs with history of some items.
    ///
    /// # Shapes
    /// items: `item_index`es, ascending; out: one row per asked item, one column per user of the version
    ///
    /// # Errors
    /// As [`SolutionVersion::open`].
    ///
    /// # Cost
    /// The parts that hold any of the items are read whole, two at a time; 16 bytes for each pair of an asked item.
    pub async fn item_history(&self, stores: &Stores, items: &[u32]) -> Result<ItemHistory> {
        let reader = VersionReader::new(stores, &self.reference.location, self.commit.clone())?;
        // Owned entries: a closure over references would keep the whole future from being sent between threads.
        let wanted: Vec<PairPart> = self.pair_parts.iter().filter(|part| part.holds_any(items)).cloned().collect();
        self.pairs_of(&reader, items.to_vec(), wanted).await
    }

    /// Reads the pairs with history of one file, of all its items.
    ///
    /// # Shapes
    /// out: one row per item from the part's first to its last, one column per user of the version
    ///
    /// # Errors
    /// As [`SolutionVersion::open`].
    ///
    /// # Cost
    /// The size of the file, once, and 24 bytes for each of its pairs.
    pub async fn read_pair_part(&self, stores: &Stores, part: &PairPart) -> Result<ItemHistory> {
        let reader = VersionReader::new(stores, &self.reference.location, self.commit.clone())?;
        self.pairs_of(&reader, (part.first_item..=part.last_item).collect(), vec![part.clone()]).await
    }

    /// The pairs of these items in these parts, which ascend.
    async fn pairs_of(&self, reader: &VersionReader, items: Vec<u32>, parts: Vec<PairPart>) -> Result<ItemHistory> {
        let model = &self.model;
        let fetch = |part: PairPart| async { Ok::<_, crate::Error>((reader.parquet(&part.entry).await?, part)) };
        let mut fetched = stream::iter(parts).map(fetch).buffered(FETCHED_AHEAD);
        let mut history = HistoryRows::new(items);
        while let Some((bytes, part)) = fetched.try_next().await? {
            let expected = ExpectedPairs { rows: u64::from(part.rows), items: model.items, users: model.users };
            let outcome;
            (history, outcome) = blocking("reading pairs", move || {
                let outcome = read_pairs(&bytes, expected, |pair| history.add(pair));
                (history, outcome)
            })
            .await?;
            outcome.map_err(|what| reader.damaged(&part.entry.path, what))?;
        }
        let users = usize::try_from(model.users).unwrap_or(usize::MAX);
        history.finish(users).map_err(|what| reader.damaged(&format!("{}/", pairs::FOLDER), what))
    }
}

impl PairPart {
    /// Whether any of these items, which ascend, may have pairs in it.
    #[must_use]
    pub fn holds_any(&self, items: &[u32]) -> bool {
        let at = items.partition_point(|item| *item < self.first_item);
        items.get(at).is_some_and(|item| *item <= self.last_item)
    }
}

/// Pairs of the asked items, gathered part by part.
struct HistoryRows {
    items: Vec<u32>,
    /// The item of the last pair, and its row if it is asked.
    last: Option<(u32, Option<usize>)>,
    indptr: Vec<usize>,
    users: Vec<u32>,
    log_odds: Vec<f32>,
    weights: Vec<f32>,
}

impl HistoryRows {
    fn new(items: Vec<u32>) -> Self {
        Self { items, last: None, indptr: vec![0], users: Vec::new(), log_odds: Vec::new(), weights: Vec::new() }
    }

    /// Takes a pair; they come by item and user, from the first part to the last.
    fn add(&mut self, pair: Pair) {
        let row = match self.last {
            Some((item, row)) if item == pair.item => row,
            _ => self.items.binary_search(&pair.item).ok(),
        };
        self.last = Some((pair.item, row));
        let Some(row) = row else { return };
        self.indptr.resize(row + 1, self.users.len());
        self.users.push(pair.user);
        self.log_odds.push(pair.log_odds);
        self.weights.push(pair.weight);
    }

    fn finish(mut self, users: usize) -> Result<ItemHistory, Damage> {
        self.indptr.resize(self.items.len() + 1, self.users.len());
        let csr = |values| Csr::new(self.indptr.clone(), self.users.clone(), values, users).map_err(|e| e.to_string());
        Ok(ItemHistory { log_odds: csr(self.log_odds)?, weights: csr(self.weights)? })
    }
}

async fn pair_parts(reader: &VersionReader, parts: Vec<Part>, model: &ModelCard) -> Result<Vec<PairPart>> {
    let last = u32::try_from(model.items.saturating_sub(1)).unwrap_or(u32::MAX);
    // An item may go on in the next part.
    let ends = model.pair_parts.iter().skip(1).copied().chain([last]).collect::<Vec<_>>();
    let ranges: Vec<(u32, u32)> = model.pair_parts.iter().copied().zip(ends).collect();
    let check = |(part, (first_item, last_item)): (Part, (u32, u32))| async move {
        reader.check_size(&part.entry).await?;
        Ok(PairPart { first_item, last_item, rows: part.rows, entry: part.entry })
    };
    stream::iter(parts.into_iter().zip(ranges)).map(check).buffered(ASKED_AT_ONCE).try_collect().await
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
