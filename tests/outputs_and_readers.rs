//! Outputs cannot attack who reads them (P34), and are private to who made them (P36).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{item_affinity, run, succeed};

/// Ids that a terminal, a spreadsheet or a line reader would act upon.
const HOSTILE: [&str; 8] = ["=1+1", "+cmd", "-2+3", "@sum", "\tx", "\u{1b}[2Jred", "a\nb\"c,d", "\u{202e}gnp.exe"];

fn query() -> String {
    let rows = HOSTILE.iter().enumerate().map(|(n, id)| format!("({n}, '{id}', -{n})")).collect::<Vec<_>>();
    format!("SELECT id, score FROM (VALUES {}) AS t(n, id, score) ORDER BY n", rows.join(", "))
}

#[test]
fn p34_csv_holds_no_formula_and_says_so_and_numbers_stay_numbers() {
    let ended = succeed(["sql", "--format", "csv", "-c", &query()]);
    let expected = "id,score\n'=1+1,0\n'+cmd,-1\n'-2+3,-2\n'@sum,-3\n'\tx,-4\n\u{1b}[2Jred,-5\n\"a\nb\"\"c,d\",-6\n\u{202e}gnp.exe,-7\n";
    assert_eq!(ended.stdout, expected);
    assert!(ended.stderr.contains("warning: 5 texts begin like a formula"), "{}", ended.stderr);
    let harmless = succeed(["sql", "--format", "csv", "-c", "SELECT 'a=b' AS id, -1 AS n, CAST(NULL AS VARCHAR) AS x"]);
    assert_eq!((harmless.stdout.as_str(), harmless.stderr.as_str()), ("id,n,x\na=b,-1,\n", ""));
}

#[test]
fn p34_json_and_parquet_hold_ids_as_they_are_and_tables_send_no_controls() {
    let lines = succeed(["sql", "--format", "ndjson", "-c", &query()]).stdout;
    let ids = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["id"].as_str().unwrap().to_owned()
    });
    assert_eq!(ids.collect::<Vec<_>>(), HOSTILE);
    assert!(!lines.contains('\u{1b}'));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids.parquet").display().to_string();
    succeed(["sql", "--format", "parquet", "--output", &file, "-c", &query()]);
    let read = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{file}'; SELECT id FROM t");
    let back = succeed(["sql", "--format", "ndjson", "-c", &read]).stdout;
    let ids = back.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), HOSTILE);

    let table = succeed(["sql", "-c", &query()]).stdout;
    assert!(!table.chars().any(|c| c.is_control() && c != '\n') && table.contains("[2Jred"), "{table:?}");
}

/// P36: `--mode` is what everything gets, whoever makes it, and nothing else.
#[test]
fn p36_a_mode_that_was_asked_for_is_that_of_every_file_and_folder() {
    for (asked, files, folders) in [("640", 0o640, 0o750), ("0664", 0o664, 0o775), ("600", 0o600, 0o700)] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("made").join(name).display().to_string();
        let with = |arguments: &[&str]| {
            let ended = run(item_affinity().args(["--mode", asked]).args(arguments));
            assert!(matches!(ended.code, 0 | 4), "{arguments:?}: {ended:?}");
        };
        with(&["demo", "--quiet", "--dir", &path("demo")]);
        with(&["sql", "--output", &path("demo/result.csv"), "-c", "SELECT 1 AS a"]);
        let copy = format!("COPY (SELECT 1 AS a) TO '{}' STORED AS PARQUET", path("copies/a.parquet"));
        with(&["sql", "--allow-copy", "-c", &copy]);
        let solution = path("demo/solution");
        let items = ["--item", "COFFEE-01", "--item", "nowhere"];
        let segment = ["segment", "--solution", &solution, "--output", &path("lines"), "--format", "json-lines"];
        with(&[&segment[..], &items].concat());
        with(&[
            "evaluate",
            "--interactions",
            &path("demo/data/interactions.parquet"),
            "--hidden-dimension",
            "32",
            "--format",
            "parquet",
            "--output",
            &path("quality/q.parquet"),
        ]);
        let job = folder.path().join("job.toml");
        let text = format!(
            "mode = \"{asked}\"\n[segment]\nsolution = '{solution}'\nitem = ['COFFEE-01']\noutput = '{}'\n",
            path("by-job")
        );
        std::fs::write(&job, text).unwrap();
        let ended = succeed(["run".as_ref(), job.as_os_str()]);
        assert_eq!(ended.code, 0);
        let made = folder.path().join("made");
        let mut seen = 0;
        for name in crate::common::files_below(&made) {
            let file = made.join(&name);
            assert_eq!(mode(&file), files, "{asked}: {}", file.display());
            for above in file.ancestors().skip(1).take_while(|above| above.starts_with(&made)) {
                assert_eq!(mode(above), folders, "{asked}: {}", above.display());
            }
            seen += 1;
        }
        assert!(seen >= 20, "{seen} files");
    }
}

#[test]
fn p36_a_mode_that_is_none_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("demo");
    for bad in ["777", "4600", "6", "rw", "440"] {
        let ended = run(item_affinity().args(["--mode", bad, "demo", "--dir"]).arg(&place));
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("is no mode of files; write 600, 640 or 660"), "{ended:?}");
    }
    assert!(!place.exists());
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn p36_results_copies_and_the_files_of_the_demo_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let file = path("result.csv");
    succeed(["sql", "--output", &file, "-c", "SELECT 1 AS a"]);
    let copy = format!("COPY (SELECT 1 AS a) TO '{}' STORED AS PARQUET", path("copies/a.parquet"));
    succeed(["sql", "--allow-copy", "-c", &copy]);
    let ended = run(item_affinity().args(["demo", "--quiet", "--dir", &path("demo")]));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(mode(file.as_ref()), 0o600);
    let mut seen = 0;
    for place in ["copies", "demo"] {
        let root = folder.path().join(place);
        assert_eq!(mode(&root), 0o700);
        for name in crate::common::files_below(&root) {
            let file = root.join(&name);
            assert_eq!(mode(&file), 0o600, "{}", file.display());
            assert_eq!(mode(file.parent().unwrap()), 0o700, "{}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} files");
}
