//! `gc --uploads`: what a killed job left open in a bucket is found and aborted, and nothing else.

use item_affinity_storage::{Location, Stores};

use crate::common::{Ended, Fault, MiniS3, S3Server, item_affinity, run, solution};

/// Runs that are dead, and one that the test keeps alive.
const DEAD: [&str; 3] =
    ["0123456789abcdef0123456789abcdef", "1123456789abcdef0123456789abcdef", "2123456789abcdef0123456789abcdef"];
const ALIVE: &str = "f123456789abcdef0123456789abcdef";

/// Begins an upload and lets it lie, as a process does that is killed.
fn leave_open(stores: &Stores, key: &str) {
    use datafusion::object_store::{ObjectStoreExt, PutPayload};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let location = Location::parse(&format!("s3://lake/{key}")).unwrap();
        let mut upload = stores.store(&location).unwrap().put_multipart(location.path()).await.unwrap();
        upload.put_part(PutPayload::from_static(&[7; 1_000])).await.unwrap();
    });
}

fn put(stores: &Stores, key: &str) {
    use datafusion::object_store::ObjectStoreExt;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let location = Location::parse(&format!("s3://lake/{key}")).unwrap();
    runtime.block_on(stores.store(&location).unwrap().put(location.path(), "{}".into())).map(drop).unwrap();
}

