//! Items and Users: their ids, and what their columns hold.

use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::StreamExt;
use item_affinity_model::Vocabulary;
use item_affinity_storage::{InputFile, Location, Stores};

use crate::attribute_selection::{AttributeSelection, same};
use crate::attribute_values::ColumnValues;
use crate::attributes::MetadataValues;
use crate::columns::{ColumnMapping, Source, clean};
use crate::dataset_schema::DatasetSchema;
use crate::error::{Error, Place, Result, printable};
use crate::ids::Ids;
use crate::inputs::{Inputs, Opened};
use crate::part::id_reason;
use crate::profile::ColumnProfile;
use crate::schema::{Dataset, ITEM_ID, TIMESTAMP, USER_ID};
use crate::tally::{BadRowLimits, Position, RowCounts, Tally, Warning};
use crate::text_codes::FIRST_SPECIAL;

/// The ids of Items or Users, a profile of each column, and the values of those that become attributes.
#[derive(Debug)]
pub struct Metadata {
    /// Items or Users.
    pub dataset: Dataset,
    /// Every id, once.
    pub ids: Vocabulary,
    /// The files, pinned as they were read.
    pub inputs: Vec<InputFile>,
    /// What happened to each row.
    pub counts: RowCounts,
    /// Rows whose id another row has too; of rows with one id the last one counts.
    pub duplicates: u64,
    /// Every column but the id, in the order of the first file.
    pub columns: Vec<ColumnProfile>,
    /// What is odd but does not stop a job.
    pub warnings: Vec<Warning>,
    /// None when the metadata was read without attributes.
    pub(crate) values: Option<MetadataValues>,
}

const BATCH_ROWS: usize = 8_192;
const LIMITS: BadRowLimits = BadRowLimits { structure: 0.0, values: 0.01 };

/// Reads the ids of Items or Users and profiles their columns.
///
/// # Errors
/// Everything in [`Error`] that concerns a data set: a missing or unreadable id column, and ids that are null or blank
/// in any row, or otherwise bad in more than one row in a hundred.
///
/// # Cost
/// The ids, and at most 1,000 categories of 1,000 characters for each column.
pub async fn read_metadata(
    stores: &Stores,
    dataset: Dataset,
    locations: &[Location],
    columns: &ColumnMapping,
) -> Result<Metadata> {
    let source = MetadataSource { locations, columns, schema: None, selection: None };
    read_metadata_from(stores, dataset, &source).await
}

/// [`read_metadata`] that also keeps the values of the selected columns, for [`Metadata::attributes_for`].
///
/// # Errors
/// those of [`read_metadata`], and [`Error::Option`] for a selected column that no file has
///
/// # Cost
/// Besides [`read_metadata`]: 8 bytes for each row of a numeric column, 8 for each row and 4 for each value of a text
/// column, and at most 64 MiB of distinct values for each text column.
pub async fn read_metadata_with(
    stores: &Stores,
    dataset: Dataset,
    locations: &[Location],
    columns: &ColumnMapping,
    selection: &AttributeSelection,
) -> Result<Metadata> {
    let source = MetadataSource { locations, columns, schema: None, selection: Some(selection) };
    read_metadata_from(stores, dataset, &source).await
}

/// What to read as Items or Users.
#[derive(Clone, Copy, Debug)]
pub struct MetadataSource<'a> {
    /// Files, folders or globs.
    pub locations: &'a [Location],
    /// Columns that go by other names.
    pub columns: &'a ColumnMapping,
    /// The schema of CSV files; Parquet files say themselves what they hold. Its marks decide which texts are attributes.
    pub schema: Option<&'a Arc<DatasetSchema>>,
    /// The columns whose values are kept as attributes; none keeps no values.
    pub selection: Option<&'a AttributeSelection>,
}

