//! Cells of CSV that a spreadsheet would take for a formula.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;

/// Puts `'` before texts that begin like a formula; numbers stay numbers. Returns how many cells were changed.
pub(crate) fn without_formulas(batch: &RecordBatch) -> Result<(RecordBatch, u64), ArrowError> {
    let mut changed = 0;
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
            || matches!(field.data_type(), DataType::Dictionary(_, values) if **values == DataType::Utf8);
        if !is_text {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let texts = cast(column, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let formulas = texts.iter().flatten().filter(|text| is_formula(text)).count() as u64;
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())));
        columns.push(match formulas {
            0 => Arc::new(texts.clone()) as ArrayRef,
            _ => Arc::new(texts.iter().map(|text| text.map(neutral)).collect::<StringArray>()),
        });
        changed += formulas;
    }
    Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, changed))
}

fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

fn neutral(text: &str) -> String {
    if is_formula(text) { format!("'{text}") } else { text.to_owned() }
}
