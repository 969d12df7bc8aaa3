//! Codes for a column of text: the text itself is looked at once per distinct value, not once per row.

use arrow::array::{AnyDictionaryArray, Array, ArrayData, ArrayRef, AsArray};
use arrow::datatypes::{ArrowNativeType, Int32Type};

use crate::error::Result;
use crate::recent_codes::{NO_KEY, RecentCodes};
use crate::text::{Hashes, Text, TextValue};

/// Codes from here on say why a row has no code.
pub(crate) const FIRST_SPECIAL: u32 = u32::MAX - 15;
/// The value is null.
pub(crate) const NULL: u32 = u32::MAX;
/// The bytes are not UTF-8.
pub(crate) const NOT_UTF8: u32 = u32::MAX - 1;
/// The text is empty or white space.
pub(crate) const BLANK: u32 = u32::MAX - 2;
/// The text is longer than an id may be.
pub(crate) const TOO_LONG: u32 = u32::MAX - 3;
/// The row was not asked for.
pub(crate) const UNREAD: u32 = u32::MAX - 4;

/// Remembers the codes of values seen before, across the batches of a read.
pub(crate) struct TextCodes {
    recent: RecentCodes,
    keys: Vec<u128>,
    hashes: Hashes,
    /// The dictionary of the last batch with the codes of its values: a row group shares one over its batches.
    dictionary: Option<(ArrayData, Vec<u32>)>,
    scratch: String,
}

impl TextCodes {
    pub(crate) fn new() -> Self {
        Self {
            recent: RecentCodes::new(),
            keys: Vec::new(),
            hashes: Hashes::default(),
            dictionary: None,
            scratch: String::new(),
        }
    }

    /// Writes one code per row of `array` into `out`, which is cleared first.
    ///
    /// `wanted` leaves rows out, which become [`UNREAD`]. `resolve` gives the code of a text; it is called at least
    /// once for each distinct wanted text and must give the same code for the same text.
    pub(crate) fn read(
        &mut self,
        array: &ArrayRef,
        wanted: Option<&[bool]>,
        out: &mut Vec<u32>,
        resolve: &mut dyn FnMut(&str) -> Result<u32>,
    ) -> Result<()> {
        out.clear();
        out.reserve(array.len());
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            // Of no values there are no keys.
            if dictionary.values().is_empty() {
                out.resize(array.len(), NULL);
                return Ok(());
            }
            let keys = array.as_dictionary_opt::<Int32Type>().map(|dictionary| dictionary.keys().values());
            return match keys {
                // As Parquet's own dictionaries come.
                Some(keys) => {
                    self.read_dictionary(dictionary, keys.iter().map(|key| key.as_usize()), wanted, out, resolve)
                }
                None => {
                    self.read_dictionary(dictionary, dictionary.normalized_keys().into_iter(), wanted, out, resolve)
                }
            };
        }
        let text = Text::of(array);
        let left_out = |row: usize| wanted.is_some_and(|wanted| !wanted[row]);
        let mut start = 0;
        while start < text.len() {
            let rows = start..text.len().min(start + ROWS_AT_ONCE);
            start = rows.end;
            self.keys.clear();
            let key = |row| if left_out(row) { NO_KEY } else { text.key(row, &self.hashes) };
            self.keys.extend(rows.clone().map(key));
            self.recent.fetch(&self.keys);
            for (position, row) in rows.enumerate() {
                out.push(if left_out(row) {
                    UNREAD
                } else if text.is_null(row) {
                    NULL
                } else {
                    self.code(&text, row, self.keys[position], resolve)?
                });
            }
        }
        Ok(())
    }

    /// key: of the text in this row
    #[inline(always)]
    fn code(
        &mut self,
        text: &Text,
        row: usize,
        key: u128,
        resolve: &mut dyn FnMut(&str) -> Result<u32>,
    ) -> Result<u32> {
        if let Some(code) = self.recent.find(key) {
            return Ok(code);
        }
        let code = match text.value(row, &mut self.scratch) {
            TextValue::Null => NULL,
            TextValue::NotUtf8 => NOT_UTF8,
            TextValue::Text(text) => resolve(text)?,
        };
        self.recent.remember(key, code);
        Ok(code)
    }

    fn read_dictionary(
        &mut self,
        dictionary: &dyn AnyDictionaryArray,
        keys: impl Iterator<Item = usize>,
        wanted: Option<&[bool]>,
        out: &mut Vec<u32>,
        resolve: &mut dyn FnMut(&str) -> Result<u32>,
    ) -> Result<()> {
        let text = Text::of(dictionary.values());
        let nulls = dictionary.nulls();
        let mut codes = self.codes_of_dictionary(dictionary.values());
        for (row, key) in keys.enumerate() {
            out.push(if wanted.is_some_and(|wanted| !wanted[row]) {
                UNREAD
            } else if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                NULL
            } else if codes[key] == UNREAD {
                // Dictionaries of row groups have much in common.
                codes[key] = self.code(&text, key, text.key(key, &self.hashes), resolve)?;
                codes[key]
            } else {
                codes[key]
            });
        }
        self.dictionary = Some((dictionary.values().to_data(), codes));
        Ok(())
    }

    /// The codes found so far for these dictionary values, if they are those of the last batch.
    fn codes_of_dictionary(&mut self, values: &ArrayRef) -> Vec<u32> {
        match self.dictionary.take() {
            // The old values are still held here, so that their memory cannot belong to another array.
            Some((last, codes)) if last.ptr_eq(&values.to_data()) => codes,
            _ => vec![UNREAD; values.len()],
        }
    }
}

