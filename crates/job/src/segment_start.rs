//! What a batch segment job looks at before it begins: its inputs, and whether it was done already.

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use item_affinity_solution::{SolutionRef, SolutionVersion};
use item_affinity_storage::{Commit, ErrorKind, Location, Versions};

use crate::delta_mode::DeltaMode;
use crate::error::{Error, Result};
use crate::job_users::JobUsers;
use crate::segment_job::{BatchSegmentJob, OutputFormat, Solution};

/// Commits read at the same time: the wait is the store's.
const COMMITS_AT_ONCE: usize = 16;

impl BatchSegmentJob {
    pub(crate) async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancellation.run_until_cancelled(work).await.unwrap_or(Err(Error::Cancelled))
    }

    /// The solution version and the users, as they are now.
    pub(crate) async fn inputs(&self, output: &Location) -> Result<(Arc<SolutionVersion>, Option<JobUsers>)> {
        let version = match &self.solution {
            Solution::Opened(version) => Arc::clone(version),
            Solution::Reference(text) => {
                let reference = SolutionRef::parse(text)?;
                Arc::new(SolutionVersion::open(&self.stores, &reference).await?)
            }
        };
        let users = match &self.users {
            Some(users) => Some(JobUsers::list(&self.stores, users, self.users_schema.as_ref(), output).await?),
            None => None,
        };
        Ok((version, users))
    }

    /// The newest version when the same job made it and all of its files are there; none by force.
    ///
    /// Segments that are appended to a Delta table stay in it, so that an older version is enough there; its files are
    /// those of the table, which may have written them anew.
    pub(crate) async fn already_done(
        &self,
        versions: &Versions,
        newest: Option<&Commit>,
        job_key: &str,
    ) -> Result<Option<Commit>> {
        let Some(newest) = newest.filter(|_| !self.force) else { return Ok(None) };
        if self.format == (OutputFormat::Delta { mode: DeltaMode::Append }) {
            let numbers = versions.numbers().await?.into_iter().rev();
            let commits = stream::iter(numbers).map(|number| versions.read(number)).buffered(COMMITS_AT_ONCE);
            let mut same = pin!(commits.try_filter(|commit| ready(commit.body.job_key == job_key)));
            if let Some(done) = same.try_next().await? {
                self.observer.note(&format!("already done as version {} of {}", done.version, versions.location()));
                return Ok(Some(done));
            }
            return Ok(None);
        }
        if newest.body.job_key != job_key {
            return Ok(None);
        }
        let done = newest.clone();
        for file in &done.files {
            match versions.check_file(file).await {
                Ok(()) => {}
                // "Run the segment job again" is the cure of damaged segments, so it has to run.
                Err(error) if error.kind() == ErrorKind::BadInput => {
                    self.observer.warning(&format!("the newest version is of the same job, but damaged: {error}"));
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.observer.note(&format!("already done as version {} of {}", done.version, versions.location()));
        Ok(Some(done))
    }
}
