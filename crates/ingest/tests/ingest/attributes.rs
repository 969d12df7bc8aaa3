//! Columns of Items and Users as features.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampSecondArray};
use item_affinity_ingest::{
    AlignedAttributes, AttributeSelection, ColumnMapping, Dataset, Metadata, Result, read_metadata, read_metadata_with,
};
use item_affinity_model::{Encoding, Vocabulary};
use item_affinity_storage::Stores;

use crate::files::{Folder, batch, longs, strings, wait};

fn items(folder: &Folder, include: &[&str], exclude: &[&str]) -> Result<Metadata> {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let selection = AttributeSelection { include: names(include), exclude: names(exclude) };
    let columns = ColumnMapping::new();
    wait(read_metadata_with(&Stores::in_memory(), Dataset::Items, &[folder.location()], &columns, &selection))
}

fn ids<const N: usize>(ids: [&str; N]) -> Vocabulary {
    Vocabulary::from_sorted(ids).unwrap()
}

fn aligned(columns: &[(&str, ArrayRef)], vocabulary: &Vocabulary) -> AlignedAttributes {
    items(&Folder::of(&batch(columns)), &[], &[]).unwrap().attributes_for(vocabulary).unwrap().unwrap()
}

fn codes(aligned: &AlignedAttributes) -> Vec<&'static str> {
    aligned.warnings.iter().map(|warning| warning.code).collect()
}

/// The features of a row in words, with their weights.
fn row(aligned: &AlignedAttributes, row: usize) -> Vec<(String, f32)> {
    let (features, weights) = aligned.attributes.matrix().row(row);
    let name = |feature: &u32| aligned.attributes.name_of(*feature as usize).unwrap();
    features.iter().map(name).zip(weights.iter().copied()).collect()
}

fn four() -> ArrayRef {
    strings(["a", "b", "c", "d"])
}

#[test]
fn lists_have_a_norm_of_one_and_rows_follow_the_vocabulary() {
    let genres = Arc::new(StringArray::from(vec![Some("horror|comedy"), Some("comedy| comedy"), None, Some("horror")]));
    let aligned = aligned(&[("item_id", four()), ("Genres", genres)], &ids(["a", "b", "c", "z"]));
    // Horror is in one row of the vocabulary only: d is not in it.
    assert_eq!(row(&aligned, 0), [("Genres=comedy".to_string(), 1.0)]);
    assert_eq!(row(&aligned, 1), [("Genres=comedy".to_string(), 1.0)]);
    assert_eq!((row(&aligned, 2), row(&aligned, 3)), (vec![], vec![]));
    assert_eq!((aligned.unknown_ids, aligned.without_metadata), (1, 1));
    assert_eq!(
        aligned.warnings[0].to_string(),
        "ATTRIBUTE_VALUES_RARE: values of one row only; count=1 column=Genres; they are not used"
    );
}

#[test]
fn two_values_of_a_row_share_its_weight() {
    let aligned = aligned(&[("item_id", four()), ("g", strings(["x|y", "y|x", "x", "y"]))], &ids(["a", "b", "c", "d"]));
    let half = 1.0 / 2f32.sqrt();
    assert_eq!(row(&aligned, 0), [("g=x".to_string(), half), ("g=y".to_string(), half)]);
    assert_eq!(row(&aligned, 2), [("g=x".to_string(), 1.0)]);
    assert!(aligned.warnings.is_empty());
}

#[test]
fn numbers_are_standardized_and_clipped_and_what_is_not_finite_is_missing() {
    let mut prices: Vec<Option<f64>> = (0..30).map(|n| Some(f64::from(n % 7) + 0.5)).collect();
    (prices[0], prices[1], prices[2], prices[3]) = (Some(f64::NAN), Some(f64::INFINITY), None, Some(1e6));
    let names: Vec<String> = (0..30).map(|n| format!("i{n:02}")).collect();
    let columns: [(&str, ArrayRef); 2] =
        [("item_id", Arc::new(StringArray::from(names.clone()))), ("price", Arc::new(Float64Array::from(prices)))];
    let folder = Folder::of(&batch(&columns));
    let metadata = items(&folder, &[], &[]).unwrap();
    let aligned = metadata.attributes_for(&Vocabulary::from_sorted(&names).unwrap()).unwrap().unwrap();
    assert!((0..3).all(|missing| row(&aligned, missing).is_empty()));
    assert_eq!(row(&aligned, 3), [("price".to_string(), 3.0)]);
    assert!(row(&aligned, 4)[0].1 < 0.0);
    assert_eq!(
        metadata.warnings[0].to_string(),
        "NUMBERS_NOT_FINITE: numbers that are NaN or infinite; count=2 column=price; they count as missing"
    );
}

