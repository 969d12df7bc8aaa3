//! The key that tells whether a training or a refresh was done already.

use std::collections::BTreeMap;

use item_affinity_ingest::TimestampUnit;
use item_affinity_model::ItemAffinity;
use item_affinity_storage::InputFile;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::model_card::EventFilter;
use crate::states::hex;

/// Everything that decides what a training or a refresh gives; hashed as JSON with its fields in this order.
#[derive(Serialize)]
pub(crate) struct JobKey<'a> {
    pub(crate) format_version: &'static str,
    pub(crate) interactions: Vec<Pin<'a>>,
    pub(crate) items: Vec<Pin<'a>>,
    pub(crate) users: Vec<Pin<'a>>,
    pub(crate) columns: BTreeMap<&'a str, &'a str>,
    /// Of data sets in CSV.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) schemas: Vec<String>,
    pub(crate) events: EventFilter,
    pub(crate) timestamp_unit: Option<TimestampUnit>,
    /// Names of included and of excluded columns.
    pub(crate) attributes: [Vec<String>; 2],
    /// The version that was trained, for a refresh; none for a training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Parent>,
    pub(crate) recipe: &'a ItemAffinity,
}

/// The version that was trained, of which a refresh has the item factors and coefficients.
#[derive(Serialize, PartialEq)]
pub(crate) struct Parent {
    pub(crate) version: u64,
    pub(crate) item_ids_sha256: String,
}

/// An input object and what tells its contents from earlier ones.
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pin<'a> {
    url: &'a str,
    bytes: u64,
    etag: Option<&'a str>,
    /// Only for stores without ETags; with one, a copy of the same bytes is the same input.
    last_modified: Option<i64>,
}

/// Pins in the order of their addresses, whatever order they were listed in; a file that two locations name is one.
pub(crate) fn pins(files: &[InputFile]) -> Vec<Pin<'_>> {
    let mut pins: Vec<Pin<'_>> = files.iter().map(Pin::of).collect();
    pins.sort();
    pins.dedup();
    pins
}

impl<'a> Pin<'a> {
    fn of(file: &'a InputFile) -> Self {
        let etag = file.meta.e_tag.as_deref();
        let last_modified = etag.is_none().then(|| file.meta.last_modified.timestamp_micros());
        Self { url: file.location.url().as_str(), bytes: file.meta.size, etag, last_modified }
    }
}

impl JobKey<'_> {
    /// The key in hexadecimal.
    pub(crate) fn sha256(&self) -> Result<String> {
        let text = serde_json::to_vec(self).map_err(Error::encode)?;
        Ok(hex(&Sha256::digest(text)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn pin<'a>(url: &'a str, bytes: u64, etag: &'a str) -> Pin<'a> {
        Pin { url, bytes, etag: Some(etag), last_modified: None }
    }

    fn key(change: impl FnOnce(&mut JobKey<'_>)) -> String {
        let recipe = ItemAffinity::default();
        let mut key = JobKey {
            format_version: "1.0",
            interactions: vec![pin("s3://lake/a", 10, "x"), pin("s3://lake/b", 20, "y")],
            items: Vec::new(),
            users: Vec::new(),
            columns: BTreeMap::new(),
            schemas: Vec::new(),
            events: EventFilter::default(),
            timestamp_unit: None,
            attributes: [Vec::new(), Vec::new()],
            parent: None,
            recipe: &recipe,
        };
        change(&mut key);
        key.sha256().unwrap()
    }

    #[test]
    fn everything_that_changes_the_result_changes_the_key() {
        let other = ItemAffinity { seed: 2, ..ItemAffinity::default() };
        let keys = [
            key(|_| ()),
            key(|key| key.format_version = "1.1"),
            key(|key| key.interactions[0] = pin("s3://lake/c", 10, "x")),
            key(|key| key.interactions[0] = pin("s3://lake/a", 11, "x")),
            key(|key| key.interactions[0] = pin("s3://lake/a", 10, "z")),
            key(|key| key.interactions.truncate(1)),
            key(|key| key.items = vec![pin("s3://lake/i", 1, "i")]),
            key(|key| key.users = vec![pin("s3://lake/i", 1, "i")]),
            key(|key| key.columns = BTreeMap::from([("USER_ID", "household")])),
            key(|key| key.events.event_types.push("view".to_owned())),
            key(|key| key.events.event_value_threshold = Some(0.0)),
            key(|key| key.events.event_weights = BTreeMap::from([("view".to_owned(), 2.0)])),
            key(|key| key.events.value_as_weight = true),
            key(|key| key.timestamp_unit = Some(TimestampUnit::Milliseconds)),
            key(|key| key.attributes[0].push("brand".to_owned())),
            key(|key| key.attributes[1].push("brand".to_owned())),
            key(|key| key.parent = Some(Parent { version: 1, item_ids_sha256: "aa".to_owned() })),
            key(|key| key.parent = Some(Parent { version: 2, item_ids_sha256: "aa".to_owned() })),
            key(|key| key.recipe = Box::leak(Box::new(other))),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], key(|_| ()));
        assert_eq!(keys[0].len(), 64);
    }
}
