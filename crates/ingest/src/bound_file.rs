//! A file of the input, matched with its contract.

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::columns::Source;
use crate::error::{Error, Place, Result};
use crate::folder_column::folder_column;
use crate::schema::{ColumnContract, Dataset};

/// A file of the input as a reader needs it.
#[derive(Debug)]
pub(crate) struct BoundFile {
    /// The contract that it was bound to.
    pub(crate) dataset: Dataset,
    /// Its place among the files of the read.
    pub(crate) number: usize,
    /// Its name in messages.
    pub(crate) label: String,
    /// Where each column of the contract comes from.
    pub(crate) sources: Vec<Source>,
    /// The root columns to read, ascending.
    pub(crate) projection: Vec<usize>,
}

impl BoundFile {
    /// The column of a batch, or one made from the folder name; `None` when the file has neither.
    pub(crate) fn column(&self, contract: usize, batch: &RecordBatch) -> Result<Option<ArrayRef>> {
        match &self.sources[contract] {
            Source::Column { index, .. } => {
                let position = self.projection.binary_search(index).ok();
                Ok(position.and_then(|position| batch.columns().get(position)).cloned())
            }
            Source::Partition { name, value } => {
                folder_column(self.contract(contract), name, value.as_deref(), batch.num_rows(), &self.label).map(Some)
            }
            Source::Absent => Ok(None),
        }
    }

    /// The error of a conversion with the place where it happened.
    pub(crate) fn converted<T>(&self, contract: usize, result: std::result::Result<T, ArrowError>) -> Result<T> {
        result.map_err(|source| Error::Convert {
            wanted: self.contract(contract).name,
            place: Box::new(self.place(contract)),
            source,
        })
    }

    fn contract(&self, contract: usize) -> &'static ColumnContract {
        &self.dataset.columns()[contract]
    }

    fn place(&self, contract: usize) -> Place {
        Place { file: self.label.clone(), row: None, column: self.sources[contract].name().map(ToString::to_string) }
    }
}
