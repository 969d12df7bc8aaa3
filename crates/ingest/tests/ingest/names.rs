//! Which column is which.

use crate::files::{Folder, batch, events, few, location, longs, strings};

#[test]
fn names_match_without_regard_to_case_and_other_columns_are_not_read() {
    let [(_, users), (_, items), (_, times)] = few();
    let folder = Folder::of(&batch(&[
        ("colour", longs([1, 2, 3, 4])),
        ("Timestamp", times),
        ("\u{feff}USER_ID", users),
        ("Item_Id ", items),
    ]));
    assert_eq!(events(&folder.read().unwrap()), events(&Folder::of(&batch(&few())).read().unwrap()));
}

#[test]
fn other_names_are_mapped() {
    let [(_, users), (_, items), (_, times)] = few();
    let folder = Folder::of(&batch(&[("household", users), ("sku", items), ("ts", times)]));
    let read = folder.read_with(|source| {
        source.columns = "user_id=Household,item_id=sku,timestamp=ts".parse().unwrap();
    });
    assert_eq!(events(&read.unwrap()).len(), 4);
    assert_eq!(
        folder.refusal(),
        "ERR_SCHEMA: missing columns [USER_ID, ITEM_ID, TIMESTAMP], found [household, sku, ts]; \
         file=<folder>part.parquet; name them with --column user_id=<your column> --column item_id=sku \
         --column timestamp=ts"
    );
}

#[test]
fn files_may_have_their_columns_in_another_order_and_more_of_them() {
    let folder = Folder::of(&batch(&few()));
    let [user, item, time] = few();
    folder.write("second.parquet", &batch(&[time, ("extra", longs([0; 4])), item, user]));
    let ingested = folder.read().unwrap();
    assert_eq!(ingested.interactions.len(), 8);
    assert_eq!(ingested.inputs.len(), 2);
    assert!(ingested.warnings.iter().any(|warning| warning.code == "SCHEMA_DIFFERS"));
}

#[test]
fn each_file_needs_the_columns() {
    let folder = Folder::of(&batch(&few()));
    let [user, item, _] = few();
    folder.write("second.parquet", &batch(&[item, user, ("when", strings(["now"; 4]))]));
    let message = folder.refusal();
    assert!(
        message.starts_with("ERR_SCHEMA: missing columns [TIMESTAMP], found [item_id, user_id, when]; "),
        "{message}"
    );
    assert!(message.contains("file=<folder>second.parquet"), "{message}");
}

#[test]
fn folder_names_supply_what_the_files_lack() {
    let folder = Folder::new();
    folder.write("event_type=view/a.parquet", &batch(&few()));
    folder.write("event_type=add%20to%20cart/b.parquet", &batch(&few()));
    folder.write("event_type=__HIVE_DEFAULT_PARTITION__/c.parquet", &batch(&few()));
    let ingested = folder.read().unwrap();
    let types: Vec<_> = ingested.event_types.types.iter().map(|count| count.event_type.as_str()).collect();
    assert_eq!(types, ["add to cart", "view"]);
    assert_eq!(ingested.event_types.without, 4);
    assert!(ingested.warnings.iter().any(|warning| warning.code == "PARTITION_NULL"), "{:?}", ingested.warnings);
    let filtered = folder.read_with(|source| source.event_types = vec!["view".into()]).unwrap();
    assert_eq!((filtered.interactions.len(), filtered.counts.filtered_by_event_type), (4, 8));
}

#[test]
fn a_day_in_a_folder_name_is_a_time() {
    let folder = Folder::new();
    let [user, item, _] = few();
    for day in ["2024-05-30", "2024-05-31"] {
        folder.write(&format!("dt={day}/a.parquet"), &batch(&[user.clone(), item.clone()]));
    }
    let ingested = folder.read_with(|source| source.columns = "timestamp=dt".parse().unwrap()).unwrap();
    assert_eq!(ingested.interactions.time_range(), Some((1_717_027_200, 1_717_113_600)));
}

#[test]
fn a_user_id_in_a_folder_name_is_read_but_never_shown() {
    let folder = Folder::new();
    let [_, item, time] = few();
    folder.write("user_id=canary-77/a.parquet", &batch(&[item.clone(), time]));
    assert_eq!(folder.read().unwrap().interactions.users().id(0), Some("canary-77"));
    let nulls = std::sync::Arc::new(arrow::array::Int64Array::from(vec![None; 4]));
    folder.write("user_id=canary-77/a.parquet", &batch(&[item, ("timestamp", nulls)]));
    let message = folder.refusal();
    assert!(message.contains("file=<folder>user_id=*/a.parquet row=0"), "{message}");
    assert!(!message.contains("canary"), "{message}");
}

#[test]
fn several_locations_are_one_data_set_and_a_file_counts_once() {
    let (one, two) = (Folder::of(&batch(&few())), Folder::of(&batch(&few())));
    let ingested = one
        .read_with(|source| {
            source.locations.push(two.location());
            source
                .locations
                .push(item_affinity_storage::Location::parse(&two.path("*.parquet").to_string_lossy()).unwrap());
        })
        .unwrap();
    assert_eq!(ingested.interactions.len(), 8);
    assert!(ingested.warnings.iter().any(|warning| warning.code == "FILES_REPEATED"));
    assert_ne!(location(&one.path("")), location(&two.path("")));
}

#[test]
fn items_given_as_interactions_are_recognised() {
    let folder = Folder::of(&batch(&[("item_id", strings(["a"])), ("title", strings(["A"]))]));
    let message = folder.refusal();
    assert!(message.ends_with("this looks like Items, one row per item: give it with --items"), "{message}");
}

#[test]
fn names_that_differ_only_in_case_need_a_mapping() {
    let [user, item, time] = few();
    let folder = Folder::of(&batch(&[user, item, time, ("TIMESTAMP", longs([5, 6, 7, 8]))]));
    let message = folder.refusal();
    assert!(
        message.starts_with("ERR_COLUMN_AMBIGUOUS: 2 columns match TIMESTAMP: [timestamp, TIMESTAMP]; "),
        "{message}"
    );
    let read = folder.read_with(|source| source.columns = "timestamp=TIMESTAMP".parse().unwrap()).unwrap();
    assert_eq!(read.interactions.time_range(), Some((5, 8)));
}