#[test]
fn few_whole_numbers_and_flags_are_categories_and_many_are_both() {
    let names: Vec<String> = (0..60).map(|n| format!("i{n:02}")).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("item_id", Arc::new(StringArray::from(names.clone()))),
        ("size", Arc::new(Int64Array::from_iter_values((0..60).map(|n| n % 3)))),
        ("maker", Arc::new(Int64Array::from_iter_values((0..60).map(|n| n % 30)))),
        ("fresh", Arc::new(BooleanArray::from_iter((0..60).map(|n| Some(n % 2 == 0))))),
    ];
    let aligned = aligned(&columns, &Vocabulary::from_sorted(&names).unwrap());
    let shapes: Vec<_> = aligned.attributes.columns().iter().map(|c| (c.name.as_str(), c.features())).collect();
    assert_eq!(shapes, [("size", 3), ("maker", 1), ("maker", 30), ("fresh", 2)]);
    assert!(matches!(aligned.attributes.columns()[1].encoding, Encoding::Number { .. }));
    let words: Vec<String> = row(&aligned, 31).into_iter().map(|(name, _)| name).collect();
    assert_eq!(words, ["size=1", "maker", "maker=1", "fresh=false"]);
}

#[test]
fn columns_that_say_nothing_are_left_out_with_a_line() {
    let names: Vec<String> = (0..40).map(|n| format!("i{n:02}")).collect();
    let columns: [(&str, ArrayRef); 7] = [
        ("item_id", Arc::new(StringArray::from(names.clone()))),
        ("empty", Arc::new(StringArray::from(vec![None::<&str>; 40]))),
        ("nan", Arc::new(Float64Array::from(vec![f64::NAN; 40]))),
        ("same", Arc::new(StringArray::from(vec!["x"; 40]))),
        ("title", Arc::new(StringArray::from_iter_values((0..40).map(|n| format!("title {n}"))))),
        ("serial", Arc::new(Int64Array::from_iter_values(1000..1040))),
        ("when", Arc::new(TimestampSecondArray::from_iter_values(0..40))),
    ];
    let aligned = aligned(&columns, &Vocabulary::from_sorted(&names).unwrap());
    assert_eq!(aligned.attributes.columns(), []);
    assert_eq!(aligned.attributes.rows(), 40);
    assert_eq!(
        codes(&aligned),
        [
            "ATTRIBUTE_EMPTY",
            "ATTRIBUTE_EMPTY",
            "ATTRIBUTE_CONSTANT",
            "ATTRIBUTE_DISTINCT",
            "ATTRIBUTE_DISTINCT",
            "ATTRIBUTE_TIME"
        ]
    );
    assert_eq!(
        aligned.warnings[3].to_string(),
        "ATTRIBUTE_DISTINCT: the values hardly repeat, as in free text; count=40 column=title; the column is not used"
    );
}

#[test]
fn a_column_of_very_many_values_keeps_the_most_frequent() {
    let names: Vec<String> = (0..12_001).map(|n| format!("i{n:05}")).collect();
    let value = |n: usize| if n < 3 { "often".to_string() } else { format!("v{:05}", (n - 3) / 2) };
    let columns: [(&str, ArrayRef); 2] = [
        ("item_id", Arc::new(StringArray::from(names.clone()))),
        ("tag", Arc::new(StringArray::from_iter_values((0..12_001).map(value)))),
    ];
    let aligned = aligned(&columns, &Vocabulary::from_sorted(&names).unwrap());
    assert_eq!(aligned.attributes.columns()[0].features(), 5_000);
    assert_eq!(row(&aligned, 1), [("tag=often".to_string(), 1.0)]);
    assert_eq!(
        aligned.warnings[0].to_string(),
        "ATTRIBUTE_VALUES_MANY: values beyond the 5000 most frequent; count=1000 column=tag; they are not used"
    );
}

