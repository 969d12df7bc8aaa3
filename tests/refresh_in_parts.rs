//! A refresh whose users are folded in part by part gives the version that one process gives, whatever plan runs it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::RecordBatch;
use futures::future::BoxFuture;
use item_affinity_datafusion::{SessionSettings, refresh_tasks, session};
use item_affinity_model::ItemAffinity;
use item_affinity_solution::{
    Error, RefreshJob, RefreshReport, RefreshStage, RefreshTask, RefreshTasks, SolutionRef, SolutionVersion,
    TaskFailure, TrainingJob,
};
use item_affinity_storage::{Artifact, ErrorKind, Location, Stores, Versions};

use crate::common::{data, files_below, succeed};

/// 2026-05-31T00:00:00Z, five of the six months of the built-in data.
const TRAINED_AT: i64 = 1_780_185_600;

/// Writes the built-in interactions as four files, one after another in time, and those of the training: older ones,
/// without a tenth of the users and without one item.
pub(crate) fn write_log(folder: &Path) -> (String, String) {
    let log = folder.join("log");
    std::fs::create_dir_all(&log).unwrap();
    let mut query = format!("CREATE EXTERNAL TABLE i STORED AS PARQUET LOCATION '{}'; ", data("interactions.parquet"));
    let mut copy = |condition: &str, file: &Path| {
        query
            .push_str(&format!("COPY (SELECT * FROM i WHERE {condition}) TO '{}' STORED AS PARQUET; ", file.display()));
    };
    let cuts = [i64::MIN, TRAINED_AT - 8_000_000, TRAINED_AT - 3_000_000, TRAINED_AT, i64::MAX];
    for (number, cut) in cuts.windows(2).enumerate() {
        copy(
            &format!("timestamp >= {} AND timestamp < {}", cut[0].max(0), cut[1]),
            &log.join(format!("{number}.parquet")),
        );
    }
    let early = folder.join("early.parquet");
    copy(&format!("timestamp < {TRAINED_AT} AND user_id NOT LIKE '%0' AND item_id <> 'COFFEE-01'"), &early);
    succeed(["sql", "--allow-copy", "-c", query.trim_end_matches("; ")]);
    (early.display().to_string(), format!("{}/", log.display()))
}

/// A solution of the older events, and the whole log in several files.
async fn scene(folder: &Path) -> (String, String) {
    let (early, log) = write_log(folder);
    let solution = folder.join("solution").display().to_string();
    let recipe = ItemAffinity { hidden_dimension: 32, ..ItemAffinity::default() };
    TrainingJob::new(early).recipe(recipe).solution(&solution).run().await.unwrap();
    (solution, log)
}

fn tasks(partitions: usize) -> Arc<dyn RefreshTasks> {
    let settings = SessionSettings { target_partitions: Some(partitions), ..SessionSettings::default() };
    let stores = Stores::from_env();
    refresh_tasks(&session(&stores, settings).unwrap(), &stores)
}

async fn refresh(solution: &str, log: &str, tasks: Option<Arc<dyn RefreshTasks>>) -> Result<RefreshReport, Error> {
    RefreshJob::new(format!("{solution}@1")).interactions(log).tasks(tasks).force(true).run().await
}