/// [`read_metadata_with`] for Parquet, and for CSV with a schema.
///
/// # Errors
/// those of [`read_metadata_with`]; [`Error::Csv`] for a file that is not what its schema says
pub async fn read_metadata_from(stores: &Stores, dataset: Dataset, source: &MetadataSource<'_>) -> Result<Metadata> {
    let MetadataSource { locations, columns, schema, selection } = *source;
    let id = match dataset {
        Dataset::Items => ITEM_ID,
        Dataset::Users => USER_ID,
        Dataset::Interactions => {
            return Err(Error::Option {
                option: "--items",
                what: "Interactions are no metadata".to_string(),
                cure: "give Items or Users".to_string(),
            });
        }
    };
    let inputs = Inputs::open(stores, dataset, locations, columns, &[], schema).await?;
    let labels = inputs.labels();
    let Inputs { files, opened, mut warnings } = inputs;
    if let Some(selection) = selection {
        selection.check(dataset, &own_columns(&opened))?;
    }
    let mut reader = Reader {
        id,
        ids: Ids::new(),
        codes: Vec::new(),
        tally: Tally::default(),
        columns: Vec::new(),
        selection: selection.cloned(),
        schema: schema.cloned(),
        values: Vec::new(),
        rows: Vec::new(),
        repeated: Vec::new(),
    };
    if let Some(first) = opened.first() {
        warn_about_interactions(dataset, first.input.schema(), &first.bound.label, &mut warnings);
    }
    for file in &opened {
        reader.read(file).await?;
    }
    let Reader { ids, tally, columns, values, rows: row_ids, repeated, .. } = reader;
    let (ids, renumber) = ids.into_vocabulary().finish();
    let rows = tally.rows;
    let rejected = tally.counts(0, &labels).rejected_rows();
    let counts = tally.counts(rows.saturating_sub(rejected), &labels);
    counts.check(LIMITS)?;
    warnings.extend(counts.warnings());
    let duplicates = counts.kept.saturating_sub(ids.len() as u64);
    if duplicates > 0 {
        warnings.push(Warning::new(
            "DUPLICATE_IDS",
            format!("rows with an id that another row has too; count={duplicates} column={}; the last one counts", id),
        ));
    }
    if columns.is_empty() {
        warnings.push(Warning::new(
            "NO_METADATA",
            format!("{} has no column beside {}; Amazon Personalize asks for one at least", dataset, id),
        ));
    }
    for column in columns.iter().filter(|column| column.long_values > 0) {
        warnings.push(Warning::new(
            "LONG_VALUES",
            format!(
                "values over 1000 characters; count={} column={}; Amazon Personalize refuses them as categories",
                column.long_values,
                printable(&column.name)
            ),
        ));
    }
    for name in repeated {
        let message =
            format!("two columns of a file have this name; column={}; the first one counts", printable(&name));
        warnings.push(Warning::new("COLUMN_REPEATED", message));
    }
    for values in values.iter().flatten().filter(|values| values.not_finite > 0) {
        let message = format!(
            "numbers that are NaN or infinite; count={} column={}; they count as missing",
            values.not_finite,
            printable(&values.name)
        );
        warnings.push(Warning::new("NUMBERS_NOT_FINITE", message));
    }
    let values = selection.map(|_| {
        let mut last_row = vec![0u64; ids.len()];
        for (row, code) in (0u64..).zip(&row_ids) {
            // A row without an id has a code that no id has.
            if let Some(index) = renumber.get(*code as usize) {
                last_row[*index as usize] = row;
            }
        }
        let columns = values.into_iter().flatten().map(|column| (column.name.clone(), column.finish())).collect();
        MetadataValues { last_row, columns }
    });
    Ok(Metadata { dataset, ids, inputs: files, counts, duplicates, columns, warnings, values })
}

/// The columns of all files but the id, each once.
fn own_columns(files: &[Opened]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let id = id_column(file);
        for (index, field) in file.input.schema().fields().iter().enumerate() {
            if Some(index) != id && !names.iter().any(|name| same(name, field.name())) {
                names.push(field.name().clone());
            }
        }
    }
    names
}

