//! `BatchSegmentJob`: item list in, committed segments out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::context::SessionContext;
use item_affinity_datafusion::{
    DEFAULT_MAX_ITEMS, DEFAULT_NUM_RESULTS, ItemFile, ItemList, NUM_RESULTS_RANGE, REASONS_RANGE, Seen, SessionSettings,
};
use item_affinity_ingest::DatasetSchema;
use item_affinity_solution::{LOCK_TIMEOUT, Observer, Silent, SolutionVersion};
use item_affinity_storage::{Artifact, CommitBody, JobName, Location, Stores, Versions};
use tokio_util::sync::CancellationToken;

use crate::delta_mode::DeltaMode;
use crate::error::{Error, Result};
use crate::filter_expression::FilterExpression;
use crate::json_lines::UsersKey;
use crate::segment_report::SegmentReport;

/// How segments are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Parquet: one row per (item, rank), sorted.
    #[default]
    Parquet,
    /// Amazon Personalize's JSON Lines: `<input file name>.out` for each input file, then `_CHECK`.
    JsonLines {
        /// The shape of a line.
        users_key: UsersKey,
    },
    /// A Delta table at the output, with one commit to its log for each run. Needs the feature `delta`.
    Delta {
        /// What the segments replace there.
        mode: DeltaMode,
    },
}

/// Ranks users for a list of items and commits the segments, or does nothing when that was done before.
///
/// Amazon Personalize calls this a batch segment job. Ours runs where it is called, can be stopped, and running it
/// again is safe.
pub struct BatchSegmentJob {
    pub(crate) solution: Solution,
    /// The input files; a list that came from no file is one called items.json.
    pub(crate) items: Vec<ItemFile>,
    pub(crate) num_results: usize,
    max_items: usize,
    pub(crate) seen: Seen,
    pub(crate) min_score: f32,
    /// Users of a segment at least.
    pub(crate) least_users: u64,
    pub(crate) reasons: Option<usize>,
    pub(crate) users: Option<String>,
    pub(crate) users_schema: Option<Arc<DatasetSchema>>,
    pub(crate) users_filter: Option<String>,
    pub(crate) filter: Option<FilterExpression>,
    output: Option<String>,
    pub(crate) format: OutputFormat,
    pub(crate) force: bool,
    pub(crate) stores: Stores,
    pub(crate) session: Option<SessionContext>,
    pub(crate) settings: SessionSettings,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) cancellation: CancellationToken,
    lock_timeout: Duration,
    durable: bool,
    job_name: Option<JobName>,
    pub(crate) allow_foreign_solution: bool,
}

pub(crate) enum Solution {
    Reference(String),
    Opened(Arc<SolutionVersion>),
}

impl From<&str> for Solution {
    fn from(text: &str) -> Self {
        Self::Reference(text.to_owned())
    }
}

impl BatchSegmentJob {
    /// Ranks with the solution version that a text names: a location, newest version, or `location@7`.
    #[must_use]
    pub fn new(solution_version: &str, items: ItemList) -> Self {
        Self::with(solution_version.into(), vec![of_no_file(items)])
    }

    /// Ranks for the items of several input files, as [`ItemList::read_files`] reads them, in one job: all or nothing.
    #[must_use]
    pub fn of_files(solution_version: &str, files: Vec<ItemFile>) -> Self {
        Self::with(solution_version.into(), files)
    }

    /// Ranks with a solution version that is already open.
    #[must_use]
    pub fn of(version: Arc<SolutionVersion>, items: ItemList) -> Self {
        Self::with(Solution::Opened(version), vec![of_no_file(items)])
    }

    fn with(solution: Solution, items: Vec<ItemFile>) -> Self {
        Self {
            solution,
            items,
            num_results: DEFAULT_NUM_RESULTS,
            max_items: DEFAULT_MAX_ITEMS,
            seen: Seen::Include,
            min_score: 0.0,
            least_users: 0,
            reasons: None,
            users: None,
            users_schema: None,
            users_filter: None,
            filter: None,
            output: None,
            format: OutputFormat::Parquet,
            force: false,
            stores: Stores::from_env(),
            session: None,
            settings: SessionSettings::default(),
            observer: Arc::new(Silent),
            cancellation: CancellationToken::new(),
            lock_timeout: LOCK_TIMEOUT,
            durable: true,
            job_name: None,
            allow_foreign_solution: false,
        }
    }

    /// Users per item: 25 unless said, 1 to 5,000,000.
    #[must_use]
    pub fn num_results(mut self, users: usize) -> Self {
        self.num_results = users;
        self
    }

