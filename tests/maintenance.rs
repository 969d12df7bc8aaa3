//! What a person does with versions afterwards: verify, gc, show.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::common::{S3Server, cli, files_below, item_affinity, run, solution, succeed};

const DAY: Duration = Duration::from_secs(86_400);

fn segments(output: &Path, item: &str) {
    succeed([
        "segment",
        "--quiet",
        "--solution",
        solution(),
        "--item",
        item,
        "--output",
        &output.display().to_string(),
    ]);
}

fn verify(output: &Path, more: &[&str]) -> crate::common::Ended {
    let place = output.display().to_string();
    cli(["verify", "--output", &place].iter().copied().chain(more.iter().copied()))
}

fn part(output: &Path, number: usize) -> PathBuf {
    let files = files_below(output).into_iter().filter(|f| f.ends_with("part-00000.parquet"));
    let mut files = files.map(|f| output.join(f)).collect::<Vec<_>>();
    files.sort_by_key(|f| f.metadata().unwrap().modified().unwrap());
    files.remove(number)
}

#[test]
fn verify_of_whole_versions_counts_files_bytes_and_commits() {
    let ended = succeed(["verify", "--solution", solution()]);
    let version = format!("version 1 of {}: ", solution());
    assert!(ended.stdout.starts_with(&version) && ended.stdout.contains(" 7 files, "), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("commits: 1, each made after the one before it\n"), "{}", ended.stdout);
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    segments(&output, "COFFEE-01");
    segments(&output, "MUSIC-05");
    assert!(verify(&output, &[]).stdout.contains("version 2 of "));
    assert!(verify(&output, &["--all"]).stdout.contains("versions 1 to 2 of "));
    let nothing = verify(&folder.path().join("nothing"), &[]);
    assert_eq!(nothing.code, 3, "{nothing:?}");
    assert!(nothing.stderr.contains("ERR_NO_VERSION"), "{}", nothing.stderr);
    for usage in [vec!["verify"], vec!["verify", "--output", "a", "--solution", "b"]] {
        assert_eq!(cli(&usage).code, 2, "{usage:?}");
    }
}

#[test]
fn verify_names_every_damaged_file_and_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    segments(&output, "COFFEE-01");
    segments(&output, "MUSIC-05");
    let mut bytes = std::fs::read(part(&output, 0)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(part(&output, 0), bytes).unwrap();
    assert_eq!(verify(&output, &[]).code, 0, "version 2 is whole");
    let one = verify(&PathBuf::from(format!("{}@1", output.display())), &[]);
    assert_eq!(one.code, 3, "{one:?}");
    assert!(one.stdout.starts_with("damaged: ERR_COMMIT_INCOMPLETE: sha256 differs from commit 1; file="), "{one:?}");
    assert_eq!(one.stderr.lines().count(), 1, "{one:?}");
    // It is the older one now.
    std::fs::remove_file(part(&output, 0)).unwrap();
    let both = verify(&output, &["--all"]);
    assert_eq!((both.code, both.stdout.lines().count()), (3, 2), "{both:?}");
    assert!(both.stderr.ends_with("; and 1 more, all on stdout\n"), "{both:?}");
}

#[test]
fn a_damaged_output_is_made_again_by_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    segments(&output, "COFFEE-01");
    std::fs::remove_file(part(&output, 0)).unwrap();
    segments(&output, "COFFEE-01");
    assert!(verify(&output, &[]).stdout.contains("version 2 of "));
}

