//! Filters of users against the plain reference, and as part of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Float32Type, Int32Type};
use datafusion::execution::context::SessionContext;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionConfig};
use item_affinity_datafusion::{
    CandidateCounts, ItemAffinityOptions, Seen, SegmentsRequest, SessionSettings, segments_dataframe, session,
};
use item_affinity_solution::{SolutionRef, SolutionVersion};
use item_affinity_storage::Stores;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::common::{cli, csv_rows, data, files_below, solution, succeed};

const ITEMS: [&str; 3] = ["BAKING-03", "COFFEE-01", "MUSIC-05"];
/// Matrix products of other shapes may differ in their last bits, so that neighbours change places.
const SAME: f32 = 1e-6;

async fn sessions() -> Vec<SessionContext> {
    let mut sessions = Vec::new();
    for partitions in [1, 2, 5] {
        let settings = SessionSettings { target_partitions: Some(partitions), ..SessionSettings::default() };
        let ctx = session(&Stores::from_env(), settings).unwrap();
        for name in ["interactions", "users"] {
            let table =
                ctx.read_parquet(data(&format!("{name}.parquet")), ParquetReadOptions::default()).await.unwrap();
            ctx.register_table(name, table.into_view()).unwrap();
        }
        ctx.sql(&format!("SET item_affinity.solution_version = '{}'", solution())).await.unwrap();
        sessions.push(ctx);
    }
    sessions
}

async fn rows(ctx: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    ctx.sql(sql).await.unwrap().collect().await.unwrap()
}

/// The users of a segment and their scores, best first, by item.
type Segments = BTreeMap<String, Vec<(String, f32)>>;

/// `item_id, rank, user_id, score` in any order; ranks must be 1, 2, … for each item.
fn segments(batches: &[RecordBatch]) -> Segments {
    let mut ranked = BTreeMap::<(String, i32), (String, f32)>::new();
    for batch in batches {
        let (item, rank) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int32Type>());
        let (user, score) = (batch.column(2).as_string::<i32>(), batch.column(3).as_primitive::<Float32Type>());
        for row in 0..batch.num_rows() {
            let key = (item.value(row).to_owned(), rank.value(row));
            assert!(ranked.insert(key, (user.value(row).to_owned(), score.value(row))).is_none());
        }
    }
    let mut segments = Segments::new();
    for ((item, rank), user) in ranked {
        let segment = segments.entry(item).or_default();
        segment.push(user);
        assert_eq!(rank as usize, segment.len());
    }
    segments
}

/// Each rank has the score of the reference, and each user the own one; places differ only among equal scores.
fn assert_same(found: &Segments, reference: &Segments, everybody: &BTreeMap<(String, String), f32>, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>(), "{what}");
    for (item, segment) in found {
        let expected = &reference[item];
        assert_eq!(segment.len(), expected.len(), "{what}, {item}");
        let distinct = segment.iter().map(|(user, _)| user).collect::<BTreeSet<_>>();
        assert_eq!(distinct.len(), segment.len(), "{what}, {item}");
        for ((user, score), (_, at_rank)) in segment.iter().zip(expected) {
            let own = everybody.get(&(item.clone(), user.clone()));
            let own = own.unwrap_or_else(|| panic!("{what}, {item}: somebody is in the segment who is not asked for"));
            assert!(
                (score - own).abs() < SAME && (score - at_rank).abs() < SAME,
                "{what}, {item}: {score} {own} {at_rank}"
            );
        }
    }
}

