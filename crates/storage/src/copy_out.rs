//! Committed files under fixed names, for readers that know no commits.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use crate::store_error::store_error;
use crate::{Error, FileEntry, Result, Versions};

impl Versions {
    /// Copies a committed file to a fixed name below the location, and so replaces what an earlier version left there.
    ///
    /// Readers see the old file or the new one, never a part: the copy is one atomic step of the store. Amazon
    /// Personalize names its output after its input, and pipelines built for it look for just that name.
    ///
    /// # Errors
    /// When the name leaves the location, or the store refuses.
    pub async fn copy_out(&self, entry: &FileEntry, name: &str) -> Result<()> {
        let (store, from) = self.folder.target(&entry.path)?;
        let (_, to) = self.folder.target(name)?;
        let copied = store.copy(&from, &to).await;
        copied.map_err(|error| store_error("COPY", &self.folder.shown(name), error))?;
        self.folder.sync(vec![name.to_owned()]).await
    }

    /// Whether the file of this name is such a copy, byte by byte: a job may be killed between its commit and the copy.
    ///
    /// # Errors
    /// When the name leaves the location; what the store answered.
    pub async fn is_copied_out(&self, entry: &FileEntry, name: &str) -> Result<bool> {
        let copy = FileEntry { path: name.to_owned(), ..entry.clone() };
        match self.verify_file(&copy).await {
            Ok(()) => Ok(true),
            Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes what has such a fixed name; it is no error when it is gone already.
    ///
    /// # Errors
    /// When the name leaves the location; what the store answered.
    pub async fn remove_copy(&self, name: &str) -> Result<()> {
        self.folder.target(name)?;
        self.folder.delete(name).await
    }

    /// Whether a marker is there.
    ///
    /// # Errors
    /// When the name leaves the location; what the store answered.
    pub async fn is_marked(&self, name: &str) -> Result<bool> {
        Ok(self.folder.size(name).await?.is_some())
    }

    /// Writes a small marker under a fixed name, such as Amazon Personalize's empty `_CHECK`.
    ///
    /// # Errors
    /// When the name leaves the location, or the store refuses.
    pub async fn mark(&self, name: &str) -> Result<()> {
        self.put_beside(name, Bytes::new()).await
    }

    /// Writes an object that no commit names, and so replaces what was there.
    ///
    /// # Errors
    /// When the name leaves the location, or the store refuses.
    pub async fn put_beside(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.folder.target(name)?;
        self.folder.replace(name, bytes).await
    }

    /// Puts an object with its name on disk, where the store is a disk.
    ///
    /// # Errors
    /// What the system answered.
    pub async fn sync(&self, name: &str) -> Result<()> {
        self.folder.sync_object(name).await
    }
}
