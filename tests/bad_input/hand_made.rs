//! Parquet files made by hand, byte by byte, so that headers and footers can say what no writer says.

/// Thrift's compact protocol, as far as Parquet needs it.
#[derive(Default)]
struct Thrift {
    bytes: Vec<u8>,
    last: Vec<i16>,
}

impl Thrift {
    fn of(make: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut thrift = Self { bytes: Vec::new(), last: vec![0] };
        make(&mut thrift);
        thrift.bytes.push(0);
        thrift.bytes
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn header(&mut self, field: i16, kind: u8) {
        let last = self.last.last_mut().unwrap();
        let delta = field - *last;
        *last = field;
        self.bytes.push((delta as u8) << 4 | kind);
    }

    fn zigzag(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn i32(&mut self, field: i16, value: i32) -> &mut Self {
        self.header(field, 5);
        self.zigzag(i64::from(value));
        self
    }

    fn i64(&mut self, field: i16, value: i64) -> &mut Self {
        self.header(field, 6);
        self.zigzag(value);
        self
    }

    fn text(&mut self, field: i16, value: &str) -> &mut Self {
        self.header(field, 8);
        self.item_text(value);
        self
    }

    fn item_text(&mut self, value: &str) {
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
    }

    fn list(&mut self, field: i16, length: u64, kind: u8) -> &mut Self {
        self.header(field, 9);
        if length < 15 {
            self.bytes.push((length as u8) << 4 | kind);
        } else {
            self.bytes.push(0xf0 | kind);
            self.varint(length);
        }
        self
    }

    fn inner(&mut self, make: impl FnOnce(&mut Self)) -> &mut Self {
        self.last.push(0);
        make(self);
        self.last.pop();
        self.bytes.push(0);
        self
    }

    fn record(&mut self, field: i16, make: impl FnOnce(&mut Self)) -> &mut Self {
        self.header(field, 12);
        self.inner(make)
    }
}

/// One page: what its header says, and its bytes.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) is_dictionary: bool,
    pub(super) values: i32,
    /// 0 plain, 8 dictionary.
    pub(super) encoding: i32,
    pub(super) says_uncompressed: Option<i32>,
    pub(super) crc: Option<i32>,
    pub(super) data: Vec<u8>,
}

impl Page {
    pub(super) fn plain(texts: &[String]) -> Self {
        let data = texts.iter().flat_map(|t| [&(t.len() as u32).to_le_bytes()[..], t.as_bytes()].concat()).collect();
        Self { is_dictionary: false, values: texts.len() as i32, encoding: 0, says_uncompressed: None, crc: None, data }
    }

