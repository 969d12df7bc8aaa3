//! What a training and a refresh share: pin the data, see whether it was done, read, compute, write, commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use item_affinity_ingest::{DataReport, Ingested, RowCounts};
use item_affinity_model::AttributeColumn;
use item_affinity_storage::{Artifact, CommitBody, ErrorKind, JobName, Location, Run, Stores, Versions};
use tokio_util::sync::CancellationToken;

use crate::compute::{blocking, pool};
use crate::dataset::{Data, Dataset, Pinned, ReadLimits};
use crate::error::{Error, Result};
use crate::files::VersionReader;
use crate::fit::{Computed, Watch};
use crate::history::commit_body;
use crate::model_card::ModelCard;
use crate::observer::{Observer, Silent, Stage};
use crate::reference::SolutionRef;
use crate::refresh::Changes;
use crate::write::write;

/// How long a job waits for another one at the same location, unless said.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// What every job that makes a version is told.
pub(crate) struct Job {
    pub(crate) dataset: Dataset,
    /// The features that attributes of users become, where a training has fixed them.
    pub(crate) user_features: Option<Vec<AttributeColumn>>,
    pub(crate) allow_small_data: bool,
    pub(crate) stores: Option<Stores>,
    pub(crate) force: bool,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) cancellation: CancellationToken,
    pub(crate) threads: Option<usize>,
    /// Bytes of memory that the job may take.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) lock_timeout: Duration,
    pub(crate) durable: bool,
    pub(crate) job_name: Option<JobName>,
}

/// Where the version goes.
pub(crate) struct Place {
    pub(crate) stores: Stores,
    pub(crate) versions: Versions,
}

/// Wall-clock seconds of the phases of a job that makes a version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PhaseSeconds {
    /// Reading the data and judging it.
    pub read: f64,
    /// Fitting the factors; for a refresh, folding the users in.
    pub fit: f64,
    /// Writing the files and committing them.
    pub write: f64,
}

/// What came of a job.
pub(crate) struct Outcome {
    pub(crate) solution: SolutionRef,
    pub(crate) version: u64,
    pub(crate) already_done: bool,
    pub(crate) data: Option<DataReport>,
    pub(crate) model: ModelCard,
    pub(crate) changes: Option<Changes>,
    pub(crate) seconds: PhaseSeconds,
}

/// A job whose files are all written.
pub(crate) struct Done {
    /// What the job was in the end: made from the objects that were really read.
    pub(crate) body: CommitBody,
    pub(crate) data: Option<DataReport>,
    pub(crate) model: ModelCard,
    pub(crate) changes: Option<Changes>,
    pub(crate) seconds: PhaseSeconds,
}

/// The key of a job on these objects.
pub(crate) type KeyOf<'a> = &'a (dyn Fn(&Pinned) -> Result<String> + Sync);

impl Job {
    pub(crate) fn of(dataset: Dataset) -> Self {
        Self {
            dataset,
            user_features: None,
            allow_small_data: false,
            stores: None,
            force: false,
            observer: Arc::new(Silent),
            cancellation: CancellationToken::new(),
            threads: None,
            memory_limit: None,
            lock_timeout: LOCK_TIMEOUT,
            durable: true,
            job_name: None,
        }
    }

    /// Opens the location of the solution, which may not lie inside the interactions.
    pub(crate) fn place(&self, solution: &Location) -> Result<Place> {
        self.dataset.keep_output_outside(solution)?;
        let stores = self.stores.clone().unwrap_or_else(Stores::from_env);
        let versions = Versions::new(&stores, solution.clone(), Artifact::SolutionVersion)?
            .with_durability(self.durable)
            .with_cancellation(self.cancellation.clone())
            .with_job_name(self.job_name.clone());
        Ok(Place { stores, versions })
    }

    /// Lists the objects that would be read now.
    pub(crate) async fn pin(&self, place: &Place) -> Result<Pinned> {
        self.or_cancelled(self.dataset.pin(&place.stores)).await
    }

