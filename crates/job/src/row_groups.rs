//! A Parquet file whose row groups are encoded beside each other, on all cores, and written one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::writer::SerializedFileWriter;
use item_affinity_storage::{FileEntry, FileWriter};

use crate::error::Result;

/// Rows of a row group: enough that what a reader does once for each does not count, few enough that the groups that are
/// held at one time take some ten megabytes, and that no string array comes near 2 GiB.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 18;

/// Writes batches in the order they come. The bytes do not depend on how many threads there are.
pub(crate) struct RowGroups {
    file: FileWriter,
    /// Writes into memory what goes on into the file.
    writer: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The row group that is gathered.
    batches: Vec<RecordBatch>,
    gathered: usize,
    /// Row groups that are encoded, in their order.
    encoding: VecDeque<SpawnedTask<Result<Vec<ArrowColumnChunk>>>>,
    /// How many of them at most.
    at_once: usize,
    begun: usize,
    rows: u64,
}

impl RowGroups {
    pub(crate) fn new(file: FileWriter, schema: &SchemaRef, properties: WriterProperties) -> Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
        let (writer, factory) = writer.into_serialized_writer()?;
        Ok(Self {
            file,
            writer,
            factory,
            schema: Arc::clone(schema),
            batches: Vec::new(),
            gathered: 0,
            encoding: VecDeque::new(),
            at_once: std::thread::available_parallelism().map_or(1, usize::from),
            begun: 0,
            rows: 0,
        })
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let mut from = 0;
        while from < batch.num_rows() {
            let length = (batch.num_rows() - from).min(ROW_GROUP_ROWS - self.gathered);
            self.batches.push(batch.slice(from, length));
            self.gathered += length;
            from += length;
            if self.gathered == ROW_GROUP_ROWS {
                self.encode()?;
            }
            while self.encoding.len() > self.at_once {
                self.append().await?;
            }
        }
        Ok(())
    }

    /// Sends the row group that has come together to be encoded.
    fn encode(&mut self) -> Result<()> {
        let writers = self.factory.create_column_writers(self.begun)?;
        let (schema, batches) = (Arc::clone(&self.schema), std::mem::take(&mut self.batches));
        self.encoding.push_back(SpawnedTask::spawn_blocking(move || encoded(writers, &schema, &batches)));
        self.begun += 1;
        self.gathered = 0;
        Ok(())
    }

    /// Writes the row group that was sent first.
    async fn append(&mut self) -> Result<()> {
        let Some(task) = self.encoding.pop_front() else { return Ok(()) };
        let chunks = task.join().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        let mut group = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.pass_on().await
    }

    /// What was written into memory goes into the file.
    async fn pass_on(&mut self) -> Result<()> {
        self.writer.flush()?;
        let bytes = std::mem::take(self.writer.inner_mut());
        Ok(self.file.write_bytes(bytes.into()).await?)
    }

    /// Completes the file.
    pub(crate) async fn finish(mut self) -> Result<FileEntry> {
        if self.gathered > 0 {
            self.encode()?;
        }
        while !self.encoding.is_empty() {
            self.append().await?;
        }
        self.writer.finish()?;
        self.pass_on().await?;
        self.file.set_row_groups(self.begun as u64);
        Ok(self.file.finish(Some(self.rows)).await?)
    }
}

/// The columns of a row group.
fn encoded(
    mut writers: Vec<ArrowColumnWriter>,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<Vec<ArrowColumnChunk>> {
    for batch in batches {
        let mut columns = writers.iter_mut();
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, column)? {
                if let Some(writer) = columns.next() {
                    writer.write(&leaf)?;
                }
            }
        }
    }
    Ok(writers.into_iter().map(ArrowColumnWriter::close).collect::<std::result::Result<_, _>>()?)
}
