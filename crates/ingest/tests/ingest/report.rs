//! The data report and its refusals.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use item_affinity_ingest::{ColumnMapping, DataReport, Dataset, Ingested, Level, read_metadata};
use item_affinity_storage::{ErrorKind, Stores};

use crate::files::{Folder, T, batch, longs, strings, wait};

/// `users` users with `each` events on one of 20 items; every event has a type of its own row number modulo `types`.
fn log(users: usize, each: usize, types: usize) -> Ingested {
    let rows = users * each;
    let user: Vec<String> = (0..rows).map(|row| format!("u{}", row % users)).collect();
    let item: Vec<String> = (0..rows).map(|row| format!("i{}", (row / 3) % 20)).collect();
    let kind: Vec<String> = (0..rows).map(|row| format!("t{}", row % types)).collect();
    let texts = |values: &[String]| strings(values.iter().map(String::as_str));
    let columns = [
        ("user_id", texts(&user)),
        ("item_id", texts(&item)),
        ("timestamp", longs((0..rows as i64).map(|row| T + row))),
        ("event_type", texts(&kind)),
    ];
    Folder::of(&batch(&columns)).read().unwrap()
}

fn codes(report: &DataReport, level: Level) -> Vec<&'static str> {
    report.findings.iter().filter(|finding| finding.level == level).map(|finding| finding.code).collect()
}

#[test]
fn enough_data_is_not_refused_and_only_advised_on() {
    let report = DataReport::new(&log(100, 12, 3), None, None);
    assert!(report.refusal(false).is_ok());
    assert_eq!(codes(&report, Level::Error), [""; 0]);
    assert_eq!(codes(&report, Level::Warning), [""; 0]);
    assert_eq!(codes(&report, Level::Info), ["BELOW_RECOMMENDED"]);
    assert_eq!((report.interactions, report.users, report.items), (1_200, 100, 20));
    assert_eq!((report.first_time, report.last_time), (Some(T), Some(T + 1_199)));
}

