//! What each attribute of users is worth: the part of their factors that needs no history, for users who come later.

use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, Float64Array, RecordBatch, StringArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use bytes::Bytes;
use item_affinity_model::ndarray::Array2;
use item_affinity_model::{AttributeColumn, Encoding};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::decode::{Damage, guarded, plain_columns};
use super::encode::parquet_file;
use super::{column, factor_field, factor_values};
use crate::error::{Error, Result};

/// The file, below the folder of the run; only in versions that use attributes of users.
pub(crate) const FILE: &str = "user_attributes.parquet";

const COLUMN: &str = "column";
const VALUE: &str = "value";
const MEAN: &str = "mean";
const DEVIATION: &str = "deviation";

/// Weights of the features that attributes of users become.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttributeWeights {
    /// How the columns become features, in the order of the features.
    pub(crate) columns: Vec<AttributeColumn>,
    /// features × hidden_dimension
    pub(crate) weights: Array2<f32>,
}

/// The schema: one row per feature, in the order in which the features are numbered.
///
/// A feature is a `value` of a `column`, or, where `value` is null, the number in that column less `mean`, over
/// `deviation`. `factor` is what it adds to what is expected of a user's factor.
pub(crate) fn schema(hidden_dimension: usize) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(COLUMN, DataType::Utf8, false),
        Field::new(VALUE, DataType::Utf8, true),
        Field::new(MEAN, DataType::Float64, true),
        Field::new(DEVIATION, DataType::Float64, true),
        factor_field(hidden_dimension),
    ]))
}

impl AttributeWeights {
    /// Features.
    pub(crate) fn rows(&self) -> usize {
        self.weights.nrows()
    }

    /// The file.
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let (mut names, mut values, mut means, mut deviations) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for AttributeColumn { name, encoding } in &self.columns {
            match encoding {
                Encoding::Categories { values: of_column } => {
                    names.extend(of_column.iter().map(|_| name.as_str()));
                    values.extend(of_column.iter().map(|value| Some(value.as_str())));
                    means.extend(of_column.iter().map(|_| None));
                    deviations.extend(of_column.iter().map(|_| None));
                }
                Encoding::Number { mean, deviation } => {
                    names.push(name);
                    values.push(None);
                    means.push(Some(*mean));
                    deviations.push(Some(*deviation));
                }
            }
        }
        let bits: Vec<u32> = self.weights.iter().map(|value| value.to_bits().to_le()).collect();
        let width = i32::try_from(4 * self.weights.ncols()).map_err(Error::encode)?;
        let factors = FixedSizeBinaryArray::try_new(width, Buffer::from_vec(bits), None).map_err(Error::encode)?;
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(StringArray::from(names)),
            Arc::new(StringArray::from(values)),
            Arc::new(Float64Array::from(means)),
            Arc::new(Float64Array::from(deviations)),
            Arc::new(factors),
        ];
        parquet_file(&RecordBatch::try_new(schema(self.weights.ncols()), columns).map_err(Error::encode)?)
    }

    /// Reads the file back; its bytes have passed the footer preflight.
    pub(crate) fn decode(bytes: &Bytes, rows: u64, hidden_dimension: usize) -> std::result::Result<Self, Damage> {
        let mut found = Self { columns: Vec::new(), weights: Array2::zeros((0, hidden_dimension)) };
        guarded(|| {
            found = read(bytes, rows, hidden_dimension)?;
            Ok(())
        })?;
        Ok(found)
    }
}

fn read(bytes: &Bytes, rows: u64, hidden_dimension: usize) -> std::result::Result<AttributeWeights, Damage> {
    let unreadable = |e: parquet::errors::ParquetError| format!("cannot be read as Parquet ({e})");
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(bytes, options).map_err(unreadable)?;
    let fields = metadata.schema().fields();
    let wanted = schema(hidden_dimension);
    let same = fields.len() == wanted.fields().len()
        && fields.iter().zip(wanted.fields()).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    if !same {
        return Err("other columns than those of weights of attributes".to_owned());
    }
    let declared = metadata.metadata().file_metadata().num_rows();
    let fits = rows.checked_mul(4 * hidden_dimension as u64).is_some_and(|least| least <= bytes.len() as u64);
    if u64::try_from(declared) != Ok(rows) || !fits {
        return Err(format!("{declared} rows declared, {rows} expected in {} bytes", bytes.len()));
    }
    plain_columns(bytes.len(), &metadata, &(0..fields.len()).collect::<Vec<_>>())?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata).build();
    let (mut columns, mut weights) = (Vec::new(), Vec::new());
    for batch in reader.map_err(unreadable)? {
        let batch = batch.map_err(|e| format!("cannot be decoded ({e})"))?;
        add_columns(&batch, &mut columns)?;
        let factors = batch.column_by_name(column::FACTOR).and_then(|factors| factors.as_fixed_size_binary_opt());
        weights.extend_from_slice(&factor_values(factors.ok_or("factors were decoded to another type")?));
    }
    if !weights.iter().all(|weight: &f32| weight.is_finite()) {
        return Err("a weight is not a number that can be".to_owned());
    }
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let weights = Array2::from_shape_vec((rows, hidden_dimension), weights);
    Ok(AttributeWeights { columns, weights: weights.map_err(|_| "not as many weights as rows".to_owned())? })
}

