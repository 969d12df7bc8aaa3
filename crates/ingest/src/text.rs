//! One view on every Arrow type that can hold text: strings, UTF-8 bytes and integers.

use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, FixedSizeBinaryArray, Int64Array, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray, UInt64Array,
};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

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

    /// A number that stands for the value and for no other value, where there is one that is cheap to have: for an
    /// integer, and for a short string the 16 bytes that a view array keeps of it, which are its length and the string.
    /// Bits 8 to 32 are always 0.
    pub(crate) fn short_key(&self, row: usize) -> Option<u128> {
        // The low 32 bits of a short view are its length, at most 12, so these marks are free.
        const SIGNED: u128 = 0xff;
        const UNSIGNED: u128 = 0xfe;
        match self {
            Text::Utf8(array) => inline(array.value(row)),
            Text::LargeUtf8(array) => inline(array.value(row)),
            Text::Utf8View(array) => {
                let view = *array.views().get(row)?;
                (u32::try_from(view & 0xffff_ffff).ok()? <= LONGEST_INLINE).then_some(view)
            }
            Text::Int64(array) => Some((u128::from(array.value(row).cast_unsigned()) << 64) | SIGNED),
            Text::UInt64(array) => Some((u128::from(array.value(row)) << 64) | UNSIGNED),
            _ => None,
        }
    }
}

/// The longest string that a view array keeps whole in its 16 bytes.
const LONGEST_INLINE: u32 = 12;

/// The 16 bytes that a view array would keep of a short string.
fn inline(text: &str) -> Option<u128> {
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= LONGEST_INLINE)?;
    let mut view = [0; 16];
    view[..4].copy_from_slice(&length.to_le_bytes());
    view[4..].get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(u128::from_le_bytes(view))
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

    #[test]
    fn a_short_string_has_the_same_key_in_every_layout() {
        let values = vec!["", "a", "é\u{0}", "twelve bytes", "thirteen byte"];
        let layouts: [ArrayRef; 3] = [
            Arc::new(StringArray::from(values.clone())),
            Arc::new(LargeStringArray::from(values.clone())),
            Arc::new(StringViewArray::from(values)),
        ];
        let keys = layouts.map(|array| (0..5).map(|row| Text::of(&array).short_key(row)).collect::<Vec<_>>());
        assert_eq!(keys[0], keys[2]);
        assert_eq!(keys[1], keys[2]);
        assert_eq!(keys[0].iter().flatten().count(), 4);
    }

    #[test]
    fn short_keys_differ_between_values_and_between_kinds() {
        let strings: ArrayRef =
            Arc::new(StringViewArray::from(vec!["", "5", "50", "twelve bytes", "longer than that"]));
        let signed: ArrayRef = Arc::new(Int64Array::from(vec![5, -5, 0]));
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![5, u64::MAX]));
        let mut keys = Vec::new();
        for array in [&strings, &signed, &unsigned] {
            let text = Text::of(array);
            keys.extend((0..text.len()).filter_map(|row| text.short_key(row)));
        }
        assert_eq!(keys.len(), 9, "all but the long string have a key");
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 9);
    }
}
