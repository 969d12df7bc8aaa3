//! A Parquet file whose row groups are encoded beside each other, on some cores, and written one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation, UnboundedMemoryPool};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::writer::SerializedFileWriter;
use item_affinity_storage::{FileEntry, FileWriter};

use crate::error::Result;

/// Rows of a row group: enough that what a reader does once for each does not count, few enough that one takes some ten
/// megabytes with ids of usual length, and that no string array comes near 2 GiB.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 18;

/// More row groups at once would fill memory faster than files.
const MOST_AT_ONCE: usize = 4;

/// How many row groups of a file are encoded at once, and whose memory they take.
#[derive(Clone, Debug)]
pub(crate) struct RowGroupBudget {
    at_once: usize,
    memory: Arc<dyn MemoryPool>,
}

impl RowGroupBudget {
    /// As many as the session has partitions, at most four, from its memory.
    pub(crate) fn of(ctx: &SessionContext) -> Self {
        Self::new(ctx.copied_config().target_partitions(), Arc::clone(&ctx.runtime_env().memory_pool))
    }

    /// At most four, where no session has a limit of memory.
    pub(crate) fn without_session() -> Self {
        Self::new(MOST_AT_ONCE, Arc::new(UnboundedMemoryPool::default()))
    }

    fn new(at_once: usize, memory: Arc<dyn MemoryPool>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { at_once: at_once.min(cores).clamp(1, MOST_AT_ONCE), memory }
    }
}

/// Writes batches in the order they come. The bytes depend neither on the number of threads nor on the memory.
///
/// Rows are reserved until they are encoded. Where memory has no room for more, those that are encoded are waited for; the
/// rows of one row group are held in any case.
pub(crate) struct RowGroups {
    file: FileWriter,
    /// Writes into memory what goes on into the file.
    writer: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The row group that is gathered.
    batches: Vec<RecordBatch>,
    gathered: usize,
    /// What of its rows is reserved.
    memory: MemoryReservation,
    /// Row groups that are encoded, in their order.
    encoding: VecDeque<Encoding>,
    /// How many of them at most.
    at_once: usize,
    begun: usize,
    rows: u64,
}

/// A row group that is encoded.
struct Encoding {
    chunks: SpawnedTask<Result<Vec<ArrowColumnChunk>>>,
    /// Given back when it is written.
    _memory: MemoryReservation,
}

