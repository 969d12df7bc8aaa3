//! A pinned input as it travels to another process, which reads the same object or none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::{Error, InputFile, Location, Result};

/// What another process needs to read an [`InputFile`] as it was pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TravelledFile {
    url: String,
    path: String,
    bytes: u64,
    etag: Option<String>,
    object_version: Option<String>,
    /// Since 1970.
    modified: Duration,
    partitions: Vec<(String, Option<String>)>,
    delta_version: Option<u64>,
}

impl From<&InputFile> for TravelledFile {
    fn from(file: &InputFile) -> Self {
        let InputFile { location, meta, partitions, delta_version } = file;
        let modified = SystemTime::from(meta.last_modified);
        Self {
            url: location.url().to_string(),
            path: meta.location.to_string(),
            bytes: meta.size,
            etag: meta.e_tag.clone(),
            object_version: meta.version.clone(),
            modified: modified.duration_since(UNIX_EPOCH).unwrap_or_default(),
            partitions: partitions.clone(),
            delta_version: *delta_version,
        }
    }
}

impl TravelledFile {
    /// The file as it was pinned.
    ///
    /// # Errors
    /// [`Error::Location`] for an address that is none.
    pub fn arrive(self) -> Result<InputFile> {
        let Self { url, path, bytes, etag, object_version, modified, partitions, delta_version } = self;
        let location = Location::parse(&url)?;
        let path = Path::parse(&path).map_err(|e| Error::Bug {
            reason: "a pinned file has a path that no store has".to_owned(),
            source: Some(Box::new(e)),
        })?;
        let modified = UNIX_EPOCH.checked_add(modified).unwrap_or(UNIX_EPOCH);
        let meta = ObjectMeta {
            location: path,
            last_modified: modified.into(),
            size: bytes,
            e_tag: etag,
            version: object_version,
        };
        Ok(InputFile { location, meta, partitions, delta_version })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{FileKind, Stores, list_files};

    #[tokio::test]
    async fn a_pinned_file_arrives_as_it_was_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("event_type=a b/x é%20.parquet");
        std::fs::create_dir(name.parent().unwrap()).unwrap();
        std::fs::write(&name, "some bytes").unwrap();
        let location = Location::parse(&format!("{}/", folder.path().display())).unwrap();
        let listing = list_files(&Stores::from_env(), &location, FileKind::PARQUET).await.unwrap();
        let [file] = listing.files.as_slice() else { panic!("{listing:?}") };
        let text = serde_json::to_string(&TravelledFile::from(file)).unwrap();
        let back = serde_json::from_str::<TravelledFile>(&text).unwrap().arrive().unwrap();
        assert_eq!(back.location.url(), file.location.url());
        assert_eq!((back.meta, back.partitions), (file.meta.clone(), file.partitions.clone()));
    }
}
