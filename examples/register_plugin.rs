//! The plugin in a DataFusion session of your own: one call, then the functions are there in any SQL.
//!
//! `cargo run --example register_plugin -- <solution> <item>`

use std::error::Error;

use datafusion::prelude::SessionContext;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(solution), Some(item)) = (arguments.next(), arguments.next()) else {
        return Err("usage: register_plugin <solution> <item>".into());
    };
    let ctx = SessionContext::new();
    item_affinity_datafusion::register(&ctx);

    ctx.sql(&format!("SET item_affinity.solution_version = '{solution}'")).await?;
    ctx.sql(&format!("SELECT * FROM item_affinity_segments(['{item}'], 5)")).await?.show().await?;
    let same = format!(
        "SELECT s.rank, s.user_id, s.score, item_affinity_score(s.user_id, s.item_id) AS again
         FROM item_affinity_segments(['{item}'], 3) AS s ORDER BY s.rank"
    );
    ctx.sql(&same).await?.show().await?;
    Ok(())
}
