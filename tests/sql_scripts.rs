//! Every script of `sql/` runs through the real binary and gives what its header says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::common::{Ended, csv_rows, data, run, solution, succeed};

const SCRIPTS: [&str; 9] = [
    "campaign_segments",
    "cross_sell_overlap",
    "data_checks",
    "export_segments",
    "holdout_split",
    "lookalike_audience",
    "register_datasets",
    "segment_lift",
    "segments_for_items",
];

fn path(script: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(format!("{script}.sql")).display().to_string()
}

/// Runs a script after register_datasets, on the built-in data and the solution trained on them.
fn run_script(script: &str, more: &[String]) -> Ended {
    run_script_with(script, solution(), more)
}

fn run_script_with(script: &str, solution: &str, more: &[String]) -> Ended {
    let mut files = vec![path("register_datasets")];
    if script != "register_datasets" {
        files.push(path(script));
    }
    run_files(&files, solution, more)
}

fn run_files(files: &[String], solution: &str, more: &[String]) -> Ended {
    let mut command = crate::common::item_affinity();
    // As from a folder of one's own: the values of --set say what is read.
    let elsewhere = tempfile::tempdir().unwrap();
    command.env_remove("ITEM_AFFINITY_ROOT").current_dir(elsewhere.path());
    command.args(["sql", "--format", "csv"]);
    if files.iter().any(|file| file.ends_with("export_segments.sql")) {
        command.arg("--allow-copy");
    }
    for file in files {
        command.args(["-f", file]);
    }
    for name in ["interactions", "items", "users"] {
        command.args(["--set", &format!("{name}={}", data(&format!("{name}.parquet")))]);
    }
    command.args(["--set", &format!("solution={solution}"), "--set", "category=Coffee"]);
    for value in more {
        command.args(["--set", value]);
    }
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{files:?}: {ended:?}");
    ended
}

/// Rows of a query of ours over the same tables.
fn rows_of(query: &str) -> Vec<Vec<String>> {
    rows_with(query, &[])
}

fn rows_with(query: &str, more: &[String]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("query.sql");
    std::fs::write(&file, format!("SET item_affinity.solution_version = '${{solution}}'; {query}")).unwrap();
    csv_rows(&run_files(&[path("register_datasets"), file.display().to_string()], solution(), more).stdout)
}

fn settings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
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
    let rows = csv_rows(&run_script("campaign_segments", &settings(&["country=DE", "recent_days=60"])).stdout);
    let users = rows.iter().map(|r| r[0].clone()).collect::<BTreeSet<_>>();
    assert_eq!(users.len(), rows.len());
    let scores = rows.iter().map(|r| r[3].parse::<f32>().unwrap()).collect::<Vec<_>>();
    assert!(scores.is_sorted_by(|a, b| a >= b));

    // Whoever may be asked: from the country, without a recent purchase in the category.
    let allowed = rows_of(
        "SELECT user_id FROM users WHERE country = 'DE' AND user_id NOT IN (
           SELECT e.user_id FROM interactions AS e JOIN items AS i ON i.item_id = e.item_id
           WHERE i.category = 'Coffee' AND e.event_type = 'purchase'
             AND e.\"timestamp\" > (SELECT max(\"timestamp\") FROM interactions) - 5184000)",
    );
    let allowed = allowed.into_iter().map(|mut row| row.remove(0)).collect::<BTreeSet<_>>();
    assert!(users.is_subset(&allowed));
    assert!(users.len() >= 200, "{} of {}", users.len(), allowed.len());
    // The same from the scores of all pairs: the 200 best of each item, then the best item of each user.
    let pairs = rows_of(
        "SELECT i.item_id, u.user_id, item_affinity_score(u.user_id, i.item_id) AS score
         FROM users AS u CROSS JOIN items AS i WHERE i.category = 'Coffee' ORDER BY score DESC, u.user_id",
    );
    let mut taken = BTreeMap::<&str, usize>::new();
    let mut best = BTreeMap::<&str, f32>::new();
    for pair in pairs.iter().filter(|pair| allowed.contains(&pair[1])) {
        let taken = taken.entry(&pair[0]).or_default();
        *taken += 1;
        if *taken <= 200 {
            best.entry(&pair[1]).or_insert(pair[2].parse().unwrap());
        }
    }
    assert_eq!(best.len(), rows.len());
    for (row, score) in rows.iter().zip(&scores) {
        assert!((best[row[0].as_str()] - score).abs() < 1e-6, "{row:?} {}", best[row[0].as_str()]);
    }
}

