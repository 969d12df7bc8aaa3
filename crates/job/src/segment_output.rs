//! The files that segments are written to while they arrive.

use datafusion::arrow::array::RecordBatch;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{FileWriter, Run};

use crate::error::Result;
use crate::item_errors::suppressed;
use crate::json_lines::JsonLines;
use crate::parquet_output::{Facts, ParquetOutput};
use crate::row_groups::RowGroupBudget;
use crate::segment_job::{BatchSegmentJob, OutputFormat};
use crate::segment_requests::Requests;

/// What is being written: one Parquet file, or a file of lines for each input file.
pub(crate) enum Output<'a> {
    Parquet(Box<ParquetOutput>),
    JsonLines { lines: Box<JsonLines<'a>>, files: Vec<FileWriter> },
}

/// The name of the output for an input file.
pub(crate) fn out_name(input: &str) -> String {
    format!("{input}.out")
}

impl<'a> Output<'a> {
    pub(crate) async fn create(
        job: &BatchSegmentJob,
        requests: &'a Requests<'a>,
        version: &SolutionVersion,
        run: &Run,
        budget: &RowGroupBudget,
    ) -> Result<Self> {
        Ok(match &job.format {
            OutputFormat::Parquet | OutputFormat::Delta { .. } => {
                Self::Parquet(Box::new(ParquetOutput::segments(run, Facts::of(version), budget).await?))
            }
            OutputFormat::JsonLines { users_key } => {
                let mut files = Vec::with_capacity(job.items.len());
                for file in &job.items {
                    files.push(run.writer(&out_name(&file.name)).await?);
                }
                let too_few = (job.least_users > 1).then(|| suppressed(job.least_users));
                let lines = JsonLines::new(requests, job.items.len(), *users_key, too_few);
                Self::JsonLines { lines: Box::new(lines), files }
            }
        })
    }

    /// Rows that follow are of this group of items with one filter.
    pub(crate) fn begin(&mut self, group: usize) -> Result<()> {
        match self {
            Self::Parquet(_) => Ok(()),
            Self::JsonLines { lines, .. } => lines.begin(group),
        }
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(output) => output.write(batch).await,
            Self::JsonLines { lines, files } => {
                lines.push(batch)?;
                write_lines(lines, files).await
            }
        }
    }

    pub(crate) async fn finish(self) -> Result<()> {
        match self {
            Self::Parquet(output) => drop(output.finish().await?),
            Self::JsonLines { mut lines, mut files } => {
                lines.finish()?;
                write_lines(&mut lines, &mut files).await?;
                for file in files {
                    file.finish(None).await?;
                }
            }
        }
        Ok(())
    }
}

async fn write_lines(lines: &mut JsonLines<'_>, files: &mut [FileWriter]) -> Result<()> {
    for (file, bytes) in files.iter_mut().zip(lines.take()) {
        if !bytes.is_empty() {
            file.write_bytes(bytes).await?;
        }
    }
    Ok(())
}
