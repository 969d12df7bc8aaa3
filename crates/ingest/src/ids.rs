//! Outside ids to arrival numbers, with the rules that an id must meet.

use arrow::array::ArrayRef;
use item_affinity_model::VocabularyBuilder;

use crate::error::Result;
use crate::text_codes::{BLANK, FIRST_SPECIAL, TOO_LONG, TextCodes};

/// The longest id in characters, as in Amazon Personalize.
pub const LONGEST_ID: usize = 256;

/// Interns the ids of one column over all batches of a read. Ids are kept byte for byte.
pub(crate) struct Ids {
    codes: TextCodes,
    vocabulary: VocabularyBuilder,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self { codes: TextCodes::new(), vocabulary: VocabularyBuilder::new() }
    }

    /// One arrival number per row, or the special code that says why the row has no id.
    pub(crate) fn read(&mut self, array: &ArrayRef, wanted: Option<&[bool]>, out: &mut Vec<u32>) -> Result<()> {
        let vocabulary = &mut self.vocabulary;
        self.codes.read(array, wanted, out, &mut |id| {
            if let Some(special) = refused(id) {
                return Ok(special);
            }
            let code = vocabulary.intern(id)?;
            if code >= FIRST_SPECIAL {
                return Err(item_affinity_model::Error::TooMany {
                    name: "ids",
                    count: u64::from(code) + 1,
                    most: u64::from(FIRST_SPECIAL),
                }
                .into());
            }
            Ok(code)
        })
    }

    /// How many different ids have arrived.
    pub(crate) fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// The id with this arrival number.
    pub(crate) fn id(&self, number: usize) -> Option<&str> {
        self.vocabulary.arrived(u32::try_from(number).ok()?)
    }

    /// Bytes held for the ids.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.vocabulary.allocated_bytes()
    }

    pub(crate) fn into_vocabulary(self) -> VocabularyBuilder {
        self.vocabulary
    }
}

/// The special code of a text that is no id.
fn refused(id: &str) -> Option<u32> {
    if id.trim().is_empty() {
        Some(BLANK)
    } else if id.len() > LONGEST_ID && id.chars().nth(LONGEST_ID).is_some() {
        Some(TOO_LONG)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_characters_not_bytes() {
        assert_eq!(refused(&"é".repeat(256)), None);
        assert_eq!(refused(&"é".repeat(257)), Some(TOO_LONG));
        assert_eq!(refused(&"x".repeat(1 << 20)), Some(TOO_LONG));
    }

    #[test]
    fn empty_and_white_space_are_no_ids_but_spaces_around_one_are_kept() {
        assert_eq!(refused(""), Some(BLANK));
        assert_eq!(refused(" \t\u{a0}"), Some(BLANK));
        assert_eq!(refused(" 1 "), None);
    }
}
