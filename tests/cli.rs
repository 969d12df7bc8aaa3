//! The command line as people and schedulers use it.

use std::path::Path;
use std::process::Stdio;

use crate::common::{cli, csv_rows, data, files_below, item_affinity, run, solution, succeed};

#[test]
fn demo_needs_nothing_and_its_segments_hold_the_planted_groups() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(item_affinity().arg("demo").current_dir(folder.path()));
    assert_eq!(ended.code, 0, "{ended:?}");
    for title in ["Hand grinder", "Sleeping mat", "Instrument cable"] {
        assert!(ended.stdout.contains(title), "{}", ended.stdout);
    }
    // The share of the planted interest among the 50 best users of each item.
    for (title, interest) in [("Hand grinder", "Coffee"), ("Instrument cable", "Music"), ("Sleeping mat", "Camping")] {
        let row = ended
            .stdout
            .lines()
            .map(|l| l.split('|').map(str::trim).collect::<Vec<_>>())
            .find(|cells| {
                cells.len() > 4 && cells[1] == title && cells[2] == interest && cells[4].parse::<f64>().is_ok()
            })
            .unwrap_or_else(|| panic!("no row {title}, {interest}: {}", ended.stdout));
        assert!(row[4].parse::<f64>().unwrap() >= 80.0, "{row:?}");
    }
    let files = files_below(&folder.path().join("item-affinity-demo"));
    assert!(files.iter().any(|f| f.starts_with("solution/versions")), "{files:?}");
    assert!(files.iter().any(|f| f.starts_with("segments/data")), "{files:?}");
    // Every command that it tells to try next works.
    for line in ended.stdout.lines().filter_map(|l| l.trim().strip_prefix("item-affinity ")) {
        if line.contains('<') {
            continue;
        }
        let arguments = shell_words(line);
        let next = run(item_affinity().args(&arguments).current_dir(folder.path()));
        assert_eq!(next.code, 0, "{line}: {next:?}");
    }
}

/// Splits a command line at spaces, double quotes respected.
pub(crate) fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = None;
    for c in line.chars() {
        match (c, quoted) {
            ('"' | '\'', None) => quoted = Some(c),
            (c, Some(open)) if c == open => quoted = None,
            (' ', None) => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

#[test]
fn check_reports_the_built_in_data_as_a_table_and_as_json() {
    let arguments = ["--interactions", &data("interactions.parquet"), "--items", &data("items.parquet")];
    let table = succeed(["check"].iter().copied().chain(arguments));
    assert!(table.stdout.contains("1,500") && table.stdout.contains("80"), "{}", table.stdout);
    let json = succeed(["check", "--format", "json"].iter().copied().chain(arguments));
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["users"], 1_500);
    assert_eq!(report["items"], 80);
}

#[test]
fn data_goes_to_stdout_and_progress_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments").display().to_string();
    let loud = succeed(["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", &output]);
    assert!(loud.stderr.contains("rank users"), "{loud:?}");
    assert!(!loud.stdout.contains("rank users"), "{loud:?}");
    let quiet = succeed([
        "segment",
        "--quiet",
        "--force",
        "--solution",
        solution(),
        "--item",
        "COFFEE-01",
        "--output",
        &output,
    ]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn segments_are_sorted_ranked_from_one_and_as_long_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments");
    let list = folder.path().join("items.json");
    std::fs::write(&list, "{\"itemId\": \"MUSIC-05\"}\n{\"itemId\": \"COFFEE-01\"}\n").unwrap();
    let ended = succeed([
        "segment",
        "--solution",
        solution(),
        "--items",
        &list.display().to_string(),
        "--output",
        &output.display().to_string(),
        "--num-results",
        "7",
    ]);
    assert!(ended.stdout.contains("items: asked=2 ok=2 empty=0 error=0"), "{}", ended.stdout);
    let rows = read_back(&output);
    assert_eq!(rows.len(), 14);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[0], if number < 7 { "COFFEE-01" } else { "MUSIC-05" });
        assert_eq!(row[1], (number % 7 + 1).to_string());
    }
    for item in rows.chunks(7) {
        assert!(item.iter().map(|r| r[3].parse::<f32>().unwrap()).is_sorted_by(|a, b| a >= b));
    }
}

