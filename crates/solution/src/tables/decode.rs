//! State files read back, with every rule of the format checked before a row is believed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, FixedSizeBinaryArray, Float32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, TimestampMillisecondType, UInt32Type};
use bytes::Bytes;
use item_affinity_ingest::LONGEST_ID;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;

use super::{Table, column, factor_values};

/// Rows decoded at a time; the copy of their factors is 10 MB at most.
const BATCH_ROWS: usize = 8_192;

/// What is wrong with a file, in words; the caller adds the name of the file and the cure.
pub(crate) type Damage = String;

/// Some rows of a state file that keep the rules: ids ascend, indexes count up, factors are finite.
pub(crate) struct StateRows {
    pub(crate) ids: StringViewArray,
    indexes: UInt32Array,
    pub(crate) factors: FixedSizeBinaryArray,
    pub(crate) log_odds: Float32Array,
    pub(crate) interactions: Int64Array,
    /// Distinct users of each item; `None` for users.
    pub(crate) users: Option<Int64Array>,
    /// Epoch milliseconds.
    pub(crate) last_interaction: TimestampMillisecondArray,
}

/// What the commit and the model card say about a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) table: Table,
    pub(crate) hidden_dimension: usize,
    pub(crate) rows: u64,
    /// Index of the first row.
    pub(crate) first_index: u32,
}

/// Reads a state file and gives its rows, in order, to `visit`.
///
/// The bytes have passed the footer preflight. Sizes that the file declares are compared with its own size before
/// anything is allocated for them: plain and uncompressed, a file holds at least the bytes that it decodes to.
pub(crate) fn read_states(
    bytes: &Bytes,
    expected: Expected,
    mut visit: impl FnMut(StateRows) -> Result<(), Damage>,
) -> Result<(), Damage> {
    guarded(|| {
        let mut reader = open(bytes, expected)?;
        let mut check = RowCheck { expected, seen: 0, last_id: None };
        for batch in &mut reader {
            let rows = columns(&batch.map_err(|e| format!("cannot be decoded ({e})"))?)?;
            check.rows(&rows)?;
            visit(rows)?;
        }
        if check.seen == expected.rows {
            Ok(())
        } else {
            Err(format!("{} rows decoded, {} expected", check.seen, expected.rows))
        }
    })
}

/// The Parquet decoder may panic on bytes that nobody foresaw; here a panic is one more kind of damage.
pub(super) fn guarded(read: impl FnOnce() -> Result<(), Damage>) -> Result<(), Damage> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("the Parquet decoder panicked".to_owned()))
}

fn open(bytes: &Bytes, expected: Expected) -> Result<ParquetRecordBatchReader, Damage> {
    let unreadable = |e: parquet::errors::ParquetError| format!("cannot be read as Parquet ({e})");
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(bytes, options.clone()).map_err(unreadable)?;
    let (schema, wanted) = reading_schema(metadata.schema(), expected)?;
    declared_sizes(bytes.len(), &metadata, &wanted, expected)?;
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options.with_schema(Arc::new(schema)))
        .map_err(unreadable)?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), wanted);
    ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata)
        .with_batch_size(BATCH_ROWS)
        .with_projection(mask)
        .build()
        .map_err(unreadable)
}

/// The schema to read with, and the columns that are wanted; a column that this program does not know is left alone.
fn reading_schema(found: &Schema, expected: Expected) -> Result<(Schema, Vec<usize>), Damage> {
    let mut fields: Vec<Field> = found.fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut wanted = Vec::new();
    for field in expected.table.schema(expected.hidden_dimension).fields() {
        let name = field.name();
        let at = found.index_of(name).map_err(|_| format!("column {name} is missing"))?;
        if fields[at].data_type() != field.data_type() {
            return Err(mistyped(name, fields[at].data_type(), field.data_type()));
        }
        if fields[at].is_nullable() {
            return Err(format!("column {name} may hold nulls"));
        }
        if name == expected.table.id() {
            // Views point into the page: an id that is repeated a million times is not copied a million times.
            fields[at].set_data_type(DataType::Utf8View);
        }
        wanted.push(at);
    }
    Ok((Schema::new(fields), wanted))
}

