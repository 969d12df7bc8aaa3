//! Pairs with history, by item: what a user's own events with an item say about the next one.
//!
//! A job reads the parts of the items that it asks for, instead of every user's history.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, UInt32Type};
use bytes::Bytes;
use item_affinity_model::Csr;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::column;
use super::decode::{Damage, guarded, plain_columns};
use super::encode::parquet_file;
use crate::error::{Error, Result};

/// The folder of the parts, below the folder of the run.
pub(crate) const FOLDER: &str = "pairs";
/// Rows in a part: 8 MB, which is what a request for one item reads at least.
pub(crate) const PART_ROWS: usize = 1 << 19;
const BATCH_ROWS: usize = 1 << 16;

/// The schema of pairs with history: one row per pair, sorted by `item_index`, then `user_index`.
///
/// `log_odds` is the whole log-odds of the pair; `weight` is what the user's factors were solved with.
#[must_use]
pub fn pairs_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(column::ITEM_INDEX, DataType::UInt32, false),
        Field::new(column::USER_INDEX, DataType::UInt32, false),
        Field::new(column::LOG_ODDS, DataType::Float32, false),
        Field::new(column::WEIGHT, DataType::Float32, false),
    ]))
}

/// Path of a part below the folder of the run.
pub(crate) fn part_name(part: usize) -> String {
    format!("{FOLDER}/part-{part:05}.parquet")
}

/// All pairs, from which parts are cut: items × users, the same pairs in both.
pub(crate) struct PairTable {
    log_odds: Csr,
    weights: Csr,
}

impl PairTable {
    /// Turns users × items around.
    pub(crate) fn new(log_odds: &Csr, weights: &Csr) -> Self {
        debug_assert_eq!(log_odds.indices(), weights.indices());
        let (log_odds, weights) = rayon::join(|| log_odds.transpose(), || weights.transpose());
        Self { log_odds, weights }
    }

    /// Takes items × users.
    pub(crate) fn by_item(log_odds: Csr, weights: Csr) -> Self {
        debug_assert_eq!(log_odds.indices(), weights.indices());
        Self { log_odds, weights }
    }

    pub(crate) fn len(&self) -> usize {
        self.log_odds.nnz()
    }

    /// How many users each item has had.
    pub(crate) fn users_by_item(&self) -> impl Iterator<Item = usize> {
        self.log_odds.indptr().windows(2).map(|bounds| bounds[1] - bounds[0])
    }

    /// The row ranges of the parts.
    pub(crate) fn parts(&self) -> Vec<Range<usize>> {
        let rows = self.log_odds.nnz();
        (0..rows).step_by(PART_ROWS).map(|start| start..rows.min(start + PART_ROWS)).collect()
    }

    /// The item of the first row of each part.
    pub(crate) fn first_items(&self) -> Vec<u32> {
        let item_of = |row: usize| self.log_odds.indptr().partition_point(|start| *start <= row) - 1;
        self.parts().iter().map(|rows| u32::try_from(item_of(rows.start)).unwrap_or(u32::MAX)).collect()
    }

    /// One part as a Parquet file.
    pub(crate) fn encode(&self, rows: Range<usize>) -> Result<Bytes> {
        let indptr = self.log_odds.indptr();
        let mut items = Vec::with_capacity(rows.len());
        let first = indptr.partition_point(|start| *start <= rows.start) - 1;
        for (item, bounds) in (first..).zip(indptr[first..].windows(2)) {
            if bounds[0] >= rows.end {
                break;
            }
            let here = bounds[1].min(rows.end) - bounds[0].max(rows.start);
            items.extend(std::iter::repeat_n(u32::try_from(item).unwrap_or(u32::MAX), here));
        }
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(UInt32Array::from(items)),
            Arc::new(UInt32Array::from(self.log_odds.indices()[rows.clone()].to_vec())),
            Arc::new(Float32Array::from(self.log_odds.values()[rows.clone()].to_vec())),
            Arc::new(Float32Array::from(self.weights.values()[rows].to_vec())),
        ];
        parquet_file(&RecordBatch::try_new(pairs_schema(), columns).map_err(Error::encode)?)
    }
}

