//! Bad input: an error of one line that says what to do, the promised exit code, nothing half-written.

mod catalogue;
mod hand_made;
mod isolated_inputs;
mod parquet_rows;
mod request_rows;
mod shell_rows;
mod size_rows;
mod solution_rows;
mod store_rows;
mod value_rows;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;

use crate::common::{Ended, S3Server, cli, data, files_below, item_affinity, run, solution};

const ROWS: i64 = 4_000;

/// Interactions that train, before a case breaks them: 200 users, 50 items.
fn good() -> Vec<(&'static str, ArrayRef)> {
    vec![
        (
            "user_id",
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("user-{}", n % 200)))) as ArrayRef,
        ),
        (
            "item_id",
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("item-{}", (n * 7 + n / 50) % 50)))),
        ),
        ("timestamp", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| 1_767_225_600 + n * 60)))),
        ("event_type", Arc::new(StringArray::from_iter_values((0..ROWS).map(|_| "view")))),
        ("event_value", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| 1.0)))),
    ]
}

fn write(path: &Path, columns: Vec<(&'static str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn replaced(name: &str, column: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    good().into_iter().map(|(n, c)| if n == name { (n, Arc::clone(&column)) } else { (n, c) }).collect()
}

fn without(name: &str) -> Vec<(&'static str, ArrayRef)> {
    good().into_iter().filter(|(n, _)| *n != name).collect()
}

fn texts(make: impl Fn(i64) -> Option<String>) -> ArrayRef {
    Arc::new((0..ROWS).map(make).collect::<StringArray>())
}

fn numbers(make: impl Fn(i64) -> Option<f64>) -> ArrayRef {
    Arc::new((0..ROWS).map(make).collect::<Float64Array>())
}

/// One way to break the interactions, and what has to be said.
struct Case {
    name: &'static str,
    make: Box<dyn Fn(&Path)>,
    arguments: &'static [&'static str],
    /// Parts of the one line on stderr.
    says: &'static [&'static str],
}

fn case(name: &'static str, columns: Vec<(&'static str, ArrayRef)>, says: &'static [&'static str]) -> Case {
    let make = move |path: &Path| write(path, columns.clone());
    Case { name, make: Box::new(make), arguments: &[], says }
}

fn bytes(name: &'static str, content: &'static [u8], says: &'static [&'static str]) -> Case {
    Case { name, make: Box::new(move |path| std::fs::write(path, content).unwrap()), arguments: &[], says }
}

fn cases() -> Vec<Case> {
    vec![
        case(
            "column missing",
            without("item_id"),
            &["ERR_SCHEMA: ", "ITEM_ID", "found [", "file=", "--column item_id="],
        ),
        case(
            "time as text",
            replaced("timestamp", texts(|n| Some(format!("2026-01-{n}")))),
            &["ERR_COLUMN_TYPE: ", "Utf8", "column=timestamp", "file="],
        ),
        case(
            "ids as floating point",
            replaced("user_id", numbers(|n| Some(n as f64))),
            &["ERR_COLUMN_TYPE: ", "Float64", "column=user_id", "2^53"],
        ),
        case(
            "null user ids",
            replaced("user_id", texts(|n| (n % 10 > 0).then(|| format!("user-{}", n % 200)))),
            &["ERR_TOO_MANY_BAD_ROWS: ", "id_null 400", "row=", "column=USER_ID"],
        ),
        case(
            "values not a number",
            replaced("event_value", numbers(|n| Some(if n % 10 == 0 { f64::NAN } else { 1.0 }))),
            &["ERR_TOO_MANY_BAD_ROWS: ", "event_value_not_finite 400"],
        ),
        case(
            "negative values",
            replaced("event_value", numbers(|n| Some(if n % 10 == 0 { -1.0 } else { 1.0 }))),
            &["ERR_TOO_MANY_BAD_ROWS: ", "event_value_negative 400"],
        ),
        case(
            "all times equal",
            replaced("timestamp", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| 1_767_225_600)))),
            &["timestamp"],
        ),
        Case {
            arguments: &["--event-type", "purchase"],
            ..case("no event after the filter", good(), &["purchase", "view"])
        },
        bytes("empty file", b"", &["ERR_EMPTY_OBJECT: ", "file="]),
        bytes("text file", b"user_id,item_id,timestamp\n1,2,3\n", &["ERR_NOT_PARQUET: ", "CSV", "file="]),
        bytes("four bytes", b"PAR1", &["ERR_TOO_SHORT: ", "file="]),
        bytes("a footer that lies", b"PAR1PAR1\xff\xff\xff\xffPAR1", &["ERR_FOOTER_LENGTH: ", "file="]),
        Case { make: Box::new(|_| {}), ..bytes("missing file", b"", &["interactions.parquet"]) },
    ]
}

