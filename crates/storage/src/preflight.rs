//! Footer checks before any Parquet reader sees a file.
//!
//! Some readers reserve what a footer asks for: 44 bytes are enough to make one ask for 206 GB and abort. So every
//! count, length, offset and sum is checked here, in bounded memory, before the footer is decoded.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;

use crate::footer::{Check, Footer, Refusal, walk};
use crate::pinned::Pinned;
use crate::{InputFile, ParquetFault, Result};

/// The longest footer that is read.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
const HEAD_BYTES: u64 = 256;
const TAIL_BYTES: u64 = 64 << 10;

/// Checks a whole Parquet file that is in memory; `file` stands in the message.
///
/// # Errors
/// [`Error::Parquet`](crate::Error::Parquet) with the first rule that the file breaks.
pub fn preflight(bytes: &[u8], file: &str) -> Result<Footer> {
    let size = bytes.len() as u64;
    let check = || {
        let head = bytes.get(..bytes.len().min(256)).unwrap_or_default();
        let length = check_ends(size, head, bytes)?;
        let end = bytes.len().saturating_sub(8);
        let footer = usize::try_from(length).ok().and_then(|length| bytes.get(end.checked_sub(length)?..end));
        walk(footer.unwrap_or_default(), size.saturating_sub(8).saturating_sub(length))
    };
    check().map_err(|refusal: Refusal| refusal.of(file))
}

/// Reads and checks the footer of an object: its first bytes and its last 64 KiB, once more if the footer is longer.
///
/// # Errors
/// [`Error::Parquet`](crate::Error::Parquet) with the first rule that the file breaks, or what the store answered.
pub async fn check_footer(store: &Arc<dyn ObjectStore>, file: &InputFile) -> Result<Footer> {
    let pinned = Pinned::new(Arc::clone(store), file);
    read_footer(&pinned).await.map(|(footer, _)| footer)
}

/// The checked footer and its bytes.
pub(crate) async fn read_footer(object: &Pinned) -> Result<(Footer, Bytes)> {
    let size = object.size();
    let name = object.name();
    check_size(size).map_err(|refusal| refusal.of(name))?;
    let (head, tail) =
        futures::try_join!(object.read(0..size.min(HEAD_BYTES)), object.read(size.saturating_sub(TAIL_BYTES)..size))?;
    let length = check_ends(size, &head, &tail).map_err(|refusal| refusal.of(name))?;
    let end = size - 8;
    let start = end - length;
    let in_tail = usize::try_from(length).ok().and_then(|length| {
        let end = tail.len().checked_sub(8)?;
        Some(tail.slice(end.checked_sub(length)?..end))
    });
    let bytes = match in_tail {
        Some(bytes) => bytes,
        None => object.read(start..end).await?,
    };
    let footer = walk(&bytes, start).map_err(|refusal| refusal.of(name))?;
    Ok((footer, bytes))
}

fn check_size(size: u64) -> Check<()> {
    match size {
        0 => Err(Refusal::new(ParquetFault::EmptyObject, "the object has 0 bytes")),
        1..12 => Err(Refusal::new(ParquetFault::TooShort, format!("{size} bytes are too few for a Parquet file"))),
        _ => Ok(()),
    }
}

/// Steps 1 to 4: size, magic, footer length. `tail` ends where the file ends.
fn check_ends(size: u64, head: &[u8], tail: &[u8]) -> Check<u64> {
    check_size(size)?;
    let magic = tail.last_chunk::<4>();
    match (head.first_chunk::<4>(), magic) {
        (Some(b"PAR1"), Some(b"PAR1")) => {}
        (Some(b"PARE"), Some(b"PARE")) => {
            return Err(Refusal::new(ParquetFault::Encrypted, "the footer is encrypted"));
        }
        (Some(b"PAR1" | b"PARE"), _) => {
            return Err(Refusal::new(ParquetFault::NotParquet, "the file starts as Parquet but its end is missing"));
        }
        _ => {
            let reason = match guess(head) {
                Some(format) => format!("not a Parquet file, looks like {format}"),
                None => "not a Parquet file".to_owned(),
            };
            return Err(Refusal::new(ParquetFault::NotParquet, reason));
        }
    }
    let length = tail.len().checked_sub(8).and_then(|at| tail.get(at..)?.first_chunk::<4>()).copied();
    let length = u64::from(u32::from_le_bytes(length.unwrap_or_default()));
    if length == 0 || length > size - 12 {
        let reason = format!("footer of {length} bytes in a file of {size} bytes");
        return Err(Refusal::new(ParquetFault::FooterLength, reason));
    }
    if length > MAX_FOOTER_BYTES {
        let reason = format!("footer of {length} bytes, the limit is {MAX_FOOTER_BYTES}");
        return Err(Refusal::new(ParquetFault::FooterLength, reason));
    }
    Ok(length)
}

/// The format that the first bytes of a foreign file look like.
fn guess(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 8] = [
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"ORC", "ORC"),
        (b"Obj\x01", "Avro"),
        (b"ARROW1", "Arrow IPC"),
        (b"\xff\xff\xff\xff", "an Arrow IPC stream"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"SQLite format 3", "SQLite"),
    ];
    if let Some((_, name)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(name);
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = head.iter().all(|&b| b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r'));
    let first = head.iter().find(|b| !b.is_ascii_whitespace())?;
    match first {
        _ if !text => None,
        b'{' | b'[' => Some("JSON"),
        b'<' => Some("XML or HTML"),
        _ => {
            let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
            Some(if line.iter().any(|b| matches!(b, b',' | b';' | b'\t' | b'|')) { "CSV" } else { "text" })
        }
    }
}
