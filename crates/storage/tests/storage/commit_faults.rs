//! The table of answers to the commit PUT, row by row: no lost run, no second commit, no false claim.

use std::sync::Arc;

use bytes::Bytes;
use item_affinity_storage::{Artifact, Commit, CommitBody, Error, ErrorKind, Location, Stores, Versions};
use url::Url;

use crate::fault_store::{Fault, FaultStore, Plan};

struct Scene {
    store: FaultStore,
    versions: Versions,
}

fn scene(plan: Plan) -> Scene {
    let store = FaultStore::new(plan);
    let stores = Stores::in_memory();
    stores.register(&Url::parse("memory:///").unwrap(), Arc::new(store.clone()));
    let versions = Versions::new(&stores, Location::parse("memory:///out").unwrap(), Artifact::Segments).unwrap();
    Scene { store, versions }
}

fn puts(faults: &[Fault]) -> Scene {
    scene(Plan { commit_puts: faults.iter().cloned().collect(), ..Plan::default() })
}

impl Scene {
    async fn commit(&self, job_key: &str) -> (String, Result<Commit, Error>) {
        let run = self.versions.begin().await.unwrap();
        let id = run.run_id.clone();
        run.put("part", Bytes::from_static(b"x"), Some(1)).await.unwrap();
        let body = CommitBody { job_key: job_key.into(), ..CommitBody::default() };
        (id, run.commit(body).await)
    }

    /// Our run is version `version`, and it is there once.
    async fn assert_ours(&self, job_key: &str, version: u64) {
        let (id, commit) = self.commit(job_key).await;
        let commit = commit.unwrap();
        assert_eq!((commit.version, &commit.run_id), (version, &id));
        let mut times = 0;
        for number in self.versions.numbers().await.unwrap() {
            let read = self.versions.read(number).await.unwrap();
            if read.run_id == id {
                assert_eq!(read, commit);
                times += 1;
            }
        }
        assert_eq!(times, 1);
        self.versions.read_file(&commit.files[0]).await.unwrap();
    }

    async fn data_files(&self) -> usize {
        use futures::TryStreamExt;
        use object_store::ObjectStore;
        let all: Vec<_> = self.store.inner.list(None).try_collect().await.unwrap();
        all.iter().filter(|meta| meta.location.as_ref().ends_with("/part")).count()
    }

    fn puts_seen(&self) -> usize {
        self.store.plan.lock().unwrap().puts_seen
    }
}

