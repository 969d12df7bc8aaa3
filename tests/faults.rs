//! P10, P27, P28: a server that fails changes how long a job takes, not what it gives; one that stays dead ends it in time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use item_affinity_job::{BatchSegmentJob, ItemList, SessionSettings, TrainingJob};
use item_affinity_storage::{Artifact, CommitBody, Error, Location, Stores, Versions};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::{Asked, Ended, Fault, Kept, MiniS3, fingerprint, item_affinity, run, small_interactions, solution};
use crate::limits::many_users;

/// Seeds of the sweep; `ITEM_AFFINITY_FAULT_SEEDS` asks for more.
const SEEDS: usize = 100;
/// Jobs at once: they wait more than they compute.
const AT_ONCE: usize = 12;
/// The share of requests that go wrong.
const SHARE: f64 = 0.2;

type Fingerprint = Vec<(String, String)>;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn first_seed() -> u64 {
    std::env::var("ITEM_AFFINITY_SEED")
        .ok()
        .map_or_else(|| rand::random_range(0..1 << 40), |text| text.parse().unwrap())
}

fn interactions() -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    small_interactions(file.path());
    std::fs::read(file.path()).unwrap()
}

/// Trains and ranks in one bucket, and reads back what both committed.
async fn job(stores: &Stores) -> Result<[Fingerprint; 2], String> {
    let text = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let trained = TrainingJob::new("s3://lake/interactions/")
        .recipe(item_affinity_model::ItemAffinity {
            hidden_dimension: 32,
            iterations: 1,
            regularization: Some(0.005),
            horizon_days: Some(10.0),
            ..Default::default()
        })
        .solution("s3://lake/solution")
        .threads(Some(1))
        .stores(stores.clone())
        .run()
        .await
        .map_err(|error| text("train", &error))?;
    BatchSegmentJob::new(&trained.solution.to_string(), ItemList::from_ids(["item-03", "item-08"]))
        .output("s3://lake/segments")
        .settings(SessionSettings { target_partitions: Some(1), ..SessionSettings::default() })
        .stores(stores.clone())
        .run()
        .await
        .map_err(|error| text("segment", &error))?;
    Ok([
        committed(stores, "s3://lake/solution", Artifact::SolutionVersion).await?,
        committed(stores, "s3://lake/segments", Artifact::Segments).await?,
    ])
}

/// The one version that is there, with every byte compared.
async fn committed(stores: &Stores, place: &str, artifact: Artifact) -> Result<Fingerprint, String> {
    let versions = Versions::new(stores, Location::parse(place).unwrap(), artifact).unwrap();
    let found = versions.verify(None, true).await.map_err(|error| error.to_string())?;
    if !found.faults.is_empty() || found.versions != [1] {
        return Err(format!("{found:?}"));
    }
    Ok(fingerprint(&versions.read(1).await.map_err(|error| error.to_string())?))
}

/// Faults that pass by themselves, at random.
fn at_random(seed: u64) -> impl FnMut(&Asked, &mut Kept) -> Fault {
    const ALWAYS: [Fault; 8] = [
        Fault::Status(503, "SlowDown"),
        Fault::Status(500, "InternalError"),
        Fault::Status(429, "TooManyRequests"),
        Fault::ApplyThenStatus(500, "InternalError"),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HalfBody,
        Fault::Drip(3),
    ];
    const CONDITIONAL: [Fault; 3] = [
        Fault::LateApply,
        Fault::Status(409, "ConditionalRequestConflict"),
        Fault::ApplyThenStatus(412, "PreconditionFailed"),
    ];
    let mut random = StdRng::seed_from_u64(seed);
    move |asked, _| {
        if !random.random_bool(SHARE) {
            return Fault::None;
        }
        let conditional = asked.headers.contains_key("if-none-match");
        let at = random.random_range(0..ALWAYS.len() + if conditional { CONDITIONAL.len() } else { 0 });
        ALWAYS.get(at).copied().unwrap_or_else(|| CONDITIONAL[at - ALWAYS.len()])
    }
}

