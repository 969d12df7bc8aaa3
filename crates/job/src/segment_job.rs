//! `BatchSegmentJob`: item list in, committed segments out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::execution::context::SessionContext;
use futures::StreamExt;
use item_affinity_datafusion::{
    DEFAULT_MAX_ITEMS, DEFAULT_NUM_RESULTS, ItemList, NUM_RESULTS_RANGE, SegmentsRequest, SessionSettings,
    segments_dataframe, session,
};
use item_affinity_solution::{Observer, Silent, SolutionRef, SolutionVersion, Stage};
use item_affinity_storage::{
    Artifact, CommitBody, Location, Run, SolutionPin, Stores, Versions, sha256_hex,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::item_errors::{self, ItemErrorRecord};
use crate::json_lines::{JsonLines, UsersKey};
use crate::parquet_output::ParquetOutput;

/// How segments are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Parquet: one row per (item, rank), sorted.
    #[default]
    Parquet,
    /// Amazon Personalize's JSON Lines: `<input name>.out` and `_CHECK`.
    JsonLines {
        /// File name of the item list; the output is named after it.
        input_name: String,
        /// Name of the list of users in each line.
        users_key: UsersKey,
    },
}

/// Ranks users for a list of items and commits the segments, or does nothing when that was done before.
///
/// Amazon Personalize calls this a batch segment job. Ours runs where it is called, can be stopped, and running it
/// again is safe.
pub struct BatchSegmentJob {
    solution: Solution,
    items: ItemList,
    num_results: usize,
    max_items: usize,
    output: Option<String>,
    format: OutputFormat,
    force: bool,
    stores: Stores,
    session: Option<SessionContext>,
    settings: SessionSettings,
    observer: Arc<dyn Observer>,
    cancellation: CancellationToken,
}

enum Solution {
    Reference(String),
    Opened(Arc<SolutionVersion>),
}

impl From<&str> for Solution {
    fn from(text: &str) -> Self {
        Self::Reference(text.to_owned())
    }
}

/// What a job did.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentReport {
    /// Where the segments are.
    pub output: String,
    /// The committed version of the output.
    pub version: u64,
    /// The solution version that ranked, number included.
    pub solution_version: String,
    /// True when the same job was committed before and nothing was done.
    pub already_done: bool,
    /// Entries of the item list.
    pub asked: u64,
    /// Entries with a segment.
    pub ok: u64,
    /// Entries whose segment has no user.
    pub empty: u64,
    /// Entries with an error record.
    pub error: u64,
    /// Rows written.
    pub rows: u64,
    /// Why entries have no segment; empty when `already_done`, they are in the output then.
    pub item_errors: Vec<ItemErrorRecord>,
    /// What is worth knowing but did not stop the job.
    pub warnings: Vec<String>,
    /// Data files, relative to the output.
    pub files: Vec<String>,
}

impl BatchSegmentJob {
    /// Ranks with the solution version that a text names: a location, newest version, or `location@7`.
    #[must_use]
    pub fn new(solution_version: &str, items: ItemList) -> Self {
        Self::with(solution_version.into(), items)
    }

    /// Ranks with a solution version that is already open.
    #[must_use]
    pub fn of(version: Arc<SolutionVersion>, items: ItemList) -> Self {
        Self::with(Solution::Opened(version), items)
    }

    fn with(solution: Solution, items: ItemList) -> Self {
        Self {
            solution,
            items,
            num_results: DEFAULT_NUM_RESULTS,
            max_items: DEFAULT_MAX_ITEMS,
            output: None,
            format: OutputFormat::Parquet,
            force: false,
            stores: Stores::from_env(),
            session: None,
            settings: SessionSettings::default(),
            observer: Arc::new(Silent),
            cancellation: CancellationToken::new(),
        }
    }

    /// Users per item: 25 unless said, 1 to 5,000,000.
    #[must_use]
    pub fn num_results(mut self, users: usize) -> Self {
        self.num_results = users;
        self
    }

