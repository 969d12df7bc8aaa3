//! Segments as Delta tables, read back by the other implementation.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::peer::{Peer, ended};
use crate::common::{cli, item_affinity, solution, succeed};

/// The arguments of a job that writes to a Delta table.
fn segment<'a>(output: &'a str, items: &[&'a str], mode: &'a str, num_results: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["segment", "--quiet", "--solution", solution(), "--output", output, "--format", "delta"];
    arguments.extend(["--delta-mode", mode, "--num-results", num_results]);
    arguments.extend(items.iter().flat_map(|item| ["--item", item]));
    arguments
}

/// Rows of segments as the other implementation gives them.
fn rows(peer: &Peer, table: &str, condition: &str) -> Value {
    peer.query(
        table,
        &format!("SELECT item_id, rank, user_id FROM t WHERE {condition} ORDER BY item_id, rank, user_id"),
    )
}

/// The same segments, as a job writes them to Parquet.
fn parquet(folder: &tempfile::TempDir, items: &[&str], num_results: &str) -> Value {
    let output = folder.path().join(format!("parquet-{num_results}-{}", items.join("-"))).display().to_string();
    let mut arguments = segment(&output, items, "append", num_results);
    let format = arguments.iter().position(|argument| *argument == "delta").unwrap();
    arguments[format] = "parquet";
    succeed(arguments);
    let sql =
        format!("SELECT item_id, rank, user_id FROM item_affinity_output('{output}') ORDER BY item_id, rank, user_id");
    let text = succeed(["sql", "--format", "csv", "-c", &sql]).stdout;
    let row = |row: Vec<String>| json!([row[0], row[1].parse::<i32>().unwrap(), row[2]]);
    crate::common::csv_rows(&text).into_iter().map(row).collect()
}

#[test]
fn each_run_is_one_delta_commit_that_others_read_and_a_rerun_is_none() {
    let Some(peer) = Peer::find("delta::writing") else { return };
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("segments").display().to_string();
    let first = ["COFFEE-01", "MUSIC-05"];
    assert!(succeed(segment(&table, &first, "append", "9")).stdout.contains("delta: version=0"));
    assert_eq!(rows(&peer, &table, "true"), parquet(&folder, &first, "9"));
    let solutions = peer.query(&table, "SELECT DISTINCT solution_version FROM t");
    assert_eq!(solutions, json!([[format!("{}@1", solution())]]));

    succeed(segment(&table, &["BAKING-03"], "append", "5"));
    // Not even when another run came in between.
    for items in [&first[..], &["BAKING-03"]] {
        let again = succeed(segment(&table, items, "append", if items.len() == 2 { "9" } else { "5" }));
        assert!(again.stdout.contains("already done"), "{again:?}");
    }
    assert_eq!(peer.log(&table), (1, vec!["WRITE".to_owned(), "WRITE".to_owned()], 2));
    assert_eq!(rows(&peer, &table, "item_id = 'BAKING-03'"), parquet(&folder, &["BAKING-03"], "5"));
    assert_eq!(peer.query(&table, "SELECT count(*) FROM t"), json!([[23]]));

    // By item: the rows of other items in the same file stay, once.
    let replaced = succeed(segment(&table, &["COFFEE-01", "GARDEN-02"], "replace-items", "3"));
    assert!(replaced.stdout.contains("delta: version=2"), "{replaced:?}");
    assert_eq!(rows(&peer, &table, "item_id = 'COFFEE-01'"), parquet(&folder, &["COFFEE-01"], "3"));
    let counted = "SELECT item_id, count(*) FROM t GROUP BY item_id ORDER BY item_id";
    let expected = json!([["BAKING-03", 5], ["COFFEE-01", 3], ["GARDEN-02", 3], ["MUSIC-05", 9]]);
    assert_eq!(peer.query(&table, counted), expected);
    let again = succeed(segment(&table, &["COFFEE-01", "GARDEN-02"], "replace-items", "3"));
    assert!(again.stdout.contains("already done"), "{again:?}");
    assert_eq!(peer.log(&table).0, 2);

    // By solution version: all that this one gave.
    succeed(segment(&table, &["MUSIC-05"], "replace-version", "4"));
    assert_eq!(peer.query(&table, counted), json!([["MUSIC-05", 4]]));
    assert_eq!(peer.log(&table).0, 3);
    // Versions of the project's own commits go on beside the log; their files are the table's to remove.
    assert!(succeed(["show", "--output", &table]).stdout.contains('4'));
    let refused = cli(["gc", "--output", &table, "--keep-versions", "1"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("data of a Delta table"), "{refused:?}");
}

#[test]
fn a_run_that_died_before_its_delta_commit_is_completed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("segments");
    let text = table.display().to_string();
    for mode in ["append", "replace-version", "replace-items"] {
        let arguments = segment(&text, &["COFFEE-01", "MUSIC-05"], mode, "6");
        succeed(&arguments);
        // As if the job had been killed between the two commits.
        std::fs::remove_dir_all(table.join("_delta_log")).unwrap();
        let completed = succeed(&arguments);
        assert!(
            completed.stdout.contains("already done") && completed.stdout.contains("delta: version=0"),
            "{completed:?}"
        );
        let create =
            format!("CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{text}'; SELECT count(*) AS n FROM t");
        assert_eq!(succeed(["sql", "--format", "csv", "-c", &create]).stdout, "n\n12\n");
        std::fs::remove_dir_all(&table).unwrap();
    }
}

