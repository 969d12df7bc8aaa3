//! SQL as users write it: every file of `tests/slt/` in a fresh session, with 1, 2 and 8 partitions.
//!
//! `ITEM_AFFINITY_SLT_COMPLETE=1 cargo test slt` writes the answers into the files: read the diff before you keep it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::ParquetReadOptions;
use item_affinity_datafusion::{SessionSettings, session};
use item_affinity_storage::Stores;
use sqllogictest::{AsyncDB, ColumnType, DBOutput, Runner};

use crate::common::{data, solution};

/// One session of the plugin with the built-in data registered.
struct Session {
    ctx: SessionContext,
}

impl Session {
    async fn new(partitions: usize) -> Result<Self, DataFusionError> {
        let settings = SessionSettings { target_partitions: Some(partitions), ..SessionSettings::default() };
        let ctx = session(&Stores::from_env(), settings)?;
        for name in ["interactions", "items", "users"] {
            let table = ctx.read_parquet(data(&format!("{name}.parquet")), ParquetReadOptions::default()).await?;
            ctx.register_table(name, table.into_view())?;
        }
        ctx.sql(&format!("SET item_affinity.solution_version = '{}'", solution())).await?;
        Ok(Self { ctx })
    }
}

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = DataFusionError;
    type ColumnType = SqlType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<SqlType>, DataFusionError> {
        let result = self.ctx.sql(sql).await?;
        let schema: SchemaRef = result.schema().inner().clone();
        let batches = result.collect().await?;
        if schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = schema.fields().iter().map(|f| column_type(f.data_type())).collect();
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|c| cell(c.as_ref(), row)).collect::<Vec<_>>();
                // The lines of a plan are rows of their own, as people read them.
                rows.extend(cells.join(" ").lines().map(|line| vec![line.to_owned()]));
            }
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "item-affinity"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The type of a column, as one letter: text, integer, real number, Boolean, point in time, or anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SqlType {
    Text,
    Integer,
    Real,
    Boolean,
    Time,
    Other,
}

const LETTERS: [(SqlType, char); 6] = [
    (SqlType::Text, 'T'),
    (SqlType::Integer, 'I'),
    (SqlType::Real, 'R'),
    (SqlType::Boolean, 'B'),
    (SqlType::Time, 'P'),
    (SqlType::Other, '?'),
];

impl ColumnType for SqlType {
    fn from_char(letter: char) -> Option<Self> {
        LETTERS.iter().find(|(_, of)| *of == letter).map(|(sql_type, _)| *sql_type)
    }

    fn to_char(&self) -> char {
        LETTERS.iter().find(|(sql_type, _)| sql_type == self).unwrap().1
    }
}

fn column_type(data_type: &DataType) -> SqlType {
    match data_type {
        t if t.is_integer() => SqlType::Integer,
        t if t.is_floating() || t.is_decimal() => SqlType::Real,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
        DataType::Boolean => SqlType::Boolean,
        t if t.is_temporal() => SqlType::Time,
        _ => SqlType::Other,
    }
}

/// Scores are rounded here, and only here: kernels differ in their last bits from machine to machine.
fn cell(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    let text = array_value_to_string(column, row).unwrap();
    if column.data_type().is_floating() {
        // Adding zero turns -0 into 0.
        return text.parse::<f64>().map_or(text, |value| format!("{:.3}", (value * 1000.0).round() / 1000.0 + 0.0));
    }
    if text.is_empty() { "(empty)".to_owned() } else { without_paths(&text) }
}

/// Plans with the names of this run's files left out: how many groups there are is what counts.
fn without_paths(text: &str) -> String {
    let text = text.replace(solution(), "<solution>");
    let lines = text.lines().map(|line| match (line.find(": [["), line.find("]]}")) {
        (Some(from), Some(to)) if line[..from].ends_with("group") || line[..from].ends_with("groups") => {
            format!("{}{}", &line[..from], &line[to + 2..])
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    files.sort();
    files
}

fn check(partitions: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let files = files();
    assert!(!files.is_empty());
    for file in files {
        let explains = file.file_stem().unwrap().to_string_lossy().starts_with("explain");
        if explains && partitions != 2 {
            // A plan shows its partitions.
            continue;
        }
        runtime.block_on(async {
            let mut runner = Runner::new(|| Session::new(partitions));
            runner.with_column_validator(sqllogictest::strict_column_validator);
            if std::env::var_os("ITEM_AFFINITY_SLT_COMPLETE").is_some() {
                runner
                    .update_test_file(
                        &file,
                        " ",
                        sqllogictest::default_validator,
                        sqllogictest::default_normalizer,
                        sqllogictest::strict_column_validator,
                    )
                    .await
                    .unwrap();
                return;
            }
            if let Err(error) = runner.run_file_async(&file).await {
                panic!("with {partitions} partitions: {}", error.display(false));
            }
        });
    }
}

#[test]
fn slt_files_hold_with_1_partition() {
    check(1);
}

#[test]
fn slt_files_hold_with_2_partitions() {
    check(2);
}

#[test]
fn slt_files_hold_with_8_partitions() {
    check(8);
}
