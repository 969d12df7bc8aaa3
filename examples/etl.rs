//! Segments inside a Rust ETL program: train, rank with the DataFrame API, keep only confident rows, write Parquet.
//!
//! `cargo run --example etl -- <interactions> <folder for the results>`

use std::error::Error;
use std::sync::Arc;

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{col, lit};
use item_affinity_datafusion::{Seen, SegmentsRequest, SessionSettings, segments_dataframe, session};
use item_affinity_job::TrainingJob;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::Stores;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interactions), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: etl <interactions> <folder>".into());
    };
    let stores = Stores::from_env();

    let trained = TrainingJob::new(&interactions)
        .hidden_dimension(64)
        .solution(format!("{folder}/solution"))
        .stores(stores.clone())
        .run()
        .await?;
    println!("trained version {} from {} interactions", trained.version, trained.model.interactions);

    let version = Arc::new(SolutionVersion::open(&stores, &trained.solution).await?);
    let items = version.items.ids.iter().take(5).map(str::to_owned).collect();
    let ctx = session(&stores, SessionSettings::default())?;
    let planned = segments_dataframe(
        &ctx,
        &stores,
        &version,
        &SegmentsRequest { items, num_results: 100, seen: Seen::Exclude, min_score: 0.0, reasons: None, users: None },
    )?;

    let confident = planned.segments.filter(col("score").gt(lit(0.05)))?;
    let rows = confident.clone().count().await?;
    confident.write_parquet(&format!("{folder}/confident/"), DataFrameWriteOptions::new(), None).await?;
    println!("wrote {rows} rows with a score over 0.05 to {folder}/confident/");
    Ok(())
}
