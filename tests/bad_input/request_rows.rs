//! B59 to B66 and B76 to B81: item lists, segment requests, SQL.

use super::catalogue::{Case, Row, row};
use crate::common::{data, solution};

pub(super) const ROWS: &[Row] = &[
    row(59, "list that is empty, blank, CRLF, with a byte order mark, UTF-16", |case| {
        for (name, bytes) in [("empty.json", &b""[..]), ("blank.json", b"\n \r\n\t\n")] {
            let list = case.file(name, bytes);
            refuses(case, &list, &["ITEM_LIST_INVALID: ", "empty", name]);
        }
        for bytes in [
            &b"{\"itemId\": \"COFFEE-01\"}\r\n{\"itemId\": \"MUSIC-05\"}\r\n"[..],
            b"\xEF\xBB\xBF{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"MUSIC-05\"}",
        ] {
            let list = case.file("q.json", bytes);
            asks(case, &list, 0, &["items: asked=2 ok=2 empty=0 error=0"]);
        }
        let list = case.file("q.json", "{\"itemId\": 1}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
        refuses(case, &list, &["ITEM_LIST_INVALID: "]);
        let list = case.file(
            "q.json",
            [&b"\xff\xfe"[..], &"{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat(),
        );
        refuses(case, &list, &["ITEM_LIST_INVALID: ", "not UTF-8 (UTF-16?)"]);
    }),
    row(60, "line that is no JSON, comma at the end, cut; one array", |case| {
        let list = case.file(
            "q.json",
            "{\"itemId\": \"COFFEE-01\"}\nCOFFEE\n{\"itemId\": \"a\",}\n{\"itemId\":\n{\"itemId\": \"MUSIC-05\"}\n",
        );
        asks(
            case,
            &list,
            4,
            &[
                "asked=5 ok=2 empty=0 error=3",
                "ITEM_LINE_INVALID: not JSON; line=2 column=1",
                "line=3 column=16",
                "line=4 column=",
            ],
        );
        let list = case.file("q.json", "[{\"itemId\": \"COFFEE-01\"}]");
        refuses(case, &list, &["ITEM_LIST_INVALID: ", "one object a line"]);
    }),
    row(61, "itemId missing, null, nested, in other case, twice, a number", |case| {
        let lines = [
            "{\"itemId\": \"COFFEE-01\"}",
            "{}",
            "{\"itemId\": null}",
            "{\"itemId\": {\"id\": \"a\"}}",
            "{\"itemid\": \"COFFEE-01\"}",
            "{\"itemId\": \"a\", \"itemId\": \"COFFEE-01\"}",
            "{\"itemId\": 7}",
            "{\"userId\": \"105\"}",
            "{\"itemId\": \" \"}",
            "7",
        ];
        let list = case.file("q.json", lines.join("\n"));
        let says = [
            "asked=10 ok=1 empty=0 error=9",
            "no itemId; line=2",
            "itemId is not a string; line=3",
            "itemId is not a string; line=4",
            "no itemId, only in another case; line=5",
            "itemId comes 2 times; line=6",
            "ITEM_NOT_IN_MODEL: item '7'",
            "segments are asked for by item; line=8",
            "itemId is empty; line=9",
            "no itemId; line=10",
            "ITEM_ID_NUMBER: 1 item ids are numbers",
        ];
        asks(case, &list, 4, &says);
    }),
    row(62, "duplicates, 501 items", |case| {
        let list = case.file("q.json", "{\"itemId\": \"COFFEE-01\"}\n".repeat(3));
        asks(case, &list, 0, &["asked=3 ok=3 empty=0 error=0", "ITEM_DUPLICATE: 2 items"]);
        let out = std::fs::read_to_string(case.path("out/q.json.out")).unwrap();
        if out.lines().count() != 3 {
            case.failures.push(format!("not one line for each input line: {out}"));
        }
        let many = (0..501).map(|n| format!("{{\"itemId\": \"i{n}\"}}\n")).collect::<String>();
        let list = case.file("many.json", &many);
        refuses(case, &list, &["ITEM_LIST_TOO_LONG: 501 items", "500", "many.json", "--max-items"]);
    }),
    row(63, "unknown item", |case| {
        let list = case.file("q.json", "{\"itemId\": \"NEVER\"}\n{\"itemId\": \"COFFEE-01\"}\n");
        asks(
            case,
            &list,
            4,
            &["ok=1", "ITEM_NOT_IN_MODEL: item 'NEVER': not present when the solution version was trained"],
        );
    }),
    row(64, "line of 10 MB, deep nesting, no newline for 1 GB", |case| {
        let long = format!("{{\"itemId\": \"{}\"}}\n{{\"itemId\": \"COFFEE-01\"}}\n", "x".repeat(10 << 20));
        let list = case.file("long.json", long);
        asks(case, &list, 4, &["ok=1", "ITEM_LINE_INVALID: longer than 1 MiB; line=1"]);
        let deep = format!("{}\n{{\"itemId\": {}1{}}}\n", "[".repeat(1_000_000), "[".repeat(40), "]".repeat(40));
        let list = case.file("deep.json", format!("{{\"itemId\": \"COFFEE-01\"}}\n{deep}"));
        asks(case, &list, 4, &["asked=3 ok=1", "more than 32 brackets inside each other; line=2", "line=3"]);
        let huge = case.path("huge.json");
        std::fs::File::create(&huge).unwrap().set_len(1 << 30).unwrap();
        let ended = case.run(&["segment", "--quiet", "--solution", solution(), "--items", &huge, "--output", "out"]);
        case.was_refused(&ended, ended.code, &["1 GB"], &["ERR_TOO_LARGE: ", "1073741824"]);
        if ![3, 8].contains(&ended.code) {
            case.fail(&["1 GB"], &ended, "another exit code than 3 or 8");
        }
    }),
    row(65, "num_results out of range, more than there are users", |case| {
        for value in ["0", "-1", "5000001", "1.5", "1e308", "ten", ""] {
            let argument = format!("--num-results={value}");
            case.refuses(
                2,
                &["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "out", &argument],
                &["--num-results"],
            );
        }
        let arguments =
            ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "out", "--num-results", "5000000"];
        case.works(&arguments, &["NUM_RESULTS: ", "1,500 rows"]);
    }),
    row(66, "users filter that does not parse, unknown column", |case| {
        let users = data("users.parquet");
        let arguments = [
            "segment",
            "--quiet",
            "--solution",
            solution(),
            "--item",
            "COFFEE-01",
            "--output",
            "out",
            "--users",
            &users,
        ];
        for (filter, says) in [
            ("country = ", "USERS_FILTER_INVALID: "),
            ("countryy = 'DE'", "USERS_FILTER_INVALID: "),
            ("country = 'DE' ) OR (1=1", "USERS_FILTER_INVALID: "),
            ("country + 1", "USERS_FILTER_INVALID: "),
        ] {
            case.refuses(3, &[&arguments[..], &["--users-filter", filter]].concat(), &[says, "country"]);
        }
        for (filter, says) in [
            ("INCLUDE UserID WHERE Users.COUNTRY IS NULL", "position=36"),
            ("INCLUDE UserID WHERE Users.AGE = 3", "FILTER_FIELD: no column AGE in the users; position=22"),
        ] {
            case.refuses(3, &[&arguments[..], &["--filter", filter]].concat(), &[says]);
        }
    }),
    row(76, "arguments of item_affinity_segments", |case| {
        let many = format!("SELECT * FROM item_affinity_segments([{}'x'])", "'a',".repeat(600));
        let distinct = format!(
            "SELECT * FROM item_affinity_segments([{}'x'])",
            (0..600).map(|n| format!("'a{n}',")).collect::<String>()
        );
        for (query, says) in [
            ("SELECT * FROM item_affinity_segments()", "(items [, num_results])"),
            ("SELECT * FROM item_affinity_segments(['a'], 1, 2, 3)", "(items [, num_results])"),
            ("SELECT * FROM item_affinity_segments(NULL)", "NULL"),
            ("SELECT * FROM item_affinity_segments(['a'], NULL)", "NULL"),
            ("SELECT * FROM item_affinity_segments((SELECT 1 AS a, 2 AS b))", "item_id"),
            ("SELECT * FROM item_affinity_segments([])", "empty"),
            ("SELECT * FROM item_affinity_segments(['a', NULL])", "NULL"),
            (&distinct, "max_items"),
            ("SELECT * FROM (VALUES ('a')) AS t(c), item_affinity_segments(t.c)", "item_affinity_segments"),
        ] {
            case.refuses(3, &["sql", "--solution-version", solution(), "-c", query], &[says]);
        }
        case.works(&["sql", "--solution-version", solution(), "-c", &many], &["item_id", "rank", "user_id", "score"]);
    }),
    row(77, "solution version that is missing or not ours", |case| {
        let foreign = case.file("foreign/data.txt", "not ours");
        let folder = foreign.trim_end_matches("/data.txt");
        let missing = format!("{}@9", solution());
        for (version, says) in [(missing.as_str(), "version 9"), ("nowhere", "nowhere"), (folder, "foreign")] {
            let query = "SELECT * FROM item_affinity_segments(['COFFEE-01'])";
            case.refuses(3, &["sql", "--solution-version", version, "-c", query], &[says]);
            case.refuses(
                3,
                &["segment", "--quiet", "--solution", version, "--item", "COFFEE-01", "--output", "out"],
                &[says],
            );
        }
    }),
    row(78, "COPY, locations outside the roots, SET datafusion.*", |case| {
        case.environment.push(("ITEM_AFFINITY_ROOT", case.path("root")));
        for query in [
            "COPY (SELECT 1 AS a) TO '/etc/x' STORED AS PARQUET",
            "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '/etc/x' STORED AS PARQUET",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'file:///etc/passwd'",
            "SET datafusion.execution.batch_size = 1",
            "SELECT * FROM item_affinity_segments('/etc/passwd')",
        ] {
            case.refuses(3, &["sql", "--solution-version", solution(), "-c", query], &["ERR_SQL_POLICY: "]);
        }
        case.refuses(3, &["sql", "-c", "SELECT * FROM '/etc/passwd'"], &["not found"]);
    }),
    row(79, "10 MB of SQL, 10,000 parentheses or UNIONs, 5,000 ANDs", |case| {
        for (name, query) in [
            ("long.sql", format!("SELECT '{}'", "x".repeat(10 << 20))),
            ("deep.sql", format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))),
            ("unions.sql", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(10_000))),
            ("and.sql", format!("SELECT 1 WHERE 1 = 1{}", " AND 2 = 2".repeat(5_000))),
        ] {
            let file = case.file(name, query);
            let arguments = ["sql", "--output", "result", "-f", &file];
            let ended = case.run(&arguments);
            if ![0, 3, 8].contains(&ended.code) {
                case.fail(&arguments, &ended, "another exit code than 0, 3 or 8");
            }
        }
    }),
    row(80, "LIMIT 0, -1, 9e18; cross join; endless series", |case| {
        let call = "SELECT item_id FROM item_affinity_segments(['COFFEE-01', 'MUSIC-05'])";
        let sql = ["sql", "--solution-version", solution(), "--format", "csv", "-c"];
        case.works(&[&sql[..], &[&format!("{call} LIMIT 0")]].concat(), &["item_id"]);
        case.works(&[&sql[..], &[&format!("{call} LIMIT 9000000000000000000")]].concat(), &["MUSIC-05"]);
        case.refuses(3, &[&sql[..], &[&format!("{call} LIMIT -1")]].concat(), &["LIMIT"]);
        let cross = "SELECT count(*) AS n FROM item_affinity_segments(['COFFEE-01']) a CROSS JOIN item_affinity_segments(['MUSIC-05']) b";
        case.works(&[&sql[..], &[cross]].concat(), &["n\n625"]);
        let sorted =
            "SELECT a.value FROM generate_series(1, 1000000000000000000) AS a ORDER BY a.value DESC LIMIT 100000000000";
        let limited = [&["sql", "--memory-limit", "50MB", "--format", "csv", "-c"][..], &[sorted]].concat();
        case.refuses(8, &limited, &["error: "]);
    }),
    row(81, "ids with quotes and SQL in them", |case| {
        let id = "'; DROP TABLE users; --";
        let list = case.file("q.json", serde_json::json!({ "itemId": id }).to_string());
        asks(case, &list, 4, &["error=1", "ITEM_NOT_IN_MODEL: item '\\'; DROP"]);
        let query =
            format!("SELECT count(*) AS n FROM item_affinity_segments(['{}', 'COFFEE-01'])", id.replace('\'', "''"));
        case.works(&["sql", "--solution-version", solution(), "--format", "csv", "-c", &query], &["n\n25"]);
    }),
];

/// A job of Amazon Personalize over this list.
fn asks(case: &mut Case, list: &str, code: i32, says: &[&str]) {
    let output = case.path("out");
    // The report may hold user ids in no way; the segments are in files.
    case.ends(
        code,
        &["segment", "--solution", solution(), "--items", list, "--output", &output, "--format", "json-lines"],
        says,
    );
}

fn refuses(case: &mut Case, list: &str, says: &[&str]) {
    let output = case.path("refused");
    case.refuses(3, &["segment", "--quiet", "--solution", solution(), "--items", list, "--output", &output], says);
}
