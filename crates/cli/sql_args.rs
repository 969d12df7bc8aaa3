//! The arguments of `sql`.

use std::path::PathBuf;

use clap::Args;

use crate::args::{ResultFormat, parse_bytes};
use crate::sql_policy::PolicyArgs;
use crate::where_to_run::WhereToRun;

#[derive(Args)]
pub(crate) struct SqlArgs {
    /// Runs this text; may repeat, in order, before files.
    #[arg(long, short, value_name = "QUERY")]
    pub(crate) command: Vec<String>,
    /// Runs this file; may repeat.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Replaces ${NAME} in the texts; may repeat. Values are put in as they are.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// The solution version that the functions answer from: a location or location@7.
    #[arg(long, value_name = "LOCATION[@N]")]
    pub(crate) solution_version: Option<String>,
    /// How results look.
    #[arg(long, value_enum, default_value_t = ResultFormat::Table)]
    pub(crate) format: ResultFormat,
    /// Writes results to this file instead of stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Rows shown by the table format.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(crate) max_rows: usize,
    /// Remembers the statements of the prompt in this file, readable by you alone; those with secrets are left out.
    #[arg(long, value_name = "FILE", env = "ITEM_AFFINITY_HISTORY")]
    pub(crate) history: Option<PathBuf>,
    /// Bytes that queries may hold, as 512MB or 4GB; no limit unless said.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) memory_limit: Option<usize>,
    /// Bytes of temporary files that queries may hold, on the disk of TMPDIR; 100GB unless said.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) temp_limit: Option<usize>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) place: WhereToRun,
}
