//! The footer of a Parquet file: the walk that checks it, and what is known after it.

use crate::schema_tree::Schema;
use crate::thrift::{Broken, Kind, Reader, Shape, Walk};
use crate::{Error, ParquetFault, Result, footer_shapes as shapes};

const MAX_ROW_GROUPS: usize = 100_000;
const MAX_CHUNKS: usize = 1_000_000;
/// Key-value pairs, sort columns and the like.
const MAX_OTHER_LIST: usize = 100_000;

/// What the footer of a Parquet file says, after all checks.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Footer {
    /// Rows in the file.
    pub rows: u64,
    /// Row groups in the file.
    pub row_groups: usize,
    /// Uncompressed bytes of each leaf column, over all row groups.
    pub uncompressed_bytes: Vec<u64>,
    /// Full names of the leaf columns.
    pub(crate) leaves: Vec<String>,
    /// A bit for each codec that a leaf column uses; bit 31 stands for unknown ones.
    pub(crate) codecs: Vec<u32>,
}

/// What is wrong, before the file has a name.
#[derive(Debug)]
pub(crate) struct Refusal {
    fault: ParquetFault,
    reason: String,
    row_group: Option<usize>,
    column: Option<String>,
}

impl Refusal {
    pub(crate) fn new(fault: ParquetFault, reason: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), row_group: None, column: None }
    }

    pub(crate) fn in_column(self, column: Option<String>) -> Self {
        Self { column, ..self }
    }

    pub(crate) fn in_chunk(self, row_group: usize, column: String) -> Self {
        Self { row_group: Some(row_group), column: Some(column), ..self }
    }

    pub(crate) fn of(self, file: &str) -> Error {
        Error::Parquet {
            fault: self.fault,
            reason: self.reason,
            file: file.to_owned(),
            row_group: self.row_group,
            column: self.column,
            source: None,
        }
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        Self::new(ParquetFault::FooterDamaged, format!("the footer is damaged: {}", broken.0))
    }
}

pub(crate) type Check<T> = Result<T, Refusal>;

