//! The refresh job: new user states for a version that was trained, as the next version.

mod fold;
mod in_parts;
mod run;
mod task;
mod task_rows;
mod task_work;

use std::sync::Arc;
use std::time::Duration;

use item_affinity_ingest::{ColumnMapping, DataReport, DatasetSchema, TimestampUnit};
use item_affinity_storage::{JobName, Stores};
use tokio_util::sync::CancellationToken;

use crate::dataset::Dataset;
use crate::model_card::ModelCard;
use crate::next_version::{Job, PhaseSeconds};
use crate::observer::Observer;
use crate::reference::SolutionRef;

pub(crate) use fold::Refreshed;
pub use task::{RefreshStage, RefreshTask, RefreshTasks, TaskFailure};
pub use task_rows::{GatheredPairs, GatheredUsers, Sums};
pub use task_work::RefreshWork;

/// Brings newer interactions, and new users, into a solution without a training.
///
/// Every user gets a state from the whole history up to the newest interaction, which is what `as_of` becomes. Items,
/// their factors and the coefficients stay as they were trained, and so do recipe, horizon and the rules by which events
/// count. Interactions with other items are left out; a training takes them in.
///
/// The interactions are the whole history, as for a training, not only what is new since then: a user without
/// interactions in them is not in the new version.
///
/// Who comes first is as of now; how probable it is was learnt from the window of the training. When demand has changed
/// since then, a training brings the probabilities back to its level.
///
/// Running it again over the same data does nothing, and says so in the report. A refresh of a refreshed version is one
/// of the version that was trained, with the same result.
///
/// ```no_run
/// # async fn example() -> item_affinity_solution::Result<()> {
/// use item_affinity_solution::RefreshJob;
///
/// let report = RefreshJob::new("s3://lake/affinity").interactions("s3://lake/interactions/").run().await?;
/// println!("version {} of {} users", report.version, report.model.users);
/// if let Some(changes) = report.changes {
///     println!("{} of them are new, {} are gone", changes.new_users, changes.gone_users);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a job does nothing until it is run"]
pub struct RefreshJob {
    solution: String,
    job: Job,
    /// Locations of Users, read where the version uses attributes of them.
    users: Vec<String>,
    /// Who folds the users in, part by part; none: this process, all at once.
    tasks: Option<Arc<dyn RefreshTasks>>,
}

/// What a refresh did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefreshReport {
    /// The version that holds the result, with its number.
    pub solution: SolutionRef,
    /// Its number.
    pub version: u64,
    /// Whether the newest version was of the same job, so that nothing was done.
    pub already_done: bool,
    /// What the data is like; `None` when nothing was read because the job was done already, or when tasks read it.
    pub data: Option<DataReport>,
    /// What the version is; `refreshed_from` names the version that was trained.
    pub model: ModelCard,
    /// What is different from the version that was refreshed; `None` when the job was done already.
    pub changes: Option<Changes>,
    /// How long each phase took.
    pub seconds: PhaseSeconds,
}

/// What is different after a refresh, and what it could not take in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The version that was refreshed.
    pub from: u64,
    /// Users that it does not have.
    pub new_users: u64,
    /// Users that only it has.
    pub gone_users: u64,
    /// Interactions with items that it does not know.
    pub left_out_interactions: u64,
    /// Those items.
    pub left_out_items: u64,
    /// Users who have interactions with such items only, and so no state.
    pub left_out_users: u64,
}

impl Changes {
    /// The counts by the names that they have in a commit.
    pub(crate) fn counts(&self) -> [(String, u64); 5] {
        [
            ("new_users", self.new_users),
            ("gone_users", self.gone_users),
            ("left_out_interactions", self.left_out_interactions),
            ("left_out_items", self.left_out_items),
            ("left_out_users", self.left_out_users),
        ]
        .map(|(name, count)| (name.to_owned(), count))
    }
}

impl RefreshJob {
    /// A refresh of a solution: of its newest version, or of the one that `location@7` names.
    pub fn new(solution: impl Into<String>) -> Self {
        Self { solution: solution.into(), job: Job::of(Dataset::default()), users: Vec::new(), tasks: None }
    }

    /// Adds the interactions of a file, a folder or a glob; all together they are the whole history.
    pub fn interactions(mut self, location: impl Into<String>) -> Self {
        self.job.dataset.interactions.push(location.into());
        self
    }

    /// Adds the users of a location; needed for a version that uses attributes of users, of which it reads those columns.
    pub fn users(mut self, location: impl Into<String>) -> Self {
        self.users.push(location.into());
        self
    }

    /// Has the users folded in part by part by tasks, such as those of a cluster, and not in this process, which then
    /// holds their ids and none of their interactions.
    ///
    /// The result is that of one process: the same users, factors and weights bit for bit, and log-odds to within 1e-6,
    /// because sums over all users are not added up in their order. Versions that use attributes of users are refused.
    pub fn tasks(mut self, tasks: Option<Arc<dyn RefreshTasks>>) -> Self {
        self.tasks = tasks;
        self
    }

    /// Says that the users are CSV of this schema.
    pub fn users_schema(mut self, schema: Option<Arc<DatasetSchema>>) -> Self {
        self.job.dataset.schemas.users = schema;
        self
    }

    /// Says that the interactions are CSV of this schema.
    pub fn interactions_schema(mut self, schema: Option<Arc<DatasetSchema>>) -> Self {
        self.job.dataset.schemas.interactions = schema;
        self
    }

    /// Says which columns go by other names; the version does not keep that.
    pub fn columns(mut self, columns: ColumnMapping) -> Self {
        self.job.dataset.columns = columns;
        self
    }

    /// Sets the unit of integer times, when it is not to be detected.
    pub fn timestamp_unit(mut self, unit: Option<TimestampUnit>) -> Self {
        self.job.dataset.timestamp_unit = unit;
        self
    }

    /// Sets the share of rows that may be unusable before the job stops.
    pub fn max_bad_row_share(mut self, share: Option<f64>) -> Self {
        self.job.dataset.max_bad_row_share = share;
        self
    }

    /// Turns refusals of too little data into warnings.
    pub fn allow_small_data(mut self, allow: bool) -> Self {
        self.job.allow_small_data = allow;
        self
    }

    /// Sets the object stores; without them they come from the environment.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.job.stores = Some(stores);
        self
    }

    /// Makes a new version even when the newest one was made by the same job.
    pub fn force(mut self, force: bool) -> Self {
        self.job.force = force;
        self
    }

    /// Sets who watches.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.job.observer = observer;
        self
    }

    /// Sets the token that stops the job: between two steps, and between two files.
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

    /// Sets the threads of the computation; `None` is one per core. The result does not depend on it.
    pub fn threads(mut self, threads: Option<usize>) -> Self {
        self.job.threads = threads;
        self
    }
}
