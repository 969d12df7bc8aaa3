//! Columns of Items and Users as features of the ids that a model knows.

use item_affinity_model::{AttributeColumn, Attributes, Csr, Vocabulary};

use crate::attribute_encoding::{Rows, encode, features_of};
use crate::attribute_selection::same;
use crate::attribute_values::Column;
use crate::error::{Result, printable};
use crate::metadata::Metadata;
use crate::tally::Warning;

/// The values of the selected columns, and the row of each id.
#[derive(Debug)]
pub(crate) struct MetadataValues {
    /// The last row of each id of the metadata, in the order of the ids.
    pub(crate) last_row: Vec<u64>,
    /// Every selected column with its name, in the order of the first file.
    pub(crate) columns: Vec<(String, Column)>,
}

/// The features of the ids of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct AlignedAttributes {
    /// One row per id of the vocabulary; an id without metadata has an empty row.
    pub attributes: Attributes,
    /// Ids of the metadata that the vocabulary lacks; their attributes are not used.
    pub unknown_ids: u64,
    /// Ids of the vocabulary that the metadata lacks.
    pub without_metadata: u64,
    /// Columns and values that are not used, and why.
    pub warnings: Vec<Warning>,
}

impl Metadata {
    /// Makes features of the selected columns, one row for each id of a vocabulary.
    ///
    /// Text is categorical: one feature for each value that two rows have, the most frequent 5,000; a list `a|b` has
    /// several, weighted to a norm of 1 together. Booleans are categories too. Numbers are standardized over the ids
    /// of the vocabulary and end at three deviations; without a value they count 0. Whole numbers with up to 20
    /// distinct values are categories, since they mostly number kinds; with more, both, since they may be an amount or
    /// a code and the fit finds out which. Of rows with one id the last one counts, whole.
    ///
    /// Columns without values, with one value everywhere, or whose values hardly repeat (free text) are left out with
    /// a warning; so are times, nested types and `CREATION_TIMESTAMP`.
    ///
    /// None when the metadata was read without attributes.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for more features than can be numbered
    ///
    /// # Cost
    /// A few passes over the values; 8 bytes for each feature of each id.
    pub fn attributes_for(&self, ids: &Vocabulary) -> Result<Option<AlignedAttributes>> {
        let Some(values) = &self.values else { return Ok(None) };
        let rows = self.rows_of(ids, values);
        let (mut columns, mut warnings) = (Vec::new(), Vec::new());
        for (name, column) in &values.columns {
            encode(name, column, &rows, &mut columns, &mut warnings);
        }
        self.align(values, columns, &rows, warnings).map(Some)
    }

    /// The same features as an earlier call gave, for other ids or newer metadata: values that it did not know are
    /// left out, and numbers are standardized as they were.
    ///
    /// # Errors
    /// as [`attributes_for`](Self::attributes_for)
    pub fn attributes_as(&self, columns: &[AttributeColumn], ids: &Vocabulary) -> Result<Option<AlignedAttributes>> {
        let Some(values) = &self.values else { return Ok(None) };
        let rows = self.rows_of(ids, values);
        let mut warnings = Vec::new();
        for (position, column) in columns.iter().enumerate() {
            let repeated = columns[..position].iter().any(|other| other.name == column.name);
            if !repeated && values.find(&column.name).is_none() {
                let message =
                    format!("column={}; it was there in training; it counts as missing", printable(&column.name));
                warnings.push(Warning::new("ATTRIBUTE_ABSENT", message));
            }
        }
        self.align(values, columns.to_vec(), &rows, warnings).map(Some)
    }

    /// The metadata row of each id of a vocabulary.
    fn rows_of(&self, ids: &Vocabulary, values: &MetadataValues) -> Rows {
        ids.iter().map(|id| values.last_row.get(self.ids.index_of(id)? as usize).copied()).collect()
    }

    fn align(
        &self,
        values: &MetadataValues,
        columns: Vec<AttributeColumn>,
        rows: &Rows,
        warnings: Vec<Warning>,
    ) -> Result<AlignedAttributes> {
        let mut by_column = Vec::with_capacity(columns.len());
        let mut first = 0;
        for column in &columns {
            by_column.push(features_of(&column.encoding, values.find(&column.name), rows, first)?);
            first += column.features();
        }
        let (mut indptr, mut indices, mut entries) = (Vec::with_capacity(rows.len() + 1), Vec::new(), Vec::new());
        indptr.push(0);
        for row in 0..rows.len() {
            for features in &by_column {
                let (found, weights) = features.row(row);
                indices.extend_from_slice(found);
                entries.extend_from_slice(weights);
            }
            indptr.push(indices.len());
        }
        let attributes = Attributes::new(Csr::new(indptr, indices, entries, first)?, columns)?;
        let known = rows.iter().filter(|row| row.is_some()).count() as u64;
        Ok(AlignedAttributes {
            attributes,
            unknown_ids: (self.ids.len() as u64).saturating_sub(known),
            without_metadata: (rows.len() as u64).saturating_sub(known),
            warnings,
        })
    }
}

impl MetadataValues {
    fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(other, _)| same(other, name)).map(|(_, column)| column)
    }
}
