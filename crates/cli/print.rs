//! Results on stdout or in a file: a table for people, or one of the machine formats, which are never row-limited.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::arrow::{csv, json};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::parquet::arrow::ArrowWriter;
use futures::StreamExt;

use crate::args::ResultFormat;
use crate::csv_cells::without_formulas;
use crate::exit::Failure;
use crate::progress::grouped;
use crate::terminal_table;

/// Where results go, and how.
pub(crate) struct Printer {
    format: ResultFormat,
    max_rows: usize,
    target: Box<dyn Write + Send>,
    to_terminal: bool,
    results: usize,
}

impl Printer {
    /// Opens the target; an output file is made new.
    pub(crate) fn new(format: ResultFormat, max_rows: usize, output: Option<&Path>) -> Result<Self, Failure> {
        let to_terminal = output.is_none() && io::stdout().is_terminal();
        if format == ResultFormat::Parquet && to_terminal {
            return Err(Failure::usage("Parquet is binary; add --output FILE, or redirect stdout"));
        }
        let target: Box<dyn Write + Send> = match output {
            Some(path) => Box::new(BufWriter::new(
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
            )),
            None => Box::new(BufWriter::new(io::stdout())),
        };
        Ok(Self { format, max_rows, target, to_terminal, results: 0 })
    }

    /// Prints one result and returns its number of rows.
    pub(crate) async fn print(&mut self, rows: SendableRecordBatchStream) -> Result<u64, Failure> {
        if rows.schema().fields().is_empty() {
            return drain(rows).await;
        }
        if self.format == ResultFormat::Parquet && self.results > 0 {
            return Err(Failure::usage("a Parquet file holds one result; run the other query by itself"));
        }
        self.results += 1;
        let count = match self.format {
            ResultFormat::Table => self.table(rows).await?,
            ResultFormat::Csv => self.csv(rows).await?,
            ResultFormat::Json => self.json::<json::writer::JsonArray>(rows).await?,
            ResultFormat::Ndjson => self.json::<json::writer::LineDelimited>(rows).await?,
            ResultFormat::Parquet => self.parquet(rows).await?,
        };
        self.target.flush().map_err(anyhow::Error::new)?;
        Ok(count)
    }

    async fn table(&mut self, mut rows: SendableRecordBatchStream) -> Result<u64, Failure> {
        if is_plan(&rows.schema()) {
            return self.plans(rows).await;
        }
        let mut shown = vec![RecordBatch::new_empty(rows.schema())];
        let (mut kept, mut count) = (0, 0u64);
        while let Some(batch) = rows.next().await.transpose()? {
            count += batch.num_rows() as u64;
            let take = batch.num_rows().min(self.max_rows - kept);
            if take > 0 {
                shown.push(batch.slice(0, take));
                kept += take;
            }
        }
        let whole = table_text(&shown)?;
        let text = match terminal_table::width().filter(|_| self.to_terminal) {
            Some(width) => without_controls(&terminal_table::fitted(whole, &shown, width)?),
            None => whole,
        };
        self.text(&text)?;
        if count > kept as u64 {
            eprintln!("{} of {} rows shown; --max-rows shows more", grouped(kept as u64), grouped(count));
        }
        Ok(count)
    }

    /// The plans of an EXPLAIN line by line: a frame around them would be as wide as their longest line.
    async fn plans(&mut self, mut rows: SendableRecordBatchStream) -> Result<u64, Failure> {
        let mut count = 0;
        while let Some(batch) = rows.next().await.transpose()? {
            for row in 0..batch.num_rows() {
                let cell = |column: usize| array_value_to_string(batch.column(column), row).map_err(anyhow::Error::new);
                let mut plan = without_controls(&format!("{}\n{}", cell(0)?, cell(1)?.trim_end()));
                if self.to_terminal {
                    plan = plan.lines().map(without_files).collect::<Vec<_>>().join("\n");
                }
                self.text(&plan)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.target, "{text}").map_err(anyhow::Error::new)?;
        Ok(())
    }

    async fn csv(&mut self, mut rows: SendableRecordBatchStream) -> Result<u64, Failure> {
        let mut count = 0;
        let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut self.target);
        writer.write(&RecordBatch::new_empty(rows.schema())).map_err(written)?;
        let mut formulas = 0;
        while let Some(batch) = rows.next().await.transpose()? {
            count += batch.num_rows() as u64;
            let (batch, changed) = without_formulas(&batch).map_err(written)?;
            formulas += changed;
            writer.write(&batch).map_err(written)?;
        }
        if formulas > 0 {
            eprintln!(
                "warning: {} texts begin like a formula of a spreadsheet; in this CSV a ' stands before them, in the other \
                 formats they are as they are",
                grouped(formulas)
            );
        }
        Ok(count)
    }

