//! One view on every Arrow type that can hold text: strings, UTF-8 bytes and integers.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, FixedSizeBinaryArray, Int64Array, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray, UInt64Array,
};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::ids::LONGEST_ID;
use crate::recent_codes::NO_KEY;

/// The values of a column as text, without a copy where Arrow holds text already.
pub(crate) enum Text {
    Utf8(StringArray),
    LargeUtf8(LargeStringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    FixedBinary(FixedSizeBinaryArray),
    Int64(Int64Array),
    UInt64(UInt64Array),
}

/// One value of a column of text.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum TextValue<'a> {
    Null,
    NotUtf8,
    Text(&'a str),
}

impl Text {
    /// Reads an array that [`Accepts::Id`](crate::schema::Accepts) or `Text` admits; dictionaries are not taken.
    pub(crate) fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => Text::Utf8(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 => Text::LargeUtf8(array.as_string::<i64>().clone()),
            DataType::Utf8View => Text::Utf8View(array.as_string_view().clone()),
            DataType::Binary => Text::Binary(array.as_binary::<i32>().clone()),
            DataType::LargeBinary => Text::LargeBinary(array.as_binary::<i64>().clone()),
            DataType::BinaryView => Text::BinaryView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(_) => Text::FixedBinary(array.as_fixed_size_binary().clone()),
            DataType::Int8 => Text::Int64(array.as_primitive::<Int8Type>().unary(i64::from)),
            DataType::Int16 => Text::Int64(array.as_primitive::<Int16Type>().unary(i64::from)),
            DataType::Int32 => Text::Int64(array.as_primitive::<Int32Type>().unary(i64::from)),
            DataType::Int64 => Text::Int64(array.as_primitive::<Int64Type>().clone()),
            DataType::UInt8 => Text::UInt64(array.as_primitive::<UInt8Type>().unary(u64::from)),
            DataType::UInt16 => Text::UInt64(array.as_primitive::<UInt16Type>().unary(u64::from)),
            DataType::UInt32 => Text::UInt64(array.as_primitive::<UInt32Type>().unary(u64::from)),
            DataType::UInt64 => Text::UInt64(array.as_primitive::<UInt64Type>().clone()),
            // The contract refused every other type; as nulls such rows would be rejected, never misread.
            _ => Text::Utf8(StringArray::new_null(array.len())),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Text::Utf8(array) => array,
            Text::LargeUtf8(array) => array,
            Text::Utf8View(array) => array,
            Text::Binary(array) => array,
            Text::LargeBinary(array) => array,
            Text::BinaryView(array) => array,
            Text::FixedBinary(array) => array,
            Text::Int64(array) => array,
            Text::UInt64(array) => array,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.array().len()
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    /// The value of a row; `scratch` holds the decimal text of an integer.
    pub(crate) fn value<'a>(&'a self, row: usize, scratch: &'a mut String) -> TextValue<'a> {
        if self.is_null(row) {
            return TextValue::Null;
        }
        let decimal = |number: &dyn std::fmt::Display, scratch: &'a mut String| {
            scratch.clear();
            match write!(scratch, "{number}") {
                Ok(()) => TextValue::Text(scratch),
                Err(_) => TextValue::Null,
            }
        };
        match self {
            Text::Utf8(array) => TextValue::Text(array.value(row)),
            Text::LargeUtf8(array) => TextValue::Text(array.value(row)),
            Text::Utf8View(array) => TextValue::Text(array.value(row)),
            Text::Binary(array) => utf8(array.value(row)),
            Text::LargeBinary(array) => utf8(array.value(row)),
            Text::BinaryView(array) => utf8(array.value(row)),
            Text::FixedBinary(array) => utf8(array.value(row)),
            Text::Int64(array) => decimal(&array.value(row), scratch),
            Text::UInt64(array) => decimal(&array.value(row), scratch),
        }
    }

    /// A number that stands for the value; [`NO_KEY`] where there is none that is cheap to have.
    ///
    /// For integers and for strings of up to 12 bytes it holds the value itself. For longer strings it is 96 bits of
    /// hashes with random keys (SipHash 1-3): among 10 million ids the chance that any two share a key is 10^-15.
    /// Bits 8 to 32 are always 0.
    pub(crate) fn key(&self, row: usize, hashes: &Hashes) -> u128 {
        // The low 8 bits of a short string are its length, at most 12, so these marks are free.
        const SIGNED: u128 = 0xff;
        const UNSIGNED: u128 = 0xfe;
        if self.is_null(row) {
            return NO_KEY;
        }
        match self {
            Text::Utf8(array) => hashes.key(array.value(row).as_bytes()),
            Text::LargeUtf8(array) => hashes.key(array.value(row).as_bytes()),
            Text::Utf8View(array) => hashes.key(array.value(row).as_bytes()),
            Text::Binary(array) => hashes.key(array.value(row)),
            Text::LargeBinary(array) => hashes.key(array.value(row)),
            Text::BinaryView(array) => hashes.key(array.value(row)),
            Text::FixedBinary(array) => hashes.key(array.value(row)),
            Text::Int64(array) => (u128::from(array.value(row).cast_unsigned()) << 64) | SIGNED,
            Text::UInt64(array) => (u128::from(array.value(row)) << 64) | UNSIGNED,
        }
    }
}

/// The hash functions of a read. Their keys are random, so that nobody can write ids that share a hash.
#[derive(Default)]
pub(crate) struct Hashes(RandomState, RandomState);

impl Hashes {
    const LONGEST_HELD: usize = 12;
    /// An id is at most 256 characters; whatever is longer is refused each time that it comes.
    const LONGEST_HASHED: usize = 4 * LONGEST_ID;
    const HASHED: u128 = 0xfb;

