//! The training job: interactions in, a committed solution version out.

mod run;

use std::sync::Arc;
use std::time::Duration;

use item_affinity_ingest::{AttributeSelection, ColumnMapping, DataReport};
use item_affinity_model::{ItemAffinity, TimeProtocol};
use item_affinity_storage::{JobName, Stores};
use tokio_util::sync::CancellationToken;

use crate::dataset::Dataset;
use crate::model_card::ModelCard;
use crate::next_version::{Job, PhaseSeconds};
use crate::observer::Observer;
use crate::reference::SolutionRef;

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
    job: Job,
    recipe: ItemAffinity,
    solution: Option<String>,
    evaluate: Option<TimeProtocol>,
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

impl TrainingJob {
    /// A job over the interactions of a file, a folder or a glob.
    pub fn new(interactions: impl Into<String>) -> Self {
        Self::of(Dataset::of(interactions))
    }

    /// A job over data that is described elsewhere.
    pub fn of(dataset: Dataset) -> Self {
        Self { job: Job::of(dataset), recipe: ItemAffinity::default(), solution: None, evaluate: None }
    }

    /// Adds the interactions of another location.
    pub fn interactions(mut self, location: impl Into<String>) -> Self {
        self.job.dataset.interactions.push(location.into());
        self
    }

    /// Adds the items of a location; their attributes are used if they help.
    pub fn items(mut self, location: impl Into<String>) -> Self {
        self.job.dataset.items.push(location.into());
        self
    }

    /// Adds the users of a location; their attributes are used if they help.
    pub fn users(mut self, location: impl Into<String>) -> Self {
        self.job.dataset.users.push(location.into());
        self
    }

    /// Says which columns go by other names.
    pub fn columns(mut self, columns: ColumnMapping) -> Self {
        self.job.dataset.columns = columns;
        self
    }

    /// Trains only on these event types.
    pub fn event_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.job.dataset.event_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Trains only on interactions with at least this EVENT_VALUE.
    pub fn event_value_threshold(mut self, threshold: Option<f64>) -> Self {
        self.job.dataset.event_value_threshold = threshold;
        self
    }

    /// Weighs interactions by their event type; a type that is not named weighs 1.
    pub fn event_weights<T: Into<String>>(mut self, weights: impl IntoIterator<Item = (T, f32)>) -> Self {
        self.job.dataset.event_weights = weights.into_iter().map(|(name, weight)| (name.into(), weight)).collect();
        self
    }

    /// Sets the share of rows that may be unusable before the job stops.
    pub fn max_bad_row_share(mut self, share: f64) -> Self {
        self.job.dataset.max_bad_row_share = Some(share);
        self
    }

    /// Turns refusals of too little data into warnings.
    pub fn allow_small_data(mut self, allow: bool) -> Self {
        self.job.allow_small_data = allow;
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
        self.job.stores = Some(stores);
        self
    }

    /// Trains even when the newest version was made by the same job.
    pub fn force(mut self, force: bool) -> Self {
        self.job.force = force;
        self
    }

    /// Selects the columns of Items and Users that are attributes.
    pub fn attributes(mut self, selection: AttributeSelection) -> Self {
        self.job.dataset.attributes = selection;
        self
    }

    /// Measures the recipe by this protocol first, at the cost of another training, and keeps the figures in the model
    /// card.
    pub fn evaluate(mut self, protocol: Option<TimeProtocol>) -> Self {
        self.evaluate = protocol;
        self
    }

    /// Sets who watches.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.job.observer = observer;
        self
    }

    /// Sets the token that stops the job: between two half-steps of the fit, and between two files.
    pub fn cancellation(mut self, cancellation: CancellationToken) -> Self {
        self.job.cancellation = cancellation;
        self
    }

    /// Sets how long to wait while another job is at work at the same location: ten minutes unless said.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.job.lock_timeout = timeout;
        self
    }

    /// Whether files on local disk are forced to the disk before the commit, as they are unless said; a commit without
    /// that says so.
    pub fn durable(mut self, durable: bool) -> Self {
        self.job.durable = durable;
        self
    }

    /// Sets the bytes of memory that the job may take: it ends with the kind `Limit` before a step that takes more.
    pub fn memory_limit(mut self, bytes: Option<u64>) -> Self {
        self.job.memory_limit = bytes;
        self
    }

    /// Names the job in its commit, for people.
    pub fn job_name(mut self, name: Option<JobName>) -> Self {
        self.job.job_name = name;
        self
    }

    /// Sets the threads of the fit; `None` is one per core. The result does not depend on it.
    pub fn threads(mut self, threads: Option<usize>) -> Self {
        self.job.threads = threads;
        self
    }
}
