//! Removing uploads that runs left open: a process that is killed aborts nothing, and a bucket keeps the parts, which no
//! listing of objects shows.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::commit::OURS;
use crate::garbage::{data_root, own_now, run_of};
use crate::{Error, Result, Retention, Stores, Versions};

/// An upload that a run left open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenUpload {
    /// The run.
    pub run_id: String,
    /// The file that it was to become, below the location.
    pub file: String,
    /// How long ago the run last wrote something, or began the upload.
    pub age: Duration,
}

/// What a collection of uploads aborted, or would abort.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct UploadCollection {
    /// Uploads of runs that are dead.
    pub open: Vec<OpenUpload>,
    /// Uploads of runs that may be at work.
    pub young: u64,
    /// What could not be aborted.
    pub failed: Vec<Error>,
}

impl Versions {
    /// Finds multipart uploads that dead runs left open, and aborts them when `delete` is set.
    ///
    /// A run is dead when neither it wrote anything nor the upload was begun within `older_than`; one at work renews its
    /// lease every quarter of a minute. Uploads that are not below the folder of a run are nobody's business here. On local
    /// disk there are none.
    ///
    /// # Errors
    /// [`Error::StoreSetting`] for an age under a day; what the store answered. Nothing was aborted then.
    pub async fn collect_uploads(
        &self,
        stores: &Stores,
        older_than: Duration,
        delete: bool,
    ) -> Result<UploadCollection> {
        self.check(&Retention { older_than, ..Retention::default() })?;
        let Some(uploads) = stores.uploads(self.location())? else { return Ok(UploadCollection::default()) };
        let base = self.location().path();
        let prefix = if base.as_ref().is_empty() { String::new() } else { format!("{base}/") };
        // Uploads first: a run that began after it has nothing in the list.
        let listed = uploads.list(&prefix).await?;
        let of_runs = listed.into_iter().filter_map(|upload| {
            let file = upload.key.strip_prefix(&prefix)?.to_owned();
            let run_id = run_of(self.artifact, &file)?.to_owned();
            Some((upload, file, run_id))
        });
        let of_runs: Vec<_> = of_runs.collect();
        let mut found = UploadCollection::default();
        if of_runs.is_empty() {
            return Ok(found);
        }
        let mut written = BTreeMap::<String, i64>::new();
        for folder in [data_root(self.artifact), OURS] {
            for object in self.folder.objects(folder).await? {
                if let Some(run_id) = run_of(self.artifact, &object.name) {
                    let last = written.entry(run_id.to_owned()).or_insert(object.modified);
                    *last = object.modified.max(*last);
                }
            }
        }
        let now = if delete { self.store_now().await? } else { own_now() };
        for (upload, file, run_id) in of_runs {
            let last = written.get(&run_id).copied().map_or(upload.begun, |last| last.max(upload.begun));
            let age = Duration::from_millis(u64::try_from(now.saturating_sub(last)).unwrap_or_default());
            if age < older_than {
                found.young += 1;
                continue;
            }
            match if delete { uploads.abort(&upload).await } else { Ok(()) } {
                Ok(()) => found.open.push(OpenUpload { run_id, file, age }),
                Err(error) => found.failed.push(error),
            }
        }
        Ok(found)
    }
}
