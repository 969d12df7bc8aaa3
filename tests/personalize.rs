//! Amazon Personalize's files, filters and shapes: what was built for it runs here.

use std::collections::BTreeMap;
use std::path::Path;

use item_affinity_job::ItemList;
use item_affinity_storage::{Location, Stores, write_new_file};
use serde_json::{Value, json};

use crate::common::{Ended, cli, csv_rows, data, files_below, solution, succeed};

/// Segments of these items, with more arguments.
fn segment(output: &Path, more: &[&str]) -> Ended {
    let output = output.display().to_string();
    let arguments = ["segment", "--solution", solution(), "--output", &output, "--num-results", "7"];
    cli(arguments.into_iter().chain(more.iter().copied()))
}

/// The country of each user of the built-in data.
fn countries() -> BTreeMap<String, String> {
    let users = data("users.parquet");
    let query = format!("CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{users}'; SELECT user_id, country FROM u");
    let rows = csv_rows(&succeed(["sql", "--format", "csv", "-c", &query]).stdout);
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn users_of(line: &Value) -> Vec<String> {
    line["output"]["usersList"].as_array().unwrap().iter().map(|user| user.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_filter_expression_gives_the_very_segments_of_the_same_sql() {
    let folder = tempfile::tempdir().unwrap();
    let users = data("users.parquet");
    for (number, (filter, sql)) in [
        ("EXCLUDE UserID WHERE Users.COUNTRY IN (\"DE\")", "(country IN ('DE')) IS NOT TRUE"),
        ("INCLUDE UserID WHERE Users.Country IN (\"DE\", \"FR\")", "country IN ('DE', 'FR')"),
        (
            "EXCLUDE UserID WHERE Users.INTEREST IN (\"Coffee\") | INCLUDE UserID WHERE Users.COUNTRY NOT IN (\"DE\")",
            "country <> 'DE' AND interest <> 'Coffee'",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let rows = [["--filter", filter], ["--users-filter", sql]].map(|condition| {
            let output = folder.path().join(format!("{number}{}", condition[0]));
            let ended = segment(
                &output,
                &["--item", "COFFEE-01", "--item", "MUSIC-05", "--users", &users, condition[0], condition[1]],
            );
            assert_eq!(ended.code, 0, "{ended:?}");
            let part = files_below(&output).into_iter().find(|f| f.ends_with("part-00000.parquet")).unwrap();
            std::fs::read(output.join(part)).unwrap()
        });
        assert!(rows[0] == rows[1], "{filter} is not {sql}");
    }
}

#[test]
fn a_folder_of_requests_with_values_of_their_own_gives_a_file_for_each_in_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::create_dir_all(&input).unwrap();
    std::fs::write(
        input.join("a.json"),
        concat!(
            r#"{"itemId": "COFFEE-01", "filterValues": {"COUNTRY": "\"DE\""}}"#,
            "\n",
            r#"{"itemId": "MUSIC-05", "filterValues": {"COUNTRY": "\"FR\", \"DE\""}}"#,
            "\n\n",
            r#"{"itemId": "COFFEE-01", "filterValues": {"COUNTRY": "\"nowhere'; DROP TABLE users; --\""}}"#,
            "\n",
            r#"{"itemId": "COFFEE-01"}"#,
            "\n",
            r#"{"itemId": "COFFEE-01", "filterValues": {"country": "\"DE\""}}"#,
            "\n",
            r#"{"itemId": "never", "filterValues": {"COUNTRY": "\"DE\""}}"#,
            "\n",
        ),
    )
    .unwrap();
    std::fs::write(
        input.join("b.jsonl"),
        concat!(r#"{"itemId": "COFFEE-01", "filterValues": {"COUNTRY": "\"DE\""}}"#, "\n{\"itemId\": \n"),
    )
    .unwrap();
    std::fs::write(input.join("notes.txt"), "not a list").unwrap();
    let users = data("users.parquet");
    let place = input.display().to_string();
    let filter = ["--users", &users, "--filter", "INCLUDE UserID WHERE Users.COUNTRY IN ($COUNTRY)"];
    let arguments = ["--items", &place, "--format", "json-lines"].into_iter().chain(filter).collect::<Vec<_>>();
    let ended = segment(&output, &arguments);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.stdout.contains("items: asked=8 ok=3 empty=1 error=4"), "{}", ended.stdout);

    let country = countries();
    let [a, b] = ["a.json.out", "b.jsonl.out"].map(|name| lines(&output.join(name)));
    assert_eq!((a.len(), b.len()), (6, 2));
    let find = |lines: &[Value], item: &str, values: Value| -> Value {
        let input = if values.is_null() {
            json!({ "itemId": item })
        } else {
            json!({ "itemId": item, "filterValues": values })
        };
        lines.iter().find(|line| line["input"] == input).unwrap_or_else(|| panic!("{input}: {lines:?}")).clone()
    };
    let german = find(&a, "COFFEE-01", json!({ "COUNTRY": "\"DE\"" }));
    assert_eq!(users_of(&german).len(), 7);
    assert!(users_of(&german).iter().all(|user| country[user] == "DE"), "{german}");
    assert_eq!(german["error"], Value::Null);
    let both = users_of(&find(&a, "MUSIC-05", json!({ "COUNTRY": "\"FR\", \"DE\"" })));
    assert!(both.iter().all(|user| ["FR", "DE"].contains(&country[user].as_str())), "{both:?}");
    let nobody = find(&a, "COFFEE-01", json!({ "COUNTRY": "\"nowhere'; DROP TABLE users; --\"" }));
    assert_eq!((users_of(&nobody), &nobody["error"]), (vec![], &Value::Null));
    for (values, says) in [
        (Value::Null, "no value for $COUNTRY, which an INCLUDE needs"),
        (json!({ "country": "\"DE\"" }), "unknown key \"country\" in filterValues; the filter has $COUNTRY"),
    ] {
        let line = find(&a, "COFFEE-01", values);
        assert!(line["error"].as_str().unwrap().contains(says) && users_of(&line).is_empty(), "{line}");
    }
    assert!(find(&a, "never", json!({ "COUNTRY": "\"DE\"" }))["error"].as_str().unwrap().contains("not present"));
    // The same request in another file has the same answer; a line that is no JSON has a record.
    assert_eq!(find(&b, "COFFEE-01", json!({ "COUNTRY": "\"DE\"" }))["output"], german["output"]);
    assert!(b[1]["error"].as_str().unwrap().contains("not JSON; line=2") && b[1]["input"].is_null(), "{b:?}");
    assert_eq!(std::fs::metadata(output.join("_CHECK")).unwrap().len(), 0);

    // The same job is done; other values are another job.
    assert!(segment(&output, &arguments).stdout.contains("already done as version 1"));
    let text = std::fs::read_to_string(input.join("b.jsonl")).unwrap().replace("DE", "FR");
    std::fs::write(input.join("b.jsonl"), text).unwrap();
    assert!(segment(&output, &arguments).stdout.contains("committed version 2"));
    let french = users_of(&lines(&output.join("b.jsonl.out"))[0]);
    assert!(!french.is_empty() && french.iter().all(|user| country[user] == "FR"), "{french:?}");
}

#[test]
fn values_that_differ_from_line_to_line_need_json_lines_and_equal_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("q.json");
    let users = data("users.parquet");
    let place = list.display().to_string();
    let filter = ["--items", &place, "--users", &users, "--filter", "EXCLUDE UserID WHERE Users.COUNTRY IN ($C)"];
    let line = |item: &str, value: &str| format!("{}\n", json!({ "itemId": item, "filterValues": { "C": value } }));
    std::fs::write(&list, line("COFFEE-01", "\"DE\"") + &line("MUSIC-05", "\"FR\"")).unwrap();
    let refused = segment(&folder.path().join("out"), &filter);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{refused:?}");
    assert!(refused.stderr.contains("need --format json-lines"), "{refused:?}");
    assert!(!files_below(folder.path()).iter().any(|f| f.starts_with("out/_item_affinity/commits")));
    std::fs::write(&list, line("COFFEE-01", "\"DE\"") + &line("MUSIC-05", " \"DE\" ")).unwrap();
    let allowed = segment(&folder.path().join("out"), &filter);
    assert!(allowed.stdout.contains("items: asked=2 ok=2 empty=0 error=0"), "{allowed:?}");
    // Without a filter the values say nothing.
    let unused = segment(&folder.path().join("all"), &["--items", &place]);
    assert!(unused.stderr.contains("FILTER_VALUES_UNUSED: 2 lines have filterValues"), "{unused:?}");
}

#[test]
fn lines_have_the_produced_or_the_documented_shape_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("q.json");
    std::fs::write(&list, "{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"x\"}\n").unwrap();
    let place = list.display().to_string();
    let text = |shape: &str| {
        let output = folder.path().join(shape);
        let ended = segment(&output, &["--items", &place, "--format", "json-lines", "--users-key", shape]);
        assert_eq!(ended.code, 4, "{ended:?}");
        std::fs::read_to_string(output.join("q.json.out")).unwrap()
    };
    let users = users_of(&lines_of(&text("usersList"))[0]);
    let users = serde_json::to_string(&users).unwrap();
    let message = "not present when the solution version was trained; train again with interactions of this item";
    assert_eq!(
        text("usersList"),
        format!(
            "{{\"input\": {{\"itemId\": \"COFFEE-01\"}}, \"output\": {{\"usersList\": {users}}}, \"error\": null}}\n\
             {{\"input\": {{\"itemId\": \"x\"}}, \"output\": {{\"usersList\": []}}, \"error\": \"{message}\"}}\n"
        )
    );
    assert_eq!(
        text("recommendedUsers"),
        format!(
            "{{\"input\":{{\"itemId\":\"COFFEE-01\"}},\"output\":{{\"recommendedUsers\":{users}}}}}\n\
             {{\"input\":{{\"itemId\":\"x\"}},\"output\":{{\"recommendedUsers\":[]}},\"error\":\"{message}\"}}\n"
        )
    );
}

fn lines_of(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn filters_that_do_not_fit_are_refused_with_position_and_cure_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let users = data("users.parquet");
    for (filter, code, says) in [
        (
            "INCLUDE UserID WHERE Users.COUNTRYY IN (\"DE\")",
            3,
            "FILTER_FIELD: no column COUNTRYY in the users; position=22; choose one of [",
        ),
        ("INCLUDE UserID WHERE Users.COUNTRY > 3", 3, "a comparison asks for numbers, COUNTRY holds"),
        ("INCLUDE UserID WHERE Interactions.EVENT_TYPE IN (\"click\")", 3, "give it with --users"),
        ("INCLUDE UserID WHERE Users.COUNTRY LIKE \"D\"", 3, "FILTER_INVALID: found 'LIKE'; position=36; expected IN"),
        ("country = 'DE'", 3, "FILTER_INVALID: the character \\'; position=11"),
    ] {
        let output = folder.path().join("out");
        let ended = segment(&output, &["--quiet", "--item", "COFFEE-01", "--users", &users, "--filter", filter]);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.lines().count() == 1, "{says}: {}", ended.stderr);
        assert!(!files_below(&output).iter().any(|f| f.starts_with("_item_affinity/commits")), "{filter}");
    }
    for more in [vec![], vec!["--users", &users, "--users-filter", "true"]] {
        let filter = ["--item", "COFFEE-01", "--filter", "INCLUDE UserID WHERE Users.COUNTRY IN (\"DE\")"];
        let ended = segment(&folder.path().join("out"), &filter.into_iter().chain(more).collect::<Vec<_>>());
        assert_eq!(ended.code, 2, "{ended:?}");
    }
}

