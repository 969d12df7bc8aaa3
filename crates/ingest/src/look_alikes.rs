//! Ids that a person would take for one another.

use std::borrow::Cow;

use item_affinity_model::Vocabulary;

/// How many ids become another id of the vocabulary when spaces around them, leading zeros and `.0` are dropped.
pub(crate) fn look_alikes(ids: &Vocabulary) -> usize {
    ids.iter().filter(|id| matches!(plain(id), Cow::Owned(plain) if ids.index_of(&plain).is_some())).count()
}

/// The id without what exports add to it by accident; borrowed when there is nothing of the kind.
fn plain(id: &str) -> Cow<'_, str> {
    let trimmed = id.trim();
    let whole = trimmed.strip_suffix(".0").filter(|whole| is_number(whole)).unwrap_or(trimmed);
    let digits = if is_number(whole) { whole.trim_start_matches('0') } else { whole };
    // Zero itself is all leading zeros.
    let digits = if digits.is_empty() { "0" } else { digits };
    if digits == id { Cow::Borrowed(id) } else { Cow::Owned(digits.to_string()) }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_zeros_and_point_zero_make_look_alikes() {
        let ids = Vocabulary::from_sorted([" 1", "00", "01", "0x", "1", "1.0", "2.0", "a", "a ", "x"]).unwrap();
        assert_eq!(look_alikes(&ids), 4, "' 1', '01', '1.0' and 'a '; neither '00', '0x' nor '2.0' has a twin");
    }
}
