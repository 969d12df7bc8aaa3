//! Reasons from SQL against the normal equations as the paper writes them, solved densely from the files of a version.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Float32Type, Int32Type};
use datafusion::object_store::ObjectStoreExt;
use datafusion::object_store::path::Path;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use item_affinity_datafusion::{SessionSettings, session};
use item_affinity_model::ndarray::ArrayView1;
use item_affinity_solution::{SolutionVersion, TrainingJob};
use item_affinity_storage::{Location, Stores};

const USERS: usize = 1_001;
const ITEMS: usize = 60;
const GROUPS: usize = 6;

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

/// Users of group `user % 6` mostly have items of their group; user n has n % 4 + 1 events, so that attributes help.
fn interactions() -> Vec<u8> {
    let (mut users, mut items, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut state = 7u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for user in 0..USERS {
        for _ in 0..user % 4 + 1 {
            let group = if below(12) == 0 { below(GROUPS) } else { user % GROUPS };
            users.push(format!("user-{user:03}"));
            items.push(format!("item-{:02}", below(ITEMS / GROUPS) * GROUPS + group));
            times.push(1_700_000_000 + below(1_600) as i64 * 3_600);
        }
    }
    parquet(vec![
        ("user_id", Arc::new(StringArray::from(users))),
        ("item_id", Arc::new(StringArray::from(items))),
        ("timestamp", Arc::new(Int64Array::from(times))),
    ])
}

fn users() -> Vec<u8> {
    let ids = (0..USERS).map(|user| format!("user-{user:03}")).collect::<Vec<_>>();
    let groups = (0..USERS).map(|user| format!("group-{}", user % GROUPS)).collect::<Vec<_>>();
    parquet(vec![("user_id", Arc::new(StringArray::from(ids))), ("interest", Arc::new(StringArray::from(groups)))])
}

async fn put(stores: &Stores, path: &str, bytes: Vec<u8>) -> String {
    let location = Location::parse(&format!("memory:///{path}")).unwrap();
    stores.store(&location).unwrap().put(&Path::from(path), bytes.into()).await.unwrap();
    location.to_string()
}

async fn trained(with_users: bool) -> (Stores, SolutionVersion, SessionContext) {
    let stores = Stores::in_memory();
    let mut job = TrainingJob::new(put(&stores, "interactions.parquet", interactions()).await)
        .stores(stores.clone())
        .hidden_dimension(32)
        .allow_small_data(true)
        .solution("memory:///solution");
    if with_users {
        job = job.users(put(&stores, "users.parquet", users()).await);
    }
    let report = job.run().await.unwrap();
    let version = SolutionVersion::open(&stores, &report.solution).await.unwrap();
    let settings = SessionSettings { target_partitions: Some(3), ..SessionSettings::default() };
    let ctx = session(&stores, settings).unwrap();
    ctx.sql(&format!("SET item_affinity.solution_version = '{}'", report.solution)).await.unwrap();
    (stores, version, ctx)
}

/// What each past item of each user adds to the affinity for each item: users × items × past items.
async fn dense_shares(stores: &Stores, version: &SolutionVersion) -> Vec<Vec<BTreeMap<usize, f64>>> {
    let (factors, recipe) = (&version.items.factors, &version.model.recipe);
    let (items, d) = factors.dim();
    let y = |item: usize, k: usize| f64::from(factors[[item, k]]);
    let weight = f64::from(recipe.unobserved_weight);
    let all: Vec<u32> = (0..items as u32).collect();
    let history = version.item_history(stores, &all).await.unwrap().weights.transpose();
    let product = |row, column| weight * (0..items).map(|item| y(item, row) * y(item, column)).sum::<f64>();
    let gram: Vec<Vec<f64>> = (0..d).map(|row| (0..d).map(|column| product(row, column)).collect()).collect();
    let of_user = |user: usize| {
        let (past, values) = history.row(user);
        let confidence: Vec<f64> = values.iter().map(|value| f64::from(*value).ln_1p()).collect();
        let penalty = f64::from(recipe.penalty_rate()) * (confidence.iter().sum::<f64>() + weight * items as f64);
        // The equations with the unit matrix beside them become the inverse.
        let mut matrix = vec![vec![0f64; 2 * d]; d];
        for (row, equation) in matrix.iter_mut().enumerate() {
            for (column, entry) in equation.iter_mut().take(d).enumerate() {
                let past = past.iter().zip(&confidence);
                *entry = gram[row][column]
                    + past.map(|(j, c)| c * y(*j as usize, row) * y(*j as usize, column)).sum::<f64>();
            }
            equation[row] += penalty;
            equation[d + row] = 1.0;
        }
        for pivot in 0..d {
            let scale = matrix[pivot][pivot];
            matrix[pivot].iter_mut().for_each(|entry| *entry /= scale);
            let by = matrix[pivot].clone();
            for (_, equation) in matrix.iter_mut().enumerate().filter(|(row, _)| *row != pivot) {
                let factor = equation[pivot];
                equation.iter_mut().zip(&by).for_each(|(entry, by)| *entry -= factor * by);
            }
        }
        let of_item = |item: usize| {
            let w: Vec<f64> = matrix.iter().map(|row| (0..d).map(|k| row[d + k] * y(item, k)).sum()).collect();
            let share = |j: usize| w.iter().enumerate().map(|(k, w)| w * y(j, k)).sum::<f64>();
            past.iter().zip(&confidence).map(|(j, c)| (*j as usize, c * share(*j as usize))).collect()
        };
        (0..items).map(of_item).collect()
    };
    (0..history.rows()).map(of_user).collect()
}

/// A row of the answer: item, user, reason rank, past item, share.
type Row = (usize, usize, Option<i32>, Option<usize>, Option<f32>);

async fn explained(
    ctx: &SessionContext,
    version: &SolutionVersion,
    states: &item_affinity_model::Vocabulary,
) -> Vec<Row> {
    let items = version.items.ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let sql =
        format!("SELECT * FROM item_affinity_explain([{items}], 5000000, 1000) ORDER BY item_id, rank, reason_rank");
    let mut rows = Vec::new();
    for batch in ctx.sql(&sql).await.unwrap().collect().await.unwrap() {
        let text = |column: usize| batch.column(column).as_string::<i32>();
        let ranks = batch.column(4).as_primitive::<Int32Type>();
        let shares = batch.column(6).as_primitive::<Float32Type>();
        for row in 0..batch.num_rows() {
            let some = ranks.is_valid(row);
            rows.push((
                version.items.ids.index_of(text(0).value(row)).unwrap() as usize,
                states.index_of(text(2).value(row)).unwrap() as usize,
                some.then(|| ranks.value(row)),
                some.then(|| version.items.ids.index_of(text(5).value(row)).unwrap() as usize),
                some.then(|| shares.value(row)),
            ));
        }
    }
    rows
}

async fn check(with_users: bool) {
    let (stores, version, ctx) = trained(with_users).await;
    let uses_attributes = !version.model.user_attributes.is_empty();
    assert_eq!(uses_attributes, with_users, "{:?}", version.model.side);
    let states = version.user_states(&stores).await.unwrap();
    let expected = dense_shares(&stores, &version).await;
    let mut of_pair = BTreeMap::<(usize, usize), Vec<Row>>::new();
    for row in explained(&ctx, &version, &states.ids).await {
        of_pair.entry((row.0, row.1)).or_default().push(row);
    }
    assert_eq!(of_pair.len(), USERS * ITEMS);
    let (mut without, mut with_prior) = (0, 0);
    for ((item, user), rows) in of_pair {
        let expected = &expected[user][item];
        let positive = expected.values().filter(|share| **share > 1e-6).count();
        let affinity = f64::from(states.factors.row(user).dot(&version.items.factors.row(item)));
        // Folding in ends at a millionth of the way, and parts far larger than their sum lose digits of it.
        let norm = |row: ArrayView1<'_, f32>| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let left = norm(states.factors.row(user)) * norm(version.items.factors.row(item)) * 1e-6;
        let largest = expected.values().map(|share| share.abs()).fold(affinity.abs(), f64::max);
        let tolerance = 1e-4 * largest + 4.0 * left;
        if rows[0].2.is_none() {
            assert_eq!((rows.len(), positive), (1, 0), "{rows:?} {expected:?}");
            without += 1;
        } else {
            assert!(rows.len() >= positive, "{} of {positive}", rows.len());
            for (number, row) in (1..).zip(&rows) {
                let share = f64::from(row.4.unwrap());
                assert_eq!(row.2, Some(number));
                assert!((share - expected[&row.3.unwrap()]).abs() <= tolerance, "{row:?} {expected:?}");
            }
        }
        let found: f64 = rows.iter().filter_map(|row| row.4).map(f64::from).sum();
        let against: f64 = expected.values().filter(|share| **share <= 0.0).sum();
        let prior = affinity - found - against;
        if !uses_attributes {
            assert!(prior.abs() <= tolerance, "user {user}, item {item}: {found} + {against} is not {affinity}");
        } else if prior.abs() > 10.0 * tolerance {
            with_prior += 1;
        }
    }
    assert!(without > 0, "every user has a reason for every item");
    assert_eq!(with_prior > 0, uses_attributes);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_those_of_a_dense_reference_and_sum_to_the_affinity() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_users_take_their_part_of_the_affinity_and_leave_shares_alone() {
    check(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_are_the_same_for_any_number_of_partitions_and_rows_of_a_batch() {
    let (stores, version, _) = trained(false).await;
    let states = version.user_states(&stores).await.unwrap();
    let mut answers = Vec::new();
    for (partitions, rows) in [(1, 8192), (2, 7), (8, 100)] {
        let settings = SessionSettings { target_partitions: Some(partitions), ..SessionSettings::default() };
        let ctx = session(&stores, settings).unwrap();
        ctx.sql(&format!("SET item_affinity.solution_version = '{}'", version.reference())).await.unwrap();
        ctx.sql(&format!("SET datafusion.execution.batch_size = {rows}")).await.unwrap();
        answers.push(explained(&ctx, &version, &states.ids).await);
    }
    assert!(answers[0].len() > USERS * ITEMS);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_enough_memory_refuses_to_explain() {
    let (stores, version, _) = trained(false).await;
    let settings =
        SessionSettings { memory_limit: Some(200 << 10), target_partitions: Some(1), ..SessionSettings::default() };
    let ctx = session(&stores, settings).unwrap();
    ctx.sql(&format!("SET item_affinity.solution_version = '{}'", version.reference())).await.unwrap();
    let all = version.items.ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT * FROM item_affinity_explain([{all}], 150, 1000)");
    let error = ctx.sql(&sql).await.unwrap().collect().await.unwrap_err();
    assert_eq!(item_affinity_datafusion::error_kind(&error), item_affinity_storage::ErrorKind::Limit, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_gives_back_its_memory_at_once() {
    let (_, version, ctx) = trained(false).await;
    let all = version.items.ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT * FROM item_affinity_explain([{all}], 5000000, 1000)");
    let pool = Arc::clone(&ctx.runtime_env().memory_pool);
    let mut rows = ctx.sql(&sql).await.unwrap().execute_stream().await.unwrap();
    let reserved = async {
        while pool.reserved() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        batch = rows.next() => drop(batch.unwrap().unwrap()),
        () = reserved => {}
    }
    drop(rows);
    // User parts that were read stay with the session, for its next query.
    let kept = version.user_parts.iter().map(|part| part.entry.bytes as usize).sum::<usize>();
    let started = Instant::now();
    while pool.reserved() > kept {
        assert!(started.elapsed() < Duration::from_secs(5), "{} bytes are still held", pool.reserved());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