/// The rows of the newest committed segments, in the order of the file.
fn read_back(output: &Path) -> Vec<Vec<String>> {
    let files = files_below(output);
    let part = files.iter().rfind(|f| f.ends_with("part-00000.parquet")).unwrap_or_else(|| panic!("{files:?}"));
    rows_of(&output.join(part))
}

/// The rows of a Parquet file, in their order.
fn rows_of(file: &Path) -> Vec<Vec<String>> {
    let query = format!("CREATE EXTERNAL TABLE s STORED AS PARQUET LOCATION '{}'; SELECT * FROM s", file.display());
    csv_rows(&succeed(["sql", "--threads", "1", "--format", "csv", "-c", &query]).stdout)
}

#[test]
fn reasons_are_a_file_of_their_own_and_leave_segments_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, explained) = (folder.path().join("plain"), folder.path().join("explained"));
    let job = |output: &Path, more: &[&str]| {
        let output = output.display().to_string();
        let arguments = ["segment", "--solution", solution(), "--item", "MUSIC-05", "--item", "COFFEE-01"];
        let output = ["--num-results", "300", "--output", &output];
        succeed(arguments.iter().copied().chain(output).chain(more.iter().copied())).stdout
    };
    job(&plain, &[]);
    let done = job(&explained, &["--reasons", "2"]);
    assert!(done.contains("committed version 1") && done.contains(": 600 rows and "), "{done}");
    let segments = |output: &Path| {
        let files = files_below(output);
        let segments = |file: &&std::path::PathBuf| file.ends_with("part-00000.parquet") && !is_reasons(file);
        std::fs::read(output.join(files.iter().find(segments).unwrap())).unwrap()
    };
    assert!(segments(&plain) == segments(&explained), "reasons change the file of the segments");

    let rows = rows_of(&explained.join(files_below(&explained).into_iter().find(|f| is_reasons(f)).unwrap()));
    assert!(done.replace(',', "").contains(&format!(" and {} reasons ", rows.len())), "{done}");
    let of_segments = read_back(&explained);
    let asked = "SELECT item_id, rank, user_id, reason_rank, because_item_id, share \
         FROM item_affinity_explain(['COFFEE-01', 'MUSIC-05'], 300, 2) WHERE reason_rank IS NOT NULL \
         ORDER BY item_id, rank, reason_rank";
    let sql = succeed(["sql", "--solution-version", solution(), "--format", "csv", "-c", asked]).stdout;
    assert_eq!(rows, csv_rows(&sql), "a job gives the reasons that SQL gives");
    for row in &rows {
        assert!(row[5].parse::<f32>().unwrap() > 0.0 && ["1", "2"].contains(&row[3].as_str()), "{row:?}");
        assert!(of_segments.iter().any(|segment| segment[..3] == row[..3]), "{row:?}");
    }
    // The order of the file is its declared one.
    let place = |row: &Vec<String>| (row[0].clone(), row[1].parse::<u32>().unwrap(), row[3].parse::<u32>().unwrap());
    assert!(rows.is_sorted_by_key(place));

    // Reasons are part of the job: the same is done already, others are another version.
    assert!(job(&explained, &["--reasons", "2"]).contains("already done as version 1"));
    assert!(job(&explained, &["--reasons", "3"]).contains("committed version 2"));
    assert!(job(&plain, &[]).contains("already done as version 1"));
    let shown = succeed(["show", "--output", &explained.display().to_string()]).stdout;
    assert!(shown.contains("_reasons/part-00000.parquet"), "{shown}");
}