#[test]
fn gc_lists_first_and_removes_only_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let place = output.display().to_string();
    for item in ["COFFEE-01", "MUSIC-05", "CAMPING-03"] {
        segments(&output, item);
    }
    let lost = "0123456789abcdef0123456789abcdef";
    let left = output.join(format!("data/run={lost}/part-00000.parquet#1"));
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "half").unwrap();
    let gc = |more: &[&str]| cli(["gc", "--output", &place].iter().copied().chain(more.iter().copied()));

    let young = gc(&["--delete"]);
    assert_eq!(young.code, 0, "{young:?}");
    let expected =
        format!("0 files removed, 0 bytes; versions 1 to 3 of {place} kept; 1 run without a commit is too young\n");
    assert_eq!(young.stdout, expected);

    File::options().write(true).open(&left).unwrap().set_modified(SystemTime::now() - 8 * DAY).unwrap();
    let before = files_below(&output);
    let dry = gc(&["--keep-versions", "1"]);
    assert_eq!((dry.code, files_below(&output)), (0, before), "{dry:?}");
    for text in [
        &format!("run {lost} never committed and wrote nothing for 8 days: 1 file, 4 bytes"),
        "version 1 is not kept",
        "version 2 is not kept",
        "; --delete removes them; version 3 of ",
    ] {
        assert!(dry.stdout.contains(text), "{text}: {}", dry.stdout);
    }
    let done = gc(&["--keep-versions", "1", "--delete"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!left.exists());
    assert_eq!(files_below(&output).iter().filter(|f| f.starts_with("data")).count(), 2);
    assert!(verify(&output, &["--all"]).stdout.contains("version 3 of "));
    assert!(gc(&["--delete"]).stdout.starts_with("0 files removed, "));

    for usage in [&["--older-than", "23h"][..], &["--keep-versions", "0"], &["--older-than", "soon"]] {
        assert_eq!(gc(usage).code, 2, "{usage:?}");
    }
    assert_eq!(cli(["gc", "--output", &format!("{place}@3")]).code, 2);
    let nothing = cli(["gc", "--solution", &folder.path().join("none").display().to_string()]);
    assert!(nothing.stdout.starts_with("0 files to remove, 0 bytes; no version of "), "{nothing:?}");
}

#[test]
fn verify_and_gc_work_on_s3() {
    let Some(server) = S3Server::start("verify_and_gc_work_on_s3") else { return };
    let with_server = |arguments: &[&str]| run(item_affinity().envs(server.environment()).args(arguments));
    let output = "s3://lake/out";
    for item in ["COFFEE-01", "MUSIC-05"] {
        let done = with_server(&["segment", "--quiet", "--solution", solution(), "--item", item, "--output", output]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    let all = with_server(&["verify", "--output", output, "--all"]);
    assert!(all.stdout.contains("versions 1 to 2 of s3://lake/out: 2 files"), "{all:?}");
    let gone = with_server(&["gc", "--output", output, "--keep-days", "0", "--delete"]);
    assert!(gone.code == 0 && gone.stdout.contains("version 2 of s3://lake/out kept"), "{gone:?}");
    let newest = with_server(&["verify", "--output", output, "--all"]);
    assert!(newest.stdout.contains("version 2 of s3://lake/out: 1 file,"), "{newest:?}");
}

/// What an audit asks of a commit: by whom, with what, by which settings, and nobody of the data.
#[test]
fn a_commit_says_by_which_settings_it_was_made_and_names_no_user() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let (place, users) = (output.display().to_string(), crate::common::data("users.parquet"));
    let filter = "user_id <> 'U0001'";
    let job = ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", &place];
    let more = ["--seen", "exclude", "--min-score", "0.001", "--users", &users, "--users-filter", filter];
    succeed(job.into_iter().chain(more));
    let text = std::fs::read_to_string(output.join("_item_affinity/commits/00000000000000000001.json")).unwrap();
    let commit: serde_json::Value = serde_json::from_str(&text).unwrap();
    let details = &commit["details"];
    assert_eq!((&details["seen"], &details["num_results"]), (&"exclude".into(), &25.into()));
    assert!((details["min_score"].as_f64().unwrap() - 0.001).abs() < 1e-6, "{details}");
    assert_eq!(details["users_condition"], true);
    assert!(
        commit["security"]["os_user"].is_string() && commit["tool"].as_str().unwrap().starts_with("item-affinity ")
    );
    assert!(commit["inputs"][0]["uri"].as_str().unwrap().ends_with("users.parquet"), "{text}");
    assert_eq!(commit["solution_version"]["version"], 1);
    assert!(!text.contains("U0"), "{text}");
}

/// P36: whatever a job makes is private to its owner.
#[test]
fn p36_what_a_job_makes_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let list = folder.path().join("q.json");
    std::fs::write(&list, "{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"x\"}\n").unwrap();
    let (items, place) = (list.display().to_string(), output.display().to_string());
    let arguments = ["segment", "--solution", solution(), "--items", &items, "--output", &place, "--reasons", "2"];
    assert_eq!(cli(arguments).code, 4);
    let mut seen = 0;
    for file in files_below(&output) {
        let path = output.join(&file);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600, "{}", file.display());
        for above in path.ancestors().skip(1).take_while(|above| above.starts_with(&output)) {
            assert_eq!(mode(above), 0o700, "{}", above.display());
        }
        seen += 1;
    }
    assert!(seen >= 7, "{seen} files");
}

