//! A refresh on real processes: the version of one process, also when an executor dies in the middle, and what becomes of
//! the jobs of clients that are told to stop.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use item_affinity_solution::SolutionRef;
use tempfile::TempDir;

use super::gate::{self, Gate};
use super::processes::{Executor, Scheduler};
use super::{client, segments, trained};
use crate::common::{Ended, S3Server, item_affinity};
use crate::refresh_in_parts::{same_versions, write_log};

/// A solution and a log of four files in the bucket; the log knows users and an item that the solution does not.
fn scene(server: &S3Server, folder: &TempDir, name: &str) -> (String, String) {
    let (early, log) = write_log(folder.path());
    let [solution, interactions] = ["solution", "log/"].map(|part| format!("s3://{}/{name}/{part}", S3Server::BUCKET));
    gate::upload(server, log.as_ref(), &interactions);
    let train = ["train", "--quiet", "--hidden-dimension", "32", "--interactions", &early, "--solution", &solution];
    let ended = client(server, None, &train);
    assert_eq!(ended.code, 0, "{ended:?}");
    (solution, interactions)
}

/// A refresh of version 1, and the number of the version that it makes.
fn refresh(
    server: &S3Server,
    scheduler: Option<&Scheduler>,
    solution: &str,
    interactions: &str,
) -> (Ended, SolutionRef) {
    let from = format!("{solution}@1");
    let ended = client(server, scheduler, &["refresh", "--force", "--solution", &from, "--interactions", interactions]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let version = made(&ended);
    (ended, version)
}

/// The version that a refresh says it made.
fn made(ended: &Ended) -> SolutionRef {
    SolutionRef::parse(ended.stdout.split_once("use it as ").expect("a version").1.trim()).unwrap()
}

#[test]
fn cluster_refreshes_to_the_version_of_one_process_also_when_an_executor_is_killed() {
    let Some(server) = S3Server::start("cluster refresh") else { return };
    let folder = TempDir::new().unwrap();
    let (solution, interactions) = scene(&server, &folder, "refresh");
    let scheduler = Scheduler::start();
    let one = Gate::before(&server);
    let other = one.beside(&server);
    let mut executors = [
        Executor::start(&scheduler, &one.environment(&server), &folder.path().join("first")),
        Executor::start(&scheduler, &other.environment(&server), &folder.path().join("second")),
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let same = |a: &SolutionRef, b: &SolutionRef| runtime.block_on(same_versions(&server.stores(), a, b));

    let (said, here) = refresh(&server, None, &solution, &interactions);
    let (told, there) = refresh(&server, Some(&scheduler), &solution, &interactions);
    same(&here, &there);
    let without_number =
        |text: &str| text.replace("version 2", "").replace("version 3", "").replace("@2", "").replace("@3", "");
    assert_eq!(without_number(&said.stdout), without_number(&told.stdout));
    assert_eq!(gate::commits(&server, &solution), 3);

    // Killed when it has written one part of the users and is at another.
    let before = gate::objects(&server, &solution);
    let began = one.hold(1, gate::WRITE_USERS, gate::WRITE_USERS);
    let (ended, killed) = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let from = format!("{solution}@1");
            let asked = ["refresh", "--force", "--solution", &from, "--interactions", &interactions];
            client(&server, Some(&scheduler), &asked)
        });
        let killed = began.recv_timeout(Duration::from_secs(120)).expect("an executor writes user parts");
        executors[killed].kill();
        (running.join().unwrap(), killed)
    });
    println!("executor {killed} was killed");
    assert_eq!(ended.code, 0, "{ended:?}");
    let again = made(&ended);
    same(&here, &again);
    assert_eq!(gate::commits(&server, &solution), 4);
    // A part of the task that died and was run again may lie there twice; the commit names each once.
    let new = gate::objects(&server, &solution).into_iter().filter(|name| !before.contains(name));
    let parts = new.filter(|name| name.contains("/users/part-")).count();
    println!("{parts} files of users lie there for 3 parts");
    assert!(parts >= 3);

    // What is served in the end is the same too, by the executor that is left.
    let output = |name: &str| format!("s3://{}/refresh/{name}", S3Server::BUCKET);
    for (version, place, scheduler) in [(&here, "here", None), (&again, "there", Some(&scheduler))] {
        let (version, to) = (version.to_string(), output(place));
        let asked = ["segment", "--solution", &version, "--output", &to, "--item", "COFFEE-02", "--item", "MUSIC-05"];
        let ended = client(&server, scheduler, &asked);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let users = |place: &str| {
        let rows = segments(&server, &output(place));
        rows.lines().skip(1).map(|row| row.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(users("here"), users("there"));
}

#[test]
fn cluster_job_survives_the_death_of_the_executor_that_runs_its_second_stage() {
    let Some(server) = S3Server::start("cluster second stage") else { return };
    let folder = TempDir::new().unwrap();
    let solution = trained(&server, &folder, "second");
    let scheduler = Scheduler::start();
    let one = Gate::before(&server);
    let other = one.beside(&server);
    let mut executors = [
        Executor::start(&scheduler, &one.environment(&server), &folder.path().join("first")),
        // Of another size: what a task holds, and its number, differ when its stage is made again.
        Executor::with(2, "512MB", &scheduler, &other.environment(&server), &folder.path().join("second")),
    ];
    let segment = |scheduler: Option<&Scheduler>, place: &str| {
        let output = format!("s3://{}/second/{place}", S3Server::BUCKET);
        let mut asked = vec!["segment", "--solution", &solution, "--output", &output, "--num-results", "20"];
        asked.extend(["--reasons", "2"]);
        asked.extend(super::ITEMS);
        let ended = client(&server, scheduler, &asked);
        assert_eq!(ended.code, 0, "{ended:?}");
        output
    };
    let here = segment(None, "here");
    let parts = gate::objects(&server, &solution).iter().filter(|name| name.contains("/users/part-")).count();
    // Every task of the first stage reads the pairs of the items before the users; only reasons read them after that.
    let began = one.hold(parts, gate::READ_USERS, gate::READ_PAIRS);
    let there = std::thread::scope(|scope| {
        let running = scope.spawn(|| segment(Some(&scheduler), "there"));
        let killed = began.recv_timeout(Duration::from_secs(120)).expect("the second stage reads pairs");
        executors[killed].kill();
        running.join().unwrap()
    });
    assert_eq!(segments(&server, &here), segments(&server, &there));
    assert_eq!(gate::commits(&server, &there), 1);
}

#[test]
fn cluster_job_of_a_client_that_is_told_to_stop_is_cancelled_and_leaves_its_executor_free() {
    let Some(server) = S3Server::start("cluster cancel") else { return };
    let folder = TempDir::new().unwrap();
    let solution = trained(&server, &folder, "cancel");
    let scheduler = Scheduler::start();
    let gate = Gate::before(&server);
    let _only = Executor::start(&scheduler, &gate.environment(&server), &folder.path().join("only"));
    let output = |name: &str| format!("s3://{}/cancel/{name}", S3Server::BUCKET);
    let began = gate.hold(2, gate::READ_USERS, gate::READ_USERS);
    let mut stopped = item_affinity();
    stopped.envs(server.environment()).args([
        "segment",
        "--quiet",
        "--solution",
        &solution,
        "--output",
        &output("stopped"),
    ]);
    stopped.args(super::ITEMS).args(["--threads", "12", "--cluster", &scheduler.address()]);
    let mut stopped = stopped.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    began.recv_timeout(Duration::from_secs(120)).expect("the executor reads users");
    let told = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &stopped.id().to_string()]).status().unwrap().success());
    assert_eq!(stopped.wait().unwrap().code(), Some(143));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    assert_eq!(gate::commits(&server, &output("stopped")), 0);

    // The one task that the executor can run is not that of the job that nobody waits for.
    let begun = Instant::now();
    let next = output("next");
    let mut asked = vec!["segment", "--solution", &solution, "--output", &next];
    asked.extend(super::ITEMS);
    let ended = client(&server, Some(&scheduler), &asked);
    assert_eq!(ended.code, 0, "{ended:?}");
    println!("the next job took {:?}", begun.elapsed());
    assert_eq!(gate::commits(&server, &next), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_scheduler_refuses_a_plan_of_another_program_by_its_format() {
    let scheduler = Scheduler::start();
    let address = scheduler.address().parse().unwrap();
    let settings = item_affinity_ballista::ClusterSettings { scheduler: address, timeout: Duration::from_secs(30) };
    let ctx = super::codec::context(crate::common::solution(), 2).await;
    let bytes = super::codec::plan_bytes(&ctx, "SELECT * FROM item_affinity_segments(['COFFEE-01'], 10)").await;
    // Field 1 of the message of SegmentsFinalExec is its format.
    let newer = super::codec::replaced(&bytes, &[0x08, 1, 0x22], &[0x08, 2, 0x22]);
    assert_ne!(bytes, newer);
    let began = Instant::now();
    let submitted = item_affinity_ballista::submit_plan(&settings, newer, &ctx.task_ctx()).await;
    let error = submitted.err().expect("a plan of another format is refused");
    let text = item_affinity_datafusion::error_message(&error);
    assert!(text.starts_with("ERR_CLUSTER_FORMAT") && text.contains("format 2"), "{text}");
    assert_eq!(item_affinity_datafusion::error_kind(&error).exit_code(), 3);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
