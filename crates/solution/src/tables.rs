//! The files of a solution version: Arrow schemas, Parquet settings, and what a sound file looks like.
//!
//! A change here is a change of the format: raise [`FORMAT_VERSION`]. New columns are a minor change, because readers
//! find columns by name and pass over those that they do not know; everything else is a major one.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, FixedSizeBinaryArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

pub(crate) mod attribute_weights;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod pairs;

/// Names the format of a solution version, in `model.json`.
pub const FORMAT: &str = "item-affinity-solution";

/// The version of the format that this program writes, as `major.minor`.
pub const FORMAT_VERSION: &str = "1.1";

/// The major version that this program reads.
pub(crate) const FORMAT_MAJOR: u64 = 1;

/// Largest `model.json` that a reader takes into memory.
pub(crate) const MODEL_CARD_LIMIT: u64 = 64 << 20;

/// The file that describes the model, below the folder of the run.
pub(crate) const MODEL_CARD: &str = "model.json";

/// Users in a part at least, if there are that many: below it, opening files costs more than scoring their rows.
const USER_PART_MIN: usize = 512;
/// Rows in a part at most: with 149 hidden variables it then has 40 MB, which a reader holds as a whole.
pub(crate) const PART_MAX: usize = 65_536;
/// Parts that a version with many users has at least, so that this many workers have something to do.
const USER_PARTS: usize = 16;

const PAGE_BYTES: usize = 1 << 20;
/// The page limit is looked at once in so many rows; at 256 hidden variables they have a quarter of a page.
const ROWS_BETWEEN_PAGE_CHECKS: usize = 256;

/// Names of the columns, in the one place that spells them.
pub(crate) mod column {
    pub(crate) const ITEM_ID: &str = "item_id";
    pub(crate) const ITEM_INDEX: &str = "item_index";
    pub(crate) const USER_ID: &str = "user_id";
    pub(crate) const USER_INDEX: &str = "user_index";
    pub(crate) const FACTOR: &str = "factor";
    pub(crate) const LOG_ODDS: &str = "log_odds";
    pub(crate) const WEIGHT: &str = "weight";
    pub(crate) const INTERACTIONS: &str = "interactions";
    pub(crate) const USERS: &str = "users";
    pub(crate) const LAST_INTERACTION: &str = "last_interaction";
}

/// The two kinds of state files; each has its own id column, and items also count their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Items,
    Users,
}

impl Table {
    /// The folder of the parts, below the folder of the run.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Users => "users",
        }
    }

    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Items => column::ITEM_ID,
            Self::Users => column::USER_ID,
        }
    }

    pub(crate) const fn index(self) -> &'static str {
        match self {
            Self::Items => column::ITEM_INDEX,
            Self::Users => column::USER_INDEX,
        }
    }

    /// Path of a part below the folder of the run; the order of names is the order of parts.
    pub(crate) fn part_name(self, part: usize) -> String {
        format!("{}/part-{part:05}.parquet", self.folder())
    }

    /// Rows in each part but the last, for so many rows in all.
    pub(crate) fn rows_per_part(self, rows: usize) -> usize {
        match self {
            Self::Items => PART_MAX,
            Self::Users => rows.div_ceil(USER_PARTS).clamp(USER_PART_MIN, PART_MAX),
        }
    }

    pub(crate) fn schema(self, hidden_dimension: usize) -> SchemaRef {
        match self {
            Self::Items => item_states_schema(hidden_dimension),
            Self::Users => user_states_schema(hidden_dimension),
        }
    }
}

/// The schema of item states: one row per item, sorted by `item_id`; `item_index` is the place in that order.
///
/// `factor` is `hidden_dimension` little-endian `f32`s in a row; see [`factor_values`]. `log_odds` is what the item adds
/// to the log-odds of a new pair.
#[must_use]
pub fn item_states_schema(hidden_dimension: usize) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(column::ITEM_ID, DataType::Utf8, false),
        Field::new(column::ITEM_INDEX, DataType::UInt32, false),
        factor_field(hidden_dimension),
        Field::new(column::LOG_ODDS, DataType::Float32, false),
        Field::new(column::INTERACTIONS, DataType::Int64, false),
        Field::new(column::USERS, DataType::Int64, false),
        last_interaction_field(),
    ]))
}

/// The schema of user states: one row per user, sorted by `user_id`; `user_index` is the place in that order.
///
/// `factor` is `hidden_dimension` little-endian `f32`s in a row; see [`factor_values`]. `log_odds` is what the user adds
/// to the log-odds of a new pair.
#[must_use]
pub fn user_states_schema(hidden_dimension: usize) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(column::USER_ID, DataType::Utf8, false),
        Field::new(column::USER_INDEX, DataType::UInt32, false),
        factor_field(hidden_dimension),
        Field::new(column::LOG_ODDS, DataType::Float32, false),
        Field::new(column::INTERACTIONS, DataType::Int64, false),
        last_interaction_field(),
    ]))
}

