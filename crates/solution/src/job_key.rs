//! The key that tells whether a training was done already.

use std::collections::BTreeMap;

use item_affinity_model::ItemAffinity;
use item_affinity_storage::InputFile;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::model_card::EventFilter;
use crate::states::hex;

/// Everything that decides what a training gives; hashed as JSON with its fields in this order.
#[derive(Serialize)]
pub(crate) struct JobKey<'a> {
    pub(crate) format_version: &'static str,
    pub(crate) interactions: Vec<Pin<'a>>,
    pub(crate) items: Vec<Pin<'a>>,
    pub(crate) users: Vec<Pin<'a>>,
    pub(crate) columns: BTreeMap<&'a str, &'a str>,
    pub(crate) events: &'a EventFilter,
    pub(crate) recipe: &'a ItemAffinity,
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

/// Pins in the order of their addresses, whatever order they were listed in.
pub(crate) fn pins(files: &[InputFile]) -> Vec<Pin<'_>> {
    let mut pins: Vec<Pin<'_>> = files.iter().map(Pin::of).collect();
    pins.sort();
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
