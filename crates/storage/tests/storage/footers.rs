//! Hand-made footers, cut files and foreign files: each rule of the preflight has bytes that break it.

use item_affinity_storage::{Error, ParquetFault, preflight};
use proptest::prelude::*;

use crate::parquet_files::{Options, sample, write};

/// A writer of Thrift compact structs.
#[derive(Clone, Default)]
struct Struct {
    bytes: Vec<u8>,
    last: u8,
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn zigzag(value: i64) -> Vec<u8> {
    varint(((value << 1) ^ (value >> 63)) as u64)
}

fn list(kind: u8, count: u64, elements: &[u8]) -> Vec<u8> {
    let mut bytes = if count < 15 { vec![(count as u8) << 4 | kind] } else { vec![0xf0 | kind] };
    if count >= 15 {
        bytes.extend(varint(count));
    }
    bytes.extend(elements);
    bytes
}

impl Struct {
    fn field(mut self, id: u8, kind: u8, value: &[u8]) -> Self {
        self.bytes.push((id - self.last) << 4 | kind);
        self.last = id;
        self.bytes.extend(value);
        self
    }
    fn i32(self, id: u8, value: i32) -> Self {
        self.field(id, 5, &zigzag(value.into()))
    }
    fn i64(self, id: u8, value: i64) -> Self {
        self.field(id, 6, &zigzag(value))
    }
    fn text(self, id: u8, value: &str) -> Self {
        let mut bytes = varint(value.len() as u64);
        bytes.extend(value.as_bytes());
        self.field(id, 8, &bytes)
    }
    fn structs(self, id: u8, elements: &[Vec<u8>]) -> Self {
        self.field(id, 9, &list(12, elements.len() as u64, &elements.concat()))
    }
    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn group(name: &str, children: i32) -> Vec<u8> {
    Struct::default().text(4, name).i32(5, children).end()
}

fn leaf(name: &str) -> Vec<u8> {
    Struct::default().i32(1, 6).i32(3, 0).text(4, name).end()
}

#[derive(Clone)]
struct Chunk {
    file: &'static str,
    values: i64,
    sizes: (i64, i64),
    data: i64,
    dictionary: i64,
    index: (i64, i32),
    bloom: (i64, i32),
}

/// A chunk of the 100 bytes of data that `file` puts before the footer.
fn chunk() -> Chunk {
    Chunk { file: "", values: 1, sizes: (10, 10), data: 4, dictionary: 0, index: (0, 0), bloom: (0, 0) }
}

impl Chunk {
    fn bytes(&self) -> Vec<u8> {
        let meta = Struct::default()
            .i32(1, 6)
            .field(2, 9, &list(5, 1, &zigzag(0)))
            .field(3, 9, &list(8, 1, &[1, b'x']))
            .i32(4, 1)
            .i64(5, self.values)
            .i64(6, self.sizes.0)
            .i64(7, self.sizes.1)
            .i64(9, self.data)
            .i64(11, self.dictionary)
            .i64(14, self.bloom.0)
            .i32(15, self.bloom.1)
            .end();
        Struct::default()
            .text(1, self.file)
            .i64(2, 4)
            .field(3, 12, &meta)
            .i64(4, self.index.0)
            .i32(5, self.index.1)
            .end()
    }
}

fn row_group(rows: i64, chunks: &[Vec<u8>]) -> Vec<u8> {
    Struct::default().structs(1, chunks).i64(2, 10).i64(3, rows).end()
}

fn footer(schema: &[Vec<u8>], rows: i64, groups: &[Vec<u8>]) -> Vec<u8> {
    Struct::default().i32(1, 1).structs(2, schema).i64(3, rows).structs(4, groups).end()
}

/// A file with 100 bytes of data and this footer.
fn file(footer: &[u8]) -> Vec<u8> {
    let mut bytes = b"PAR1".to_vec();
    bytes.resize(104, 0);
    bytes.extend(footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    bytes
}

fn one_column() -> Vec<Vec<u8>> {
    vec![group("schema", 1), leaf("x")]
}

fn with_chunk(chunk: &Chunk) -> Vec<u8> {
    file(&footer(&one_column(), 1, &[row_group(1, &[chunk.bytes()])]))
}

fn fault(bytes: &[u8]) -> (ParquetFault, String) {
    match preflight(bytes, "s3://lake/x.parquet").expect_err("a refusal") {
        error @ Error::Parquet { fault, .. } => {
            let text = error.to_string();
            assert!(text.starts_with(fault.code()) && text.contains("file=s3://lake/x.parquet"), "{text}");
            (fault, text)
        }
        other => panic!("{other}"),
    }
}

#[track_caller]
fn assert_fault(bytes: &[u8], expected: ParquetFault) -> String {
    let (fault, text) = fault(bytes);
    assert_eq!(fault, expected, "{text}");
    text
}

#[test]
fn hand_made_file_passes() {
    let footer = preflight(&with_chunk(&chunk()), "x").unwrap();
    assert_eq!((footer.rows, footer.row_groups, footer.uncompressed_bytes), (1, 1, vec![10]));
}

#[test]
fn b1_b2_b3_short_files() {
    assert_fault(b"", ParquetFault::EmptyObject);
    assert_fault(b"PAR1", ParquetFault::TooShort);
    assert_fault(b"PAR1PAR1", ParquetFault::TooShort);
}

#[test]
fn b4_footer_length_is_inside_the_file_and_under_the_cap() {
    for length in [0_u32, 11, 0xffff_fff0, u32::MAX] {
        let mut bytes = b"PAR1__________".to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(b"PAR1");
        let text = assert_fault(&bytes, ParquetFault::FooterLength);
        assert!(text.contains(&format!("footer of {length} bytes in a file of 22 bytes")), "{text}");
    }
    let large = vec![0; (64 << 20) + 1];
    assert!(assert_fault(&file(&large), ParquetFault::FooterLength).contains("the limit is 67108864"));
}

#[test]
fn b5_list_that_is_longer_than_the_footer() {
    for count in [(1_u64 << 31) - 1, 100_000_000, 100] {
        let start = Struct::default().i32(1, 1).structs(2, &one_column()).i64(3, 0);
        assert_fault(&file(&start.clone().field(4, 9, &list(12, count, &[])).end()), ParquetFault::FooterDamaged);
        assert_fault(&file(&start.field(5, 9, &list(12, count, &[])).end()), ParquetFault::FooterDamaged);
    }
}

#[test]
fn b6_schema_is_a_tree_within_limits() {
    let refuse = |schema: &[Vec<u8>]| assert_fault(&file(&footer(schema, 0, &[])), ParquetFault::SchemaLimit);
    refuse(&[]);
    refuse(&[group("schema", i32::MAX), leaf("x")]);
    refuse(&[group("schema", -1), leaf("x")]);
    refuse(&[group("schema", 2), leaf("x")]);
    refuse(&[group("schema", 1), leaf("x"), leaf("y")]);
    refuse(&[group("schema", 0), leaf("x")]);
    let mut deep = vec![group("g", 1); 10_000];
    deep.push(leaf("x"));
    refuse(&deep);
    let mut wide = vec![group("schema", 2_001)];
    wide.extend((0..2_001).map(|_| leaf("x")));
    assert!(refuse(&wide).contains("more than 2000 columns"));
    let mut fits = vec![group("g", 1); 31];
    fits.push(leaf("x"));
    preflight(&file(&footer(&fits, 0, &[])), "x").unwrap();
}

#[test]
fn b7_foreign_formats_are_named() {
    for (bytes, name) in [
        (&b"USER_ID,ITEM_ID,TIMESTAMP\n1,2,3\n"[..], "CSV"),
        (b"\xef\xbb\xbfUSER_ID;ITEM_ID\n", "CSV"),
        (b"{\"USER_ID\": 1}\n{\"USER_ID\": 2}", "JSON"),
        (b"[1, 2, 3, 4, 5]", "JSON"),
        (b"ORC\x08\x03\x10\x00\x00\x00\x00\x00\x00", "ORC"),
        (b"Obj\x01\x04\x14avro.codec", "Avro"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x00\x00", "gzip"),
        (b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00", "zip"),
        (b"ARROW1\x00\x00\xff\xff\xff\xff\x00\x00", "Arrow IPC"),
        (b"<html><body></body></html>", "XML or HTML"),
        (b"no data today, sorry", "CSV"),
        (b"no data today    ", "text"),
    ] {
        let text = assert_fault(bytes, ParquetFault::NotParquet);
        assert!(text.contains(&format!("looks like {name};")), "{text}");
    }
    assert!(!assert_fault(&[0; 100], ParquetFault::NotParquet).contains("looks like"));
}

#[test]
fn b8_every_cut_of_a_valid_file_is_an_error() {
    let bytes = write(&sample(3_000), &Options::default());
    preflight(&bytes, "x").unwrap();
    for length in (0..bytes.len()).step_by(97) {
        assert!(preflight(&bytes[..length], "x").is_err(), "{length}");
    }
}

#[test]
fn b13_encrypted_files_are_recognised() {
    let mut bytes = with_chunk(&chunk());
    let end = bytes.len() - 4;
    bytes[..4].copy_from_slice(b"PARE");
    bytes[end..].copy_from_slice(b"PARE");
    assert_fault(&bytes, ParquetFault::Encrypted);
    let clear_footer = Struct::default().i32(1, 1).structs(2, &one_column()).i64(3, 0).structs(4, &[]);
    let algorithm = Struct::default().field(1, 12, &[0]).end();
    assert_fault(&file(&clear_footer.field(8, 12, &algorithm).end()), ParquetFault::Encrypted);
}

#[test]
fn required_fields_and_types_are_checked() {
    let all = Struct::default().i32(1, 1).structs(2, &one_column()).i64(3, 0).structs(4, &[]);
    preflight(&file(&all.end()), "x").unwrap();
    let missing = [
        Struct::default().structs(2, &one_column()).i64(3, 0).structs(4, &[]),
        Struct::default().i32(1, 1).i64(3, 0).structs(4, &[]),
        Struct::default().i32(1, 1).structs(2, &one_column()).structs(4, &[]),
        Struct::default().i32(1, 1).structs(2, &one_column()).i64(3, 0),
        Struct::default().i64(1, 1).structs(2, &one_column()).i64(3, 0).structs(4, &[]),
    ];
    for footer in missing {
        assert_fault(&file(&footer.end()), ParquetFault::FooterDamaged);
    }
}

#[test]
fn row_groups_are_limited_and_have_all_columns() {
    let refuse =
        |groups: &[Vec<u8>]| assert_fault(&file(&footer(&one_column(), 0, groups)), ParquetFault::RowGroupLimit);
    refuse(&[row_group(0, &[])]);
    assert!(refuse(&[row_group(0, &[chunk().bytes(), chunk().bytes()])]).contains("row_group=0"));
    refuse(&vec![vec![0]; 100_001]);
}

#[test]
fn row_counts_add_up() {
    let refuse = |rows, groups: &[i64]| {
        let groups: Vec<_> = groups.iter().map(|&rows| row_group(rows, &[chunk().bytes()])).collect();
        assert_fault(&file(&footer(&one_column(), rows, &groups)), ParquetFault::RowCount)
    };
    refuse(2, &[1]);
    refuse(-1, &[]);
    refuse(-1, &[-1]);
    refuse(i64::MIN, &[i64::MAX, i64::MAX, 2]);
    assert!(refuse(0, &[1, -1]).contains("row_group=1"));
}

#[test]
fn chunks_lie_in_the_data() {
    let good = [
        Chunk { sizes: (10, 100), ..chunk() },
        Chunk { dictionary: 4, data: 50, sizes: (10, 100), ..chunk() },
        Chunk { index: (100, 4), bloom: (104, 0), ..chunk() },
        Chunk { values: 0, sizes: (0, 0), data: 0, ..chunk() },
        // As pyarrow writes a table without rows: an empty dictionary, no data page.
        Chunk { values: 0, dictionary: 4, data: 0, ..chunk() },
    ];
    for chunk in good {
        preflight(&with_chunk(&chunk), "x").unwrap();
    }
    let bad = [
        Chunk { file: "other.parquet", ..chunk() },
        Chunk { data: 3, ..chunk() },
        Chunk { values: 0, data: 3, ..chunk() },
        Chunk { data: 0, dictionary: 4, ..chunk() },
        Chunk { data: -4, ..chunk() },
        Chunk { data: 105, sizes: (0, 0), ..chunk() },
        Chunk { sizes: (10, 101), ..chunk() },
        Chunk { sizes: (10, i64::MAX), ..chunk() },
        Chunk { sizes: (10, -1), ..chunk() },
        Chunk { sizes: (-1, 10), ..chunk() },
        Chunk { values: -1, ..chunk() },
        Chunk { dictionary: 1, ..chunk() },
        Chunk { dictionary: 100, ..chunk() },
        Chunk { index: (101, 4), ..chunk() },
        Chunk { index: (-1, 4), ..chunk() },
        Chunk { bloom: (105, 0), ..chunk() },
    ];
    for chunk in bad {
        let text = assert_fault(&with_chunk(&chunk), ParquetFault::ChunkRange);
        assert!(text.contains("row_group=0 column=x"), "{text}");
    }
    let two = Chunk { sizes: (i64::MAX, 10), ..chunk() };
    let groups = vec![row_group(1, &[two.bytes()]); 3];
    assert_fault(&file(&footer(&one_column(), 3, &groups)), ParquetFault::ChunkRange);
}

/// Numbers at the edges of what footers count with.
fn at_the_edges() -> impl Strategy<Value = i64> {
    let edges = [
        0,
        1,
        7,
        i64::from(i32::MAX),
        i64::from(u32::MAX),
        i64::from(u32::MAX) + 1,
        i64::MAX / 2,
        i64::MAX - 1,
        i64::MAX,
        -1,
        i64::from(i32::MIN),
        i64::MIN,
    ];
    prop::sample::select(edges.to_vec())
}

/// The sum of counts, if none is negative and it is a number of 64 bits.
fn checked_sum(counts: &[i64]) -> Option<u64> {
    counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(u64::try_from(*count).ok()?))
}

proptest! {
    #[test]
    fn p23_row_counts_at_the_edges_add_up_or_are_refused(
        rows in prop::collection::vec(at_the_edges(), 0..4),
        said in at_the_edges(),
        truth in any::<bool>(),
    ) {
        let sum = checked_sum(&rows);
        let said = if truth { sum.and_then(|sum| i64::try_from(sum).ok()).unwrap_or(said) } else { said };
        let groups: Vec<Vec<u8>> = rows.iter().map(|rows| row_group(*rows, &[chunk().bytes()])).collect();
        match preflight(&file(&footer(&one_column(), said, &groups)), "x.parquet") {
            Ok(found) => {
                prop_assert_eq!(Some(found.rows), sum);
                prop_assert_eq!(u64::try_from(said).ok(), sum);
            }
            Err(error) => prop_assert!(u64::try_from(said).ok() != sum || sum.is_none(), "{}", error),
        }
    }

    #[test]
    fn p23_sizes_at_the_edges_add_up_or_are_refused(sizes in prop::collection::vec(at_the_edges(), 1..4)) {
        let group = |size: &i64| row_group(1, &[Chunk { sizes: (*size, 10), ..chunk() }.bytes()]);
        let groups: Vec<Vec<u8>> = sizes.iter().map(group).collect();
        let found = preflight(&file(&footer(&one_column(), sizes.len() as i64, &groups)), "x.parquet");
        prop_assert_eq!(found.ok().map(|found| found.uncompressed_bytes[0]), checked_sum(&sizes));
    }

    #[test]
    fn p23_places_at_the_edges_lie_in_the_file_or_are_refused(
        data in at_the_edges(),
        dictionary in at_the_edges(),
        length in at_the_edges(),
        index in (at_the_edges(), prop::sample::select(vec![0, 1, i32::MAX, -1, i32::MIN])),
    ) {
        let odd = Chunk { data, dictionary, sizes: (10, length), index, ..chunk() };
        if preflight(&with_chunk(&odd), "x.parquet").is_ok() {
            let end = |start: i64, length: i64| start.checked_add(length).is_some_and(|end| (0..=104).contains(&end));
            prop_assert!(end(data, 0) && end(dictionary, length) && end(index.0, i64::from(index.1)), "{data} {dictionary} {length} {index:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_file_of_the_arrow_writer_passes(rows in 0..300_usize, options in Options::any()) {
        let bytes = write(&sample(rows), &options);
        let footer = preflight(&bytes, "x").unwrap();
        prop_assert_eq!(footer.rows, rows as u64);
    }

    #[test]
    fn random_footers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = preflight(&bytes, "x");
        let _ = preflight(&file(&bytes), "x");
    }

    #[test]
    fn changed_footers_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let good = write(&sample(20), &Options::default());
        let length = u32::from_le_bytes(good[good.len() - 8..good.len() - 4].try_into().unwrap()) as usize;
        let mut bytes = good.clone();
        for (at, value) in changes {
            let at = good.len() - 8 - length + at.index(length + 8);
            bytes[at] = value;
        }
        if let Ok(footer) = preflight(&bytes, "x") {
            prop_assert!(footer.rows <= i64::MAX as u64);
        }
    }
}
