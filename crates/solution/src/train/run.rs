//! What a training job does, step by step.

use std::sync::Arc;
use std::time::Instant;

use item_affinity_ingest::{DataReport, Ingested};
use item_affinity_storage::{Artifact, CommitBody, ErrorKind, Location, Run, Stores, Versions};

use super::{PhaseSeconds, TrainingJob, TrainingReport};
use crate::compute::{blocking, pool};
use crate::dataset::{Data, Pinned};
use crate::error::{Error, Result};
use crate::files::VersionReader;
use crate::fit::{Watch, train};
use crate::history::commit_body;
use crate::model_card::ModelCard;
use crate::observer::Stage;
use crate::reference::SolutionRef;
use crate::write::write;

/// A training whose files are all written.
struct Done {
    /// What the job was in the end: made from the objects that were really read.
    body: CommitBody,
    data: DataReport,
    model: ModelCard,
    seconds: PhaseSeconds,
}

impl TrainingJob {
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
        if self.evaluate.is_some() && model.evaluation.is_none() {
            return Ok(None);
        }
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
        let data = self.or_cancelled(reading).await?;
        data.accept(self.allow_small_data, self.observer.as_ref())?;
        let Data { ingested, report, side, .. } = data;
        let Ingested { interactions, inputs, counts, .. } = ingested;
        seconds.read = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let (recipe, events, observer) = (self.recipe.clone(), self.dataset.events(), Arc::clone(&self.observer));
        let evaluate = self.evaluate.clone();
        let (threads, token) = (pool(self.threads)?, stop.clone());
        let fitted = blocking("the fit", move || {
            let watch = Watch { observer: observer.as_ref(), cancellation: &token };
            threads.install(|| train(&recipe, events, interactions, side.as_ref(), evaluate.as_ref(), &watch))
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
