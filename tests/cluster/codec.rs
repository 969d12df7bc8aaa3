//! Plans as messages: what comes back is the plan that went in, over random plans, and it believes no byte unchecked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::SessionContext;
use item_affinity_ballista::{cluster_codec, decode_plan, encode_plan, travelling};
use item_affinity_datafusion::{AskedItems, SessionSettings, TopKUsersPerItemExec, error_message, session};
use item_affinity_storage::Stores;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::common::{data, files_below, solution, succeed};

const PLANS: u64 = 60;

/// A call with random items, settings, columns and users.
fn random_query(random: &mut StdRng) -> String {
    let known = ["COFFEE-01", "COFFEE-02", "MUSIC-05", "MUSIC-01", "nobody's"];
    let items = (0..random.random_range(1..6)).map(|_| known[random.random_range(0..known.len())].replace('\'', "''"));
    let items = items.map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let mut arguments = vec![format!("[{items}]"), random.random_range(1..400).to_string()];
    arguments.push(format!("seen => '{}'", ["include", "exclude", "only"][random.random_range(0..3)]));
    arguments.push(format!("min_score => {}", [0.0, 0.001, 0.05, 1.0][random.random_range(0..4)]));
    if random.random_bool(0.5) {
        let country = ["DE", "FR", "nowhere"][random.random_range(0..3)];
        arguments.push(format!("users => (SELECT user_id FROM people WHERE country = '{country}')"));
    }
    if random.random_bool(0.3) {
        arguments.push(format!("reasons => {}", random.random_range(1..5)));
        return format!("SELECT * FROM item_affinity_explain({})", arguments.join(", "));
    }
    let columns = ["*", "item_id, user_id", "rank, score", "user_id", "count(*) AS n"];
    let columns = columns[random.random_range(0..columns.len())];
    format!("SELECT {columns} FROM item_affinity_segments({})", arguments.join(", "))
}