impl RowGroups {
    pub(crate) fn new(
        file: FileWriter,
        schema: &SchemaRef,
        properties: WriterProperties,
        budget: &RowGroupBudget,
    ) -> Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
        let (writer, factory) = writer.into_serialized_writer()?;
        Ok(Self {
            file,
            writer,
            factory,
            schema: Arc::clone(schema),
            batches: Vec::new(),
            gathered: 0,
            memory: MemoryConsumer::new("RowGroups").register(&budget.memory),
            encoding: VecDeque::new(),
            at_once: budget.at_once,
            begun: 0,
            rows: 0,
        })
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let mut from = 0;
        while from < batch.num_rows() {
            let length = (batch.num_rows() - from).min(ROW_GROUP_ROWS - self.gathered);
            let rows = batch.slice(from, length);
            self.reserve(&rows).await?;
            self.batches.push(rows);
            self.gathered += length;
            from += length;
            if self.gathered == ROW_GROUP_ROWS {
                self.encode().await?;
            }
        }
        Ok(())
    }

    /// Takes the memory of these rows, when it is there or row groups give it back.
    async fn reserve(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut bytes = 0;
        for column in rows.columns() {
            bytes += column.to_data().get_slice_memory_size()?;
        }
        while self.memory.try_grow(bytes).is_err() && !self.encoding.is_empty() {
            self.append().await?;
        }
        Ok(())
    }

    /// Sends the row group that has come together to be encoded, when there are few enough others.
    async fn encode(&mut self) -> Result<()> {
        while self.encoding.len() >= self.at_once {
            self.append().await?;
        }
        let writers = self.factory.create_column_writers(self.begun)?;
        let (schema, batches) = (Arc::clone(&self.schema), std::mem::take(&mut self.batches));
        let chunks = SpawnedTask::spawn_blocking(move || encoded(writers, &schema, &batches));
        self.encoding.push_back(Encoding { chunks, _memory: self.memory.take() });
        self.begun += 1;
        self.gathered = 0;
        Ok(())
    }

    /// Writes the row group that was sent first.
    async fn append(&mut self) -> Result<()> {
        let Some(Encoding { chunks, _memory }) = self.encoding.pop_front() else { return Ok(()) };
        let chunks = chunks.join().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
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
            self.encode().await?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int32Array};
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use item_affinity_datafusion::{SessionSettings, session};
    use item_affinity_storage::{Artifact, Location, Stores, Versions};

    use super::*;

    /// What an `i32` of each row takes.
    const GROUP_BYTES: usize = 4 * ROW_GROUP_ROWS;

    /// Writes five row groups and a rest in batches of a quarter; gives the file, and how much was reserved and how many
    /// row groups were encoded at most.
    async fn written(at_once: usize, limit: usize) -> (FileEntry, usize, usize) {
        let location = Location::parse("memory:///out").unwrap();
        let versions = Versions::new(&Stores::in_memory(), location, Artifact::Segments).unwrap();
        let run = versions.begin().await.unwrap();
        let memory: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
        let budget = RowGroupBudget { at_once, memory: Arc::clone(&memory) };
        let rows = i32::try_from(ROW_GROUP_ROWS / 4).unwrap();
        let column: ArrayRef = Arc::new(Int32Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("rank", column)]).unwrap();
        let file = run.writer("part-00000.parquet").await.unwrap();
        let mut groups = RowGroups::new(file, &batch.schema(), WriterProperties::default(), &budget).unwrap();
        let (mut reserved, mut encoding) = (0, 0);
        for _ in 0..21 {
            groups.write(&batch).await.unwrap();
            reserved = reserved.max(memory.reserved());
            encoding = encoding.max(groups.encoding.len());
        }
        let entry = groups.finish().await.unwrap();
        assert_eq!(memory.reserved(), 0);
        run.abandon().await;
        (entry, reserved, encoding)
    }

    #[tokio::test]
    async fn p25_row_groups_are_bounded_by_threads_and_memory_which_do_not_show() {
        let (one, reserved, encoding) = written(1, usize::MAX).await;
        assert_eq!((one.row_groups, one.rows), (Some(6), Some(21 * (ROW_GROUP_ROWS as u64) / 4)));
        assert!(encoding == 1 && (GROUP_BYTES..=2 * GROUP_BYTES).contains(&reserved), "{encoding} {reserved}");
        let (four, reserved, encoding) = written(4, usize::MAX).await;
        assert!(encoding == 4 && reserved > 3 * GROUP_BYTES, "{encoding} {reserved}");
        let limit = GROUP_BYTES * 5 / 2;
        let (little, reserved, encoding) = written(4, limit).await;
        assert!(encoding == 2 && reserved > GROUP_BYTES && reserved <= limit, "{encoding} {reserved}");
        let (none, reserved, encoding) = written(4, 0).await;
        assert_eq!((reserved, encoding), (0, 1));
        for other in [four, little, none] {
            assert_eq!(other.sha256, one.sha256);
        }
    }

    #[test]
    fn p25_a_session_encodes_no_more_row_groups_than_it_has_partitions() {
        let budget = |at_once| RowGroupBudget::new(at_once, Arc::new(UnboundedMemoryPool::default())).at_once;
        assert_eq!((budget(0), budget(1)), (1, 1));
        assert!(budget(usize::MAX) <= MOST_AT_ONCE && RowGroupBudget::without_session().at_once <= MOST_AT_ONCE);
        let settings = SessionSettings { target_partitions: Some(1), ..SessionSettings::default() };
        let ctx = session(&Stores::in_memory(), settings).unwrap();
        assert_eq!(RowGroupBudget::of(&ctx).at_once, 1);
    }
}