    fn key(&self, bytes: &[u8]) -> u128 {
        if bytes.len() <= Self::LONGEST_HELD {
            let mut key = [0; 16];
            key[4..4 + bytes.len()].copy_from_slice(bytes);
            u128::from_le_bytes(key) | bytes.len() as u128
        } else if bytes.len() <= Self::LONGEST_HASHED {
            let (high, low) = (self.0.hash_one(bytes), self.1.hash_one(bytes));
            (u128::from(high) << 64) | (u128::from(low) & 0xffff_ffff_0000_0000) | Self::HASHED
        } else {
            NO_KEY
        }
    }
}

fn utf8(bytes: &[u8]) -> TextValue<'_> {
    std::str::from_utf8(bytes).map_or(TextValue::NotUtf8, TextValue::Text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int8Array, UInt32Array};

    use super::*;

    fn texts(array: ArrayRef) -> Vec<String> {
        let text = Text::of(&array);
        let mut scratch = String::new();
        (0..text.len())
            .map(|row| match text.value(row, &mut scratch) {
                TextValue::Null => "<null>".to_string(),
                TextValue::NotUtf8 => "<not UTF-8>".to_string(),
                TextValue::Text(text) => text.to_string(),
            })
            .collect()
    }

    #[test]
    fn strings_of_every_layout_are_kept_byte_for_byte() {
        let values = vec![Some("a"), None, Some(" 01 "), Some("naïve\u{0}\n🎁")];
        let expected = ["a", "<null>", " 01 ", "naïve\u{0}\n🎁"];
        assert_eq!(texts(Arc::new(StringArray::from(values.clone()))), expected);
        assert_eq!(texts(Arc::new(LargeStringArray::from(values.clone()))), expected);
        assert_eq!(texts(Arc::new(StringViewArray::from(values))), expected);
    }

    #[test]
    fn integers_become_decimal_text() {
        assert_eq!(texts(Arc::new(Int8Array::from(vec![Some(-128), None]))), ["-128", "<null>"]);
        assert_eq!(texts(Arc::new(UInt32Array::from(vec![u32::MAX]))), ["4294967295"]);
        assert_eq!(
            texts(Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]))),
            ["-9223372036854775808", "9223372036854775807"]
        );
        assert_eq!(texts(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
    }

    #[test]
    fn bytes_are_text_when_they_are_utf8() {
        let values: Vec<Option<&[u8]>> = vec![Some(b"ab"), Some(b"\xff\xfe"), None];
        let expected = ["ab", "<not UTF-8>", "<null>"];
        assert_eq!(texts(Arc::new(BinaryArray::from(values.clone()))), expected);
        assert_eq!(texts(Arc::new(LargeBinaryArray::from(values.clone()))), expected);
        assert_eq!(texts(Arc::new(BinaryViewArray::from_iter(values.clone()))), expected);
        let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 2).unwrap();
        assert_eq!(texts(Arc::new(fixed)), expected);
    }

    fn keys(array: ArrayRef, hashes: &Hashes) -> Vec<u128> {
        let text = Text::of(&array);
        (0..text.len()).map(|row| text.key(row, hashes)).collect()
    }

    #[test]
    fn a_string_has_the_same_key_in_every_layout() {
        let values = vec!["", "a", "é\u{0}", "twelve bytes", "thirteen byte"];
        let hashes = Hashes::default();
        let views = keys(Arc::new(StringViewArray::from(values.clone())), &hashes);
        assert_eq!(keys(Arc::new(StringArray::from(values.clone())), &hashes), views);
        assert_eq!(keys(Arc::new(LargeStringArray::from(values.clone())), &hashes), views);
        let bytes: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        assert_eq!(keys(Arc::new(BinaryArray::from(bytes)), &hashes), views);
    }

    #[test]
    fn keys_differ_between_values_and_between_kinds_and_leave_room_for_a_code() {
        let hashes = Hashes::default();
        let texts = ["", "5", "50", "5\u{0}", "twelve bytes", "longer than that", "longer than this"];
        let mut all = keys(Arc::new(StringArray::from(texts.to_vec())), &hashes);
        all.extend(keys(Arc::new(Int64Array::from(vec![5, -5, 0])), &hashes));
        all.extend(keys(Arc::new(UInt64Array::from(vec![5, u64::MAX])), &hashes));
        assert!(all.iter().all(|key| key & 0xffff_ff00 == 0));
        all.push(NO_KEY);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 13);
    }

    #[test]
    fn nulls_and_very_long_texts_have_no_key() {
        let long = "x".repeat(2_000);
        let array = StringArray::from(vec![None, Some(long.as_str())]);
        assert_eq!(keys(Arc::new(array), &Hashes::default()), [NO_KEY, NO_KEY]);
    }
}