/// Steps 5 to 10: the footer itself. Data must end at `data_end`, where the footer begins.
pub(crate) fn walk(bytes: &[u8], data_end: u64) -> Check<Footer> {
    let mut reader = Reader::new(bytes);
    let (mut version, mut schema, mut rows, mut groups) = (false, None, None, None);
    // Row groups are checked against the schema, which stands before them in every file but need not.
    reader.fields(|reader, field| {
        match field.id {
            1 => {
                field.expect(Kind::I32)?;
                reader.i32()?;
                version = true;
            }
            2 => {
                field.expect(Kind::List)?;
                schema = Some(Schema::read(reader)?);
            }
            3 => {
                field.expect(Kind::I64)?;
                rows = Some(reader.i64()?);
            }
            4 => {
                field.expect(Kind::List)?;
                let schema = schema.as_ref().ok_or(Broken("the row groups come before the schema"))?;
                groups = Some(RowGroups::read(reader, schema, data_end)?);
            }
            5 | 7 => {
                field.expect(Kind::List)?;
                short_list(reader, if field.id == 5 { &shapes::KEY_VALUE } else { &shapes::COLUMN_ORDER })?;
            }
            6 => reader.skip_as(field.kind, &shapes::CREATED_BY)?,
            8 => return Err(Refusal::new(ParquetFault::Encrypted, "columns are encrypted")),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (true, Some(schema), Some(rows), Some(groups)) = (version, schema, rows, groups) else {
        return Err(Broken("version, schema, num_rows or row_groups is missing").into());
    };
    if u64::try_from(rows).ok() != Some(groups.rows) {
        let reason = format!("the footer says {rows} rows, its row groups {}", groups.rows);
        return Err(Refusal::new(ParquetFault::RowCount, reason));
    }
    Ok(Footer {
        rows: groups.rows,
        row_groups: groups.count,
        uncompressed_bytes: groups.uncompressed_bytes,
        leaves: schema.leaves,
        codecs: groups.codecs,
    })
}

/// Walks over a list for which readers reserve memory.
fn short_list(reader: &mut Reader<'_>, element: &Shape) -> Walk<()> {
    let (kind, count) = reader.list()?;
    if count > MAX_OTHER_LIST {
        return Err(Broken("a list has more than 100,000 elements"));
    }
    (0..count).try_for_each(|_| reader.skip_as(kind, element))
}

/// What all row groups say together.
struct RowGroups {
    count: usize,
    rows: u64,
    uncompressed_bytes: Vec<u64>,
    codecs: Vec<u32>,
}

impl RowGroups {
    fn read(reader: &mut Reader<'_>, schema: &Schema, data_end: u64) -> Check<Self> {
        let leaves = schema.leaves.len();
        let (kind, count) = reader.list()?;
        if kind != Kind::Struct && count > 0 {
            return Err(Broken("the row groups are not a list of structs").into());
        }
        if count > MAX_ROW_GROUPS || count.saturating_mul(leaves) > MAX_CHUNKS {
            let reason = format!(
                "{count} row groups of {leaves} columns, the limits are {MAX_ROW_GROUPS} and {MAX_CHUNKS} column chunks"
            );
            return Err(Refusal::new(ParquetFault::RowGroupLimit, reason));
        }
        let mut groups = Self { count, rows: 0, uncompressed_bytes: vec![0; leaves], codecs: vec![0; leaves] };
        for index in 0..count {
            groups
                .row_group(reader, schema, data_end)
                .map_err(|refusal| Refusal { row_group: Some(index), ..refusal })?;
        }
        Ok(groups)
    }

    fn row_group(&mut self, reader: &mut Reader<'_>, schema: &Schema, data_end: u64) -> Check<()> {
        let (mut rows, mut columns) = (None, None);
        reader.fields(|reader, field| {
            match field.id {
                1 => {
                    field.expect(Kind::List)?;
                    let (kind, count) = reader.list()?;
                    if kind != Kind::Struct && count > 0 {
                        return Err(Broken("the column chunks are not a list of structs").into());
                    }
                    if count != schema.leaves.len() {
                        let reason = format!("{count} column chunks for {} columns", schema.leaves.len());
                        return Err(Refusal::new(ParquetFault::RowGroupLimit, reason));
                    }
                    for leaf in 0..count {
                        self.chunk(reader, leaf, data_end)
                            .map_err(|refusal| Refusal { column: schema.leaves.get(leaf).cloned(), ..refusal })?;
                    }
                    columns = Some(count);
                }
                2 | 5 | 6 => {
                    field.expect(Kind::I64)?;
                    reader.i64()?;
                }
                3 => {
                    field.expect(Kind::I64)?;
                    rows = Some(reader.i64()?);
                }
                4 => {
                    field.expect(Kind::List)?;
                    short_list(reader, &shapes::SORTING_COLUMN)?;
                }
                7 => reader.skip_as(field.kind, &shapes::ORDINAL)?,
                _ => return Ok(false),
            }
            Ok::<_, Refusal>(true)
        })?;
        let (Some(rows), Some(_)) = (rows, columns) else {
            return Err(Broken("a row group has no num_rows or no columns").into());
        };
        let total = u64::try_from(rows).ok().and_then(|rows| self.rows.checked_add(rows));
        self.rows = total.ok_or_else(|| Refusal::new(ParquetFault::RowCount, format!("a row group of {rows} rows")))?;
        Ok(())
    }

    fn chunk(&mut self, reader: &mut Reader<'_>, leaf: usize, data_end: u64) -> Check<()> {
        let range = |reason: String| Refusal::new(ParquetFault::ChunkRange, reason);
        let (mut meta, mut encrypted) = (None, false);
        let (mut offset_index, mut column_index) = ((0, 0), (0, 0));
        reader.fields(|reader, field| {
            match field.id {
                1 => {
                    field.expect(Kind::Binary)?;
                    if !reader.binary()?.is_empty() {
                        return Err(range("a column chunk lies in another file".to_owned()));
                    }
                }
                2 => {
                    field.expect(Kind::I64)?;
                    reader.i64()?;
                }
                3 => {
                    field.expect(Kind::Struct)?;
                    meta = Some(Chunk::read(reader)?);
                }
                4 => {
                    field.expect(Kind::I64)?;
                    offset_index.0 = reader.i64()?;
                }
                5 => {
                    field.expect(Kind::I32)?;
                    offset_index.1 = i64::from(reader.i32()?);
                }
                6 => {
                    field.expect(Kind::I64)?;
                    column_index.0 = reader.i64()?;
                }
                7 => {
                    field.expect(Kind::I32)?;
                    column_index.1 = i64::from(reader.i32()?);
                }
                8 => {
                    encrypted = true;
                    return Ok(false);
                }
                _ => return Ok(false),
            }
            Ok::<_, Refusal>(true)
        })?;
        if encrypted {
            return Err(Refusal::new(ParquetFault::Encrypted, "the column is encrypted"));
        }
        let meta = meta.ok_or(Broken("a column chunk has no metadata"))?;
        for (what, (offset, length)) in [("offset index", offset_index), ("column index", column_index)] {
            within(offset, length, data_end).ok_or_else(|| range(format!("the {what} lies outside the file")))?;
        }
        let uncompressed = meta.check(data_end).map_err(|what| range(what.to_owned()))?;
        if let (Some(total), Some(codecs)) = (self.uncompressed_bytes.get_mut(leaf), self.codecs.get_mut(leaf)) {
            *total = total.checked_add(uncompressed).ok_or_else(|| range("the sizes overflow".to_owned()))?;
            *codecs |= u32::try_from(meta.codec).ok().and_then(|codec| 1_u32.checked_shl(codec)).unwrap_or(1 << 31);
        }
        Ok(())
    }
}

/// The metadata of a column chunk.
#[derive(Default)]
struct Chunk {
    codec: i32,
    values: i64,
    uncompressed: i64,
    compressed: i64,
    data_page: i64,
    index_page: i64,
    dictionary_page: i64,
    bloom_filter: (i64, i64),
}

impl Chunk {
    fn read(reader: &mut Reader<'_>) -> Check<Self> {
        let mut chunk = Self::default();
        let mut required = 0_u32;
        reader.fields(|reader, field| {
            let mut number = |kind: Kind| {
                field.expect(kind)?;
                if kind == Kind::I32 { reader.i32().map(i64::from) } else { reader.i64() }
            };
            match field.id {
                1 => drop(number(Kind::I32)?),
                4 => {
                    field.expect(Kind::I32)?;
                    chunk.codec = reader.i32()?;
                }
                5 => chunk.values = number(Kind::I64)?,
                6 => chunk.uncompressed = number(Kind::I64)?,
                7 => chunk.compressed = number(Kind::I64)?,
                9 => chunk.data_page = number(Kind::I64)?,
                10 => chunk.index_page = number(Kind::I64)?,
                11 => chunk.dictionary_page = number(Kind::I64)?,
                14 => chunk.bloom_filter.0 = number(Kind::I64)?,
                15 => chunk.bloom_filter.1 = number(Kind::I32)?,
                2 | 3 | 8 | 13 => {
                    field.expect(Kind::List)?;
                    let element = match field.id {
                        2 => &shapes::ENCODING,
                        3 => &shapes::PATH_PART,
                        8 => &shapes::KEY_VALUE,
                        _ => &shapes::PAGE_ENCODING,
                    };
                    short_list(reader, element)?;
                }
                12 => reader.skip_as(field.kind, &shapes::STATISTICS)?,
                16 => reader.skip_as(field.kind, &shapes::SIZE_STATISTICS)?,
                17 => reader.skip_as(field.kind, &shapes::GEOSPATIAL_STATISTICS)?,
                _ => return Ok::<_, Broken>(false),
            }
            required |= u32::try_from(field.id).ok().and_then(|id| 1_u32.checked_shl(id)).unwrap_or(0);
            Ok(true)
        })?;
        let missing = [4, 5, 6, 7, 9].iter().any(|id| required & (1 << id) == 0);
        if missing { Err(Broken("a column chunk lacks codec, sizes or offset").into()) } else { Ok(chunk) }
    }

    /// The uncompressed bytes, or the rule that is broken.
    fn check(&self, data_end: u64) -> Result<u64, &'static str> {
        if self.values < 0 {
            return Err("a column chunk has a negative number of values");
        }
        let uncompressed = u64::try_from(self.uncompressed).map_err(|_| "a column chunk has a negative size")?;
        // Some writers say 0 for "no dictionary", and pyarrow for the data page of a column without values.
        let dictionary = (self.dictionary_page != 0).then_some(self.dictionary_page);
        let data_page = (self.values != 0 || self.data_page != 0).then_some(self.data_page);
        if dictionary.into_iter().chain(data_page).any(|at| at < 4) {
            return Err("a column chunk begins inside the magic bytes");
        }
        let outside = "a column chunk reaches into the footer";
        for start in dictionary.into_iter().chain([self.data_page]) {
            within(start, 0, data_end).ok_or(outside)?;
        }
        let start = dictionary.map_or(self.data_page, |at| at.min(self.data_page));
        within(start, self.compressed, data_end).ok_or(outside)?;
        // Readers that begin at the dictionary must not pass the end either.
        within(dictionary.unwrap_or(self.data_page), self.compressed, data_end).ok_or(outside)?;
        within(self.index_page, 0, data_end).ok_or("an index page lies outside the file")?;
        within(self.bloom_filter.0, self.bloom_filter.1, data_end).ok_or("a bloom filter lies outside the file")?;
        Ok(uncompressed)
    }
}

/// Whether `offset..offset + length` is a range that ends at or before `end`.
fn within(offset: i64, length: i64, end: u64) -> Option<()> {
    let last = u64::try_from(offset).ok()?.checked_add(u64::try_from(length).ok()?)?;
    (last <= end).then_some(())
}
