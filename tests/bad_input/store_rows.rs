//! B89 to B99, and B23: stores that are throttled, refuse, lie or change.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::catalogue::{Case, Row, row};
use crate::common::behind;
use crate::common::{Asked, Fault, MiniS3, data, files_below, item_affinity, run, solution};
use crate::system_calls::can_trace;

pub(super) const ROWS: &[Row] = &[
    row(89, "503 SlowDown, one 500, 429", |case| {
        for (status, code) in [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")] {
            let requests = counter();
            let store = with_data(move |_| {
                requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(2).then_some(Fault::Status(status, code))
            });
            reads(case, &store);
        }
        let store = with_data(|_| Some(Fault::Status(503, "SlowDown")));
        refuses(case, &store, 5, &["ERR_STORE: ", "503"]);
    }),
    row(90, "200 with an error in its body for a copy", |case| {
        let once = counter();
        let store = with_data(move |request| {
            let copy =
                request.method == "PUT" && request.key.ends_with("items.json.out") && !request.key.contains("data/");
            (copy && once.fetch_add(1, Ordering::SeqCst) == 0).then_some(Fault::ApplyThenStatus(200, "InternalError"))
        });
        writes(case, &store, 0, &["committed version 1"], &["--format", "json-lines"]);
    }),
    row(91, "reset or end in the body, another ETag", |case| {
        let cut = counter();
        let store = with_data(move |request| {
            (request.method == "GET" && !request.key.is_empty() && cut.fetch_add(1, Ordering::SeqCst) == 0)
                .then_some(Fault::CutBody)
        });
        reads(case, &store);
        let store =
            with_data(|request| (request.method == "GET" && !request.key.is_empty()).then_some(Fault::OtherEtag));
        refuses(case, &store, 3, &["ERR_INPUT_CHANGED: "]);
    }),
    row(92, "403 at the PUT of data and of the commit", |case| {
        for (part, code) in [
            ("part-00000.parquet", "AccessDenied"),
            ("commits/", "AccessDenied"),
            ("part-00000.parquet", "KMS.AccessDeniedException"),
        ] {
            let store = with_data(move |request| {
                (request.method != "GET" && request.method != "HEAD" && request.key.contains(part))
                    .then_some(Fault::Status(403, code))
            });
            writes(case, &store, 3, &["ERR_STORE_DENIED: ", "403"], &[]);
            let (keys, uploads) = (keys(&store), store.with(|kept| kept.open_uploads()));
            if uploads > 0 || keys.iter().any(|key| key.contains("/commits/")) {
                case.failures.push(format!("left behind: {uploads} uploads, {keys:?}"));
            }
        }
    }),
    row(93, "no bucket, wrong region, clock skew, expired token", |case| {
        for (status, code, says) in [
            (404, "NoSuchBucket", "bucket"),
            (301, "PermanentRedirect", "AWS_REGION"),
            (403, "RequestTimeTooSkewed", "clock"),
            (400, "ExpiredToken", "token"),
        ] {
            // A list has the store's own code in its body, the answer to HEAD has none.
            let store = with_data(move |_| Some(Fault::Status(status, code)));
            case.environment = environment(&store);
            case.refuses(3, &["check", "--quiet", "--interactions", "s3://lake/data/"], &["ERR_", says]);
        }
    }),
    row(94, "409 on create, 412 for the own commit, a lost answer", |case| {
        let commit = |request: &Asked| request.method == "PUT" && request.key.contains("/commits/");
        for kind in 0..4 {
            let once = counter();
            let store = with_data(move |request| {
                (commit(request) && once.fetch_add(1, Ordering::SeqCst) == 0).then_some(match kind {
                    0 => Fault::Status(409, "ConditionalRequestConflict"),
                    1 => Fault::ApplyThenStatus(500, "InternalError"),
                    2 => Fault::ResetAfter,
                    _ => Fault::ApplyThenStatus(412, "PreconditionFailed"),
                })
            });
            writes(case, &store, 0, &["committed version 1"], &[]);
            let commits = keys(&store).iter().filter(|key| key.contains("/commits/")).count();
            if commits != 1 {
                case.failures.push(format!("{commits} commits after fault {kind}"));
            }
        }
    }),
    row(95, "store that ignores If-None-Match", |case| {
        let store = with_data(|_| Some(Fault::NoConditions));
        writes(case, &store, 3, &["ERR_STORE_SETTING: "], &[]);
        if keys(&store).iter().any(|key| key.contains("data/run=")) {
            case.failures.push("data was written before the probe".to_owned());
        }
    }),
    row(96, "repeated and unsorted lists, odd keys", |case| {
        let store = with_data(|request| request.key.is_empty().then_some(Fault::OddList));
        let whole = std::fs::read(data("interactions.parquet")).unwrap();
        for key in ["odd/a b.parquet", "odd/50%.parquet", "odd/a+b.parquet", "odd/ü😀.parquet"] {
            put(&store, key, &whole);
        }
        put(&store, &format!("odd/{}.parquet", "k".repeat(1_000)), &whole);
        case.environment = environment(&store);
        let ended = case.works(&["check", "--format", "json", "--interactions", "s3://lake/odd/"], &[]);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        let one = case.works(&["check", "--format", "json", "--interactions", "s3://lake/interactions.parquet"], &[]);
        let one: serde_json::Value = serde_json::from_str(&one.stdout).unwrap_or_default();
        if report["rows"].as_u64() != one["rows"].as_u64().map(|rows| rows * 5) {
            case.fail(&["odd keys"], &ended, "not the exact set of files");
        }
    }),
    row(97, "file system without hard links", |case| {
        if !can_trace("B97 of the catalogue") {
            case.skipped = Some("no strace, or no right to trace".to_owned());
            return;
        }
        // What link answers on vfat, on FUSE, on NFS of Windows, and where a folder has as many as it may.
        for error in ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK"] {
            let (output, trace) = (case.path(error), case.path("trace"));
            let inject = format!("inject=link,linkat:error={error}");
            let words = ["strace", "-f", "-qq", "-o", &trace, "-e", "trace=link,linkat", "-e", &inject];
            let mut ours = item_affinity();
            ours.args(["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", &output]);
            let ended = run(&mut behind(&words, &ours));
            let ended = case.ended(ended, &[error]);
            let says = ["ERR_STORE_SETTING: ", "no hard links", "use another disk", &format!("file={output}")];
            case.was_refused(&ended, 3, &[error], &says);
            // The probe finds it before there are data.
            let left = files_below(std::path::Path::new(&output));
            if !left.is_empty() {
                case.fail(&[error], &ended, &format!("files are left: {left:?}"));
            }
        }
    }),
    row(98, "disk full, quota, read-only, no permission", |case| {
        let output = case.path("out");
        let arguments = [
            "segment",
            "--quiet",
            "--solution",
            solution(),
            "--item",
            "COFFEE-01",
            "--num-results",
            "1500",
            "--output",
            &output,
        ];
        case.works(&arguments, &[]);
        let before = files_below(std::path::Path::new(&output));
        // A limit of the size of files, as a quota.
        let mut limited = Command::new("bash");
        limited
            .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_item-affinity")])
            .args(arguments)
            .arg("--force");
        let ended = run(&mut limited);
        let ended = case.ended(ended, &["ulimit -f"]);
        if ![3, 5].contains(&ended.code) || !ended.stderr.contains("file=") {
            case.fail(&["ulimit -f"], &ended, "a full disk is not told with its file");
        }
        let commits =
            |files: &[std::path::PathBuf]| files.iter().filter(|f| f.to_string_lossy().contains("/commits/")).count();
        if commits(&before) != commits(&files_below(std::path::Path::new(&output))) {
            case.fail(&["ulimit -f"], &ended, "a new commit");
        }
        for place in ["/proc/nowhere/out", "/dev/null/out"] {
            let ended =
                case.run(&["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", place]);
            if ![3, 5].contains(&ended.code) {
                case.fail(&[place], &ended, "another exit code than 3 or 5");
            }
        }
    }),
    row(99, "objects that are removed while they are read", |case| {
        let reads_so_far = counter();
        let store = with_data(move |request| {
            let late =
                request.method == "GET" && !request.key.is_empty() && reads_so_far.fetch_add(1, Ordering::SeqCst) > 0;
            late.then_some(Fault::Status(404, "NoSuchKey"))
        });
        refuses(case, &store, 3, &["ERR_", "interactions.parquet"]);
    }),
];