#[test]
fn more_than_five_fields_are_allowed_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.parquet").display().to_string();
    let query = format!(
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{}'; SELECT *, 1 AS a, 2 AS b, 3 AS c, 4.5 AS d, true AS e FROM u",
        data("users.parquet")
    );
    succeed(["sql", "--format", "parquet", "--output", &users, "-c", &query]);
    let filter = "INCLUDE UserID WHERE Users.A = 1 AND Users.B < 3 AND Users.C >= 3 AND Users.D = 4.5 AND Users.E = 1 AND \
                  Users.E IN (\"True\") AND Users.A IN (\"1\") AND Users.COUNTRY NOT IN (\"DE\")";
    let ended = segment(&folder.path().join("out"), &["--item", "COFFEE-01", "--users", &users, "--filter", filter]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.stdout.contains("ok=1") && ended.stderr.contains("FILTER_FIELDS: the filter asks for 6 fields"),
        "{ended:?}"
    );
}

#[test]
fn two_files_of_one_name_are_refused_since_outputs_are_named_after_them() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["in/a", "in/b"] {
        std::fs::create_dir_all(folder.path().join(part)).unwrap();
        std::fs::write(folder.path().join(part).join("q.json"), "{\"itemId\": \"COFFEE-01\"}\n").unwrap();
    }
    let place = folder.path().join("in").display().to_string();
    let ended = segment(&folder.path().join("out"), &["--quiet", "--items", &place, "--format", "json-lines"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("two files have this name") && ended.stderr.contains("in/b/q.json"), "{ended:?}");
}

