//! Streaming one file of a run, hashing on the way.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::ParquetError;
use sha2::{Digest, Sha256};

use crate::folder::{Folder, blocking};
use crate::manifest::hex;
use crate::remote_file::RemoteFile;
use crate::run::Files;
use crate::store_error::{io_error, store_error};
use crate::{Error, FileEntry, Result};

/// Writes one file of a run; give it (or `&mut` it) to `AsyncArrowWriter`, close that, then [`finish`](Self::finish).
///
/// Dropped before that, or after an error, it aborts its upload or removes its file; such a run does not commit.
#[derive(Debug)]
pub struct FileWriter {
    folder: Folder,
    path: String,
    /// Taken when the file is complete or beyond rescue.
    sink: Option<Sink>,
    hash: Sha256,
    bytes: u64,
    row_groups: Option<u64>,
    files: Arc<Mutex<Files>>,
}

#[derive(Debug)]
enum Sink {
    Local(Option<File>),
    Remote(Box<RemoteFile>),
}

impl FileWriter {
    pub(crate) async fn open(folder: Folder, path: String, files: Arc<Mutex<Files>>) -> Result<Self> {
        let sink = match folder.disk.clone() {
            Some(disk) => {
                let path = path.clone();
                Sink::Local(Some(blocking(move || disk.open_new(&path)).await?))
            }
            None => {
                let (store, target) = folder.target(&path)?;
                Sink::Remote(Box::new(RemoteFile::new(store, target)))
            }
        };
        Ok(Self { folder, path, sink: Some(sink), hash: Sha256::new(), bytes: 0, row_groups: None, files })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// What the store or the disk answered; the file is lost then.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> Result<()> {
        self.hash.update(&bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let shown = self.folder.shown(&self.path);
        match &mut self.sink {
            Some(Sink::Remote(writer)) => writer.write(&bytes).await.map_err(|e| store_error("PUT", &shown, e)),
            // The file travels to the blocking thread and back; an error on the way loses it.
            Some(Sink::Local(slot)) => match slot.take() {
                Some(mut file) => {
                    let file = blocking(move || {
                        let written = file.write_all(&bytes).map(|()| file);
                        written.map_err(|e| io_error("write", &shown, bytes.len() as u64, e))
                    });
                    *slot = Some(file.await?);
                    Ok(())
                }
                None => Err(self.lost()),
            },
            None => Err(self.lost()),
        }
    }

    fn lost(&self) -> Error {
        Error::Bug { reason: format!("{} was written to after an error", self.path), source: None }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// Notes the row groups of a Parquet file for the commit.
    pub fn set_row_groups(&mut self, row_groups: u64) {
        self.row_groups = Some(row_groups);
    }

    /// Completes the file, on local disk with fsync, and makes it part of the run.
    ///
    /// # Errors
    /// What the store or the disk answered; the file is lost then.
    pub async fn finish(mut self, rows: Option<u64>) -> Result<FileEntry> {
        let shown = self.folder.shown(&self.path);
        let bytes = self.bytes;
        // A remote file stays in its place until it is complete, so that an error, or nobody waiting any more, aborts it.
        if let Some(Sink::Remote(writer)) = &mut self.sink {
            writer.complete().await.map_err(|e| store_error("PUT", &shown, e))?;
        }
        match self.sink.take() {
            Some(Sink::Remote(_)) => {}
            Some(Sink::Local(Some(file))) => {
                let Some(disk) = self.folder.disk.clone() else { return Err(self.lost()) };
                let path = self.path.clone();
                blocking(move || {
                    disk.sync_file(&file).map_err(|e| {
                        disk.remove(&[path]);
                        io_error("fsync", &shown, bytes, e)
                    })
                })
                .await?;
            }
            Some(Sink::Local(None)) | None => return Err(self.lost()),
        }
        let entry = FileEntry {
            path: self.path.clone(),
            bytes,
            rows,
            row_groups: self.row_groups,
            sha256: hex(std::mem::take(&mut self.hash).finalize().as_slice()),
            version: 0,
        };
        Files::add(&self.files, entry.clone());
        Ok(entry)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        match self.sink.take() {
            None => {}
            Some(Sink::Local(file)) => {
                drop(file);
                if let Some(disk) = &self.folder.disk {
                    let _ = std::fs::remove_file(disk.path(&self.path));
                }
            }
            Some(Sink::Remote(mut writer)) => {
                // Without a runtime nothing can be sent; a lifecycle rule of the bucket removes the parts then.
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    let abort = runtime.spawn(async move { writer.abort().await });
                    Files::add_abort(&self.files, abort);
                }
            }
        }
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileWriter for FileWriter {
    fn write(&mut self, bs: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        Box::pin(async move { self.write_bytes(bs).await.map_err(external) })
    }

    /// The file is complete with [`finish`](Self::finish) only.
    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl AsyncFileWriter for &mut FileWriter {
    fn write(&mut self, bs: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        (**self).write(bs)
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        (**self).complete()
    }
}