fn server(data: &[u8], plan: impl FnMut(&Asked, &mut Kept) -> Fault + Send + 'static) -> MiniS3 {
    let server = MiniS3::start(plan);
    server.with(|kept| kept.put("interactions/part-0.parquet", data.to_vec()));
    server
}

const QUICK: [(&str, &str); 2] = [("ITEM_AFFINITY_RETRY_TIMEOUT", "60"), ("AWS_TIMEOUT", "10 seconds")];

#[test]
fn p28_transient_faults_of_a_hundred_seeds_change_nothing_but_the_time() {
    let data = interactions();
    let begun = Instant::now();
    let clean = server(&data, |_, _| Fault::None);
    let reference = runtime().block_on(job(&clean.stores(&QUICK))).unwrap();
    let (clean_requests, clean_time) = (clean.requests(), begun.elapsed());

    let seeds = std::env::var("ITEM_AFFINITY_FAULT_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let (first, next) = (first_seed(), AtomicUsize::new(0));
    let (equal, requests) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (fired, failed) = (Mutex::new(BTreeMap::<String, u64>::new()), Mutex::new(Vec::new()));
    let times = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < seeds) {
                    let seed = first + seed as u64;
                    let server = server(&data, at_random(seed));
                    let begun = Instant::now();
                    let result = runtime().block_on(job(&server.stores(&QUICK)));
                    times.lock().unwrap().push(begun.elapsed());
                    requests.fetch_add(server.requests(), Ordering::Relaxed);
                    for (fault, count) in server.fired() {
                        *fired.lock().unwrap().entry(fault).or_default() += count;
                    }
                    match result {
                        Ok(result) if result == reference => drop(equal.fetch_add(1, Ordering::Relaxed)),
                        Ok(_) => failed.lock().unwrap().push(format!("seed {seed}: another result")),
                        Err(error) => failed.lock().unwrap().push(format!("seed {seed}: {error}")),
                    }
                }
            });
        }
    });
    let (fired, failed, mut times) =
        (fired.into_inner().unwrap(), failed.into_inner().unwrap(), times.into_inner().unwrap());
    times.sort();
    let more = requests.into_inner() as f64 / seeds as f64 - clean_requests as f64;
    println!(
        "faults: {} of {seeds} seeds from {first} on equal to the fault-free result, {} faults {fired:?}, {more:.0} more \
         requests a job than {clean_requests}, median {} ms instead of {} ms",
        equal.load(Ordering::Relaxed),
        fired.values().sum::<u64>(),
        times[times.len() / 2].as_millis(),
        clean_time.as_millis(),
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(fired.len(), 11, "each kind of fault came at least once: {fired:?}");
}

