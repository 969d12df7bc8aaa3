//! State files read back, with every rule of the format checked before a row is believed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray,
    UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType, UInt32Type};
use bytes::Bytes;
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
    // The Parquet decoder may panic on bytes that nobody foresaw; here a panic is one more kind of damage.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
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
    }));
    outcome.unwrap_or_else(|_| Err("the Parquet decoder panicked".to_owned()))
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
    for group in file.row_groups() {
        for &at in wanted {
            let chunk = group.column(at);
            if chunk.compression() != Compression::UNCOMPRESSED || chunk.dictionary_page_offset().is_some() {
                return Err(format!("column {} is not plain", chunk.column_path()));
            }
            if usize::try_from(chunk.uncompressed_size()).is_ok_and(|declared| declared <= size) {
                continue;
            }
            return Err(format!("column {} declares more bytes than the file has", chunk.column_path()));
        }
    }
    Ok(())
}

fn columns(batch: &RecordBatch) -> Result<StateRows, Damage> {
    let named = |name: &str| batch.column_by_name(name);
    let id = named(column::ITEM_ID).or_else(|| named(column::USER_ID));
    let index = named(column::ITEM_INDEX).or_else(|| named(column::USER_INDEX));
    let (Some(id), Some(index), Some(factor), Some(interactions), Some(last)) =
        (id, index, named(column::FACTOR), named(column::INTERACTIONS), named(column::LAST_INTERACTION))
    else {
        return Err("a column is missing".to_owned());
    };
    if batch.columns().iter().any(|column| column.null_count() > 0) {
        return Err("nulls in a column without nulls".to_owned());
    }
    let rows = (
        id.as_string_view_opt(),
        index.as_primitive_opt::<UInt32Type>(),
        factor.as_fixed_size_binary_opt(),
        interactions.as_primitive_opt::<Int64Type>(),
        last.as_primitive_opt::<TimestampMillisecondType>(),
    );
    let (Some(ids), Some(indexes), Some(factors), Some(interactions), Some(last)) = rows else {
        return Err("a column was decoded to another type".to_owned());
    };
    let users = named(column::USERS).and_then(|users| users.as_primitive_opt::<Int64Type>());
    Ok(StateRows {
        ids: ids.clone(),
        indexes: indexes.clone(),
        factors: factors.clone(),
        interactions: interactions.clone(),
        users: users.cloned(),
        last_interaction: last.clone(),
    })
}

pub(crate) fn not_ascending(table: Table) -> Damage {
    format!("{} is not strictly ascending", table.id())
}

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
        Ok(())
    }
}
