//! A session over its life: memory, cancellation, what concurrent queries share, a version that goes away, and the end.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Float64Type;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    self, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use datafusion::prelude::ParquetReadOptions;
use futures::StreamExt;
use futures::stream::BoxStream;
use item_affinity_datafusion::{SessionSettings, error_kind, error_message, session};
use item_affinity_solution::{SolutionRef, SolutionVersion};
use item_affinity_storage::{Artifact, CommitBody, ErrorKind, Location, Stores, Versions};

use crate::common::{cli, csv_rows, data, item_affinity, solution, succeed};

/// The local disk, which counts how often a file of user states or of pairs is read, and may take long for the first.
#[derive(Clone, Debug)]
struct CountingStore {
    disk: Arc<LocalFileSystem>,
    reads: Arc<Mutex<BTreeMap<String, usize>>>,
    /// HEADs of files of an output that wait for an answer, and how many waited when each of them came.
    heads: Arc<(AtomicUsize, Mutex<Vec<usize>>)>,
    delay: Duration,
}

impl CountingStore {
    fn with_delay(delay: Duration) -> (Self, Stores) {
        let store =
            Self { disk: Arc::new(LocalFileSystem::new()), reads: Arc::default(), heads: Arc::default(), delay };
        let stores = Stores::from_env();
        stores.register(&"file:///".parse().unwrap(), Arc::new(store.clone()));
        (store, stores)
    }

    /// Reads of each file of user states, in the order of their names.
    fn reads(&self) -> Vec<usize> {
        self.reads_below("/users/")
    }

    fn reads_below(&self, folder: &str) -> Vec<usize> {
        let reads = self.reads.lock().unwrap();
        reads.iter().filter(|(file, _)| file.contains(folder)).map(|(_, reads)| *reads).collect()
    }

    fn forget(&self) {
        self.reads.lock().unwrap().clear();
    }

    async fn count(&self, location: &Path) {
        let is_below = |folder| location.as_ref().contains(folder);
        if is_below("/users/part-") || is_below("/pairs/part-") {
            *self.reads.lock().unwrap().entry(location.to_string()).or_default() += 1;
        }
        if is_below("/users/part-") {
            tokio::time::sleep(self.delay).await;
        }
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingStore")
    }
}

#[async_trait::async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.disk.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.disk.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        if !options.head {
            self.count(at).await;
        } else if at.as_ref().contains("/many-files/") {
            let (waiting, met) = self.heads.as_ref();
            met.lock().unwrap().push(waiting.fetch_add(1, Ordering::SeqCst));
            tokio::time::sleep(self.delay).await;
            waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.disk.get_opts(at, options).await
    }

    async fn get_ranges(
        &self,
        at: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<item_affinity_storage::Bytes>> {
        self.count(at).await;
        self.disk.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.disk.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.disk.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.disk.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.disk.copy_opts(from, to, options).await
    }
}

async fn open(stores: &Stores, partitions: usize, memory_limit: Option<usize>, solution: &str) -> SessionContext {
    let ctx = session(
        stores,
        SessionSettings { memory_limit, target_partitions: Some(partitions), ..SessionSettings::default() },
    )
    .unwrap();
    for name in ["items", "users"] {
        let table = ctx.read_parquet(data(&format!("{name}.parquet")), ParquetReadOptions::default()).await.unwrap();
        ctx.register_table(name, table.into_view()).unwrap();
    }
    ctx.sql(&format!("SET item_affinity.solution_version = '{solution}'")).await.unwrap();
    ctx
}

async fn rows(ctx: &SessionContext, sql: &str) -> Result<usize> {
    let batches = ctx.sql(sql).await?.collect().await?;
    Ok(batches.iter().map(|batch| batch.num_rows()).sum())
}