/// B23: the object is another one when its pages are read.
pub(super) fn replaced_while_read(case: &mut Case) {
    let reads_so_far = counter();
    let store = with_data(move |request| {
        let late =
            request.method == "GET" && !request.key.is_empty() && reads_so_far.fetch_add(1, Ordering::SeqCst) > 0;
        late.then_some(Fault::Status(412, "PreconditionFailed"))
    });
    refuses(case, &store, 3, &["ERR_INPUT_CHANGED: ", "interactions.parquet"]);
}

fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

fn with_data(plan: impl Fn(&Asked) -> Option<Fault> + Send + 'static) -> MiniS3 {
    let store = MiniS3::start(move |asked, _| plan(asked).unwrap_or(Fault::None));
    put(&store, "interactions.parquet", &std::fs::read(data("interactions.parquet")).unwrap());
    store
}

fn put(store: &MiniS3, key: &str, bytes: &[u8]) {
    store.with(|kept| kept.put(key, bytes.to_vec()));
}

fn keys(store: &MiniS3) -> Vec<String> {
    store.with(|kept| kept.objects.keys().cloned().collect())
}

/// What a client needs to know, and how long it may try.
fn environment(store: &MiniS3) -> Vec<(&'static str, String)> {
    let mut environment = store.environment();
    environment.push(("ITEM_AFFINITY_RETRY_TIMEOUT", "3".to_owned()));
    environment
}

fn reads(case: &mut Case, store: &MiniS3) {
    case.environment = environment(store);
    case.works(&["check", "--interactions", "s3://lake/interactions.parquet"], &["1,500"]);
}

fn refuses(case: &mut Case, store: &MiniS3, code: i32, says: &[&str]) {
    case.environment = environment(store);
    case.refuses(code, &["check", "--quiet", "--interactions", "s3://lake/interactions.parquet"], says);
}

fn writes(case: &mut Case, store: &MiniS3, code: i32, says: &[&str], more: &[&str]) {
    case.environment = environment(store);
    let arguments = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/out"];
    case.ends(code, &[&arguments[..], more].concat(), says);
}

#[test]
fn the_store_of_these_rows_is_sound_without_faults() {
    let store = with_data(|_| None);
    let mut command = item_affinity();
    command.envs(environment(&store));
    let checked = run(command.args(["check", "--interactions", "s3://lake/interactions.parquet"]));
    assert_eq!(checked.code, 0, "{checked:?}");
    let mut command = item_affinity();
    command.envs(environment(&store));
    let written =
        run(command.args(["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/out"]));
    assert_eq!(written.code, 0, "{written:?}");
    assert!(
        keys(&store).iter().any(|key| key == "out/_item_affinity/commits/00000000000000000001.json"),
        "{:?}",
        keys(&store)
    );
}