/// All schemas as they stand in a commit: for people, not for readers, who look into the files.
pub(crate) fn schemas(hidden_dimension: usize) -> serde_json::Value {
    let columns = |table: Table| -> serde_json::Value {
        let schema = table.schema(hidden_dimension);
        let named = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string().into()));
        named.collect::<serde_json::Map<_, _>>().into()
    };
    let mut pairs = serde_json::Map::new();
    for field in pairs::pairs_schema().fields() {
        pairs.insert(field.name().clone(), field.data_type().to_string().into());
    }
    serde_json::json!({ "items": columns(Table::Items), "users": columns(Table::Users), "pairs": pairs })
}

fn factor_field(hidden_dimension: usize) -> Field {
    // A dimension beyond i32 cannot come from a valid recipe; the saturated width then fits no file.
    let width = i32::try_from(hidden_dimension.saturating_mul(4)).unwrap_or(i32::MAX);
    Field::new(column::FACTOR, DataType::FixedSizeBinary(width), false)
}

fn last_interaction_field() -> Field {
    Field::new(column::LAST_INTERACTION, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false)
}

/// The factors of an array as numbers, row after row: the operand of a matrix product as it lies in the file.
///
/// Nothing is copied when the buffer lies on a multiple of four bytes and the machine is little-endian.
///
/// # Shapes
/// `array.len()` × `array.value_length() / 4`, row-major. A width that is not a multiple of four leaves a rest at the
/// end of the array, which is not returned; the loader refuses such files.
#[must_use]
pub fn factor_values(array: &FixedSizeBinaryArray) -> Cow<'_, [f32]> {
    let bytes = array.len().saturating_mul(array.value_size()).min(array.values().len());
    let count = bytes / size_of::<f32>();
    let buffer = array.values();
    let whole = buffer.len().is_multiple_of(size_of::<f32>());
    let aligned = buffer.as_ptr().align_offset(align_of::<f32>()) == 0;
    if cfg!(target_endian = "little") && whole && aligned {
        return Cow::Borrowed(&buffer.typed_data::<f32>()[..count]);
    }
    let (values, _) = buffer.as_slice()[..bytes].as_chunks::<4>();
    Cow::Owned(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

/// How the files are written: everything plain, so that a factor column is one run of numbers and a file never decodes
/// to more than its own size, and nothing that differs between two runs over the same data.
pub(crate) fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN)
        .set_max_row_group_row_count(Some(PART_MAX))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(ROWS_BETWEEN_PAGE_CHECKS)
        // Ranges of ids let a reader find the part of one id; the range of a vector of numbers means nothing.
        .set_column_statistics_enabled(ColumnPath::from(column::FACTOR), EnabledStatistics::None)
        .build()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use arrow::buffer::Buffer;

    use super::*;

    fn array(bytes: Buffer) -> FixedSizeBinaryArray {
        FixedSizeBinaryArray::try_new(8, bytes, None).unwrap()
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn aligned_factors_are_not_copied() {
        let values = factor_values_of(array(Buffer::from_vec(vec![1.0f32, -2.0, 3.5, 0.0])));
        assert_eq!(values, (vec![1.0, -2.0, 3.5, 0.0], true));
    }

    #[test]
    fn a_slice_of_an_array_gives_its_own_rows() {
        let whole = array(Buffer::from_vec(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(factor_values_of(whole.slice(1, 1)), (vec![3.0, 4.0], true));
        assert_eq!(factor_values_of(whole.slice(3, 0)).0, Vec::<f32>::new());
    }

    #[test]
    fn factors_off_a_multiple_of_four_are_copied_right() {
        let mut shifted = vec![0u8];
        shifted.extend(bytes(&[1.0, -2.0, 3.5, f32::MIN_POSITIVE]));
        let shifted = Buffer::from_vec(shifted).slice(1);
        assert_eq!(factor_values_of(array(shifted)), (vec![1.0, -2.0, 3.5, f32::MIN_POSITIVE], false));
    }

    fn factor_values_of(array: FixedSizeBinaryArray) -> (Vec<f32>, bool) {
        let values = factor_values(&array);
        let borrowed = matches!(values, Cow::Borrowed(_));
        (values.into_owned(), borrowed)
    }

    #[test]
    fn users_are_cut_into_at_least_sixteen_parts_of_bounded_size() {
        for (users, rows, parts) in [
            (1, 512, 1),
            (512, 512, 1),
            (513, 512, 2),
            (8_192, 512, 16),
            (65_536, 4_096, 16),
            (160_000, 10_000, 16),
            (1_048_576, 65_536, 16),
            (3_000_000, 65_536, 46),
        ] {
            assert_eq!(Table::Users.rows_per_part(users), rows, "{users}");
            assert_eq!(users.div_ceil(rows), parts, "{users}");
        }
        assert_eq!(Table::Items.rows_per_part(1_000), PART_MAX);
    }

    #[test]
    fn names_of_parts_sort_in_their_order() {
        assert_eq!(Table::Users.part_name(3), "users/part-00003.parquet");
        assert!(Table::Users.part_name(9) < Table::Users.part_name(10));
    }

    #[test]
    fn version_constant_is_of_the_major_that_is_read() {
        assert_eq!(FORMAT_VERSION.split_once('.').unwrap().0, FORMAT_MAJOR.to_string());
    }
}