/// Everything that two versions hold must be the same but what is rounded in another order.
pub(crate) async fn same_versions(stores: &Stores, here: &SolutionRef, there: &SolutionRef) {
    let open = async |reference: &SolutionRef| SolutionVersion::open(stores, reference).await.unwrap();
    let (a, b) = (open(here).await, open(there).await);
    let (mut one, mut other) = (a.model.clone(), b.model.clone());
    near(&[one.slopes.affinity, one.slopes.log_affinity], &[other.slopes.affinity, other.slopes.log_affinity]);
    other.slopes = one.slopes;
    // Groups of pairs are files of their own.
    one.pair_parts.clear();
    other.pair_parts.clear();
    assert_eq!(one, other);
    near(&a.items.log_odds, &b.items.log_odds);
    let without = |items: &item_affinity_solution::ItemStates| {
        let mut items = items.clone();
        items.log_odds.clear();
        items
    };
    assert_eq!(without(&a.items), without(&b.items));
    let parts = |version: &SolutionVersion| version.user_parts.iter().map(|part| part.rows).collect::<Vec<_>>();
    assert_eq!(parts(&a), parts(&b));
    let (users, others) = (a.user_states(stores).await.unwrap(), b.user_states(stores).await.unwrap());
    near(&users.log_odds, &others.log_odds);
    assert_eq!((&users.ids, &users.factors), (&others.ids, &others.factors), "factors differ by a bit");
    assert_eq!((&users.interactions, &users.last_interaction), (&others.interactions, &others.last_interaction));
    let items: Vec<u32> = (0..a.items.ids.len() as u32).collect();
    let (pairs, others) =
        (a.item_history(stores, &items).await.unwrap(), b.item_history(stores, &items).await.unwrap());
    assert_eq!(pairs.weights, others.weights);
    assert_eq!(pairs.log_odds.indices(), others.log_odds.indices());
    near(pairs.log_odds.values(), others.log_odds.values());
    assert_eq!(a.commit.body.counts, b.commit.body.counts);
    assert_eq!(a.commit.body.job_key, b.commit.body.job_key);
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} {b}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_in_parts_gives_the_version_of_one_process_however_many_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let (solution, log) = scene(folder.path()).await;
    let whole = refresh(&solution, &log, None).await.unwrap();
    let stores = Stores::from_env();
    let mut prints: Vec<Vec<String>> = Vec::new();
    for partitions in [1, 3, 8] {
        let parts = refresh(&solution, &log, Some(tasks(partitions))).await.unwrap();
        assert_eq!(parts.changes, whole.changes);
        same_versions(&stores, &whole.solution, &parts.solution).await;
        let version = SolutionVersion::open(&stores, &parts.solution).await.unwrap();
        assert!(version.user_parts.len() > 2 && version.pair_parts.len() > 3, "{version:?}");
        let mut print: Vec<_> = version.commit.files.iter().map(|file| file.sha256.clone()).collect();
        print.sort();
        prints.push(print);
    }
    assert!(prints.iter().all(|print| *print == prints[0]), "partitions show in the files");
    // The users and items that the training did not know are told.
    let changes = whole.changes.unwrap();
    assert!(changes.new_users > 100 && changes.gone_users == 0 && changes.left_out_items == 1, "{changes:?}");
    let notes = files_below(Path::new(&solution)).into_iter().filter(|path| path.ends_with("everyone.sums"));
    assert_eq!(notes.count(), 0);
    // What one way did is done for the other.
    let again = RefreshJob::new(&solution).interactions(&log).tasks(Some(tasks(2))).run().await.unwrap();
    assert!(again.already_done, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p38_refresh_in_parts_leaves_out_the_forgotten_as_one_process_does() {
    let folder = tempfile::tempdir().unwrap();
    let (solution, log) = scene(folder.path()).await;
    // Those of the first and the last event as well, without whom the times of the log are others.
    let events = "CREATE EXTERNAL TABLE i STORED AS PARQUET LOCATION";
    let query = format!(
        "{events} '{log}'; (SELECT user_id FROM i ORDER BY timestamp LIMIT 2) UNION (SELECT user_id FROM i ORDER BY \
         timestamp DESC LIMIT 2) UNION (SELECT DISTINCT user_id FROM i WHERE user_id LIKE '%7')"
    );
    let listed = succeed(["sql", "--format", "csv", "-c", &query]).stdout;
    let named: Vec<&str> = listed.lines().skip(1).collect();
    assert!(named.len() > 20, "{named:?}");
    let stores = Stores::from_env();
    let versions = Versions::new(&stores, Location::parse(&solution).unwrap(), Artifact::SolutionVersion).unwrap();
    assert_eq!(versions.forget(named.iter().copied()).await.unwrap(), named.len() as u64);

    let whole = refresh(&solution, &log, None).await.unwrap();
    let version = SolutionVersion::open(&stores, &whole.solution).await.unwrap();
    let left_out = version.commit.body.counts.get("forgotten_rows").copied();
    assert!(left_out.is_some_and(|rows| rows as usize > named.len()), "{left_out:?}");
    let ids = version.user_states(&stores).await.unwrap().ids.clone();
    assert!(named.iter().all(|id| ids.index_of(id).is_none()));
    for partitions in [1, 3, 8] {
        let parts = refresh(&solution, &log, Some(tasks(partitions))).await.unwrap();
        assert_eq!(parts.changes, whole.changes);
        same_versions(&stores, &whole.solution, &parts.solution).await;
    }
    let notes = files_below(Path::new(&solution)).into_iter().filter(|path| path.ends_with("forgotten.json"));
    assert_eq!(notes.count(), 0);

    // Where everybody was forgotten there is nothing to refresh, wherever it runs.
    let everybody =
        succeed(["sql", "--format", "csv", "-c", &format!("{events} '{log}'; SELECT DISTINCT user_id FROM i")]);
    versions.forget(everybody.stdout.lines().skip(1)).await.unwrap();
    let here = refresh(&solution, &log, None).await.unwrap_err().to_string();
    assert!(here.contains("users who were forgotten"), "{here}");
    assert_eq!(refresh(&solution, &log, Some(tasks(2))).await.unwrap_err().to_string(), here);
}

/// Tasks that lose or repeat a row, as a cluster without commits of its own might.
struct Faulty {
    inner: Arc<dyn RefreshTasks>,
    stage: RefreshStage,
    twice: bool,
    said: Mutex<usize>,
}

impl RefreshTasks for Faulty {
    fn run(&self, task: RefreshTask, units: Vec<String>) -> BoxFuture<'_, Result<Vec<RecordBatch>, TaskFailure>> {
        let faulty = task.stage == self.stage;
        let running = self.inner.run(task, units);
        Box::pin(async move {
            let mut rows = running.await?;
            if faulty {
                *self.said.lock().unwrap() += 1;
                let (at, most) = rows.iter().enumerate().max_by_key(|(_, batch)| batch.num_rows()).unwrap();
                let most = most.clone();
                if self.twice { rows.push(most.slice(0, 1)) } else { rows[at] = most.slice(1, most.num_rows() - 1) }
            }
            Ok(rows)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_in_parts_commits_nothing_when_a_row_is_lost_or_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (solution, log) = scene(folder.path()).await;
    let before = files_below(Path::new(&solution));
    for (stage, twice) in [(RefreshStage::Measure, true), (RefreshStage::Write, true), (RefreshStage::Write, false)] {
        let faulty = Arc::new(Faulty { inner: tasks(3), stage, twice, said: Mutex::new(0) });
        let error = refresh(&solution, &log, Some(Arc::clone(&faulty) as Arc<dyn RefreshTasks>)).await.unwrap_err();
        assert_eq!(*faulty.said.lock().unwrap(), 1);
        assert_eq!(error.kind(), ErrorKind::Bug, "{error}");
        assert!(error.to_string().contains("does not add up"), "{error}");
        // What tasks wrote is gone as well: one version, one commit, no note.
        assert_eq!(files_below(Path::new(&solution)), before);
    }
    let newest = SolutionRef::parse(&solution).unwrap().resolve(&Stores::from_env()).await.unwrap();
    assert_eq!(newest.version, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_in_parts_refuses_what_one_process_refuses_and_a_version_with_attributes_of_users() {
    let folder = tempfile::tempdir().unwrap();
    let (solution, log) = scene(folder.path()).await;
    let text = async |log: &str, tasks: Option<Arc<dyn RefreshTasks>>| {
        let error = refresh(&solution, log, tasks).await.unwrap_err();
        error.to_string()
    };
    let older = format!("{}/0.parquet", log.trim_end_matches('/'));
    let strange = folder.path().join("strange.parquet").display().to_string();
    let query = format!(
        "COPY (SELECT 'u' || (n % 40) AS user_id, 'x' || n AS item_id, 1900000000 + n AS timestamp \
         FROM (SELECT unnest(range(0, 2000)) AS n)) TO '{strange}' STORED AS PARQUET"
    );
    succeed(["sql", "--allow-copy", "-c", &query]);
    for (log, code) in [(older.as_str(), "ERR_REFRESH_OLDER_DATA"), (&strange, "ERR_REFRESH_NO_KNOWN_ITEM")] {
        let (here, there) = (text(log, None).await, text(log, Some(tasks(2))).await);
        assert!(here.starts_with(code), "{here}");
        assert_eq!(here, there);
    }

    let attributes = folder.path().join("attributes").display().to_string();
    let train = TrainingJob::new(data("interactions.parquet")).users(data("users.parquet")).solution(&attributes);
    let recipe = ItemAffinity { hidden_dimension: 32, ..ItemAffinity::default() };
    let trained = train.recipe(recipe).run().await.unwrap();
    assert!(!trained.model.user_attributes.is_empty());
    let job = RefreshJob::new(&attributes).interactions(data("interactions.parquet")).users(data("users.parquet"));
    let error = job.tasks(Some(tasks(2))).run().await.unwrap_err();
    assert!(error.to_string().starts_with("ERR_REFRESH_USER_ATTRIBUTES"), "{error}");
}
