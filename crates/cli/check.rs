//! `check`: the data report, without training.

use std::process::ExitCode;

use item_affinity_solution::data_report;
use item_affinity_storage::Stores;

use crate::args::{CheckArgs, Global, ReportFormat};
use crate::exit::Failure;
use crate::print::say;
use crate::progress::Progress;
use crate::train::dataset;

pub(crate) async fn run(global: &Global, args: CheckArgs) -> Result<ExitCode, Failure> {
    let progress = Progress::new(global);
    let stores = Stores::from_env();
    let report = data_report(&stores, &dataset(&stores, &args.data).await?, &progress).await?;
    progress.end_stage();
    match args.format {
        ReportFormat::Table => say(&report.to_string())?,
        ReportFormat::Json => say(&serde_json::to_string_pretty(&report).map_err(anyhow::Error::new)?)?,
    }
    report.refusal(args.data.log.allow_small_data)?;
    Ok(ExitCode::SUCCESS)
}