fn ids(users: Vec<Option<String>>) -> RecordBatch {
    RecordBatch::try_from_iter([("user_id", Arc::new(StringArray::from(users)) as ArrayRef)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_any_users_are_the_top_of_the_plain_reference_over_them() {
    let sessions = sessions().await;
    let all = rows(&sessions[0], "SELECT DISTINCT CAST(user_id AS VARCHAR) FROM interactions ORDER BY 1").await;
    let text = |batch: &RecordBatch| {
        let column = datafusion::arrow::compute::cast(batch.column(0), &datafusion::arrow::datatypes::DataType::Utf8);
        column.unwrap().as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = all.iter().flat_map(text).collect::<Vec<_>>();
    assert_eq!(all.len(), 1_500);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for round in 0..12 {
        // Few users and many, some twice; now and then NULL, strangers, and nobody at all.
        let size = [0, 1, 7, 40, 300, 1_499][round % 6];
        let mut asked = all.sample(&mut rng, size).cloned().collect::<BTreeSet<_>>();
        let mut rows_of_users = asked.iter().cloned().map(Some).collect::<Vec<_>>();
        for _ in 0..size / 2 {
            let twice = rows_of_users[rng.random_range(0..rows_of_users.len())].clone();
            rows_of_users.push(twice);
        }
        if round % 2 == 1 {
            rows_of_users.extend([None, Some("a stranger".to_owned()), Some(String::new()), None]);
            asked.extend(["a stranger".to_owned(), String::new()]);
        }
        let candidates = ids(rows_of_users);
        let seen = ["include", "exclude", "only"][rng.random_range(0..3)];
        let k = [1, 3, 25, 2_000][rng.random_range(0..4)];
        let least = [0.0, 0.0, 0.02][rng.random_range(0..3)];
        let what = format!("round {round}: {size} users, seen={seen}, k={k}, min_score={least}");
        for ctx in &sessions {
            let _ = ctx.deregister_table("candidates").unwrap();
            ctx.register_batch("candidates", candidates.clone()).unwrap();
        }
        let seen_rule = match seen {
            "exclude" => "h.user_id IS NULL",
            "only" => "h.user_id IS NOT NULL",
            _ => "true",
        };
        let score = format!(
            "CREATE OR REPLACE TABLE scored AS
             SELECT i.item_id, u.user_id, item_affinity_score(u.user_id, i.item_id) AS score
             FROM (SELECT DISTINCT user_id FROM candidates) AS u
             CROSS JOIN (VALUES ('{}'), ('{}'), ('{}')) AS i(item_id)",
            ITEMS[0], ITEMS[1], ITEMS[2]
        );
        rows(&sessions[0], &score).await;
        let reference = format!(
            "SELECT item_id, rank, user_id, score FROM (
               SELECT s.*, row_number() OVER (PARTITION BY s.item_id ORDER BY score DESC, s.user_id) AS rank
               FROM scored AS s
               LEFT JOIN (SELECT DISTINCT user_id, item_id FROM interactions) AS h
                 ON h.user_id = s.user_id AND h.item_id = s.item_id
               WHERE score >= {least} AND {seen_rule}
             ) WHERE rank <= {k}"
        );
        let reference = segments(&plain_text(&rows(&sessions[0], &reference).await));
        let everybody = "SELECT item_id, 1, user_id, score FROM scored WHERE score IS NOT NULL";
        let everybody = plain_text(&rows(&sessions[0], everybody).await);
        let everybody = everybody.iter().flat_map(pairs).collect::<BTreeMap<_, _>>();
        for ctx in &sessions {
            let call = format!(
                "SELECT * FROM item_affinity_segments(['{}', '{}', '{}'], {k}, users => candidates, seen => '{seen}', \
                 min_score => {least})",
                ITEMS[2], ITEMS[0], ITEMS[1]
            );
            let plan = ctx.sql(&call).await.unwrap().create_physical_plan().await.unwrap();
            let found = datafusion::physical_plan::collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
            assert_same(&segments(&found), &reference, &everybody, &what);
            let strangers = if round % 2 == 1 { 2 } else { 0 };
            let counted = CandidateCounts { asked: asked.len() as u64, unknown: strangers };
            assert_eq!(CandidateCounts::of(&plan), Some(counted), "{what}");
        }
    }
}

/// The same rows with every text as Utf8.
fn plain_text(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    use datafusion::arrow::datatypes::DataType;
    let types = [DataType::Utf8, DataType::Int32, DataType::Utf8, DataType::Float32];
    let names = ["item_id", "rank", "user_id", "score"];
    let plain = batches.iter().map(|batch| {
        let columns = batch.columns().iter().zip(&types);
        let columns = columns.map(|(column, to)| datafusion::arrow::compute::cast(column, to).unwrap());
        RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap()
    });
    plain.collect()
}

fn pairs(batch: &RecordBatch) -> Vec<((String, String), f32)> {
    let (item, user) = (batch.column(0).as_string::<i32>(), batch.column(2).as_string::<i32>());
    let score = batch.column(3).as_primitive::<Float32Type>();
    (0..batch.num_rows())
        .map(|row| ((item.value(row).to_owned(), user.value(row).to_owned()), score.value(row)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_from_rust_takes_a_query_of_users_and_refuses_one_without_them() {
    let ctx = &sessions().await[1];
    let stores = Stores::from_env();
    let version = SolutionVersion::open(&stores, &SolutionRef::parse(solution()).unwrap()).await.unwrap();
    let version = Arc::new(version);
    let request = |users| SegmentsRequest {
        items: vec!["COFFEE-01".to_owned()],
        num_results: 12,
        seen: Seen::Include,
        min_score: 0.0,
        reasons: None,
        users: Some(users),
    };
    let users = ctx.sql("SELECT country, user_id FROM users WHERE country = 'DE'").await.unwrap();
    let planned = segments_dataframe(ctx, &stores, &version, &request(users)).unwrap();
    let found = segments(&planned.segments.collect().await.unwrap());
    let by_name = "SELECT * FROM item_affinity_segments(['COFFEE-01'], 12, users => (SELECT user_id FROM users WHERE country = 'DE'))";
    assert_eq!(found, segments(&rows(ctx, by_name).await));
    assert_eq!(found["COFFEE-01"].len(), 12);

    let nobody = ctx.sql("SELECT country FROM users").await.unwrap();
    let error = segments_dataframe(ctx, &stores, &version, &request(nobody)).unwrap_err().to_string();
    assert!(error.contains("the query of users has no column user_id, found [country]"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_place_work_in_a_session_without_the_planner_of_names() {
    let named = &sessions().await[1];
    let config = SessionConfig::new().with_option_extension(ItemAffinityOptions::default());
    let plain = SessionContext::new_with_config(config);
    let function = Arc::clone(named.state().table_functions()["item_affinity_segments"].function());
    plain.register_udtf("item_affinity_segments", function);
    plain.sql(&format!("SET item_affinity.solution_version = '{}'", solution())).await.unwrap();
    let by_place = "SELECT * FROM item_affinity_segments(['COFFEE-01', 'MUSIC-05'], 2 + 3)";
    let found = segments(&rows(&plain, by_place).await);
    assert_eq!(found, segments(&rows(named, by_place).await));
    assert_eq!(found["MUSIC-05"].len(), 5);
    let by_name = "SELECT * FROM item_affinity_segments(items => ['COFFEE-01'])";
    assert!(plain.sql(by_name).await.is_err());
    assert_eq!(segments(&rows(named, by_name).await)["COFFEE-01"].len(), 25);
}

#[test]
fn a_plan_that_ran_says_how_many_users_were_asked_for_and_are_unknown() {
    let query = "EXPLAIN ANALYZE SELECT * FROM item_affinity_segments(['COFFEE-01'], users => (VALUES_OF_USERS))";
    let query =
        query.replace("VALUES_OF_USERS", "SELECT * FROM (VALUES ('one'), ('two'), ('two'), (NULL)) AS v(user_id)");
    let plan =
        succeed(["sql", "--threads", "2", "--solution-version", solution(), "--format", "csv", "-c", &query]).stdout;
    assert!(plan.contains("users_asked=2") && plan.contains("users_unknown=2"), "{plan}");
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_job_ranks_the_users_of_a_data_set_and_its_filter_is_part_of_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments").display().to_string();
    let users = data("users.parquet");
    let with = |extra: &[&str]| {
        let arguments = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", &output];
        cli(arguments.into_iter().chain(extra.iter().copied()))
    };
    let germans = ["--users", &users, "--users-filter", "country = 'DE'"];
    let first = with(&germans);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.stdout.contains("version 1 ") && first.stdout.contains("unknown=0"), "{}", first.stdout);
    let part = files_below(Path::new(&output)).into_iter().find(|f| f.ends_with("part-00000.parquet")).unwrap();
    let query = format!(
        "CREATE EXTERNAL TABLE s STORED AS PARQUET LOCATION '{output}/{}'; CREATE EXTERNAL TABLE u STORED AS PARQUET \
         LOCATION '{users}'; SELECT country, count(*) FROM s JOIN u ON s.user_id = u.user_id GROUP BY country",
        part.display()
    );
    let countries = csv_rows(&succeed(["sql", "--format", "csv", "-c", &query]).stdout);
    assert_eq!(countries, [["DE", "25"]]);
    let again = with(&germans);
    assert!(again.stdout.contains("already done as version 1"), "{}", again.stdout);
    assert!(again.stdout.contains("unknown=0"), "{}", again.stdout);
    for (version, other) in
        [(2, vec!["--users", &*users]), (3, vec![]), (4, vec!["--users", &users, "--users-filter", "country = 'FR'"])]
    {
        let ended = with(&other);
        assert!(ended.stdout.contains(&format!("committed version {version} ")), "{other:?}: {ended:?}");
    }
}

#[test]
fn users_of_a_job_may_be_strangers_nobody_or_numbers_but_need_their_column() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let output = place("segments");
    let with = |users: &str, extra: &[&str]| {
        let arguments = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--item", "MUSIC-05"];
        cli(arguments.into_iter().chain(["--output", &output, "--users", users]).chain(extra.iter().copied()))
    };
    let strangers = ids(vec![Some("one".to_owned()), Some("two".to_owned()), Some("one".to_owned()), None]);
    write_parquet(&folder.path().join("strangers.parquet"), &strangers);
    let ended = with(&place("strangers.parquet"), &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("items: asked=2 ok=0 empty=2 error=0\nusers: asked=2 unknown=2"), "{ended:?}");
    assert!(ended.stderr.contains("USERS_UNKNOWN: 2 of 2 users"), "{ended:?}");

    let numbers = RecordBatch::try_from_iter([
        ("USER_ID", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("Age", Arc::new(Int64Array::from(vec![20, 30, 40])) as ArrayRef),
    ])
    .unwrap();
    write_parquet(&folder.path().join("numbers.parquet"), &numbers);
    let ended = with(&place("numbers.parquet"), &["--users-filter", "age >= 30"]);
    assert!(ended.stdout.contains("users: asked=2 unknown=2"), "{ended:?}");

    let refused = [
        (data("items.parquet"), vec![], "USERS_INVALID: no column user_id, found [item_id"),
        (place("numbers.parquet"), vec!["--users-filter", "agee > 3"], "USERS_FILTER_INVALID: "),
        (place("numbers.parquet"), vec!["--users-filter", "age >"], "USERS_FILTER_INVALID: "),
        (place("numbers.parquet"), vec!["--users-filter", "age + 1"], "USERS_FILTER_INVALID: "),
        (place("missing.parquet"), vec![], "missing.parquet"),
    ];
    for (users, extra, message) in refused {
        let ended = with(&users, &extra);
        assert_eq!(ended.code, 3, "{extra:?}: {ended:?}");
        assert!(ended.stderr.contains(message), "{message}: {ended:?}");
    }
    let ended = cli(["segment", "--solution", solution(), "--item", "a", "--output", "o", "--users-filter", "true"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let inside = cli(["segment", "--solution", solution(), "--item", "a", "--users"].into_iter().chain([
        folder.path().to_str().unwrap(),
        "--output",
        &output,
    ]));
    assert_eq!(inside.code, 2, "{inside:?}");
    assert!(inside.stderr.contains("lies in the input"), "{inside:?}");
    succeed(["show", "--output", &output]);
}
