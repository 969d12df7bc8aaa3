//! The evaluation job: how well segments predict what users did next, beside baselines.

use std::sync::Arc;

use item_affinity_ingest::{DataReport, Ingested};
use item_affinity_model::{
    ItemAffinity, Iteration, PersonalizeEvaluation, TimeEvaluation, TimeProtocol, evaluate_personalize, evaluate_time,
};
use item_affinity_storage::{Stores, Tombstones};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::compute::{blocking, pool};
use crate::dataset::{Data, Dataset, ReadLimits};
use crate::error::{Error, Result};
use crate::fit::Watch;
use crate::observer::{Observer, Silent, Stage};

/// How the data are split into what is known and what is to be foreseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// The newest tenth of the events is foreseen from the rest, as in use: nobody knows what comes later.
    #[default]
    Time,
    /// As Amazon Personalize does: of each user's interactions the newest fifth is foreseen.
    Personalize,
}

/// Measures a recipe on held-out interactions, by [`Protocol::Time`] unless others are asked for.
///
/// Nothing is written; [`EvaluationReport::write`] does.
///
/// ```no_run
/// # async fn example() -> item_affinity_solution::Result<()> {
/// use item_affinity_solution::EvaluationJob;
///
/// let report = EvaluationJob::new("s3://lake/interactions/").hidden_dimension(64).run().await?;
/// for ranker in report.time.iter().flat_map(|time| &time.all_pairs.rankers) {
///     println!("{}: precision {:.3}", ranker.ranker, ranker.precision);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a job does nothing until it is run"]
pub struct EvaluationJob {
    dataset: Dataset,
    recipe: ItemAffinity,
    protocols: Vec<Protocol>,
    time: TimeProtocol,
    stores: Option<Stores>,
    allow_small_data: bool,
    observer: Arc<dyn Observer>,
    cancellation: CancellationToken,
    threads: Option<usize>,
}

/// What an evaluation found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// The recipe that was measured.
    pub recipe: ItemAffinity,
    /// What the data is like.
    pub data: DataReport,
    /// By the protocol time: the model beside baselines, and how far its probabilities are right.
    pub time: Option<TimeEvaluation>,
    /// By the protocol of Amazon Personalize.
    pub personalize: Option<PersonalizeEvaluation>,
}

impl EvaluationJob {
    /// A job over the interactions of a file, a folder or a glob.
    pub fn new(interactions: impl Into<String>) -> Self {
        Self::of(Dataset::of(interactions))
    }

    /// A job over data that is described elsewhere.
    pub fn of(dataset: Dataset) -> Self {
        Self {
            dataset,
            recipe: ItemAffinity::default(),
            protocols: vec![Protocol::default()],
            time: TimeProtocol::default(),
            stores: None,
            allow_small_data: false,
            observer: Arc::new(Silent),
            cancellation: CancellationToken::new(),
            threads: None,
        }
    }

    /// Sets the recipe with all its settings.
    pub fn recipe(mut self, recipe: ItemAffinity) -> Self {
        self.recipe = recipe;
        self
    }

    /// Sets the number of hidden variables, the one setting that Amazon Personalize has.
    pub fn hidden_dimension(mut self, hidden_dimension: usize) -> Self {
        self.recipe.hidden_dimension = hidden_dimension;
        self
    }

    /// Sets the protocols to measure by.
    pub fn protocols(mut self, protocols: impl IntoIterator<Item = Protocol>) -> Self {
        self.protocols = protocols.into_iter().collect();
        self
    }

    /// Sets which items the protocol time asks for, and how long segments are.
    pub fn time_protocol(mut self, time: TimeProtocol) -> Self {
        self.time = time;
        self
    }

    /// Sets the object stores; without them they come from the environment.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.stores = Some(stores);
        self
    }

    /// Turns refusals of too little data into warnings.
    pub fn allow_small_data(mut self, allow: bool) -> Self {
        self.allow_small_data = allow;
        self
    }

    /// Sets who watches.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the token that stops the job.
    pub fn cancellation(mut self, cancellation: CancellationToken) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Sets the threads of the fit and the ranking; `None` is one per core. The result does not depend on it.
    pub fn threads(mut self, threads: Option<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// Reads, splits, fits and measures.
    ///
    /// # Errors
    /// As [`TrainingJob::run`](crate::TrainingJob::run), without those of writing.
    pub async fn run(self) -> Result<EvaluationReport> {
        self.recipe.validate()?;
        let stores = self.stores.unwrap_or_else(Stores::from_env);
        let limits = ReadLimits { threads: self.threads, memory: None };
        let reading = self.dataset.read(&stores, None, limits, Tombstones::default(), self.observer.as_ref());
        let read = self.cancellation.run_until_cancelled(reading).await;
        let data = read.ok_or(Error::Cancelled)??;
        data.accept(self.allow_small_data, self.observer.as_ref())?;
        let Data { ingested, report, side, .. } = data;
        let Ingested { interactions, .. } = ingested;

        self.observer.stage(Stage::new("evaluating", "iterations", None));
        // Stops the threads of the fit also when somebody drops this future.
        let stop = self.cancellation.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        let (recipe, observer, threads) = (self.recipe.clone(), Arc::clone(&self.observer), pool(self.threads)?);
        let (protocols, protocol) = (self.protocols, self.time);
        let evaluated = blocking("the evaluation", move || {
            let watch = Watch { observer: observer.as_ref(), cancellation: &stop, memory_limit: None };
            let mut observe = |iteration: Iteration| watch.iteration(&iteration);
            threads.install(|| -> Result<_> {
                let time = match protocols.contains(&Protocol::Time) {
                    true => Some(evaluate_time(&recipe, &protocol, &interactions, side.as_ref(), &mut observe)?),
                    false => None,
                };
                let personalize = match protocols.contains(&Protocol::Personalize) {
                    true => Some(evaluate_personalize(&recipe, &interactions, &mut observe)?),
                    false => None,
                };
                Ok((time, personalize))
            })
        });
        let (time, mut personalize) = evaluated.await??;
        if let Some(items) = &report.item_metadata {
            // Items that nobody has touched yet are in the catalogue too.
            let untouched = usize::try_from(items.without_interactions).unwrap_or(usize::MAX);
            personalize = personalize.map(|of| {
                let catalogue = of.items.saturating_add(untouched);
                of.with_catalogue_items(catalogue)
            });
        }
        Ok(EvaluationReport { time, personalize, recipe: self.recipe, data: report })
    }
}
