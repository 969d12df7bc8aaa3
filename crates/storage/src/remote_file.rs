//! One object of an object store, uploaded while it is written; whatever goes wrong, its upload is aborted.
//!
//! `object_store` has such a writer, but one that leaves the upload open when the last parts fail.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, Result};
use tokio::task::JoinSet;

/// Larger files are uploaded in parts of this size, several at once.
const PART_BYTES: usize = 10 << 20;
const PARTS_AT_ONCE: usize = 4;
/// How often the end of an upload is asked for when the connection breaks; open uploads cost money.
const ABORTS: usize = 5;

#[derive(Debug)]
pub(crate) struct RemoteFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    buffer: BytesMut,
    bytes: u64,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<Result<()>>,
}

impl RemoteFile {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, buffer: BytesMut::new(), bytes: 0, upload: None, parts: JoinSet::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= PART_BYTES {
            let part = self.buffer.split_to(PART_BYTES).freeze();
            self.upload_part(part).await?;
        }
        Ok(())
    }

    async fn upload_part(&mut self, part: Bytes) -> Result<()> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.path).await?),
        };
        let part = upload.put_part(PutPayload::from_bytes(part));
        self.wait_for(PARTS_AT_ONCE - 1).await?;
        self.parts.spawn(part);
        Ok(())
    }

    /// Waits until at most so many parts are under way.
    async fn wait_for(&mut self, at_most: usize) -> Result<()> {
        while self.parts.len() > at_most {
            if let Some(part) = self.parts.join_next().await {
                part??;
            }
        }
        Ok(())
    }

    /// Makes the object. After an error the upload is still open: abort it.
    pub(crate) async fn complete(&mut self) -> Result<()> {
        let rest = self.buffer.split().freeze();
        if self.upload.is_none() {
            return self.store.put(&self.path, PutPayload::from_bytes(rest)).await.map(drop);
        }
        if !rest.is_empty() {
            self.upload_part(rest).await?;
        }
        self.wait_for(0).await?;
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let completed = upload.complete().await;
        if let Err(error) = completed {
            // When the answer was lost, asking again finds no upload. The name is ours alone, so the object tells.
            let there = self.store.head(&self.path).await.is_ok_and(|meta| meta.size == self.bytes);
            if !there {
                return Err(error);
            }
        }
        self.upload = None;
        Ok(())
    }

    /// Ends an upload that is not to become an object; what cannot be ended is left to a lifecycle rule of the bucket.
    pub(crate) async fn abort(&mut self) {
        self.parts.shutdown().await;
        let Some(mut upload) = self.upload.take() else { return };
        for tries in 1..=ABORTS {
            match upload.abort().await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => return,
                Err(_) if tries < ABORTS => {}
                Err(_) => tracing::warn!("an upload was not aborted; a lifecycle rule of the bucket removes its parts"),
            }
        }
    }
}
