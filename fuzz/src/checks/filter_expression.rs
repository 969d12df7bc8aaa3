//! Amazon Personalize's filter expressions, with the values of one line.

use std::collections::BTreeMap;

use item_affinity_job::FilterExpression;

/// Characters of a filter, at most.
const LONGEST: usize = 2_500;

/// The first line is a filter; the second, if there is one, the JSON object of its `filterValues`.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (filter, values) = text.split_once('\n').unwrap_or((text, "{}"));
    let filter = match filter.parse::<FilterExpression>() {
        Ok(filter) => filter,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // Its text is the same filter. Spaces may make it longer than what was written, and too long for a filter.
    let written = filter.to_string();
    if written.chars().count() <= LONGEST {
        assert_eq!(written.parse::<FilterExpression>().as_ref(), Ok(&filter));
    }
    let Ok(values) = serde_json::from_str::<BTreeMap<String, String>>(values) else { return };
    match filter.bind(&values) {
        Ok(bound) => assert!(!format!("{bound:?}").contains("Parameter"), "{bound:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
