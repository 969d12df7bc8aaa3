//! Reruns, refusals and cancellation of training.

use std::sync::{Arc, Mutex};

use item_affinity_model::ItemAffinity;
use item_affinity_solution::{Error, Observer, Stage, TrainingJob, versions};
use item_affinity_storage::{Artifact, ErrorKind, Location, Stores, Versions};
use tokio_util::sync::CancellationToken;

use crate::planted::{job, objects, open, parquet, planted, put, small_data, small_recipe, trained};

#[tokio::test]
async fn the_same_job_again_does_nothing_and_says_so() {
    let stores = small_data().await;
    let first = trained(&stores).await;
    let before = objects(&stores, "memory:///affinity").await;
    let again = trained(&stores).await;
    assert_eq!((again.version, again.already_done), (1, true));
    assert_eq!(again.model, first.model);
    assert!(again.data.is_none());
    assert_eq!(objects(&stores, "memory:///affinity").await, before);
}

#[tokio::test]
async fn force_trains_again_and_gives_the_same_files() {
    let stores = small_data().await;
    trained(&stores).await;
    let forced = job(&stores).force(true).run().await.unwrap();
    assert_eq!((forced.version, forced.already_done), (2, false));
    let hashes = async |reference: &str| crate::planted::hashes(&open(&stores, reference).await.unwrap().commit);
    assert_eq!(hashes("memory:///affinity@1").await, hashes("memory:///affinity@2").await);
}

#[tokio::test]
async fn other_settings_or_other_data_are_another_job() {
    let stores = small_data().await;
    trained(&stores).await;
    let seed = ItemAffinity { seed: 99, ..small_recipe() };
    assert_eq!(job(&stores).recipe(seed).run().await.unwrap().version, 2);
    // Version 2 is of another job, so the first one is not "already done" any more.
    assert_eq!(trained(&stores).await.version, 3);
    put(&stores, "memory:///events/part-1.parquet", parquet(&planted(10, 40, 3))).await;
    assert_eq!(trained(&stores).await.version, 4);
    assert!(trained(&stores).await.already_done);
}

#[tokio::test]
async fn locations_that_overlap_or_change_places_are_the_same_job() {
    let stores = small_data().await;
    put(&stores, "memory:///more/part-0.parquet", parquet(&planted(50, 40, 4))).await;
    let with = |locations: [&str; 3]| {
        let job = TrainingJob::new(locations[0]).interactions(locations[1]).interactions(locations[2]);
        job.recipe(small_recipe()).solution("memory:///affinity").stores(stores.clone())
    };
    let first = with(["memory:///events/", "memory:///more/", "memory:///events/*.parquet"]).run().await.unwrap();
    assert_eq!((first.version, first.already_done), (1, false));
    let again = with(["memory:///more/*.parquet", "memory:///events/", "memory:///more/"]).run().await.unwrap();
    assert_eq!((again.version, again.already_done), (1, true));
}

#[tokio::test]
async fn history_tells_what_each_version_was_trained_on() {
    let stores = small_data().await;
    let first = trained(&stores).await;
    job(&stores).hidden_dimension(40).run().await.unwrap();
    let history = versions(&stores, &Location::parse("memory:///affinity").unwrap()).await.unwrap();
    let told: Vec<_> = history.iter().map(|v| (v.version, v.hidden_dimension, v.users, v.items)).collect();
    assert_eq!(told, [(1, 32, 240, 40), (2, 40, 240, 40)]);
    let asked = small_recipe();
    assert_eq!(history[0].recipe, ItemAffinity { regularization: Some(asked.penalty_rate()), ..asked });
    assert_eq!(history[0].as_of, first.model.as_of);
    assert_eq!((history[0].interactions, history[0].pairs), (first.model.interactions, first.model.pairs));
    assert_eq!(history[0].files, 4);
}

#[tokio::test]
async fn too_little_data_is_refused_with_the_words_of_the_report() {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&planted(20, 8, 3))).await;
    let error = job(&stores).run().await.unwrap_err();
    assert!(matches!(error, Error::Ingest(item_affinity_ingest::Error::TooLittleData { .. })), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("ERR_TOO_LITTLE_DATA: ") && text.contains("60") && text.contains("1000"), "{text}");
    assert_nothing_left(&stores).await;

    let observer = Arc::new(Listens::default());
    let allowed = job(&stores).allow_small_data(true).observer(observer.clone()).run().await.unwrap();
    assert_eq!((allowed.version, allowed.model.users), (1, 20));
    let warnings = observer.warnings.lock().unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("60")), "the refusal became a warning: {warnings:?}");
}

#[tokio::test]
async fn an_impossible_recipe_is_refused_before_anything_is_read() {
    let stores = Stores::in_memory();
    let error = job(&stores).hidden_dimension(31).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("[32, 256]"), "{error}");
    assert!(objects(&stores, "memory:///").await.is_empty());
}

