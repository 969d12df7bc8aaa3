//! The bytes of column chunks for the decoder of a pinned object.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;

use crate::location::printable;
use crate::pinned::Pinned;
use crate::{Error, Result, pages};

/// Feeds the decoder from the pinned object.
pub(crate) struct PinnedReader {
    object: Pinned,
    metadata: Arc<ParquetMetaData>,
    /// Row group and column of the chunks, by the place of their first byte.
    chunks: HashMap<u64, (usize, usize)>,
}

impl PinnedReader {
    /// leaves: what will be read of the row groups
    pub(crate) fn new(
        object: Pinned,
        metadata: Arc<ParquetMetaData>,
        row_groups: &[usize],
        leaves: impl Iterator<Item = usize>,
    ) -> Self {
        let leaves: Vec<usize> = leaves.collect();
        let mut chunks = HashMap::new();
        for &row_group in row_groups {
            let Some(group) = metadata.row_groups().get(row_group) else { continue };
            for &leaf in &leaves {
                if let Some(chunk) = group.columns().get(leaf) {
                    chunks.insert(chunk.byte_range().0, (row_group, leaf));
                }
            }
        }
        Self { object, metadata, chunks }
    }

    /// Looks at a column chunk before the decoder does, which asks for whole chunks since it knows of no page.
    fn check(&self, start: u64, bytes: &Bytes) -> Result<()> {
        let Some(&(row_group, leaf)) = self.chunks.get(&start) else { return Ok(()) };
        let group = self.metadata.row_groups().get(row_group);
        let Some(chunk) = group.and_then(|group| group.columns().get(leaf)) else { return Ok(()) };
        pages::check(chunk, bytes).map_err(|refusal| {
            refusal.in_chunk(row_group, printable(&chunk.column_path().string())).of(self.object.name())
        })
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for PinnedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let start = range.start;
            let bytes = self.object.read(range).await.map_err(external)?;
            self.check(start, &bytes).map_err(external)?;
            Ok(bytes)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            let chunks = self.object.read_ranges(&ranges).await.map_err(external)?;
            for (range, bytes) in ranges.iter().zip(&chunks) {
                self.check(range.start, bytes).map_err(external)?;
            }
            Ok(chunks)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let metadata = Arc::clone(&self.metadata);
        async move { Ok(metadata) }.boxed()
    }
}
