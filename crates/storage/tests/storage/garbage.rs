//! P6: what no version needs goes, and nothing else, also while jobs run.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use item_affinity_storage::{
    Artifact, Collection, CommitBody, Error, ErrorKind, Location, Reason, Retention, RunMember, Stores, Versions,
};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use rand::{RngExt, SeedableRng};
use url::Url;

use crate::commits::{commit_name, commit_one, disk, memory};
use crate::fault_store::{FaultStore, Plan};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn scene() -> (FaultStore, Versions) {
    let store = FaultStore::new(Plan::with_clock(Duration::ZERO));
    let stores = Stores::in_memory();
    stores.register(&Url::parse("memory:///").unwrap(), Arc::new(store.clone()));
    let location = Location::parse("memory:///out").unwrap();
    (store, Versions::new(&stores, location, Artifact::SolutionVersion).unwrap())
}

async fn names(store: &FaultStore) -> Vec<String> {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    let all: Vec<_> = store.inner.list(None).try_collect().await.unwrap();
    let mut names: Vec<_> = all.iter().map(|m| m.location.as_ref().strip_prefix("out/").unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A run that wrote one file and ended without a word.
async fn lost_run(versions: &Versions) -> String {
    let run = versions.begin().await.unwrap();
    run.put("part", Bytes::from_static(b"lost"), None).await.unwrap();
    run.run_id.clone()
}

fn uncommitted(found: &Collection) -> Vec<&str> {
    let runs = found.collected.iter().filter_map(|group| match &group.reason {
        Reason::Uncommitted { run_id, .. } => Some(run_id.as_str()),
        _ => None,
    });
    runs.collect()
}

#[tokio::test(start_paused = true)]
async fn p6_a_run_without_a_commit_goes_after_a_week_by_the_time_of_the_store() {
    let (store, versions) = scene();
    commit_one(&versions, "a").await;
    let lost = lost_run(&versions).await;
    tokio::time::advance(6 * DAY).await;
    let young = versions.collect(&Retention::default(), true).await.unwrap();
    assert_eq!((young.collected.len(), young.young), (0, 1));
    tokio::time::advance(DAY).await;
    let before = names(&store).await;
    let gone = versions.collect(&Retention::default(), true).await.unwrap();
    assert_eq!((uncommitted(&gone), gone.young, gone.kept.as_slice()), (vec![lost.as_str()], 0, [1].as_slice()));
    assert_eq!(gone.collected[0].bytes, 4);
    let left = names(&store).await;
    assert_eq!(left, before.iter().filter(|name| !name.contains(&lost)).cloned().collect::<Vec<_>>());
    assert!(versions.verify(None, true).await.unwrap().faults.is_empty());
    assert!(versions.collect(&Retention::default(), true).await.unwrap().collected.is_empty());
}

#[tokio::test(start_paused = true)]
async fn p6_a_running_job_keeps_its_files_however_long_it_takes() {
    let (_, versions) = scene();
    let run = versions.begin().await.unwrap();
    run.put("part", Bytes::from_static(b"x"), None).await.unwrap();
    // Its lease is renewed while the days pass.
    for _ in 0..20 {
        tokio::time::sleep(DAY / 2).await;
        let found = versions.collect(&Retention { older_than: DAY, ..Retention::default() }, true).await.unwrap();
        assert_eq!((found.collected.len(), found.young), (0, 1));
    }
    assert_eq!(run.commit(CommitBody::default()).await.unwrap().version, 1);
    assert!(versions.verify(None, false).await.unwrap().faults.is_empty());
}

#[tokio::test(start_paused = true)]
async fn p6_gc_at_random_moments_of_running_jobs_removes_no_file_of_a_version() {
    let mut removed = 0;
    for seed in 0..5 {
        let (store, versions) = scene();
        let jobs = (0..4).map(|job| {
            let versions = versions.clone();
            let mut random = rand::rngs::StdRng::seed_from_u64(seed * 100 + job);
            tokio::spawn(async move {
                for round in 0..3 {
                    let run = versions.begin().await.unwrap();
                    for part in 0..3 {
                        tokio::time::sleep(random.random_range(0..30 * 3600) * Duration::from_secs(1)).await;
                        let bytes = Bytes::from(format!("{job} {round} {part}"));
                        run.put(&format!("part-{part}"), bytes, None).await.unwrap();
                    }
                    if random.random_bool(0.5) {
                        let job_key = format!("{job} {round}");
                        run.commit(CommitBody { job_key, ..CommitBody::default() }).await.unwrap();
                    }
                }
            })
        });
        let jobs: Vec<_> = jobs.collect();
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let soon = Retention { older_than: DAY, ..Retention::default() };
        while jobs.iter().any(|job| !job.is_finished()) {
            tokio::time::sleep(random.random_range(1..20 * 3600) * Duration::from_secs(1)).await;
            let found = versions.collect(&soon, true).await.unwrap();
            assert!(found.failed.is_empty(), "seed {seed}: {:?}", found.failed);
            removed += found.collected.len();
        }
        for job in jobs {
            job.await.unwrap();
        }
        tokio::time::advance(2 * DAY).await;
        removed += versions.collect(&soon, true).await.unwrap().collected.len();
        let numbers = versions.numbers().await.unwrap();
        if !numbers.is_empty() {
            let whole = versions.verify(None, true).await.unwrap();
            assert!(whole.faults.is_empty(), "seed {seed}: {:?}", whole.faults);
            assert_eq!(whole.files, 3 * numbers.len() as u64);
        }
        let mut committed = Vec::new();
        for number in numbers {
            committed.push(versions.read(number).await.unwrap().run_id);
        }
        for name in names(&store).await.iter().filter(|name| name.starts_with("versions/")) {
            assert!(committed.iter().any(|run| name.contains(run)), "seed {seed}: {name} stays");
        }
    }
    println!("gc beside running jobs: 5 seeds, {removed} dead runs removed, 0 files of versions");
    assert!(removed > 0);
}

#[tokio::test(start_paused = true)]
async fn retention_removes_from_the_oldest_on_and_the_commit_before_its_files() {
    let (store, versions) = scene();
    for job in ["a", "b", "c", "d"] {
        commit_one(&versions, job).await;
    }
    let keep = |count| Retention { keep_versions: Some(count), ..Retention::default() };
    let dry = versions.collect(&keep(2), false).await.unwrap();
    assert_eq!(dry.kept, [3, 4]);
    assert_eq!(versions.numbers().await.unwrap(), [1, 2, 3, 4]);
    for (group, number) in dry.collected.iter().zip([1, 2]) {
        assert!(matches!(group.reason, Reason::Expired { version, .. } if version == number));
        assert_eq!(group.files[0], commit_name(number));
        assert!(group.files.len() > 1);
    }
    let done = versions.collect(&keep(2), true).await.unwrap();
    assert_eq!(done.collected, dry.collected);
    assert_eq!(versions.numbers().await.unwrap(), [3, 4]);
    assert!(versions.verify(None, true).await.unwrap().faults.is_empty());
    // The next number is not used twice, and the newest version never goes.
    assert_eq!(commit_one(&versions, "e").await.version, 5);
    let ended = versions.collect(&keep(1), true).await.unwrap();
    assert_eq!((ended.kept.as_slice(), versions.numbers().await.unwrap().as_slice()), ([5].as_slice(), [5].as_slice()));
    let of_files = names(&store).await.into_iter().filter(|name| name.starts_with("versions/")).count();
    assert_eq!(of_files, 2, "the data file and _SUCCESS of version 5");
}

#[tokio::test(start_paused = true)]
async fn retention_by_age_keeps_what_either_rule_keeps() {
    let versions = memory().versions(Artifact::Segments);
    for job in ["a", "b", "c"] {
        commit_one(&versions, job).await;
    }
    let all_young = Retention { keep_for: Some(DAY), ..Retention::default() };
    assert_eq!(versions.collect(&all_young, false).await.unwrap().kept, [1, 2, 3]);
    let none_young = Retention { keep_for: Some(Duration::ZERO), ..Retention::default() };
    assert_eq!(versions.collect(&none_young, false).await.unwrap().kept, [3]);
    let either = Retention { keep_for: Some(Duration::ZERO), keep_versions: Some(2), ..Retention::default() };
    assert_eq!(versions.collect(&either, false).await.unwrap().kept, [2, 3]);
}

#[tokio::test]
async fn nothing_goes_while_a_commit_cannot_be_read_or_the_place_is_not_ours() {
    let place = memory();
    let versions = place.versions(Artifact::Segments);
    for job in ["a", "b"] {
        commit_one(&versions, job).await;
    }
    let before = place.names().await;
    place.overwrite(&commit_name(2), "{").await;
    let keep = Retention { keep_versions: Some(1), ..Retention::default() };
    let error = versions.collect(&keep, true).await.unwrap_err();
    assert!(matches!(error, Error::Commit { .. }), "{error}");
    assert_eq!(place.names().await, before);

    for bad in [
        Retention { older_than: DAY - Duration::from_secs(1), ..Retention::default() },
        Retention { keep_versions: Some(0), ..Retention::default() },
    ] {
        assert_eq!(versions.collect(&bad, true).await.unwrap_err().kind(), ErrorKind::BadInput, "{bad:?}");
    }
    let foreign = memory();
    foreign.overwrite("data/run=0123456789abcdef0123456789abcdef/part", "x").await;
    let error = foreign.versions(Artifact::Segments).collect(&Retention::default(), true).await.unwrap_err();
    assert!(matches!(error, Error::OutputNotEmpty { .. }), "{error}");
}

#[tokio::test]
async fn p6_on_disk_what_a_killed_upload_leaves_goes_and_other_files_stay() {
    let place = disk();
    let versions = place.versions(Artifact::Segments);
    commit_one(&versions, "a").await;
    let lost = lost_run(&versions).await;
    let root = place.location.local_path().unwrap();
    let data = root.join(format!("data/run={lost}"));
    let temporary = format!("_item_affinity/commits/.{lost}.tmp");
    let outside = root.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for path in [data.join("part#1"), root.join(&temporary), root.join("data/holiday.jpg"), outside.join("precious")] {
        std::fs::write(path, "x").unwrap();
    }
    std::os::unix::fs::symlink(&outside, data.join("link")).unwrap();
    let old = SystemTime::now() - 8 * DAY;
    let age =
        |path: std::path::PathBuf| std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    for path in [data.join("part"), data.join("part#1"), root.join(&temporary), root.join("data/holiday.jpg")] {
        age(path);
    }
    // The link is young, and so is the run.
    assert_eq!(versions.collect(&Retention::default(), false).await.unwrap().young, 1);
    std::fs::remove_file(data.join("link")).unwrap();
    let found = versions.collect(&Retention::default(), false).await.unwrap();
    assert_eq!(uncommitted(&found), [lost.as_str()]);
    assert_eq!(found.collected[0].files, [format!("data/run={lost}/part"), format!("data/run={lost}/part#1")]);
    assert_eq!((&found.collected[1].reason, &found.collected[1].files), (&Reason::Temporary, &vec![temporary.clone()]));
    assert!(data.join("part#1").exists(), "a dry run removes nothing");
    assert!(versions.collect(&Retention::default(), true).await.unwrap().failed.is_empty());
    assert!(!data.exists() && !root.join(temporary).exists());
    assert!(root.join("data/holiday.jpg").exists() && outside.join("precious").exists());
    assert!(versions.verify(None, true).await.unwrap().faults.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_task_left_beside_a_committed_version_goes_when_it_is_old() {
    let (store, versions) = scene();
    let run = versions.begin().await.unwrap();
    let member = RunMember::new(versions.clone(), &run.run_id).unwrap();
    let file = parquet();
    let lost = member.put_parquet("users/part-00000", file.clone(), 1).await.unwrap();
    let kept = member.put_parquet("users/part-00000", file.clone(), 1).await.unwrap();
    assert!(lost.path != kept.path && kept.path.contains("/users/part-00000-"), "{lost:?} {kept:?}");
    member.put_note("everyone", Bytes::from_static(b"note")).await.unwrap();
    assert_eq!(member.note_of("everyone").await.unwrap(), "note");
    run.adopt(kept.clone()).unwrap();
    assert!(run.adopt(kept.clone()).is_err(), "a file is adopted once");
    let elsewhere = kept.path.replace(&run.run_id, &"0".repeat(32));
    assert!(run.adopt(item_affinity_storage::FileEntry { path: elsewhere, ..kept.clone() }).is_err());
    // What somebody else put beside them has no name that tasks give.
    let folder = format!("out/versions/{}/users", run.run_id);
    for name in
        ["copy.parquet", "part-00000.parquet", "part-00000-0123456789ABCDEF.parquet", "part-0123456789abcde.parquet"]
    {
        store.put(&Path::from(format!("{folder}/{name}")), file.clone().into()).await.unwrap();
    }
    let commit = run.commit(CommitBody { job_key: "refresh".into(), ..CommitBody::default() }).await.unwrap();
    assert_eq!(commit.files.iter().map(|f| &f.path).collect::<Vec<_>>(), [&kept.path]);

    tokio::time::advance(6 * DAY).await;
    assert!(versions.collect(&Retention::default(), true).await.unwrap().collected.is_empty());
    tokio::time::advance(DAY).await;
    let before = names(&store).await;
    let gone = versions.collect(&Retention::default(), true).await.unwrap();
    let [group] = gone.collected.as_slice() else { panic!("{gone:?}") };
    assert_eq!((&group.files, group.bytes), (&vec![lost.path.clone()], file.len() as u64));
    assert!(matches!(group.reason, Reason::Leftover { version: 1, .. }));
    let after = names(&store).await;
    assert_eq!(before.into_iter().filter(|name| *name != lost.path).collect::<Vec<_>>(), after);
    assert!(RunMember::new(versions, "../x").is_err());
}

fn parquet() -> Bytes {
    use arrow::array::{ArrayRef, Int32Array, RecordBatch};
    let column: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file.into()
}