fn is_reasons(file: &Path) -> bool {
    file.ends_with("_reasons/part-00000.parquet")
}

#[test]
fn reasons_of_a_list_with_unknown_items_are_those_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let place = output.display().to_string();
    let arguments = ["segment", "--solution", solution(), "--output", &place, "--reasons", "1", "--num-results", "3"];
    let ended = cli(arguments.iter().copied().chain(["--item", "NEVER-SOLD", "--item", "COFFEE-01"]));
    assert_eq!(ended.code, 4, "{ended:?}");
    let rows = rows_of(&output.join(files_below(&output).into_iter().find(|f| is_reasons(f)).unwrap()));
    assert_eq!(
        rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect::<Vec<_>>(),
        [("COFFEE-01", "1"), ("COFFEE-01", "2"), ("COFFEE-01", "3")]
    );
    // Nobody at all: both files are there, without rows.
    let ended = cli(arguments.iter().copied().chain(["--item", "NEVER-SOLD", "--force"]));
    assert_eq!(ended.code, 4, "{ended:?}");
    let files = files_below(&output).into_iter().filter(|f| is_reasons(f)).map(|f| rows_of(&output.join(f)).len());
    let mut rows = files.collect::<Vec<_>>();
    rows.sort_unstable();
    assert_eq!(rows, [0, 3]);
}

#[test]
fn reasons_that_cannot_be_written_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    let arguments = ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", &output];
    let ended = cli(arguments.iter().copied().chain(["--reasons", "3", "--format", "json-lines"]));
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("--format parquet") && ended.stderr.contains("--reasons"), "{}", ended.stderr);
    for value in ["0", "1001", "-1", "all"] {
        let ended = cli(arguments.iter().copied().chain(["--reasons", value]));
        assert_eq!(ended.code, 2, "{value}: {ended:?}");
    }
    assert!(files_below(folder.path()).is_empty());
}

#[test]
fn parquet_output_declares_its_sort_order() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments");
    succeed(["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", &output.display().to_string()]);
    let part = files_below(&output).into_iter().find(|f| f.ends_with("part-00000.parquet")).unwrap();
    let query = format!(
        "CREATE EXTERNAL TABLE s STORED AS PARQUET LOCATION '{}'; \
         EXPLAIN SELECT item_id, rank FROM s ORDER BY item_id, rank",
        output.join(part).display()
    );
    let plan = succeed(["sql", "--threads", "1", "-c", &query]).stdout;
    assert!(!plan.contains("SortExec"), "{plan}");
}

#[test]
fn unknown_items_get_records_the_others_segments_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("items.json");
    std::fs::write(
        &list,
        "{\"itemId\": \"COFFEE-01\"}\n\n{\"itemId\": \"NEVER-SOLD\"}\n{\"itemId\": \n{\"userId\": \"U0001\"}\n{\"itemId\": 7}\n",
    )
    .unwrap();
    let output = folder.path().join("segments");
    let arguments = |output: &Path| {
        ["segment", "--solution", solution(), "--items"]
            .map(str::to_owned)
            .into_iter()
            .chain([list.display().to_string(), "--output".to_owned(), output.display().to_string()])
            .collect::<Vec<_>>()
    };
    let ended = cli(arguments(&output));
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.stdout.contains("items: asked=5 ok=1 empty=0 error=4"), "{}", ended.stdout);
    for part in [
        "ITEM_NOT_IN_MODEL: item 'NEVER-SOLD'",
        "ITEM_LINE_INVALID: not JSON; line=4",
        "segments are asked for by item; line=5",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let other = folder.path().join("other");
    let mut lenient = arguments(&other);
    lenient.extend(["--fail-on-item-error".to_owned(), "false".to_owned()]);
    assert_eq!(cli(lenient).code, 0);
    let errors = files_below(&output).into_iter().find(|f| f.ends_with("errors.parquet")).unwrap();
    let query = format!(
        "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION '{}'; SELECT item_id, code FROM e ORDER BY code, item_id",
        output.join(errors).display()
    );
    let rows = csv_rows(&succeed(["sql", "--format", "csv", "-c", &query]).stdout);
    assert_eq!(
        rows,
        [
            ["", "ITEM_ID_MISSING"],
            ["", "ITEM_LINE_INVALID"],
            ["7", "ITEM_NOT_IN_MODEL"],
            ["NEVER-SOLD", "ITEM_NOT_IN_MODEL"]
        ]
    );
}

