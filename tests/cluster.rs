//! A cluster of real processes on loopback over a real S3 server: its rows are those of one process, also when an
//! executor is killed, and what goes wrong ends with one line and the right exit code.

mod codec;
mod gate;
mod manifests;
mod processes;
mod refresh;

use std::time::{Duration, Instant};

use item_affinity_ballista::SchedulerAddress;
use tempfile::TempDir;

use crate::common::{Ended, S3Server, interactions_of_many, item_affinity, run};
use gate::Gate;
use processes::{Executor, Scheduler};

/// A solution of a dozen user parts in the bucket, trained by the real binary.
fn trained(server: &S3Server, folder: &TempDir, name: &str) -> String {
    let interactions = folder.path().join("interactions.parquet");
    interactions_of_many(&interactions);
    let solution = format!("s3://{}/{name}/solution", S3Server::BUCKET);
    let interactions = interactions.display().to_string();
    let train =
        ["train", "--quiet", "--hidden-dimension", "32", "--interactions", &interactions, "--solution", &solution];
    let ended = client(server, None, &train);
    assert_eq!(ended.code, 0, "{ended:?}");
    solution
}

/// A command of the client, which plans the same partitions with and without a cluster.
fn client(server: &S3Server, scheduler: Option<&Scheduler>, arguments: &[&str]) -> Ended {
    let mut command = item_affinity();
    command.envs(server.environment()).args(arguments).args(["--threads", "12"]);
    if let Some(scheduler) = scheduler {
        command.args(["--cluster", &scheduler.address(), "--cluster-timeout", "60s"]);
    }
    run(&mut command)
}

/// The segments of an output, as CSV.
fn segments(server: &S3Server, output: &str) -> String {
    let query = format!("SELECT * FROM item_affinity_output('{output}')");
    let ended = client(server, None, &["sql", "--root", "s3://lake/", "--format", "csv", "-c", &query]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.lines().count() > 1, "{ended:?}");
    ended.stdout
}

const ITEMS: [&str; 8] = ["--item", "item-03", "--item", "item-04", "--item", "item-11", "--item", "item-28"];

#[test]
fn cluster_gives_the_rows_of_one_process_also_when_an_executor_is_killed_and_commits_once() {
    let Some(server) = S3Server::start("cluster") else { return };
    let folder = TempDir::new().unwrap();
    let solution = trained(&server, &folder, "cluster");
    let gate = Gate::before(&server);
    let scheduler = Scheduler::start();
    let mut first = Executor::start(&scheduler, &gate.environment(&server), &folder.path().join("first"));
    let second = Executor::start(&scheduler, &server.environment(), &folder.path().join("second"));

    let users = folder.path().join("users.parquet");
    let every_third = format!(
        "COPY (SELECT 'user-' || (CASE WHEN n < 10 THEN '0' ELSE '' END) || n AS user_id FROM (SELECT unnest(range(0, 6000, \
         3)) AS n)) TO '{}'",
        users.display()
    );
    let copied = client(&server, None, &["sql", "--allow-copy", "-c", &every_third]);
    assert_eq!(copied.code, 0, "{copied:?}");
    let users = users.display().to_string();
    let variants: [(&str, &[&str]); 4] = [
        ("plain", &["--num-results", "200"]),
        ("unseen", &["--num-results", "200", "--seen", "exclude", "--min-score", "0.001"]),
        ("among", &["--num-results", "100", "--users", &users]),
        ("reasons", &["--num-results", "10", "--reasons", "2"]),
    ];
    let out = |place: &str, name: &str| format!("s3://{}/cluster/{place}/{name}", S3Server::BUCKET);
    for (name, settings) in variants {
        for (place, scheduler) in [("here", None), ("there", Some(&scheduler))] {
            let output = out(place, name);
            let mut segment = vec!["segment", "--solution", &solution, "--output", &output];
            segment.extend(ITEMS);
            segment.extend(settings);
            let ended = client(&server, scheduler, &segment);
            assert_eq!(ended.code, 0, "{name} {place}: {ended:?}");
            assert!(ended.stdout.contains("committed version 1 "), "{name} {place}: {ended:?}");
        }
        assert_eq!(segments(&server, &out("here", name)), segments(&server, &out("there", name)), "{name}");
    }

    // In SQL, with a join above the segments.
    let query = format!(
        "SELECT s.item_id, s.rank, s.user_id, s.score FROM item_affinity_segments(['item-03', 'item-04'], 50, users => \
         (SELECT user_id FROM '{users}')) s JOIN '{users}' u ON u.user_id = s.user_id ORDER BY s.item_id, s.rank"
    )
    .replace(&format!("'{users}'"), "u");
    let table = format!("CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{users}'");
    let sql = ["sql", "--solution-version", &solution, "--format", "csv", "-c", &table, "-c", &query];
    let (here, there) = (client(&server, None, &sql), client(&server, Some(&scheduler), &sql));
    assert_eq!((here.code, there.code), (0, 0), "{there:?}");
    assert_eq!(here.stdout, there.stdout);
    assert!(here.stdout.lines().count() > 50, "{here:?}");

    // A function of the plugin in a task; one that reads a solution is refused.
    let items = gate::objects(&server, &solution).into_iter().find(|address| address.contains("/items/part-")).unwrap();
    let table = format!("CREATE EXTERNAL TABLE states STORED AS PARQUET LOCATION '{items}'");
    let asked = |query: &str| {
        ["sql", "--solution-version", &solution, "--format", "csv", "-c", &table, "-c", query].map(str::to_owned)
    };
    let sql = asked("SELECT item_id, item_affinity_vector(factor)[1] AS f FROM states ORDER BY item_id");
    let sql = sql.each_ref().map(String::as_str);
    let (here, there) = (client(&server, None, &sql), client(&server, Some(&scheduler), &sql));
    assert_eq!((here.code, there.code), (0, 0), "{there:?}");
    assert_eq!(here.stdout, there.stdout);
    let sql = asked("SELECT item_affinity_score('user-03', item_id) FROM states");
    let refused = client(&server, Some(&scheduler), &sql.each_ref().map(String::as_str));
    assert!(refused.code == 3 && refused.stderr.contains("ERR_CLUSTER_PLAN"), "{refused:?}");
    let nothing = client(&server, Some(&scheduler), &["sql", "--format", "csv", "-c", "SELECT 1 + 1 AS n"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, "n\n2\n"), "{nothing:?}");

    // The first executor is killed while it reads its second part: what it ranked before is lost with it.
    let output = out("there", "killed");
    let began = gate.hold(1, gate::READ_USERS, gate::READ_USERS);
    let killed = std::thread::scope(|scope| {
        let segment = scope.spawn(|| {
            let mut segment = vec!["segment", "--solution", &solution, "--output", &output, "--num-results", "200"];
            segment.extend(ITEMS);
            client(&server, Some(&scheduler), &segment)
        });
        began.recv_timeout(Duration::from_secs(60)).expect("the first executor reads two parts");
        first.kill();
        segment.join().unwrap()
    });
    assert_eq!(killed.code, 0, "{killed:?}");
    assert_eq!(segments(&server, &out("here", "plain")), segments(&server, &output));
    assert_eq!(gate::commits(&server, &output), 1);

    // SIGTERM is no failure of an executor.
    assert_eq!(second.terminate(), Some(0));
}