/// Rows whose places in the cache are fetched together: as many as the first-level cache has room for.
const ROWS_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::{Int8Type, UInt16Type};

    use super::*;

    /// Codes by first appearance, with the number of calls.
    #[derive(Default)]
    struct Seen {
        names: Vec<String>,
        calls: usize,
    }

    impl Seen {
        fn code(&mut self, text: &str) -> u32 {
            self.calls += 1;
            let position = self.names.iter().position(|name| name == text).unwrap_or_else(|| {
                self.names.push(text.to_string());
                self.names.len() - 1
            });
            u32::try_from(position).unwrap()
        }
    }

    fn read(codes: &mut TextCodes, seen: &mut Seen, array: &ArrayRef, wanted: Option<&[bool]>) -> Vec<u32> {
        let mut out = Vec::new();
        codes.read(array, wanted, &mut out, &mut |text| Ok(seen.code(text))).unwrap();
        out
    }

    #[test]
    fn strings_views_dictionaries_and_integers_give_the_same_codes() {
        let values = vec![Some("12"), None, Some("7"), Some("12"), Some("a value of many bytes"), Some("7")];
        let dictionary: DictionaryArray<Int8Type> = values.iter().copied().collect();
        let arrays: [ArrayRef; 3] = [
            Arc::new(StringArray::from(values.clone())),
            Arc::new(StringViewArray::from(values.clone())),
            Arc::new(dictionary),
        ];
        let (mut codes, mut seen) = (TextCodes::new(), Seen::default());
        for array in &arrays {
            assert_eq!(read(&mut codes, &mut seen, array, None), [0, NULL, 1, 0, 2, 1]);
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), Some(12), None, Some(7)]));
        assert_eq!(read(&mut codes, &mut seen, &numbers, None), [1, 0, NULL, 1]);
    }

    #[test]
    fn a_dictionary_shared_by_batches_resolves_each_value_once() {
        let dictionary: DictionaryArray<UInt16Type> = (0..1000).map(|row| ["a", "b", "c"][row % 3]).collect();
        let whole: ArrayRef = Arc::new(dictionary);
        let (mut codes, mut seen) = (TextCodes::new(), Seen::default());
        for start in [0, 400, 800] {
            read(&mut codes, &mut seen, &whole.slice(start, 200), None);
        }
        assert_eq!(seen.calls, 3);
    }

    #[test]
    fn rows_that_are_not_wanted_are_not_resolved() {
        let array: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let (mut codes, mut seen) = (TextCodes::new(), Seen::default());
        assert_eq!(read(&mut codes, &mut seen, &array, Some(&[false, true, false])), [UNREAD, 0, UNREAD]);
        assert_eq!(seen.names, ["b"]);
    }

    #[test]
    fn values_that_share_a_cache_slot_keep_their_own_codes() {
        let many: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..200_000).map(|n| format!("u{n}"))));
        let (mut codes, mut next) = (TextCodes::new(), 0_u32);
        let mut table = std::collections::HashMap::new();
        let mut resolve = |text: &str| {
            Ok(*table.entry(text.to_string()).or_insert_with(|| {
                next += 1;
                next - 1
            }))
        };
        let expected: Vec<u32> = (0..200_000).collect();
        for _ in 0..2 {
            let mut out = Vec::new();
            codes.read(&many, None, &mut out, &mut resolve).unwrap();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn an_empty_dictionary_holds_only_nulls() {
        let nulls: DictionaryArray<Int8Type> = vec![None::<&str>, None].into_iter().collect();
        let (mut codes, mut seen) = (TextCodes::new(), Seen::default());
        assert_eq!(read(&mut codes, &mut seen, &(Arc::new(nulls) as ArrayRef), None), [NULL, NULL]);
    }
}