#[test]
fn a_table_of_another_writer_takes_segments_when_its_columns_fit() {
    let Some(peer) = Peer::find("delta::writing") else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (theirs, other) = (place("theirs"), place("other"));
    peer.write(&theirs, "append", &of_others(1), &["solution_version"]);
    succeed(segment(&theirs, &["COFFEE-01"], "replace-items", "3"));
    let counted = "SELECT user_id, count(*) FROM t WHERE user_id LIKE 'other%' GROUP BY user_id ORDER BY user_id";
    // The writer's row of another item stays, the one of the same item is replaced.
    assert_eq!(peer.query(&theirs, counted), json!([["other-1", 1]]));
    assert_eq!(peer.query(&theirs, "SELECT count(*) FROM t"), json!([[4]]));

    peer.write(&other, "append", &json!({ "item_id": ["string", ["COFFEE-01"]] }), &[]);
    let refused = cli(segment(&other, &["COFFEE-01"], "append", "3"));
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("ERR_DELTA: this Delta table is none of segments: it has [item_id"), "{refused:?}");
    assert_eq!(peer.log(&other).0, 0);
}

/// Rows of another writer: of an item of ours and of one of its own, with the number in the user's name.
fn of_others(number: u32) -> Value {
    json!({
        "item_id": ["string", ["COFFEE-01", "THEIRS"]],
        "rank": ["int", [1, 1]],
        "user_id": ["string", [format!("other-same-{number}"), format!("other-{number}")]],
        "score": ["float", [0.5, 0.5]],
        "solution_version": ["string", ["theirs", "theirs"]],
    })
}

#[test]
fn writers_at_once_lose_nothing_and_write_nothing_twice() {
    let Some(peer) = Peer::find("delta::writing") else { return };
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("segments").display().to_string();
    peer.write(&table, "append", &of_others(0), &["solution_version"]);
    let start = |items: &[&str], mode: &str| {
        let mut command = item_affinity();
        command.args(segment(&table, items, mode, "4")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // The other implementation appends 20 times while four jobs write, which wait for one another.
    let others = peer.start(&["append", &table, "20"], Some(&of_others(1)));
    let items = ["BAKING-03", "COFFEE-02", "GARDEN-02", "MUSIC-05"];
    let modes = ["append", "replace-items", "append", "replace-items"];
    let jobs: Vec<Child> = items.iter().zip(modes).map(|(item, mode)| start(&[item], mode)).collect();
    let said = jobs.into_iter().map(ended).collect::<Vec<_>>();
    ended(others);

    let versions =
        said.iter().map(|said| said.split_once("delta: version=").unwrap().1.lines().next().unwrap().to_owned());
    assert_eq!(versions.collect::<BTreeSet<_>>().len(), 4, "{said:?}");
    assert_eq!(peer.log(&table).0, 24);
    let counted = "SELECT item_id, count(*) FROM t GROUP BY item_id ORDER BY item_id";
    let expected = json!([
        ["BAKING-03", 4],
        ["COFFEE-01", 21],
        ["COFFEE-02", 4],
        ["GARDEN-02", 4],
        ["MUSIC-05", 4],
        ["THEIRS", 21]
    ]);
    assert_eq!(peer.query(&table, counted), expected);

    // Rows that come while others of their item are replaced are gone or there, and none of a file is lost with them.
    let others = peer.start(&["append", &table, "20"], Some(&of_others(2)));
    let replacing = start(&["COFFEE-01"], "replace-items");
    ended(replacing);
    ended(others);
    let of = |user: &str| peer.query(&table, &format!("SELECT count(*) FROM t WHERE user_id = '{user}'"))[0][0].clone();
    assert_eq!((of("other-1"), of("other-2"), of("other-same-1")), (20.into(), 20.into(), 0.into()));
    assert_eq!(peer.log(&table).0, 45);
    assert_eq!(
        peer.query(&table, "SELECT count(*) FROM t WHERE item_id = 'COFFEE-01' AND solution_version <> 'theirs'"),
        json!([[4]])
    );
}