/// Some pairs, which ascend, as a Parquet file.
pub(crate) fn encode_pairs(pairs: &[Pair]) -> Result<Bytes> {
    let index = |of: fn(&Pair) -> u32| -> Arc<dyn Array> {
        Arc::new(UInt32Array::from(pairs.iter().map(of).collect::<Vec<_>>()))
    };
    let number = |of: fn(&Pair) -> f32| -> Arc<dyn Array> {
        Arc::new(Float32Array::from(pairs.iter().map(of).collect::<Vec<_>>()))
    };
    let columns = vec![
        index(|pair| pair.item),
        index(|pair| pair.user),
        number(|pair| pair.log_odds),
        number(|pair| pair.weight),
    ];
    parquet_file(&RecordBatch::try_new(pairs_schema(), columns).map_err(Error::encode)?)
}

/// A pair with history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) item: u32,
    pub(crate) user: u32,
    pub(crate) log_odds: f32,
    pub(crate) weight: f32,
}

/// What the commit and the model card say about a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedPairs {
    pub(crate) rows: u64,
    pub(crate) items: u64,
    pub(crate) users: u64,
}

/// Reads a part and gives its pairs, in order, to `visit`.
///
/// The bytes have passed the footer preflight. A row of a plain file takes 16 bytes of it, which bounds what is read.
pub(crate) fn read_pairs(
    bytes: &Bytes,
    expected: ExpectedPairs,
    mut visit: impl FnMut(Pair),
) -> std::result::Result<(), Damage> {
    guarded(|| read(bytes, expected, &mut visit))
}

fn read(bytes: &Bytes, expected: ExpectedPairs, visit: &mut impl FnMut(Pair)) -> std::result::Result<(), Damage> {
    let unreadable = |e: parquet::errors::ParquetError| format!("cannot be read as Parquet ({e})");
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(bytes, options).map_err(unreadable)?;
    let mut wanted = Vec::new();
    for field in pairs_schema().fields() {
        let name = field.name();
        let at = metadata.schema().index_of(name).map_err(|_| format!("column {name} is missing"))?;
        let found = metadata.schema().field(at);
        if found.data_type() != field.data_type() || found.is_nullable() {
            return Err(format!("column {name} is {}, {} expected", found.data_type(), field.data_type()));
        }
        wanted.push(at);
    }
    let declared = metadata.metadata().file_metadata().num_rows();
    let fits = expected.rows.checked_mul(16).is_some_and(|least| least <= bytes.len() as u64);
    if u64::try_from(declared) != Ok(expected.rows) || !fits {
        return Err(format!("{declared} rows declared, {} expected in {} bytes", expected.rows, bytes.len()));
    }
    plain_columns(bytes.len(), &metadata, &wanted)?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), wanted);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata)
        .with_batch_size(BATCH_ROWS)
        .with_projection(mask)
        .build()
        .map_err(unreadable)?;
    let (mut seen, mut last) = (0u64, None);
    for batch in reader {
        let batch = batch.map_err(|e| format!("cannot be decoded ({e})"))?;
        let index = |name| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<UInt32Type>());
        let number = |name| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float32Type>());
        let (Some(items), Some(users), Some(log_odds), Some(weights)) =
            (index(column::ITEM_INDEX), index(column::USER_INDEX), number(column::LOG_ODDS), number(column::WEIGHT))
        else {
            return Err("a column was decoded to another type".to_owned());
        };
        for row in 0..batch.num_rows() {
            let pair = Pair {
                item: items.value(row),
                user: users.value(row),
                log_odds: log_odds.value(row),
                weight: weights.value(row),
            };
            check(pair, last, expected)?;
            last = Some((pair.item, pair.user));
            visit(pair);
        }
        seen += batch.num_rows() as u64;
    }
    if seen == expected.rows { Ok(()) } else { Err(format!("{seen} rows decoded, {} expected", expected.rows)) }
}

