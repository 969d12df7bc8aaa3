//! P13: one job at a time, without trusting any clock but that of the store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use item_affinity_storage::{Artifact, CommitBody, Error, ErrorKind, Location, Run, Stores, Versions};
use object_store::{ObjectStoreExt, path::Path};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::fault_store::{FaultStore, Plan};

const HOUR: Duration = Duration::from_secs(3600);

fn scene(plan: Plan) -> (FaultStore, Versions) {
    let store = FaultStore::new(plan);
    let stores = Stores::in_memory();
    stores.register(&Url::parse("memory:///").unwrap(), Arc::new(store.clone()));
    let versions = Versions::new(&stores, Location::parse("memory:///out").unwrap(), Artifact::Segments).unwrap();
    (store, versions)
}

async fn alone(versions: &Versions, seconds: u64) -> Result<Run, Error> {
    versions.begin_alone(Duration::from_secs(seconds), &|_| {}).await
}

/// The note of a run whose process nobody can ask for.
async fn note(store: &FaultStore, lease_seconds: u64) {
    let run = "0123456789abcdef0123456789abcdef";
    let text = format!(
        "{{\"format\": \"item-affinity-intent\", \"run_id\": \"{run}\", \"started\": 1, \"tool\": \"x\", \
         \"lease_seconds\": {lease_seconds}}}"
    );
    let path = Path::from(format!("out/_item_affinity/runs/{run}/intent.json"));
    store.put(&path, text.into()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p13_second_job_waits_or_ends_with_6() {
    let (_, versions) = scene(Plan::with_clock(Duration::ZERO));
    let first = alone(&versions, 0).await.unwrap();
    let said = Mutex::new(Vec::new());
    let begun = tokio::time::Instant::now();
    // Longer than a lease: the first one renews it.
    let waiting = |text: &str| said.lock().unwrap().push(text.to_owned());
    let error = versions.begin_alone(Duration::from_secs(200), &waiting).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Conflict, 6), "{error}");
    assert!(error.to_string().contains(&format!("run {} is at work here", first.run_id)), "{error}");
    assert!(error.to_string().contains("--lock-timeout"), "{error}");
    assert!((200..203).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let expected = format!("waiting for run {}, which is at work at memory:///out", first.run_id);
    assert_eq!(*said.lock().unwrap(), [expected]);

    let second = tokio::spawn({
        let versions = versions.clone();
        async move { alone(&versions, 600).await }
    });
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!second.is_finished());
    first.put("part", Bytes::from_static(b"x"), None).await.unwrap();
    first.commit(CommitBody { job_key: "a".into(), ..CommitBody::default() }).await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.commit(CommitBody { job_key: "b".into(), ..CommitBody::default() }).await.unwrap().version, 2);
    // Nobody holds anything any more.
    alone(&versions, 0).await.unwrap().abandon().await;
    drop(alone(&versions, 0).await.unwrap());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    alone(&versions, 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p13_lease_of_a_dead_job_expires_by_the_time_of_the_store() {
    // A clock that is off by an hour in either direction is as good as any.
    for off in [Duration::ZERO, HOUR, 40_000 * HOUR] {
        let (store, versions) = scene(Plan::with_clock(off));
        note(&store, 60).await;
        let begun = tokio::time::Instant::now();
        let run = alone(&versions, 600).await.unwrap();
        assert!((59..66).contains(&begun.elapsed().as_secs()), "{off:?} {:?}", begun.elapsed());
        run.abandon().await;
        assert_eq!(alone(&versions, 0).await.unwrap().commit(CommitBody::default()).await.unwrap().version, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn p13_note_of_a_job_that_ended_holds_nothing() {
    let (store, versions) = scene(Plan::with_clock(Duration::ZERO));
    note(&store, 0).await;
    alone(&versions, 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p13_of_eight_jobs_at_once_one_works_at_a_time_and_all_commit() {
    let (_, versions) = scene(Plan::with_clock(Duration::ZERO));
    let at_work = Arc::new(Mutex::new((0, 0)));
    let jobs = (0..8).map(|job| {
        let (versions, at_work) = (versions.clone(), Arc::clone(&at_work));
        tokio::spawn(async move {
            let run = alone(&versions, 3_600).await.unwrap();
            {
                let mut at_work = at_work.lock().unwrap();
                at_work.0 += 1;
                at_work.1 = at_work.1.max(at_work.0);
            }
            tokio::time::sleep(Duration::from_secs(90)).await;
            at_work.lock().unwrap().0 -= 1;
            let body = CommitBody { job_key: format!("job {job}"), ..CommitBody::default() };
            run.commit(body).await.unwrap().version
        })
    });
    let mut numbers: Vec<u64> = futures::future::join_all(jobs).await.into_iter().map(Result::unwrap).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    assert_eq!(*at_work.lock().unwrap(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn p15_a_cancelled_job_neither_waits_nor_commits() {
    let (store, versions) = scene(Plan::with_clock(Duration::ZERO));
    let token = CancellationToken::new();
    let cancelled = versions.clone().with_cancellation(token.clone());
    let holder = alone(&versions, 0).await.unwrap();
    let waits = tokio::spawn({
        let cancelled = cancelled.clone();
        async move { alone(&cancelled, 3_600).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    token.cancel();
    let error = waits.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    holder.abandon().await;

    let run = cancelled.begin().await.unwrap();
    run.put("part", Bytes::from_static(b"x"), None).await.unwrap();
    let error = run.commit(CommitBody::default()).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)) && error.to_string().contains("nothing was committed"), "{error}");
    assert_eq!(versions.latest().await.unwrap(), None);
    assert_eq!(store.plan.lock().unwrap().puts_seen, 0);
}
