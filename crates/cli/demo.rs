//! `demo`: the whole path on a built-in data set, offline and without arguments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use item_affinity_datafusion::{SessionSettings, session};
use item_affinity_job::{BatchSegmentJob, ItemList, Observer};
use item_affinity_model::ItemAffinity;
use item_affinity_solution::{Dataset, TrainingJob};
use item_affinity_storage::Stores;

use crate::args::{Global, ResultFormat};
use crate::exit::Failure;
use crate::print::{Printer, say};
use crate::progress::Progress;
use crate::sql::set_solution_version;
use crate::sql_policy::{PolicyArgs, SqlPolicy};
use crate::{query, segment, train};

/// Made by `cargo run --example make_dataset -- examples/data`.
const DATA: [(&str, &[u8]); 3] = [
    ("interactions.parquet", include_bytes!("../../examples/data/interactions.parquet")),
    ("items.parquet", include_bytes!("../../examples/data/items.parquet")),
    ("users.parquet", include_bytes!("../../examples/data/users.parquet")),
];

/// The items that the demo asks for.
const ITEMS: [&str; 3] = ["COFFEE-01", "CAMPING-03", "MUSIC-05"];

/// Who is in each segment: `interest` is planted in the data and was not shown to the training.
const INTERESTS: &str = "SELECT i.title, u.interest, count(*) AS users, round(100.0 * count(*) / 50) AS percent
FROM item_affinity_segments(['COFFEE-01', 'CAMPING-03', 'MUSIC-05'], 50) AS s
JOIN users AS u ON u.user_id = s.user_id
JOIN items AS i ON i.item_id = s.item_id
GROUP BY i.title, u.interest
HAVING count(*) > 2
ORDER BY i.title, users DESC";

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Folder for the demo's files; made when it is missing.
    #[arg(long, default_value = "item-affinity-demo")]
    pub(crate) dir: PathBuf,
}

pub(crate) async fn run(global: &Global, args: DemoArgs) -> Result<ExitCode, Failure> {
    let dir = args.dir.as_path();
    let data = dir.join("data");
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    for (name, bytes) in DATA {
        let path = data.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let stores = Stores::from_env();
    let progress = Arc::new(Progress::new(global));

    say("1. Train: who interacted with what, half a year of a hobby shop\n")?;
    let trained = TrainingJob::of(Dataset {
        interactions: vec![path("data/interactions.parquet")],
        items: vec![path("data/items.parquet")],
        // Without Users: their planted interest is what the query below looks up, so training must not see it.
        ..Dataset::default()
    })
    .recipe(ItemAffinity::default())
    .solution(path("solution"))
    .threads(global.threads.map(std::num::NonZeroUsize::get))
    .observer(Arc::clone(&progress) as Arc<dyn Observer>)
    .run()
    .await?;
    progress.end_stage();
    say(&train::summary(&trained))?;

    say("\n2. Segment: for each of these items, the five users most likely to interact with it next\n")?;
    let report = BatchSegmentJob::new(&trained.solution.to_string(), ItemList::from_ids(ITEMS))
        .num_results(5)
        .output(&path("segments"))
        .stores(stores.clone())
        .observer(Arc::clone(&progress) as Arc<dyn Observer>)
        .run()
        .await?;
    progress.end_stage();
    let ctx = session(&stores, SessionSettings::default())?;
    set_solution_version(&ctx, &trained.solution.to_string()).await?;
    let mut printer = Printer::new(ResultFormat::Table, 40, None)?;
    register(&ctx, "segments", &report.files.iter().map(|f| path(&format!("segments/{f}"))).collect::<Vec<_>>())
        .await?;
    register(&ctx, "items", &[path("data/items.parquet")]).await?;
    register(&ctx, "users", &[path("data/users.parquet")]).await?;
    let listed = "SELECT s.item_id, i.title, s.rank, s.user_id, u.interest, round(s.score, 3) AS score
        FROM segments AS s JOIN items AS i ON i.item_id = s.item_id JOIN users AS u ON u.user_id = s.user_id
        ORDER BY s.item_id, s.rank";
    let policy = SqlPolicy::new(&PolicyArgs::default(), std::iter::empty())?;
    query::run(&ctx, &policy, listed, &mut printer).await?;
    say(&segment::summary(&report))?;

    say("\n3. SQL: what are the 50 best users of each item interested in? (planted, not used in training)\n")?;
    say(INTERESTS)?;
    query::run(&ctx, &policy, INTERESTS, &mut printer).await?;
    say(&next_steps(dir, &trained.solution.location.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

async fn register(
    ctx: &datafusion::execution::context::SessionContext,
    name: &str,
    files: &[String],
) -> Result<(), Failure> {
    let table = ctx.read_parquet(files.to_vec(), datafusion::prelude::ParquetReadOptions::default()).await?;
    ctx.register_table(name, table.into_view())?;
    Ok(())
}

fn next_steps(dir: &Path, solution: &str) -> String {
    let dir = dir.display();
    format!(
        "\nFiles are in {dir}: data/, solution/ (item and user states), segments/. Next:
  item-affinity show --solution {solution}
  item-affinity sql --solution-version {solution} -c \"SELECT * FROM item_affinity_segments(['BAKING-01'], 10)\"
  item-affinity train --interactions <your Parquet> --solution <where to>"
    )
}
