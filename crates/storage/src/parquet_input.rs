//! Reading one pinned Parquet object.
use crate::{Footer, InputFile, Result, Stores};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
/// The record batches of a Parquet object, in file order.
pub type Batches = BoxStream<'static, Result<RecordBatch>>;
/// An open Parquet object whose footer passed every check.
#[derive(Clone)]
pub struct ParquetInput(());
/// Opens one Parquet object.
pub async fn open_parquet(_stores: &Stores, _file: &InputFile) -> Result<ParquetInput> {
    todo!()
}
impl ParquetInput {
    /// The Arrow schema of the batches, before projection.
    pub fn schema(&self) -> &SchemaRef {
        todo!()
    }
    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        todo!()
    }
    /// Row groups in the file.
    pub fn row_groups(&self) -> usize {
        todo!()
    }
    /// The checked footer.
    pub fn footer(&self) -> &Footer {
        todo!()
    }
    /// Rows of one row group; 0 when there is no such row group.
    pub fn row_group_rows(&self, _row_group: usize) -> u64 {
        todo!()
    }
    /// Reads a string column (root index) as Dictionary(Int32, Utf8); other types stay as they are.
    pub fn with_dictionary(self, _column: usize) -> Result<Self> {
        todo!()
    }
    /// Streams the given root columns of all row groups.
    pub async fn stream(self, _columns: &[usize], _batch_size: usize) -> Result<Batches> {
        todo!()
    }
    /// Streams the given root columns of some row groups.
    pub async fn stream_row_groups(
        &self,
        _row_groups: &[usize],
        _columns: &[usize],
        _batch_size: usize,
    ) -> Result<Batches> {
        todo!()
    }
}