#[test]
fn json_lines_are_those_of_amazon_personalize() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("q.json");
    std::fs::write(&list, "{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"x\"}\n").unwrap();
    let output = folder.path().join("out");
    let ended = cli([
        "segment",
        "--solution",
        solution(),
        "--items",
        &list.display().to_string(),
        "--output",
        &output.display().to_string(),
        "--format",
        "json-lines",
        "--num-results",
        "3",
    ]);
    assert_eq!(ended.code, 4, "{ended:?}");
    let text = std::fs::read_to_string(output.join("q.json.out")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()).collect::<Vec<_>>();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["input"], serde_json::json!({ "itemId": "COFFEE-01" }));
    assert_eq!(lines[0]["output"]["usersList"].as_array().unwrap().len(), 3);
    assert_eq!(lines[0]["error"], serde_json::Value::Null);
    assert_eq!(lines[1]["input"], serde_json::json!({ "itemId": "x" }));
    assert_eq!(lines[1]["output"]["usersList"], serde_json::json!([]));
    assert!(lines[1]["error"].as_str().unwrap().contains("not present when the solution version was trained"));
    assert_eq!(std::fs::metadata(output.join("_CHECK")).unwrap().len(), 0);
}

#[test]
fn a_finished_job_is_not_done_again_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments").display().to_string();
    let arguments = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", &output];
    assert!(succeed(arguments).stdout.contains("committed version 1"));
    let before = files_below(folder.path());
    assert!(succeed(arguments).stdout.contains("already done as version 1"));
    assert_eq!(files_below(folder.path()), before);
    assert!(succeed(arguments.iter().copied().chain(["--force"])).stdout.contains("committed version 2"));
    let shown = succeed(["show", "--output", &output]).stdout;
    assert!(shown.contains("files of version 2:"), "{shown}");
}

#[test]
fn show_tells_which_version_a_run_committed() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("segments").display().to_string();
    let done = succeed(["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", &output]).stdout;
    let (_, after) = done.split_once("data/run=").unwrap();
    let run = after.split('/').next().unwrap();
    let known = succeed(["show", "--output", &output, "--run", run]).stdout;
    assert_eq!(known, format!("run {run} committed version 1 of {output}\n"));
    let unknown = cli(["show", "--output", &output, "--run", "0123"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.stderr.contains("this run has committed nothing"), "{}", unknown.stderr);
}

#[test]
fn show_gives_versions_and_the_model_card() {
    let shown = succeed(["show", "--solution", solution()]).stdout;
    assert!(shown.contains("hidden_dimension  32") && shown.contains("horizon"), "{shown}");
    assert!(shown.contains("1,500"), "{shown}");
    let missing = cli(["show", "--solution", &format!("{}@9", solution())]);
    assert_eq!(missing.code, 3, "{missing:?}");
}

