//! Items and Users from Parquet: their ids, and what their columns hold.

use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::StreamExt;
use item_affinity_model::Vocabulary;
use item_affinity_storage::{InputFile, Location, Stores};

use crate::columns::{ColumnMapping, Source, clean};
use crate::error::{Error, Place, Result, printable};
use crate::ids::Ids;
use crate::inputs::{Inputs, Opened};
use crate::part::id_reason;
use crate::profile::ColumnProfile;
use crate::schema::{Dataset, ITEM_ID, TIMESTAMP, USER_ID};
use crate::tally::{BadRowLimits, Position, RowCounts, Tally, Warning};
use crate::text_codes::FIRST_SPECIAL;

/// The ids of Items or Users, and a profile of each column. The values themselves are not kept.
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
    let inputs = Inputs::open(stores, dataset, locations, columns, &[]).await?;
    let labels = inputs.labels();
    let Inputs { files, opened, mut warnings } = inputs;
    let mut reader = Reader { id, ids: Ids::new(), codes: Vec::new(), tally: Tally::default(), columns: Vec::new() };
    if let Some(first) = opened.first() {
        warn_about_interactions(dataset, first.input.schema(), &first.bound.label, &mut warnings);
    }
    for file in &opened {
        reader.read(file).await?;
    }
    let Reader { ids, tally, columns, .. } = reader;
    let (ids, _) = ids.into_vocabulary().finish();
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
    Ok(Metadata { dataset, ids, inputs: files, counts, duplicates, columns, warnings })
}

struct Reader {
    id: &'static str,
    ids: Ids,
    codes: Vec<u32>,
    tally: Tally,
    columns: Vec<ColumnProfile>,
}

impl Reader {
    async fn read(&mut self, file: &Opened) -> Result<()> {
        let schema = Arc::clone(file.input.schema());
        let all = &file.bound.projection;
        let row_groups: Vec<usize> = (0..file.input.row_groups()).collect();
        let id = match &file.bound.sources[0] {
            Source::Column { index, .. } => Some(*index),
            Source::Partition { .. } | Source::Absent => None,
        };
        let profiles: Vec<Option<usize>> =
            all.iter().map(|index| (Some(*index) != id).then(|| self.profile(schema.field(*index).name()))).collect();
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
            self.tally.rows += batch.num_rows() as u64;
            row += batch.num_rows() as u64;
            for (column, profile) in batch.columns().iter().zip(&profiles) {
                if let Some(profile) = profile.and_then(|profile| self.columns.get_mut(profile)) {
                    profile.add(column).map_err(|source| Error::Convert {
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
        let same = |column: &ColumnProfile| clean(&column.name).to_lowercase() == clean(name).to_lowercase();
        self.columns.iter().position(same).unwrap_or_else(|| {
            self.columns.push(ColumnProfile::new(name));
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
