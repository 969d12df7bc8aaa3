//! What a training job does, step by step.

use item_affinity_storage::Location;

use super::{TrainingJob, TrainingReport};
use crate::dataset::Pinned;
use crate::error::{Error, Result};
use crate::fit::train;
use crate::next_version::Outcome;

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
        let Self { job, recipe, solution, evaluate } = self;
        recipe.validate()?;
        let solution = solution.as_deref().ok_or(Error::NoSolutionLocation)?;
        let place = job.place(&Location::parse(solution)?)?;
        let key = |pinned: &Pinned| job.dataset.job_key(pinned, &recipe, None);
        let wanted = evaluate.is_some();
        let enough = |card: &crate::ModelCard| !wanted || card.evaluation.is_some();
        let newest = job.newest(&place).await?;
        let mut pinned = job.pin(&place).await?;
        if let Some(done) = job.already_done(&place, &key(&pinned)?, enough).await? {
            return Ok(done.into());
        }
        let begun = job.begin(&place).await?;
        if job.newest(&place).await? != newest {
            // The run that this one waited for may have done the same.
            pinned = job.pin(&place).await?;
            if let Some(done) = job.already_done(&place, &key(&pinned)?, enough).await? {
                begun.abandon().await;
                return Ok(done.into());
            }
        }
        let (settings, events) = (recipe.clone(), job.dataset.events());
        let trained = job.make(begun, &place, pinned, &key, None, move |data, watch| {
            let interactions = data.ingested.interactions;
            train(&settings, events, interactions, data.side.as_ref(), evaluate.as_ref(), watch)
        });
        Ok(trained.await?.into())
    }
}

impl From<Outcome> for TrainingReport {
    fn from(of: Outcome) -> Self {
        let Outcome { solution, version, already_done, data, model, seconds, .. } = of;
        Self { solution, version, already_done, data, model, seconds }
    }
}