#[tokio::test]
async fn a_prefix_of_names_in_an_object_store_is_every_file_that_begins_with_it() {
    let stores = Stores::in_memory();
    for (name, item) in [("in/may-1.json", "a"), ("in/may-2.json", "b"), ("in/june.json", "c"), ("in/may.csv", "d")] {
        let location = Location::parse(&format!("memory:///{name}")).unwrap();
        write_new_file(&stores, &location, format!("{{\"itemId\": \"{item}\"}}\n").into()).await.unwrap();
    }
    for (prefix, names) in [
        ("in/may-", vec!["may-1.json", "may-2.json"]),
        ("in/", vec!["june.json", "may-1.json", "may-2.json"]),
        ("in/june.json", vec!["june.json"]),
    ] {
        let location = Location::parse(&format!("memory:///{prefix}")).unwrap();
        let files = ItemList::read_files(&stores, &location).await.unwrap();
        assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), names, "{prefix}");
    }
    assert!(ItemList::read_files(&stores, &Location::parse("memory:///in/july").unwrap()).await.is_err());
}

const INTERACTIONS: &str = r#"{"type": "record", "name": "Interactions", "namespace": "com.amazonaws.personalize.schema",
  "fields": [{"name": "USER_ID", "type": "string"}, {"name": "ITEM_ID", "type": "string"},
    {"name": "TIMESTAMP", "type": "long"}, {"name": "EVENT_TYPE", "type": "string"},
    {"name": "EVENT_VALUE", "type": ["null", "float"]}], "version": "1.0"}"#;
