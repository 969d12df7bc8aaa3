//! The columns of a state table, gathered part by part.

use arrow::array::Array;
use bytes::Bytes;
use item_affinity_model::Vocabulary;
use item_affinity_model::ndarray::Array2;
use sha2::{Digest, Sha256};

use crate::tables::Table;
use crate::tables::decode::{Damage, Expected, StateRows, not_ascending, read_states};
use crate::tables::factor_values;

/// Columns of one table while its parts are read; ids lie in one run of text.
pub(crate) struct StateColumns {
    table: Table,
    hidden_dimension: usize,
    id_text: String,
    id_ends: Vec<usize>,
    factors: Vec<f32>,
    log_odds: Vec<f32>,
    interactions: Vec<i64>,
    users: Vec<i64>,
    last_interaction: Vec<i64>,
}

/// The columns when all parts are in.
pub(crate) struct States {
    pub(crate) ids: Vocabulary,
    pub(crate) factors: Array2<f32>,
    pub(crate) log_odds: Vec<f32>,
    pub(crate) interactions: Vec<i64>,
    pub(crate) users: Vec<i64>,
    pub(crate) last_interaction: Vec<i64>,
}

impl StateColumns {
    /// Columns with room for `rows` rows; the caller has compared them with the sizes of the files.
    pub(crate) fn with_capacity(table: Table, hidden_dimension: usize, rows: usize) -> Self {
        Self {
            table,
            hidden_dimension,
            id_text: String::new(),
            id_ends: Vec::with_capacity(rows),
            factors: Vec::with_capacity(rows.saturating_mul(hidden_dimension)),
            log_odds: Vec::with_capacity(rows),
            interactions: Vec::with_capacity(rows),
            users: Vec::with_capacity(if table == Table::Items { rows } else { 0 }),
            last_interaction: Vec::with_capacity(rows),
        }
    }

    /// Adds the rows of the next part.
    pub(crate) fn add(&mut self, bytes: &Bytes, expected: Expected) -> Result<(), Damage> {
        read_states(bytes, expected, |rows| self.add_rows(&rows))
    }

    fn add_rows(&mut self, rows: &StateRows) -> Result<(), Damage> {
        // Within a part the order is checked already; here it also counts from one part to the next.
        if rows.ids.len() > 0 && !self.id_ends.is_empty() && rows.ids.value(0) <= self.last_id() {
            return Err(not_ascending(self.table));
        }
        for id in rows.ids.iter().flatten() {
            self.id_text.push_str(id);
            self.id_ends.push(self.id_text.len());
        }
        self.factors.extend_from_slice(&factor_values(&rows.factors));
        self.log_odds.extend_from_slice(rows.log_odds.values());
        self.interactions.extend_from_slice(rows.interactions.values());
        if let Some(users) = &rows.users {
            self.users.extend_from_slice(users.values());
        }
        // Seconds are what the model counts in; the file has milliseconds because every reader knows them.
        self.last_interaction.extend(rows.last_interaction.values().iter().map(|ms| ms.div_euclid(1_000)));
        Ok(())
    }

    fn last_id(&self) -> &str {
        let start = self.id_ends.len().checked_sub(2).map_or(0, |before| self.id_ends[before]);
        &self.id_text[start..]
    }

    pub(crate) fn finish(self) -> Result<States, Damage> {
        let starts = std::iter::once(0).chain(self.id_ends.iter().copied());
        let ids = starts.zip(&self.id_ends).map(|(start, end)| &self.id_text[start..*end]);
        let ids = Vocabulary::from_sorted(ids).map_err(|e| e.to_string())?;
        let shape = (ids.len(), self.hidden_dimension);
        let factors = Array2::from_shape_vec(shape, self.factors).map_err(|e| e.to_string())?;
        Ok(States {
            ids,
            factors,
            log_odds: self.log_odds,
            interactions: self.interactions,
            users: self.users,
            last_interaction: self.last_interaction,
        })
    }
}

/// SHA-256 over all ids in order, each ended by a line feed, in hexadecimal.
pub(crate) fn ids_sha256(ids: &Vocabulary) -> String {
    let mut hash = Sha256::new();
    for id in ids.iter() {
        hash.update(id.as_bytes());
        hash.update(b"\n");
    }
    hex(&hash.finalize())
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