/// Two jobs that commit at one place at once, over answers to the commit that are lost or wrong.
#[test]
fn p10_no_verdict_on_an_unclear_commit_is_wrong() {
    let modes = [
        ("apply, then 500", Fault::ApplyThenStatus(500, "InternalError")),
        ("apply, then reset", Fault::ResetAfter),
        ("409 with nothing landed", Fault::Status(409, "ConditionalRequestConflict")),
        ("412 for our own write", Fault::ApplyThenStatus(412, "PreconditionFailed")),
        ("reset, then a late apply", Fault::LateApply),
    ];
    let (mut verdicts, first) = (0, first_seed());
    for (name, fault) in modes {
        for seed in 0..40 {
            let mut random = StdRng::seed_from_u64(first + seed);
            let mut left = random.random_range(1..=3);
            let server = MiniS3::start(move |asked, _| {
                let is_commit = asked.key.contains("/commits/") && asked.method == "PUT";
                if is_commit && left > 0 && random.random_bool(0.7) {
                    left -= 1;
                    return fault;
                }
                Fault::None
            });
            let stores = server.stores(&QUICK);
            let versions =
                Versions::new(&stores, Location::parse("s3://lake/out").unwrap(), Artifact::Segments).unwrap();
            runtime().block_on(async {
                let commit = async |job: &str| {
                    let run = versions.begin().await.unwrap();
                    run.put("part", Bytes::from(job.to_owned()), None).await.unwrap();
                    let id = run.run_id.clone();
                    (id, run.commit(CommitBody { job_key: job.to_owned(), ..CommitBody::default() }).await)
                };
                let (one, two) = tokio::join!(commit("one"), commit("two"));
                let mut all = Vec::new();
                for number in versions.numbers().await.unwrap() {
                    all.push(versions.read(number).await.unwrap());
                }
                for (id, verdict) in [one, two] {
                    let told = format!("{name}, seed {}: {verdict:?}", first + seed);
                    let ours: Vec<u64> = all.iter().filter(|c| c.run_id == id).map(|c| c.version).collect();
                    match verdict {
                        Ok(commit) => assert_eq!(ours, [commit.version], "{told}"),
                        Err(Error::CommitUnknown { .. }) => assert!(ours.len() <= 1, "{told}"),
                        Err(_) => assert!(ours.is_empty(), "{told}"),
                    }
                    verdicts += 1;
                }
                assert!(versions.verify(None, true).await.unwrap().faults.is_empty());
            });
        }
    }
    println!("unclear commits: {verdicts} verdicts over {} modes and 40 seeds from {first} on, 0 wrong", modes.len());
}

fn with_server(server: &MiniS3, more: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = item_affinity();
    command.envs(server.environment()).envs(more.iter().copied());
    run(command.args(arguments))
}

fn segment(server: &MiniS3, more: &[(&str, &str)]) -> Ended {
    let arguments =
        ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/out"];
    with_server(server, more, &arguments)
}

#[test]
fn p10_a_commit_that_nobody_can_ask_for_ends_with_7_deletes_nothing_and_is_told_later() {
    for landed in [false, true] {
        let server = MiniS3::start(move |asked, _| {
            let is_commit = asked.key.ends_with("/00000000000000000001.json");
            let (put, get) = (is_commit && asked.method == "PUT", is_commit && asked.method == "GET");
            match (put, get, landed) {
                (true, _, true) => Fault::ResetAfter,
                (true, _, false) => Fault::ResetBefore,
                (_, true, _) => Fault::Status(503, "SlowDown"),
                _ => Fault::None,
            }
        });
        let lost = segment(&server, &[("ITEM_AFFINITY_RETRY_TIMEOUT", "1")]);
        assert_eq!(lost.code, 7, "{lost:?}");
        let data = server.with(|kept| kept.objects.keys().filter(|key| key.ends_with("/part-00000.parquet")).count());
        assert_eq!(data, 1, "nothing is deleted");
        let (_, told) = lost.stderr.split_once("ask `item-affinity ").unwrap();
        let (told, _) = told.split_once('`').unwrap();
        server.heal();
        let told = with_server(&server, &[], &told.split(' ').collect::<Vec<_>>());
        let again = segment(&server, &[]);
        assert_eq!(again.code, 0, "{again:?}");
        if landed {
            assert!(told.code == 0 && told.stdout.contains(" committed version 1 of s3://lake/out"), "{told:?}");
            assert!(again.stdout.contains("already done as version 1"), "{again:?}");
        } else {
            assert!(told.code == 3 && told.stderr.contains("this run has committed nothing"), "{told:?}");
            assert!(again.stdout.contains("committed version 1"), "{again:?}");
        }
    }
}

