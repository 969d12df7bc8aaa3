//! Tables that fit a terminal: long texts are wrapped within their cells, and too many columns stand below each other.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::array_value_to_string;

use crate::exit::Failure;

/// The frame of the tables that other readers get.
const FRAME: &str = "||--+-++|    ++++++";
/// What the frame adds to a cell.
const CELL_FRAME: usize = 3;

/// Columns of the terminal; none when stdout is not one.
pub(crate) fn width() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0)
}

/// Rows of the same columns in at most `width` characters a line.
///
/// `whole` is the table as it is without a limit; where it fits, it stays.
pub(crate) fn fitted(whole: String, batches: &[RecordBatch], width: usize) -> Result<String, Failure> {
    let Some(first) = batches.first() else { return Ok(whole) };
    if whole.lines().all(|line| line.chars().count() <= width) {
        return Ok(whole);
    }
    let header = first.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| array_value_to_string(column, row));
            rows.push(cells.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::new)?);
        }
    }
    let narrowest = header.iter().map(|name| name.chars().count() + CELL_FRAME).sum::<usize>() + 1;
    Ok(if narrowest <= width { wrapped(&header, &rows, width) } else { records(&header, &rows) })
}

/// Cells of several lines; no header is broken.
fn wrapped(header: &[String], rows: &[Vec<String>], width: usize) -> String {
    let mut table = Table::new();
    table.load_preset(FRAME).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX)).set_header(header).add_rows(rows);
    let whole = |name: &String| u16::try_from(name.chars().count() + CELL_FRAME - 1).unwrap_or(u16::MAX);
    table.set_constraints(header.iter().map(|name| ColumnConstraint::LowerBoundary(Width::Fixed(whole(name)))));
    table.to_string()
}

/// One line for each value, row after row.
fn records(header: &[String], rows: &[Vec<String>]) -> String {
    let longest = header.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        lines.push(format!("--- row {}", number + 1));
        lines.extend(
            header.iter().zip(row).map(|(name, value)| format!("{name:<longest$} | {value}").trim_end().to_owned()),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::*;

    fn lines(columns: &[(&str, &str)], width: usize) -> Vec<String> {
        let column = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let columns = columns.iter().map(|(name, text)| (*name, column(text)));
        let batch = RecordBatch::try_from_iter(columns.chain([("n", Arc::new(Int32Array::from(vec![7])) as ArrayRef)]));
        let batches = [batch.unwrap()];
        let whole = crate::print::table_text(&batches).unwrap();
        fitted(whole, &batches, width).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn tables_keep_their_form_where_they_fit_and_are_wrapped_or_turned_where_not() {
        let text = "the users who will most likely interact with it next";
        let (whole, narrow) = (lines(&[("function", text)], 80), lines(&[("function", text)], 40));
        assert_eq!(whole.len(), 5);
        assert!(narrow.len() > 5 && narrow.iter().all(|line| line.chars().count() <= 40), "{narrow:?}");
        assert!(narrow[1].contains("| function ") && narrow.concat().contains("interact"), "{narrow:?}");
        let turned = lines(&[("function", text), ("description", "b"), ("example", "c")], 30);
        let expected =
            ["--- row 1", &format!("function    | {text}"), "description | b", "example     | c", "n           | 7"];
        assert_eq!(turned, expected);
    }
}
