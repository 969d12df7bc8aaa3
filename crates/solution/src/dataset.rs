//! The data of a job: which files, which columns, which events.

use std::sync::Arc;

use item_affinity_ingest::{
    AlignedAttributes, AttributeSelection, ColumnMapping, DataReport, Dataset as MetadataOf, DatasetSchema, Ingested,
    InteractionsSource, Level, Metadata, MetadataSource, ReadProgress, TimestampUnit, read_interactions,
    read_metadata_from,
};
use item_affinity_model::{AttributeColumn, Attributes, ItemAffinity, SideInformation, Vocabulary};
use item_affinity_storage::{FileKind, InputFile, Location, Stores, Tombstones, list_files};

use crate::compute::blocking;
use crate::error::{Error, Result};
use crate::job_key::{JobKey, Parent, pins};
use crate::model_card::EventFilter;
use crate::observer::{Observer, Stage};
use crate::tables::FORMAT_VERSION;

/// The data of a job, as a person names it: locations are texts that are read when the job runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// Files, folders or globs of Interactions.
    pub interactions: Vec<String>,
    /// Files, folders or globs of Items; their attributes are used if they help.
    pub items: Vec<String>,
    /// Files, folders or globs of Users; their attributes are used if they help.
    pub users: Vec<String>,
    /// Schemas of data sets that are CSV, as Amazon Personalize has them.
    pub schemas: DatasetSchemas,
    /// Columns that go by other names.
    pub columns: ColumnMapping,
    /// Event types that count; empty for all.
    pub event_types: Vec<String>,
    /// The least EVENT_VALUE that counts.
    pub event_value_threshold: Option<f64>,
    /// What an event counts by its type; a type that is not named counts 1.
    pub event_weights: Vec<(String, f32)>,
    /// Whether EVENT_VALUE is a weight, not only a threshold.
    pub value_as_weight: bool,
    /// The unit of integer times, when it is not to be detected.
    pub timestamp_unit: Option<TimestampUnit>,
    /// The share of rows that may be rejected for any reason; without it the limits are those of ingest.
    pub max_bad_row_share: Option<f64>,
    /// The columns of Items and Users that are attributes; a name counts for the data set that has it.
    pub attributes: AttributeSelection,
}

/// The schemas of data sets in CSV; a data set without one is Parquet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatasetSchemas {
    /// That of Interactions.
    pub interactions: Option<Arc<DatasetSchema>>,
    /// That of Items.
    pub items: Option<Arc<DatasetSchema>>,
    /// That of Users.
    pub users: Option<Arc<DatasetSchema>>,
}

impl DatasetSchemas {
    fn all(&self) -> Vec<String> {
        [&self.interactions, &self.items, &self.users].into_iter().flatten().map(ToString::to_string).collect()
    }
}

/// How much of the machine a read may use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadLimits {
    /// Readers side by side; none: one a core.
    pub(crate) threads: Option<usize>,
    /// Bytes of memory; none: no limit.
    pub(crate) memory: Option<u64>,
}

/// The objects that were found for a job, before anything is read.
pub(crate) struct Pinned {
    pub(crate) interactions: Vec<InputFile>,
    pub(crate) items: Vec<InputFile>,
    pub(crate) users: Vec<InputFile>,
}

/// What was read, and what the report says about it.
pub(crate) struct Data {
    pub(crate) ingested: Ingested,
    pub(crate) report: DataReport,
    /// The attributes of the items and users that have interactions.
    pub(crate) side: Option<SideInformation>,
    /// What is odd about attributes.
    attribute_warnings: Vec<String>,
}

impl Data {
    /// Refuses data that is too little, unless that is allowed; what is odd but does not stop the job is said.
    pub(crate) fn accept(&self, allow_small_data: bool, observer: &dyn Observer) -> Result<()> {
        self.report.refusal(allow_small_data)?;
        for finding in self.report.findings.iter().filter(|finding| finding.level != Level::Info) {
            observer.warning(&format!("{}: {}", finding.code, finding.message));
        }
        self.attribute_warnings.iter().for_each(|warning| observer.warning(warning));
        Ok(())
    }
}

/// Reads the data of a job and says what it is like, without training on it.
///
/// Too little data is no error here: ask [`DataReport::refusal`].
///
/// # Errors
/// [`Error::Ingest`] for data that cannot be used, [`Error::Storage`] when it cannot be read.
pub async fn data_report(stores: &Stores, dataset: &Dataset, observer: &dyn Observer) -> Result<DataReport> {
    Ok(dataset.read(stores, None, ReadLimits::default(), Tombstones::default(), observer).await?.report)
}

