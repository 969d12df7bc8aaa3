//! Lists of items as files: Amazon Personalize's JSON Lines `{"itemId": "…"}`, Parquet or CSV with a column item_id.

use std::fmt;

use datafusion::error::{DataFusionError, Result};
use futures::TryStreamExt;
use item_affinity_storage::{InputFile, Location, Stores, list_parquet, open_parquet, read_small};
use serde_json::Value;

use crate::error::from_storage;
use crate::items_argument::id_texts;

/// Bytes of one line at most.
const MAX_LINE: usize = 1 << 20;
/// Bytes of a JSON Lines or CSV file at most; 64 MiB are over a million items.
const MAX_FILE: u64 = 64 << 20;

/// The items of a request in the order they were asked for, with the lines that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemList {
    /// One entry for each line, row or given id; duplicates are kept.
    pub entries: Vec<ItemEntry>,
}

/// One asked item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemEntry {
    /// Line of the file, from 1; none for items that did not come from lines.
    pub line: Option<u64>,
    /// The item id, or why there is none.
    pub item: std::result::Result<String, ItemError>,
    /// The JSON of the line, as Amazon Personalize's output repeats it.
    pub input: Option<Value>,
}

/// Why an item has no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemError {
    /// A stable name: `ITEM_LINE_INVALID`, `ITEM_ID_MISSING`, `ITEM_NOT_IN_MODEL`.
    pub code: &'static str,
    /// What is wrong and what to do, with the line where there is one.
    pub message: String,
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ItemList {
    /// Takes ids as they are.
    #[must_use]
    pub fn from_ids<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        let entries = ids.into_iter().map(|id| ItemEntry { line: None, item: Ok(id.into()), input: None }).collect();
        Self { entries }
    }

    /// Reads JSON Lines, Parquet or CSV, told apart by what the file holds.
    ///
    /// A bad JSON line becomes an entry with its error; the other lines count. A file that is no list of items at all
    /// is an error.
    ///
    /// # Errors   storage errors; a plan error that names the file, what was found and what is accepted
    pub async fn read(stores: &Stores, location: &Location) -> Result<Self> {
        let name = location.path().filename().unwrap_or_default().to_ascii_lowercase();
        let by_name = [".parquet", ".parq", ".pq"].iter().any(|end| name.ends_with(end));
        if by_name || location.is_prefix() {
            return read_parquet(stores, location).await;
        }
        let bytes = read_small(stores, location, MAX_FILE).await.map_err(from_storage)?;
        if bytes.starts_with(b"PAR1") {
            return read_parquet(stores, location).await;
        }
        let text = text_of(&bytes).map_err(|found| plan(location, &found))?;
        if text.trim().is_empty() {
            return Err(plan(location, "the list of items is empty; write one {\"itemId\": \"…\"} a line"));
        }
        match text.trim_start().as_bytes().first() {
            Some(b'[') => Err(plan(
                location,
                "one JSON array for the whole file; write one object a line instead: {\"itemId\": \"…\"}",
            )),
            Some(b'{') => Ok(Self { entries: json_lines(text) }),
            _ if name.ends_with(".json") || name.ends_with(".jsonl") || name.ends_with(".ndjson") => {
                Ok(Self { entries: json_lines(text) })
            }
            _ => csv_rows(text).map_err(|found| plan(location, &found)),
        }
    }
}

fn plan(location: &Location, what: &str) -> DataFusionError {
    DataFusionError::Plan(format!("ITEM_LIST_INVALID: {what}; file={location}"))
}

/// UTF-8 without its byte order mark.
fn text_of(bytes: &[u8]) -> std::result::Result<&str, String> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err("not UTF-8 (UTF-16?); save it as UTF-8".to_owned());
    }
    std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 at byte {}; save it as UTF-8", e.valid_up_to()))
}

fn json_lines(text: &str) -> Vec<ItemEntry> {
    (1u64..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let (item, input) = json_line(number, line);
            ItemEntry { line: Some(number), item, input }
        })
        .collect()
}

