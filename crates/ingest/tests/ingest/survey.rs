//! A first look at a log beside a whole read of it: the same rows count, the same is odd, and no row is kept.

use std::sync::Arc;

use item_affinity_ingest::{InteractionsSource, Survey, survey_interactions};
use item_affinity_model::Vocabulary;
use item_affinity_storage::{Artifact, Location, Stores, Tombstones, Versions};

use crate::files::{Folder, T, batch, codes, few_with, longs, read, strings, wait};

fn survey(source: &InteractionsSource, items: &[&str]) -> item_affinity_ingest::Result<Survey> {
    let items = Arc::new(Vocabulary::from_sorted(items.iter().copied()).unwrap());
    wait(survey_interactions(&Stores::in_memory(), source, items, &|_| {}))
}

fn tombstones(users: &[&str]) -> Tombstones {
    let location = Location::parse("memory:///lake").unwrap();
    let versions = Versions::new(&Stores::in_memory(), location, Artifact::SolutionVersion).unwrap();
    wait(async {
        versions.forget(users.iter().copied()).await.unwrap();
        versions.tombstones().await.unwrap()
    })
}

#[test]
fn a_memory_limit_under_that_of_all_rows_refuses_a_read_and_no_survey() {
    let rows = 100_000_i64;
    let users: Vec<String> = (0..rows).map(|row| format!("u{}", row % 50)).collect();
    let folder = Folder::of(&batch(&[
        ("user_id", strings(users.iter().map(String::as_str))),
        ("item_id", strings((0..rows).map(|row| if row % 3 == 0 { "a" } else { "b" }))),
        ("timestamp", longs((0..rows).map(|row| T + row))),
    ]));
    let mut source = folder.source();
    source.memory_limit = Some(1 << 20);
    assert!(read(&source).unwrap_err().to_string().contains("ERR_MEMORY_LIMIT"));
    let survey = survey(&source, &["a"]).unwrap();
    assert_eq!((survey.interactions, survey.known_interactions, survey.users.len()), (100_000, 33_334, 50));
    assert_eq!(survey.times, (T, T + rows - 1));
}

#[test]
fn times_ahead_of_the_clock_are_told_by_both_in_every_unit() {
    // 2200-01-01 and later.
    let ahead = 7_258_118_400_i64;
    for (times, expected) in [
        ([T, T + 1, T + 2, ahead], &["TIMESTAMP_FUTURE"][..]),
        ([T * 1_000, T * 1_000 + 1, ahead * 1_000, ahead * 1_000 + 1_000], &["TIMESTAMP_UNIT", "TIMESTAMP_FUTURE"]),
        ([T, T + 1, T + 2, T + 3], &[]),
    ] {
        let folder = Folder::of(&few_with("timestamp", longs(times)));
        let read = folder.read().unwrap();
        assert_eq!(codes(&read), expected);
        let warnings = survey(&folder.source(), &["a", "b"]).unwrap().warnings;
        assert_eq!(warnings, read.warnings);
    }
}

#[test]
fn p38_rows_of_the_forgotten_count_for_nothing_in_both() {
    // Of u1 and u3 are the first and the last time, and the only event that weighs 9.
    let folder = Folder::of(&batch(&[
        ("user_id", strings(["u1", "u2", "u2", "u4", "u3", "u4"])),
        ("item_id", strings(["c", "a", "b", "a", "b", "d"])),
        ("timestamp", longs([T, T + 60, T + 120, T + 240, T + 301, T + 180])),
        ("event_value", crate::files::doubles([9.0, 2.0, 2.0, 2.0, 2.0, 2.0])),
    ]));
    let mut source = folder.source();
    source.value_as_weight = true;
    source.forgotten = Arc::new(tombstones(&["u1", "u3"]));
    let read = read(&source).unwrap();
    let survey = survey(&source, &["a", "b", "c"]).unwrap();
    assert_eq!((survey.counts.kept, survey.counts.forgotten), (4, 2));
    assert_eq!(survey.counts, read.counts);
    assert_eq!(survey.warnings, read.warnings);
    assert_eq!(Some(survey.times), read.interactions.time_range());
    assert_eq!(survey.step, 60);
    assert_eq!(survey.users.iter().collect::<Vec<_>>(), ["u2", "u4"]);
    assert_eq!((survey.all_users, survey.users_with_two_or_more), (2, 2));
    // `c` was known and nobody is left with it; `d` is not known.
    assert_eq!((survey.known_interactions, survey.unknown_items), (3, 1));
    for unit in survey.units {
        let rows = wait(survey.rules.read(&Stores::in_memory(), unit, Arc::clone(&source.forgotten))).unwrap();
        assert_eq!(rows.users.iter().collect::<Vec<_>>(), ["u2", "u4"]);
        assert_eq!(rows.weight, [1.0; 4]);
    }

    source.forgotten = Arc::new(tombstones(&["u1", "u2", "u3", "u4"]));
    let refused = self::survey(&source, &["a"]).unwrap_err().to_string();
    assert_eq!(refused, crate::files::read(&source).unwrap_err().to_string());
    assert!(refused.contains("all 6 interactions are of users who were forgotten"), "{refused}");
}
