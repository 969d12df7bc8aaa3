//! Ranking against the machine's limit: the whole plan from Parquet to segments beside the bare matrix product.
//!
//! `cargo bench` makes a solution of a million users (about 600 MB below the target folder, kept for the next run) and
//! prints the times of both; the ratio of the two, taken in one run, is the figure that counts. Training is measured
//! beside other systems by `peers/run.py`, and kernels in memory are in `kernels.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use item_affinity_datafusion::{Seen, SegmentsRequest, SessionSettings, segments_dataframe, session};
use item_affinity_job::TrainingJob;
use item_affinity_model::ndarray::{Array2, s};
use item_affinity_model::{ItemAffinity, score_tile};
use item_affinity_solution::{SolutionRef, SolutionVersion};
use item_affinity_storage::Stores;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const USERS: usize = 1_000_000;
const ITEMS: usize = 500;
const DIMENSION: usize = 149;
const TILE: usize = 1024;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let stores = Stores::from_env();
    let version = Arc::new(runtime.block_on(solution(&stores)));
    let items = version.items.ids.iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(items.len(), ITEMS);
    let ctx = session(&stores, SessionSettings::default()).expect("a session");

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("500 items x 1,000,000 users x 149");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(15));
    let users = Array2::from_shape_simple_fn((USERS, DIMENSION), {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        move || rng.random::<f32>() - 0.5
    });
    group.bench_function("bare matrix product, factors in memory", |b| {
        b.iter(|| bare_product(&version.items.factors, &users));
    });
    for k in [25, 1_000] {
        let request = SegmentsRequest {
            items: items.clone(),
            num_results: k,
            seen: Seen::Include,
            min_score: 0.0,
            reasons: None,
            users: None,
        };
        group.bench_function(format!("segments from Parquet, k = {k}"), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let planned = segments_dataframe(&ctx, &stores, &version, &request).expect("a plan");
                    let rows = planned.segments.collect().await.expect("segments");
                    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), ITEMS * k);
                });
            });
        });
    }
    group.finish();
    filter_of_users(&runtime, &stores, &version, &mut criterion);
    criterion.final_summary();
}

/// One SQL query for everybody and for one user in a hundred, in one session; the ratio of the two counts.
fn filter_of_users(
    runtime: &tokio::runtime::Runtime,
    stores: &Stores,
    version: &SolutionVersion,
    criterion: &mut Criterion,
) {
    let ctx = session(stores, SessionSettings::default()).expect("a session");
    let rows = |sql: &str| {
        runtime.block_on(async {
            let rows = ctx.sql(sql).await.expect("a plan").collect().await.expect("rows");
            rows.iter().map(RecordBatch::num_rows).sum::<usize>()
        })
    };
    rows(&format!("SET item_affinity.solution_version = '{}'", version.reference()));
    rows(&format!(
        "CREATE TABLE few AS SELECT 'U' || lpad(CAST(value * 100 AS VARCHAR), 7, '0') AS user_id FROM generate_series(0, {})",
        USERS / 100 - 1
    ));
    let items = format!("(SELECT item_id FROM item_affinity_items()), 25, max_items => {ITEMS}");
    let queries = [
        ("everybody", format!("SELECT * FROM item_affinity_segments({items})")),
        ("1 % of the users", format!("SELECT * FROM item_affinity_segments({items}, users => few)")),
    ];
    let mut group = criterion.benchmark_group("a filter of users, 500 items x 1,000,000 users x 149, k = 25");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(15));
    let mut best = [f64::INFINITY; 2];
    for ((name, sql), best) in queries.iter().zip(&mut best) {
        group.bench_function(*name, |b| {
            b.iter(|| {
                let started = Instant::now();
                assert_eq!(rows(sql), ITEMS * 25);
                *best = best.min(started.elapsed().as_secs_f64());
            });
        });
    }
    group.finish();
    let [everybody, few] = best;
    if few.is_finite() {
        println!(
            "a filter that keeps 1 % of the users: {:.1} times as fast as none ({everybody:.3} s, {few:.3} s)",
            everybody / few
        );
    }
}

/// All scores, tile by tile, on all cores, thrown away: what no ranking can be faster than.
fn bare_product(items: &Array2<f32>, users: &Array2<f32>) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || {
                let mut tile = vec![0.0; ITEMS * TILE];
                let share = USERS.div_ceil(cores);
                let (first, end) = (core * share, USERS.min((core + 1) * share));
                for from in (first..end).step_by(TILE) {
                    let to = end.min(from + TILE);
                    let scores = &mut tile[..ITEMS * (to - from)];
                    score_tile(items.view(), users.slice(s![from..to, ..]), scores).expect("shapes agree");
                    std::hint::black_box(&scores);
                }
            });
        }
    });
}

/// A solution of a million users, trained for one iteration: speed does not depend on what the factors say.
async fn solution(stores: &Stores) -> SolutionVersion {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pipeline-bench");
    std::fs::create_dir_all(&folder).expect("a folder");
    let interactions = folder.join("interactions.parquet");
    if !interactions.exists() {
        write_interactions(&interactions);
    }
    let trained = TrainingJob::new(interactions.display().to_string())
        .recipe(ItemAffinity { iterations: 1, ..ItemAffinity::default() })
        .solution(folder.join("solution").display().to_string())
        .run()
        .await
        .expect("training");
    let reference = SolutionRef::parse(&trained.solution.to_string()).expect("a reference");
    SolutionVersion::open(stores, &reference).await.expect("the solution opens")
}

fn write_interactions(path: &Path) {
    let mut rng = ChaCha8Rng::seed_from_u64(149);
    let rows = USERS * 3;
    let batch = RecordBatch::try_from_iter([
        ("user_id", Arc::new(StringArray::from_iter_values((0..rows).map(|n| format!("U{:07}", n / 3)))) as ArrayRef),
        (
            "item_id",
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| format!("I{:03}", rng.random_range(0..ITEMS))))),
        ),
        ("timestamp", Arc::new(Int64Array::from_iter_values((0..rows).map(|n| 1_700_000_000 + n as i64)))),
    ])
    .expect("a batch");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}