const ITEMS: &str = r#"{"type": "record", "name": "Items", "namespace": "com.amazonaws.personalize.schema",
  "fields": [{"name": "ITEM_ID", "type": "string"}, {"name": "CATEGORY", "type": "string", "categorical": true},
    {"name": "PRICE", "type": ["null", "float"]}, {"name": "TITLE", "type": "string"}], "version": "1.0"}"#;
const USERS: &str = r#"{"type": "record", "name": "Users", "namespace": "com.amazonaws.personalize.schema",
  "fields": [{"name": "USER_ID", "type": "string"}, {"name": "COUNTRY", "type": ["string", "null"], "categorical": true}],
  "version": "1.0"}"#;

/// The built-in data as Amazon Personalize has them: CSV with schemas, and the same rows as Parquet.
fn personalize_data(folder: &Path) {
    for (name, schema) in [("interactions", INTERACTIONS), ("items", ITEMS), ("users", USERS)] {
        std::fs::write(folder.join(format!("{name}.schema.json")), schema).unwrap();
    }
    for (name, query) in [
        (
            "interactions",
            "SELECT user_id AS \"USER_ID\", item_id AS \"ITEM_ID\", to_unixtime(timestamp) AS \"TIMESTAMP\", event_type AS \
             \"EVENT_TYPE\", CAST(CASE WHEN event_type = 'purchase' THEN 2.5 END AS FLOAT) AS \"EVENT_VALUE\" FROM t",
        ),
        (
            "items",
            "SELECT item_id AS \"ITEM_ID\", category AS \"CATEGORY\", CAST(CASE WHEN item_id LIKE '%5' THEN NULL ELSE \
             length(title) + 0.5 END AS FLOAT) AS \"PRICE\", title || ', \"new\"' AS \"TITLE\" FROM t",
        ),
        ("users", "SELECT user_id AS \"USER_ID\", country AS \"COUNTRY\" FROM t"),
    ] {
        let table = format!(
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'; {query}",
            data(&format!("{name}.parquet"))
        );
        for format in ["csv", "parquet"] {
            let file = folder.join(format!("{name}.{format}")).display().to_string();
            succeed(["sql", "--threads", "1", "--format", format, "--output", &file, "-c", &table]);
        }
    }
}

