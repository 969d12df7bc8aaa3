//! An open file of a data set, Parquet or CSV: from here on there is no difference.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use item_affinity_storage::{FileKind, InputFile, ParquetInput, Stores, open_parquet};

use crate::csv_input::CsvInput;
use crate::dataset_schema::DatasetSchema;
use crate::error::{Error, Result};

/// An open file.
#[derive(Clone)]
pub(crate) enum TableInput {
    Parquet(Box<ParquetInput>),
    Csv(Box<CsvInput>),
}

/// The files that a data set is made of: CSV where there is a schema for them.
pub(crate) fn file_kind(schema: Option<&Arc<DatasetSchema>>) -> FileKind {
    if schema.is_some() { FileKind::CSV } else { FileKind::PARQUET }
}

impl TableInput {
    pub(crate) async fn open(stores: &Stores, file: &InputFile, schema: Option<&Arc<DatasetSchema>>) -> Result<Self> {
        Ok(match schema {
            None => Self::Parquet(Box::new(open_parquet(stores, file).await?)),
            Some(schema) => Self::Csv(Box::new(CsvInput::open(stores, file, schema).await?)),
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Parquet(input) => input.schema(),
            Self::Csv(input) => input.schema(),
        }
    }

    /// Rows of the file; none when only reading it tells.
    pub(crate) fn rows(&self) -> Option<u64> {
        match self {
            Self::Parquet(input) => Some(input.rows()),
            Self::Csv(_) => None,
        }
    }

    /// Parts that can be read side by side; CSV is read in one go.
    pub(crate) fn row_groups(&self) -> usize {
        match self {
            Self::Parquet(input) => input.row_groups(),
            Self::Csv(_) => 1,
        }
    }

    pub(crate) fn row_group_rows(&self, row_group: usize) -> Option<u64> {
        match self {
            Self::Parquet(input) => Some(input.row_group_rows(row_group)),
            Self::Csv(_) => None,
        }
    }

    /// Columns of texts (root indexes) come as dictionaries where all their pages are.
    pub(crate) fn with_dictionaries(self, columns: impl Iterator<Item = usize>) -> Result<Self> {
        match self {
            Self::Parquet(mut input) => {
                for column in columns {
                    *input = input.with_dictionary(column)?;
                }
                Ok(Self::Parquet(input))
            }
            Self::Csv(input) => Ok(Self::Csv(input)),
        }
    }

    pub(crate) async fn stream_row_groups(
        &self,
        row_groups: &[usize],
        columns: &[usize],
        batch_size: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        match self {
            Self::Parquet(input) => {
                Ok(input.stream_row_groups(row_groups, columns, batch_size).await?.map_err(Error::from).boxed())
            }
            Self::Csv(input) => input.stream(columns, batch_size),
        }
    }
}
