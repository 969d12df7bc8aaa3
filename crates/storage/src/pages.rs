//! Pages are looked at before they are decoded: their headers, and texts in delta encodings.
//!
//! A header is walked over, so that the decoder does not lose itself in it: it skips lists of unknown fields without a bound.
//!
//! A page of `DELTA_BYTE_ARRAY` or `DELTA_LENGTH_BYTE_ARRAY` says itself how many texts it has and how long each is, and the
//! decoder reserves as much before it reads one: a page of 40 bytes can ask for 72 PB, and the process aborts. Here the numbers
//! are added up in bounded memory, and compared with the page's own header and with what a batch may take.

use std::io::Read;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::ParquetFault;
use crate::footer::{Check, Refusal};
use crate::thrift::{Broken, Kind, Reader, Walk};

/// Texts of one page: 4 bytes for the length of each prefix and each suffix.
const MAX_VALUES: u64 = 1 << 27;
/// Bytes that the texts of one page take when decoded.
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// Whether the pages of a column may hold texts.
fn may_have_texts(chunk: &ColumnChunkMetaData) -> bool {
    matches!(chunk.column_type(), Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY)
}

/// Refuses a column chunk with a page, or a header of one, that the decoder must not see. What is wrong otherwise, the decoder
/// tells.
///
/// bytes: the whole chunk
pub(crate) fn check(chunk: &ColumnChunkMetaData, bytes: &Bytes) -> Check<()> {
    let damaged = |broken: Broken| Refusal::new(ParquetFault::Page, format!("a page header is damaged: {}", broken.0));
    if !has_delta_page(bytes).map_err(damaged)? || !may_have_texts(chunk) {
        return Ok(());
    }
    let (start, _) = chunk.byte_range();
    let chunk_bytes = Arc::new(ChunkBytes { start, bytes: bytes.clone() });
    let Ok(mut pages) = SerializedPageReader::new(chunk_bytes, chunk, 0, None) else { return Ok(()) };
    while let Ok(Some(page)) = pages.get_next_page() {
        if let Some(texts) = texts(chunk, &page) {
            text_bytes(texts, page.encoding(), u64::from(page.num_values()))?;
        }
    }
    Ok(())
}

/// Walks over all page headers of a chunk; whether one names a delta encoding of texts.
///
/// A known field must have its type: the decoder does not ask for it, and would go on at another place.
fn has_delta_page(mut bytes: &[u8]) -> Walk<bool> {
    let mut found = false;
    while !bytes.is_empty() {
        let mut reader = Reader::new(bytes);
        let (mut length, mut encoding) = (0, 0);
        reader.fields(|reader, field| {
            match field.id {
                1..=4 => {
                    field.expect(Kind::I32)?;
                    let number = reader.i32()?;
                    if field.id == 3 {
                        length = number;
                    }
                }
                5..=8 => {
                    field.expect(Kind::Struct)?;
                    // The last of its fields that begin with numbers, and which of them is the encoding of the values.
                    let (numbers, place) = match field.id {
                        5 => (4, Some(2)),
                        7 => (2, None),
                        8 => (6, Some(4)),
                        _ => (0, None),
                    };
                    reader.fields(|reader, inner| {
                        if !(1..=numbers).contains(&inner.id) {
                            return Ok::<_, Broken>(false);
                        }
                        inner.expect(Kind::I32)?;
                        let number = reader.i32()?;
                        if Some(inner.id) == place {
                            encoding = number;
                        }
                        Ok(true)
                    })?;
                }
                _ => return Ok::<_, Broken>(false),
            }
            Ok(true)
        })?;
        found |= [Encoding::DELTA_BYTE_ARRAY as i32, Encoding::DELTA_LENGTH_BYTE_ARRAY as i32].contains(&encoding);
        let length = usize::try_from(length).map_err(|_| Broken("a page has a negative size"))?;
        bytes = reader.rest().get(length..).ok_or(Broken("a page reaches out of its chunk"))?;
    }
    Ok(found)
}

