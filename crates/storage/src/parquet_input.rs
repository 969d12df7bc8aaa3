//! Reading one pinned Parquet object: checked footer, guarded decoder, counted rows.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream};
use futures::{FutureExt, StreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::basic::{ConvertedType, Encoding, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader};

use crate::footer::Refusal;
use crate::isolated::Apart;
use crate::location::printable;
use crate::pinned::Pinned;
use crate::pinned_reader::PinnedReader;
use crate::preflight::read_footer;
use crate::{Error, Footer, InputFile, ParquetFault, Result, Stores};

/// The record batches of a Parquet object, in file order.
pub type Batches = BoxStream<'static, Result<RecordBatch>>;

/// Codecs that this build decodes, as bits: none, snappy, gzip, brotli, lz4, zstd, lz4_raw; not LZO.
const CODECS: u32 = 0b1111_0111;
const CODEC_NAMES: [&str; 8] = ["uncompressed", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw"];

/// Decoded bytes that any file may have, however small it is.
const MIN_DECODED_BUDGET: u64 = 1 << 30;
/// Decoded bytes for each byte of the file beyond which a file is taken for a bomb.
const MAX_EXPANSION: u64 = 1_000;
/// Decoded bytes of one batch.
const MAX_BATCH_BYTES: usize = 1 << 30;
/// Bytes of a column chunk, before compression, beyond which its dictionary is not kept beside its batches.
const MOST_DICTIONARY_CHUNK: i64 = 1 << 28;

/// An open Parquet object whose footer passed every check. Clones share the decoded footer.
#[derive(Clone, Debug)]
pub struct ParquetInput {
    object: Pinned,
    footer: Arc<Footer>,
    metadata: ArrowReaderMetadata,
    options: ArrowReaderOptions,
    budget: u64,
    /// Where another process decodes it.
    apart: Option<Apart>,
}

/// Opens one Parquet object: checks its footer, decodes it, and pins the object, so that all reads see the same bytes.
///
/// # Errors
/// [`Error::Parquet`] for a bad file and for one that changed since it was listed; what the store answered.
pub async fn open_parquet(stores: &Stores, file: &InputFile) -> Result<ParquetInput> {
    let object = Pinned::new(stores.store(&file.location)?, file);
    let (footer, bytes) = read_footer(&object).await?;
    let metadata = guarded(object.name(), || ParquetMetaDataReader::decode_metadata(&bytes))?
        .map_err(|e| decode_error(object.name(), ParquetFault::FooterDamaged, e))?;
    let metadata = Arc::new(metadata);
    let mut options = ArrowReaderOptions::new();
    let load = |options: &ArrowReaderOptions| {
        guarded(object.name(), || ArrowReaderMetadata::try_new(Arc::clone(&metadata), options.clone()))
    };
    let arrow = match load(&options) {
        Ok(Ok(arrow)) => arrow,
        Ok(Err(_)) | Err(_) => {
            // The Arrow schema is a hint of the writer; without it the Parquet schema counts.
            options = options.with_skip_arrow_metadata(true);
            let arrow = load(&options)?.map_err(|e| decode_error(object.name(), ParquetFault::FooterDamaged, e))?;
            tracing::warn!(file = object.name(), "the Arrow schema in the footer is damaged; using the Parquet schema");
            arrow
        }
    };
    let rows = u64::try_from(arrow.metadata().file_metadata().num_rows()).ok();
    if rows != Some(footer.rows) || arrow.metadata().num_row_groups() != footer.row_groups {
        let reason = "the footer reads differently twice".to_owned();
        return Err(fault(ParquetFault::FooterDamaged, object.name(), reason));
    }
    let budget = object.size().saturating_mul(MAX_EXPANSION).max(MIN_DECODED_BUDGET);
    let apart = Apart::of(stores, file);
    Ok(ParquetInput { object, footer: Arc::new(footer), metadata: arrow, options, budget, apart })
}

impl ParquetInput {
    /// The Arrow schema of the batches, before projection.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Rows in the file.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// Row groups in the file.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.footer.row_groups
    }

    /// The checked footer.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Rows of one row group; 0 when there is no such row group.
    #[must_use]
    pub fn row_group_rows(&self, row_group: usize) -> u64 {
        let group = self.metadata.metadata().row_groups().get(row_group);
        group.and_then(|group| u64::try_from(group.num_rows()).ok()).unwrap_or(0)
    }

    /// Bytes that the given root columns take when decompressed, by the footer.
    #[must_use]
    pub fn uncompressed_bytes(&self, columns: &[usize]) -> u64 {
        let leaves = self.leaves(columns);
        leaves
            .filter_map(|leaf| self.footer.uncompressed_bytes.get(leaf))
            .fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// Refuses files whose columns take more than `bytes` when decompressed; the default is 1,000 bytes for each byte
    /// of the file, and at least 1 GiB.
    #[must_use]
    pub fn with_decoded_budget(mut self, bytes: u64) -> Self {
        self.budget = bytes;
        self
    }

    /// Reads a string column (root index) as `Dictionary(Int32, Utf8)` if that is how all its pages are encoded, so that a
    /// value is decoded once for each row group. Other columns stay as they are.
    ///
    /// # Errors
    /// [`Error::Parquet`] when the decoder refuses its own schema.
    pub fn with_dictionary(mut self, column: usize) -> Result<Self> {
        let schema = self.schema();
        let strings =
            |field: &Field| matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if !schema.fields().get(column).is_some_and(|field| strings(field)) || !self.is_dictionary(column) {
            return Ok(self);
        }
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let fields: Fields = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| {
                if i == column {
                    Arc::new(field.as_ref().clone().with_data_type(dictionary.clone()))
                } else {
                    Arc::clone(field)
                }
            })
            .collect();
        let wanted = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let options = self.options.clone().with_schema(wanted);
        let name = self.object.name();
        let metadata = Arc::clone(self.metadata.metadata());
        self.metadata = guarded(name, || ArrowReaderMetadata::try_new(metadata, options))?
            .map_err(|e| decode_error(name, ParquetFault::FooterDamaged, e))?;
        if let Some(apart) = &mut self.apart {
            apart.with_dictionary(column);
        }
        Ok(self)
    }

    /// Streams the given root columns of all row groups in batches of at most `batch_size` rows.
    ///
    /// # Errors
    /// [`Error::Parquet`] when a column uses an unknown codec or the columns are over the budget. Items of the stream
    /// are errors for pages that do not decode, a decoder that panics, an object that changed, and for more or fewer
    /// rows than the footer says.
    pub async fn stream(self, columns: &[usize], batch_size: usize) -> Result<Batches> {
        let all: Vec<usize> = (0..self.row_groups()).collect();
        self.stream_row_groups(&all, columns, batch_size).await
    }

    /// As [`stream`](Self::stream), for some row groups; several such streams may run at once.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub async fn stream_row_groups(
        &self,
        row_groups: &[usize],
        columns: &[usize],
        batch_size: usize,
    ) -> Result<Batches> {
        let name = self.object.name();
        let descriptor = self.metadata.parquet_schema();
        self.check_codecs(columns)?;
        let bytes = self.uncompressed_bytes(columns);
        if bytes > self.budget {
            let reason = format!("the columns take {bytes} bytes when decompressed, the limit is {}", self.budget);
            return Err(fault(ParquetFault::DecodedBudget, name, reason));
        }
        let mut expected = 0_u64;
        for &group in row_groups {
            if group >= self.row_groups() {
                return Err(Error::Bug { reason: format!("there is no row group {group} in {name}"), source: None });
            }
            expected = expected.saturating_add(self.row_group_rows(group));
        }
        self.check_widths(columns, batch_size)?;
        if let Some(apart) = &self.apart {
            return apart.decode(name, self.budget, row_groups, columns, batch_size);
        }
        let metadata = Arc::clone(self.metadata.metadata());
        let reader = PinnedReader::new(self.object.clone(), metadata, row_groups, self.leaves(columns));
        let mask = ProjectionMask::roots(descriptor, columns.iter().copied());
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
            .with_row_groups(row_groups.to_vec())
            .with_projection(mask)
            .with_batch_size(batch_size.max(1));
        let stream = guarded(name, || builder.build())?.map_err(|e| decode_error(name, ParquetFault::Page, e))?;
        let guarded =
            Guarded { stream: stream.boxed(), object: self.object.clone(), expected, read: 0, end: None, done: false };
        Ok(guarded.boxed())
    }

    /// Whether the footer says so of all data pages of a column of texts. Of a chunk that is large its dictionary may be too.
    fn is_dictionary(&self, column: usize) -> bool {
        let dictionary = |chunk: &ColumnChunkMetaData| {
            chunk.uncompressed_size() <= MOST_DICTIONARY_CHUNK
                && chunk.page_encoding_stats_mask().is_some_and(|pages| {
                    pages.is_only(Encoding::RLE_DICTIONARY) || pages.is_only(Encoding::PLAIN_DICTIONARY)
                })
        };
        let descriptor = self.metadata.parquet_schema();
        let groups = self.metadata.metadata().row_groups();
        self.leaves(&[column]).all(|leaf| {
            // The decoder makes bytes of the values of others.
            descriptor.column(leaf).converted_type() == ConvertedType::UTF8
                && groups.iter().all(|group| group.columns().get(leaf).is_some_and(dictionary))
        })
    }

    fn leaves<'a>(&'a self, columns: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
        let descriptor = self.metadata.parquet_schema();
        (0..descriptor.num_columns()).filter(|&leaf| columns.contains(&descriptor.get_column_root_idx(leaf)))
    }

    /// Null costs as much as a value where all values have one width.
    fn check_widths(&self, columns: &[usize], batch_size: usize) -> Result<()> {
        let descriptor = self.metadata.parquet_schema();
        for leaf in self.leaves(columns) {
            let column = descriptor.column(leaf);
            let fixed = column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY;
            let width = if fixed { usize::try_from(column.type_length()).unwrap_or(usize::MAX) } else { 0 };
            if width.saturating_mul(batch_size) > MAX_BATCH_BYTES {
                let reason = format!(
                    "values of {width} bytes, {batch_size} rows of which are over the limit of {MAX_BATCH_BYTES} bytes"
                );
                return Err(self.refused(leaf, ParquetFault::DecodedBudget, reason));
            }
        }
        Ok(())
    }

    fn check_codecs(&self, columns: &[usize]) -> Result<()> {
        for leaf in self.leaves(columns) {
            let foreign = self.footer.codecs.get(leaf).copied().unwrap_or(0) & !CODECS;
            if foreign != 0 {
                let codec = usize::try_from(foreign.trailing_zeros()).ok().and_then(|i| CODEC_NAMES.get(i));
                let reason = format!("the column is compressed with {}", codec.unwrap_or(&"an unknown codec"));
                return Err(self.refused(leaf, ParquetFault::Codec, reason));
            }
        }
        Ok(())
    }

    fn refused(&self, leaf: usize, fault: ParquetFault, reason: String) -> Error {
        Refusal::new(fault, reason).in_column(self.footer.leaves.get(leaf).cloned()).of(self.object.name())
    }
}

