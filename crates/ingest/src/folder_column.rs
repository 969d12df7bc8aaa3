//! Columns that a file does not have and that the name of its folder supplies.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, DictionaryArray, Float64Array, Int64Array, StringArray, UInt8Array};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{Date32Type, UInt8Type};

use crate::error::{Error, Place, Result, printable};
use crate::schema::{Accepts, ColumnContract};

/// A column that has the value of a folder name in every row, of a type that the contract admits.
///
/// # Errors
/// [`Error::ColumnType`] when the value is no number or day where one is needed.
pub(crate) fn folder_column(
    contract: &ColumnContract,
    name: &str,
    value: Option<&str>,
    rows: usize,
    file: &str,
) -> Result<ArrayRef> {
    let Some(value) = value else {
        return Ok(match contract.accepts {
            Accepts::Id | Accepts::Text => Arc::new(StringArray::new_null(rows)),
            Accepts::Timestamp => Arc::new(Int64Array::new_null(rows)),
            Accepts::Number => Arc::new(Float64Array::new_null(rows)),
        });
    };
    let unreadable = |accepted| Error::ColumnType {
        wanted: contract.name,
        found: format!("the folder name {:?}", printable(&format!("{name}={value}"))),
        accepted,
        why: "",
        place: Box::new(Place { file: file.to_string(), row: None, column: Some(name.to_string()) }),
        cure: "rename the folder, or map a column of the file with --column",
    };
    Ok(match contract.accepts {
        Accepts::Id | Accepts::Text => {
            let values = Arc::new(StringArray::from(vec![value]));
            let column = DictionaryArray::<UInt8Type>::try_new(UInt8Array::from_value(0, rows), values);
            // One value and keys of 0 always make a dictionary.
            Arc::new(column.map_err(|_| unreadable("strings"))?)
        }
        // A day in a folder name is the day's first second, as in a Date32 column.
        Accepts::Timestamp => match (value.parse::<i64>(), Date32Type::parse(value)) {
            (Ok(number), _) => Arc::new(Int64Array::from_value(number, rows)),
            (Err(_), Some(day)) => Arc::new(Date32Array::from_value(day, rows)),
            (Err(_), None) => return Err(unreadable("epoch seconds and days such as 2024-05-31")),
        },
        Accepts::Number => {
            let number = value.parse::<f64>().map_err(|_| unreadable("numbers"))?;
            Arc::new(Float64Array::from_value(number, rows))
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::schema::Dataset;

    fn column(contract: usize, value: Option<&str>, rows: usize) -> Result<ArrayRef> {
        folder_column(&Dataset::Interactions.columns()[contract], "dt", value, rows, "f")
    }

    #[test]
    fn a_folder_name_becomes_a_column_of_the_right_type() {
        let days = column(2, Some("1970-01-02"), 2).unwrap();
        assert_eq!(days.as_any().downcast_ref::<Date32Array>().unwrap().values(), &[1, 1]);
        assert_eq!(column(2, Some("1700000000"), 1).unwrap().data_type(), &DataType::Int64);
        let types = column(3, Some("view"), 3).unwrap();
        assert_eq!((types.len(), types.logical_null_count()), (3, 0));
        let values = column(4, Some("2.5"), 2).unwrap();
        assert_eq!(values.as_any().downcast_ref::<Float64Array>().unwrap().values(), &[2.5, 2.5]);
    }

    #[test]
    fn a_null_folder_is_a_column_of_nulls() {
        for contract in 0..5 {
            assert_eq!(column(contract, None, 3).unwrap().logical_null_count(), 3);
        }
    }

    #[test]
    fn a_folder_name_that_is_no_time_or_number_is_named() {
        let error = column(2, Some("yesterday"), 1).unwrap_err().to_string();
        assert!(error.contains("found the folder name \"dt=yesterday\""), "{error}");
        assert!(column(4, Some("cheap"), 1).is_err());
    }
}