/// What of a page is texts in a delta encoding: the page without its levels.
fn texts<'a>(chunk: &ColumnChunkMetaData, page: &'a Page) -> Option<&'a [u8]> {
    if !matches!(page.encoding(), Encoding::DELTA_BYTE_ARRAY | Encoding::DELTA_LENGTH_BYTE_ARRAY) {
        return None;
    }
    match page {
        Page::DictionaryPage { .. } => None,
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
            buf.get(usize::try_from(def_levels_byte_len.checked_add(*rep_levels_byte_len)?).ok()?..)
        }
        Page::DataPage { buf, num_values, def_level_encoding, rep_level_encoding, .. } => {
            let column = chunk.column_descr();
            let mut rest = buf.as_ref();
            let levels = [(column.max_rep_level(), rep_level_encoding), (column.max_def_level(), def_level_encoding)];
            for (most, encoding) in levels {
                rest = match (most, encoding) {
                    (..=0, _) => rest,
                    (_, Encoding::RLE) => {
                        let (length, levels) = rest.split_first_chunk::<4>()?;
                        levels.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)?
                    }
                    (most, _) => {
                        let width = u64::from(16 - most.leading_zeros());
                        let bits = u64::from(*num_values).checked_mul(width)?;
                        rest.get(usize::try_from(bits.div_ceil(8)).ok()?..)?
                    }
                };
            }
            Some(rest)
        }
    }
}

/// The bytes that the texts of a page take when decoded.
///
/// most: values of the page by its header
fn text_bytes(bytes: &[u8], encoding: Encoding, most: u64) -> Check<u64> {
    let first = Lengths::read(bytes, most)?;
    let mut sum = first.sum;
    if encoding == Encoding::DELTA_BYTE_ARRAY {
        let suffixes = Lengths::read(first.rest, most)?;
        if suffixes.count != first.count {
            let reason = format!("a page has {} prefixes and {} suffixes of texts", first.count, suffixes.count);
            return Err(Refusal::new(ParquetFault::Page, reason));
        }
        sum = sum.saturating_add(suffixes.sum);
    }
    if sum > MAX_TEXT_BYTES {
        return Err(over_budget(format!("the texts of a page take {sum} bytes")));
    }
    Ok(sum)
}

fn over_budget(what: String) -> Refusal {
    let reason = format!("{what} when decoded, the limits are {MAX_VALUES} texts and {MAX_TEXT_BYTES} bytes");
    Refusal::new(ParquetFault::DecodedBudget, reason)
}

fn damaged(what: &str) -> Refusal {
    Refusal::new(ParquetFault::Page, format!("a page in a delta encoding is damaged: {what}"))
}

/// A run of lengths in `DELTA_BINARY_PACKED`.
#[derive(Debug)]
struct Lengths<'a> {
    count: u64,
    sum: u64,
    /// What stands behind it.
    rest: &'a [u8],
}

impl<'a> Lengths<'a> {
    fn read(bytes: &'a [u8], most: u64) -> Check<Self> {
        // Variable-length numbers are written as in Thrift.
        let ends = || damaged("it ends too early");
        let mut reader = Reader::new(bytes);
        let mut number = || reader.varint(64).map_err(|_| ends());
        let (block, miniblocks, count) = (number()?, number()?, number()?);
        let first = low(reader.i64().map_err(|_| ends())?);
        if count > most {
            let reason = format!("a page of {most} values says that it has {count} texts");
            return Err(Refusal::new(ParquetFault::Page, reason));
        }
        if count > MAX_VALUES {
            return Err(over_budget(format!("a page has {count} texts")));
        }
        let values = block.checked_div(miniblocks).filter(|values| *values > 0 && values % 32 == 0);
        let Some(values) = values.filter(|values| values.checked_mul(miniblocks) == Some(block)) else {
            return Err(damaged("its blocks have no possible size"));
        };
        let miniblocks = usize::try_from(miniblocks).map_err(|_| ends())?;
        let (mut left, mut last, mut sum) = (count, first, 0);
        if left > 0 {
            sum += length(last)?;
            left -= 1;
        }
        while left > 0 {
            let least = low(reader.i64().map_err(|_| ends())?);
            for &width in reader.take(miniblocks).map_err(|_| ends())? {
                // Behind the last value stands nothing, whatever its width says.
                let taken = left.min(values);
                if taken == 0 {
                    break;
                }
                if width > 32 {
                    return Err(damaged("a number has more than 32 bits"));
                }
                let width = u64::from(width);
                for place in 0..taken {
                    let delta = bits(reader.rest(), place * width, width).ok_or_else(ends)?;
                    last = last.wrapping_add(least).wrapping_add(delta);
                    sum += length(last)?;
                }
                left -= taken;
                // Some writers leave the padding of the last one out.
                let bytes = usize::try_from(values.saturating_mul(width) / 8).unwrap_or(usize::MAX);
                reader.take(bytes.min(reader.rest().len())).map_err(|_| ends())?;
            }
        }
        Ok(Self { count, sum, rest: reader.rest() })
    }
}

