//! What a location of versions promises, as one suite that runs on every kind of store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use item_affinity_storage::{Artifact, CommitBody, Error, ErrorKind, FileEntry, Location, Stores, Versions};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

/// A location that holds nothing, and what keeps it alive.
pub(crate) struct Place {
    pub(crate) stores: Stores,
    pub(crate) location: Location,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) fn memory() -> Place {
    Place { stores: Stores::in_memory(), location: Location::parse("memory:///some/where").unwrap(), _dir: None }
}

pub(crate) fn disk() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::parse(dir.path().join("some/where").to_str().unwrap()).unwrap();
    Place { stores: Stores::in_memory(), location, _dir: Some(dir) }
}

/// A new folder below the location that `ITEM_AFFINITY_S3_TESTS` names, on the server that `AWS_*` describe.
pub(crate) fn s3() -> Option<Place> {
    let Ok(base) = std::env::var("ITEM_AFFINITY_S3_TESTS") else {
        println!("skipped: ITEM_AFFINITY_S3_TESTS is not set");
        return None;
    };
    let location = Location::parse(&base).unwrap().child(&format!("{:032x}", rand::random::<u128>())).unwrap();
    Some(Place { stores: Stores::from_env(), location, _dir: None })
}

impl Place {
    pub(crate) fn versions(&self, artifact: Artifact) -> Versions {
        Versions::new(&self.stores, self.location.clone(), artifact).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> Path {
        self.location.child(name).unwrap().path().clone()
    }

    pub(crate) async fn overwrite(&self, name: &str, bytes: impl Into<Bytes>) {
        let store = self.stores.store(&self.location).unwrap();
        store.put(&self.path(name), PutPayload::from_bytes(bytes.into())).await.unwrap();
    }

    pub(crate) async fn bytes(&self, name: &str) -> Bytes {
        let store = self.stores.store(&self.location).unwrap();
        store.get(&self.path(name)).await.unwrap().bytes().await.unwrap()
    }

    pub(crate) async fn remove(&self, name: &str) {
        self.stores.store(&self.location).unwrap().delete(&self.path(name)).await.unwrap();
    }

    pub(crate) async fn names(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        let store = self.stores.store(&self.location).unwrap();
        let base = format!("{}/", self.location.path());
        let list: Vec<_> = store.list(Some(self.location.path())).try_collect().await.unwrap();
        list.iter().map(|meta| meta.location.as_ref().strip_prefix(&base).unwrap().to_owned()).collect()
    }
}

pub(crate) fn body(job_key: &str) -> CommitBody {
    CommitBody { job_key: job_key.to_owned(), counts: BTreeMap::from([("users".into(), 3)]), ..CommitBody::default() }
}

pub(crate) fn commit_name(version: u64) -> String {
    format!("_item_affinity/commits/{version:020}.json")
}

pub(crate) async fn commit_one(versions: &Versions, job_key: &str) -> item_affinity_storage::Commit {
    let run = versions.begin().await.unwrap();
    run.put("part-00000", Bytes::from(format!("data of {job_key}")), Some(1)).await.unwrap();
    run.commit(body(job_key)).await.unwrap()
}

/// Runs a law on each kind of store.
macro_rules! on_every_store {
    ($($law:ident),* $(,)?) => {
        mod on_memory { $(#[tokio::test] async fn $law() { super::$law(super::memory()).await })* }
        mod on_disk { $(#[tokio::test] async fn $law() { super::$law(super::disk()).await })* }
        mod on_s3 {
            $(#[tokio::test] async fn $law() {
                if let Some(place) = super::s3() {
                    super::$law(place).await;
                }
            })*
        }
    };
}

on_every_store!(
    committed_version_is_the_newest_and_complete,
    layout_is_the_documented_one,
    nothing_is_visible_before_the_commit,
    abandoned_run_leaves_nothing,
    streamed_file_equals_one_put_at_once,
    dropped_writer_leaves_nothing_and_forbids_the_commit,
    foreign_location_is_refused_and_untouched,
    names_stay_inside_the_run,
    missing_version_says_what_exists,
    finished_job_is_found_again,
    eight_concurrent_committers_make_eight_versions,
    same_job_at_once_is_committed_once,
    damaged_data_file_names_file_and_version,
    every_flipped_byte_of_a_data_file_is_found,
    damaged_commit_names_the_last_good_version,
    every_cut_of_a_commit_is_an_error,
    changed_parent_breaks_the_chain,
    gap_in_the_numbers_is_an_error_and_old_versions_may_go,
    foreign_names_in_the_commit_folder_are_passed_over,
    other_artifact_is_refused,
);

async fn committed_version_is_the_newest_and_complete(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    assert_eq!(versions.numbers().await.unwrap(), Vec::<u64>::new());
    assert_eq!(versions.latest().await.unwrap(), None);
    let first = commit_one(&versions, "a").await;
    assert_eq!((first.version, first.parent_version, &first.parent_sha256), (1, None, &None));
    let run = versions.begin().await.unwrap();
    run.put("items/part-00000.parquet", Bytes::from_static(b"items"), Some(7)).await.unwrap();
    run.put("model.json", Bytes::from_static(b"{}"), None).await.unwrap();
    run.put_internal("errors.parquet", Bytes::from_static(b"none"), Some(0)).await.unwrap();
    let second = run.commit(body("b")).await.unwrap();
    assert_eq!((second.version, second.parent_version), (2, Some(1)));
    assert_eq!(second.parent_sha256.as_deref(), Some(first.sha256.as_str()));
    assert_eq!(versions.numbers().await.unwrap(), [1, 2]);
    assert_eq!(versions.latest().await.unwrap().unwrap(), second);
    assert_eq!(versions.resolve(Some(1)).await.unwrap(), first);
    assert_eq!(second.body, body("b"));
    assert!(second.durable && second.started <= second.committed_at);
    let contents: Vec<(String, Bytes)> = {
        let mut all = Vec::new();
        for entry in &second.files {
            assert_eq!(entry.version, 2);
            versions.check_file(entry).await.unwrap();
            all.push((entry.path.clone(), versions.read_file(entry).await.unwrap()));
        }
        all
    };
    let id = &second.run_id;
    assert_eq!(
        contents,
        [
            (format!("_item_affinity/runs/{id}/errors.parquet"), Bytes::from_static(b"none")),
            (format!("versions/{id}/items/part-00000.parquet"), Bytes::from_static(b"items")),
            (format!("versions/{id}/model.json"), Bytes::from_static(b"{}")),
        ]
    );
}

async fn layout_is_the_documented_one(place: Place) {
    let commit = commit_one(&place.versions(Artifact::Segments), "a").await;
    let id = &commit.run_id;
    let expected = [
        "_item_affinity/commits/00000000000000000001.json".to_owned(),
        "_item_affinity/latest.json".to_owned(),
        format!("_item_affinity/runs/{id}/intent.json"),
        format!("_item_affinity/runs/{id}/metrics.json"),
        format!("data/run={id}/_SUCCESS"),
        format!("data/run={id}/part-00000"),
    ];
    assert_eq!(place.names().await, BTreeSet::from(expected));
    let success: serde_json::Value =
        serde_json::from_slice(&place.bytes(&format!("data/run={id}/_SUCCESS")).await).unwrap();
    assert_eq!(success["version"], 1);
    assert_eq!(success["run_id"], id.as_str());
    let json: serde_json::Value = serde_json::from_slice(&place.bytes(&commit_name(1)).await).unwrap();
    for field in [
        "format",
        "format_version",
        "version",
        "run_id",
        "commit_token",
        "job_key",
        "files",
        "counts",
        "tool",
        "started",
        "ended",
    ] {
        assert!(!json[field].is_null(), "{field}");
    }
}

async fn nothing_is_visible_before_the_commit(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let run = versions.begin().await.unwrap();
    run.put("part-00000", Bytes::from_static(b"x"), None).await.unwrap();
    assert_eq!(versions.latest().await.unwrap(), None);
    let error = versions.resolve(None).await.unwrap_err();
    assert!(matches!(error, Error::NoVersion { .. }), "{error}");
    assert_eq!(run.commit(body("a")).await.unwrap().version, 1);
}

async fn abandoned_run_leaves_nothing(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let run = versions.begin().await.unwrap();
    run.put("part-00000", Bytes::from_static(b"x"), None).await.unwrap();
    run.put_internal("errors.parquet", Bytes::from_static(b"x"), None).await.unwrap();
    run.abandon().await;
    assert_eq!(place.names().await, BTreeSet::new());
    assert_eq!(commit_one(&versions, "a").await.version, 1);
}

async fn streamed_file_equals_one_put_at_once(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let run = versions.begin().await.unwrap();
    // More than one part of a multipart upload.
    let chunk = Bytes::from(vec![7_u8; 4 << 20]);
    let mut writer = run.writer("streamed").await.unwrap();
    for _ in 0..6 {
        writer.write_bytes(chunk.clone()).await.unwrap();
    }
    writer.set_row_groups(2);
    let streamed = writer.finish(Some(5)).await.unwrap();
    let put = run.put("put", Bytes::from(vec![7_u8; 24 << 20]), Some(5)).await.unwrap();
    assert_eq!((streamed.bytes, &streamed.sha256), (put.bytes, &put.sha256));
    assert_eq!((streamed.rows, streamed.row_groups), (Some(5), Some(2)));
    let empty = run.writer("empty").await.unwrap().finish(None).await.unwrap();
    assert_eq!(empty.bytes, 0);
    let commit = run.commit(body("a")).await.unwrap();
    for entry in &commit.files {
        versions.read_file(entry).await.unwrap();
    }
    assert_eq!(commit.files.len(), 3);
}

async fn dropped_writer_leaves_nothing_and_forbids_the_commit(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let run = versions.begin().await.unwrap();
    let mut writer = run.writer("half").await.unwrap();
    writer.write_bytes(Bytes::from_static(b"x")).await.unwrap();
    drop(writer);
    let error = run.commit(body("a")).await.unwrap_err();
    assert!(error.to_string().contains("a file of the run was not finished"), "{error}");
    assert_eq!(versions.latest().await.unwrap(), None);
    assert_eq!(place.names().await, BTreeSet::new());
}

async fn foreign_location_is_refused_and_untouched(place: Place) {
    place.overwrite("holiday.jpg", "x").await;
    let error = place.versions(Artifact::Segments).begin().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "ERR_OUTPUT_NOT_EMPTY: the location holds other objects, such as holiday.jpg; file={}; give another location",
            place.location
        )
    );
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert_eq!(place.names().await, BTreeSet::from(["holiday.jpg".to_owned()]));
}

async fn names_stay_inside_the_run(place: Place) {
    let run = place.versions(Artifact::Segments).begin().await.unwrap();
    for bad in ["", "/x", "../x", "a/../../x", "a//b", "s3://b/x", "_SUCCESS", "a\nb"] {
        let error = run.put(bad, Bytes::new(), None).await.unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{bad}: {error}");
    }
    run.put("twice", Bytes::new(), None).await.unwrap();
    assert!(run.put("twice", Bytes::new(), None).await.is_err());
    assert!(run.writer("twice").await.is_err());
    assert!(run.put_internal("intent.json", Bytes::new(), None).await.is_err());
}

async fn missing_version_says_what_exists(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    let none = versions.resolve(None).await.unwrap_err().to_string();
    assert!(none.starts_with("ERR_NO_VERSION: there are no committed solution versions; file="), "{none}");
    commit_one(&versions, "a").await;
    commit_one(&versions, "b").await;
    let error = versions.resolve(Some(7)).await.unwrap_err();
    assert!(error.to_string().contains("version 7 does not exist, versions 1 to 2 exist"), "{error}");
}

async fn finished_job_is_found_again(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let first = commit_one(&versions, "a").await;
    commit_one(&versions, "b").await;
    assert_eq!(versions.find_job("a").await.unwrap().unwrap(), first);
    assert_eq!(versions.find_job("c").await.unwrap(), None);
}

async fn eight_concurrent_committers_make_eight_versions(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let jobs = (0..8).map(|job| {
        let versions = versions.clone();
        tokio::spawn(async move { commit_one(&versions, &format!("job {job}")).await })
    });
    let commits = futures::future::join_all(jobs).await.into_iter().map(Result::unwrap);
    let runs: BTreeMap<u64, String> = commits.map(|commit| (commit.version, commit.run_id)).collect();
    assert_eq!(runs.keys().copied().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!(runs.values().collect::<BTreeSet<_>>().len(), 8);
    let mut before = None;
    for (&number, run) in &runs {
        let commit = versions.read(number).await.unwrap();
        assert_eq!(&commit.run_id, run);
        assert_eq!(commit.parent_sha256, before);
        versions.read_file(&commit.files[0]).await.unwrap();
        before = Some(commit.sha256);
    }
    assert_eq!(versions.latest().await.unwrap().unwrap().version, 8);
}

async fn same_job_at_once_is_committed_once(place: Place) {
    let versions = place.versions(Artifact::Segments);
    let (first, second) = (versions.begin().await.unwrap(), versions.begin().await.unwrap());
    first.put("x", Bytes::from_static(b"x"), None).await.unwrap();
    second.put("x", Bytes::from_static(b"x"), None).await.unwrap();
    let (one, two) = futures::join!(first.commit(body("a")), second.commit(body("a")));
    let (one, two) = (one.unwrap(), two.unwrap());
    // On disk the second may have listed after the first had committed; a scheduler's retry would see that before.
    if versions.numbers().await.unwrap() == [1] {
        assert_eq!(one, two);
        assert_eq!(place.names().await.iter().filter(|name| name.ends_with("/x")).count(), 1);
    } else {
        assert_ne!(one.run_id, two.run_id);
    }
}

async fn damaged_data_file_names_file_and_version(place: Place) {
    for (artifact, code) in
        [(Artifact::SolutionVersion, "ERR_SOLUTION_DAMAGED"), (Artifact::Segments, "ERR_COMMIT_INCOMPLETE")]
    {
        let place = Place { location: place.location.child(code).unwrap(), stores: place.stores.clone(), _dir: None };
        let versions = place.versions(artifact);
        commit_one(&versions, "a").await;
        let commit = commit_one(&versions, "b").await;
        let entry = &commit.files[0];
        place.overwrite(&entry.path, "data of B").await;
        let error = versions.read_file(entry).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{code}: sha256 differs from commit 2; file=")), "{error}");
        assert!(error.contains(&entry.path) && error.contains("@1) or "), "{error}");
        place.overwrite(&entry.path, "data").await;
        let error = versions.check_file(entry).await.unwrap_err().to_string();
        assert!(error.contains("version 2 incomplete: 4 bytes instead of 9"), "{error}");
        place.remove(&entry.path).await;
        for result in [versions.check_file(entry).await, versions.read_file(entry).await.map(drop)] {
            let error = result.unwrap_err();
            assert!(error.to_string().contains("version 2 incomplete: the file is missing"), "{error}");
            assert_eq!(error.kind(), ErrorKind::BadInput);
        }
        versions.read_file(&versions.read(1).await.unwrap().files[0]).await.unwrap();
    }
}

async fn every_flipped_byte_of_a_data_file_is_found(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    let commit = commit_one(&versions, "a").await;
    let entry = &commit.files[0];
    let good = place.bytes(&entry.path).await;
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1 << (at % 8);
        place.overwrite(&entry.path, bad).await;
        assert!(versions.read_file(entry).await.is_err(), "byte {at}");
    }
}

async fn damaged_commit_names_the_last_good_version(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    for job in ["a", "b", "c"] {
        commit_one(&versions, job).await;
    }
    place.overwrite(&commit_name(3), "{").await;
    let error = versions.latest().await.unwrap_err().to_string();
    assert!(error.starts_with("ERR_COMMIT: the commit is damaged"), "{error}");
    assert!(error.contains(&commit_name(3)), "{error}");
    assert!(error.contains(&format!("use version 2 ({}@2) or train again", place.location)), "{error}");
    assert_eq!(versions.resolve(Some(2)).await.unwrap().version, 2);
    assert_eq!(versions.find_job("b").await.unwrap().unwrap().version, 2);
    assert_eq!(commit_one(&versions, "d").await.version, 4);
    assert_eq!(versions.latest().await.unwrap().unwrap().version, 4);
}

async fn every_cut_of_a_commit_is_an_error(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    commit_one(&versions, "a").await;
    let good = place.bytes(&commit_name(1)).await;
    for length in (0..good.len()).step_by(7) {
        place.overwrite(&commit_name(1), good.slice(..length)).await;
        let error = versions.latest().await.unwrap_err();
        assert!(matches!(error, Error::Commit { .. }), "{length}: {error}");
    }
}

async fn changed_parent_breaks_the_chain(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    for job in ["a", "b"] {
        commit_one(&versions, job).await;
    }
    let text = String::from_utf8(place.bytes(&commit_name(1)).await.to_vec()).unwrap();
    place.overwrite(&commit_name(1), text.replace("\"users\": 3", "\"users\": 4")).await;
    let error = versions.latest().await.unwrap_err().to_string();
    assert!(error.contains("commit 1 was changed after commit 2 was made"), "{error}");
}

async fn gap_in_the_numbers_is_an_error_and_old_versions_may_go(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    for job in ["a", "b", "c", "d"] {
        commit_one(&versions, job).await;
    }
    place.remove(&commit_name(1)).await;
    assert_eq!(versions.numbers().await.unwrap(), [2, 3, 4]);
    assert_eq!(versions.latest().await.unwrap().unwrap().version, 4);
    place.remove(&commit_name(3)).await;
    let error = versions.numbers().await.unwrap_err().to_string();
    assert!(error.starts_with("ERR_COMMIT: a commit between 2 and 4 is missing"), "{error}");
    place.overwrite(&commit_name(u64::MAX), "{}").await;
    assert!(versions.numbers().await.is_err());
}

async fn foreign_names_in_the_commit_folder_are_passed_over(place: Place) {
    let versions = place.versions(Artifact::SolutionVersion);
    commit_one(&versions, "a").await;
    for name in
        ["2.json", "00000000000000000002.json.tmp", "x", ".00000000000000000002.json", "00000000000000000000.json"]
    {
        place.overwrite(&format!("_item_affinity/commits/{name}"), "{}").await;
    }
    assert_eq!(versions.numbers().await.unwrap(), [1]);
    assert_eq!(commit_one(&versions, "b").await.version, 2);
}

async fn other_artifact_is_refused(place: Place) {
    commit_one(&place.versions(Artifact::Segments), "a").await;
    let error = place.versions(Artifact::SolutionVersion).latest().await.unwrap_err().to_string();
    assert!(error.contains("it holds segments, not solution versions"), "{error}");
}

#[tokio::test]
async fn entry_that_leads_out_of_the_location_is_refused() {
    let versions = memory().versions(Artifact::Segments);
    let entry =
        FileEntry { path: "../../x".into(), bytes: 1, rows: None, row_groups: None, sha256: String::new(), version: 1 };
    assert!(versions.check_file(&entry).await.is_err());
    assert!(versions.read_file(&entry).await.is_err());
    assert!(versions.file_location(&entry).is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn local_files_are_private_and_no_temporary_file_stays() {
    use std::os::unix::fs::PermissionsExt;
    let place = disk();
    commit_one(&place.versions(Artifact::SolutionVersion), "a").await;
    let mut open = vec![place.location.local_path().unwrap()];
    let mut files = 0;
    while let Some(folder) = open.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
                assert!(!path.to_str().unwrap().ends_with(".tmp"), "{}", path.display());
                files += 1;
            }
        }
    }
    assert_eq!(files, 6);
}

#[tokio::test]
async fn commit_without_fsync_says_so() {
    let place = disk();
    let commit = commit_one(&place.versions(Artifact::Segments).with_durability(false), "a").await;
    assert!(!commit.durable);
    assert!(!place.versions(Artifact::Segments).latest().await.unwrap().unwrap().durable);
}

#[tokio::test]
async fn file_in_place_of_the_output_folder_is_an_error() {
    let place = disk();
    let path = place.location.local_path().unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "x").unwrap();
    let error = place.versions(Artifact::Segments).begin().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    assert!(error.to_string().contains("some/where"), "{error}");
}