async fn text(ctx: &SessionContext, sql: &str) -> String {
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

fn copy(from: &FilePath, to: &FilePath) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_goes_away_between_planning_and_execution_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    copy(FilePath::new(solution()), &kept);
    let ctx = open(&Stores::from_env(), 2, None, &kept.display().to_string()).await;
    let logical = ctx.sql("SELECT * FROM item_affinity_segments(items, 3)").await.unwrap();
    let physical = logical.create_physical_plan().await.unwrap();
    assert_eq!(physical.schema().fields().len(), 4);

    // Its files go, its commit stays: as a lifecycle rule of a bucket may do it.
    std::fs::remove_dir_all(kept.join("versions")).unwrap();
    let error = collect(physical, ctx.task_ctx()).await.unwrap_err();
    let message = error_message(&error);
    assert_eq!(error_kind(&error), ErrorKind::BadInput, "{message}");
    assert!(message.contains("part-0000") && message.contains("file="), "{message}");
    assert!(message.contains("train again") || message.contains("restore"), "{message}");

    // All of it goes: the next query says so.
    std::fs::remove_dir_all(&kept).unwrap();
    let error = rows(&ctx, "SELECT * FROM item_affinity_segments(items, 3)").await.unwrap_err();
    assert_eq!(error_kind(&error), ErrorKind::BadInput);
    assert!(error_message(&error).starts_with("ERR_NO_VERSION: "), "{}", error_message(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_sees_one_version_although_another_is_committed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let grown = folder.path().join("solution");
    copy(FilePath::new(solution()), &grown);
    let ctx = open(&Stores::from_env(), 2, None, &grown.display().to_string()).await;
    let scores = "SELECT sum(item_affinity_score(user_id, 'COFFEE-01')) AS sum FROM users";
    let sum = async |query: &str| {
        let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
        batches[0].column(0).as_primitive::<Float64Type>().value(0)
    };
    // Whoever planned before the commit still sees the version of that time, in each part of the query.
    let before = sum(scores).await;
    let both = format!(
        "SELECT (SELECT sum(score) FROM item_affinity_segments(['COFFEE-01'], 5000)) - ({scores}) AS difference"
    );
    let planned = ctx.sql(&both).await.unwrap().create_physical_plan().await.unwrap();
    // Another horizon: its probabilities are of another size.
    let train = ["train", "--quiet", "--hidden-dimension", "32", "--horizon", "3d", "--interactions"];
    succeed(train.into_iter().chain([&*data("interactions.parquet"), "--solution", &grown.display().to_string()]));
    let batches = collect(planned, ctx.task_ctx()).await.unwrap();
    let difference = batches[0].column(0).as_primitive::<Float64Type>().value(0);
    assert!(difference.abs() < 1e-3, "{difference}");
    let after = sum(scores).await;
    assert!((after - before).abs() > 0.1, "both versions sum to {before}");
    assert!(sum(&both).await.abs() < 1e-3);
}

#[tokio::test(flavor = "multi_thread")]
async fn less_memory_than_a_query_needs_is_refused_by_name_and_more_is_all_it_takes() {
    let ctx = open(&Stores::from_env(), 2, Some(200_000), solution()).await;
    for (query, holder) in [
        ("SELECT * FROM item_affinity_segments(items, 1500)", "TopKUsersPerItem["),
        ("SELECT * FROM item_affinity_explain(items, 1500)", "TopKUsersPerItem["),
        ("SELECT item_affinity_score(user_id, 'COFFEE-01') FROM users", "UserStates"),
    ] {
        let error = rows(&ctx, query).await.unwrap_err();
        let message = error_message(&error);
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{message}");
        assert_eq!(error_kind(&error), ErrorKind::Limit, "{message}");
        assert!(message.contains(holder) || message.contains("UserPart["), "{query}: {message}");
        for cure in ["num_results", "SET datafusion.runtime.memory_limit = '4G'", "--memory-limit"] {
            assert!(message.contains(cure), "{query}: {message}");
        }
    }
    // What is kept for the next query fits into a quarter.
    assert!(ctx.runtime_env().memory_pool.reserved() <= 50_000, "{}", ctx.runtime_env().memory_pool.reserved());
    rows(&ctx, "SET datafusion.runtime.memory_limit = '64M'").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT * FROM item_affinity_segments(items, 1500)").await.unwrap(), 80 * 1_500);
    assert_eq!(rows(&ctx, "SELECT item_affinity_score(user_id, 'COFFEE-01') FROM users").await.unwrap(), 1_500);

    let refused = cli([
        "sql",
        "--solution-version",
        solution(),
        "--memory-limit",
        "200KB",
        "-c",
        "SELECT * FROM item_affinity_segments((SELECT item_id FROM item_affinity_items()), 1500)",
    ]);
    assert_eq!(refused.code, 8, "{refused:?}");
    assert!(refused.stderr.contains("--memory-limit") && refused.stderr.lines().count() == 1, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_stream_through_less_memory_than_their_files_take() {
    let (store, stores) = CountingStore::with_delay(Duration::ZERO);
    let limit = 150_000;
    let files = std::fs::read_dir(FilePath::new(solution()).join("versions")).unwrap().map(|e| e.unwrap().path());
    let parts = files
        .flat_map(|run| std::fs::read_dir(run.join("users")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()));
    let bytes = parts.sum::<u64>();
    assert!(bytes > 200_000, "{bytes}");
    let ctx = open(&stores, 1, Some(limit), solution()).await;
    let top = "SELECT * FROM item_affinity_segments(['COFFEE-01', 'MUSIC-05'], 25)";
    for round in 1..=2 {
        assert_eq!(rows(&ctx, top).await.unwrap(), 50);
        // A part is more than a quarter of the memory: nothing is kept, and no part is held when the next is read.
        assert_eq!(store.reads(), [round; 3]);
        assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_output_are_looked_at_together() {
    const FILES: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segments.parquet");
    let ctx = open(&Stores::from_env(), 1, None, solution()).await;
    let segments = "SELECT * FROM item_affinity_segments(['COFFEE-01'], 7)";
    rows(&ctx, &format!("COPY ({segments}) TO '{}' STORED AS PARQUET", file.display())).await.unwrap();
    let bytes = item_affinity_storage::Bytes::from(std::fs::read(&file).unwrap());
    let output = folder.path().join("many-files").display().to_string();
    let location = Location::parse(&output).unwrap();
    let run = Versions::new(&Stores::from_env(), location, Artifact::Segments).unwrap().begin().await.unwrap();
    for number in 0..FILES {
        run.put(&format!("part-{number:05}.parquet"), bytes.clone(), Some(7)).await.unwrap();
    }
    run.commit(CommitBody { job_key: "many files".to_owned(), ..CommitBody::default() }).await.unwrap();

    let (store, stores) = CountingStore::with_delay(Duration::from_millis(500));
    let ctx = open(&stores, 1, None, solution()).await;
    let table = format!("SELECT * FROM item_affinity_output('{output}')");
    assert_eq!(rows(&ctx, &table).await.unwrap(), 7 * FILES);
    // The first round is ours; the engine has one of its own.
    let met = store.heads.1.lock().unwrap().clone();
    assert!(met.len() >= FILES && met[..FILES].iter().any(|waiting| *waiting > 0), "one after another: {met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_queries_of_a_session_read_user_states_once() {
    let (store, stores) = CountingStore::with_delay(Duration::from_millis(50));
    let ctx = open(&stores, 3, Some(64 << 20), solution()).await;
    let segments = (0..6).map(|n| {
        let ctx = ctx.clone();
        tokio::spawn(async move {
            rows(&ctx, &format!("SELECT * FROM item_affinity_segments(['COFFEE-01'], {})", n + 1)).await
        })
    });
    for (n, query) in segments.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(query.await.unwrap().unwrap(), n + 1);
    }
    assert_eq!(store.reads(), [1, 1, 1]);
    // They stay for the next one, and so do the pairs with history, which queries at the same time may each have read.
    let pairs = store.reads_below("/pairs/");
    assert!(pairs.len() == 1 && (1..=6).contains(&pairs[0]), "{pairs:?}");
    assert_eq!(rows(&ctx, "SELECT * FROM item_affinity_segments(items, 2)").await.unwrap(), 160);
    assert_eq!((store.reads(), store.reads_below("/pairs/")), (vec![1, 1, 1], pairs));

    // Scores of single pairs need all states decoded: once for all queries.
    let scores = (0..6).map(|_| {
        let ctx = ctx.clone();
        tokio::spawn(async move { rows(&ctx, "SELECT item_affinity_score(user_id, 'MUSIC-05') FROM users").await })
    });
    for query in scores.collect::<Vec<_>>() {
        assert_eq!(query.await.unwrap().unwrap(), 1_500);
    }
    assert_eq!(store.reads(), [2, 2, 2]);
    // What is kept is taken from the session's memory.
    assert!(ctx.runtime_env().memory_pool.reserved() > 400_000);

    // Another session shares nothing with it.
    let other = open(&stores, 3, None, solution()).await;
    assert_eq!(rows(&other, "SELECT * FROM item_affinity_segments(['COFFEE-01'], 1)").await.unwrap(), 1);
    assert_eq!(store.reads(), [3, 3, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn decoded_states_that_a_query_left_give_the_same_segments_to_the_next() {
    let (store, stores) = CountingStore::with_delay(Duration::ZERO);
    let ctx = open(&stores, 3, Some(64 << 20), solution()).await;
    let queries = [
        "SELECT * FROM item_affinity_segments(items, 30) ORDER BY item_id, rank",
        "SELECT item_id, rank, score FROM item_affinity_segments(items, 7) ORDER BY item_id, rank",
        "SELECT * FROM item_affinity_segments(items, 9, users => (SELECT user_id FROM users WHERE user_id < 'u00100')) \
         ORDER BY item_id, rank",
        "SELECT * FROM item_affinity_segments(items, 9, seen => 'exclude') ORDER BY item_id, rank",
    ];
    // Without ids, with ids in place of them, and then all from memory, in one to eight runs.
    for (round, partitions) in [3, 3, 1, 2, 8].into_iter().enumerate() {
        rows(&ctx, &format!("SET datafusion.execution.target_partitions = {partitions}")).await.unwrap();
        for query in if round == 0 { &queries[1..2] } else { &queries[..] } {
            // A new session has nothing in memory.
            let expected = text(&open(&stores, 1, None, solution()).await, query).await;
            assert!(expected.lines().count() > 80, "{query}: {expected}");
            assert_eq!(text(&ctx, query).await, expected, "{partitions} partitions: {query}");
        }
        if round == 1 {
            store.forget();
        }
    }
    let analyzed = text(&ctx, &format!("EXPLAIN ANALYZE {}", queries[0])).await;
    assert!(analyzed.contains("users_from_memory=1.50 K"), "{analyzed}");
    // The new sessions alone have read, each part once.
    assert!(store.reads().iter().all(|reads| *reads == 3 * queries.len()), "{:?}", store.reads());

    // Whoever stops early leaves nothing, and nothing is lost by it.
    let ctx = open(&stores, 3, Some(64 << 20), solution()).await;
    let plan = ctx.sql(queries[0]).await.unwrap().create_physical_plan().await.unwrap();
    drop(execute_stream(plan, ctx.task_ctx()).unwrap());
    let after = text(&ctx, queries[0]).await;
    assert_eq!(after, text(&open(&stores, 1, None, solution()).await, queries[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_nobody_waits_for_gives_its_memory_back_before_its_store_answers() {
    let (store, stores) = CountingStore::with_delay(Duration::from_secs(120));
    let ctx = open(&stores, 2, Some(64 << 20), solution()).await;
    let plan = ctx.sql("SELECT * FROM item_affinity_segments(items, 100)").await.unwrap();
    let plan = plan.create_physical_plan().await.unwrap();
    let mut stream = execute_stream(plan, ctx.task_ctx()).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(500), stream.next()).await;
    assert!(waited.is_err(), "the store takes two minutes");
    assert_eq!(store.reads().iter().sum::<usize>(), 2);
    // Pairs with history stay for the next query: eight bytes for each, and for the end of each item's.
    let version = SolutionVersion::open(&stores, &SolutionRef::parse(solution()).unwrap()).await.unwrap();
    assert_eq!(version.pair_parts.len(), 1);
    let kept = (usize::try_from(version.model.pairs).unwrap() + version.items.ids.len() + 1) * 8;
    assert!(ctx.runtime_env().memory_pool.reserved() > kept);
    let stopped = Instant::now();
    drop(stream);
    while ctx.runtime_env().memory_pool.reserved() > kept {
        assert!(stopped.elapsed() < Duration::from_secs(20), "{}", ctx.runtime_env().memory_pool.reserved());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // No part that was not read yet is read by anybody.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.reads().iter().sum::<usize>(), 2);
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), kept);
}

#[test]
fn interrupt_ends_a_long_query_with_130_and_does_not_wait_for_it() {
    let query = format!(
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{}'; CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION \
         '{}'; SELECT sum(item_affinity_score(u.user_id, e.item_id)) FROM u CROSS JOIN e CROSS JOIN e AS f",
        data("users.parquet"),
        data("interactions.parquet")
    );
    let mut child = item_affinity()
        .args(["sql", "--solution-version", solution(), "-c", &query])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "hours of work ended at once");
    let stopped = Instant::now();
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // A second is promised; more is allowed where other tests run beside.
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_outlives_it() {
    let ctx = open(&Stores::from_env(), 2, Some(64 << 20), solution()).await;
    let (state, runtime) = (Arc::downgrade(&ctx.state_ref()), Arc::downgrade(&ctx.runtime_env()));
    let pool = Arc::clone(&ctx.runtime_env().memory_pool);
    for query in [
        "CREATE VIEW top AS SELECT * FROM item_affinity_segments(items, 3, users => users)",
        "SELECT * FROM top ORDER BY item_affinity_score(user_id, 'COFFEE-01')",
        "SELECT * FROM item_affinity_explain(['COFFEE-01'], 3)",
        "PREPARE one(VARCHAR) AS SELECT * FROM item_affinity_segments(items) WHERE item_id = $1",
        "EXECUTE one('COFFEE-01')",
        "SELECT * FROM item_affinity_items()",
    ] {
        rows(&ctx, query).await.unwrap();
    }
    assert!(pool.reserved() > 0, "states are kept while the session lives");
    drop(ctx);
    assert!(state.upgrade().is_none(), "the session's state is still held");
    assert!(runtime.upgrade().is_none(), "the session's runtime is still held");
    assert_eq!(pool.reserved(), 0);
}

fn metric(plan: &Arc<dyn ExecutionPlan>, node: &str, name: &str) -> usize {
    let own = if plan.name() == node {
        let metrics = plan.metrics().unwrap();
        let value =
            if name == "output_rows" { metrics.output_rows() } else { metrics.sum_by_name(name).map(|v| v.as_usize()) };
        value.unwrap_or_else(|| panic!("{node} lacks {name}"))
    } else {
        0
    };
    own + plan.children().into_iter().map(|child| metric(child, node, name)).sum::<usize>()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_ran_has_its_figures() {
    for partitions in [1, 2, 8] {
        let ctx = open(&Stores::from_env(), partitions, None, solution()).await;
        let plan = ctx.sql("SELECT * FROM item_affinity_segments(items, 7)").await.unwrap();
        let plan = plan.create_physical_plan().await.unwrap();
        collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
        let top = |name| metric(&plan, "TopKUsersPerItemExec", name);
        assert_eq!(top("users_scored"), 1_500);
        assert!(top("output_rows") >= 560 && top("output_rows") <= 560 * partitions, "{}", top("output_rows"));
        // Nanoseconds: 80 items by 1,500 users by 32 numbers are millions of operations, and three files are read.
        assert!(top("gemm_time") > 10_000 && top("scan_time") > 10_000, "{} {}", top("gemm_time"), top("scan_time"));
        assert!(top("peak_memory_bytes") > 80 * 7 * 8, "{}", top("peak_memory_bytes"));
        assert_eq!(metric(&plan, "SegmentsFinalExec", "output_rows"), 560);
        assert!(metric(&plan, "SegmentsFinalExec", "peak_memory_bytes") > 560 * 20);
    }
    let text = succeed([
        "sql",
        "--solution-version",
        solution(),
        "-c",
        "EXPLAIN ANALYZE SELECT * FROM item_affinity_segments(['COFFEE-01'], 7)",
    ])
    .stdout;
    let line = text.lines().find(|line| line.contains("TopKUsersPerItemExec")).unwrap_or_else(|| panic!("{text}"));
    for figure in ["output_rows=", "users_scored=1.50 K", "gemm_time=", "scan_time=", "peak_memory_bytes="] {
        assert!(line.contains(figure), "{figure}: {line}");
    }
}

#[test]
fn exit_codes_of_sql_tell_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").display().to_string();
    let nowhere = folder.path().join("nowhere").display().to_string();
    let at = |version: &str| format!("{}{version}", solution());
    for (code, arguments, words) in [
        (0, vec!["-c", "SELECT 1 AS a"], ""),
        (2, vec!["-c", "SELECT '${lake}'"], "add --set lake="),
        (2, vec!["--set", "lake", "-c", "SELECT 1"], "write NAME=VALUE"),
        (2, vec!["--format", "xml", "-c", "SELECT 1"], "xml"),
        (2, vec!["--format", "parquet", "--output", &missing, "-c", "SELECT 1; SELECT 2"], "holds one result"),
        (3, vec!["-f", &missing], "cannot read"),
        (3, vec!["-c", "SELEC 1"], "this SQL cannot be read: Expected: an SQL statement, found: SELEC at Line: 1"),
        (3, vec!["-c", "SELECT * FROM item_affinity_segments(SELECT item_id FROM items)"], "of its own: f((SELECT …))"),
        (3, vec!["-c", "SELECT * FROM nowhere"], "nowhere"),
        (3, vec!["-c", "SELECT * FROM item_affinity_segments(['a'])"], "no solution version is set"),
        (3, vec!["--solution-version", &nowhere, "-c", "SELECT * FROM item_affinity_items()"], "ERR_NO_VERSION"),
        (3, vec!["--solution-version", &at("@99"), "-c", "SELECT * FROM item_affinity_items()"], "99"),
        (
            3,
            vec!["--solution-version", solution(), "-c", "SELECT * FROM item_affinity_segments([1.5])"],
            "found Float64",
        ),
        (
            8,
            vec![
                "--memory-limit",
                "10KB",
                "-c",
                "SELECT count(*) FROM (SELECT value, count(*) FROM generate_series(1, 300000) GROUP BY value)",
            ],
            "memory",
        ),
    ] {
        let ended = cli(["sql"].into_iter().chain(arguments.iter().copied()));
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        if code > 2 {
            assert!(ended.stdout.is_empty() && ended.stderr.starts_with("error: "), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        }
    }
    // The figures of a failed query are on neither stream; those before it are on stdout.
    let half = cli(["sql", "--format", "csv", "-c", "SELECT 7 AS a; SELECT * FROM nowhere"]);
    assert_eq!((half.code, csv_rows(&half.stdout)), (3, vec![vec!["7".to_owned()]]));
}