/// A run without fsync says so in its commit.
#[test]
fn no_durable_is_said_in_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let place = output.display().to_string();
    succeed(["segment", "--no-durable", "--solution", solution(), "--item", "COFFEE-01", "--output", &place]);
    let commit = output.join("_item_affinity/commits/00000000000000000001.json");
    let commit: serde_json::Value = serde_json::from_slice(&std::fs::read(commit).unwrap()).unwrap();
    assert_eq!(commit["durable"], false);
}

/// Telemetry stands beside the commit: what took how long, and what was used.
#[test]
fn metrics_of_a_run_are_beside_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    segments(&output, "COFFEE-01");
    let file = files_below(&output).into_iter().find(|file| file.ends_with("metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_slice(&std::fs::read(output.join(file)).unwrap()).unwrap();
    assert_eq!((&metrics["version"], &metrics["files"], &metrics["counts"]["ok"]), (&1.into(), &1.into(), &1.into()));
    assert!(metrics["wall_seconds"].as_f64().unwrap() >= metrics["seconds"]["rank and write"].as_f64().unwrap());
    assert!(metrics["peak_memory_bytes"].as_u64().unwrap() > 1 << 20, "{metrics}");
}

/// Replaces the users while they are ranked.
struct Replaces {
    users: PathBuf,
    by: PathBuf,
}

impl item_affinity_job::Observer for Replaces {
    fn stage(&self, stage: item_affinity_solution::Stage) {
        if stage.name == "rank users" {
            std::fs::rename(&self.by, &self.users).unwrap();
        }
    }
}

#[tokio::test]
async fn p12_users_that_change_while_they_are_ranked_end_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let (users, by) = (folder.path().join("users.parquet"), folder.path().join("other.parquet"));
    for path in [&users, &by] {
        std::fs::copy(crate::common::data("users.parquet"), path).unwrap();
    }
    let place = users.display().to_string();
    let output = folder.path().join("out");
    let items = item_affinity_job::ItemList::from_ids(["COFFEE-01"]);
    let job = item_affinity_job::BatchSegmentJob::new(solution(), items)
        .users(&place)
        .output(&output.display().to_string())
        .observer(std::sync::Arc::new(Replaces { users, by }));
    let error = job.run().await.unwrap_err();
    let expected = format!("ERR_INPUT_CHANGED: the object was replaced after it was listed; file={place}");
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(files_below(&output).is_empty(), "{:?}", files_below(&output));
}

/// P1: a job that was killed between its commit and the files of fixed names is completed by the same command.
#[test]
fn p1_files_of_fixed_names_are_made_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("q.json");
    std::fs::write(&list, "{\"itemId\": \"COFFEE-01\"}\n").unwrap();
    let output = folder.path().join("out");
    let (items, place) = (list.display().to_string(), output.display().to_string());
    let job = |results: &str| {
        let arguments = ["segment", "--quiet", "--format", "json-lines", "--solution", solution(), "--items", &items];
        succeed(arguments.iter().copied().chain(["--output", &place, "--num-results", results])).stdout
    };
    let (named, check) = (output.join("q.json.out"), output.join("_CHECK"));
    job("3");
    let older = std::fs::read(&named).unwrap();
    job("2");
    let whole = std::fs::read(&named).unwrap();
    let modified = || named.metadata().unwrap().modified().unwrap();
    let before = modified();
    assert!(job("2").contains("already done as version 2"));
    assert_eq!(modified(), before, "a rerun writes nothing");
    for left in [None, Some(older)] {
        std::fs::remove_file(&named).unwrap();
        std::fs::remove_file(&check).unwrap();
        if let Some(left) = left {
            std::fs::write(&named, left).unwrap();
        }
        assert!(job("2").contains("already done as version 2"));
        assert!(std::fs::read(&named).unwrap() == whole && check.exists());
    }
    std::fs::remove_file(&check).unwrap();
    job("2");
    assert!(check.exists());
}
