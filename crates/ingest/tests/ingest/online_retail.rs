//! A real data set, when it is at hand.

use std::path::Path;

use item_affinity_ingest::{ColumnMapping, DataReport, Dataset, InteractionsSource, read_metadata};
use item_affinity_storage::{Location, Stores};

use crate::files::{codes, events, read, wait};

#[test]
fn online_retail_reads_without_a_warning_and_all_of_its_ids_have_metadata() {
    let Ok(folder) = std::env::var("ITEM_AFFINITY_ONLINE_RETAIL") else {
        println!("skipped 1 data set: ITEM_AFFINITY_ONLINE_RETAIL is not set");
        return;
    };
    let file = |name: &str| Location::parse(&Path::new(&folder).join(name).to_string_lossy()).unwrap();
    let source = InteractionsSource::new(vec![file("interactions.parquet")]);
    let ingested = read(&source).unwrap();
    assert_eq!(codes(&ingested), [""; 0]);
    assert_eq!(ingested.counts.kept, ingested.counts.rows);
    let metadata = |dataset, name: &str| {
        wait(read_metadata(&Stores::in_memory(), dataset, &[file(name)], &ColumnMapping::new())).unwrap()
    };
    let (items, users) = (metadata(Dataset::Items, "items.parquet"), metadata(Dataset::Users, "users.parquet"));
    let report = DataReport::new(&ingested, Some(&items), Some(&users));
    println!("{report}");
    assert!(report.refusal(false).is_ok());
    assert_eq!(report.item_metadata.as_ref().map(|metadata| metadata.unknown_ids), Some(0));
    assert_eq!(report.user_metadata.as_ref().map(|metadata| metadata.unknown_ids), Some(0));

    // One reader and several agree, and a threshold removes exactly the smaller values.
    let one = read(&InteractionsSource { threads: Some(1), ..source.clone() }).unwrap();
    assert!(events(&one) == events(&ingested));
    let large = read(&InteractionsSource { event_value_threshold: Some(20.0), ..source }).unwrap();
    assert_eq!(large.counts.kept + large.counts.filtered_by_event_value, ingested.counts.rows);
    assert!(large.counts.kept > 0 && large.counts.filtered_by_event_value > 0);
}