    async fn json<F: json::writer::JsonFormat>(&mut self, mut rows: SendableRecordBatchStream) -> Result<u64, Failure> {
        let mut count = 0;
        let mut writer = json::WriterBuilder::new().with_explicit_nulls(true).build::<_, F>(&mut self.target);
        while let Some(batch) = rows.next().await.transpose()? {
            count += batch.num_rows() as u64;
            writer.write(&batch).map_err(written)?;
        }
        writer.finish().map_err(written)?;
        drop(writer);
        if self.format == ResultFormat::Json {
            self.text("")?;
        }
        Ok(count)
    }

    async fn parquet(&mut self, mut rows: SendableRecordBatchStream) -> Result<u64, Failure> {
        let mut count = 0;
        let mut writer = ArrowWriter::try_new(&mut self.target, rows.schema(), None).map_err(parquet_written)?;
        while let Some(batch) = rows.next().await.transpose()? {
            count += batch.num_rows() as u64;
            writer.write(&batch).map_err(parquet_written)?;
        }
        writer.close().map_err(parquet_written)?;
        Ok(count)
    }

    /// True when a person looks at the result.
    pub(crate) fn to_terminal(&self) -> bool {
        self.to_terminal
    }
}

async fn drain(mut rows: SendableRecordBatchStream) -> Result<u64, Failure> {
    let mut count = 0;
    while let Some(batch) = rows.next().await.transpose()? {
        count += batch.num_rows() as u64;
    }
    Ok(count)
}

/// A closed pipe keeps its identity, so that it can end quietly.
fn written(error: datafusion::arrow::error::ArrowError) -> Failure {
    use datafusion::arrow::error::ArrowError;
    match error {
        ArrowError::IoError(_, cause) => anyhow::Error::new(cause).into(),
        ArrowError::CsvError(text) if text.contains("Broken pipe") => {
            anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).into()
        }
        other => anyhow::Error::new(other).into(),
    }
}

fn parquet_written(error: datafusion::parquet::errors::ParquetError) -> Failure {
    anyhow::Error::new(error).into()
}

/// Batches as a table whose cells cannot write to the terminal: control characters are shown, not sent.
pub(crate) fn table_text(batches: &[RecordBatch]) -> Result<String, Failure> {
    let table = pretty_format_batches(batches).map_err(anyhow::Error::new)?.to_string();
    Ok(without_controls(&table))
}

fn without_controls(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

/// A line of a plan with the number of file groups alone: a person does not read the names of a thousand files.
fn without_files(line: &str) -> String {
    let groups =
        line.find("file_groups={").and_then(|from| Some((line[from..].find(": [[")? + from, line.find("]]}")? + 2)));
    match groups {
        Some((from, to)) if from < to => format!("{}{}", &line[..from], &line[to..]),
        _ => line.to_owned(),
    }
}

/// Whether a result is what EXPLAIN gives.
fn is_plan(schema: &SchemaRef) -> bool {
    schema.fields().iter().map(|field| field.name().as_str()).eq(["plan_type", "plan"])
}

/// A small table of text columns.
pub(crate) fn text_table(header: &[&str], rows: &[Vec<String>]) -> Result<String, Failure> {
    use datafusion::arrow::array::{ArrayRef, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;
    let fields = header.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let columns = (0..header.len()).map(|column| {
        Arc::new(rows.iter().map(|row| row.get(column).map(String::as_str)).collect::<StringArray>()) as ArrayRef
    });
    let batch = RecordBatch::try_new(schema, columns.collect()).map_err(anyhow::Error::new)?;
    table_text(&[batch])
}

/// Prints text on stdout; a reader that went away is no failure.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| anyhow::Error::new(error).into())
}

#[cfg(test)]
mod tests {
    use super::without_files;

    #[test]
    fn a_plan_in_a_terminal_counts_files_and_does_not_name_them() {
        let line = "  DataSourceExec: file_groups={2 groups: [[a/b.parquet], [c.parquet]]}, projection=[x]";
        assert_eq!(without_files(line), "  DataSourceExec: file_groups={2 groups}, projection=[x]");
        for other in ["FilterExec: a@0 = ]]}", "file_groups={1 group: [[a"] {
            assert_eq!(without_files(other), other);
        }
    }
}