fn train(interactions: &Path, solution: &Path, more: &[&str]) -> Ended {
    let (interactions, solution) = (interactions.display().to_string(), solution.display().to_string());
    let arguments =
        ["train", "--quiet", "--hidden-dimension", "32", "--interactions", &interactions, "--solution", &solution];
    // Values are looked at when they are asked for.
    let threshold = ["--event-value-threshold", "0"];
    cli(arguments.iter().copied().chain(threshold).chain(more.iter().copied()))
}

fn assert_one_line(ended: &Ended, code: i32, says: &[&str], name: &str) {
    assert_eq!(ended.code, code, "{name}: {ended:?}");
    assert_eq!(ended.stdout, "", "{name}");
    assert_eq!(ended.stderr.lines().count(), 1, "{name}: {}", ended.stderr);
    assert!(ended.stderr.starts_with("error: "), "{name}: {}", ended.stderr);
    for part in says {
        assert!(ended.stderr.contains(part), "{name} does not say {part}: {}", ended.stderr);
    }
}

#[test]
fn good_interactions_train() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("interactions.parquet");
    write(&path, good());
    let ended = train(&path, &folder.path().join("solution"), &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn bad_interactions_are_refused_by_name_and_leave_nothing() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("interactions.parquet");
        (case.make)(&path);
        let target = folder.path().join("solution");
        let ended = train(&path, &target, case.arguments);
        assert_one_line(&ended, 3, case.says, case.name);
        assert!(!ended.stderr.contains("user-"), "{}: a user id in {}", case.name, ended.stderr);
        assert_eq!(files_below(&target), Vec::<std::path::PathBuf>::new(), "{}", case.name);
    }
}

#[test]
fn small_data_are_refused_in_the_words_of_the_report_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("interactions.parquet");
    write(&path, good().into_iter().map(|(n, c)| (n, c.slice(0, 900))).collect());
    let refused = train(&path, &folder.path().join("solution"), &[]);
    assert_one_line(&refused, 3, &["1000", "--allow-small-data"], "900 interactions");
    let allowed = train(&path, &folder.path().join("solution"), &["--allow-small-data"]);
    assert_eq!(allowed.code, 0, "{allowed:?}");
}

#[test]
fn hidden_dimension_out_of_range_is_refused_with_the_range() {
    for value in ["0", "31", "257", "1000000000"] {
        let folder = tempfile::tempdir().unwrap();
        let solution = folder.path().join("solution").display().to_string();
        let ended = cli([
            "train",
            "--quiet",
            "--interactions",
            &data("interactions.parquet"),
            "--solution",
            &solution,
            "--hidden-dimension",
            value,
        ]);
        assert_one_line(&ended, 2, &["hidden_dimension", "[32, 256]", value], value);
        assert!(files_below(folder.path()).is_empty());
    }
}

#[test]
fn solution_versions_that_are_not_there_are_named_with_what_exists() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    let missing = format!("{}@9", solution());
    let ended = cli(["segment", "--quiet", "--solution", &missing, "--item", "COFFEE-01", "--output", &output]);
    assert_one_line(&ended, 3, &["9", "1"], "version 9");
    let nowhere = folder.path().join("nowhere").display().to_string();
    let ended = cli(["segment", "--quiet", "--solution", &nowhere, "--item", "COFFEE-01", "--output", &output]);
    assert_one_line(&ended, 3, &["nowhere"], "no solution");
    assert!(files_below(folder.path()).is_empty(), "{:?}", files_below(folder.path()));
}

#[test]
fn an_output_that_is_not_empty_is_refused_unless_it_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    std::fs::create_dir_all(&output).unwrap();
    std::fs::write(output.join("precious.txt"), "mine").unwrap();
    let text = output.display().to_string();
    let arguments = ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", &text];
    assert_one_line(&cli(arguments), 3, &["ERR_OUTPUT_NOT_EMPTY: ", "out"], "output in use");
    assert_eq!(files_below(&output), [Path::new("precious.txt")]);
    std::fs::remove_file(output.join("precious.txt")).unwrap();
    assert_eq!(cli(arguments).code, 0);
    assert_eq!(cli(arguments.iter().copied().chain(["--force"])).code, 0);
}

#[test]
fn item_lists_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    for (name, content, says) in [
        ("empty.json", "", "empty"),
        ("blank.json", "\n  \n", "empty"),
        ("array.json", "[{\"itemId\": \"a\"}]", "one object a line"),
        ("utf16.json", "\u{0}", "COFFEE"),
        ("columns.csv", "sku,name\n1,x\n", "item_id"),
    ] {
        let path = folder.path().join(name);
        let bytes = if name == "utf16.json" { b"\xff\xfe{\0".to_vec() } else { content.as_bytes().to_vec() };
        std::fs::write(&path, bytes).unwrap();
        let list = path.display().to_string();
        let ended = cli(["segment", "--quiet", "--solution", solution(), "--items", &list, "--output", &output]);
        let says = if name == "utf16.json" { "UTF-16" } else { says };
        assert_one_line(&ended, 3, &["ITEM_LIST_INVALID: ", says, name], name);
    }
    assert!(!Path::new(&output).exists());
}