#[tokio::test]
async fn a_solution_inside_its_interactions_is_refused() {
    let stores = small_data().await;
    for solution in ["memory:///events", "memory:///events/affinity/"] {
        let error = job(&stores).solution(solution).run().await.unwrap_err();
        assert!(matches!(error, Error::OutputInInput { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
    job(&stores).solution("memory:///events-affinity").run().await.unwrap();
}

#[tokio::test]
async fn training_without_a_place_to_write_to_is_refused() {
    let stores = small_data().await;
    let error = TrainingJob::new("memory:///events/").stores(stores).run().await.unwrap_err();
    assert!(matches!(error, Error::NoSolutionLocation));
}

/// Cancels the job when a stage has made so many steps, and keeps what it was told.
struct CancelsAt {
    stage: &'static str,
    step: u64,
    token: CancellationToken,
    seen: Mutex<Vec<String>>,
}

impl CancelsAt {
    fn new(stage: &'static str, step: u64) -> Arc<Self> {
        Arc::new(Self { stage, step, token: CancellationToken::new(), seen: Mutex::default() })
    }

    fn cancel_at(&self, step: u64) {
        let seen = self.seen.lock().unwrap();
        if seen.last().is_some_and(|stage| stage == self.stage) && step >= self.step {
            self.token.cancel();
        }
    }
}

impl Observer for CancelsAt {
    fn stage(&self, stage: Stage) {
        self.seen.lock().unwrap().push(stage.name.to_owned());
        self.cancel_at(0);
    }

    fn advance(&self, done: u64, _total: Option<u64>) {
        self.cancel_at(done);
    }
}

async fn assert_nothing_left(stores: &Stores) {
    let location = Location::parse("memory:///affinity").unwrap();
    let versions = Versions::new(stores, location, Artifact::SolutionVersion).unwrap();
    assert_eq!(versions.numbers().await.unwrap(), Vec::<u64>::new());
    let left = objects(stores, "memory:///affinity").await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn cancellation_in_any_stage_leaves_no_commit_and_no_files() {
    for (stage, step) in [
        ("reading interactions", 0),
        ("fitting factors", 0),
        ("fitting factors", 2),
        ("writing the solution version", 0),
        ("writing the solution version", 2),
        ("writing the solution version", 3),
    ] {
        let stores = small_data().await;
        let observer = CancelsAt::new(stage, step);
        let job = job(&stores).cancellation(observer.token.clone()).observer(observer.clone());
        let error = job.run().await.err().unwrap_or_else(|| panic!("{stage} {step} was not cancelled"));
        assert!(error.is_cancelled(), "{stage} {step}: {error}");
        assert_eq!(observer.seen.lock().unwrap().last().unwrap(), stage);
        assert_nothing_left(&stores).await;
    }
}

#[tokio::test]
async fn a_cancelled_job_does_not_even_begin() {
    let stores = small_data().await;
    let token = CancellationToken::new();
    token.cancel();
    assert!(job(&stores).cancellation(token).run().await.unwrap_err().is_cancelled());
    assert_nothing_left(&stores).await;
}

#[tokio::test]
async fn a_cancelled_training_leaves_the_versions_before_it() {
    let stores = small_data().await;
    trained(&stores).await;
    let before = objects(&stores, "memory:///affinity").await;
    let observer = CancelsAt::new("writing the solution version", 1);
    let job = job(&stores).hidden_dimension(40).cancellation(observer.token.clone()).observer(observer.clone());
    assert!(job.run().await.unwrap_err().is_cancelled());
    assert_eq!(objects(&stores, "memory:///affinity").await, before);
    assert_eq!(open(&stores, "memory:///affinity").await.unwrap().commit.version, 1);
}

#[test]
fn jobs_can_be_spawned() {
    fn sendable(_: impl Send) {}
    sendable(TrainingJob::new("memory:///events/").run());
    sendable(item_affinity_solution::EvaluationJob::new("memory:///events/").run());
}

/// Waits inside the first step of the fit until the job was dropped, and counts the steps.
struct Holds {
    fitting: Mutex<bool>,
    reached: tokio::sync::Notify,
    release: Mutex<std::sync::mpsc::Receiver<()>>,
    steps: Mutex<Vec<u64>>,
}

impl Observer for Holds {
    fn stage(&self, stage: Stage) {
        *self.fitting.lock().unwrap() = stage.name == "fitting factors";
    }

    fn advance(&self, done: u64, _total: Option<u64>) {
        if *self.fitting.lock().unwrap() {
            self.steps.lock().unwrap().push(done);
            self.reached.notify_one();
            self.release.lock().unwrap().recv().ok();
        }
    }
}

#[tokio::test]
async fn a_dropped_job_stops_its_threads() {
    let stores = small_data().await;
    let (release, held) = std::sync::mpsc::channel();
    let observer = Arc::new(Holds {
        fitting: Mutex::new(false),
        reached: tokio::sync::Notify::new(),
        release: Mutex::new(held),
        steps: Mutex::default(),
    });
    tokio::select! {
        report = job(&stores).observer(observer.clone()).run() => panic!("ended by itself: {report:?}"),
        () = observer.reached.notified() => (),
    }
    drop(release);
    // The fit holds the observer until its threads are done.
    while Arc::strong_count(&observer) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(observer.steps.lock().unwrap().len(), 1);
}

/// Keeps notes and warnings.
#[derive(Default)]
pub(crate) struct Listens {
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Observer for Listens {
    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn warning(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_owned());
    }
}

#[tokio::test]
async fn size_time_and_memory_are_said_before_the_fit() {
    let stores = small_data().await;
    let observer = Arc::new(Listens::default());
    let report = job(&stores).observer(observer.clone()).run().await.unwrap();
    let notes = observer.notes.lock().unwrap();
    let data = format!("{} interactions of 240 users and 40 items", report.model.interactions);
    assert!(notes[0].contains(&data) && notes[0].contains("memory"), "{notes:?}");
}