/// Adds the columns of a batch; values of one column stand together, and go on in the next batch.
fn add_columns(batch: &RecordBatch, columns: &mut Vec<AttributeColumn>) -> std::result::Result<(), Damage> {
    let text = |name| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let number = |name| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float64Type>());
    let (Some(names), Some(values), Some(means), Some(deviations)) =
        (text(COLUMN), text(VALUE), number(MEAN), number(DEVIATION))
    else {
        return Err("a column was decoded to another type".to_owned());
    };
    for row in 0..batch.num_rows() {
        let name = names.value(row);
        if values.is_null(row) {
            let (mean, deviation) = (means.value(row), deviations.value(row));
            let known = means.is_valid(row) && deviations.is_valid(row) && mean.is_finite();
            if !known || !deviation.is_finite() || deviation <= 0.0 {
                return Err("a feature is neither a value nor a number".to_owned());
            }
            columns.push(AttributeColumn { name: name.to_owned(), encoding: Encoding::Number { mean, deviation } });
            continue;
        }
        let value = values.value(row).to_owned();
        match columns.last_mut() {
            Some(AttributeColumn { name: last, encoding: Encoding::Categories { values } }) if last == name => {
                if values.last().is_none_or(|before| *before >= value) {
                    return Err("values of a column are not strictly ascending".to_owned());
                }
                values.push(value);
            }
            _ => {
                let encoding = Encoding::Categories { values: vec![value] };
                columns.push(AttributeColumn { name: name.to_owned(), encoding });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_precision_loss)]
mod tests {
    use super::*;

    fn some() -> AttributeWeights {
        let values = |range: std::ops::Range<u32>| range.map(|value| format!("v{value:04}")).collect::<Vec<_>>();
        let column = |name: &str, encoding| AttributeColumn { name: name.to_owned(), encoding };
        let columns = vec![
            column("AGE", Encoding::Number { mean: 41.5, deviation: 12.25 }),
            column("AGE", Encoding::Categories { values: values(0..3) }),
            // More than a batch of rows.
            column("CITY", Encoding::Categories { values: values(0..2_000) }),
            column("HEIGHT", Encoding::Number { mean: -0.0, deviation: 1e-9 }),
        ];
        let weights = Array2::from_shape_fn((2_005, 3), |(row, at)| row as f32 - at as f32 / 7.0);
        AttributeWeights { columns, weights }
    }

    #[test]
    fn encoded_weights_are_decoded_to_the_same() {
        let weights = some();
        let bytes = weights.encode().unwrap();
        assert_eq!(AttributeWeights::decode(&bytes, 2_005, 3).unwrap(), weights);
    }

    #[test]
    fn files_that_cannot_be_are_damage() {
        let bytes = some().encode().unwrap();
        for (bytes, rows, dimension, words) in [
            (bytes.clone(), 2_004, 3, "2005 rows declared, 2004 expected"),
            (bytes.clone(), 2_005, 4, "other columns"),
            (bytes.slice(..100), 2_005, 3, "cannot be read as Parquet"),
        ] {
            let damage = AttributeWeights::decode(&bytes, rows, dimension).unwrap_err();
            assert!(damage.contains(words), "{damage}");
        }
        let refused = |change: fn(&mut AttributeWeights), words: &str| {
            let mut weights = some();
            change(&mut weights);
            let damage = AttributeWeights::decode(&weights.encode().unwrap(), 2_005, 3).unwrap_err();
            assert!(damage.contains(words), "{damage}");
        };
        refused(|of| of.weights[(7, 1)] = f32::NAN, "not a number that can be");
        refused(|of| of.columns[0].encoding = Encoding::Number { mean: 1.0, deviation: 0.0 }, "neither a value");
        refused(
            |of| {
                if let Encoding::Categories { values } = &mut of.columns[2].encoding {
                    values.swap(4, 5);
                }
            },
            "strictly ascending",
        );
    }
}