    /// The newest version when the same job made it, all of its files are there, and it is `enough`; none by force.
    pub(crate) async fn already_done(
        &self,
        place: &Place,
        job_key: &str,
        enough: impl Fn(&ModelCard) -> bool,
    ) -> Result<Option<Outcome>> {
        if self.force {
            return Ok(None);
        }
        let Some(newest) = place.versions.latest().await? else { return Ok(None) };
        if newest.body.job_key != job_key {
            return Ok(None);
        }
        let reader = VersionReader::new(&place.stores, place.versions.location(), newest)?;
        let model = match reader.whole().await {
            Ok(model) => model,
            // "Train again" is the cure of a damaged version, so it has to train.
            Err(error) if error.kind() == ErrorKind::BadInput => {
                self.observer.warning(&format!("the newest version is of the same job, but damaged: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !enough(&model) {
            return Ok(None);
        }
        let version = reader.commit.version;
        self.observer.note(&format!("already done as version {version}"));
        Ok(Some(Outcome {
            solution: SolutionRef { location: place.versions.location().clone(), version: Some(version) },
            version,
            already_done: true,
            data: None,
            model,
            changes: None,
            seconds: PhaseSeconds::default(),
        }))
    }

    /// The number of the newest version.
    pub(crate) async fn newest(&self, place: &Place) -> Result<Option<u64>> {
        self.or_cancelled(async { Ok(place.versions.numbers().await?.last().copied()) }).await
    }

    /// Begins a run when no other one is at work there. The state may be another one afterwards.
    pub(crate) async fn begin(&self, place: &Place) -> Result<Run> {
        Ok(place.versions.begin_alone(self.lock_timeout, &|text| self.observer.note(text)).await?)
    }

    /// Reads the data, computes the version on the threads of the job, writes it and commits it; right after version
    /// `after` when that is given.
    ///
    /// Nothing is visible before the commit. On an error or a cancellation nothing is committed and the files of the
    /// run are removed as far as possible; when the future is dropped, the computation stops and the files are left to
    /// garbage collection.
    pub(crate) async fn make(
        &self,
        run: Run,
        place: &Place,
        pinned: Pinned,
        key: KeyOf<'_>,
        after: Option<u64>,
        compute: impl FnOnce(Data, &Watch<'_>) -> Result<Computed> + Send + 'static,
    ) -> Result<Outcome> {
        match self.make_into(&run, place, pinned, key, compute).await {
            Ok(done) => self.commit(run, place, after, done).await,
            Err(error) => {
                run.abandon().await;
                Err(error)
            }
        }
    }

    async fn make_into(
        &self,
        run: &Run,
        place: &Place,
        pinned: Pinned,
        key: KeyOf<'_>,
        compute: impl FnOnce(Data, &Watch<'_>) -> Result<Computed> + Send + 'static,
    ) -> Result<Done> {
        let mut seconds = PhaseSeconds::default();
        // Stops the threads of the computation also when somebody drops this future.
        let stop = self.cancellation.child_token();
        let _stop_on_drop = stop.clone().drop_guard();

        let clock = Instant::now();
        // Read after the run has begun: whoever forgets somebody here does so before, or waits and makes the next version.
        let forgotten = self.or_cancelled(async { Ok(place.versions.tombstones().await?) }).await?;
        let limits = ReadLimits { threads: self.threads, memory: self.memory_limit };
        let (features, observer) = (self.user_features.as_deref(), self.observer.as_ref());
        let reading = self.dataset.read(&place.stores, features, limits, forgotten, observer);
        let data = self.or_cancelled(reading).await?;
        say_forgotten(&data.ingested.counts, observer);
        data.accept(self.allow_small_data, self.observer.as_ref())?;
        let report = data.report.clone();
        let Ingested { inputs, counts, .. } = &data.ingested;
        // What was really read: files may have come between the listing and the reading.
        let pinned = Pinned { interactions: inputs.clone(), ..pinned };
        let counts = counts.clone();
        seconds.read = clock.elapsed().as_secs_f64();
        run.note_seconds("read", seconds.read);

        let clock = Instant::now();
        let (observer, threads, token) = (Arc::clone(&self.observer), pool(self.threads)?, stop.clone());
        let memory_limit = self.memory_limit;
        let computing = blocking("the computation", move || {
            let watch = Watch { observer: observer.as_ref(), cancellation: &token, memory_limit };
            threads.install(|| compute(data, &watch))
        });
        let computed = Arc::new(computing.await??);
        seconds.fit = clock.elapsed().as_secs_f64();
        run.note_seconds("fit", seconds.fit);

        let clock = Instant::now();
        let watch = Watch { observer: self.observer.as_ref(), cancellation: &stop, memory_limit };
        write(run, &computed, &watch).await?;
        watch.check()?;
        seconds.write = clock.elapsed().as_secs_f64();
        run.note_seconds("write", seconds.write);
        let body = commit_body(key(&pinned)?, &pinned, &counts, &computed.card, computed.changes.as_ref())?;
        let (model, changes) = (computed.card.clone(), computed.changes);
        Ok(Done { body, data: Some(report), model, changes, seconds })
    }

    /// Makes a job whose files are written visible, right after version `after` when that is given.
    pub(crate) async fn commit(&self, run: Run, place: &Place, after: Option<u64>, done: Done) -> Result<Outcome> {
        let clock = Instant::now();
        self.observer.stage(Stage::new("committing", "commits", Some(1)));
        let run_id = run.run_id.clone();
        let commit = match after {
            Some(after) => run.commit_after(done.body, after).await?,
            None => run.commit(done.body).await?,
        };
        let mut seconds = done.seconds;
        seconds.write += clock.elapsed().as_secs_f64();
        Ok(Outcome {
            solution: SolutionRef { location: place.versions.location().clone(), version: Some(commit.version) },
            version: commit.version,
            // Another run may have committed the same job while this one was at it.
            already_done: commit.run_id != run_id,
            data: done.data,
            model: done.model,
            changes: done.changes,
            seconds,
        })
    }

    pub(crate) async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancellation.run_until_cancelled(work).await.unwrap_or(Err(Error::Cancelled))
    }
}

/// Tells a person that rows were left out because their users were forgotten.
pub(crate) fn say_forgotten(counts: &RowCounts, observer: &dyn Observer) {
    if counts.forgotten > 0 {
        observer.note(&format!("{} interactions of forgotten users are left out", counts.forgotten));
    }
}
