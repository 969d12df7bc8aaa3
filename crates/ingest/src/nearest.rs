//! The column, or another name, that a person most likely meant.

use crate::schema::ColumnContract;

/// Bytes of the longest name for which another one is looked for: what is longer is no slip of a keyboard.
const LONGEST_NAME: usize = 100;

/// The name among `found` that most likely stands for `wanted`, if one is near enough to be worth a suggestion.
pub(crate) fn nearest<'a>(wanted: &ColumnContract, found: &'a [String]) -> Option<&'a str> {
    let target = letters(wanted.name);
    let aliases: Vec<String> = wanted.also_called.iter().map(|alias| letters(alias)).collect();
    found
        .iter()
        .filter_map(|name| {
            let letters = letters(name);
            let distance = if letters == target {
                0
            } else if let Some(position) = aliases.iter().position(|alias| *alias == letters) {
                // An alias is a surer sign than a slip of the keyboard; earlier aliases are the more common ones.
                1 + position
            } else {
                let slips = edit_distance(&letters, &target);
                if slips > target.len() / 3 {
                    return None;
                }
                100 + slips
            };
            Some((distance, name))
        })
        .min()
        .map(|(_, name)| name.as_str())
}

/// The name among `known` that most likely stands for `wanted`, if one is near enough to be worth a suggestion.
///
/// Case, dashes and underscores do not count; a third of the letters may be other ones, two in any name of four or more.
pub fn nearest_name<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let target = letters(wanted);
    if target.len() > LONGEST_NAME {
        return None;
    }
    let slips = |name: &'a str| (edit_distance(&letters(name), &target), name);
    // Two letters that changed places are two slips, also in a short name.
    let most = if target.len() < 4 { 0 } else { (target.len() / 3).max(2) };
    known.into_iter().map(slips).filter(|(slips, _)| *slips <= most).min().map(|(_, name)| name)
}

/// The letters and digits of a name in lower case: `User-ID`, `userId` and `USER_ID` are the same word.
fn letters(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The number of insertions, deletions and substitutions between two words (Levenshtein 1966).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.chars().enumerate() {
        let mut diagonal = previous[0];
        previous[0] = row + 1;
        for (column, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = previous[column + 1];
            previous[column + 1] = substituted.min(diagonal + 1).min(previous[column] + 1);
        }
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Dataset;

    fn suggestion(wanted: &str, found: &[&str]) -> Option<String> {
        let contract = Dataset::Interactions.columns().iter().find(|column| column.name == wanted).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        nearest(contract, &found).map(ToString::to_string)
    }

    #[test]
    fn other_spellings_come_before_aliases_and_aliases_before_slips() {
        assert_eq!(suggestion("ITEM_ID", &["item", "itemId"]).as_deref(), Some("itemId"));
        assert_eq!(suggestion("ITEM_ID", &["iterm_id", "sku"]).as_deref(), Some("sku"));
        assert_eq!(suggestion("TIMESTAMP", &["timestmap", "user"]).as_deref(), Some("timestmap"));
        assert_eq!(suggestion("TIMESTAMP", &["user", "ts"]).as_deref(), Some("ts"));
    }

    #[test]
    fn a_name_that_is_not_near_is_not_suggested() {
        assert_eq!(suggestion("ITEM_ID", &["quantity", "country"]), None);
        assert_eq!(suggestion("ITEM_ID", &[]), None);
    }

    #[test]
    fn the_nearest_name_is_a_slip_or_another_spelling_away() {
        let known = ["num-results", "max-items", "min-score"];
        assert_eq!(nearest_name("num_result", known), Some("num-results"));
        assert_eq!(nearest_name("MaxItems", known), Some("max-items"));
        assert_eq!(nearest_name("hidden-dimension", known), None);
        assert_eq!(nearest_name("", known), None);
        assert_eq!(nearest_name(&"x".repeat(1 << 20), known), None);
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