fn json_line(number: u64, line: &str) -> (std::result::Result<String, ItemError>, Option<Value>) {
    let invalid = |message: String| Err(ItemError { code: "ITEM_LINE_INVALID", message });
    if line.len() > MAX_LINE {
        return (invalid(format!("longer than 1 MiB; line={number}; write one item a line")), None);
    }
    // serde_json stops at 128 levels of nesting by itself.
    let value = match serde_json::from_str::<Value>(line) {
        Ok(value) => value,
        Err(e) => {
            let message = format!("not JSON; line={number} column={}; write {{\"itemId\": \"…\"}}", e.column());
            return (invalid(message), None);
        }
    };
    let missing = |message: String| Err(ItemError { code: "ITEM_ID_MISSING", message });
    let item = match value.get("itemId") {
        Some(Value::String(id)) if !id.trim().is_empty() => Ok(id.clone()),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(id.to_string()),
        Some(Value::String(_)) => missing(format!("itemId is empty; line={number}; write {{\"itemId\": \"…\"}}")),
        Some(_) => missing(format!("itemId is not a string; line={number}; write {{\"itemId\": \"…\"}}")),
        None if value.get("userId").is_some() => missing(format!(
            "userId found, but segments are asked for by item; line={number}; write {{\"itemId\": \"…\"}}"
        )),
        None => missing(format!("no itemId; line={number}; write {{\"itemId\": \"…\"}}")),
    };
    (item, Some(value))
}

/// Rows of a CSV file: the column item_id of a header, or the only column of a file without one.
fn csv_rows(text: &str) -> std::result::Result<ItemList, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut rows = reader.records();
    let unreadable = |e: csv::Error| format!("not readable as CSV: {e}");
    let Some(first) = rows.next().transpose().map_err(unreadable)? else {
        return Err("the list of items is empty".to_owned());
    };
    let is_header = |name: &str| ["item_id", "itemid"].iter().any(|known| name.trim().eq_ignore_ascii_case(known));
    let mut entries = Vec::new();
    let column = match first.iter().position(is_header) {
        Some(column) => column,
        None if first.len() == 1 => {
            entries.push(csv_entry(1, first.get(0)));
            0
        }
        None => {
            let found = first.iter().collect::<Vec<_>>().join(", ");
            return Err(format!("no column item_id, found [{found}]; name one column item_id"));
        }
    };
    for row in rows {
        let row = row.map_err(unreadable)?;
        let line = row.position().map_or(0, csv::Position::line);
        entries.push(csv_entry(line, row.get(column)));
    }
    if entries.is_empty() {
        return Err("the list of items is empty".to_owned());
    }
    Ok(ItemList { entries })
}

fn csv_entry(line: u64, field: Option<&str>) -> ItemEntry {
    let item = match field.map(str::trim) {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => Err(ItemError { code: "ITEM_ID_MISSING", message: format!("no item_id; line={line}; fill it in") }),
    };
    ItemEntry { line: Some(line), item, input: None }
}

async fn read_parquet(stores: &Stores, location: &Location) -> Result<ItemList> {
    let listing = list_parquet(stores, location).await.map_err(from_storage)?;
    let mut entries = Vec::new();
    for file in &listing.files {
        read_parquet_file(stores, file, &mut entries).await?;
    }
    if entries.is_empty() {
        return Err(plan(location, "the list of items is empty"));
    }
    Ok(ItemList { entries })
}

async fn read_parquet_file(stores: &Stores, file: &InputFile, entries: &mut Vec<ItemEntry>) -> Result<()> {
    let input = open_parquet(stores, file).await.map_err(from_storage)?;
    let fields = input.schema().fields().clone();
    let column = match fields.iter().position(|f| f.name().trim().eq_ignore_ascii_case("item_id")) {
        Some(column) => column,
        None if fields.len() == 1 => 0,
        None => {
            let found = fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
            return Err(plan(&file.location, &format!("no column item_id, found [{found}]; rename one to item_id")));
        }
    };
    let mut stream = Box::pin(input.stream(&[column], 8192).await.map_err(from_storage)?);
    let mut row = 0u64;
    while let Some(batch) = stream.try_next().await.map_err(from_storage)? {
        let texts = id_texts(batch.column(0)).map_err(|_| {
            let found = batch.column(0).data_type();
            plan(&file.location, &format!("item ids are strings or integers, found {found}"))
        })?;
        for id in &texts {
            row += 1;
            let item = match id {
                Some(id) if !id.trim().is_empty() => Ok(id.to_owned()),
                _ => Err(ItemError { code: "ITEM_ID_MISSING", message: format!("no item_id; row={row}; fill it in") }),
            };
            entries.push(ItemEntry { line: None, item, input: None });
        }
    }
    Ok(())
}