/// A stream that outlives neither a panic nor an error, counts rows, and looks at the object again at its end.
struct Guarded {
    stream: BoxStream<'static, parquet::errors::Result<RecordBatch>>,
    object: Pinned,
    expected: u64,
    read: u64,
    end: Option<BoxFuture<'static, Result<()>>>,
    done: bool,
}

impl Guarded {
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        if let Some(end) = &mut self.end {
            return end.poll_unpin(cx).map(|checked| checked.err().map(Err));
        }
        let stream = &mut self.stream;
        let polled = catch_unwind(AssertUnwindSafe(|| stream.poll_next_unpin(cx)));
        let item = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(item)) => item,
            Err(payload) => return Poll::Ready(Some(Err(panicked(self.object.name(), payload)))),
        };
        match item {
            Some(Ok(batch)) => Poll::Ready(Some(self.count(batch))),
            Some(Err(error)) => Poll::Ready(Some(Err(decode_error(self.object.name(), ParquetFault::Page, error)))),
            None if self.read != self.expected => {
                let reason = format!("the footer says {} rows, {} were read", self.expected, self.read);
                Poll::Ready(Some(Err(fault(ParquetFault::RowCount, self.object.name(), reason))))
            }
            None => {
                let object = self.object.clone();
                self.end = Some(async move { object.still_the_same().await }.boxed());
                self.advance(cx)
            }
        }
    }

    fn count(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        self.read = self.read.saturating_add(batch.num_rows() as u64);
        let bytes = batch.get_array_memory_size();
        if bytes > MAX_BATCH_BYTES {
            let reason =
                format!("{} rows take {bytes} bytes when decoded, the limit is {MAX_BATCH_BYTES}", batch.num_rows());
            return Err(fault(ParquetFault::DecodedBudget, self.object.name(), reason));
        }
        Ok(batch)
    }
}

