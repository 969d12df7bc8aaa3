//! What a batch segment job does after its commit, for readers who know no commits.

use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{Commit, Versions};

#[cfg(not(feature = "delta"))]
use crate::error::Error;
use crate::error::Result;
use crate::segment_job::{BatchSegmentJob, OutputFormat};
use crate::segment_output::out_name;

#[cfg(not(feature = "delta"))]
pub(crate) const NO_DELTA: Error = Error::Missing(
    "--format delta: this build lacks the feature delta; build with `cargo build --release --locked --features delta`",
);

impl BatchSegmentJob {
    /// Gives a commit the form that readers look for who know no commits; the version of the Delta table, if it is one.
    pub(crate) async fn publish(
        &self,
        versions: &Versions,
        version: &SolutionVersion,
        commit: &Commit,
    ) -> Result<Option<u64>> {
        match self.format {
            OutputFormat::Parquet => Ok(None),
            OutputFormat::JsonLines { .. } => self.publish_personalize_files(versions, commit).await.map(|()| None),
            #[cfg(feature = "delta")]
            OutputFormat::Delta { mode } => self.publish_delta(mode, versions, version, commit).await.map(Some),
            #[cfg(not(feature = "delta"))]
            OutputFormat::Delta { .. } => {
                let _ = version;
                Err(NO_DELTA)
            }
        }
    }

    /// Gives Amazon Personalize's files their fixed names, then the marker that they are complete.
    async fn publish_personalize_files(&self, versions: &Versions, commit: &Commit) -> Result<()> {
        // A job that was killed after its commit leaves this to the next run; one that did it leaves nothing to do.
        let mut done = versions.is_marked("_CHECK").await?;
        for file in &self.items {
            let name = out_name(&file.name);
            if let Some(entry) = commit.files.iter().find(|f| f.path.ends_with(&format!("/{name}")))
                && !versions.is_copied_out(entry, &name).await?
            {
                versions.copy_out(entry, &name).await?;
                done = false;
            }
        }
        if !done {
            versions.mark("_CHECK").await?;
        }
        Ok(())
    }
}