#[test]
fn cross_sell_overlap_counts_the_users_whom_two_segments_share() {
    let rows = csv_rows(&run_script("cross_sell_overlap", &[]).stdout);
    let mut segments = BTreeMap::<String, BTreeSet<String>>::new();
    let members = rows_of(
        "SELECT item_id, user_id FROM item_affinity_segments((SELECT item_id FROM items WHERE category = 'Coffee'), 100)",
    );
    for mut row in members {
        let user = row.remove(1);
        segments.entry(row.remove(0)).or_default().insert(user);
    }
    assert_eq!(segments.len(), 10);
    let mut expected = BTreeMap::new();
    for (item, users) in &segments {
        for (other, others) in segments.range(item.clone()..).skip(1) {
            let shared = users.intersection(others).count();
            if shared > 0 {
                expected.insert((item.clone(), other.clone()), shared);
            }
        }
    }
    assert_eq!(rows.len(), expected.len());
    for row in &rows {
        let shared = expected[&(row[0].clone(), row[1].clone())];
        assert_eq!(row[2], shared.to_string(), "{row:?}");
        let jaccard = shared as f64 / (200.0 - shared as f64);
        assert!((row[3].parse::<f64>().unwrap() - jaccard).abs() < 0.0006, "{row:?}");
    }
    let shared = rows.iter().map(|row| row[2].parse::<u32>().unwrap()).collect::<Vec<_>>();
    assert!(shared.is_sorted_by(|a, b| a >= b));
}

#[test]
fn lookalike_audience_holds_users_who_never_had_anything_of_the_group() {
    let rows = csv_rows(&run_script("lookalike_audience", &settings(&["audience=30"])).stdout);
    let categories = rows.iter().map(|r| r[0].clone()).collect::<BTreeSet<_>>();
    assert_eq!(categories.len(), 8);
    let had = rows_of(
        "SELECT DISTINCT i.category, e.user_id FROM interactions AS e JOIN items AS i ON i.item_id = e.item_id",
    );
    let had = had.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect::<BTreeSet<_>>();
    let mut place = (String::new(), 0, f32::INFINITY);
    for row in &rows {
        if row[0] != place.0 {
            place = (row[0].clone(), 0, f32::INFINITY);
        }
        let score = row[4].parse::<f32>().unwrap();
        place.1 += 1;
        assert!(row[1] == place.1.to_string() && place.1 <= 30 && score <= place.2, "{row:?}");
        place.2 = score;
        assert!(!had.contains(&(row[0].clone(), row[2].clone())), "{row:?}");
        let items = row[3].parse::<u32>().unwrap();
        assert!((1..=10).contains(&items) && row[5].starts_with(&row[0].to_uppercase()), "{row:?}");
    }
    // The same audiences from the scores of all pairs.
    let scores = rows_of(
        "SELECT i.category, u.user_id, max(item_affinity_score(u.user_id, i.item_id)) AS score
         FROM users AS u CROSS JOIN items AS i GROUP BY i.category, u.user_id ORDER BY score DESC, u.user_id",
    );
    let mut best = BTreeMap::<String, Vec<f32>>::new();
    for row in scores.iter().filter(|row| !had.contains(&(row[0].clone(), row[1].clone()))) {
        best.entry(row[0].clone()).or_default().push(row[2].parse().unwrap());
    }
    for row in &rows {
        let expected = best[&row[0]][row[1].parse::<usize>().unwrap() - 1];
        assert!((row[4].parse::<f32>().unwrap() - expected).abs() < 1e-6, "{row:?} {expected}");
    }
    assert_eq!(rows.len(), best.values().map(|users| users.len().min(30)).sum::<usize>());
}

