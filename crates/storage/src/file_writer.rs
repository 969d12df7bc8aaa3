//! Streaming one file of a run, hashing on the way.
use crate::{FileEntry, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use parquet::arrow::async_writer::AsyncFileWriter;
/// Writes one file of a run; dropped before [`finish`](Self::finish), it leaves no upload behind.
#[derive(Debug)]
pub struct FileWriter(());
impl FileWriter {
    /// Appends bytes.
    pub async fn write_bytes(&mut self, _bytes: Bytes) -> Result<()> {
        todo!()
    }
    /// Completes the file and makes it part of the run.
    pub async fn finish(self, _rows: Option<u64>) -> Result<FileEntry> {
        todo!()
    }
}
impl AsyncFileWriter for FileWriter {
    fn write(&mut self, _bs: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        todo!()
    }
    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        todo!()
    }
}
impl AsyncFileWriter for &mut FileWriter {
    fn write(&mut self, _bs: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        todo!()
    }
    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        todo!()
    }
}
