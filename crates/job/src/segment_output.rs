//! The file that segments are written to while they arrive.

use datafusion::arrow::array::RecordBatch;
use item_affinity_datafusion::ItemEntry;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{FileWriter, Run};

use crate::error::Result;
use crate::item_errors::ItemErrorRecord;
use crate::json_lines::JsonLines;
use crate::parquet_output::ParquetOutput;
use crate::segment_job::{BatchSegmentJob, OutputFormat};

/// The file being written.
pub(crate) enum Output<'a> {
    Parquet(Box<ParquetOutput>),
    JsonLines { lines: JsonLines<'a>, file: Box<FileWriter> },
}

impl<'a> Output<'a> {
    pub(crate) async fn create(job: &'a BatchSegmentJob, version: &SolutionVersion, run: &Run) -> Result<Self> {
        Ok(match &job.format {
            OutputFormat::Parquet => Self::Parquet(Box::new(ParquetOutput::segments(run, version).await?)),
            OutputFormat::JsonLines { input_name, users_key } => Self::JsonLines {
                lines: JsonLines::new(&job.items, *users_key),
                file: Box::new(run.writer(&format!("{input_name}.out")).await?),
            },
        })
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(output) => output.write(batch).await,
            Self::JsonLines { lines, file } => {
                lines.push(batch);
                Ok(file.write_bytes(lines.take()).await?)
            }
        }
    }

    pub(crate) async fn finish(self, without: &[(&ItemEntry, ItemErrorRecord)]) -> Result<()> {
        match self {
            Self::Parquet(output) => drop(output.finish().await?),
            Self::JsonLines { lines, mut file } => {
                let rest = lines.finish(without.iter().map(|(entry, record)| (*entry, record.message.as_str())));
                file.write_bytes(rest).await?;
                file.finish(None).await?;
            }
        }
        Ok(())
    }
}
