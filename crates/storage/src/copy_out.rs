//! Committed files under fixed names, for readers that know no commits.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use crate::store_error::store_error;
use crate::{FileEntry, Result, Versions};

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

    /// Writes a small marker under a fixed name, such as Amazon Personalize's empty `_CHECK`.
    ///
    /// # Errors
    /// When the name leaves the location, or the store refuses.
    pub async fn mark(&self, name: &str) -> Result<()> {
        self.folder.target(name)?;
        self.folder.replace(name, Bytes::new()).await
    }
}
