//! The training job: interactions in, a committed solution version out.

use std::sync::Arc;
use std::time::Instant;

use item_affinity_ingest::{ColumnMapping, DataReport, Ingested};
use item_affinity_model::ItemAffinity;
use item_affinity_storage::{Artifact, CommitBody, ErrorKind, Location, Run, Stores, Versions};
use tokio_util::sync::CancellationToken;

use crate::compute::{blocking, pool};
use crate::dataset::{Data, Dataset, Pinned};
use crate::error::{Error, Result};
use crate::files::VersionReader;
use crate::fit::{Watch, train};
use crate::history::commit_body;
use crate::model_card::ModelCard;
use crate::observer::{Observer, Silent, Stage};
use crate::reference::SolutionRef;
use crate::write::write;

/// Trains a solution version: reads Interactions, fits the factors, and commits them as the next version.
///
/// Running it again over the same data with the same settings does nothing, and says so in the report.
///
/// ```no_run
/// # async fn example() -> item_affinity_solution::Result<()> {
/// use item_affinity_solution::TrainingJob;
///
/// let report = TrainingJob::new("s3://lake/interactions/")
///     .event_types(["purchase"])
///     .solution("s3://lake/affinity/")
///     .run()
///     .await?;
/// println!("version {} of {} users", report.version, report.model.users);
/// # Ok(())
/// # }
/// ```
#[must_use = "a job does nothing until it is run"]
pub struct TrainingJob {
    dataset: Dataset,
    allow_small_data: bool,
    recipe: ItemAffinity,
    solution: Option<String>,
    stores: Option<Stores>,
    force: bool,
    observer: Arc<dyn Observer>,
    cancellation: CancellationToken,
    threads: Option<usize>,
}

/// What a training did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainingReport {
    /// The version that holds the result, with its number.
    pub solution: SolutionRef,
    /// Its number.
    pub version: u64,
    /// Whether the newest version was of the same job, so that nothing was done.
    pub already_done: bool,
    /// What the data is like; `None` when nothing was read because the job was done already.
    pub data: Option<DataReport>,
    /// What was trained.
    pub model: ModelCard,
    /// How long each phase took.
    pub seconds: PhaseSeconds,
}

/// Wall-clock seconds of the phases of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PhaseSeconds {
    /// Reading the data and judging it.
    pub read: f64,
    /// Fitting the factors.
    pub fit: f64,
    /// Writing the files and committing them.
    pub write: f64,
}

impl TrainingJob {
    /// A job over the interactions of a file, a folder or a glob.
    pub fn new(interactions: impl Into<String>) -> Self {
        Self::of(Dataset::of(interactions))
    }

    /// A job over data that is described elsewhere.
    pub fn of(dataset: Dataset) -> Self {
        Self {
            dataset,
            allow_small_data: false,
            recipe: ItemAffinity::default(),
            solution: None,
            stores: None,
            force: false,
            observer: Arc::new(Silent),
            cancellation: CancellationToken::new(),
            threads: None,
        }
    }

    /// Adds the interactions of another location.
    pub fn interactions(mut self, location: impl Into<String>) -> Self {
        self.dataset.interactions.push(location.into());
        self
    }

    /// Adds the items of a location; they are reported on, and not yet trained on.
    pub fn items(mut self, location: impl Into<String>) -> Self {
        self.dataset.items.push(location.into());
        self
    }

    /// Adds the users of a location; they are reported on, and not yet trained on.
    pub fn users(mut self, location: impl Into<String>) -> Self {
        self.dataset.users.push(location.into());
        self
    }

    /// Says which columns go by other names.
    pub fn columns(mut self, columns: ColumnMapping) -> Self {
        self.dataset.columns = columns;
        self
    }

    /// Trains only on these event types.
    pub fn event_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.dataset.event_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Trains only on interactions with at least this EVENT_VALUE.
    pub fn event_value_threshold(mut self, threshold: Option<f64>) -> Self {
        self.dataset.event_value_threshold = threshold;
        self
    }

    /// Weighs interactions by their event type; a type that is not named weighs 1.
    pub fn event_weights<T: Into<String>>(mut self, weights: impl IntoIterator<Item = (T, f32)>) -> Self {
        self.dataset.event_weights = weights.into_iter().map(|(name, weight)| (name.into(), weight)).collect();
        self
    }

    /// Sets the share of rows that may be unusable before the job stops.
    pub fn max_bad_row_share(mut self, share: f64) -> Self {
        self.dataset.max_bad_row_share = Some(share);
        self
    }

    /// Turns refusals of too little data into warnings.
    pub fn allow_small_data(mut self, allow: bool) -> Self {
        self.allow_small_data = allow;
        self
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

    /// Sets the folder that gets the version.
    pub fn solution(mut self, location: impl Into<String>) -> Self {
        self.solution = Some(location.into());
        self
    }

    /// Sets the object stores; without them they come from the environment.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.stores = Some(stores);
        self
    }