fn gc(environment: &[(&'static str, String)], more: &[&str]) -> Ended {
    let mut command = item_affinity();
    command.envs(environment.iter().cloned());
    run(command.args(["gc", "--output", "s3://lake/a b/out", "--uploads"]).args(more))
}

fn segments(environment: &[(&'static str, String)]) {
    let mut command = item_affinity();
    command.envs(environment.iter().cloned());
    let job = ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/a b/out"];
    let ended = run(command.args(job));
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn open_uploads_of_dead_runs_are_listed_over_pages_and_aborted_and_no_others() {
    let server = MiniS3::start(|_, _| Fault::None);
    let (environment, stores) = (server.environment(), server.stores(&[]));
    segments(&environment);
    for run_id in DEAD {
        leave_open(&stores, &format!("a b/out/data/run={run_id}/part-00000.parquet"));
    }
    leave_open(&stores, &format!("a b/out/_item_affinity/runs/{}/errors.parquet", DEAD[0]));
    // Somebody else's, in the same bucket and below the same location.
    for key in ["a b/out/data/run=mine/part", "a b/other/part", "a b/out2/data/run=mine/part", "a b/out/x.parquet"] {
        leave_open(&stores, key);
    }
    leave_open(&stores, &format!("a b/out/data/run={ALIVE}/part-00000.parquet"));
    let young = gc(&environment, &[]);
    assert!(young.stdout.ends_with("0 open uploads to abort; 5 are too young\n"), "{young:?}");
    server.with(|kept| kept.age(8 * 86_400));
    // Its lease was renewed a moment ago.
    put(&stores, &format!("a b/out/_item_affinity/runs/{ALIVE}/intent.json"));

    let listed = gc(&environment, &[]);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(listed.stdout.ends_with("4 open uploads to abort; --delete aborts them; 1 are too young\n"), "{listed:?}");
    for run_id in DEAD {
        let line = format!("run {run_id} left an upload open 8 days ago: data/run={run_id}/part-00000.parquet\n");
        assert!(listed.stdout.contains(&line), "{listed:?}");
    }
    assert!(!listed.stdout.contains(ALIVE), "{listed:?}");
    assert_eq!(server.with(|kept| kept.open_uploads()), 9, "a dry run aborts nothing");

    // A store that is busy now and then, and one upload that somebody completes or aborts in between.
    let mut calls = 0;
    server.plan(move |asked, _| {
        calls += 1;
        match (asked.method.as_str(), calls % 3) {
            ("GET", 0) if asked.query.contains_key("uploads") => Fault::Status(503, "SlowDown"),
            ("DELETE", 0) if asked.query.contains_key("uploadId") => Fault::ApplyThenStatus(500, "InternalError"),
            ("GET", 1) if asked.query.contains_key("uploads") => Fault::ErrorIn200,
            ("DELETE", 1) if asked.query.contains_key("uploadId") => Fault::ErrorIn200,
            _ => Fault::None,
        }
    });
    let aborted = gc(&environment, &["--delete"]);
    assert_eq!(aborted.code, 0, "{aborted:?}");
    assert!(aborted.stdout.ends_with("4 open uploads aborted; 1 are too young\n"), "{aborted:?}");
    assert_eq!(server.with(|kept| kept.open_uploads()), 5);
    server.heal();
    let verified = run(item_affinity().envs(environment).args(["verify", "--output", "s3://lake/a b/out"]));
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn a_missing_right_an_odd_answer_and_a_store_that_cannot_are_said_with_their_exit_code() {
    let server = MiniS3::start(|_, _| Fault::None);
    let mut environment = server.environment();
    environment.push(("ITEM_AFFINITY_RETRY_TIMEOUT", "1".to_owned()));
    segments(&environment);
    leave_open(&server.stores(&[]), &format!("a b/out/data/run={}/part", DEAD[0]));
    server.with(|kept| kept.age(8 * 86_400));
    for (method, code, fault, says) in [
        ("GET", 3, Fault::Status(403, "AccessDenied"), "the role needs s3:ListBucketMultipartUploads"),
        ("DELETE", 3, Fault::Status(403, "AccessDenied"), "the role needs s3:AbortMultipartUpload"),
        ("GET", 3, Fault::Status(501, "NotImplemented"), "let a lifecycle rule of the bucket abort them"),
        ("GET", 3, Fault::Status(405, "MethodNotAllowed"), "let a lifecycle rule of the bucket abort them"),
        ("GET", 3, Fault::Status(400, "ExpiredToken"), "get new credentials"),
        ("DELETE", 3, Fault::Status(403, "RequestTimeTooSkewed"), "set the clock of this machine"),
        ("GET", 5, Fault::Status(503, "SlowDown"), "503 SlowDown, after "),
        ("GET", 5, Fault::ErrorIn200, "200 InternalError, after "),
        ("DELETE", 5, Fault::ErrorIn200, "200 InternalError, after "),
        ("GET", 5, Fault::ResetBefore, "LIST"),
    ] {
        server.plan(move |asked, _| {
            let ours = asked.query.contains_key("uploads") || asked.query.contains_key("uploadId");
            if ours && asked.method == method { fault } else { Fault::None }
        });
        let ended = gc(&environment, &["--delete"]);
        assert_eq!(ended.code, code, "{fault:?}: {ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.contains("s3://lake/a b/out"), "{fault:?}: {ended:?}");
        assert!(!ended.stderr.contains("canary") && !ended.stderr.contains("Signature"), "{ended:?}");
    }
}

#[test]
fn what_could_not_be_removed_is_said_beside_uploads_that_cannot_be_listed() {
    let server = MiniS3::start(|_, _| Fault::None);
    let (environment, stores) = (server.environment(), server.stores(&[]));
    segments(&environment);
    put(&stores, &format!("a b/out/data/run={}/part-00000.parquet", DEAD[0]));
    server.with(|kept| kept.age(8 * 86_400));
    server.plan(|asked, _| {
        let removes = asked.query.contains_key("delete") || asked.method == "DELETE";
        if removes || asked.query.contains_key("uploads") { Fault::Status(403, "AccessDenied") } else { Fault::None }
    });
    let ended = gc(&environment, &["--delete"]);
    assert_eq!((ended.code, ended.stderr.lines().count()), (3, 1), "{ended:?}");
    for right in ["s3:DeleteObject", "s3:ListBucketMultipartUploads"] {
        assert!(ended.stderr.contains(right), "{right}: {ended:?}");
    }
}

#[test]
fn a_real_server_lists_and_aborts_what_was_left_open() {
    let Some(server) = S3Server::start("a_real_server_lists_and_aborts_what_was_left_open") else { return };
    let (environment, stores) = (server.environment().to_vec(), server.stores());
    segments(&environment);
    // This server says of every upload that it was begun in 2010.
    leave_open(&stores, &format!("a b/out/data/run={}/part-00000.parquet", DEAD[0]));
    leave_open(&stores, &format!("a b/out/data/run={ALIVE}/part-00000.parquet"));
    put(&stores, &format!("a b/out/_item_affinity/runs/{ALIVE}/intent.json"));
    let listed = gc(&environment, &[]);
    assert!(listed.stdout.ends_with("1 open uploads to abort; --delete aborts them; 1 are too young\n"), "{listed:?}");
    let aborted = gc(&environment, &["--delete"]);
    assert!(aborted.stdout.ends_with("1 open uploads aborted; 1 are too young\n"), "{aborted:?}");
    let again = gc(&environment, &["--delete"]);
    assert!(again.stdout.ends_with("0 open uploads aborted; 1 are too young\n"), "{again:?}");
}

#[test]
fn on_local_disk_there_are_no_uploads() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    let job = ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", &output];
    assert_eq!(run(item_affinity().args(job)).code, 0);
    let ended = run(item_affinity().args(["gc", "--output", &output, "--uploads", "--delete"]));
    assert!(ended.code == 0 && ended.stdout.ends_with("0 open uploads aborted\n"), "{ended:?}");
}