#[test]
fn holdout_split_keeps_the_same_users_out_of_every_segment() {
    let split = |more: &[&str]| csv_rows(&run_script("holdout_split", &settings(more)).stdout);
    let rows = split(&["salt=spring", "holdout_percent=20"]);
    assert_eq!(rows.len(), 3_000);
    let mut arms = BTreeMap::new();
    for row in &rows {
        let arm = arms.entry(row[2].clone()).or_insert_with(|| row[4].clone());
        assert_eq!(*arm, row[4], "{row:?}");
    }
    let out = arms.values().filter(|arm| *arm == "holdout").count();
    let users = arms.len();
    // Four standard errors of a fair draw.
    let expected = users as f64 * 0.2;
    assert!((out as f64 - expected).abs() < 4.0 * (expected * 0.8).sqrt(), "{out} of {users}");
    assert_eq!(split(&["salt=spring", "holdout_percent=20"]), rows);
    let others = split(&["salt=summer", "holdout_percent=20"]);
    let moved = rows.iter().zip(&others).filter(|(a, b)| a[4] != b[4]).count();
    assert!(moved > 500, "{moved} of 3000");
    for (percent, arm) in [("0", "campaign"), ("100", "holdout")] {
        let all = split(&["salt=spring", &format!("holdout_percent={percent}")]);
        assert!(all.iter().all(|row| row[4] == arm), "{percent}");
    }
    // Who is kept out at 5 percent is kept out at 20.
    let few = split(&["salt=spring", "holdout_percent=5"]);
    assert!(few.iter().filter(|row| row[4] == "holdout").all(|row| arms[&row[2]] == "holdout"));
}

#[test]
fn segment_lift_compares_the_segments_of_a_version_with_what_happened_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (before, solution) = (place("before.parquet"), place("solution"));
    // 1 June 2026 is within the data: what came before it is all that the first version knows.
    let cut = 1_780_272_000;
    let copy = format!(
        "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION '{}'; \
         COPY (SELECT * FROM e WHERE \"timestamp\" < {cut}) TO '{before}' STORED AS PARQUET",
        data("interactions.parquet")
    );
    succeed(["sql", "--allow-copy", "-c", &copy]);
    for interactions in [before, data("interactions.parquet")] {
        let train = ["train", "--quiet", "--hidden-dimension", "32", "--interactions", &interactions];
        succeed(train.into_iter().chain(["--solution", &solution]));
    }
    let rows = csv_rows(&run_script_with("segment_lift", &solution, &settings(&["version=1", "days=28"])).stdout);
    assert_eq!(rows.len(), 10);

    let members = format!(
        "SET item_affinity.solution_version = '{solution}@1'; SELECT item_id, user_id FROM item_affinity_segments(\
         (SELECT item_id FROM item_affinity_items() WHERE item_id LIKE 'COFFEE%'), 100)"
    );
    let members = csv_rows(&succeed(["sql", "--format", "csv", "-c", &members]).stdout);
    let as_of = format!("SELECT max(\"timestamp\") FROM interactions WHERE \"timestamp\" < {cut}");
    let after = rows_of(&format!(
        "SELECT DISTINCT item_id, user_id FROM interactions
         WHERE \"timestamp\" > ({as_of}) AND \"timestamp\" <= ({as_of}) + 28 * 86400"
    ));
    let after = after.into_iter().collect::<BTreeSet<_>>();
    let (mut hits, mut all) = (0, 0);
    for row in &rows {
        let bought = members.iter().filter(|member| member[0] == row[0] && after.contains(*member)).count();
        let by_all = after.iter().filter(|pair| pair[0] == row[0]).count();
        let number = |at: usize| row[at].parse::<usize>().unwrap();
        assert_eq!((number(1), number(2), number(4)), (100, bought, by_all), "{row:?}");
        let lift = (bought as f64 / 100.0) / (by_all as f64 / number(3) as f64);
        assert!((row[5].parse::<f64>().unwrap() - lift).abs() < 0.006, "{row:?} {lift}");
        hits += bought;
        all += by_all;
    }
    // 100 of some 1,500 users would be 7 % of the buyers by chance.
    assert!(hits * 100 > 14 * all, "{hits} of {all}");
}

#[test]
fn export_segments_writes_one_folder_per_item() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("export").display().to_string() + "/";
    let rows = csv_rows(&run_script("export_segments", &[format!("output={output}")]).stdout);
    assert_eq!(rows, [["1000"]]);
    let mut folders = std::fs::read_dir(folder.path().join("export")).unwrap();
    let names = folders.by_ref().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>();
    assert_eq!(names, (1..=10).map(|item| format!("item_id=COFFEE-{item:02}")).collect());
    // The folders hold the segments, each in its order.
    let back = rows_with(
        "CREATE EXTERNAL TABLE exported STORED AS PARQUET PARTITIONED BY (item_id) LOCATION '${output}';
         SELECT count(*), count(s.user_id) FROM exported AS e
         LEFT JOIN item_affinity_segments((SELECT item_id FROM items WHERE category = 'Coffee'), 100) AS s
           ON s.item_id = e.item_id AND s.rank = e.rank AND s.user_id = e.user_id",
        &[format!("output={output}")],
    );
    assert_eq!(back, [["1000", "1000"]]);
}