/// The bytes of a commit 1 by another run.
async fn others_commit(job_key: &str) -> Bytes {
    use object_store::ObjectStoreExt;
    let scene = puts(&[]);
    scene.commit(job_key).await.1.unwrap();
    let path = object_store::path::Path::from("out/_item_affinity/commits/00000000000000000001.json");
    scene.store.inner.get(&path).await.unwrap().bytes().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn lost_answer_to_a_write_that_happened_is_recognised_as_ours() {
    for fault in [Fault::ApplyThenError, Fault::ExistsForOurOwn] {
        let scene = puts(std::slice::from_ref(&fault));
        scene.assert_ours("a", 1).await;
        assert_eq!(scene.puts_seen(), 1, "{fault:?}");
        scene.assert_ours("b", 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answer_without_a_write_is_tried_again_at_the_same_number() {
    for fault in [Fault::ErrorWithoutApply, Fault::ExistsButNothing, Fault::ErrorThenLateApply] {
        let scene = puts(&[fault.clone(), fault.clone()]);
        scene.assert_ours("a", 1).await;
        assert!(scene.puts_seen() >= 2, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn read_back_outlives_failing_reads() {
    let scene = scene(Plan { commit_puts: [Fault::ApplyThenError].into(), failing_gets: 5, ..Plan::default() });
    scene.assert_ours("a", 1).await;
}

#[tokio::test(start_paused = true)]
async fn others_commit_at_our_number_moves_us_to_the_next() {
    let scene = puts(&[Fault::Other(others_commit("other").await)]);
    let (id, commit) = scene.commit("a").await;
    let commit = commit.unwrap();
    assert_eq!((commit.version, commit.parent_version, &commit.run_id), (2, Some(1), &id));
    let first = scene.versions.read(1).await.unwrap();
    assert_eq!(commit.parent_sha256, Some(first.sha256));
    assert_ne!(first.run_id, id);
}

#[tokio::test(start_paused = true)]
async fn same_job_at_our_number_is_the_result_and_our_files_go() {
    let scene = puts(&[Fault::Other(others_commit("a").await)]);
    let (id, commit) = scene.commit("a").await;
    let commit = commit.unwrap();
    assert_eq!(commit.version, 1);
    assert_ne!(commit.run_id, id);
    assert_eq!(scene.versions.numbers().await.unwrap(), [1]);
    assert_eq!(scene.data_files().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_builds_on_a_version_gives_way_to_another_job() {
    let body = |job_key: &str| CommitBody { job_key: job_key.into(), ..CommitBody::default() };
    let scene = puts(&[]);
    for job in ["first", "second"] {
        scene.commit(job).await.1.unwrap();
    }
    // The other one came before our commit began.
    let late = scene.versions.begin().await.unwrap();
    late.put("part", Bytes::from_static(b"x"), Some(1)).await.unwrap();
    let error = late.commit_after(body("a"), 1).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Conflict, 6), "{error}");
    assert!(error.to_string().contains("after version 1"), "{error}");
    // It was the same job: that is the result.
    let same = scene.versions.begin().await.unwrap();
    assert_eq!(same.commit_after(body("second"), 1).await.unwrap().version, 2);
    assert_eq!((scene.versions.numbers().await.unwrap().len(), scene.data_files().await), (2, 2));
    let next = scene.versions.begin().await.unwrap();
    assert_eq!(next.commit_after(body("a"), 2).await.unwrap().version, 3);
    // The other one comes in the very moment of our commit.
    let scene = puts(&[Fault::Other(others_commit("other").await)]);
    let run = scene.versions.begin().await.unwrap();
    run.put("part", Bytes::from_static(b"x"), Some(1)).await.unwrap();
    let error = run.commit_after(body("a"), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!((scene.versions.numbers().await.unwrap().len(), scene.data_files().await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn lost_answer_that_never_comes_back_is_unknown_and_deletes_nothing() {
    let always = scene(Plan { always: Some(Fault::ErrorWithoutApply), ..Plan::default() });
    let unreadable = scene(Plan { always: Some(Fault::ApplyThenError), failing_gets: 1_000, ..Plan::default() });
    for scene in [always, unreadable] {
        let (id, commit) = scene.commit("a").await;
        let error = commit.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error}");
        assert_eq!(error.kind().exit_code(), 7);
        assert!(
            error.to_string().contains(&format!("item-affinity show --output memory:///out --run {id}")),
            "{error}"
        );
        assert_eq!(scene.data_files().await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_says_taken_for_ever_is_a_storage_error() {
    let scene = scene(Plan { always: Some(Fault::ExistsButNothing), ..Plan::default() });
    let error = scene.commit("a").await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert_eq!(scene.data_files().await, 0);
}

#[tokio::test(start_paused = true)]
async fn denied_commit_ends_at_once_and_names_the_right() {
    let scene = puts(&[Fault::Denied]);
    let error = scene.commit("a").await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert!(error.to_string().contains("s3:PutObject"), "{error}");
    assert_eq!((scene.puts_seen(), scene.data_files().await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn denial_after_a_lost_answer_is_no_proof_that_nothing_landed() {
    let always_denied =
        Plan { commit_puts: [Fault::ErrorWithoutApply].into(), always: Some(Fault::Denied), ..Plan::default() };
    let error = scene(always_denied).commit("a").await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error}");
}

#[tokio::test(start_paused = true)]
async fn eleven_lost_races_in_a_row_are_a_conflict() {
    let mut faults = Vec::new();
    let source = puts(&[]);
    for number in 1..=11_u64 {
        use object_store::ObjectStoreExt;
        source.commit(&format!("other {number}")).await.1.unwrap();
        let path = format!("out/_item_affinity/commits/{number:020}.json");
        let bytes = source.store.inner.get(&path.into()).await.unwrap().bytes().await.unwrap();
        faults.push(Fault::Other(bytes));
    }
    let scene = puts(&faults);
    let error = scene.commit("a").await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let won = puts(&faults[..10]);
    assert_eq!(won.commit("a").await.1.unwrap().version, 11);
}

/// P10: whatever series of answers comes, a verdict is what stands there.
#[tokio::test(start_paused = true)]
async fn p10_no_series_of_answers_leads_to_a_wrong_verdict() {
    use rand::{RngExt, SeedableRng};
    const SEEDS: u64 = 400;
    let first: u64 = rand::random_range(0..1 << 40);
    let other = others_commit("other").await;
    let same = others_commit("a").await;
    let (mut ours, mut others, mut unknown, mut failed, mut faults) = (0, 0, 0, 0, 0);
    for seed in first..first + SEEDS {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let kinds = [
            Fault::None,
            Fault::ApplyThenError,
            Fault::ErrorWithoutApply,
            Fault::ExistsForOurOwn,
            Fault::ExistsButNothing,
            Fault::ErrorThenLateApply,
            Fault::Other(other.clone()),
            Fault::Other(same.clone()),
        ];
        let commit_puts: std::collections::VecDeque<Fault> =
            (0..random.random_range(0..14)).map(|_| kinds[random.random_range(0..kinds.len())].clone()).collect();
        faults += commit_puts.len();
        let failing_gets = random.random_range(0..14);
        let scene = scene(Plan { commit_puts, failing_gets, ..Plan::default() });
        let (id, verdict) = scene.commit("a").await;
        let told = format!("seed {seed}: {verdict:?}");
        let (late, gets) = {
            let mut plan = scene.store.plan.lock().unwrap();
            plan.failing_gets = 0;
            (plan.late.is_some(), plan.puts_seen)
        };
        assert!(gets <= 12, "{told}");
        let mut found = Vec::new();
        for number in scene.versions.numbers().await.unwrap() {
            // Two copies of one commit of another run are the doing of this test.
            if let Ok(commit) = scene.versions.read(number).await {
                found.push(commit);
            }
        }
        let times = found.iter().filter(|commit| commit.run_id == id).count();
        match verdict {
            Ok(commit) if commit.run_id == id => {
                assert!(times == 1 && !late, "{told}");
                assert!(scene.versions.read_file(&commit.files[0]).await.is_ok(), "{told}");
                ours += 1;
            }
            Ok(commit) => {
                assert!(times == 0 && commit.body.job_key == "a", "{told}");
                others += 1;
            }
            Err(Error::CommitUnknown { .. }) => {
                assert_eq!(scene.data_files().await, 1, "{told}");
                unknown += 1;
            }
            Err(_) => {
                assert!(times == 0 && !late, "{told}");
                failed += 1;
            }
        }
    }
    println!(
        "commit answers: {SEEDS} seeds from {first} on, {faults} answers: {ours} ours, {others} done by another run, \
         {unknown} unknown, {failed} failed, 0 wrong verdicts"
    );
    assert!(ours > 100 && others > 20);
}

#[tokio::test(start_paused = true)]
async fn foreign_object_at_our_number_is_an_error_and_stays() {
    let scene = puts(&[Fault::Other(Bytes::from_static(b"not json"))]);
    let error = scene.commit("a").await.1.unwrap_err();
    assert!(matches!(error, Error::Commit { .. }), "{error}");
}

#[tokio::test]
async fn store_that_ignores_the_condition_is_found_before_any_data() {
    let scene = scene(Plan { ignores_condition: true, ..Plan::default() });
    let error = scene.versions.begin().await.unwrap_err();
    assert!(error.to_string().contains("If-None-Match"), "{error}");
    assert_eq!(error.kind(), ErrorKind::BadInput);
}

#[tokio::test]
async fn listing_that_omits_or_repeats_commits_loses_none() {
    let scene = puts(&[]);
    for job in ["a", "b", "c"] {
        scene.commit(job).await.1.unwrap();
    }
    for omitted in ["00000000000000000002.json", "00000000000000000003.json", "no such thing"] {
        scene.store.plan.lock().unwrap().unlisted = Some(omitted.to_owned());
        assert_eq!(scene.versions.numbers().await.unwrap(), [1, 2, 3], "{omitted}");
        assert_eq!(scene.versions.latest().await.unwrap().unwrap().version, 3);
    }
}

#[tokio::test]
async fn dropped_writer_aborts_its_upload() {
    let scene = puts(&[]);
    let run = scene.versions.begin().await.unwrap();
    let mut writer = run.writer("big").await.unwrap();
    for _ in 0..3 {
        writer.write_bytes(Bytes::from(vec![0; 8 << 20])).await.unwrap();
    }
    drop(writer);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.store.plan.lock().unwrap().aborted, 1);
}