fn length(value: u32) -> Check<u64> {
    i32::try_from(value).map(|_| u64::from(value)).map_err(|_| damaged("a text has a negative length"))
}

/// The low 32 bits: lengths and their differences wrap there.
fn low(value: i64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // What is wanted.
    let low = value as u32;
    low
}

/// A number of at most 32 bits, at a place in bits.
fn bits(bytes: &[u8], place: u64, width: u64) -> Option<u32> {
    let rest = bytes.get(usize::try_from(place / 8).ok()?..)?;
    let eight = match rest.first_chunk() {
        Some(eight) => *eight,
        None => {
            let used = usize::try_from((place % 8 + width).div_ceil(8)).ok()?;
            let mut eight = [0; 8];
            eight.get_mut(..used)?.copy_from_slice(rest.get(..used)?);
            eight
        }
    };
    let value = (u64::from_le_bytes(eight) >> (place % 8)) & ((1_u64 << width) - 1);
    u32::try_from(value).ok()
}

/// The bytes of one column chunk, at their place in the file.
struct ChunkBytes {
    start: u64,
    bytes: Bytes,
}

impl ChunkBytes {
    fn behind(&self, start: u64) -> ParquetResult<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.bytes.len());
        at.map(|at| self.bytes.slice(at..)).ok_or_else(|| ParquetError::EOF("outside of the column chunk".to_owned()))
    }
}

impl Length for ChunkBytes {
    fn len(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }
}

impl ChunkReader for ChunkBytes {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(Box::new(self.behind(start)?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let behind = self.behind(start)?;
        if length > behind.len() {
            return Err(ParquetError::EOF("outside of the column chunk".to_owned()));
        }
        Ok(behind.slice(..length))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, StringArray};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use parquet::file::reader::FileReader;
    use parquet::file::serialized_reader::SerializedFileReader;
    use proptest::prelude::*;

    use super::*;

    /// The first column chunk of a file of one column of texts, and its bytes.
    fn written(texts: &[Option<String>], properties: WriterProperties) -> (ColumnChunkMetaData, Bytes) {
        let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let batch = RecordBatch::try_from_iter_with_nullable([("text", column, true)]).unwrap();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let file = Bytes::from(file);
        let metadata = SerializedFileReader::new(file.clone()).unwrap().metadata().clone();
        let chunk = metadata.row_group(0).column(0).clone();
        let (start, length) = chunk.byte_range();
        let (start, length) = (usize::try_from(start).unwrap(), usize::try_from(length).unwrap());
        (chunk, file.slice(start..start + length))
    }

    /// What the pages of a chunk say of their texts: how many pages, and bytes altogether.
    fn sizes(chunk: &ColumnChunkMetaData, bytes: &Bytes) -> (usize, u64) {
        let source = Arc::new(ChunkBytes { start: chunk.byte_range().0, bytes: bytes.clone() });
        let mut pages = SerializedPageReader::new(source, chunk, 0, None).unwrap();
        let (mut count, mut sum) = (0, 0);
        while let Some(page) = pages.get_next_page().unwrap() {
            sum += text_bytes(texts(chunk, &page).unwrap(), page.encoding(), u64::from(page.num_values())).unwrap();
            count += 1;
        }
        (count, sum)
    }

    fn properties(encoding: Encoding, version: WriterVersion, compression: Compression) -> WriterProperties {
        WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_encoding(encoding)
            .set_writer_version(version)
            .set_compression(compression)
            .set_data_page_row_count_limit(300)
            .set_write_batch_size(100)
            .build()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever a writer writes passes, and its lengths add up to the texts.
        #[test]
        fn the_lengths_of_pages_add_up_to_their_texts(
            texts in prop::collection::vec(prop::option::weighted(0.9, "[ab]{0,20}|\\PC{0,3}|x{200,400}"), 1..700),
            by_length in any::<bool>(), second in any::<bool>(), compressed in any::<bool>(),
        ) {
            let encoding = if by_length { Encoding::DELTA_LENGTH_BYTE_ARRAY } else { Encoding::DELTA_BYTE_ARRAY };
            let version = if second { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 };
            let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
            let compression = if compressed { zstd } else { Compression::UNCOMPRESSED };
            let (chunk, bytes) = written(&texts, properties(encoding, version, compression));
            prop_assert_eq!(has_delta_page(&bytes), Ok(true));
            prop_assert!(check(&chunk, &bytes).is_ok());
            let total: usize = texts.iter().flatten().map(String::len).sum();
            prop_assert_eq!(sizes(&chunk, &bytes), (texts.len().div_ceil(300), total as u64));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), most in any::<u32>()) {
            let _ = has_delta_page(&bytes);
            let _ = text_bytes(&bytes, Encoding::DELTA_BYTE_ARRAY, u64::from(most));
        }
    }

