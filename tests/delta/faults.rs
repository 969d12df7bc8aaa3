//! Commits to the log of a Delta table whose answer is lost, late or wrong, and another writer who comes just before.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::{Asked, Ended, Fault, Kept, MiniS3, csv_rows, item_affinity, run, solution};

fn command(server: &MiniS3, arguments: &[&str]) -> Ended {
    let quick = [("ITEM_AFFINITY_RETRY_TIMEOUT", "20"), ("AWS_TIMEOUT", "5 seconds")];
    run(item_affinity().args(arguments).envs(server.environment()).envs(quick))
}

fn segment(server: &MiniS3, mode: &str, items: &[&str]) -> Ended {
    let arguments =
        ["segment", "--quiet", "--solution", solution(), "--output", "s3://lake/segments", "--num-results", "4"];
    let items = items.iter().flat_map(|item| ["--item", item]);
    command(
        server,
        &arguments.into_iter().chain(["--format", "delta", "--delta-mode", mode]).chain(items).collect::<Vec<_>>(),
    )
}

/// Rows by item, as the table holds them.
fn counts(server: &MiniS3) -> BTreeMap<String, String> {
    let sql = "CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION 's3://lake/segments'; \
               SELECT item_id, count(*) FROM t GROUP BY item_id";
    let ended = command(server, &["sql", "--root", "s3://lake/", "--format", "csv", "-c", sql]);
    assert_eq!(ended.code, 0, "{ended:?}");
    csv_rows(&ended.stdout).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// The names of the commits in the log.
fn log(server: &MiniS3) -> Vec<String> {
    let name = |key: &String| key.strip_prefix("segments/_delta_log/").map(str::to_owned);
    server.with(|kept| kept.objects.keys().filter_map(name).collect())
}

fn is_commit(asked: &Asked) -> bool {
    asked.method == "PUT" && asked.key.starts_with("segments/_delta_log/")
}

#[test]
fn an_answer_that_is_lost_late_or_wrong_leaves_one_delta_commit_of_a_run() {
    let faults = [
        Fault::Status(503, "SlowDown"),
        Fault::ApplyThenStatus(500, "InternalError"),
        Fault::ApplyThenStatus(412, "PreconditionFailed"),
        Fault::Status(409, "ConditionalRequestConflict"),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::LateApply,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let server = MiniS3::start(|_, _| Fault::None);
        for (version, item) in ["COFFEE-01", "MUSIC-05"].into_iter().enumerate() {
            let mut left = 1 + number % 2;
            server.plan(move |asked, _| {
                if !is_commit(asked) || left == 0 {
                    return Fault::None;
                }
                left -= 1;
                fault
            });
            let ended = segment(&server, "append", &[item]);
            assert_eq!(ended.code, 0, "{fault:?} {ended:?}");
            assert!(ended.stdout.contains(&format!("delta: version={version}")), "{fault:?} {ended:?}");
        }
        // A commit that landed under the first of two faults is not tried again.
        let fired = server.fired().values().sum::<u64>() as usize;
        assert!((2..=2 * (1 + number % 2)).contains(&fired), "{fault:?} {:?}", server.fired());
        server.heal();
        let expected = ["COFFEE-01", "MUSIC-05"].map(|item| (item.to_owned(), "4".to_owned()));
        assert_eq!(counts(&server), BTreeMap::from(expected), "{fault:?}");
        assert_eq!(log(&server), ["00000000000000000000.json", "00000000000000000001.json"], "{fault:?}");
    }
}

#[test]
fn rows_of_a_writer_who_comes_first_are_replaced_too_or_stay_as_the_mode_says() {
    for (mode, coffee) in [("append", "12"), ("replace-items", "4"), ("replace-version", "8")] {
        let server = MiniS3::start(|_, _| Fault::None);
        assert_eq!(segment(&server, "append", &["COFFEE-01", "MUSIC-05"]).code, 0);
        let mut came = false;
        server.plan(move |asked, kept| {
            if is_commit(asked) && !std::mem::replace(&mut came, true) {
                theirs(kept);
            }
            Fault::None
        });
        let ended = segment(&server, mode, &["COFFEE-01", "BAKING-03"]);
        assert!(ended.code == 0 && ended.stdout.contains("delta: version=2"), "{mode} {ended:?}");
        server.heal();
        let found = counts(&server);
        assert_eq!((found["COFFEE-01"].as_str(), found["BAKING-03"].as_str()), (coffee, "4"), "{mode} {found:?}");
        let music = if mode == "replace-version" { "4" } else { "8" };
        assert_eq!(found["MUSIC-05"], music, "{mode} {found:?}");
        assert_eq!(log(&server).len(), 3, "{mode}");
    }
}

/// Another writer commits the rows that are there once more, as of a solution version of its own.
fn theirs(kept: &mut Kept) {
    let first = &kept.objects["segments/_delta_log/00000000000000000000.json"].bytes;
    let first = serde_json::Deserializer::from_slice(first).into_iter::<Value>().map(Result::unwrap);
    let ours = first.filter_map(|action| action["add"]["path"].as_str().map(str::to_owned)).next().unwrap();
    let bytes = kept.objects[&format!("segments/{ours}")].bytes.clone();
    let add = json!({ "add": {
        "path": "theirs.parquet", "partitionValues": { "solution_version": "theirs" }, "size": bytes.len(),
        "modificationTime": 0, "dataChange": true,
    } });
    kept.put("segments/theirs.parquet", bytes);
    kept.put("segments/_delta_log/00000000000000000001.json", format!("{add}\n").into_bytes());
}
