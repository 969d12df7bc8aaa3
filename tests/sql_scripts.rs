//! Every script of `sql/` runs through the real binary and gives what its header says.

use std::path::Path;

use crate::common::{Ended, csv_rows, data, run, solution};

const SCRIPTS: [&str; 6] = [
    "campaign_segments",
    "cross_sell_overlap",
    "data_checks",
    "export_segments",
    "register_datasets",
    "segments_for_items",
];

fn path(script: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(format!("{script}.sql")).display().to_string()
}

/// Runs a script after register_datasets, on the built-in data.
fn run_script(script: &str, more: &[String]) -> Ended {
    let mut command = crate::common::item_affinity();
    command.args(["sql", "--format", "csv", "-f", &path("register_datasets")]);
    if script != "register_datasets" {
        command.args(["-f", &path(script)]);
    }
    for name in ["interactions", "items", "users"] {
        command.args(["--set", &format!("{name}={}", data(&format!("{name}.parquet")))]);
    }
    command.args(["--set", &format!("solution={}", solution()), "--set", "category=Coffee"]);
    for value in more {
        command.args(["--set", value]);
    }
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{script}: {ended:?}");
    ended
}

#[test]
fn every_shipped_script_is_tested_here_and_opens_with_purpose_reads_returns() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut found = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect::<Vec<_>>();
    found.sort();
    assert_eq!(found, SCRIPTS);
    for script in SCRIPTS {
        let text = std::fs::read_to_string(path(script)).unwrap();
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{script} lacks {word}"));
        assert!(at("-- Purpose:") < at("-- Reads:") && at("-- Reads:") < at("-- Returns:"), "{script}");
        let statements = text.lines().position(|l| !l.starts_with("--")).unwrap();
        assert!(text.lines().take(statements).any(|l| l.starts_with("-- Returns:")), "{script}");
    }
}

#[test]
fn register_datasets_gives_three_tables() {
    let ended = run_script("register_datasets", &[]);
    assert_eq!(ended.stdout, "");
}

#[test]
fn data_checks_counts_the_built_in_data() {
    let rows = csv_rows(&run_script("data_checks", &[]).stdout);
    let value = |name: &str| {
        let row = rows.iter().find(|r| r[0] == name).unwrap_or_else(|| panic!("no row {name}: {rows:?}"));
        row[1].parse::<u64>().unwrap()
    };
    assert_eq!(value("users"), 1_500);
    assert_eq!(value("items"), 80);
    assert_eq!(value("users with two or more"), 1_500);
    assert!(value("interactions") > 10_000);
    assert_eq!(value("interactions with items that items lacks"), 0);
    assert_eq!(value("interactions with a missing field"), 0);
}

#[test]
fn segments_for_items_gives_ten_ranked_users_for_each_item_of_the_category() {
    let rows = csv_rows(&run_script("segments_for_items", &[]).stdout);
    assert_eq!(rows.len(), 10 * 10);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[0], format!("COFFEE-{:02}", number / 10 + 1));
        assert_eq!(row[1], (number % 10 + 1).to_string());
    }
}

#[test]
fn campaign_segments_names_each_user_once_with_the_item_that_scores_best() {
    let rows = csv_rows(&run_script("campaign_segments", &["country=DE".to_owned()]).stdout);
    assert!(rows.len() > 50, "{}", rows.len());
    let mut users = rows.iter().map(|r| r[0].as_str()).collect::<Vec<_>>();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), rows.len());
    let scores = rows.iter().map(|r| r[3].parse::<f32>().unwrap()).collect::<Vec<_>>();
    assert!(scores.is_sorted_by(|a, b| a >= b));
}

#[test]
fn cross_sell_overlap_counts_shared_users_and_their_jaccard_share() {
    let rows = csv_rows(&run_script("cross_sell_overlap", &[]).stdout);
    assert!(!rows.is_empty());
    for row in &rows {
        let shared = row[2].parse::<f64>().unwrap();
        let jaccard = row[3].parse::<f64>().unwrap();
        assert!(row[0] < row[1]);
        assert!((jaccard - shared / (200.0 - shared)).abs() < 0.001, "{row:?}");
    }
}

#[test]
fn export_segments_writes_one_folder_per_item() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("export").display().to_string() + "/";
    let rows = csv_rows(&run_script("export_segments", &[format!("output={output}")]).stdout);
    assert_eq!(rows, [["1000"]]);
    let folders = std::fs::read_dir(folder.path().join("export")).unwrap().count();
    assert_eq!(folders, 10);
}