    #[test]
    fn plain_pages_have_no_delta_encoding() {
        let texts = vec![Some("a".to_owned()); 1_000];
        for dictionary in [false, true] {
            let properties = WriterProperties::builder().set_dictionary_enabled(dictionary).build();
            let (chunk, bytes) = written(&texts, properties);
            assert!(may_have_texts(&chunk));
            assert_eq!(has_delta_page(&bytes), Ok(false));
            assert!(check(&chunk, &bytes).is_ok());
        }
    }

    #[test]
    fn headers_in_which_the_decoder_would_count_without_end_are_refused() {
        let (chunk, bytes) = written(&[Some("a".to_owned())], WriterProperties::builder().build());
        // A page type and two sizes of 0, then field 15: a list of 2³¹ − 1 booleans, and one of two.
        let known = [0x15, 0, 0x15, 0, 0x15, 0, 0xc9];
        let lists: [(&[u8], _); 2] = [
            (&[0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0], "a list is longer than the rest"),
            (&[0x21, 1, 1, 0], "an unknown field has a list of booleans"),
        ];
        let refused = |page: Vec<u8>, reason| {
            let error = check(&chunk, &Bytes::from(page)).unwrap_err().of("f").to_string();
            assert!(error.contains(&format!("ERR_PAGE: a page header is damaged: {reason}")), "{error}");
        };
        // An empty page of texts in a delta encoding, with which the walk does not end.
        let delta = [0x15, 0, 0x15, 0, 0x15, 0, 0x2c, 0x15, 0, 0x15, 12, 0x15, 6, 0x15, 6, 0, 0];
        assert_eq!(has_delta_page(&delta), Ok(true));
        for (list, reason) in lists {
            refused([&known, list].concat(), reason);
            refused([&delta[..], &known, list].concat(), reason);
        }
        // Bytes where the decoder reads a page size, and where it reads a header of a page.
        refused(vec![0x15, 0, 0x15, 0, 0x18, 0, 0], "a known field has another type");
        refused(vec![0x15, 0, 0x15, 0, 0x15, 0, 0x28, 0, 0], "a known field has another type");
        refused(vec![0x15, 0, 0x15, 0, 0x15, 0, 0x2c, 0x18, 0, 0, 0], "a known field has another type");
        let cut = bytes.slice(..bytes.len() - 1);
        let error = check(&chunk, &cut).unwrap_err().of("f").to_string();
        assert!(error.contains("a page reaches out of its chunk"), "{error}");
    }

    /// Blocks of 128 numbers in 4 parts, the number of texts, the first length, and a block of equal lengths.
    fn equal_lengths(count: &[u8], first: &[u8]) -> Vec<u8> {
        [&[0x80, 0x01, 4], count, first, &[0, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn pages_that_ask_for_too_much_are_refused() {
        let refused = |bytes: &[u8], most: u64| {
            let error = text_bytes(bytes, Encoding::DELTA_LENGTH_BYTE_ARRAY, most).unwrap_err().of("f");
            error.to_string()
        };
        let two_to_54 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        let text = refused(&equal_lengths(&two_to_54, &[0]), 7);
        assert!(text.contains("ERR_PAGE: a page of 7 values says that it has 18014398509481984 texts"), "{text}");
        // The page's header may say as much as it likes.
        let text = refused(&equal_lengths(&[0x80, 0x80, 0x80, 0x80, 0x04], &[0]), 1 << 31);
        assert!(text.contains("ERR_DECODED_BUDGET: a page has 1073741824 texts when decoded"), "{text}");
        // 100 texts of 2^30 bytes each, in zigzag.
        let text = refused(&equal_lengths(&[100], &[0x80, 0x80, 0x80, 0x80, 0x08]), 100);
        assert!(text.contains("ERR_DECODED_BUDGET: the texts of a page take 107374182400 bytes"), "{text}");
        let text = refused(&equal_lengths(&[100], &[1]), 100);
        assert!(
            text.contains("ERR_PAGE: a page in a delta encoding is damaged: a text has a negative length"),
            "{text}"
        );
        assert!(refused(&[0, 1, 2, 0, 0, 0], 2).contains("no possible size"));
        assert!(refused(&[0x80, 0x01, 4, 2, 0, 0], 2).contains("ends too early"));
    }
}