#[test]
fn p28_permanent_faults_end_at_once_with_3_and_name_the_cure() {
    for (status, code, cure) in [
        (403, "AccessDenied", "s3:"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "ExpiredToken", "get new credentials"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
        (404, "NoSuchBucket", "check the name of the bucket"),
        (403, "AccessDenied by KMS", "kms:"),
    ] {
        // Who may list and not write is told so by the first write.
        let of_kms = code.contains("KMS");
        let server = MiniS3::start(move |asked, _| match of_kms && asked.method != "PUT" {
            true => Fault::None,
            false => Fault::Status(status, code),
        });
        let begun = Instant::now();
        let ended = segment(&server, &[]);
        assert_eq!(ended.code, 3, "{code}: {ended:?}");
        assert!(ended.stderr.contains(cure) && ended.stderr.lines().count() == 1, "{code}: {}", ended.stderr);
        assert!(begun.elapsed() < Duration::from_secs(20) && server.requests() <= 5, "{code}: {}", server.requests());
    }
}

#[test]
fn p27_a_dead_endpoint_ends_a_job_with_5_within_the_time_for_retries() {
    let short =
        [("ITEM_AFFINITY_RETRY_TIMEOUT", "3"), ("AWS_TIMEOUT", "1 second"), ("AWS_CONNECT_TIMEOUT", "1 second")];
    let dead: [(&str, Fault); 4] = [
        ("silence", Fault::Silence),
        ("a byte now and then", Fault::Drip(2_000)),
        ("503 for ever", Fault::Status(503, "SlowDown")),
        ("resets for ever", Fault::ResetBefore),
    ];
    // On the command line as in the environment.
    let option = MiniS3::start(|_, _| Fault::Status(503, "SlowDown"));
    let begun = Instant::now();
    let arguments = ["verify", "--output", "s3://lake/out", "--retry-timeout", "1s"];
    let short_option = with_server(&option, &[], &arguments);
    assert_eq!(short_option.code, 5, "{short_option:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        let jobs = dead.map(|(name, fault)| {
            scope.spawn(move || {
                let server = MiniS3::start(move |_, _| fault);
                let begun = Instant::now();
                (name, segment(&server, &short), begun.elapsed())
            })
        });
        told.extend(jobs.into_iter().map(|job| job.join().unwrap()));
    });
    let closed = MiniS3::start(|_, _| Fault::None);
    let mut command = item_affinity();
    command.envs(closed.environment()).envs(short);
    drop(closed);
    let begun = Instant::now();
    let refused = run(command.args(["verify", "--output", "s3://lake/out"]));
    told.push(("connection refused", refused, begun.elapsed()));
    for (name, ended, took) in told {
        assert_eq!(ended.code, 5, "{name}: {ended:?}");
        assert!(
            ended.stderr.starts_with("error: ERR_STORE: ") && ended.stderr.lines().count() == 1,
            "{name}: {ended:?}"
        );
        assert!(took < Duration::from_secs(3 + 30), "{name}: {took:?}");
        println!("dead endpoint, {name}: exit code 5 after {:.1} s with 3 s for retries", took.as_secs_f64());
    }
}

