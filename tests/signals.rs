//! P13, P15: jobs that meet, and jobs that are told to stop.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{cli, files_below, item_affinity, run, small_interactions, succeed};

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A training that takes far longer than the test.
fn long_training(folder: &Path) -> Command {
    let interactions = folder.join("interactions.parquet");
    if !interactions.exists() {
        small_interactions(&interactions);
    }
    let mut command = item_affinity();
    command.args(["train", "--hidden-dimension", "256", "--iterations", "100", "--interactions"]);
    command.arg(interactions).arg("--solution").arg(folder.join("solution"));
    command.args(["--regularization", "0.005", "--horizon", "10d", "--seed", "7"]);
    command
}

/// Starts a command and waits for a stage, as its log says at the end of the one before.
fn started(command: &mut Command, says: &str) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(says) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the job ended before it said {says}");
    }
    // Nobody may stop it by not reading its log.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    child
}

/// No data, no lease, no commit.
fn assert_nothing_left(folder: &Path) {
    let left = files_below(&folder.join("solution"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn p15_terminate_and_interrupt_end_a_training_soon_and_leave_nothing() {
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = started(&mut long_training(folder.path()), "reading interactions: ");
        let begun = Instant::now();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_nothing_left(folder.path());
    }
}

/// At random moments: it ends in time, with its code or with what it had already done, and a version is there or not.
#[test]
fn p15_terminate_at_any_moment_of_a_job_leaves_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    small_interactions(&interactions);
    let solution = folder.path().join("solution");
    let (interactions, place) = (interactions.display().to_string(), solution.display().to_string());
    let train = |seed: u32| {
        let mut command = item_affinity();
        command.args(["train", "--quiet", "--hidden-dimension", "32", "--iterations", "2", "--interactions"]);
        command.args([&interactions, "--solution", &place, "--seed", &seed.to_string()]);
        command
    };
    let begun = Instant::now();
    assert_eq!(run(&mut train(0)).code, 0);
    let takes = begun.elapsed();
    let (mut stopped, mut done, mut versions) = (0, 0, 1);
    for round in 1..=30 {
        let mut child = train(round).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A signal in the first moments, before anybody listens, ends the process as the system does.
        std::thread::sleep(Duration::from_millis(20) + takes.mul_f64(f64::from(round) / 30.0));
        signal(&child, "-TERM");
        let begun = Instant::now();
        let status = child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        match status.code() {
            Some(143) | None => stopped += 1,
            Some(0) => (done, versions) = (done + 1, versions + 1),
            code => panic!("round {round}: {code:?}"),
        }
        let folders = std::fs::read_dir(solution.join("versions")).unwrap().count();
        let commits = std::fs::read_dir(solution.join("_item_affinity/commits")).unwrap().count();
        assert_eq!((folders, commits), (versions, versions), "round {round}: {status:?}");
    }
    succeed(["verify", "--all", "--solution", &place]);
    println!("SIGTERM at {} moments: {stopped} stopped, {done} had already committed, 0 in between", stopped + done);
    assert!(stopped > 0);
}

#[test]
fn p13_a_second_job_waits_or_ends_with_6_and_a_killed_one_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = started(&mut long_training(folder.path()), "reading interactions: ");
    let begun = Instant::now();
    let refused = run(long_training(folder.path()).args(["--lock-timeout", "1s"]));
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(refused.stderr.contains("is at work here") && refused.stderr.contains("--lock-timeout"), "{refused:?}");

    // One that waits begins as soon as the holder is dead, long before its lease would expire.
    let mut quick = item_affinity();
    quick.args(["train", "--hidden-dimension", "32", "--iterations", "1", "--solution"]);
    quick.arg(folder.path().join("solution")).arg("--interactions").arg(folder.path().join("interactions.parquet"));
    let waiting = started(&mut quick, "waiting for run ");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let begun = Instant::now();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("committed version 1"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn p9_p11_the_same_job_eight_times_at_once_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    small_interactions(&interactions);
    let place = folder.path().join("solution");
    let jobs = (0..8).map(|_| {
        let mut command = item_affinity();
        command.args(["train", "--quiet", "--hidden-dimension", "32", "--iterations", "1", "--interactions"]);
        command.arg(&interactions).arg("--solution").arg(&place);
        command.stdout(Stdio::piped()).spawn().unwrap()
    });
    let texts = jobs.collect::<Vec<_>>().into_iter().map(|job| {
        let output = job.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    });
    let texts = texts.collect::<Vec<_>>();
    assert_eq!(texts.iter().filter(|text| text.starts_with("committed version 1")).count(), 1, "{texts:?}");
    assert_eq!(texts.iter().filter(|text| text.starts_with("already done as version 1")).count(), 7, "{texts:?}");
    assert_eq!(std::fs::read_dir(place.join("versions")).unwrap().count(), 1);
    assert_eq!(cli(["verify", "--solution", &place.display().to_string()]).code, 0);
}

/// P9: different jobs at one place: each is done, one after the other, none is lost and none is done twice.
#[test]
fn p9_eight_different_jobs_at_once_make_eight_versions() {
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    small_interactions(&interactions);
    let place = folder.path().join("solution");
    let jobs = (0..8).map(|seed| {
        let mut command = item_affinity();
        command.args(["train", "--quiet", "--hidden-dimension", "32", "--iterations", "1", "--interactions"]);
        command.arg(&interactions).arg("--solution").arg(&place).args(["--seed", &seed.to_string()]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    });
    let numbers = jobs.collect::<Vec<_>>().into_iter().map(|job| {
        let output = job.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        text.strip_prefix("committed version ").unwrap().split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    let mut numbers = numbers.collect::<Vec<_>>();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let all = succeed(["verify", "--all", "--solution", &place.display().to_string()]);
    assert!(all.stdout.contains("commits: 8, each made after the one before it"), "{all:?}");
}