fn check(pair: Pair, last: Option<(u32, u32)>, expected: ExpectedPairs) -> std::result::Result<(), Damage> {
    if last.is_some_and(|last| last >= (pair.item, pair.user)) {
        return Err("pairs are not strictly ascending".to_owned());
    }
    if u64::from(pair.item) >= expected.items || u64::from(pair.user) >= expected.users {
        return Err("a pair names an item or a user that is not there".to_owned());
    }
    if !pair.log_odds.is_finite() || !pair.weight.is_finite() || pair.weight < 0.0 {
        return Err("log_odds or weight is not a number that can be".to_owned());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn table() -> PairTable {
        // users × items: user 0 had items 0 and 2, user 2 had item 2.
        let csr = |values: Vec<f32>| Csr::new(vec![0, 2, 2, 3], vec![0, 2, 2], values, 3).unwrap();
        PairTable::new(&csr(vec![-1.0, -2.0, -3.0]), &csr(vec![1.0, 2.0, 3.0]))
    }

    fn expected() -> ExpectedPairs {
        ExpectedPairs { rows: 3, items: 3, users: 3 }
    }

    fn pair(item: u32, user: u32, log_odds: f32) -> Pair {
        Pair { item, user, log_odds, weight: -log_odds }
    }

    #[test]
    fn encoded_pairs_are_decoded_by_item_and_user() {
        let table = table();
        assert_eq!(table.parts(), std::slice::from_ref(&(0..3)));
        assert_eq!(table.first_items(), [0]);
        let mut found = Vec::new();
        read_pairs(&table.encode(0..3).unwrap(), expected(), |pair| found.push(pair)).unwrap();
        assert_eq!(found, [pair(0, 0, -1.0), pair(2, 0, -2.0), pair(2, 2, -3.0)]);
        let mut rest = Vec::new();
        let rows = ExpectedPairs { rows: 2, ..expected() };
        read_pairs(&table.encode(1..3).unwrap(), rows, |pair| rest.push(pair)).unwrap();
        assert_eq!(rest, found[1..]);
    }

    #[test]
    fn pairs_that_cannot_be_are_damage() {
        let refused = |batch: RecordBatch, words: &str| {
            let bytes = parquet_file(&batch).unwrap();
            let damage =
                read_pairs(&bytes, ExpectedPairs { rows: batch.num_rows() as u64, ..expected() }, |_| ()).unwrap_err();
            assert!(damage.contains(words), "{damage}");
        };
        let batch = |items: Vec<u32>, users: Vec<u32>, log_odds: Vec<f32>, weights: Vec<f32>| {
            let columns: Vec<Arc<dyn Array>> = vec![
                Arc::new(UInt32Array::from(items)),
                Arc::new(UInt32Array::from(users)),
                Arc::new(Float32Array::from(log_odds)),
                Arc::new(Float32Array::from(weights)),
            ];
            RecordBatch::try_new(pairs_schema(), columns).unwrap()
        };
        refused(batch(vec![1, 0], vec![0, 0], vec![0.0; 2], vec![1.0; 2]), "ascending");
        refused(batch(vec![1, 1], vec![0, 0], vec![0.0; 2], vec![1.0; 2]), "ascending");
        refused(batch(vec![3], vec![0], vec![0.0], vec![1.0]), "not there");
        refused(batch(vec![0], vec![3], vec![0.0], vec![1.0]), "not there");
        refused(batch(vec![0], vec![0], vec![f32::NAN], vec![1.0]), "log_odds or weight");
        refused(batch(vec![0], vec![0], vec![0.0], vec![-1.0]), "log_odds or weight");
        let whole = table().encode(0..3).unwrap();
        let few = ExpectedPairs { rows: 2, ..expected() };
        assert!(read_pairs(&whole, few, |_| ()).unwrap_err().contains("3 rows declared, 2 expected"));
        assert!(read_pairs(&Bytes::from_static(b"PAR1"), expected(), |_| ()).is_err());
    }

    #[test]
    fn pairs_that_could_decode_to_more_than_their_file_are_damage() {
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(UInt32Array::from(vec![0, 1])),
            Arc::new(UInt32Array::from(vec![0, 0])),
            Arc::new(Float32Array::from(vec![0.0; 2])),
            Arc::new(Float32Array::from(vec![1.0; 2])),
        ];
        let batch = RecordBatch::try_new(pairs_schema(), columns).unwrap();
        // A dictionary: a writer's default.
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let expected = ExpectedPairs { rows: 2, ..expected() };
        let damage = read_pairs(&Bytes::from(file), expected, |_| ()).unwrap_err();
        assert!(damage.contains("is not plain"), "{damage}");
    }
}