/// P7, P15: SIGTERM in the middle of an upload of several parts.
#[test]
fn p15_terminate_aborts_the_upload_that_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("items.json");
    let lines = (0..60).map(|n| format!("{{\"itemId\": \"item-{n:02}\"}}\n")).collect::<String>();
    std::fs::write(&list, lines).unwrap();
    // Parts are never confirmed.
    let server = MiniS3::start(|asked, _| match asked.query.contains_key("partNumber") {
        true => Fault::Silence,
        false => Fault::None,
    });
    let mut command = item_affinity();
    command.envs(server.environment()).args([
        "segment",
        "--quiet",
        "--format",
        "json-lines",
        "--solution",
        many_users(),
    ]);
    command.args(["--items", &list.display().to_string(), "--num-results", "40000", "--output", "s3://lake/out"]);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while server.with(|kept| kept.open_uploads()) == 0 {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended before an upload: {status}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    assert!(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let (took, said) = (begun.elapsed(), String::from_utf8_lossy(&ended.stderr).into_owned());
    assert_eq!(ended.status.code(), Some(143), "{said}");
    assert!(took < Duration::from_secs(10), "{took:?}: {said}");
    assert_eq!(server.with(|kept| kept.open_uploads()), 0, "{said}");
    let left = server.with(|kept| kept.objects.keys().cloned().collect::<Vec<_>>());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn p12_an_object_that_is_swapped_between_two_reads_is_an_error_and_no_blend() {
    let data = interactions();
    let other = data.clone();
    let mut reads = 0;
    let server = server(&data, move |asked, kept| {
        if asked.method == "GET" && asked.key.ends_with(".parquet") {
            reads += 1;
            if reads == 2 {
                kept.put(&asked.key, other.clone());
            }
        }
        Fault::None
    });
    let arguments =
        ["train", "--quiet", "--interactions", "s3://lake/interactions/", "--solution", "s3://lake/solution"];
    let ended = with_server(&server, &[], &arguments);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(
        ended.stderr.contains("ERR_INPUT_CHANGED: ") && ended.stderr.contains("file=s3://lake/interactions/part-0")
    );
    let left =
        server.with(|kept| kept.objects.keys().filter(|key| key.starts_with("solution/")).cloned().collect::<Vec<_>>());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn p29_a_prefix_of_2500_keys_with_foreign_files_is_read_once_each() {
    let data = interactions();
    let server = server(&data, |_, _| Fault::None);
    server.with(|kept| {
        for part in 1..2_500 {
            kept.put(&format!("interactions/day={:04}/part-{part}.parquet", part % 7), b"x".to_vec());
        }
        for foreign in ["_SUCCESS", "part-0.parquet.crc", "_temporary/0/part-9.parquet", ".hidden.parquet"] {
            kept.put(&format!("interactions/{foreign}"), b"x".to_vec());
        }
    });
    let stores = server.stores(&QUICK);
    let location = Location::parse("s3://lake/interactions/").unwrap();
    let listing = runtime().block_on(item_affinity_storage::list_parquet(&stores, &location)).unwrap();
    let mut paths: Vec<_> = listing.files.iter().map(|file| file.location.to_string()).collect();
    assert_eq!((paths.len(), listing.ignored), (2_500, 4));
    paths.dedup();
    assert_eq!(paths.len(), 2_500);
    assert_eq!(server.requests(), 3, "three pages");
}

/// P9: of those who want one number exactly one gets it, and nobody is lost, also when answers are.
#[test]
fn p9_eight_tasks_that_commit_at_once_make_eight_versions() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let first = first_seed();
    for seed in first..first + 5 {
        let server = MiniS3::start(at_random(seed));
        let stores = server.stores(&QUICK);
        let versions = Versions::new(&stores, Location::parse("s3://lake/out").unwrap(), Artifact::Segments).unwrap();
        let commits = runtime.block_on(async {
            let jobs = (0..8).map(|job| {
                let versions = versions.clone();
                tokio::spawn(async move {
                    let run = versions.begin().await.unwrap();
                    run.put("part", Bytes::from(job.to_string()), None).await.unwrap();
                    run.commit(CommitBody { job_key: job.to_string(), ..CommitBody::default() }).await.unwrap()
                })
            });
            let mut commits = Vec::new();
            for job in jobs.collect::<Vec<_>>() {
                commits.push(job.await.unwrap());
            }
            server.heal();
            assert!(versions.verify(None, true).await.unwrap().faults.is_empty(), "seed {seed}");
            commits
        });
        let mut numbers: Vec<u64> = commits.iter().map(|commit| commit.version).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=8).collect::<Vec<_>>(), "seed {seed}");
    }
    println!("races: 5 seeds from {first} on × 8 tasks: 40 winners of 40 versions, 0 lost runs");
}

