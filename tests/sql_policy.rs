//! What SQL may reach and change from the command line (P30), in the words of a person who tries to get around it.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::{Ended, Fault, MiniS3, data, item_affinity, run, solution};

/// A working directory with one table, beside a folder that SQL has no business in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["here/data", "private"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
            std::fs::copy(data("items.parquet"), folder.path().join(name).join("items.parquet")).unwrap();
        }
        std::fs::write(folder.path().join("private/items.json"), r#"{"itemId": "COFFEE-01"}"#).unwrap();
        symlink(folder.path().join("private"), folder.path().join("here/link")).unwrap();
        symlink(folder.path().join("private/items.parquet"), folder.path().join("here/data/link.parquet")).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().canonicalize().unwrap().join(name).display().to_string()
    }

    /// Runs `sql` in the working directory; nothing but the arguments says what may be read.
    fn sql(&self, options: &[&str], query: &str) -> Ended {
        let mut command = item_affinity();
        command.env_remove("ITEM_AFFINITY_ROOT").current_dir(self.path("here"));
        run(command.args(["sql", "--format", "csv"]).args(options).args(["-c", query]))
    }

    fn refuses(&self, options: &[&str], query: &str, says: &str) {
        let ended = self.sql(options, query);
        assert_eq!(ended.code, 3, "{query}: {ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.lines().count() == 1, "{query}: {}", ended.stderr);
        // A header may be there before the first row is asked for.
        assert!(ended.stdout.lines().count() <= 1, "{query}: {}", ended.stdout);
    }
}

fn table(location: &str) -> String {
    format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{location}'; SELECT count(*) AS n FROM t")
}

#[test]
fn p30_sql_reads_the_working_directory_and_what_the_command_line_names() {
    let place = Place::new();
    let private = place.path("private");
    for (options, location) in [
        (&[][..], "data/items.parquet"),
        (&[], "data/../data/items.parquet"),
        (&["--root", &private], &place.path("private/items.parquet")),
        (&["--root", &private], "link/items.parquet"),
        (&["--set", &format!("items={private}/items.parquet")], "${items}"),
    ] {
        let ended = place.sql(options, &table(location));
        assert_eq!((ended.code, ended.stdout.as_str()), (0, "n\n80\n"), "{location}: {}", ended.stderr);
    }
    // The version that is named is read, wherever it is; --root leaves no more than it says.
    let segments = "SELECT count(*) AS n FROM item_affinity_segments(['COFFEE-01'], 3)";
    let ended = place.sql(&["--solution-version", solution(), "--root", &private], segments);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "n\n3\n"), "{}", ended.stderr);
    place.refuses(&["--root", &private], &table("data/items.parquet"), "ERR_SQL_POLICY: ");
}

#[test]
fn p30_no_spelling_of_a_location_leads_out_of_the_roots() {
    let place = Place::new();
    let private = place.path("private/items.parquet");
    for location in [
        private.clone(),
        format!("file://{private}"),
        format!("FILE://{private}"),
        format!("file://{}/%2e%2e/private/items.parquet", place.path("here")),
        format!("/proc/self/root{private}"),
        "../private/items.parquet".to_owned(),
        "data/../../private/items.parquet".to_owned(),
        "../*/items.parquet".to_owned(),
        "link/items.parquet".to_owned(),
        "link/".to_owned(),
        "link/../private/items.parquet".to_owned(),
        "data/link.parquet".to_owned(),
        "/proc/self/environ".to_owned(),
        "/dev/stdin".to_owned(),
        "/".to_owned(),
        "/etc/passwd".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "s3://other/items.parquet".to_owned(),
    ] {
        place.refuses(&[], &table(&location), "ERR_SQL_POLICY: ");
    }
    // A folder that is read whole does not open what a link in it names.
    place.refuses(&[], &table("data/"), "ERR_SQL_POLICY: ");
    // With its columns given, a table is made without a look at its files.
    let csv = "CREATE EXTERNAL TABLE t (line VARCHAR) STORED AS CSV LOCATION '/etc/passwd'; SELECT * FROM t";
    place.refuses(&[], csv, "ERR_SQL_POLICY: ");
    place.refuses(&[], "SELECT * FROM '/etc/passwd'", "not found");
}

