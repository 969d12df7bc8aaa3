//! What the decoder reads in a footer beside what is looked at here, from `parquet.thrift` of the Parquet format.

use crate::thrift::{Kind, Shape};

const BINARY: Shape = Shape::Is(Kind::Binary);
const BYTE: Shape = Shape::Is(Kind::I8);
const NUMBER: Shape = Shape::Is(Kind::I32);
const LONG: Shape = Shape::Is(Kind::I64);
const LONGS: Shape = Shape::List(&LONG);
const DOUBLE: Shape = Shape::Is(Kind::Double);

pub(crate) const ENCODING: Shape = NUMBER;
pub(crate) const PATH_PART: Shape = BINARY;
pub(crate) const CREATED_BY: Shape = BINARY;
pub(crate) const ORDINAL: Shape = Shape::Is(Kind::I16);
pub(crate) const KEY_VALUE: Shape = Shape::Struct(&[(1, BINARY), (2, BINARY)]);
pub(crate) const SORTING_COLUMN: Shape = Shape::Struct(&[(1, NUMBER)]);
pub(crate) const COLUMN_ORDER: Shape = Shape::Struct(&[(1, Shape::Struct(&[]))]);
pub(crate) const PAGE_ENCODING: Shape = Shape::Struct(&[(1, NUMBER), (2, NUMBER), (3, NUMBER)]);
pub(crate) const STATISTICS: Shape =
    Shape::Struct(&[(1, BINARY), (2, BINARY), (3, LONG), (4, LONG), (5, BINARY), (6, BINARY)]);
pub(crate) const SIZE_STATISTICS: Shape = Shape::Struct(&[(1, LONG), (2, LONGS), (3, LONGS)]);
pub(crate) const GEOSPATIAL_STATISTICS: Shape = Shape::Struct(&[
    (
        1,
        Shape::Struct(&[
            (1, DOUBLE),
            (2, DOUBLE),
            (3, DOUBLE),
            (4, DOUBLE),
            (5, DOUBLE),
            (6, DOUBLE),
            (7, DOUBLE),
            (8, DOUBLE),
        ]),
    ),
    (2, Shape::List(&NUMBER)),
]);
/// Types without a setting are empty structs, of which the decoder reads the end alone.
pub(crate) const LOGICAL_TYPE: Shape = Shape::Struct(&[
    (5, Shape::Struct(&[(1, NUMBER), (2, NUMBER)])),
    (7, TIME),
    (8, TIME),
    (10, Shape::Struct(&[(1, BYTE)])),
    (16, Shape::Struct(&[(1, BYTE)])),
    (17, Shape::Struct(&[(1, BINARY)])),
    (18, Shape::Struct(&[(1, BINARY), (2, NUMBER)])),
]);
const TIME: Shape = Shape::Struct(&[(2, Shape::Struct(&[]))]);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::thrift::Reader;

    #[test]
    fn fields_of_another_type_than_the_decoder_takes_them_for_are_refused() {
        let walk = |shape: &Shape, kind: Kind, bytes: &[u8]| Reader::new(bytes).skip_as(kind, shape).map_err(|e| e.0);
        let other = Err("a known field has another type");
        // Statistics: the count of nulls as a number, and as a text of one byte.
        assert_eq!(walk(&STATISTICS, Kind::Struct, &[0x36, 2, 0]), Ok(()));
        assert_eq!(walk(&STATISTICS, Kind::Struct, &[0x38, 1, 0x55, 0]), other);
        assert_eq!(walk(&STATISTICS, Kind::Binary, &[1, 0]), other);
        // Fields of other numbers may be anything but a list of booleans.
        assert_eq!(walk(&STATISTICS, Kind::Struct, &[0x98, 1, 0x55, 0]), Ok(()));
        // A histogram of two numbers, and of two texts.
        assert_eq!(walk(&SIZE_STATISTICS, Kind::Struct, &[0x29, 0x26, 2, 4, 0]), Ok(()));
        assert_eq!(walk(&SIZE_STATISTICS, Kind::Struct, &[0x29, 0x28, 0, 0, 0]), other);
        // A timestamp in UTC, by milliseconds; its unit as a text.
        assert_eq!(walk(&LOGICAL_TYPE, Kind::Struct, &[0x8c, 0x11, 0x1c, 0x1c, 0, 0, 0, 0]), Ok(()));
        assert_eq!(walk(&LOGICAL_TYPE, Kind::Struct, &[0x8c, 0x11, 0x18, 0, 0, 0]), other);
    }
}