    /// Trains even when the newest version was made by the same job.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets who watches.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the token that stops the job: between two half-steps of the fit, and between two files.
    pub fn cancellation(mut self, cancellation: CancellationToken) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Sets the threads of the fit; `None` is one per core. The result does not depend on it.
    pub fn threads(mut self, threads: Option<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// Trains and commits.
    ///
    /// Nothing is visible before the commit. On an error or a cancellation nothing is committed and the files of the
    /// run are removed as far as possible; when the future is dropped, the fit stops and the files are left to garbage
    /// collection.
    ///
    /// # Errors
    /// [`Error::Model`] for a recipe out of range; [`Error::NoSolutionLocation`], [`Error::OutputInInput`];
    /// [`Error::Ingest`] for data that cannot be used or is too little; [`Error::Storage`] for anything about locations,
    /// reading and writing; [`Error::NotFinite`]; [`Error::Cancelled`].
    ///
    /// # Cost
    /// Said to the observer before the fit begins.
    pub async fn run(self) -> Result<TrainingReport> {
        self.recipe.validate()?;
        let solution = self.solution.as_deref().ok_or(Error::NoSolutionLocation)?;
        let solution = Location::parse(solution)?;
        self.dataset.keep_output_outside(&solution)?;
        let stores = self.stores.clone().unwrap_or_else(Stores::from_env);
        let versions = Versions::new(&stores, solution.clone(), Artifact::SolutionVersion)?;

        let pinned = self.or_cancelled(self.dataset.pin(&stores)).await?;
        if !self.force
            && let Some(report) = self.already_done(&stores, &versions, &pinned).await?
        {
            return Ok(report);
        }
        let run = versions.begin().await?;
        match self.train_into(&run, &stores, pinned).await {
            Ok(done) => self.commit(run, solution, done).await,
            Err(error) => {
                run.abandon().await;
                Err(error)
            }
        }
    }
}

/// A training whose files are all written.
struct Done {
    /// What the job was in the end: made from the objects that were really read.
    body: CommitBody,
    data: DataReport,
    model: ModelCard,
    seconds: PhaseSeconds,
}

impl TrainingJob {
    /// The report of the newest version when the same job made it and all of its files are there.
    async fn already_done(
        &self,
        stores: &Stores,
        versions: &Versions,
        pinned: &Pinned,
    ) -> Result<Option<TrainingReport>> {
        let Some(newest) = versions.latest().await? else { return Ok(None) };
        if newest.body.job_key != self.dataset.job_key(pinned, &self.recipe)? {
            return Ok(None);
        }
        let reader = VersionReader::new(stores, versions.location(), newest)?;
        let model = match reader.whole().await {
            Ok(model) => model,
            // "Train again" is the cure of a damaged version, so it has to train.
            Err(error) if error.kind() == ErrorKind::BadInput => {
                self.observer.warning(&format!("the newest version is of the same job, but damaged: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let version = reader.commit.version;
        self.observer.note(&format!("already done as version {version}"));
        let solution = SolutionRef { location: versions.location().clone(), version: Some(version) };
        let seconds = PhaseSeconds::default();
        Ok(Some(TrainingReport { solution, version, already_done: true, data: None, model, seconds }))
    }

    async fn train_into(&self, run: &Run, stores: &Stores, pinned: Pinned) -> Result<Done> {
        let mut seconds = PhaseSeconds::default();
        // Stops the threads of the fit also when somebody drops this future.
        let stop = self.cancellation.child_token();
        let _stop_on_drop = stop.clone().drop_guard();

        let clock = Instant::now();
        let reading = self.dataset.read(stores, self.threads, self.observer.as_ref());
        let Data { ingested, report } = self.or_cancelled(reading).await?;
        report.refusal(self.allow_small_data)?;
        let Ingested { interactions, inputs, counts, .. } = ingested;
        seconds.read = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let (recipe, events, observer) = (self.recipe.clone(), self.dataset.events(), Arc::clone(&self.observer));
        let (threads, token) = (pool(self.threads)?, stop.clone());
        let fitted = blocking("the fit", move || {
            let watch = Watch { observer: observer.as_ref(), cancellation: &token };
            threads.install(|| train(&recipe, events, interactions, &watch))
        });
        let trained = Arc::new(fitted.await??);
        seconds.fit = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let watch = Watch { observer: self.observer.as_ref(), cancellation: &stop };
        write(run, &trained, &watch).await?;
        watch.check()?;
        seconds.write = clock.elapsed().as_secs_f64();
        // What was really read: files may have come between the listing and the reading.
        let pinned = Pinned { interactions: inputs, ..pinned };
        let job_key = self.dataset.job_key(&pinned, &self.recipe)?;
        let body = commit_body(job_key, &pinned, &counts, &trained.card)?;
        Ok(Done { body, data: report, model: trained.card.clone(), seconds })
    }

    async fn commit(&self, run: Run, solution: Location, done: Done) -> Result<TrainingReport> {
        let clock = Instant::now();
        self.observer.stage(Stage::new("committing", "commits", Some(1)));
        let run_id = run.run_id.clone();
        let commit = run.commit(done.body).await?;
        let mut seconds = done.seconds;
        seconds.write += clock.elapsed().as_secs_f64();
        Ok(TrainingReport {
            solution: SolutionRef { location: solution, version: Some(commit.version) },
            version: commit.version,
            // Another run may have committed the same job while this one was at it.
            already_done: commit.run_id != run_id,
            data: Some(done.data),
            model: done.model,
            seconds,
        })
    }

    async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancellation.run_until_cancelled(work).await.unwrap_or(Err(Error::Cancelled))
    }
}
