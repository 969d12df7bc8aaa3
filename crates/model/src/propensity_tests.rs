#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_term_has_a_name_of_its_own() {
    let names = Regime::repeat_pair_term_names();
    assert_eq!(names.len(), REPEAT_TERMS);
    assert_eq!(Regime::new_pair_term_names().len(), NEW_TERMS);
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    assert_eq!(names[NEW_TERMS + PAIR_TERMS], "log affinity × log affinity");
}