impl Dataset {
    pub(crate) fn of(interactions: impl Into<String>) -> Self {
        Self { interactions: vec![interactions.into()], ..Self::default() }
    }

    /// Refuses a solution whose files the next training would take for interactions.
    pub(crate) fn keep_output_outside(&self, solution: &Location) -> Result<()> {
        for interactions in self.interaction_locations()? {
            let inside = solution.path().prefix_matches(interactions.path());
            if inside && solution.store_url() == interactions.store_url() {
                let (solution, interactions) = (solution.to_string(), interactions.to_string());
                return Err(Error::OutputInInput { solution, interactions });
            }
        }
        Ok(())
    }

    /// The locations of the interactions.
    pub(crate) fn interaction_locations(&self) -> Result<Vec<Location>> {
        locations(&self.interactions)
    }

    /// Lists the objects that would be read now.
    pub(crate) async fn pin(&self, stores: &Stores) -> Result<Pinned> {
        Ok(Pinned {
            interactions: list(stores, &self.interactions, self.schemas.interactions.is_some()).await?,
            items: list(stores, &self.items, self.schemas.items.is_some()).await?,
            users: list(stores, &self.users, self.schemas.users.is_some()).await?,
        })
    }

    /// Reads everything but the rows of the forgotten, and makes the report; attributes of users become these features, or
    /// those that suit them best.
    pub(crate) async fn read(
        &self,
        stores: &Stores,
        user_features: Option<&[AttributeColumn]>,
        limits: ReadLimits,
        forgotten: Tombstones,
        observer: &dyn Observer,
    ) -> Result<Data> {
        observer.stage(Stage::new("reading interactions", "rows", None));
        let progress = |progress: ReadProgress| {
            observer.advance(progress.rows, Some(progress.total_rows).filter(|total| *total > 0));
        };
        let mut source = self.source(limits)?;
        source.forgotten = Arc::new(forgotten);
        let ingested = read_interactions(stores, &source, &progress).await?;
        let [of_items, of_users] = self.selections(stores).await?;
        let items = self.metadata(stores, MetadataOf::Items, &self.items, of_items.as_ref()).await?;
        let users = self.metadata(stores, MetadataOf::Users, &self.users, of_users.as_ref()).await?;
        let report = DataReport::new(&ingested, items.as_ref(), users.as_ref());
        let user_features = user_features.map(<[AttributeColumn]>::to_vec);
        let encode = move || -> Result<Data> {
            let mut attribute_warnings = Vec::new();
            let mut encode = |of: Option<&Metadata>, as_before: Option<&[AttributeColumn]>, ids: &Vocabulary| {
                encode(of, as_before, ids, &mut attribute_warnings)
            };
            let items = encode(items.as_ref(), None, ingested.interactions.items())?;
            let users = encode(users.as_ref(), user_features.as_deref(), ingested.interactions.users())?;
            let side = (items.is_some() || users.is_some()).then_some(SideInformation { items, users });
            Ok(Data { ingested, report, side, attribute_warnings })
        };
        blocking("encoding attributes", encode).await?
    }

    /// The selected columns of Items and of Users; none where no column is selected.
    async fn selections(&self, stores: &Stores) -> Result<[Option<AttributeSelection>; 2]> {
        let all = &self.attributes;
        let named = [("--include-columns", &all.include), ("--exclude-columns", &all.exclude)];
        if let Some((option, _)) = named.into_iter().find(|(_, names)| !names.is_empty())
            && self.items.is_empty()
            && self.users.is_empty()
        {
            return Err(item_affinity_ingest::Error::Option {
                option,
                what: "there are neither Items nor Users whose columns it could choose from".to_owned(),
                cure: "add --items or --users, or leave it out".to_owned(),
            }
            .into());
        }
        if *all == AttributeSelection::default() || self.items.is_empty() || self.users.is_empty() {
            return Ok([Some(all.clone()), Some(all.clone())]);
        }
        let items = self.metadata(stores, MetadataOf::Items, &self.items, None).await?;
        let users = self.metadata(stores, MetadataOf::Users, &self.users, None).await?;
        let has = |of: &Option<Metadata>, name: &str| {
            let mut columns = of.iter().flat_map(|of| &of.columns);
            columns.any(|column| column.name.trim().to_lowercase() == name.trim().to_lowercase())
        };
        // A name that neither has goes to both, where it is refused.
        let part = |own: &Option<Metadata>, other: &Option<Metadata>| {
            let mine = |names: &[String]| -> Vec<String> {
                names.iter().filter(|name| has(own, name) || !has(other, name)).cloned().collect()
            };
            let selection = AttributeSelection { include: mine(&all.include), exclude: mine(&all.exclude) };
            (all.include.is_empty() || !selection.include.is_empty()).then_some(selection)
        };
        Ok([part(&items, &users), part(&users, &items)])
    }