pub(super) async fn context(solution: &str, partitions: usize) -> SessionContext {
    let settings = SessionSettings { target_partitions: Some(partitions), ..SessionSettings::default() };
    let ctx = session(&Stores::from_env(), settings).unwrap();
    let people = format!("CREATE EXTERNAL TABLE people STORED AS PARQUET LOCATION '{}'", data("users.parquet"));
    for text in [format!("SET item_affinity.solution_version = '{solution}'"), people] {
        ctx.sql(&text).await.unwrap();
    }
    ctx
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_messages_give_back_random_plans_which_give_the_same_rows() {
    let (mut calls, mut empty) = (0, 0);
    for seed in 0..PLANS {
        let mut random = StdRng::seed_from_u64(seed);
        let ctx = context(solution(), random.random_range(1..5)).await;
        let query = random_query(&mut random);
        let plan = travelling(ctx.sql(&query).await.unwrap().create_physical_plan().await.unwrap()).unwrap();
        let codec = cluster_codec(Stores::from_env());
        let bytes = encode_plan(plan.clone(), codec.as_ref()).unwrap_or_else(|e| panic!("{seed}: {query}: {e}"));
        let back = decode_plan(&bytes, &ctx.task_ctx(), codec.as_ref()).unwrap_or_else(|e| panic!("{query}: {e}"));
        let text = |plan: &dyn ExecutionPlan| displayable(plan).indent(true).to_string();
        assert_eq!(text(plan.as_ref()), text(back.as_ref()), "{query}");
        assert_eq!(bytes, encode_plan(back.clone(), codec.as_ref()).unwrap(), "{query}");
        calls += usize::from(text(plan.as_ref()).contains("TopKUsersPerItemExec"));
        let (here, there) =
            (collect(plan, ctx.task_ctx()).await.unwrap(), collect(back, ctx.task_ctx()).await.unwrap());
        let (here, there) = (rows(&here), rows(&there));
        empty += usize::from(here.len() < 5);
        assert_eq!(here, there, "{query}");
    }
    assert!(calls > 40 && empty < 40, "{calls} plans of {PLANS} rank users, {empty} give nothing");
}

/// Partitions come in any order.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<_> = pretty_format_batches(batches).unwrap().to_string().lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

fn user_part(solution: &Path) -> PathBuf {
    let parts = files_below(solution).into_iter().filter(|path| path.to_string_lossy().contains("/users/part-"));
    solution.join(parts.max().expect("a user part"))
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_plan_that_has_travelled_checks_every_byte_and_every_item() {
    let folder = TempDir::new().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    crate::common::small_interactions(&interactions);
    let solution = folder.path().join("solution");
    let train = ["train", "--quiet", "--allow-small-data", "--hidden-dimension", "32", "--interactions"];
    let [interactions, place] = [&interactions, &solution].map(|path| path.display().to_string());
    succeed(train.into_iter().map(str::to_owned).chain([interactions, "--solution".to_owned(), place.clone()]));

    let ctx = context(&place, 2).await;
    let query = "SELECT * FROM item_affinity_segments(['item-03'], 10)";
    let bytes = plan_bytes(&ctx, query).await;
    let run = async |bytes: &[u8]| {
        let codec = cluster_codec(Stores::from_env());
        let plan = decode_plan(bytes, &ctx.task_ctx(), codec.as_ref())?;
        collect(plan, ctx.task_ctx()).await
    };
    assert_eq!(run(&bytes).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 10);

    // Another item at the same place: the version does not have it.
    let other = replaced(&bytes, b"item-03", b"item-0x");
    let refused = error_message(&run(&other).await.unwrap_err());
    assert!(refused.contains("ERR_CLUSTER_PLAN"), "{refused}");

    // A plan of another program: field 1 of the message of SegmentsFinalExec is its format.
    let newer = replaced(&bytes, &[0x08, 1, 0x22], &[0x08, 2, 0x22]);
    let refused = error_message(&run(&newer).await.unwrap_err());
    assert!(refused.contains("ERR_CLUSTER_FORMAT"), "{refused}");

    // One bit of a file of user states.
    let part = user_part(&solution);
    let mut damaged = std::fs::read(&part).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&part, damaged).unwrap();
    let refused = error_message(&run(&bytes).await.unwrap_err());
    assert!(refused.contains("users/part-") && refused.contains("sha256"), "{refused}");
    std::fs::remove_file(&part).unwrap();
    let refused = error_message(&run(&bytes).await.unwrap_err());
    assert!(refused.contains("users/part-"), "{refused}");
}

/// The items of the node that ranks, in a plan that was decoded.
fn asked_items(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<AskedItems>> {
    let top = plan.downcast_ref::<TopKUsersPerItemExec>().map(|top| Arc::clone(&top.query().items));
    top.or_else(|| plan.children().into_iter().find_map(asked_items))
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_tasks_of_a_plan_share_what_they_read_of_its_items_and_other_plans_do_not() {
    let ctx = context(solution(), 2).await;
    let first = plan_bytes(&ctx, "SELECT * FROM item_affinity_segments(['COFFEE-01', 'MUSIC-05'], 10)").await;
    let other = plan_bytes(&ctx, "SELECT * FROM item_affinity_segments(['COFFEE-01', 'MUSIC-01'], 10)").await;
    let codec = cluster_codec(Stores::from_env());
    let items = |bytes: &[u8]| asked_items(&decode_plan(bytes, &ctx.task_ctx(), codec.as_ref()).unwrap()).unwrap();
    let (one, two) = (items(&first), items(&first));
    assert!(Arc::ptr_eq(&one, &two));
    let third = items(&other);
    assert!(!Arc::ptr_eq(&one, &third) && third.ids() != one.ids());
    // The pairs of one plan are kept, not those of all.
    assert!(!Arc::ptr_eq(&one, &items(&first)));
}

/// The plan of a query as it is submitted.
pub(super) async fn plan_bytes(ctx: &SessionContext, query: &str) -> Vec<u8> {
    let plan = travelling(ctx.sql(query).await.unwrap().create_physical_plan().await.unwrap()).unwrap();
    encode_plan(plan, cluster_codec(Stores::from_env()).as_ref()).unwrap()
}

/// The same bytes with another text of the same length.
pub(super) fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..=bytes.len() - old.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
    }
    bytes
}