#[test]
fn a_thousand_unique_interactions_and_25_users_with_two_are_the_least() {
    assert!(DataReport::new(&log(25, 40, 1), None, None).refusal(false).is_ok());
    let report = DataReport::new(&log(24, 41, 1), None, None);
    let error = report.refusal(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert_eq!(
        error.to_string(),
        "ERR_TOO_LITTLE_DATA: 984 unique interactions after filters, training needs 1000; 24 users with two or more \
         interactions, training needs 25; add data or loosen the event filter, or try it anyway with --allow-small-data"
    );
    assert!(report.refusal(true).is_ok());
}

#[test]
fn repeated_events_count_once_against_the_minimum() {
    let times = longs((0..2_000).map(|row| T + row / 4));
    let users: Vec<String> = (0..2_000).map(|row| format!("u{}", (row / 4) % 50)).collect();
    let folder = Folder::of(&batch(&[
        ("user_id", strings(users.iter().map(String::as_str))),
        ("item_id", strings(["i"; 2_000])),
        ("timestamp", times),
    ]));
    let report = DataReport::new(&folder.read().unwrap(), None, None);
    assert_eq!((report.interactions, report.unique_interactions), (2_000, 500));
    assert_eq!(codes(&report, Level::Error), ["TOO_FEW_INTERACTIONS"]);
    assert_eq!(codes(&report, Level::Warning), ["ONE_ITEM"]);
}

#[test]
fn one_user_in_a_hundred_needs_two_interactions() {
    let users: Vec<String> = (0..4_000).map(|row| format!("u{}", if row < 30 { 0 } else { row })).collect();
    let folder = Folder::of(&batch(&[
        ("user_id", strings(users.iter().map(String::as_str))),
        ("item_id", strings((0..4_000).map(|row| ["a", "b"][row % 2]))),
        ("timestamp", longs((0..4_000).map(|row| T + row))),
    ]));
    let report = DataReport::new(&folder.read().unwrap(), None, None);
    assert_eq!(codes(&report, Level::Error), ["TOO_FEW_USERS", "TOO_FEW_USERS_SHARE"]);
    let message = report.refusal(false).unwrap_err().to_string();
    assert!(
        message.contains("1 of 3971 users have two or more interactions, training needs 1 % of users"),
        "{message}"
    );
}

#[test]
fn many_event_types_are_a_warning_that_names_the_difference() {
    let report = DataReport::new(&log(100, 12, 11), None, None);
    assert_eq!(codes(&report, Level::Warning), ["EVENT_TYPES_MANY"]);
    assert_eq!(report.findings[0].message, "11 event types; Amazon Personalize refuses more than 10");
    assert!(report.refusal(false).is_ok());
}

#[test]
fn incomplete_columns_skew_and_look_alikes_are_warnings() {
    let users: Vec<&str> = (0..100).map(|row| if row < 60 { "7" } else { ["07", "x", " x"][row % 3] }).collect();
    let types: StringArray = (0..100).map(|row| (row < 69).then_some("view")).collect();
    let folder = Folder::of(&batch(&[
        ("user_id", strings(users)),
        ("item_id", strings((0..100).map(|row| if row < 51 { "top" } else { "low" }))),
        ("timestamp", longs((0..100).map(|row| T + row))),
        ("event_type", Arc::new(types) as ArrayRef),
    ]));
    let report = DataReport::new(&folder.read().unwrap(), None, None);
    assert_eq!(codes(&report, Level::Warning), ["COLUMN_INCOMPLETE", "USER_SKEW", "ITEM_SKEW", "LOOK_ALIKE_IDS"]);
    let messages: Vec<_> = report.findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(messages.contains(&"EVENT_TYPE of Interactions is 69 % complete"), "{messages:?}");
    assert!(messages.contains(&"one user has 60 % of all interactions"), "{messages:?}");
    assert!(messages.contains(&"item top has 51 % of all interactions"), "{messages:?}");
    assert!(messages.iter().any(|message| message.starts_with("2 user ids differ from another one")), "{messages:?}");
}

#[test]
fn metadata_is_compared_with_the_interactions() {
    let ingested = log(100, 12, 1);
    let ids: Vec<String> = (10..60).map(|n| format!("i{n}")).collect();
    let genres: Vec<String> = (0..50).map(|n| if n < 31 { format!("g{n}") } else { String::new() }).collect();
    let folder = Folder::of(&batch(&[
        ("item_id", strings(ids.iter().map(String::as_str))),
        ("genre", strings(genres.iter().map(String::as_str))),
    ]));
    let items = wait(read_metadata(&Stores::in_memory(), Dataset::Items, &[folder.location()], &ColumnMapping::new()));
    let report = DataReport::new(&ingested, Some(&items.unwrap()), None);
    let metadata = report.item_metadata.as_ref().unwrap();
    assert_eq!((metadata.ids, metadata.unknown_ids, metadata.without_interactions), (50, 10, 40));
    assert_eq!(metadata.unknown_interactions, 600);
    let messages: Vec<_> = report.findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(
        messages[..4],
        [
            "10 items of 600 interactions (50 %) are not in Items",
            "40 of 50 items in Items (80 %) have no interactions",
            "genre of Items is 62 % complete",
            "genre of Items has 31 categories",
        ]
    );
}

#[test]
fn the_report_is_a_compact_table() {
    let text = DataReport::new(&log(100, 12, 2), None, None).to_string();
    let expected = "\
rows                    1,200
interactions            1,200  1,200 unique
users                     100  100 with two or more (100 %)
items                      20
time          2023-11-14 22:13:20Z to 2023-11-14 22:33:19Z

Event types  rows  share
t0           600   50 %
t1           600   50 %

Interactions  type   complete
USER_ID       Utf8   100 %
ITEM_ID       Utf8   100 %
TIMESTAMP     Int64  100 %
EVENT_TYPE    Utf8   100 %

info: BELOW_RECOMMENDED: Amazon Personalize recommends 50000 interactions from 1000 users with two or more each";
    assert_eq!(text, expected);
}

#[test]
fn the_report_is_json_too() {
    let report = DataReport::new(&log(24, 41, 1), None, None);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["interactions"], 984);
    assert_eq!(json["findings"][0]["level"], "error");
    assert_eq!(json["findings"][0]["code"], "TOO_FEW_INTERACTIONS");
    assert_eq!(json["event_types"]["types"][0]["rows"], 984);
}