fn mistyped(name: &str, found: &DataType, wanted: &DataType) -> Damage {
    match (found, wanted) {
        (DataType::FixedSizeBinary(found), DataType::FixedSizeBinary(wanted)) => {
            format!("factors of {found} bytes, {wanted} expected (4 times hidden_dimension)")
        }
        _ => format!("column {name} is {found}, {wanted} expected"),
    }
}

fn declared_sizes(
    size: usize,
    metadata: &ArrowReaderMetadata,
    wanted: &[usize],
    expected: Expected,
) -> Result<(), Damage> {
    let file = metadata.metadata();
    let rows = file.file_metadata().num_rows();
    if u64::try_from(rows) != Ok(expected.rows) {
        return Err(format!("{rows} rows declared, {} expected", expected.rows));
    }
    let factor_bytes = expected.rows.checked_mul(4 * expected.hidden_dimension as u64);
    if factor_bytes.is_none_or(|bytes| bytes > size as u64) {
        return Err(format!("{rows} factors of {} numbers do not fit into {size} bytes", expected.hidden_dimension));
    }
    plain_columns(size, metadata, wanted)
}

/// Checks that columns decode to no more bytes than the file has.
pub(super) fn plain_columns(size: usize, metadata: &ArrowReaderMetadata, wanted: &[usize]) -> Result<(), Damage> {
    for group in metadata.metadata().row_groups() {
        for &at in wanted {
            let chunk = group.column(at);
            if chunk.compression() != Compression::UNCOMPRESSED || chunk.dictionary_page_offset().is_some() {
                return Err(format!("column {} is not plain", chunk.column_path().string()));
            }
            if usize::try_from(chunk.uncompressed_size()).is_ok_and(|declared| declared <= size) {
                continue;
            }
            return Err(format!("column {} declares more bytes than the file has", chunk.column_path().string()));
        }
    }
    Ok(())
}

fn columns(batch: &RecordBatch) -> Result<StateRows, Damage> {
    let named = |name: &str| batch.column_by_name(name);
    let id = named(column::ITEM_ID).or_else(|| named(column::USER_ID));
    let index = named(column::ITEM_INDEX).or_else(|| named(column::USER_INDEX));
    let (Some(id), Some(index), Some(factor), Some(log_odds), Some(interactions), Some(last)) = (
        id,
        index,
        named(column::FACTOR),
        named(column::LOG_ODDS),
        named(column::INTERACTIONS),
        named(column::LAST_INTERACTION),
    ) else {
        return Err("a column is missing".to_owned());
    };
    if batch.columns().iter().any(|column| column.null_count() > 0) {
        return Err("nulls in a column without nulls".to_owned());
    }
    let rows = (
        id.as_string_view_opt(),
        index.as_primitive_opt::<UInt32Type>(),
        factor.as_fixed_size_binary_opt(),
        log_odds.as_primitive_opt::<Float32Type>(),
        interactions.as_primitive_opt::<Int64Type>(),
        last.as_primitive_opt::<TimestampMillisecondType>(),
    );
    let (Some(ids), Some(indexes), Some(factors), Some(log_odds), Some(interactions), Some(last)) = rows else {
        return Err("a column was decoded to another type".to_owned());
    };
    let users = named(column::USERS).and_then(|users| users.as_primitive_opt::<Int64Type>());
    Ok(StateRows {
        ids: ids.clone(),
        indexes: indexes.clone(),
        factors: factors.clone(),
        log_odds: log_odds.clone(),
        interactions: interactions.clone(),
        users: users.cloned(),
        last_interaction: last.clone(),
    })
}

pub(crate) fn not_ascending(table: Table) -> Damage {
    format!("{} is not strictly ascending", table.id())
}

/// The most bytes of an id in a version; readers make batches by it.
pub const MOST_ID_BYTES: usize = 4 * LONGEST_ID;

/// Follows the rows of one file.
struct RowCheck {
    expected: Expected,
    seen: u64,
    last_id: Option<String>,
}

