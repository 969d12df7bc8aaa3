//! Whether the solution of a job is still the one that its output was made from.

use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{Artifact, Commit, SolutionPin, Versions};

use crate::error::{Error, Result};
use crate::segment_job::BatchSegmentJob;

impl BatchSegmentJob {
    /// Goes on when another solution now lies where the one was that the newest segments came from; without it the job
    /// ends, since segments of other data would take the place of these.
    #[must_use]
    pub fn allow_foreign_solution(mut self, allow: bool) -> Self {
        self.allow_foreign_solution = allow;
        self
    }

    /// Refuses a solution that was put in the place of another one since the newest segments were made.
    ///
    /// These name a version and the SHA-256 of its commit. A solution that went on from there still has that commit, or
    /// has let it go as the oldest of its versions; one that has another commit under its number, or that does not reach
    /// it any more, is another solution. A job from another location is a choice of who calls.
    ///
    /// # Cost
    /// One listing and one commit of the solution.
    pub(crate) async fn refuse_foreign(&self, version: &SolutionVersion, newest: Option<&Commit>) -> Result<()> {
        let location = &version.reference().location;
        let made_from = newest.and_then(|newest| newest.body.solution_version.as_ref());
        let Some(pin) = made_from.filter(|pin| pin.location == location.to_string() && !self.allow_foreign_solution)
        else {
            return Ok(());
        };
        let versions = Versions::new(&self.stores, location.clone(), Artifact::SolutionVersion)?;
        let numbers = versions.numbers().await?;
        let what = if numbers.last().is_none_or(|last| *last < pin.version) {
            format!("it ends before version {}", pin.version)
        } else if numbers.contains(&pin.version) && versions.read(pin.version).await?.sha256 != pin.sha256 {
            format!("its version {} is another one now", pin.version)
        } else {
            return Ok(());
        };
        Err(foreign(what, pin))
    }
}

fn foreign(what: String, pin: &SolutionPin) -> Error {
    Error::ForeignSolution { what, solution: pin.location.clone() }
}