/// Files of several parts, whose upload may fail in more ways than one request can.
#[test]
fn p28_multipart_uploads_over_transient_faults_give_the_same_bytes_and_leave_none_open() {
    let (first, bytes) = (first_seed(), Bytes::from((0..24_u32 << 20).map(|n| (n / 7) as u8).collect::<Vec<_>>()));
    let mut faults = 0;
    for seed in first..first + 6 {
        let (mut common, mut random, mut tried) = (at_random(seed), StdRng::seed_from_u64(seed), 0);
        let server = MiniS3::start(move |asked, kept| {
            let completes = asked.method == "POST" && asked.query.contains_key("uploadId");
            tried += usize::from(completes);
            // An upload whose beginning is not answered has a name that nobody knows: a lifecycle rule ends it, no client.
            match () {
                () if asked.method == "POST" && asked.query.contains_key("uploads") => Fault::None,
                // Three in five fail: once in 300 uploads, all eleven times for which a request is sent would.
                () if completes && tried > 8 => Fault::None,
                () if completes && random.random_bool(0.5) => Fault::ErrorIn200,
                () => common(asked, kept),
            }
        });
        let stores = server.stores(&QUICK);
        let versions = Versions::new(&stores, Location::parse("s3://lake/out").unwrap(), Artifact::Segments).unwrap();
        runtime().block_on(async {
            let run = versions.begin().await.unwrap();
            let mut writer = run.writer("large").await.unwrap();
            for chunk in 0..6 {
                writer.write_bytes(bytes.slice(chunk << 22..(chunk + 1) << 22)).await.unwrap();
            }
            writer.finish(None).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            run.commit(CommitBody::default()).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            server.heal();
            assert!(versions.verify(None, true).await.unwrap().faults.is_empty(), "seed {seed}");
        });
        faults += server.fired().values().sum::<u64>();
        assert_eq!(server.with(|kept| kept.open_uploads()), 0, "seed {seed}: {:?}", server.fired());
    }
    println!("multipart uploads: 6 of 6 seeds from {first} on whole, {faults} faults, 0 uploads left open");
}

#[test]
fn p7_uploads_are_aborted_when_a_job_fails_or_is_dropped() {
    let server = MiniS3::start(|_, _| Fault::None);
    let stores = server.stores(&QUICK);
    let versions = Versions::new(&stores, Location::parse("s3://lake/out").unwrap(), Artifact::Segments).unwrap();
    let chunk = Bytes::from(vec![7_u8; 8 << 20]);
    runtime().block_on(async {
        // Whole: one object, no open upload.
        let run = versions.begin().await.unwrap();
        let mut writer = run.writer("whole").await.unwrap();
        for _ in 0..4 {
            writer.write_bytes(chunk.clone()).await.unwrap();
        }
        assert_eq!(server.with(|kept| kept.open_uploads()), 1);
        writer.finish(None).await.unwrap();
        run.commit(CommitBody::default()).await.unwrap();
        assert_eq!(server.with(|kept| kept.open_uploads()), 0);
        assert!(versions.verify(None, false).await.unwrap().faults.is_empty());

        // Dropped in the middle.
        let run = versions.begin().await.unwrap();
        let mut writer = run.writer("half").await.unwrap();
        for _ in 0..3 {
            writer.write_bytes(chunk.clone()).await.unwrap();
        }
        drop(writer);
        run.abandon().await;
        assert_eq!(server.with(|kept| kept.open_uploads()), 0);

        // A part is refused.
        server.plan(|asked, _| match asked.query.contains_key("partNumber") {
            true => Fault::Status(403, "AccessDenied"),
            false => Fault::None,
        });
        let run = versions.begin().await.unwrap();
        let mut writer = run.writer("refused").await.unwrap();
        let mut failed = false;
        for _ in 0..8 {
            failed |= writer.write_bytes(chunk.clone()).await.is_err();
        }
        let finished = writer.finish(None).await;
        assert!(failed || finished.is_err());
        run.abandon().await;
        assert_eq!(server.with(|kept| kept.open_uploads()), 0);
    });
}