impl RowCheck {
    fn rows(&mut self, rows: &StateRows) -> Result<(), Damage> {
        let mut previous = self.last_id.as_deref();
        for id in rows.ids.iter().flatten() {
            if id.len() > MOST_ID_BYTES {
                return Err(format!(
                    "{} has an id of {} bytes, the limit is {MOST_ID_BYTES}",
                    self.expected.table.id(),
                    id.len()
                ));
            }
            if previous.is_some_and(|previous| id <= previous) {
                return Err(not_ascending(self.expected.table));
            }
            previous = Some(id);
        }
        let last_id = previous.map(str::to_owned);
        self.last_id = last_id;
        for index in rows.indexes.values() {
            if u64::from(*index) != u64::from(self.expected.first_index) + self.seen {
                return Err(format!("{} does not count up by one", self.expected.table.index()));
            }
            self.seen += 1;
        }
        if rows.interactions.values().iter().chain(rows.users.iter().flat_map(|users| users.values())).any(|n| *n < 0) {
            return Err("a count is negative".to_owned());
        }
        if factor_values(&rows.factors).iter().any(|value| !value.is_finite()) {
            return Err("a factor is not a finite number".to_owned());
        }
        if rows.log_odds.values().iter().any(|value| !value.is_finite()) {
            return Err("log_odds is not a finite number".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};
    use arrow::buffer::Buffer;
    use item_affinity_model::Vocabulary;
    use item_affinity_model::ndarray::Array2;
    use item_affinity_storage::preflight;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::tables::encode::StateTable;
    use crate::tables::writer_properties;

    const ROWS: usize = 20;
    const DIMENSION: usize = 32;
    const EXPECTED: Expected =
        Expected { table: Table::Users, hidden_dimension: DIMENSION, rows: ROWS as u64, first_index: 0 };

    fn sound() -> Bytes {
        let ids = Vocabulary::from_sorted((0..ROWS).map(|row| format!("user-{row:02}"))).unwrap();
        let factors = Array2::from_shape_fn((ROWS, DIMENSION), |(row, column)| (row * 100 + column) as f32);
        let counts = vec![3; ROWS];
        let table = StateTable {
            table: Table::Users,
            ids: &ids,
            factors: factors.view(),
            log_odds: &[-2.5; ROWS],
            interactions: &counts,
            users: None,
            last_interaction: &counts,
        };
        table.encode(0..ROWS).unwrap()
    }

    fn batch() -> RecordBatch {
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(sound()).unwrap().build().unwrap();
        reader.next().unwrap().unwrap()
    }

    fn written(batch: &RecordBatch, properties: WriterProperties) -> Bytes {
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        file.into()
    }

    /// The sound rows with one column in place of another one.
    fn with(name: &str, array: ArrayRef) -> Bytes {
        let batch = batch();
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let column = if field.name() == name { &array } else { column };
            (field.name().clone(), Arc::clone(column), false)
        });
        written(&RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).unwrap(), writer_properties())
    }

    fn factors(change: impl FnOnce(&mut Vec<f32>)) -> ArrayRef {
        let mut values = vec![1.0f32; ROWS * DIMENSION];
        change(&mut values);
        let width = i32::try_from(4 * DIMENSION).unwrap();
        Arc::new(FixedSizeBinaryArray::try_new(width, Buffer::from_vec(values), None).unwrap())
    }

    fn ids(change: impl FnOnce(&mut Vec<String>)) -> ArrayRef {
        let mut ids = (0..ROWS).map(|row| format!("user-{row:02}")).collect();
        change(&mut ids);
        Arc::new(StringArray::from(ids))
    }

    fn read(bytes: &Bytes) -> Result<usize, Damage> {
        let mut rows = 0;
        read_states(bytes, EXPECTED, |states| {
            rows += states.ids.len();
            Ok(())
        })?;
        Ok(rows)
    }

    #[track_caller]
    fn refused(bytes: &Bytes, words: &str) {
        preflight(bytes, "part").unwrap();
        let damage = read(bytes).unwrap_err();
        assert!(damage.contains(words), "{damage}");
    }

    #[test]
    fn encoded_rows_are_decoded() {
        let mut seen = Vec::new();
        read_states(&sound(), EXPECTED, |rows| {
            seen.extend(factor_values(&rows.factors).iter().copied());
            assert_eq!(rows.ids.value(7), "user-07");
            assert_eq!(rows.last_interaction.value(7), 3_000);
            Ok(())
        })
        .unwrap();
        let expected: Vec<f32> =
            (0..ROWS).flat_map(|row| (0..DIMENSION).map(move |column| (row * 100 + column) as f32)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn factors_that_are_not_finite_are_refused() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            refused(&with("factor", factors(|values| values[100] = value)), "not a finite number");
        }
        assert_eq!(read(&with("factor", factors(|_| ()))), Ok(ROWS));
    }

    #[test]
    fn ids_that_do_not_ascend_are_refused() {
        refused(&with("user_id", ids(|ids| ids.swap(3, 4))), "user_id is not strictly ascending");
        refused(&with("user_id", ids(|ids| ids[9] = ids[8].clone())), "user_id is not strictly ascending");
        assert_eq!(read(&with("user_id", ids(|ids| ids[0] = String::new()))), Ok(ROWS));
    }

    #[test]
    fn indexes_that_do_not_count_up_from_the_first_are_refused() {
        let indexes = UInt32Array::from_iter_values((0..20).map(|index| if index < 10 { index } else { index + 1 }));
        refused(&with("user_index", Arc::new(indexes)), "does not count up");
        let expected = Expected { first_index: 1, ..EXPECTED };
        assert!(read_states(&sound(), expected, |_| Ok(())).unwrap_err().contains("does not count up"));
    }

    #[test]
    fn negative_counts_are_refused() {
        let counts = Int64Array::from_iter_values((0..20).map(|row| 5 - row));
        refused(&with("interactions", Arc::new(counts)), "a count is negative");
    }

    #[test]
    fn factors_of_another_dimension_are_refused() {
        let expected = Expected { hidden_dimension: 33, ..EXPECTED };
        let damage = read_states(&sound(), expected, |_| Ok(())).unwrap_err();
        assert_eq!(damage, "factors of 128 bytes, 132 expected (4 times hidden_dimension)");
    }

    #[test]
    fn other_row_counts_are_refused_before_anything_is_decoded() {
        for rows in [0, 19, 21, u64::MAX] {
            let mut visited = false;
            let outcome = read_states(&sound(), Expected { rows, ..EXPECTED }, |_| {
                visited = true;
                Ok(())
            });
            assert_eq!(outcome.unwrap_err(), format!("20 rows declared, {rows} expected"));
            assert!(!visited);
        }
    }

    #[test]
    fn a_missing_or_mistyped_column_is_refused_by_name() {
        let batch = batch();
        let without = batch.project(&[0, 1, 3, 4]).unwrap();
        refused(&written(&without, writer_properties()), "column factor is missing");
        let text: ArrayRef = Arc::new(StringArray::from(vec!["3"; ROWS]));
        refused(&with("interactions", text), "column interactions is Utf8, Int64 expected");
    }

    #[test]
    fn a_column_that_may_hold_nulls_is_refused() {
        let batch = batch();
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), Arc::clone(c), true));
        let nullable = RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).unwrap();
        refused(&written(&nullable, writer_properties()), "column user_id may hold nulls");
    }

    #[test]
    fn compressed_or_dictionary_columns_are_refused() {
        let compressed = WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::SNAPPY);
        refused(&written(&batch(), compressed.build()), "column user_id is not plain");
        refused(&written(&batch(), WriterProperties::builder().build()), "column user_id is not plain");
    }

    #[test]
    fn an_unknown_column_is_passed_over() {
        let batch = batch();
        let extra: ArrayRef = Arc::new(StringArray::from(vec!["later"; ROWS]));
        let mut columns = vec![("activity".to_owned(), extra, false)];
        columns.extend(
            batch.schema().fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), Arc::clone(c), false)),
        );
        let wider = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        assert_eq!(read(&written(&wider, writer_properties())), Ok(ROWS));
    }

    #[test]
    fn flipped_bits_behind_a_right_checksum_give_an_answer_and_no_panic() {
        let sound = sound();
        let mut refused = 0;
        for at in 0..sound.len() {
            let mut damaged = sound.to_vec();
            damaged[at] ^= 1 << (at % 8);
            let damaged = Bytes::from(damaged);
            if preflight(&damaged, "part").is_err() || read(&damaged).is_err() {
                refused += 1;
            }
        }
        // Other factors and counts cannot be told from right ones without the checksum; the structure can.
        assert!(refused > sound.len() / 20, "{refused} of {}", sound.len());
    }
}
