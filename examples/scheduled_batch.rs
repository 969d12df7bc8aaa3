//! What a scheduler runs every night: train when there is something new, write segments, say what happened.
//!
//! Running it again with the same inputs does nothing; stopping it with Ctrl-C commits nothing.
//!
//! `cargo run --example scheduled_batch -- <interactions> <items.json> <folder>`

use std::error::Error;

use item_affinity_job::{BatchSegmentJob, ItemList, TrainingJob};
use item_affinity_storage::{Location, Stores};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [interactions, items, folder] = arguments.as_slice() else {
        return Err("usage: scheduled_batch <interactions> <items.json> <folder>".into());
    };
    let cancellation = CancellationToken::new();
    let stop = cancellation.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });

    let trained = TrainingJob::new(interactions)
        .solution(format!("{folder}/solution"))
        .cancellation(cancellation.clone())
        .run()
        .await?;
    println!("solution version {}{}", trained.version, if trained.already_done { ", nothing new" } else { "" });

    let list = ItemList::read(&Stores::from_env(), &Location::parse(items)?).await?;
    let report = BatchSegmentJob::new(&trained.solution.to_string(), list)
        .num_results(50)
        .output(&format!("{folder}/segments"))
        .cancellation(cancellation)
        .run()
        .await?;
    println!(
        "segments version {}{}: asked={} ok={} empty={} error={}",
        report.version,
        if report.already_done { ", nothing new" } else { "" },
        report.asked,
        report.ok,
        report.empty,
        report.error
    );
    for record in &report.item_errors {
        println!("{}: {}: {}", record.code, record.item_id.as_deref().unwrap_or("?"), record.message);
    }
    Ok(())
}