    pub(super) fn longs(numbers: &[i64]) -> Self {
        Self::of(numbers.len() as i32, numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    /// Plain values in these bytes.
    pub(super) fn of(values: i32, data: Vec<u8>) -> Self {
        Self { is_dictionary: false, values, encoding: 0, says_uncompressed: None, crc: None, data }
    }

    pub(super) fn dictionary(texts: &[String]) -> Self {
        Self { is_dictionary: true, ..Self::plain(texts) }
    }

    /// One run of the first value of the dictionary.
    pub(super) fn run(rows: i32) -> Self {
        Self::run_of(0, rows)
    }

    /// One run of one of the first two values of the dictionary.
    pub(super) fn run_of(value: u8, rows: i32) -> Self {
        let mut data = vec![1];
        let mut run = (rows as u64) << 1;
        while run >= 0x80 {
            data.push((run as u8 & 0x7f) | 0x80);
            run >>= 7;
        }
        data.extend([run as u8, value]);
        Self { is_dictionary: false, values: rows, encoding: 8, says_uncompressed: None, crc: None, data }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.data.len() as i32;
        let mut bytes = Thrift::of(|header| {
            header.i32(1, if self.is_dictionary { 2 } else { 0 });
            header.i32(2, self.says_uncompressed.unwrap_or(length)).i32(3, length);
            if let Some(crc) = self.crc {
                header.i32(4, crc);
            }
            if self.is_dictionary {
                header.record(7, |page| {
                    page.i32(1, self.values).i32(2, 0);
                });
            } else {
                header.record(5, |page| {
                    page.i32(1, self.values).i32(2, self.encoding).i32(3, 3).i32(4, 3);
                });
            }
        });
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

/// One required column.
#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// 2 for INT64, 6 for BYTE_ARRAY, which is UTF-8 then.
    pub(super) kind: i32,
    pub(super) codec: i32,
    pub(super) values: i64,
    /// What the footer says of its size when decompressed, where that is not the size in the file.
    pub(super) uncompressed: Option<i64>,
    pub(super) pages: Vec<Page>,
}

impl Column {
    pub(super) fn texts(name: &'static str, pages: Vec<Page>) -> Self {
        let values = pages.iter().filter(|page| !page.is_dictionary).map(|page| i64::from(page.values)).sum();
        Self { name, kind: 6, codec: 0, values, uncompressed: None, pages }
    }

    pub(super) fn longs(name: &'static str, numbers: &[i64]) -> Self {
        let (values, pages) = (numbers.len() as i64, vec![Page::longs(numbers)]);
        Self { name, kind: 2, codec: 0, values, uncompressed: None, pages }
    }
}

/// A file of one row group; the footer says `rows`, its row group `group_rows`.
pub(super) fn file(columns: &[Column], rows: i64, group_rows: i64) -> Vec<u8> {
    made(columns, rows, group_rows, 1)
}

/// A file whose row groups all point at the same pages.
pub(super) fn groups(columns: &[Column], rows: i64, count: i64) -> Vec<u8> {
    made(columns, rows * count, rows, count)
}

fn made(columns: &[Column], rows: i64, group_rows: i64, count: i64) -> Vec<u8> {
    let mut bytes = b"PAR1".to_vec();
    let mut places = Vec::new();
    for column in columns {
        let (start, mut dictionary, mut data) = (bytes.len() as i64, None, None);
        for page in &column.pages {
            let at = bytes.len() as i64;
            if page.is_dictionary {
                dictionary = Some(at)
            } else {
                data = data.or(Some(at))
            }
            bytes.extend(page.bytes());
        }
        places.push((dictionary, data.unwrap_or(start), bytes.len() as i64 - start));
    }
    let total = places.iter().map(|(_, _, length)| length).sum::<i64>();
    let footer = Thrift::of(|footer| {
        footer.i32(1, 1).list(2, columns.len() as u64 + 1, 12);
        footer.inner(|root| {
            root.text(4, "schema").i32(5, columns.len() as i32);
        });
        for column in columns {
            footer.inner(|leaf| {
                leaf.i32(1, column.kind).i32(3, 0).text(4, column.name);
                if column.kind == 6 {
                    leaf.i32(6, 0);
                }
            });
        }
        footer.i64(3, rows).list(4, count as u64, 12);
        for _ in 0..count {
            footer.inner(|group| {
                group.list(1, columns.len() as u64, 12);
                for (column, (dictionary, data, length)) in columns.iter().zip(&places) {
                    group.inner(|chunk| {
                        chunk.i64(2, dictionary.unwrap_or(*data));
                        chunk.record(3, |meta| {
                            meta.i32(1, column.kind).list(2, 3, 5);
                            [0, 3, 8].into_iter().for_each(|encoding| meta.zigzag(encoding));
                            meta.list(3, 1, 8).item_text(column.name);
                            meta.i32(4, column.codec)
                                .i64(5, column.values)
                                .i64(6, column.uncompressed.unwrap_or(*length))
                                .i64(7, *length)
                                .i64(9, *data);
                            if let Some(dictionary) = dictionary {
                                meta.i64(11, *dictionary);
                            }
                        });
                    });
                }
                group.i64(2, total).i64(3, group_rows);
            });
        }
    });
    ended(bytes, footer)
}

/// A footer whose schema is one root that says it has so many children, and so many elements below each other.
pub(super) fn schema_of(root_children: i32, nested: usize) -> Vec<u8> {
    let footer = Thrift::of(|footer| {
        footer.i32(1, 1).list(2, nested as u64 + 1, 12);
        footer.inner(|root| {
            root.text(4, "schema").i32(5, root_children);
        });
        for level in 0..nested {
            footer.inner(|element| {
                if level + 1 < nested {
                    element.i32(3, 0).text(4, "g").i32(5, 1);
                } else {
                    element.i32(1, 2).i32(3, 0).text(4, "leaf");
                }
            });
        }
        footer.i64(3, 0).list(4, 0, 12);
    });
    ended(b"PAR1".to_vec(), footer)
}

/// A footer that says it has so many row groups, and ends there.
pub(super) fn row_groups_of(length: u64) -> Vec<u8> {
    let footer = Thrift::of(|footer| {
        footer.i32(1, 1).list(2, 1, 12);
        footer.inner(|root| {
            root.text(4, "m").i32(5, 0);
        });
        footer.i64(3, 0).list(4, length, 12);
    });
    ended(b"PAR1".to_vec(), footer)
}

/// What stands in the clear part of an encrypted file: an algorithm with a prefix of additional data, and the name of a key.
fn encryption(footer: &mut Thrift, algorithm: i16, key_metadata: i16) {
    footer.record(algorithm, |either| {
        either.record(1, |aes_gcm| {
            aes_gcm.text(1, "canary-aad-prefix").text(2, "canary-aad-of-the-file");
        });
    });
    footer.text(key_metadata, "canary-key-7");
}

/// A file whose footer is encrypted, as far as anybody without its key can tell.
pub(super) fn encrypted_footer() -> Vec<u8> {
    let mut footer = Thrift::of(|crypto| encryption(crypto, 1, 2));
    // A length, a nonce, what is encrypted, a tag.
    footer.extend(60_u32.to_le_bytes());
    footer.extend((0..60_u8).map(|n| n.wrapping_mul(73) ^ 0x5a));
    let mut bytes = b"PARE".to_vec();
    bytes.extend([0x33; 500]);
    bytes.extend_from_slice(&footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PARE");
    bytes
}

/// A file with a clear footer that is signed, as those with encrypted columns have it.
pub(super) fn encrypted_columns() -> Vec<u8> {
    let footer = Thrift::of(|footer| {
        footer.i32(1, 2).list(2, 2, 12);
        footer.inner(|root| {
            root.text(4, "schema").i32(5, 1);
        });
        footer.inner(|leaf| {
            leaf.i32(1, 6).i32(3, 0).text(4, "USER_ID").i32(6, 0);
        });
        footer.i64(3, 0).list(4, 0, 12);
        encryption(footer, 8, 9);
    });
    ended(b"PAR1".to_vec(), footer)
}

fn ended(mut bytes: Vec<u8>, footer: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(&footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    bytes
}

/// CRC-32 as pages have it.
pub(super) fn crc32(bytes: &[u8]) -> i32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    (!crc) as i32
}

/// Columns of interactions that train, by hand: so many rows of 100 users and 50 items.
pub(super) fn interactions(rows: i64) -> Vec<Column> {
    let texts = |name: &str, modulo: i64| (0..rows).map(|n| format!("{name}{}", n % modulo)).collect::<Vec<_>>();
    let times = (0..rows).map(|n| 1_767_225_600 + n * 60).collect::<Vec<_>>();
    vec![
        Column::texts("USER_ID", vec![Page::plain(&texts("user-", 100))]),
        Column::texts("ITEM_ID", vec![Page::plain(&texts("item-", 53))]),
        Column::longs("TIMESTAMP", &times),
    ]
}