#[test]
fn more_than_500_items_need_the_option_that_the_message_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.csv");
    let rows = (0..501).map(|n| format!("{n}\n")).collect::<String>();
    std::fs::write(&path, format!("item_id\n{rows}")).unwrap();
    let (list, output) = (path.display().to_string(), folder.path().join("out").display().to_string());
    let arguments = ["segment", "--quiet", "--solution", solution(), "--items", &list, "--output", &output];
    assert_one_line(&cli(arguments), 3, &["501", "500", "--max-items"], "501 items");
    let allowed = cli(arguments.iter().copied().chain(["--max-items", "501"]));
    assert_eq!(allowed.code, 4, "{allowed:?}");
    assert!(allowed.stdout.contains("asked=501 ok=0 empty=0 error=501"), "{}", allowed.stdout);
}

#[test]
fn a_damaged_solution_is_refused_by_the_name_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("solution");
    for file in files_below(Path::new(solution())) {
        let to = copy.join(&file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(Path::new(solution()).join(&file), to).unwrap();
    }
    let parts = files_below(&copy).into_iter().filter(|f| f.starts_with("versions")).collect::<Vec<_>>();
    assert!(parts.len() >= 3, "{parts:?}");
    for part in parts {
        let path = copy.join(&part);
        if path.file_name().is_some_and(|n| n == "_SUCCESS") {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let (solution, output) = (copy.display().to_string(), folder.path().join("out").display().to_string());
        let name = part.file_name().unwrap().to_string_lossy().into_owned();
        let ended = if name == "user_attributes.parquet" {
            // A refresh alone reads it.
            let (interactions, users) = (data("interactions.parquet"), data("users.parquet"));
            let refresh = ["refresh", "--quiet", "--solution", &solution, "--interactions", &interactions];
            cli(refresh.into_iter().chain(["--users", &users]))
        } else {
            cli(["segment", "--quiet", "--solution", &solution, "--item", "COFFEE-01", "--output", &output])
        };
        assert_one_line(&ended, 3, &["ERR_SOLUTION_DAMAGED", &name], &name);
        assert!(!files_below(Path::new(&output)).iter().any(|f| f.starts_with("_item_affinity/commits")));
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn data_that_do_not_fit_to_the_version_are_refused_by_a_refresh_which_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(&path("good.parquet"), good());
    let target = path("solution");
    assert_eq!(train(&path("good.parquet"), &target, &[]).code, 0);
    let before = files_below(&target);
    let older = Int64Array::from_iter_values((0..ROWS).map(|n| 1_700_000_000 + n * 60));
    let refresh = |solution: &Path, more: &[&str]| {
        let (solution, interactions) = (solution.display().to_string(), path("case.parquet").display().to_string());
        let arguments = ["refresh", "--quiet", "--solution", &solution, "--interactions", &interactions];
        cli(arguments.iter().copied().chain(more.iter().copied()))
    };
    for (name, columns, code, says) in [
        (
            "older data",
            replaced("timestamp", Arc::new(older)),
            3,
            &["ERR_REFRESH_OLDER_DATA: ", "2023-11-17 16:52:20", "2026-01-03 18:39:00", "solution@1"][..],
        ),
        (
            "items of another shop",
            replaced("item_id", texts(|n| Some(format!("other-{}", n % 50)))),
            3,
            &["ERR_REFRESH_NO_KNOWN_ITEM: ", "4000", "--column item_id="],
        ),
        // The threshold of the training needs the values.
        ("no values", without("event_value"), 3, &["ERR_SCHEMA: ", "EVENT_VALUE"]),
        ("few rows", good().into_iter().map(|(n, c)| (n, c.slice(ROWS as usize - 900, 900))).collect(), 3, &["1000"]),
    ] {
        write(&path("case.parquet"), columns);
        let ended = refresh(&target, &[]);
        assert_one_line(&ended, code, says, name);
        assert!(!ended.stderr.contains("user-"), "{name}: a user id in {}", ended.stderr);
        assert_eq!(files_below(&target), before, "{name}");
    }
    write(&path("case.parquet"), good());
    assert_one_line(&refresh(&path("nowhere"), &[]), 3, &["ERR_NO_VERSION: ", "nowhere"], "no solution");
    let attributes = refresh(Path::new(solution()), &[]);
    let says = ["ERR_REFRESH_USER_ATTRIBUTES: ", "(country,interest)", "name the Users with --users"];
    assert_one_line(&attributes, 3, &says, "attributes of users");
    let settings = refresh(&target, &["--event-type", "view"]);
    assert_eq!((settings.code, settings.stdout.as_str()), (2, ""), "{settings:?}");
    assert_eq!(refresh(&target, &[]).code, 0);
}

#[test]
fn wrong_sql_arguments_say_what_to_write_instead() {
    for (query, says) in [
        ("SELECT * FROM item_affinity_segments()", "(items [, num_results])"),
        ("SELECT * FROM item_affinity_segments(NULL)", "NULL"),
        ("SELECT * FROM item_affinity_segments([])", "empty"),
        ("SELECT * FROM item_affinity_segments(['a', NULL])", "NULL"),
        ("SELECT * FROM item_affinity_segments(no_such_table)", "no_such_table"),
        ("SELECT * FROM item_affinity_segments(['a'], 0)", "1..=5000000"),
        ("SELECT * FROM item_affinity_segments(['a'], 5000001)", "1..=5000000"),
        ("SELECT * FROM item_affinity_segments(['a'], 1.5)", "whole number"),
        ("SELECT * FROM item_affinity_segments([1.5])", "strings or integers"),
        ("SELECT * FROM item_affinity_segments(7)", "['7']"),
        (
            "SET item_affinity.max_items = 1; SELECT * FROM item_affinity_segments(['a', 'b'])",
            "item_affinity.max_items",
        ),
        (
            "SET item_affinity.on_unknown_item = 'error'; SELECT * FROM item_affinity_segments(['a'])",
            "ITEM_NOT_IN_MODEL",
        ),
        ("SELECT * FROM item_affinity_explain()", "(items [, num_results [, reasons]])"),
        ("SELECT * FROM item_affinity_explain(['a'], 1, 0)", "1..=1000"),
        ("SELECT * FROM item_affinity_explain(['a'], 1, 2.5)", "whole number"),
        ("SELECT * FROM item_affinity_explain([1.5])", "strings or integers"),
        ("SET item_affinity.reasons = 0", "1..=1000"),
        ("PREPARE p(VARCHAR) AS SELECT * FROM item_affinity_segments($1)", "WHERE item_id = $1"),
        ("SELECT item_affinity_score('a')", "(user_id, item_id)"),
    ] {
        let ended = cli(["sql", "--solution-version", solution(), "--format", "csv", "-c", query]);
        assert_one_line(&ended, 3, &[says], query);
    }
    let ended = cli(["sql", "-c", "SELECT * FROM item_affinity_segments(['a'])"]);
    assert_one_line(&ended, 3, &["SET item_affinity.solution_version"], "no solution version");
}

#[test]
fn storage_that_refuses_or_does_not_answer_ends_with_its_code() {
    let check = ["check", "--quiet", "--interactions", "s3://lake/interactions/"];
    let table = [
        "sql",
        "--root",
        "s3://nowhere/",
        "-c",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://nowhere/t.parquet'",
    ];
    let with = |environment: &[(&str, String)], arguments: &[&str]| {
        let mut command = item_affinity();
        command.envs(environment.iter().map(|(k, v)| (*k, v.as_str())));
        command.env("ITEM_AFFINITY_RETRY_TIMEOUT", "2");
        command.args(arguments);
        run(&mut command)
    };
    let keys = |port: u16| {
        vec![
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "canary-key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "canary-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refusing = refuse_everything();
    let dead = with(&keys(closed), &check);
    assert_one_line(&dead, 5, &["s3://lake"], "nobody listens");
    let denied = with(&keys(refusing), &check);
    assert_one_line(&denied, 3, &["ERR_STORE_DENIED", "s3://lake"], "access denied");
    let dead_table = with(&keys(closed), &table);
    assert_one_line(&dead_table, 5, &["ERR_STORE: ", "/nowhere"], "nobody listens to SQL");
    let denied_table = with(&keys(refusing), &table);
    assert_one_line(&denied_table, 3, &["ERR_STORE_DENIED: ", "/nowhere", "the role needs"], "access denied to SQL");
    for ended in [&dead, &denied, &dead_table, &denied_table] {
        assert!(!ended.stderr.contains("canary"), "a secret in {}", ended.stderr);
    }
    let Some(server) = S3Server::start("storage_that_refuses_or_does_not_answer_ends_with_its_code") else { return };
    let empty = with(&server.environment(), &check);
    assert_one_line(&empty, 3, &["s3://lake/interactions/"], "no file under the prefix");
    let missing = with(&server.environment(), &table);
    assert_one_line(&missing, 3, &["ERR_NOT_FOUND: ", "the bucket does not exist", "/nowhere"], "no bucket for SQL");
}

/// A server that answers every request with S3's AccessDenied, for as long as the test runs.
fn refuse_everything() -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            drop(stream.read(&mut request));
            let body =
                "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
            drop(write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    port
}
