//! The files of a data set, opened and matched with its contract.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use item_affinity_storage::{FileKind, InputFile, Location, Stores, list_files};

use crate::bound_file::BoundFile;
use crate::columns::{ColumnMapping, Offer, Source, bind, clean};
use crate::dataset_schema::DatasetSchema;
use crate::error::Result;
use crate::part::{ITEM, TYPE, USER};
use crate::schema::{Dataset, RESERVED_UNREAD, USER_ID};
use crate::size_limit::refuse_rows;
use crate::table_input::{TableInput, file_kind};
use crate::tally::Warning;

/// Footers read at the same time: the wait is the store's, not the processor's.
const FOOTERS_AT_ONCE: usize = 16;
/// Own columns of Interactions beyond it are refused by Amazon Personalize.
const MOST_OWN_COLUMNS: usize = 5;

/// One open file.
pub(crate) struct Opened {
    pub(crate) input: TableInput,
    pub(crate) bound: BoundFile,
}

impl Opened {
    /// Matches a file with the contract of its data set.
    pub(crate) fn of(
        dataset: Dataset,
        number: usize,
        file: &InputFile,
        input: TableInput,
        columns: &ColumnMapping,
        needed: &[&str],
    ) -> Result<Self> {
        let name = file.location.to_string();
        let offer = Offer { schema: input.schema(), partitions: &file.partitions, file: &name };
        let sources = bind(dataset, columns, needed, &offer)?;
        let (input, projection) = match dataset {
            Dataset::Interactions => (input.with_dictionaries(text_columns(&sources))?, needed_columns(&sources)),
            // Metadata is profiled whole.
            Dataset::Items | Dataset::Users => {
                let all = (0..input.schema().fields().len()).collect();
                (input, all)
            }
        };
        let label = label(name, &sources, dataset);
        Ok(Self { input, bound: BoundFile { dataset, number, label, sources, projection } })
    }
}

/// All files of a data set.
pub(crate) struct Inputs {
    pub(crate) files: Vec<InputFile>,
    /// In the order of `files`.
    pub(crate) opened: Vec<Opened>,
    pub(crate) warnings: Vec<Warning>,
}

impl Inputs {
    /// Lists, opens and binds the files of some locations. Every file is checked before a row of any is read.
    pub(crate) async fn open(
        stores: &Stores,
        dataset: Dataset,
        locations: &[Location],
        columns: &ColumnMapping,
        needed: &[&str],
        schema: Option<&Arc<DatasetSchema>>,
    ) -> Result<Self> {
        let mut warnings = schema.map(|schema| schema.warnings()).unwrap_or_default();
        let files = list(stores, locations, file_kind(schema), &mut warnings).await?;
        // Collected first: a lazy map of borrowed files would keep the whole read from moving between threads.
        let opening: Vec<_> = files.iter().map(|file| TableInput::open(stores, file, schema)).collect();
        let opened: Vec<TableInput> = stream::iter(opening).buffered(FOOTERS_AT_ONCE).try_collect().await?;
        let mut bound = Vec::with_capacity(files.len());
        for (number, (file, input)) in files.iter().zip(opened).enumerate() {
            bound.push(Opened::of(dataset, number, file, input, columns, needed)?);
        }
        let first = bound.first().map(|file| file.bound.label.as_str()).unwrap_or_default();
        refuse_rows(dataset, bound.iter().map(|file| file.input.rows()), first)?;
        let mut inputs = Self { files, opened: bound, warnings };
        inputs.warn_about_folders(dataset);
        if dataset == Dataset::Interactions {
            inputs.warn_about_own_columns();
        }
        Ok(inputs)
    }

