//! A bounded walk over Thrift's compact protocol: it borrows, never allocates, and never trusts a count.

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Broken(pub(crate) &'static str);

pub(crate) type Walk<T> = Result<T, Broken>;

/// Nesting of structs and lists beyond which no honest footer goes.
const MAX_DEPTH: u32 = 32;

/// Elements of all lists together: a reader may reserve a hundred bytes for an element of one byte.
const MAX_ELEMENTS: usize = 20_000_000;

const OTHER_TYPE: Broken = Broken("a known field has another type");

/// The wire type of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    True,
    False,
    I8,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn from_nibble(nibble: u8) -> Walk<Self> {
        Ok(match nibble {
            1 => Self::True,
            2 => Self::False,
            3 => Self::I8,
            4 => Self::I16,
            5 => Self::I32,
            6 => Self::I64,
            7 => Self::Double,
            8 => Self::Binary,
            // A set has the layout of a list.
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Uuid,
            _ => return Err(Broken("unknown wire type")),
        })
    }
}

/// A field of a struct, before its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) id: i16,
    pub(crate) kind: Kind,
}

impl Field {
    pub(crate) fn expect(self, kind: Kind) -> Walk<()> {
        if self.kind == kind { Ok(()) } else { Err(OTHER_TYPE) }
    }
}