impl Stream for Guarded {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let item = self.advance(cx);
        self.done = matches!(item, Poll::Ready(None | Some(Err(_))));
        item
    }
}

/// Runs a decoder that may panic on bytes that it did not expect.
fn guarded<T>(file: &str, decode: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).map_err(|payload| panicked(file, payload))
}

/// The text of a panic may hold data, so it is dropped; the panic hook has told its place.
fn panicked(file: &str, payload: Box<dyn Any + Send>) -> Error {
    drop(payload);
    fault(ParquetFault::DecoderPanic, file, "the decoder panicked on a page or on the footer".to_owned())
}

fn fault(fault: ParquetFault, file: &str, reason: String) -> Error {
    Refusal::new(fault, reason).of(file)
}

/// Our error for one of the decoder; errors of our own reader come back as they were.
fn decode_error(file: &str, kind: ParquetFault, error: ParquetError) -> Error {
    let error = match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(source) => ParquetError::External(source),
        },
        other => other,
    };
    let text = error.to_string();
    // Texts of one batch over 2 GiB: offsets of 32 bits end there, long after the budget.
    let kind = if text.contains("index overflow decoding byte array") { ParquetFault::DecodedBudget } else { kind };
    let reason = format!("cannot be decoded: {}", printable(&text));
    Error::Parquet {
        fault: kind,
        reason,
        file: file.to_owned(),
        row_group: None,
        column: None,
        source: Some(Box::new(error)),
    }
}
