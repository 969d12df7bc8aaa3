//! `item_affinity_vector(factor)`: the factors of a solution version's files as lists of numbers.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float32Array, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use item_affinity_solution::factor_values;

use crate::routine_descriptions::Described;

/// The name in SQL.
const NAME: &str = "item_affinity_vector";

/// What lists of functions say.
pub(crate) const DESCRIBED: Described = Described {
    function: NAME,
    description: "The factor of a user or an item, a column of a solution version's files, as a list of hidden_dimension \
         numbers.",
    example: "SELECT item_id, item_affinity_vector(factor) FROM item_states",
};

/// The scalar function, ready to be registered.
pub(crate) fn vector_function() -> ScalarUDF {
    let documentation = Documentation::builder(
        DocSection { include: true, label: "Item affinity", description: None },
        DESCRIBED.description,
        "item_affinity_vector(factor)",
    )
    .with_argument("factor", "The column factor: little-endian 32-bit floating point numbers in a row.")
    .with_sql_example(DESCRIBED.example)
    .build();
    // Anything is taken, and judged by `return_type`; the second form is what lists of functions show.
    let shown = TypeSignature::Exact(vec![DataType::FixedSizeBinary(4)]);
    let signature = Signature::one_of(vec![TypeSignature::VariadicAny, shown], Volatility::Immutable);
    ScalarUDF::new_from_impl(VectorFunction { signature, documentation })
}

/// List of Float32 for FixedSizeBinary; NULL for NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorFunction {
    signature: Signature,
    documentation: Documentation,
}

fn element() -> FieldRef {
    Arc::new(Field::new("item", DataType::Float32, false))
}

impl ScalarUDFImpl for VectorFunction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::FixedSizeBinary(width)] if width % 4 == 0 => Ok(DataType::List(element())),
            [found] => plan_err!("{NAME} takes the column factor of a solution version's files, found {found}"),
            other => plan_err!("{NAME} takes (factor), got {} arguments", other.len()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [factor] = args.args.as_slice() else { return exec_err!("{NAME} takes (factor)") };
        let factor = factor.to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(vectors(factor.as_fixed_size_binary())?))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

fn vectors(factors: &FixedSizeBinaryArray) -> Result<ArrayRef> {
    let numbers = Float32Array::from_iter_values(factor_values(factors).iter().copied());
    let lengths = OffsetBuffer::from_repeated_length(factors.value_size() / size_of::<f32>(), factors.len());
    Ok(Arc::new(ListArray::try_new(element(), lengths, Arc::new(numbers), factors.nulls().cloned())?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::arrow::datatypes::Float32Type;

    use super::*;

    #[test]
    fn numbers_come_out_row_by_row_and_null_stays_null() {
        let bytes = |numbers: [f32; 2]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        let rows = [Some(bytes([1.5, -2.0])), None, Some(bytes([0.25, 8.0]))];
        let factors = FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows.into_iter(), 8).unwrap();
        let lists = vectors(&factors).unwrap();
        let lists = lists.as_list::<i32>();
        assert!(lists.is_null(1));
        assert_eq!(lists.value(0).as_primitive::<Float32Type>().values(), &[1.5, -2.0]);
        assert_eq!(lists.value(2).as_primitive::<Float32Type>().values(), &[0.25, 8.0]);
    }
}
