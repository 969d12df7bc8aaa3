//! Lists of items as files: Amazon Personalize's JSON Lines `{"itemId": "…"}`, Parquet or CSV with a column item_id.

use std::fmt;

use datafusion::error::{DataFusionError, Result};
use futures::TryStreamExt;
use item_affinity_storage::{
    Error as StorageError, FileKind, InputFile, Location, Stores, list_files, list_parquet, open_parquet, read_small,
};
use serde_json::Value;

use crate::error::from_storage;
use crate::items_argument::id_texts;

/// Bytes of one line at most.
const MAX_LINE: usize = 1 << 20;
/// Brackets inside brackets; an item with its filter values needs two.
const MAX_DEPTH: usize = 32;
/// Bytes of a JSON Lines or CSV file at most; 64 MiB are over a million items.
const MAX_FILE: u64 = 64 << 20;

/// The items of a request in the order they were asked for, with the lines that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemList {
    /// One entry for each line, row or given id; duplicates are kept.
    pub entries: Vec<ItemEntry>,
}

/// One input file of a job: its output is named after it.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemFile {
    /// File name without folders.
    pub name: String,
    /// What it asks for.
    pub list: ItemList,
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
        let files = Self::read_files(stores, location).await?;
        Ok(Self { entries: files.into_iter().flat_map(|file| file.list.entries).collect() })
    }

    /// Reads one list, or all `.json`, `.jsonl` and `.ndjson` files of a folder, a glob or a prefix of names in an object
    /// store, as Amazon Personalize reads them. A folder without such files holds one list as Parquet.
    ///
    /// # Errors   as [`ItemList::read`]; a plan error for two files of one name, since outputs are named after them
    pub async fn read_files(stores: &Stores, location: &Location) -> Result<Vec<ItemFile>> {
        let alone = |list| vec![ItemFile { name: file_name(location), list }];
        let listing = match list_files(stores, location, FileKind::JSON).await {
            Ok(listing) => listing,
            Err(StorageError::NoInput { .. }) => match of_prefix(location) {
                // A prefix is the first part of names, not a folder.
                Some(names) if !is_parquet(&file_name(location)) => {
                    match list_files(stores, &names, FileKind::JSON).await {
                        Ok(listing) => listing,
                        Err(_) => return Ok(alone(read_parquet(stores, location).await?)),
                    }
                }
                _ => return Ok(alone(read_parquet(stores, location).await?)),
            },
            // The file itself is looked at below, whose messages say more of a list.
            Err(StorageError::Parquet { file, .. }) if file == location.to_string() => {
                return Ok(alone(Self::read_one(stores, location).await?));
            }
            Err(error) => return Err(from_storage(error)),
        };
        let mut files = Vec::with_capacity(listing.files.len());
        for file in &listing.files {
            let name = file_name(&file.location);
            if files.iter().any(|other: &ItemFile| other.name == name) {
                let cure = "two files have this name, and outputs are named after their inputs; rename one of them";
                return Err(plan(&file.location, cure));
            }
            files.push(ItemFile { name, list: Self::read_one(stores, &file.location).await? });
        }
        Ok(files)
    }

    async fn read_one(stores: &Stores, location: &Location) -> Result<Self> {
        let name = file_name(location).to_ascii_lowercase();
        if is_parquet(&name) {
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

fn file_name(location: &Location) -> String {
    location.path().filename().unwrap_or("items.json").to_owned()
}

fn is_parquet(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".parquet", ".parq", ".pq"].iter().any(|end| name.ends_with(end))
}

/// All names that begin with this location, where names are no paths of a disk.
fn of_prefix(location: &Location) -> Option<Location> {
    if location.is_local() || location.is_prefix() {
        return None;
    }
    Location::parse(&format!("{location}*")).ok()
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
    if bytes.contains(&0) {
        return Err("it holds NUL bytes (UTF-16?); save it as UTF-8".to_owned());
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
    let shape = Shape::of(line);
    if shape.depth > MAX_DEPTH {
        let message =
            format!("more than {MAX_DEPTH} brackets inside each other; line={number}; write {{\"itemId\": \"…\"}}");
        return (invalid(message), None);
    }
    let value = match serde_json::from_str::<Value>(line) {
        Ok(value) => value,
        Err(e) => {
            let message = format!("not JSON; line={number} column={}; write {{\"itemId\": \"…\"}}", e.column());
            return (invalid(message), None);
        }
    };
    if shape.item_ids > 1 {
        // A reader would take the last one, a person means the first.
        return (invalid(format!("itemId comes {} times; line={number}; write one item a line", shape.item_ids)), None);
    }
    let missing = |message: String| Err(ItemError { code: "ITEM_ID_MISSING", message });
    let item = match value.get("itemId") {
        Some(Value::String(id)) if !id.trim().is_empty() => Ok(id.clone()),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(id.to_string()),
        Some(Value::String(_)) => missing(format!("itemId is empty; line={number}; write {{\"itemId\": \"…\"}}")),
        Some(_) => missing(format!("itemId is not a string; line={number}; write {{\"itemId\": \"…\"}}")),
        None if value.get("userId").is_some() => missing(format!(
            "userId found, but segments are asked for by item; line={number}; write {{\"itemId\": \"…\"}}"
        )),
        None => {
            let other = value.as_object().and_then(|o| o.keys().find(|key| key.eq_ignore_ascii_case("itemId")));
            let found = if other.is_some() { ", only in another case" } else { "" };
            missing(format!("no itemId{found}; line={number}; write {{\"itemId\": \"…\"}}"))
        }
    };
    (item, Some(value))
}

/// What a line of JSON looks like before it is parsed: neither depth nor keys are left to the parser.
struct Shape {
    /// Brackets inside each other.
    depth: usize,
    /// Keys `itemId` of the outermost object.
    item_ids: usize,
}

impl Shape {
    fn of(line: &str) -> Self {
        let mut shape = Self { depth: 0, item_ids: 0 };
        let (mut open, mut text, mut escaped) = (0usize, None, false);
        let mut last = String::new();
        for (at, byte) in line.bytes().enumerate() {
            if let Some(start) = text {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => {
                        text = None;
                        last = line.get(start..at).unwrap_or_default().to_owned();
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => text = Some(at + 1),
                b'{' | b'[' => {
                    open += 1;
                    shape.depth = shape.depth.max(open);
                }
                b'}' | b']' => open = open.saturating_sub(1),
                b':' if open == 1 && last == "itemId" => shape.item_ids += 1,
                _ => {}
            }
        }
        shape
    }
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
            let found = shown(first.iter());
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

/// Names of columns as one harmless line.
fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| name.escape_debug().take(80).collect::<String>()).collect::<Vec<_>>().join(", ")
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
            let found = shown(fields.iter().map(|field| field.name().as_str()));
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
