//! What a batch segment job looks at before it begins: its inputs, and whether it was done already.

use std::sync::Arc;

use item_affinity_solution::{SolutionRef, SolutionVersion};
use item_affinity_storage::{Commit, ErrorKind, Location, Versions};

use crate::error::{Error, Result};
use crate::job_users::JobUsers;
use crate::segment_job::{BatchSegmentJob, Solution};

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
    pub(crate) async fn already_done<'a>(
        &self,
        versions: &Versions,
        newest: Option<&'a Commit>,
        job_key: &str,
    ) -> Result<Option<&'a Commit>> {
        let Some(done) = newest.filter(|newest| !self.force && newest.body.job_key == job_key) else {
            return Ok(None);
        };
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
