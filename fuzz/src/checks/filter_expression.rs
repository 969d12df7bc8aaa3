//! Amazon Personalize's filter expressions, with the values of one line.

use std::collections::BTreeMap;

use item_affinity_job::{FilterError, FilterExpression};

/// The first line is a filter; the second, if there is one, the JSON object of its `filterValues`.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (filter, values) = text.split_once('\n').unwrap_or((text, "{}"));
    let filter = match filter.parse::<FilterExpression>() {
        Ok(filter) => filter,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // Its text is the same filter, unless it is longer than what was written and too long to be one.
    match filter.to_string().parse::<FilterExpression>() {
        Err(FilterError::Length { found, most }) if found > most => {}
        again => assert_eq!(again.as_ref(), Ok(&filter)),
    }
    let Ok(values) = serde_json::from_str::<BTreeMap<String, String>>(values) else { return };
    match filter.bind(&values) {
        Ok(bound) => assert!(!format!("{bound:?}").contains("Parameter"), "{bound:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
