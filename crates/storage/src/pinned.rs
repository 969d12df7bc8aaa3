//! Ranges of one object, all of the same moment.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::store_error::store_error;
use crate::{Error, InputFile, ParquetFault, Result, Stores};

/// Checks that an object is still the one that was listed, for readers that cannot pin what they read.
///
/// # Errors
/// [`Error::Parquet`] with the code `ERR_INPUT_CHANGED` when it is another one or gone; what the store answered.
pub async fn check_unchanged(stores: &Stores, file: &InputFile) -> Result<()> {
    let pinned = Pinned::new(stores.store(&file.location)?, file);
    let meta = pinned.store.head(&pinned.meta.location).await.map_err(|e| pinned.error("HEAD", e))?;
    pinned.check(&meta)
}

/// An object as it was listed: a read that finds another one is an error.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    name: Arc<str>,
    local: bool,
}

impl Pinned {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, file: &InputFile) -> Self {
        let name = file.location.to_string().into();
        Self { store, meta: file.meta.clone(), name, local: file.location.is_local() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.meta.size
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of a range.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let expected = range.end.saturating_sub(range.start);
        if expected == 0 {
            return Ok(Bytes::new());
        }
        let options = GetOptions {
            if_match: self.meta.e_tag.clone(),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(&self.meta.location, options).await.map_err(|e| self.error("GET", e))?;
        self.check(&result.meta)?;
        let bytes = result.bytes().await.map_err(|e| self.error("GET", e))?;
        if bytes.len() as u64 == expected { Ok(bytes) } else { Err(self.changed("a range is shorter than listed")) }
    }

    /// The bytes of several ranges; near ones are read together.
    pub(crate) async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        object_store::coalesce_ranges(ranges, |range| self.read(range), OBJECT_STORE_COALESCE_DEFAULT).await
    }

    /// Looks once more after the last read: local files may change in place between the check and the read.
    pub(crate) async fn still_the_same(&self) -> Result<()> {
        if !self.local {
            return Ok(());
        }
        let meta = self.store.head(&self.meta.location).await.map_err(|e| self.error("HEAD", e))?;
        self.check(&meta)
    }

    fn check(&self, found: &ObjectMeta) -> Result<()> {
        let same = match (&self.meta.e_tag, &found.e_tag) {
            (Some(listed), Some(found)) => listed == found,
            _ => self.meta.last_modified == found.last_modified,
        };
        if same && found.size == self.meta.size { Ok(()) } else { Err(self.changed("the object was replaced")) }
    }

    fn error(&self, operation: &'static str, error: object_store::Error) -> Error {
        match error {
            object_store::Error::Precondition { .. } => self.changed("the object was replaced"),
            object_store::Error::NotFound { .. } => self.changed("the object is gone"),
            other => store_error(operation, &self.name, other),
        }
    }

    fn changed(&self, what: &str) -> Error {
        Error::Parquet {
            fault: ParquetFault::InputChanged,
            reason: format!("{what} after it was listed"),
            file: self.name.to_string(),
            row_group: None,
            column: None,
            source: None,
        }
    }
}