    /// Items allowed in one input file: 500 unless said, as at Amazon Personalize.
    #[must_use]
    pub fn max_items(mut self, items: usize) -> Self {
        self.max_items = items;
        self
    }

    /// Whether users who already interacted with an item are in its segment: they are, unless said.
    #[must_use]
    pub fn seen(mut self, seen: Seen) -> Self {
        self.seen = seen;
        self
    }

    /// Leaves out users whose probability is lower: 0 unless said, at most 1.
    #[must_use]
    pub fn min_score(mut self, score: f32) -> Self {
        self.min_score = score;
        self
    }

    /// Writes no segment of fewer users: its items get the record `SUPPRESSED_MIN_K`, in which no number of users stands.
    ///
    /// Small segments tell of single people. It is a floor in the style of k-anonymity, not anonymity; 0 and 1 keep
    /// nothing back.
    #[must_use]
    pub fn min_segment_users(mut self, users: u64) -> Self {
        self.least_users = users;
        self
    }

    /// Writes the reasons of each user as well: so many past items, 1 to 1,000, with their share of the affinity.
    ///
    /// The segments are the same; `data/run=<run_id>/_reasons/part-00000.parquet` of the same commit holds `item_id, rank,
    /// user_id, reason_rank, because_item_id, share`. Only shares above 0 are reasons, so a user may have none.
    #[must_use]
    pub fn reasons(mut self, reasons: Option<usize>) -> Self {
        self.reasons = reasons;
        self
    }

    /// Only the users of this Parquet data set may be in a segment: a file, a folder or a glob with a column user_id.
    ///
    /// They are taken before the best are, so that `num_results` of them remain where there are so many. A user who comes
    /// twice counts once, NULL is nobody, and users whom the solution version does not know are counted in the report.
    #[must_use]
    pub fn users(mut self, location: &str) -> Self {
        self.users = Some(location.to_owned());
        self
    }

    /// Says that [`BatchSegmentJob::users`] is CSV of this schema of Amazon Personalize.
    #[must_use]
    pub fn users_schema(mut self, schema: Option<Arc<DatasetSchema>>) -> Self {
        self.users_schema = schema;
        self
    }

    /// Only the users for whom this SQL condition over the columns of [`BatchSegmentJob::users`] holds: `country = 'DE'`.
    #[must_use]
    pub fn users_filter(mut self, condition: &str) -> Self {
        self.users_filter = Some(condition.to_owned());
        self
    }

    /// Only the users of [`BatchSegmentJob::users`] whom this filter of Amazon Personalize keeps: `"EXCLUDE UserID WHERE
    /// Users.COUNTRY IN ($COUNTRY)".parse()?`. Its parameters are filled from the `filterValues` of each line.
    ///
    /// It is the same filter as [`BatchSegmentJob::users_filter`], written otherwise: a user without a row in the data set
    /// is in no segment, where Amazon Personalize keeps him under EXCLUDE. Conditions over Interactions are refused. Lines
    /// with different values need [`OutputFormat::JsonLines`], since one item may then have several segments.
    #[must_use]
    pub fn filter(mut self, filter: FilterExpression) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Where the segments go: a path or URL, empty or written by such jobs before.
    #[must_use]
    pub fn output(mut self, location: &str) -> Self {
        self.output = Some(location.to_owned());
        self
    }

    /// How they are written.
    #[must_use]
    pub fn format(mut self, format: OutputFormat) -> Self {
        self.format = format;
        self
    }

    /// Writes a new version even when the same job was committed before.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Reaches solution and output through these stores instead of what the environment says.
    #[must_use]
    pub fn stores(mut self, stores: Stores) -> Self {
        self.stores = stores;
        self
    }

    /// Runs in this session instead of one of its own.
    #[must_use]
    pub fn session(mut self, session: SessionContext) -> Self {
        self.session = Some(session);
        self
    }

