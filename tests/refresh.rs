//! `refresh` as a scheduler uses it, between two trainings.

use std::path::Path;

use crate::common::{csv_rows, data, files_below, succeed};

/// 2026-05-31T00:00:00Z, five of the six months of the built-in data.
const TRAINED_AT: i64 = 1_780_185_600;

/// Writes the built-in interactions that a condition holds for.
fn interactions(to: &Path, condition: &str) {
    let query = format!(
        "CREATE EXTERNAL TABLE i STORED AS PARQUET LOCATION '{}'; \
         COPY (SELECT * FROM i WHERE {condition}) TO '{}' STORED AS PARQUET",
        data("interactions.parquet"),
        to.display()
    );
    succeed(["sql", "--allow-copy", "-c", &query]);
}

#[test]
fn new_users_enter_the_segments_of_their_interest_and_a_rerun_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (solution, early, all) = (path("solution"), path("early.parquet"), data("interactions.parquet"));
    // Every fifth user comes after the training, and 8 more do by themselves.
    let condition = format!("timestamp < {TRAINED_AT} AND user_id NOT LIKE '%0' AND user_id NOT LIKE '%5'");
    interactions(Path::new(&early), &condition);
    let train = ["train", "--quiet", "--hidden-dimension", "32", "--event-weights", "view=1,purchase=4"];
    succeed(train.iter().copied().chain(["--interactions", &early, "--solution", &solution]));

    let refresh = |reference: &str, more: &[&str]| {
        let arguments = ["refresh", "--solution", reference, "--interactions", &all];
        succeed(arguments.iter().copied().chain(more.iter().copied()))
    };
    let done = refresh(&solution, &[]);
    println!("{}", done.stdout);
    for words in [
        format!("committed version 2 of {solution}\n1,500 users, 80 items, 15,472 interactions, hidden_dimension 32\n"),
        "against version 1: 308 users are new, 0 are gone\n".to_owned(),
        "items and coefficients of version 1, user states of now\n".to_owned(),
        format!("use it as {solution}@2\n"),
    ] {
        assert!(done.stdout.contains(&words), "{words}: {}", done.stdout);
    }
    assert!(done.stderr.contains("folding in users"), "{}", done.stderr);

    let before = files_below(Path::new(&solution));
    for reference in [solution.clone(), format!("{solution}@1")] {
        assert_eq!(refresh(&reference, &[]).stdout, format!("already done as version 2 of {solution}\n"));
    }
    assert_eq!(files_below(Path::new(&solution)), before);

    // Of the users that the training did not know, those in segments of 50 of six items, and those whose planted interest
    // is the item's.
    let query = format!(
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{}'; \
         SELECT count(*), sum(CASE WHEN upper(u.interest) = split_part(s.item_id, '-', 1) THEN 1 ELSE 0 END) \
         FROM item_affinity_segments(['CAMPING-05', 'CAMPING-08', 'COFFEE-07', 'COFFEE-10', 'MUSIC-06', 'MUSIC-09'], 50) \
         AS s JOIN u ON u.user_id = s.user_id WHERE s.user_id LIKE '%0' OR s.user_id LIKE '%5'",
        data("users.parquet")
    );
    let new_users = |version: &str| -> (u32, u32) {
        let rows = csv_rows(&succeed(["sql", "--format", "csv", "--solution-version", version, "-c", &query]).stdout);
        (rows[0][0].parse().unwrap(), rows[0][1].parse().unwrap_or_default())
    };
    let (new, right) = new_users(&solution);
    println!("of 300 places {new} are of new users, {right} of them with the interest of the item");
    assert!(new >= 40 && right * 10 >= new * 7, "{new} {right}");
    assert_eq!(new_users(&format!("{solution}@1")), (0, 0));

    let shown = succeed(["show", "--solution", &solution]).stdout;
    for words in [
        "refreshed from    version 1: its item factors and coefficients, newer user states",
        "quality was not measured for these user states; for the training see version 1",
        "| version 1      |",
        "as of             2026-07-01 23:55:00",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let card = files_below(Path::new(&solution)).into_iter().filter(|f| f.ends_with("model.json")).map(|file| {
        let text = std::fs::read_to_string(Path::new(&solution).join(file)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    });
    let weights: Vec<_> = card.map(|card| card["events"]["event_weights"].clone()).collect();
    assert_eq!(weights, vec![serde_json::json!({ "view": 1.0, "purchase": 4.0 }); 2]);
    assert!(refresh(&solution, &["--force", "--quiet"]).stdout.contains("committed version 3"));
}

#[test]
fn items_that_came_after_the_training_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (solution, early) = (path("solution"), path("early.parquet"));
    interactions(Path::new(&early), "item_id NOT IN ('COFFEE-01', 'MUSIC-05')");
    let train = ["train", "--quiet", "--hidden-dimension", "32"];
    succeed(train.iter().copied().chain(["--interactions", &early, "--solution", &solution]));
    let all = data("interactions.parquet");
    let done = succeed(["refresh", "--solution", &solution, "--interactions", &all]);
    let told = "interactions with 2 items that version 1 does not know are left out; train to take them in";
    assert_eq!(done.stderr.lines().filter(|line| line.ends_with(told)).count(), 1, "{}", done.stderr);
    assert!(done.stdout.contains("78 items"), "{}", done.stdout);
}
