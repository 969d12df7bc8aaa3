//! Event types, values and weights.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array, StringArray};
use arrow::record_batch::RecordBatch;

use crate::files::{Folder, batch, codes, doubles, events, few, few_with, strings};

fn typed() -> RecordBatch {
    let types: ArrayRef = Arc::new(StringArray::from(vec![Some("view"), Some("buy"), None, Some("cart")]));
    let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(9.0), None]));
    let mut columns = few().to_vec();
    columns.extend([("EVENT_TYPE", types), ("EVENT_VALUE", values)]);
    batch(&columns)
}

#[test]
fn all_events_count_one_when_nothing_is_asked_for() {
    let ingested = Folder::of(&typed()).read().unwrap();
    assert!(events(&ingested).iter().all(|(.., weight)| *weight == 1.0));
    assert_eq!((ingested.counts.rows, ingested.counts.kept), (4, 4));
}

#[test]
fn several_event_types_pass_and_ids_of_the_others_are_gone() {
    let ingested =
        Folder::of(&typed()).read_with(|source| source.event_types = vec!["buy".into(), "cart".into()]).unwrap();
    let users: Vec<_> = ingested.interactions.users().iter().collect();
    assert_eq!(users, ["u1", "u3"]);
    assert_eq!(ingested.counts.filtered_by_event_type, 2);
    assert_eq!(ingested.event_types.types.len(), 3, "the report still knows every type");
}

#[test]
fn a_threshold_keeps_values_at_or_above_it_and_drops_nulls() {
    let ingested = Folder::of(&typed()).read_with(|source| source.event_value_threshold = Some(2.0)).unwrap();
    assert_eq!((ingested.interactions.len(), ingested.counts.filtered_by_event_value), (2, 2));
    assert!(events(&ingested).iter().all(|(.., weight)| *weight == 1.0), "a threshold is no weight");
}

#[test]
fn values_may_be_integers_floats_or_decimals() {
    let decimals = Decimal128Array::from(vec![199, 200, 201, 0]).with_precision_and_scale(9, 2).unwrap();
    let arrays: [(ArrayRef, usize); 3] = [
        (Arc::new(decimals), 2),
        (Arc::new(Int32Array::from(vec![1, 2, 3, 4])), 3),
        (Arc::new(Float32Array::from(vec![1.999, 2.0, f32::MAX, 0.0])), 2),
    ];
    for (array, kept) in arrays {
        let kind = array.data_type().clone();
        let folder = Folder::of(&few_with("event_value", array));
        let ingested = folder.read_with(|source| source.event_value_threshold = Some(2.0)).unwrap();
        assert_eq!(ingested.interactions.len(), kept, "{kind}");
    }
}

#[test]
fn text_and_booleans_are_no_values_and_integers_no_event_types() {
    for array in [strings(["1"; 4]), Arc::new(BooleanArray::from(vec![true; 4]))] {
        let message = Folder::of(&few_with("event_value", array)).refusal();
        assert!(message.contains("accepted: integers, floats and decimals; file="), "{message}");
    }
    let message = Folder::of(&few_with("event_type", Arc::new(Int32Array::from(vec![1; 4])))).refusal();
    assert!(message.starts_with("ERR_COLUMN_TYPE: EVENT_TYPE: found Int32, accepted: strings; "), "{message}");
}

#[test]
fn weights_come_from_event_types_and_the_others_weigh_one() {
    let ingested = Folder::of(&typed())
        .read_with(|source| {
            source.event_weights = vec![("buy".into(), 4.0), ("view".into(), 0.5), ("gift".into(), 2.0)]
        })
        .unwrap();
    let weights: Vec<_> =
        events(&ingested).iter().map(|(user, item, _, weight)| format!("{user}{item} {weight}")).collect();
    assert_eq!(weights, ["u1a 4", "u2b 0.5", "u2a 1", "u3b 1"]);
    let messages: Vec<_> = ingested.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "EVENT_TYPE_UNSEEN: no row has event type gift; event types found [buy 1, cart 1, view 1, (null) 1]",
            "EVENT_WEIGHT_DEFAULT: no weight is given for cart; each such event weighs 1",
        ]
    );
}

#[test]
fn a_value_is_a_weight_only_on_request_and_its_absence_weighs_one() {
    let ingested = Folder::of(&typed())
        .read_with(|source| {
            source.value_as_weight = true;
            source.event_weights = vec![("buy".into(), 4.0)];
        })
        .unwrap();
    let weights: Vec<_> = events(&ingested).iter().map(|(.., weight)| *weight).collect();
    assert_eq!(weights, [8.0, 1.0, 9.0, 1.0]);
}

#[test]
fn equal_values_say_nothing_and_count_one() {
    for value in [0.0, 7.5] {
        let folder = Folder::of(&few_with("event_value", doubles([value; 4])));
        let ingested = folder.read_with(|source| source.value_as_weight = true).unwrap();
        assert!(events(&ingested).iter().all(|(.., weight)| *weight == 1.0));
        assert_eq!(codes(&ingested), ["EVENT_VALUES_EQUAL"]);
    }
}

#[test]
fn a_value_too_large_to_sum_is_rejected_as_a_weight_and_fine_as_a_value() {
    let folder = Folder::of(&few_with("event_value", doubles([1e300, 1.0, 2.0, 3.0])));
    assert_eq!(folder.read().unwrap().interactions.len(), 4);
    let message = folder.refusal_with(|source| source.value_as_weight = true);
    assert!(message.contains("(event_value_too_large 1)"), "{message}");
}

#[test]
fn a_filter_that_leaves_nothing_says_which_one_and_what_there_is() {
    let folder = Folder::of(&typed());
    assert_eq!(
        folder.refusal_with(|source| source.event_types = vec!["Buy".into()]),
        "ERR_NO_INTERACTIONS: none of 4 rows is left: --event-type Buy removed 4; event types found [buy 1, cart 1, view 1, \
         (null) 1]; name an event type that occurs"
    );
    let message = folder.refusal_with(|source| {
        source.event_types = vec!["buy".into()];
        source.event_value_threshold = Some(100.0);
    });
    assert_eq!(
        message,
        "ERR_NO_INTERACTIONS: none of 4 rows is left: --event-type buy removed 3, --event-value-threshold 100 removed 1; \
         event types found [buy 1, cart 1, view 1, (null) 1]; name an event type that occurs or lower the threshold"
    );
}

#[test]
fn weights_that_leave_nothing_are_refused() {
    let folder = Folder::of(&few_with("event_type", strings(["view"; 4])));
    assert_eq!(
        folder.refusal_with(|source| source.event_weights = vec![("view".into(), 0.0)]),
        "ERR_NO_INTERACTIONS: each of 4 interactions weighs 0; give a weight above 0 to an event type that occurs \
         (--event-weights)"
    );
}

#[test]
fn a_filter_needs_its_column() {
    let folder = Folder::of(&batch(&few()));
    let message = folder.refusal_with(|source| source.event_types = vec!["buy".into()]);
    assert!(
        message.starts_with("ERR_SCHEMA: missing columns [EVENT_TYPE], found [user_id, item_id, timestamp]; "),
        "{message}"
    );
    let message = folder.refusal_with(|source| source.event_value_threshold = Some(1.0));
    assert!(message.starts_with("ERR_SCHEMA: missing columns [EVENT_VALUE]"), "{message}");
}
