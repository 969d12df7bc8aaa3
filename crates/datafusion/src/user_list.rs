//! A list of users as a file: Parquet or CSV with a column user_id. No message names one of them.

use std::collections::BTreeSet;

use datafusion::arrow::array::Array;
use datafusion::error::{DataFusionError, Result};
use futures::TryStreamExt;
use item_affinity_storage::{Location, Stores, list_parquet, open_parquet, read_small};

use crate::error::from_storage;
use crate::items_argument::id_texts;

/// Bytes of a CSV file at most.
const MAX_FILE: u64 = 256 << 20;

/// Reads the ids of users from a Parquet file, a folder of them, or a CSV file: the column user_id, or the only column.
///
/// # Errors   storage errors; a plan error for a file without such a column, with a row without an id, or without rows
pub async fn read_user_ids(stores: &Stores, location: &Location) -> Result<BTreeSet<String>> {
    let name = location.path().filename().unwrap_or_default().to_ascii_lowercase();
    let mut ids = BTreeSet::new();
    if [".csv", ".txt"].iter().any(|end| name.ends_with(end)) {
        let bytes = read_small(stores, location, MAX_FILE).await.map_err(from_storage)?;
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        csv_ids(bytes, &mut ids).map_err(|found| plan(location, &found))?;
    } else {
        for file in &list_parquet(stores, location).await.map_err(from_storage)?.files {
            let input = open_parquet(stores, file).await.map_err(from_storage)?;
            let fields = input.schema().fields().clone();
            let column = fields.iter().position(|field| is_user_id(field.name()));
            let Some(column) = column.or((fields.len() == 1).then_some(0)) else {
                return Err(plan(&file.location, "no column user_id; rename one to user_id"));
            };
            let mut stream = Box::pin(input.stream(&[column], 8192).await.map_err(from_storage)?);
            while let Some(batch) = stream.try_next().await.map_err(from_storage)? {
                let texts = id_texts(batch.column(0))
                    .map_err(|_| plan(&file.location, "user ids are strings or integers; cast the column"))?;
                if texts.null_count() > 0 {
                    return Err(plan(&file.location, "a user_id is NULL; leave such rows out"));
                }
                ids.extend(texts.iter().flatten().map(str::to_owned));
            }
        }
    }
    if ids.is_empty() {
        return Err(plan(location, "the list of users is empty"));
    }
    Ok(ids)
}

fn csv_ids(bytes: &[u8], ids: &mut BTreeSet<String>) -> std::result::Result<(), String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let mut column = None;
    for row in reader.records() {
        // The reader's own words may hold what is in the row.
        let row = row.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            format!("not readable as CSV in UTF-8; line={line}")
        })?;
        let line = row.position().map_or(0, csv::Position::line);
        let Some(at) = column else {
            let named = row.iter().position(is_user_id);
            match named.or((row.len() == 1).then_some(0)) {
                None => return Err("no column user_id in the first line; name one column user_id".to_owned()),
                Some(at) => column = Some(at),
            }
            if named.is_none() {
                ids.extend(row.get(0).map(str::to_owned));
            }
            continue;
        };
        match row.get(at) {
            Some(id) if !id.is_empty() => drop(ids.insert(id.to_owned())),
            _ => return Err(format!("no user_id; line={line}; fill it in, or leave the line out")),
        }
    }
    Ok(())
}

fn is_user_id(name: &str) -> bool {
    ["user_id", "userid"].iter().any(|known| name.trim().eq_ignore_ascii_case(known))
}

fn plan(location: &Location, what: &str) -> DataFusionError {
    DataFusionError::Plan(format!("USER_LIST_INVALID: {what}; file={location}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Vec<String>, String> {
        let mut ids = BTreeSet::new();
        csv_ids(text.as_bytes(), &mut ids).map(|()| ids.into_iter().collect())
    }

    #[test]
    fn csv_gives_its_column_or_its_only_one_as_text() {
        for text in ["country,USER_ID\nDE,007\nFR,b\n", "UserId\nb\n007\nb\n", "007\r\nb\r\n"] {
            assert_eq!(read(text).unwrap(), ["007", "b"], "{text}");
        }
    }

    #[test]
    fn no_message_holds_what_is_in_a_row() {
        for text in ["canary,x\ny,z\n", "user_id,x\n,canary\n", "user_id,x\ncanary\n"] {
            let message = read(text).unwrap_err();
            assert!(!message.contains("canary"), "{message}");
        }
    }
}
