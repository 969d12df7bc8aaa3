//! Committed segments as a table in SQL.

use crate::common::{cli, csv_rows, item_affinity, run, solution, succeed};

#[test]
fn committed_segments_are_a_table_of_the_newest_version_or_of_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("my segments").display().to_string();
    for (items, reasons) in [
        (vec!["--item", "COFFEE-01"], vec![]),
        (vec!["--item", "MUSIC-05", "--item", "COFFEE-01"], vec!["--reasons", "2"]),
    ] {
        let arguments = ["segment", "--solution", solution(), "--output", &output, "--num-results", "4"];
        succeed(arguments.into_iter().chain(items).chain(reasons));
    }
    let sql = |query: &str| {
        let query = query.replace("OUTPUT", &output);
        csv_rows(&succeed(["sql", "--solution-version", solution(), "--format", "csv", "-c", &query]).stdout)
    };
    // Files of reasons are no segments.
    let counted = sql(
        "SELECT item_id, count(*), max(rank) FROM item_affinity_output('OUTPUT') GROUP BY item_id ORDER BY item_id",
    );
    assert_eq!(counted, [["COFFEE-01", "4", "4"], ["MUSIC-05", "4", "4"]]);
    assert_eq!(sql("SELECT count(*) FROM item_affinity_output(location => 'OUTPUT@1')"), [["4"]]);
    let same = "SELECT count(*) FROM item_affinity_output('OUTPUT') AS o JOIN item_affinity_segments(['COFFEE-01', 'MUSIC-05'], 4) \
                AS s ON s.item_id = o.item_id AND s.rank = o.rank AND s.user_id = o.user_id WHERE abs(s.score - o.score) < 1e-6";
    assert_eq!(sql(same), [["8"]]);
    assert_eq!(
        sql("SELECT rank FROM item_affinity_output('OUTPUT') WHERE item_id = 'MUSIC-05' AND rank > 2 ORDER BY rank"),
        [["3"], ["4"]]
    );
    // The order of the files is known, so nothing sorts them again.
    let plan = sql("EXPLAIN SELECT * FROM item_affinity_output('OUTPUT') ORDER BY item_id, rank").concat().join("\n");
    assert!(plan.contains("DataSourceExec") && !plan.contains("SortExec"), "{plan}");
}

#[test]
fn json_lines_and_places_without_segments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("lines").display().to_string();
    succeed([
        "segment",
        "--solution",
        solution(),
        "--item",
        "COFFEE-01",
        "--output",
        &output,
        "--format",
        "json-lines",
    ]);
    let refused = |location: &str| {
        let query = format!("SELECT * FROM item_affinity_output('{location}')");
        let ended = cli(["sql", "-c", &query]);
        assert_eq!(ended.code, 3, "{ended:?}");
        ended.stderr
    };
    assert!(refused(&output).contains("is not Parquet; read the file <input>.out"), "{}", refused(&output));
    assert!(refused(&format!("{output}@7")).contains('7'), "{}", refused(&format!("{output}@7")));
    // A solution is no output.
    assert!(!refused(solution()).is_empty());
}

#[test]
fn p40_a_query_prints_its_rows_and_nothing_that_the_engine_says_at_trace_level() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments").display().to_string();
    succeed(["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", &output]);
    // A grouped query with a limit: the engine prints the batches of such a one where its log is wanted at trace level.
    let query =
        format!("SELECT DISTINCT user_id FROM item_affinity_output('{output}') WHERE rank <= 9 ORDER BY 1 LIMIT 2");
    for level in [None, Some("trace")] {
        let mut command = item_affinity();
        command.args(["sql", "--format", "csv", "--root"]).arg(folder.path()).args(["-c", &query]);
        command.envs(level.map(|level| ("RUST_LOG", level)));
        let ended = run(&mut command);
        assert_eq!((ended.code, ended.stdout.lines().count()), (0, 3), "{level:?}: {}", ended.stdout);
        assert!(ended.stdout.starts_with("user_id\n"), "{}", ended.stdout);
    }
}