    /// How much of the machine the job's own session may use.
    #[must_use]
    pub fn settings(mut self, settings: SessionSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Who is told of stages and progress.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Stops the job between batches; nothing is committed then.
    #[must_use]
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// How long to wait while another job is at work at the same output: ten minutes unless said.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Whether files on local disk are forced to the disk before the commit, as they are unless said; a commit without
    /// that says so.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Names the job in its commit, for people.
    #[must_use]
    pub fn job_name(mut self, name: Option<JobName>) -> Self {
        self.job_name = name;
        self
    }

    /// Runs the job.
    ///
    /// # Errors   see [`Error`]; nothing is committed then, and the job can be run again
    pub async fn run(self) -> Result<SegmentReport> {
        self.check()?;
        let output =
            Location::parse(self.output.as_deref().ok_or(Error::Missing("say where the segments go: output"))?)?;
        let (version, users) = self.or_cancelled(self.inputs(&output)).await?;
        let versions = Versions::new(&self.stores, output.clone(), Artifact::Segments)?
            .with_durability(self.durable)
            .with_cancellation(self.cancellation.clone())
            .with_job_name(self.job_name.clone())
            .beside_delta_log(matches!(self.format, OutputFormat::Delta { .. }));
        let job_key = self.job_key(&version, users.as_ref());
        let newest = versions.latest().await?;
        if let Some(done) = self.already_done(&versions, newest.as_ref(), &job_key).await? {
            let delta = self.publish(&versions, &version, &done).await?;
            return Ok(SegmentReport::already_done(&output, &version, &done, delta));
        }
        self.refuse_foreign(&version, newest.as_ref()).await?;
        let run = versions.begin_alone(self.lock_timeout, &|text| self.observer.note(text)).await?;
        let now = versions.latest().await?;
        if now != newest
            && let Some(done) = self.already_done(&versions, now.as_ref(), &job_key).await?
        {
            // The run that this one waited for has done the same.
            run.abandon().await;
            let delta = self.publish(&versions, &version, &done).await?;
            return Ok(SegmentReport::already_done(&output, &version, &done, delta));
        }
        let begun = Instant::now();
        // Cancelled at any await: a store that does not answer an upload would else hold the job.
        match self.or_cancelled(self.write(&version, users.as_ref(), &versions, &run)).await {
            Ok((body, mut report)) => {
                run.note_seconds("rank and write", begun.elapsed().as_secs_f64());
                let commit = run.commit(CommitBody { job_key, ..body }).await?;
                report.delta_version = self.publish(&versions, &version, &commit).await?;
                report.output = output.to_string();
                report.version = commit.version;
                report.files = commit.files.iter().map(|f| f.path.clone()).collect();
                Ok(report)
            }
            Err(error) => {
                run.abandon().await;
                Err(error)
            }
        }
    }

    fn check(&self) -> Result<()> {
        #[cfg(not(feature = "delta"))]
        if matches!(self.format, OutputFormat::Delta { .. }) {
            return Err(crate::segment_publish::NO_DELTA);
        }
        if !NUM_RESULTS_RANGE.contains(&self.num_results) {
            let accepted = format!("in {}..={}", NUM_RESULTS_RANGE.start(), NUM_RESULTS_RANGE.end());
            return Err(Error::OutOfRange { name: "num_results", accepted, value: self.num_results.to_string() });
        }
        if !(0.0..=1.0).contains(&self.min_score) {
            let accepted = "in [0, 1]".to_owned();
            return Err(Error::OutOfRange { name: "min_score", accepted, value: self.min_score.to_string() });
        }
        if let Some(reasons) = self.reasons {
            if !REASONS_RANGE.contains(&reasons) {
                let accepted = format!("in {}..={}", REASONS_RANGE.start(), REASONS_RANGE.end());
                return Err(Error::OutOfRange { name: "reasons", accepted, value: reasons.to_string() });
            }
            if matches!(self.format, OutputFormat::JsonLines { .. }) {
                return Err(Error::Missing(
                    "reasons need --format parquet: Amazon Personalize's JSON Lines have no place for them; leave \
                     --reasons out, or write Parquet",
                ));
            }
        }
        if self.users_filter.is_some() && self.users.is_none() {
            return Err(Error::Missing(
                "--users-filter needs --users, the Parquet data set that it is a condition over",
            ));
        }
        if self.filter.is_some() && (self.users.is_none() || self.users_filter.is_some()) {
            return Err(Error::Missing(
                "--filter needs --users, the Parquet data set that it is a condition over, and stands instead of \
                 --users-filter",
            ));
        }
        if self.items.iter().all(|file| file.list.entries.is_empty()) {
            return Err(Error::Missing("the list of items is empty; name at least one item"));
        }
        if let Some(long) = self.items.iter().find(|file| file.list.entries.len() > self.max_items) {
            let (file, asked) = (long.name.clone(), long.list.entries.len());
            return Err(Error::TooManyItems { file, asked, max_items: self.max_items });
        }
        Ok(())
    }
}

fn of_no_file(list: ItemList) -> ItemFile {
    ItemFile { name: "items.json".to_owned(), list }
}