    /// Items allowed in one job: 500 unless said.
    #[must_use]
    pub fn max_items(mut self, items: usize) -> Self {
        self.max_items = items;
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

    /// Runs the job.
    ///
    /// # Errors   see [`Error`]; nothing is committed then, and the job can be run again
    pub async fn run(self) -> Result<SegmentReport> {
        self.check()?;
        let output = Location::parse(self.output.as_deref().ok_or(Error::Missing("say where the segments go: output"))?)?;
        let version = match &self.solution {
            Solution::Opened(version) => Arc::clone(version),
            Solution::Reference(text) => {
                let reference = SolutionRef::parse(text)?;
                Arc::new(SolutionVersion::open(&self.stores, &reference).await?)
            }
        };
        let versions = Versions::new(&self.stores, output.clone(), Artifact::Segments)?;
        let job_key = self.job_key(&version);
        if !self.force
            && let Some(done) = versions.latest().await?
            && done.body.job_key == job_key
        {
            self.observer.note(&format!("already done as version {} of {output}", done.version));
            return Ok(SegmentReport::already_done(&output, &version, &done));
        }
        let mut run = versions.begin().await?;
        match self.write(&version, &mut run).await {
            Ok((body, mut report)) => {
                let commit = run.commit(CommitBody { job_key, ..body }).await?;
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
        if !NUM_RESULTS_RANGE.contains(&self.num_results) {
            let accepted = format!("in {}..={}", NUM_RESULTS_RANGE.start(), NUM_RESULTS_RANGE.end());
            return Err(Error::OutOfRange { name: "num_results", accepted, value: self.num_results.to_string() });
        }
        let asked = self.items.entries.len();
        if asked == 0 {
            return Err(Error::Missing("the list of items is empty; name at least one item"));
        }
        if asked > self.max_items {
            return Err(Error::TooManyItems { asked, max_items: self.max_items });
        }
        Ok(())
    }

    fn item_list_sha256(&self) -> String {
        let mut text = String::new();
        for entry in &self.items.entries {
            match &entry.item {
                Ok(id) => writeln!(text, "+{}:{id}", id.len()),
                Err(error) => writeln!(text, "-{}:{}", error.code, entry.line.unwrap_or_default()),
            }
            .unwrap_or_default();
        }
        sha256_hex(text.as_bytes())
    }

    /// The same solution version, items and settings give the same key.
    fn job_key(&self, version: &SolutionVersion) -> String {
        let parts = [
            "segments 1".to_owned(),
            version.commit.sha256.clone(),
            self.item_list_sha256(),
            self.num_results.to_string(),
            format!("{:?}", self.format),
        ];
        sha256_hex(parts.join("\n").as_bytes())
    }

    async fn write(&self, version: &Arc<SolutionVersion>, run: &mut Run) -> Result<(CommitBody, SegmentReport)> {
        let ctx = match &self.session {
            Some(session) => session.clone(),
            None => session(&self.stores, self.settings)?,
        };
        let wanted = self.items.entries.iter().filter_map(|e| e.item.as_ref().ok()).collect::<BTreeSet<_>>();
        let known = wanted.iter().filter(|id| version.items.ids.index_of(id).is_some()).count();
        let mut warnings = self.warnings(version, wanted.len());
        let counted = if wanted.is_empty() {
            // Every line was unreadable: the records say why, and there is nothing to rank.
            self.write_rows(None, version, run).await?
        } else {
            let request =
                SegmentsRequest { items: wanted.iter().map(|id| (*id).clone()).collect(), num_results: self.num_results };
            let planned = segments_dataframe(&ctx, &self.stores, version, &request)?;
            let expected = known as u64 * (self.num_results as u64).min(version.model.users);
            self.observer.stage(Stage { name: "rank users", unit: "rows", total: Some(expected) });
            self.write_rows(Some(planned.segments.execute_stream().await?), version, run).await?
        };
        let item_errors = self.item_errors(version);
        if !item_errors.is_empty() {
            let records = item_errors::to_parquet(&item_errors)?;
            run.put_internal("errors.parquet", records, Some(item_errors.len() as u64)).await?;
        }
        let mut report = SegmentReport::of(version);
        report.asked = self.items.entries.len() as u64;
        report.error = item_errors.len() as u64;
        for entry in &self.items.entries {
            let Ok(id) = &entry.item else { continue };
            match counted.get(id.as_str()) {
                Some(_) => report.ok += 1,
                None if version.items.ids.index_of(id).is_some() => report.empty += 1,
                None => {}
            }
        }
        report.rows = counted.values().sum();
        report.item_errors = item_errors;
        for warning in &warnings {
            self.observer.warning(warning);
        }
        report.warnings.append(&mut warnings);
        let counts = [
            ("asked", report.asked),
            ("ok", report.ok),
            ("empty", report.empty),
            ("error", report.error),
            ("rows", report.rows),
            ("users", version.model.users),
        ];
        let reference = version.reference();
        let body = CommitBody {
            solution_version: Some(SolutionPin {
                location: reference.location.to_string(),
                version: reference.version.unwrap_or_default(),
                sha256: version.commit.sha256.clone(),
            }),
            item_list_sha256: Some(self.item_list_sha256()),
            counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            details: serde_json::json!({ "num_results": self.num_results, "as_of": version.model.as_of }),
            ..CommitBody::default()
        };
        Ok((body, report))
    }

    fn warnings(&self, version: &SolutionVersion, distinct: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        let readable = self.items.entries.iter().filter(|e| e.item.is_ok()).count();
        if readable > distinct {
            warnings.push(format!("ITEM_DUPLICATE: {} items are asked for more than once", readable - distinct));
        }
        if self.num_results as u64 > version.model.users {
            warnings.push(format!(
                "NUM_RESULTS: {} users per item asked for, the solution version has {}; segments hold all of them",
                self.num_results, version.model.users
            ));
        }
        warnings
    }

    /// Writes the rows of an ordered stream and counts them by item.
    async fn write_rows(
        &self,
        mut rows: Option<datafusion::execution::SendableRecordBatchStream>,
        version: &SolutionVersion,
        run: &mut Run,
    ) -> Result<BTreeMap<String, u64>> {
        let mut output = Output::create(self, version, run).await?;
        let mut counted = BTreeMap::<String, u64>::new();
        let mut done = 0;
        loop {
            let next = async { match rows.as_mut() { Some(rows) => rows.next().await, None => None } };
            let batch = tokio::select! {
                biased;
                () = self.cancellation.cancelled() => return Err(Error::Cancelled),
                batch = next => batch,
            };
            let Some(batch) = batch.transpose()? else { break };
            for run_of_item in item_runs(&batch) {
                *counted.entry(run_of_item.0.to_owned()).or_default() += run_of_item.1;
            }
            output.write(&batch).await?;
            done += batch.num_rows() as u64;
            self.observer.advance(done, None);
        }
        output.finish(self, version, run).await?;
        Ok(counted)
    }

    fn item_errors(&self, version: &SolutionVersion) -> Vec<ItemErrorRecord> {
        self.without_segment(version).map(|(_, record)| record).collect()
    }

    /// The entries that can have no segment, with the reason.
    fn without_segment(
        &self,
        version: &SolutionVersion,
    ) -> impl Iterator<Item = (&item_affinity_datafusion::ItemEntry, ItemErrorRecord)> {
        self.items.entries.iter().filter_map(|entry| {
            let record = match &entry.item {
                Ok(id) if version.items.ids.index_of(id).is_some() => return None,
                Ok(id) => ItemErrorRecord::not_in_model(id),
                Err(error) => ItemErrorRecord {
                    item_id: None,
                    code: error.code.to_owned(),
                    message: error.message.clone(),
                },
            };
            Some((entry, record))
        })
    }
}

/// The items of a batch that is ordered by item, with the rows of each.
fn item_runs(batch: &datafusion::arrow::array::RecordBatch) -> Vec<(&str, u64)> {
    use datafusion::arrow::array::AsArray;
    let mut runs = Vec::<(&str, u64)>::new();
    for id in batch.column(0).as_string::<i32>().iter().flatten() {
        match runs.last_mut() {
            Some((last, rows)) if *last == id => *rows += 1,
            _ => runs.push((id, 1)),
        }
    }
    runs
}

/// The file being written.
enum Output<'a> {
    Parquet(Box<ParquetOutput>),
    JsonLines { lines: JsonLines<'a>, file: Box<item_affinity_storage::FileWriter> },
}

impl<'a> Output<'a> {
    async fn create(job: &'a BatchSegmentJob, version: &SolutionVersion, run: &mut Run) -> Result<Self> {
        Ok(match &job.format {
            OutputFormat::Parquet => Self::Parquet(Box::new(ParquetOutput::create(run, version).await?)),
            OutputFormat::JsonLines { input_name, users_key } => Self::JsonLines {
                lines: JsonLines::new(&job.items, *users_key),
                file: Box::new(run.published_writer(&format!("{input_name}.out")).await?),
            },
        })
    }

    async fn write(&mut self, batch: &datafusion::arrow::array::RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(output) => output.write(batch).await,
            Self::JsonLines { lines, file } => {
                lines.push(batch);
                Ok(file.write_bytes(lines.take()).await?)
            }
        }
    }

    async fn finish(self, job: &BatchSegmentJob, version: &SolutionVersion, run: &mut Run) -> Result<()> {
        match self {
            Self::Parquet(output) => drop(output.finish(run).await?),
            Self::JsonLines { lines, mut file } => {
                let without = job.without_segment(version).collect::<Vec<_>>();
                let rest = lines.finish(without.iter().map(|(entry, record)| (*entry, record.message.as_str())));
                file.write_bytes(rest).await?;
                file.finish(run, None).await?;
            }
        }
        Ok(())
    }
}

impl SegmentReport {
    fn of(version: &SolutionVersion) -> Self {
        Self {
            output: String::new(),
            version: 0,
            solution_version: version.reference().to_string(),
            already_done: false,
            asked: 0,
            ok: 0,
            empty: 0,
            error: 0,
            rows: 0,
            item_errors: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    fn already_done(output: &Location, version: &SolutionVersion, done: &item_affinity_storage::Commit) -> Self {
        let count = |name: &str| done.body.counts.get(name).copied().unwrap_or_default();
        Self {
            output: output.to_string(),
            version: done.version,
            already_done: true,
            asked: count("asked"),
            ok: count("ok"),
            empty: count("empty"),
            error: count("error"),
            rows: count("rows"),
            files: done.files.iter().map(|f| f.path.clone()).collect(),
            ..Self::of(version)
        }
    }
}