#[test]
fn cluster_that_fails_ends_a_command_with_one_line_and_the_right_code() {
    let Some(server) = S3Server::start("cluster failures") else { return };
    let folder = TempDir::new().unwrap();
    let solution = trained(&server, &folder, "failures");
    let output = format!("s3://{}/failures/out", S3Server::BUCKET);
    let mut segment = vec!["segment", "--solution", &solution, "--output", &output];
    segment.extend(ITEMS);
    let refused = |address: &str, timeout: &str| {
        let mut command = item_affinity();
        command.envs(server.environment()).args(&segment);
        command.args(["--quiet", "--cluster", address, "--cluster-timeout", timeout]);
        let began = Instant::now();
        let ended = run(&mut command);
        assert!(began.elapsed() < Duration::from_secs(90), "{ended:?}");
        assert!(ended.code == 2 || ended.stderr.lines().count() == 1, "{ended:?}");
        (ended.code, ended.stderr)
    };
    let (code, text) = refused("127.0.0.1:50050", "5s");
    assert_eq!(code, 2, "{text}");

    let (code, text) = refused(&format!("df://127.0.0.1:{}", processes::free_port()), "5s");
    assert!(code == 5 && text.contains("ERR_CLUSTER_UNREACHABLE"), "{code} {text}");

    let scheduler = Scheduler::start();
    let (code, text) = refused(&scheduler.address(), "3s");
    assert!(code == 5 && text.contains("ERR_CLUSTER_TIMEOUT"), "{code} {text}");

    // An executor whose store is another one.
    let nowhere = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", processes::free_port())),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test-key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test-secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let mut blind = Executor::start(&scheduler, &nowhere, &folder.path().join("blind"));
    let (code, text) = refused(&scheduler.address(), "80s");
    assert!(code == 5 && text.contains("s3://lake/failures/solution"), "{code} {text}");
    blind.kill();
    drop(scheduler);

    // An executor with less memory than one part of the user states takes.
    let scheduler = Scheduler::start();
    let mut small = Executor::with(1, "20KB", &scheduler, &server.environment(), &folder.path().join("small"));
    let (code, text) = refused(&scheduler.address(), "80s");
    assert!(code == 8 && text.contains("--memory-limit"), "{code} {text}");
    small.kill();
    drop(scheduler);

    // A part of the user states that is gone.
    let scheduler = Scheduler::start();
    let _seeing = Executor::start(&scheduler, &server.environment(), &folder.path().join("seeing"));
    let gone = gate::delete_one_user_part(&server, &solution);
    let (code, text) = refused(&scheduler.address(), "80s");
    assert!(code == 3 && text.contains(&gone), "{code} {text}");
    assert_eq!(gate::commits(&server, &output), 0);
}

#[test]
fn cluster_addresses_have_a_host_and_a_port_and_nothing_else() {
    let address: SchedulerAddress = "df://scheduler.lake:50050".parse().unwrap();
    assert_eq!((address.host(), address.port()), ("scheduler.lake", 50050));
    assert_eq!(address.to_string(), "df://scheduler.lake:50050");
    for text in
        ["", "df://", "df://host", "df://:50050", "df://host:0", "df://host:70000", "http://host:1", "df://a/b:1"]
    {
        assert!(text.parse::<SchedulerAddress>().is_err(), "{text}");
    }
}