fn id_column(file: &Opened) -> Option<usize> {
    match &file.bound.sources[0] {
        Source::Column { index, .. } => Some(*index),
        Source::Partition { .. } | Source::Absent => None,
    }
}

struct Reader {
    id: &'static str,
    ids: Ids,
    codes: Vec<u32>,
    tally: Tally,
    columns: Vec<ColumnProfile>,
    selection: Option<AttributeSelection>,
    schema: Option<Arc<DatasetSchema>>,
    /// In the order of `columns`; none for a column that is not selected.
    values: Vec<Option<ColumnValues>>,
    /// The id of each row, as the code of its arrival; kept when there is a selection.
    rows: Vec<u32>,
    /// Names that a file has twice.
    repeated: Vec<String>,
}

impl Reader {
    async fn read(&mut self, file: &Opened) -> Result<()> {
        let schema = Arc::clone(file.input.schema());
        let all = &file.bound.projection;
        let row_groups: Vec<usize> = (0..file.input.row_groups()).collect();
        let id = id_column(file);
        let mut profiles: Vec<Option<usize>> = Vec::with_capacity(all.len());
        for index in all {
            let name = schema.field(*index).name();
            let profile = (Some(*index) != id).then(|| self.profile(name));
            let repeated = profile.is_some() && profiles.contains(&profile);
            if repeated && !self.repeated.iter().any(|other| same(other, name)) {
                self.repeated.push(name.clone());
            }
            profiles.push(profile.filter(|_| !repeated));
        }
        let mut batches = file.input.stream_row_groups(&row_groups, all, BATCH_ROWS).await?;
        let mut row = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            match file.bound.column(0, &batch)? {
                Some(ids) => self.ids.read(&ids, None, &mut self.codes)?,
                None => self.codes.clear(),
            }
            for (position, code) in self.codes.iter().enumerate() {
                if *code >= FIRST_SPECIAL {
                    let position = Position { file: file.bound.number, row: row + position as u64 };
                    self.tally.reject(id_reason(*code), self.id, position);
                }
            }
            let first = self.tally.rows;
            if self.selection.is_some() {
                self.rows.extend_from_slice(&self.codes);
            }
            self.tally.rows += batch.num_rows() as u64;
            row += batch.num_rows() as u64;
            for (column, profile) in batch.columns().iter().zip(&profiles) {
                let Some(number) = *profile else { continue };
                if let Some(profile) = self.columns.get_mut(number) {
                    let values = self.values.get_mut(number).and_then(Option::as_mut);
                    let kept = values.map_or(Ok(()), |values| values.add(first, column));
                    kept.and_then(|()| profile.add(column)).map_err(|source| Error::Convert {
                        wanted: "a metadata column",
                        place: Box::new(Place {
                            file: file.bound.label.clone(),
                            row: None,
                            column: Some(profile.name.clone()),
                        }),
                        source,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The place of a column's profile; files may have their columns in another order.
    fn profile(&mut self, name: &str) -> usize {
        self.columns.iter().position(|column| same(&column.name, name)).unwrap_or_else(|| {
            self.columns.push(ColumnProfile::new(name));
            let selected = self.selection.as_ref().is_some_and(|selection| selection.admits(name))
                && self.schema.as_ref().is_none_or(|schema| schema.trains(name));
            self.values.push(selected.then(|| ColumnValues::new(name)));
            self.columns.len() - 1
        })
    }
}

/// Interactions given as Items or Users have an id column too: only their other columns give them away.
fn warn_about_interactions(dataset: Dataset, schema: &Schema, file: &str, warnings: &mut Vec<Warning>) {
    let has = |name: &str| schema.fields().iter().any(|field| clean(field.name()).eq_ignore_ascii_case(name));
    if has(USER_ID) && has(ITEM_ID) && has(TIMESTAMP) {
        warnings.push(Warning::new(
            "LOOKS_LIKE_INTERACTIONS",
            format!(
                "{} has USER_ID, ITEM_ID and TIMESTAMP; file={file}; give an event log with --interactions",
                dataset
            ),
        ));
    }
}