/// What the decoder takes a value for. It goes by the numbers of fields and does not ask what type they name: of another type
/// it would go on at another place than a walk does.
#[derive(Debug)]
pub(crate) enum Shape {
    Is(Kind),
    /// The fields that it knows.
    Struct(&'static [(i16, Shape)]),
    List(&'static Shape),
}

/// A position in the bytes of one footer.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    depth: u32,
    elements: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, depth: 0, elements: 0 }
    }

    /// What is behind the position.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn byte(&mut self) -> Walk<u8> {
        let (&byte, rest) = self.bytes.split_first().ok_or(Broken("it ends too early"))?;
        self.bytes = rest;
        Ok(byte)
    }

    pub(crate) fn take(&mut self, length: usize) -> Walk<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Broken("a length is larger than the rest"))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn varint(&mut self, bits: u32) -> Walk<u64> {
        let mut value = 0_u64;
        for group in 0..10_u32 {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            let shift = group * 7;
            let shifted =
                low.checked_shl(shift).filter(|v| v >> shift == low).ok_or(Broken("a number is too large"))?;
            value |= shifted;
            if byte & 0x80 == 0 {
                let fits = bits == 64 || value >> bits == 0;
                return if fits { Ok(value) } else { Err(Broken("a number is too large for its type")) };
            }
        }
        Err(Broken("a number has more than 10 bytes"))
    }

    fn zigzag(&mut self, bits: u32) -> Walk<i64> {
        let value = self.varint(bits)?;
        let half = i64::try_from(value >> 1).map_err(|_| Broken("a number is too large"))?;
        Ok(if value & 1 == 0 { half } else { -half - 1 })
    }

    pub(crate) fn i32(&mut self) -> Walk<i32> {
        i32::try_from(self.zigzag(32)?).map_err(|_| Broken("a number is too large for its type"))
    }

    pub(crate) fn i64(&mut self) -> Walk<i64> {
        self.zigzag(64)
    }

    pub(crate) fn binary(&mut self) -> Walk<&'a [u8]> {
        let length = usize::try_from(self.varint(32)?).map_err(|_| Broken("a length is too large"))?;
        self.take(length)
    }

    /// The type and number of elements of a list; each element takes at least one byte of what is left.
    pub(crate) fn list(&mut self) -> Walk<(Kind, usize)> {
        let header = self.byte()?;
        let kind = Kind::from_nibble(header & 0x0f)?;
        let count = match header >> 4 {
            15 => usize::try_from(self.varint(32)?).map_err(|_| Broken("a list is too long"))?,
            short => usize::from(short),
        };
        self.count(count)?;
        Ok((kind, count))
    }

    fn count(&mut self, count: usize) -> Walk<()> {
        if count > self.bytes.len() {
            return Err(Broken("a list is longer than the rest"));
        }
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS { Err(Broken("its lists have too many elements")) } else { Ok(()) }
    }

    /// Calls `each` for every field of a struct; `each` reads the value and returns true, or leaves it and returns
    /// false. A field that comes twice is an error, because readers differ in which one they take.
    pub(crate) fn fields<E: From<Broken>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Field) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.descend()?;
        let mut last = 0_i16;
        let mut seen = 0_u64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                break;
            }
            let kind = Kind::from_nibble(header & 0x0f)?;
            let id = match header >> 4 {
                0 => i16::try_from(self.zigzag(16)?).map_err(|_| Broken("a field number is too large"))?,
                delta => last.checked_add(i16::from(delta)).ok_or(Broken("a field number is too large"))?,
            };
            last = id;
            if let Some(bit) = u32::try_from(id).ok().and_then(|id| 1_u64.checked_shl(id)) {
                if seen & bit != 0 {
                    return Err(Broken("a field comes twice").into());
                }
                seen |= bit;
            }
            if !each(self, Field { id, kind })? {
                self.skip(kind)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Walks over a value without looking at it; the value of a boolean field is in its type.
    pub(crate) fn skip(&mut self, kind: Kind) -> Walk<()> {
        match kind {
            Kind::True | Kind::False => Ok(()),
            Kind::I8 => self.take(1).map(drop),
            Kind::I16 => self.varint(16).map(drop),
            Kind::I32 => self.varint(32).map(drop),
            Kind::I64 => self.varint(64).map(drop),
            Kind::Double => self.take(8).map(drop),
            Kind::Uuid => self.take(16).map(drop),
            Kind::Binary => self.binary().map(drop),
            Kind::Struct => self.fields(|_, _| Ok::<_, Broken>(false)),
            Kind::List => {
                let (element, count) = self.list()?;
                self.descend()?;
                for _ in 0..count {
                    self.skip_element(element)?;
                }
                self.depth -= 1;
                Ok(())
            }
            Kind::Map => {
                let count = usize::try_from(self.varint(32)?).map_err(|_| Broken("a map is too long"))?;
                if count == 0 {
                    return Ok(());
                }
                self.count(count)?;
                let kinds = self.byte()?;
                let (key, value) = (Kind::from_nibble(kinds >> 4)?, Kind::from_nibble(kinds & 0x0f)?);
                self.descend()?;
                for _ in 0..count {
                    self.skip_element(key)?;
                    self.skip_element(value)?;
                }
                self.depth -= 1;
                Ok(())
            }
        }
    }

    /// In a list or map a boolean is a byte of its own, but the decoder takes none for it: it would count to two billion over
    /// nothing. No field of Parquet's that is read here is such a list.
    fn skip_element(&mut self, kind: Kind) -> Walk<()> {
        match kind {
            Kind::True | Kind::False => Err(Broken("an unknown field has a list of booleans")),
            other => self.skip(other),
        }
    }

    /// Walks over a value of which the decoder knows the shape.
    pub(crate) fn skip_as(&mut self, kind: Kind, shape: &Shape) -> Walk<()> {
        let expected = match shape {
            Shape::Is(kind) => *kind,
            Shape::Struct(_) => Kind::Struct,
            Shape::List(_) => Kind::List,
        };
        if kind != expected {
            return Err(OTHER_TYPE);
        }
        match shape {
            Shape::Is(kind) => self.skip(*kind),
            Shape::Struct(known) => self.fields(|reader, field| {
                let Some((_, shape)) = known.iter().find(|(id, _)| *id == field.id) else { return Ok(false) };
                reader.skip_as(field.kind, shape).map(|()| true)
            }),
            Shape::List(element) => {
                let (kind, count) = self.list()?;
                self.descend()?;
                for _ in 0..count {
                    self.skip_as(kind, element)?;
                }
                self.depth -= 1;
                Ok(())
            }
        }
    }

    fn descend(&mut self) -> Walk<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Broken("it is nested more than 32 deep")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_that_do_not_fit_are_errors() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).i32().unwrap(), i32::MIN);
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).i32().is_err());
        assert_eq!(Reader::new(&[0xff; 9].into_iter().chain([1]).collect::<Vec<_>>()).i64().unwrap(), i64::MIN);
        assert!(Reader::new(&[0xff; 9].into_iter().chain([2]).collect::<Vec<_>>()).i64().is_err());
        assert!(Reader::new(&[0x80; 11]).i64().is_err());
        assert!(Reader::new(&[0x80]).i64().is_err());
    }

    #[test]
    fn list_longer_than_the_rest_is_an_error_before_any_element_is_read() {
        assert_eq!(
            Reader::new(&[0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0]).list().unwrap_err().0,
            "a list is longer than the rest"
        );
        assert_eq!(Reader::new(&[0x2c, 0, 0]).list().unwrap(), (Kind::Struct, 2));
    }

    #[test]
    fn deep_nesting_is_an_error_without_deep_recursion() {
        let structs = vec![0x1c; 1_000_000];
        assert_eq!(Reader::new(&structs).skip(Kind::Struct).unwrap_err().0, "it is nested more than 32 deep");
        let lists = vec![0x19; 1_000_000];
        assert_eq!(Reader::new(&lists).skip(Kind::List).unwrap_err().0, "it is nested more than 32 deep");
    }

    #[test]
    fn booleans_in_a_list_or_map_are_an_error() {
        for (kind, bytes) in
            [(Kind::List, [0x22, 1, 2, 0]), (Kind::List, [0x19, 0x11, 1, 0]), (Kind::Map, [1, 0x51, 2, 1])]
        {
            assert_eq!(Reader::new(&bytes).skip(kind).unwrap_err().0, "an unknown field has a list of booleans");
        }
    }

    #[test]
    fn field_that_comes_twice_is_an_error() {
        let twice = [0x15, 0x02, 0x05, 0x02, 0x02, 0x00];
        assert_eq!(Reader::new(&twice).skip(Kind::Struct).unwrap_err().0, "a field comes twice");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Kind::Struct, Kind::List, Kind::Map, Kind::Binary] {
                let _ = Reader::new(&bytes).skip(kind);
            }
        }
    }
}