#[test]
fn evaluate_prints_both_protocols_and_beats_its_baselines() {
    let arguments =
        ["evaluate", "--quiet", "--hidden-dimension", "32", "--protocol", "both", "--format", "json", "--interactions"];
    let ended = succeed(arguments.iter().copied().chain([data("interactions.parquet").as_str()]));
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let recall = |ranking: &str| report["personalize"][ranking]["recall_at_1_percent"].as_f64().unwrap();
    assert!(recall("model") > 2.0 * recall("most_active"), "{report}");
    assert!(recall("model") > 2.0 * recall("random"), "{report}");
    let rankers = report["time"]["all_pairs"]["rankers"].as_array().unwrap();
    let precision = |name: &str| rankers.iter().find(|of| of["ranker"] == name).unwrap()["precision"].as_f64().unwrap();
    assert!(precision("item_affinity") > 2.0 * precision("random"), "{report}");
    let table = |protocol: &str| {
        let arguments = ["evaluate", "--quiet", "--hidden-dimension", "32", "--protocol", protocol, "--interactions"];
        succeed(arguments.iter().copied().chain([data("interactions.parquet").as_str()])).stdout
    };
    assert!(table("personalize").contains("hits_at_1_percent"));
    let time = table("time");
    for words in ["new pairs only", "earlier buyers", "NDCG", "expected calibration error", "most active quarter"] {
        assert!(time.contains(words), "{words}: {time}");
    }
}

#[test]
fn sql_reads_texts_files_and_standard_input_and_stops_at_the_first_error() {
    let both = cli(["sql", "--format", "csv", "-c", "SELECT 1 AS a; SELECT nothing; SELECT 2 AS b"]);
    assert_eq!(both.code, 3, "{both:?}");
    assert_eq!(both.stdout, "a\n1\n");
    assert!(both.stderr.starts_with("error: ") && both.stderr.lines().count() == 1, "{}", both.stderr);

    use std::io::Write;
    let mut child = item_affinity()
        .args(["sql", "--format", "ndjson"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT 'x' AS a, 1.5 AS b").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"a\":\"x\",\"b\":1.5}\n");
}

#[test]
fn sql_formats_write_the_same_rows_and_never_limit_machines() {
    let query = "SELECT value FROM generate_series(1, 100)";
    let csv = succeed(["sql", "--format", "csv", "-c", query]).stdout;
    assert_eq!(csv.lines().count(), 101);
    let json: Vec<serde_json::Value> =
        serde_json::from_str(&succeed(["sql", "--format", "json", "-c", query]).stdout).unwrap();
    assert_eq!(json.len(), 100);
    let table = succeed(["sql", "-c", query]);
    assert_eq!(table.stdout.lines().count(), 40 + 4);
    assert!(table.stderr.contains("40 of 100 rows shown"), "{}", table.stderr);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.parquet").display().to_string();
    succeed(["sql", "--format", "parquet", "--output", &file, "-c", query]);
    let back = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{file}'; SELECT sum(value) AS s FROM t");
    assert_eq!(succeed(["sql", "--format", "csv", "-c", &back]).stdout, "s\n5050\n");
}

#[test]
fn closed_pipe_is_no_failure() {
    let query = "SELECT value FROM generate_series(1, 1000000)";
    let mut child = item_affinity()
        .args(["sql", "--format", "csv", "-c", query])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn terminate_ends_a_training_with_143_and_leaves_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let solution = folder.path().join("solution");
    let mut child = item_affinity()
        .args([
            "train",
            "--hidden-dimension",
            "256",
            "--iterations",
            "100",
            "--interactions",
            &data("interactions.parquet"),
        ])
        .args(["--solution", &solution.display().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let commits = files_below(&solution).into_iter().filter(|f| f.starts_with("_item_affinity/commits")).count();
    assert_eq!(commits, 0);
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    for arguments in [
        vec!["segment"],
        vec!["train", "--interactions", "x.parquet"],
        vec!["nonsense"],
        vec!["segment", "--solution", "s", "--item", "a", "--output", "o", "--num-results", "0"],
        vec!["segment", "--solution", "s", "--item", "a", "--output", "o", "--num-results", "5000001"],
        vec!["train", "--interactions", "x", "--solution", "s", "--half-life", "soon"],
    ] {
        let ended = cli(&arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
    for help in ["--help", "--version"] {
        assert_eq!(cli([help]).code, 0);
    }
    let script = succeed(["completions", "bash"]).stdout;
    assert!(script.contains("_item__affinity()"), "{script}");
}