/// The names and bytes of a version's parts.
fn parts(solution: &Path) -> Vec<(String, Vec<u8>)> {
    let files =
        files_below(solution).into_iter().filter(|f| f.starts_with("versions") && f.ends_with("part-00000.parquet"));
    files
        .map(|file| {
            let table = file.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            (table, std::fs::read(solution.join(file)).unwrap())
        })
        .collect()
}

#[test]
fn csv_with_schemas_trains_the_very_model_of_the_same_rows_in_parquet() {
    let folder = tempfile::tempdir().unwrap();
    personalize_data(folder.path());
    let place = |name: &str| folder.path().join(name).display().to_string();
    let of = |command: &str, kind: &str, solution: Option<&str>, more: &[&str]| {
        let mut arguments = vec![command.to_owned()];
        for name in ["interactions", "items", "users"] {
            if command == "refresh" && name != "interactions" {
                continue;
            }
            arguments.extend([format!("--{name}"), place(&format!("{name}.{kind}"))]);
            if kind == "csv" {
                arguments.extend([format!("--{name}-schema"), place(&format!("{name}.schema.json"))]);
            }
        }
        arguments.extend(solution.into_iter().flat_map(|solution| ["--solution".to_owned(), place(solution)]));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        cli(arguments)
    };
    // Titles are plain strings in the schema, so they are no attributes of the Parquet files either.
    let recipe = ["--hidden-dimension", "32", "--event-value-threshold", "2"];
    for kind in ["csv", "parquet"] {
        let excluded = ["--exclude-columns", "title"];
        let excluded: &[&str] = if kind == "csv" { &[] } else { &excluded };
        let ended = of("train", kind, Some(kind), &[&recipe[..], excluded].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let [csv, parquet] = ["csv", "parquet"].map(|kind| parts(&folder.path().join(kind)));
    assert!(csv.len() >= 3, "{}", csv.len());
    assert!(
        csv == parquet,
        "{:?} {:?}",
        csv.iter().map(|p| &p.0).collect::<Vec<_>>(),
        parquet.iter().map(|p| &p.0).collect::<Vec<_>>()
    );
    assert!(of("train", "csv", Some("csv"), &recipe).stdout.contains("already done as version 1"));
    // A schema of another meaning is another job.
    let numbers = ITEMS.replace("\"string\", \"categorical\": true", "\"string\"");
    std::fs::write(place("items.schema.json"), numbers).unwrap();
    let other = of("train", "csv", Some("csv"), &recipe);
    assert!(other.stdout.contains("committed version 2"), "{other:?}");
    assert!(other.stderr.contains("columns=[CATEGORY, TITLE]"), "{other:?}");

    let report = of("check", "csv", None, &["--format", "json"]);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["users"], &report["items"]), (&json!(1_500), &json!(80)));
    let [csv, parquet] = ["csv", "parquet"].map(|kind| {
        let exclude: &[&str] = if kind == "parquet" { &["--exclude-columns", "title,category"] } else { &[] };
        let ended = of("evaluate", kind, None, &[&["--hidden-dimension", "32", "--format", "json"], exclude].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        let mut figures: Value = serde_json::from_str(&ended.stdout).unwrap();
        figures.as_object_mut().unwrap().retain(|name, _| name != "seconds" && name != "data");
        figures
    });
    assert_eq!(csv, parquet);
    let plain = |kind: &str| {
        let mut arguments =
            vec!["train".to_owned(), "--quiet".to_owned(), "--hidden-dimension".to_owned(), "32".to_owned()];
        arguments.extend([
            "--interactions".to_owned(),
            place(&format!("interactions.{kind}")),
            "--solution".to_owned(),
            place("plain"),
        ]);
        cli(arguments)
    };
    assert_eq!(plain("parquet").code, 0);
    // Users as CSV say who may be in a segment, as in Parquet.
    let [csv, parquet] = ["csv", "parquet"].map(|kind| {
        let (users, schema) = (place(&format!("users.{kind}")), place("users.schema.json"));
        let filter =
            ["--item", "COFFEE-01", "--users", &users, "--filter", "EXCLUDE UserID WHERE Users.COUNTRY IN (\"DE\")"];
        let more: &[&str] = if kind == "csv" { &["--users-schema", &schema] } else { &[] };
        let output = folder.path().join(format!("segments.{kind}"));
        let ended = segment(&output, &[&filter[..], more].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        let part = files_below(&output).into_iter().find(|f| f.ends_with("part-00000.parquet")).unwrap();
        std::fs::read(output.join(part)).unwrap()
    });
    assert!(csv == parquet);
    let refreshed = of("refresh", "csv", Some("plain"), &[]);
    assert!(refreshed.code == 0 && refreshed.stdout.contains("committed version 2"), "{refreshed:?}");
}

#[test]
fn csv_that_is_not_what_its_schema_says_is_refused_with_row_and_column_and_without_values() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(place("schema.json"), INTERACTIONS.replace("[\"null\", \"float\"]", "\"float\"")).unwrap();
    const HEADER: &str = "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE\n";
    let good =
        (0..3_000).map(|n| format!("canary-{},item-{},{},view,1.5\n", n % 100, (n * 7) % 50, 1_767_225_600 + n * 60));
    let good = good.collect::<String>();
    let check = |bytes: &[u8], schema: &str| {
        std::fs::write(place("interactions.csv"), bytes).unwrap();
        cli(["check", "--quiet", "--interactions", &place("interactions.csv"), "--interactions-schema", &place(schema)])
    };
    assert_eq!(check(format!("{HEADER}{good}").as_bytes(), "schema.json").code, 0);
    assert_eq!(
        check(format!("\u{feff}{}", format!("{HEADER}{good}").replace('\n', "\r\n")).as_bytes(), "schema.json").code,
        0
    );
    for (rows, says) in [
        ("canary-1,item-1,1767225600,view\n", "incorrect number of fields for line 3002, expected 5 got 4"),
        ("canary-1,item-1,1767225600,view,1,canary\n", "incorrect number of fields for line 3002, expected 5 got 6"),
        ("canary-1,item-1,canary,view,1\n", "a value that is no long; file=FILE row=3000 column=TIMESTAMP"),
        ("canary-1,item-1,1.5,view,1\n", "a value that is no long"),
        ("canary-1,item-1,1767225600,view,canary\n", "column=EVENT_VALUE"),
    ] {
        let text = format!("{HEADER}{good}{rows}");
        let mut command =
            vec!["check".to_owned(), "--quiet".to_owned(), "--event-value-threshold".to_owned(), "0".to_owned()];
        std::fs::write(place("interactions.csv"), text).unwrap();
        command.extend([
            "--interactions".to_owned(),
            place("interactions.csv"),
            "--interactions-schema".to_owned(),
            place("schema.json"),
        ]);
        let ended = cli(command);
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{says}: {ended:?}");
        let says = says.replace("FILE", &place("interactions.csv"));
        assert!(
            ended.stderr.starts_with("error: ERR_CSV: ") && ended.stderr.contains(&says),
            "{says}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    }
    for (bytes, says) in [
        (
            format!("ITEM_ID,USER_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE\n{good}").into_bytes(),
            "the header is [ITEM_ID, USER_ID",
        ),
        (format!("{}{good}", HEADER.replace("USER_ID", "\"USER_ID\"")).into_bytes(), "without quotes"),
        (good.clone().into_bytes(), "the header is ["),
        (b"\xff\xfeU\0S\0".to_vec(), "not UTF-8"),
        (std::fs::read(data("interactions.parquet")).unwrap(), "leave the schema out"),
        (format!("{HEADER}\"{good}").into_bytes(), "incorrect number of fields"),
        ([HEADER.as_bytes(), b"u,\xff,1767225600,view,1\n"].concat(), "invalid UTF-8 data for line 2"),
    ] {
        let ended = check(&bytes, "schema.json");
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{says}: {ended:?}");
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
    // Absent ids are counted as in Parquet; absent values where the schema has no null are not.
    let ended = check(format!("{HEADER}{good},item-1,1767225600,view,1\n").as_bytes(), "schema.json");
    assert!(ended.stderr.contains("ERR_TOO_MANY_BAD_ROWS: 1 of 3001 rows rejected (id_null 1)"), "{ended:?}");
    std::fs::write(place("broken.json"), INTERACTIONS.replace("com.amazonaws", "org.example")).unwrap();
    let ended = check(good.as_bytes(), "broken.json");
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.starts_with("error: ERR_SCHEMA_FILE: \"namespace\" is "), "{ended:?}");
}