#[test]
fn the_last_row_of_an_id_counts_over_all_files() {
    let folder = Folder::of(&batch(&[("item_id", four()), ("g", strings(["x", "x", "y", "y"]))]));
    let more = [("item_id", strings(["a", "b"])), ("other", strings(["p", "p"]))];
    folder.write("z.parquet", &batch(&more));
    let metadata = items(&folder, &[], &[]).unwrap();
    let aligned = metadata.attributes_for(&ids(["a", "b", "c", "d"])).unwrap().unwrap();
    assert_eq!(metadata.duplicates, 2);
    let words = |at| row(&aligned, at).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!((words(0), words(2)), (vec!["other=p".to_string()], vec!["g=y".to_string()]));
}

#[test]
fn columns_are_chosen_by_name_and_an_unknown_name_lists_what_there_is() {
    let g = || strings(["x", "x", "y", "y"]);
    let columns = [("item_id", four()), ("G", g()), ("h", g()), ("CREATION_TIMESTAMP", longs([1, 1, 2, 2]))];
    let folder = Folder::of(&batch(&columns));
    let used = |include: &[&str], exclude: &[&str]| -> Vec<String> {
        let aligned = items(&folder, include, exclude).unwrap().attributes_for(&ids(["a", "b", "c", "d"])).unwrap();
        aligned.unwrap().attributes.columns().iter().map(|column| column.name.clone()).collect()
    };
    assert_eq!(used(&[], &[]), ["G", "h"]);
    assert_eq!(used(&["g"], &[]), ["G"]);
    assert_eq!(used(&[], &["g"]), ["h"]);
    assert_eq!(used(&["creation_timestamp", "h"], &["H"]), ["CREATION_TIMESTAMP"]);
    assert_eq!(
        items(&folder, &["genre"], &[]).unwrap_err().to_string(),
        "--include-columns: Items has no column \"genre\" beside its id; columns are [G, h, CREATION_TIMESTAMP]"
    );
}

#[test]
fn of_two_columns_with_one_name_the_first_counts() {
    let folder = Folder::of(&batch(&[
        ("item_id", four()),
        ("g", strings(["x", "x", "y", "y"])),
        ("G", strings(["1", "2", "1", "2"])),
    ]));
    let metadata = items(&folder, &[], &[]).unwrap();
    assert_eq!(
        metadata.warnings[0].to_string(),
        "COLUMN_REPEATED: two columns of a file have this name; column=G; the first one counts"
    );
    assert_eq!((metadata.columns.len(), metadata.columns[0].rows), (1, 4));
    let aligned = metadata.attributes_for(&ids(["a", "b", "c", "d"])).unwrap().unwrap();
    assert_eq!(row(&aligned, 0), [("g=x".to_string(), 1.0)]);
}

#[test]
fn newer_metadata_is_read_as_the_model_knows_it() {
    let known = aligned(
        &[("item_id", four()), ("g", strings(["x", "x", "y", "y"])), ("n", longs([1, 2, 1, 2]))],
        &ids(["a", "b", "c", "d"]),
    );
    let newer =
        Folder::of(&batch(&[("item_id", strings(["e", "f", "e", "f"])), ("g", strings(["", "y", "x", "new"]))]));
    let again = items(&newer, &[], &[]).unwrap();
    let again = again.attributes_as(known.attributes.columns(), &ids(["e", "f"])).unwrap().unwrap();
    assert_eq!(again.attributes.columns(), known.attributes.columns());
    assert_eq!((row(&again, 0), row(&again, 1)), (vec![("g=x".to_string(), 1.0)], vec![]));
    assert_eq!(codes(&again), ["ATTRIBUTE_ABSENT"]);
}

#[test]
fn metadata_read_without_a_selection_has_no_attributes() {
    let folder = Folder::of(&batch(&[("item_id", four()), ("g", strings(["x", "x", "y", "y"]))]));
    let (stores, columns) = (Stores::in_memory(), ColumnMapping::new());
    let plain = wait(read_metadata(&stores, Dataset::Items, &[folder.location()], &columns));
    assert!(plain.unwrap().attributes_for(&ids(["a"])).unwrap().is_none());
}