    /// The names of the files in messages, by number.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.opened.iter().map(|file| file.bound.label.clone()).collect()
    }

    /// Rows of all files; 0 when only reading them tells.
    pub(crate) fn rows(&self) -> u64 {
        self.opened.iter().map(|file| file.input.rows()).sum::<Option<u64>>().unwrap_or_default()
    }

    fn warn_about_folders(&mut self, dataset: Dataset) {
        let contracts = dataset.columns();
        for (position, contract) in contracts.iter().enumerate() {
            let null = |file: &&Opened| matches!(file.bound.sources[position], Source::Partition { value: None, .. });
            let count = self.opened.iter().filter(null).count();
            if count > 0 {
                let message = format!(
                    "null folder name; count={count} column={}; __HIVE_DEFAULT_PARTITION__ is read as null",
                    contract.name
                );
                self.warnings.push(Warning::new("PARTITION_NULL", message));
            }
        }
    }

    fn warn_about_own_columns(&mut self) {
        let mut sets = self.opened.iter().map(own_columns);
        let Some(first) = sets.next() else { return };
        let differing = sets.filter(|set| *set != first).count();
        if first.len() > MOST_OWN_COLUMNS {
            self.warnings.push(Warning::new(
                "OWN_COLUMNS",
                format!(
                    "more than {MOST_OWN_COLUMNS} columns beside the contract's; count={}; Amazon Personalize refuses \
                 them, here they are not read",
                    first.len()
                ),
            ));
        }
        if differing > 0 {
            self.warnings.push(Warning::new("SCHEMA_DIFFERS", format!(
                "files with other extra columns than the first; count={differing}; columns that are not needed are not read"
            )));
        }
    }
}

/// The columns of an event log that the contract has no name for.
fn own_columns(file: &Opened) -> BTreeSet<String> {
    let fields = file.input.schema().fields().iter().enumerate();
    fields
        .filter(|(index, _)| !file.bound.projection.contains(index))
        .map(|(_, field)| clean(field.name()).to_lowercase())
        .filter(|name| !RESERVED_UNREAD.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)))
        .collect()
}

async fn list(
    stores: &Stores,
    locations: &[Location],
    kind: FileKind,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<InputFile>> {
    let mut files: Vec<InputFile> = Vec::new();
    let (mut ignored, mut repeated) = (0, 0);
    let mut seen = HashSet::new();
    for location in locations {
        let listing = list_files(stores, location, kind).await?;
        ignored += listing.ignored;
        for file in listing.files {
            if seen.insert(file.location.url().clone()) {
                files.push(file);
            } else {
                repeated += 1;
            }
        }
    }
    if ignored > 0 {
        let message = format!("hidden and foreign files; count={ignored}; only data files are read");
        warnings.push(Warning::new("FILES_IGNORED", message));
    }
    if repeated > 0 {
        let message = format!("files named more than once; count={repeated}; each file is read once");
        warnings.push(Warning::new("FILES_REPEATED", message));
    }
    Ok(files)
}

/// The columns of the file that hold texts of Interactions.
fn text_columns(sources: &[Source]) -> impl Iterator<Item = usize> {
    [USER, ITEM, TYPE].into_iter().filter_map(|contract| sources.get(contract)?.index())
}

fn needed_columns(sources: &[Source]) -> Vec<usize> {
    let mut columns: Vec<usize> = sources.iter().filter_map(Source::index).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// The name of a file in messages: a folder name that is a user id is blotted out.
fn label(name: String, sources: &[Source], dataset: Dataset) -> String {
    let user = dataset.columns().iter().position(|contract| contract.name == USER_ID);
    let Some(Source::Partition { name: folder, .. }) = user.and_then(|user| sources.get(user)) else {
        return name;
    };
    let blotted = name.split('/').map(|part| match part.split_once('=') {
        Some((key, _)) if key.eq_ignore_ascii_case(folder) => format!("{key}=*"),
        _ => part.to_string(),
    });
    blotted.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_in_a_folder_name_is_not_shown() {
        let mut sources = vec![Source::Absent; 5];
        let name = "s3://lake/e/user_id=U-77/p.parquet";
        assert_eq!(label(name.to_string(), &sources, Dataset::Interactions), name);
        sources[0] = Source::Partition { name: "user_id".into(), value: Some("U-77".into()) };
        assert_eq!(label(name.to_string(), &sources, Dataset::Interactions), "s3://lake/e/user_id=*/p.parquet");
    }
}