#[test]
fn p30_the_arguments_of_functions_are_held_to_the_same_roots() {
    let place = Place::new();
    let (list, version) = (place.path("private/items.json"), place.path("private/solution"));
    let asks = ["--solution-version", solution()];
    for query in [
        format!("SELECT * FROM item_affinity_segments('{list}')"),
        format!("SELECT * FROM item_affinity_explain('file://{list}')"),
        "SELECT * FROM item_affinity_segments('link/items.json')".to_owned(),
        "SELECT * FROM item_affinity_segments('link/')".to_owned(),
        format!("SELECT * FROM item_affinity_segments(['COFFEE-01'], solution_version => '{version}')"),
        format!("SET item_affinity.solution_version = '{version}'; SELECT * FROM item_affinity_items()"),
        format!("SET item_affinity.solution_version = '{version}'; SELECT item_affinity_score('u', 'i') AS s"),
        format!("SELECT * FROM item_affinity_versions('{version}')"),
        format!("SELECT * FROM item_affinity_output('{version}@1')"),
        "SELECT * FROM item_affinity_output('s3://other/segments')".to_owned(),
    ] {
        place.refuses(&asks, &query, "ERR_SQL_POLICY: ");
    }
    // The same list is read where it may be.
    let ended = place.sql(
        &["--solution-version", solution(), "--root", &place.path("private")],
        &format!("SELECT count(*) AS n FROM item_affinity_segments('{list}', 2)"),
    );
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "n\n2\n"), "{}", ended.stderr);
}

#[test]
fn p30_sql_writes_only_when_allowed_and_below_the_same_roots() {
    let place = Place::new();
    let target = place.path("here/out.parquet");
    for query in [
        "COPY (SELECT 1 AS a) TO 'out.parquet' STORED AS PARQUET",
        "EXPLAIN COPY (SELECT 1 AS a) TO 'out.parquet' STORED AS PARQUET",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO 'out.parquet' STORED AS PARQUET",
        "CREATE EXTERNAL TABLE t (a BIGINT) STORED AS PARQUET LOCATION 'out/'; PREPARE p AS INSERT INTO t VALUES (1)",
        "CREATE EXTERNAL TABLE t (a BIGINT) STORED AS PARQUET LOCATION 'out/'; INSERT INTO t VALUES (1)",
    ] {
        place.refuses(&[], query, "--allow-copy");
        place.refuses(&["--allow-ddl"], query, "--allow-copy");
    }
    assert!(!Path::new(&target).exists());
    let ended = place.sql(&["--allow-copy"], "COPY (SELECT 1 AS a) TO 'out.parquet' STORED AS PARQUET");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(Path::new(&target).exists());
    symlink(place.path("private/new.parquet"), place.path("here/dangling.parquet")).unwrap();
    for location in
        ["../out.parquet", "link/out.parquet", "dangling.parquet", "/tmp/p30-out.parquet", "s3://other/x.parquet"]
    {
        let query = format!("COPY (SELECT 1 AS a) TO '{location}' STORED AS PARQUET");
        place.refuses(&["--allow-copy"], &query, "ERR_SQL_POLICY: ");
    }
    assert_eq!(std::fs::read_dir(place.path("private")).unwrap().count(), 2);
}

#[test]
fn p30_tables_in_memory_and_settings_of_the_engine_need_their_own_word() {
    let place = Place::new();
    for query in [
        "CREATE VIEW v AS SELECT 1 AS a",
        "CREATE TABLE v AS SELECT 1 AS a",
        "CREATE SCHEMA v",
        "DROP TABLE IF EXISTS v",
        "SET datafusion.execution.batch_size = 10",
        "SET datafusion.runtime.temp_directory = '/'",
        "RESET datafusion.execution.batch_size",
    ] {
        place.refuses(&["--allow-copy"], query, "--allow-ddl");
        assert_eq!(place.sql(&["--allow-ddl"], query).code, 0, "{query}");
    }
    let ended = place.sql(&[], "SET item_affinity.num_results = 3; SHOW item_affinity.num_results");
    assert!(ended.code == 0 && ended.stdout.contains('3'), "{ended:?}");
    // A statement that is refused stops the text before anything after it runs.
    place.refuses(&[], "CREATE VIEW v AS SELECT 1 AS a; SELECT 7 AS a", "--allow-ddl");
}

#[test]
fn p30_other_buckets_and_prefixes_get_no_request() {
    let server = MiniS3::start(|_, _| Fault::None);
    let place = Place::new();
    let sql = |query: &str| {
        let mut command = item_affinity();
        command.env("ITEM_AFFINITY_ROOT", "s3://lake/open/").current_dir(place.path("here")).envs(server.environment());
        run(command.args(["sql", "--format", "csv", "--allow-copy", "-c", query]))
    };
    let written = sql("COPY (SELECT 5 AS a) TO 's3://lake/open/t.parquet' STORED AS PARQUET");
    assert_eq!(written.code, 0, "{written:?}");
    let read = sql("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://lake/open/t.parquet'; SELECT a FROM t");
    assert_eq!(read.stdout, "a\n5\n", "{read:?}");
    let before = server.requests();
    for location in ["s3://lake/t.parquet", "s3://lake/open-2/t.parquet", "s3://other/open/t.parquet", "s3://lake/"] {
        for query in [table(location), format!("COPY (SELECT 5 AS a) TO '{location}' STORED AS PARQUET")] {
            let ended = sql(&query);
            assert!(ended.code == 3 && ended.stderr.contains("ERR_SQL_POLICY: "), "{query}: {ended:?}");
        }
    }
    assert_eq!(server.requests(), before);
}