    /// The interactions, and the rules by which they count.
    pub(crate) fn source(&self, limits: ReadLimits) -> Result<InteractionsSource> {
        let mut source = InteractionsSource::new(self.interaction_locations()?);
        if let Some(share) = self.max_bad_row_share {
            source = source.max_bad_rows(share);
        }
        source.schema.clone_from(&self.schemas.interactions);
        source.columns = self.columns.clone();
        source.event_types = self.event_types.clone();
        source.event_value_threshold = self.event_value_threshold;
        source.event_weights = self.event_weights.clone();
        source.value_as_weight = self.value_as_weight;
        source.timestamp_unit = self.timestamp_unit;
        source.threads = limits.threads;
        source.memory_limit = limits.memory;
        Ok(source)
    }

    /// The rules by which interactions count, in one order whatever order they were given in.
    pub(crate) fn events(&self) -> EventFilter {
        let mut event_types = self.event_types.clone();
        event_types.sort_unstable();
        event_types.dedup();
        EventFilter {
            event_types,
            event_value_threshold: self.event_value_threshold,
            event_weights: self.event_weights.iter().cloned().collect(),
            value_as_weight: self.value_as_weight,
        }
    }

    async fn metadata(
        &self,
        stores: &Stores,
        of: MetadataOf,
        texts: &[String],
        selection: Option<&AttributeSelection>,
    ) -> Result<Option<Metadata>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let locations = locations(texts)?;
        let schema = if of == MetadataOf::Items { &self.schemas.items } else { &self.schemas.users };
        let source =
            MetadataSource { locations: &locations, columns: &self.columns, schema: schema.as_ref(), selection };
        Ok(Some(read_metadata_from(stores, of, &source).await?))
    }

    /// Takes the rules by which interactions count from a version.
    pub(crate) fn take_events(&mut self, of: &EventFilter) {
        self.event_types.clone_from(&of.event_types);
        self.event_value_threshold = of.event_value_threshold;
        self.event_weights = of.event_weights.iter().map(|(name, weight)| (name.clone(), *weight)).collect();
        self.value_as_weight = of.value_as_weight;
    }

    /// The key of a training on these objects, or of a refresh of a version that was trained.
    pub(crate) fn job_key(&self, pinned: &Pinned, recipe: &ItemAffinity, parent: Option<Parent>) -> Result<String> {
        JobKey {
            format_version: FORMAT_VERSION,
            interactions: pins(&pinned.interactions),
            items: pins(&pinned.items),
            users: pins(&pinned.users),
            columns: self.columns.iter().collect(),
            schemas: self.schemas.all(),
            events: self.events(),
            timestamp_unit: self.timestamp_unit,
            attributes: [&self.attributes.include, &self.attributes.exclude].map(|names| in_one_order(names)),
            parent,
            recipe,
        }
        .sha256()
    }
}

/// Names in one order, without regard to case.
fn in_one_order(names: &[String]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| name.trim().to_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The attributes of the ids that interact; what is odd about them is added to the warnings.
fn encode(
    of: Option<&Metadata>,
    as_before: Option<&[AttributeColumn]>,
    ids: &Vocabulary,
    warnings: &mut Vec<String>,
) -> Result<Option<Attributes>> {
    let Some(metadata) = of else { return Ok(None) };
    let aligned = match as_before {
        Some(columns) => metadata.attributes_as(columns, ids)?,
        None => metadata.attributes_for(ids)?,
    };
    let Some(aligned) = aligned else { return Ok(None) };
    let AlignedAttributes { attributes, warnings: odd, .. } = aligned;
    warnings.extend(odd.iter().map(|warning| format!("{}: {}", warning.code, warning.message)));
    Ok((attributes.matrix().nnz() > 0).then_some(attributes))
}

fn locations(texts: &[String]) -> Result<Vec<Location>> {
    texts.iter().map(|text| Ok(Location::parse(text)?)).collect()
}

async fn list(stores: &Stores, texts: &[String], is_csv: bool) -> Result<Vec<InputFile>> {
    let kind = if is_csv { FileKind::CSV } else { FileKind::PARQUET };
    let mut files = Vec::new();
    for location in locations(texts)? {
        files.extend(list_files(stores, &location, kind).await?.files);
    }
    Ok(files)
}
