//! The data of a job: which files, which columns, which events.

use item_affinity_ingest::{
    ColumnMapping, DataReport, Dataset, Ingested, InteractionsSource, Metadata, ReadProgress, read_interactions,
    read_metadata,
};
use item_affinity_model::ItemAffinity;
use item_affinity_storage::{InputFile, Location, Stores, list_parquet};

use crate::error::{Error, Result};
use crate::job_key::{JobKey, pins};
use crate::model_card::EventFilter;
use crate::observer::{Observer, Stage};
use crate::tables::FORMAT_VERSION;

/// What the builders of jobs gather; locations are still text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) interactions: Vec<String>,
    pub(crate) items: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) columns: ColumnMapping,
    pub(crate) events: EventFilter,
    pub(crate) max_bad_row_share: Option<f64>,
    pub(crate) allow_small_data: bool,
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
}

impl Source {
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
            interactions: list(stores, &self.interactions).await?,
            items: list(stores, &self.items).await?,
            users: list(stores, &self.users).await?,
        })
    }

    /// Reads everything and makes the report; too little data is an error unless it is allowed.
    pub(crate) async fn read(&self, stores: &Stores, observer: &dyn Observer) -> Result<Data> {
        observer.stage(Stage::new("reading interactions", "rows", None));
        let progress = |progress: ReadProgress| observer.advance(progress.rows, Some(progress.total_rows));
        let ingested = read_interactions(stores, &self.interactions_source()?, &progress).await?;
        let items = self.metadata(stores, Dataset::Items, &self.items).await?;
        let users = self.metadata(stores, Dataset::Users, &self.users).await?;
        let report = DataReport::new(&ingested, items.as_ref(), users.as_ref());
        for warning in &ingested.warnings {
            observer.warning(&warning.to_string());
        }
        report.refusal(self.allow_small_data)?;
        Ok(Data { ingested, report })
    }

    fn interactions_source(&self) -> Result<InteractionsSource> {
        let mut source = InteractionsSource::new(self.interaction_locations()?);
        source.columns = self.columns.clone();
        source.event_types = self.events.event_types.clone();
        source.event_value_threshold = self.events.event_value_threshold;
        source.event_weights = self.events.event_weights.iter().map(|(name, weight)| (name.clone(), *weight)).collect();
        Ok(source)
    }

    async fn metadata(&self, stores: &Stores, dataset: Dataset, texts: &[String]) -> Result<Option<Metadata>> {
        if texts.is_empty() {
            return Ok(None);
        }
        Ok(Some(read_metadata(stores, dataset, &locations(texts)?, &self.columns).await?))
    }

    /// The key of a training on these objects.
    pub(crate) fn job_key(&self, pinned: &Pinned, recipe: &ItemAffinity) -> Result<String> {
        JobKey {
            format_version: FORMAT_VERSION,
            interactions: pins(&pinned.interactions),
            items: pins(&pinned.items),
            users: pins(&pinned.users),
            columns: self.columns.iter().collect(),
            events: &self.events,
            recipe,
        }
        .sha256()
    }
}

fn locations(texts: &[String]) -> Result<Vec<Location>> {
    texts.iter().map(|text| Ok(Location::parse(text)?)).collect()
}

async fn list(stores: &Stores, texts: &[String]) -> Result<Vec<InputFile>> {
    let mut files = Vec::new();
    for location in locations(texts)? {
        files.extend(list_parquet(stores, &location).await?.files);
    }
    Ok(files)
}
