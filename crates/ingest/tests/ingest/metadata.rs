//! Items and Users.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use item_affinity_ingest::{ColumnMapping, Dataset, Metadata, Result, read_metadata};
use item_affinity_storage::Stores;

use crate::files::{Folder, batch, longs, strings, wait};

fn metadata(dataset: Dataset, folder: &Folder, columns: &str) -> Result<Metadata> {
    let columns: ColumnMapping = columns.parse().unwrap();
    wait(read_metadata(&Stores::in_memory(), dataset, &[folder.location()], &columns))
}

fn catalog() -> Folder {
    Folder::of(&batch(&[
        ("title", Arc::new(StringArray::from(vec![Some("A"), None, Some("B"), Some("A2")])) as ArrayRef),
        ("ITEM_ID", longs([3, 1, 2, 3])),
        ("genres", strings(["x|y", "y", "", "z"])),
        ("price", Arc::new(Float64Array::from(vec![Some(2.0), Some(f64::NAN), None, Some(0.5)]))),
    ]))
}

#[test]
fn ids_are_read_once_and_columns_are_profiled() {
    let items = metadata(Dataset::Items, &catalog(), "").unwrap();
    assert_eq!(items.ids.iter().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!((items.counts.rows, items.duplicates), (4, 1));
    assert_eq!(items.warnings.iter().map(|warning| warning.code).collect::<Vec<_>>(), ["DUPLICATE_IDS"]);
    let names: Vec<_> = items.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["title", "genres", "price"]);
    assert_eq!((items.columns[1].missing, items.columns[1].categories), (1, Some(3)));
    assert_eq!((items.columns[2].minimum, items.columns[2].missing), (Some(0.5), 2));
}

#[test]
fn columns_of_several_files_are_matched_by_name() {
    let folder = catalog();
    folder.write("z.parquet", &batch(&[("Genres", strings(["w"])), ("item_id", longs([9])), ("new", longs([1]))]));
    let items = metadata(Dataset::Items, &folder, "").unwrap();
    let rows: Vec<_> = items.columns.iter().map(|column| (column.name.as_str(), column.rows)).collect();
    assert_eq!(rows, [("title", 4), ("genres", 5), ("price", 4), ("new", 1)]);
    assert_eq!(items.columns[1].categories, Some(4));
}

#[test]
fn a_mapping_for_interactions_does_not_get_in_the_way() {
    let items = metadata(Dataset::Items, &catalog(), "item_id=sku,user_id=hh").unwrap();
    assert_eq!(items.ids.len(), 3);
    let users = Folder::of(&batch(&[("hh", strings(["a", "b"])), ("country", strings(["DE", "FR"]))]));
    assert_eq!(metadata(Dataset::Users, &users, "user_id=hh").unwrap().ids.len(), 2);
}

#[test]
fn null_ids_and_missing_id_columns_are_refused() {
    let nulls = Arc::new(Int64Array::from(vec![Some(1), None]));
    let message = metadata(Dataset::Items, &Folder::of(&batch(&[("item_id", nulls)])), "").unwrap_err().to_string();
    assert!(message.starts_with("ERR_TOO_MANY_BAD_ROWS: 1 of 2 rows rejected (id_null 1); file="), "{message}");
    assert!(message.contains("row=1 column=ITEM_ID"), "{message}");
    let message = metadata(Dataset::Users, &catalog(), "").unwrap_err().to_string();
    assert!(
        message.starts_with("ERR_SCHEMA: missing columns [USER_ID], found [title, ITEM_ID, genres, price]"),
        "{message}"
    );
}

#[test]
fn ids_alone_and_an_event_log_given_as_metadata_are_said() {
    let alone = metadata(Dataset::Items, &Folder::of(&batch(&[("item_id", strings(["a"]))])), "").unwrap();
    assert_eq!(alone.warnings[0].code, "NO_METADATA");
    let log = Folder::of(&batch(&crate::files::few()));
    let items = metadata(Dataset::Items, &log, "").unwrap();
    assert_eq!(items.warnings[0].code, "LOOKS_LIKE_INTERACTIONS");
    assert!(metadata(Dataset::Interactions, &log, "").is_err());
}
