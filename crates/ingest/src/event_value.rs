//! EVENT_VALUE of every accepted type as a number, and the rules that it must meet.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

/// The largest value that may act as a weight: a sum of 10^8 of them is still a finite `f32`.
pub(crate) const LARGEST_WEIGHT: f64 = 1e30;

/// The values of a batch as `f64`: exact for integers up to 2^53, the nearest `f64` beyond and for decimals.
pub(crate) fn values(array: &ArrayRef) -> Result<Float64Array, ArrowError> {
    if array.data_type() == &DataType::Float64 {
        return Ok(array.as_primitive::<Float64Type>().clone());
    }
    Ok(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// What the rules say about one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// A finite number of at least 0, or none at all.
    Good(Option<f64>),
    /// NaN or infinite.
    NotFinite,
    /// Below 0. Every interaction counts as positive, so that a bad rating has to be left out beforehand.
    Negative,
}

pub(crate) fn judge(values: &Float64Array, row: usize) -> Value {
    if values.is_null(row) {
        return Value::Good(None);
    }
    match values.value(row) {
        value if !value.is_finite() => Value::NotFinite,
        value if value < 0.0 => Value::Negative,
        // -0.0 is zero: adding 0.0 takes its sign away.
        value => Value::Good(Some(value + 0.0)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Decimal256Array, Float32Array, Int16Array, UInt64Array};
    use arrow::datatypes::i256;

    use super::*;

    #[test]
    fn integers_floats_and_decimals_become_f64() {
        let decimal = Decimal128Array::from(vec![Some(1234), None]).with_precision_and_scale(10, 2).unwrap();
        let large = Decimal256Array::from(vec![i256::from_i128(-5)]).with_precision_and_scale(50, 1).unwrap();
        let arrays: [(ArrayRef, f64); 5] = [
            (Arc::new(Int16Array::from(vec![-3])), -3.0),
            (Arc::new(UInt64Array::from(vec![1 << 53])), 9_007_199_254_740_992.0),
            (Arc::new(Float32Array::from(vec![0.5])), 0.5),
            (Arc::new(decimal), 12.34),
            (Arc::new(large), -0.5),
        ];
        for (array, expected) in arrays {
            assert_eq!(values(&array).unwrap().value(0), expected, "{}", array.data_type());
        }
    }

    #[test]
    fn nan_infinity_and_negative_numbers_are_told_apart() {
        let array = Float64Array::from(vec![
            Some(f64::NAN),
            Some(f64::INFINITY),
            Some(f64::NEG_INFINITY),
            Some(-1e-300),
            Some(-0.0),
            None,
            Some(1e308),
        ]);
        let judged: Vec<Value> = (0..array.len()).map(|row| judge(&array, row)).collect();
        assert_eq!(judged[..4], [Value::NotFinite, Value::NotFinite, Value::NotFinite, Value::Negative]);
        assert_eq!(judged[4..], [Value::Good(Some(0.0)), Value::Good(None), Value::Good(Some(1e308))]);
        assert!(matches!(judged[4], Value::Good(Some(zero)) if zero.is_sign_positive()));
    }
}
