//! Batch jobs for Rust programs and schedulers: train a solution version, refresh it with newer interactions, and turn
//! item lists into committed segments.
//!
//! ```no_run
//! use item_affinity_job::{BatchSegmentJob, ItemList, TrainingJob};
//! # async fn nightly() -> Result<(), Box<dyn std::error::Error>> {
//! let trained = TrainingJob::new("s3://lake/interactions/").solution("s3://lake/solutions/affinity").run().await?;
//! let report = BatchSegmentJob::new(&trained.solution.to_string(), ItemList::from_ids(["B001", "B002"]))
//!     .num_results(1000)
//!     .output("s3://lake/segments/")
//!     .run()
//!     .await?;
//! println!("{} of {} items have a segment", report.ok, report.asked);
//! # Ok(())
//! # }
//! ```
//!
//! Each job takes a cancellation token and an observer, returns a typed report, commits all or nothing, and is safe to
//! run again. Invariant: `asked = ok + empty + error + suppressed`. Nothing here knows of a terminal.

mod delta_mode;
#[cfg(feature = "delta")]
mod delta_output;
mod error;
mod explained_rows;
mod filter_error;
mod filter_expression;
mod filter_parser;
mod filter_predicate;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_wrap, clippy::cast_precision_loss, clippy::indexing_slicing)]
mod filter_tests;
mod filter_tokens;
mod filter_values;
mod foreign_solution;
mod forget;
mod forget_segments;
mod forgotten_users;
mod item_errors;
mod job_users;
mod json_lines;
mod parquet_output;
mod row_groups;
mod segment_floor;
mod segment_job;
mod segment_key;
mod segment_output;
mod segment_publish;
mod segment_report;
mod segment_requests;
mod segment_run;
mod segment_start;

pub use delta_mode::DeltaMode;
pub use error::{Error, Result};
pub use filter_error::FilterError;
pub use filter_expression::FilterExpression;
pub use filter_values::BoundFilter;
pub use forget::{ForgetJob, ForgetReport};
pub use item_affinity_datafusion::read_user_ids;
pub use item_affinity_datafusion::{ItemEntry, ItemError, ItemFile, ItemList, SEGMENT_SCHEMA, Seen, SessionSettings};
pub use item_affinity_solution::{
    Changes, EvaluationJob, EvaluationReport, Observer, RefreshJob, RefreshReport, Silent, Stage, TrainingJob,
    TrainingReport,
};
pub use item_errors::ItemErrorRecord;
pub use json_lines::UsersKey;
pub use segment_job::{BatchSegmentJob, OutputFormat};
pub use segment_report::SegmentReport;
