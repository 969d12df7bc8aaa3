//! Which objects are the input: a file, a folder or a glob becomes a sorted list of pinned objects.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::delta_listing::{DeltaListing, LoggedTable};
use crate::location::{decode, printable};
use crate::pattern::Pattern;
use crate::store_error::store_error;
use crate::{Error, Location, ParquetFault, Result, Stores, local_walk};

/// What Hive writes for a partition whose value is null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// One object to read, pinned as it was listed.
#[derive(Clone, Debug)]
pub struct InputFile {
    /// Where it is.
    pub location: Location,
    /// Path in the store, size, ETag and time, as listed.
    pub meta: ObjectMeta,
    /// Hive partitions of its path below the location that was listed, outermost first; `None` is null.
    pub partitions: Vec<(String, Option<String>)>,
    /// The version of the Delta table that it was listed as a file of.
    pub delta_version: Option<u64>,
}

/// The objects found at a location.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The objects, sorted by path.
    pub files: Vec<InputFile>,
    /// How many hidden and foreign objects and folders were left out.
    pub ignored: usize,
    /// The Delta table that they are the files of.
    pub table: Option<LoggedTable>,
}

/// Which files of a folder are input, by their names. A file that is named itself is taken whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKind {
    name: &'static str,
    extensions: &'static [&'static str],
    without_extension: bool,
}

impl FileKind {
    /// Parquet, also without extension, as Spark's `part-00000-...`.
    pub const PARQUET: Self = Self { name: "Parquet", extensions: &["parquet", "parq", "pq"], without_extension: true };
    /// CSV.
    pub const CSV: Self = Self { name: "CSV", extensions: &["csv"], without_extension: false };
    /// JSON Lines.
    pub const JSON: Self = Self { name: "JSON", extensions: &["json", "jsonl", "ndjson"], without_extension: false };

    /// Whether a file in a folder is data of this kind by its name.
    pub(crate) fn takes(self, relative: &str) -> bool {
        let name = relative.rsplit('/').next().unwrap_or_default();
        match name.rsplit_once('.') {
            None => self.without_extension,
            Some((_, extension)) => self.extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)),
        }
    }

    /// The names that were looked for, in words.
    fn in_words(self) -> String {
        let names = self.extensions.iter().map(|extension| format!("*.{extension}")).collect::<Vec<_>>().join(", ");
        if self.without_extension { format!("{names} and files without extension") } else { names }
    }
}

/// Lists the Parquet objects at a file, a folder or a glob (`*`, `?`, `[..]`, `**`).
///
/// A file that is named, or matched by the last part of a glob, is taken whatever its name. In folders those are taken
/// that end in `.parquet`, `.parq` or `.pq` or have no extension, as Spark's `part-00000-...`. Left out and counted:
/// other extensions, and everything below a part that starts with `.` or `_`, unless it is a partition such as
/// `_day=1`. A path that exists is taken as it is, also when it holds `*`, `?` or `[`.
///
/// # Errors
/// [`Error::NoInput`] when there is nothing to read, [`Error::InputFile`] for a pipe, a device or a broken link,
/// [`Error::Parquet`] for a data object of 0 bytes, and what the store answered.
pub async fn list_parquet(stores: &Stores, location: &Location) -> Result<Listing> {
    list_files(stores, location, FileKind::PARQUET).await
}

/// [`list_parquet`] for files of another kind.
///
/// # Errors
/// As [`list_parquet`].
pub async fn list_files(stores: &Stores, location: &Location, kind: FileKind) -> Result<Listing> {
    let store = stores.store(location)?;
    let mut found =
        if location.is_local() { local(location, kind).await? } else { remote(store.as_ref(), location, kind).await? };
    let table = match found.delta_log.take() {
        Some(log) if kind == FileKind::PARQUET => Some(delta_files(stores, location, &log, &mut found).await?),
        _ => None,
    };
    let mut listing = Listing {
        files: Vec::with_capacity(found.paths.len()),
        ignored: found.ignored,
        table: table.as_ref().map(|table| table.table.clone()),
    };
    // Local metadata comes from the store as well, so that the ETag is the one that the store compares.
    let metas = futures::stream::iter(found.paths).map(|(path, meta)| {
        let store = store.as_ref();
        async move {
            match meta {
                Some(meta) => Ok((path, meta)),
                None => store
                    .head(&path)
                    .await
                    .map(|meta| (path, meta))
                    .map_err(|e| store_error("HEAD", &location.to_string(), e)),
            }
        }
    });
    let mut metas = metas.buffered(16);
    while let Some((path, meta)) = metas.try_next().await? {
        let file = location.sibling(&path)?;
        if meta.size == 0 {
            return Err(Error::Parquet {
                fault: ParquetFault::EmptyObject,
                reason: "the object has 0 bytes".to_owned(),
                file: file.to_string(),
                row_group: None,
                column: None,
                source: None,
            });
        }
        let relative = below(path.as_ref(), &found.base).unwrap_or_default();
        let file = match &table {
            None => InputFile { location: file, meta, partitions: partitions(relative), delta_version: None },
            Some(table) => table.input_file(file, meta)?,
        };
        listing.files.push(file);
    }
    if listing.files.is_empty() && listing.table.is_some() {
        return Err(no_input(location, "the Delta table has no rows", "check the path, or write to the table first"));
    }
    if listing.files.is_empty() {
        let reason = match listing.ignored {
            0 => "there is no file".to_owned(),
            n => format!("there is no {} file among {n} other and hidden ones", kind.name),
        };
        return Err(no_input(location, reason, &format!("looked for {}; check the path", kind.in_words())));
    }
    Ok(listing)
}

/// The paths to read, with their metadata where the listing gave it.
pub(crate) struct Found {
    /// Sorted and unique.
    pub(crate) paths: BTreeMap<Path, Option<ObjectMeta>>,
    pub(crate) ignored: usize,
    /// Partitions are read from the parts below this folder.
    pub(crate) base: String,
    /// The folder `_delta_log` that lies among them, relative to the base.
    pub(crate) delta_log: Option<String>,
}

/// The name of the folder that makes its parent a Delta table.
pub(crate) const DELTA_LOG: &str = "_delta_log";

/// The folder `_delta_log` that a path, relative to what was listed, leads through.
pub(crate) fn delta_log(relative: &str) -> Option<&str> {
    let mut end = 0;
    for part in relative.split('/') {
        if part == DELTA_LOG {
            return relative.get(..end + part.len());
        }
        end += part.len() + 1;
    }
    None
}

/// Takes the files of a Delta table for those that lie in its folder: some of them are no longer its data.
async fn delta_files(stores: &Stores, location: &Location, log: &str, found: &mut Found) -> Result<DeltaListing> {
    if log != DELTA_LOG || found.base != location.path().as_ref() {
        return Err(Error::Delta {
            reason: format!("there is a Delta table among the files, see {}", printable(log)),
            file: location.to_string(),
            cure: "give the folder of each table as a location of its own".to_owned(),
            source: None,
        });
    }
    DeltaListing::of(stores, location, found).await
}

pub(crate) fn no_input(location: &Location, reason: impl Into<String>, cure: &str) -> Error {
    Error::NoInput { reason: reason.into(), file: location.to_string(), cure: cure.to_owned() }
}

async fn local(location: &Location, kind: FileKind) -> Result<Found> {
    let location = location.clone();
    tokio::task::spawn_blocking(move || local_walk::find(&location, kind))
        .await
        .map_err(|e| Error::Bug { reason: "listing a folder was cut short".to_owned(), source: Some(Box::new(e)) })?
}

async fn remote(store: &dyn ObjectStore, location: &Location, kind: FileKind) -> Result<Found> {
    let name = location.to_string();
    if !location.is_prefix() {
        match store.head(location.path()).await {
            Ok(meta) => {
                let base = location.path().as_ref().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                return Ok(Found {
                    paths: BTreeMap::from([(meta.location.clone(), Some(meta))]),
                    ignored: 0,
                    base,
                    delta_log: None,
                });
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store_error("HEAD", &name, error)),
        }
    }
    let folder = list(store, location.path(), &name).await?;
    let (base, objects, pattern) = if folder.is_empty()
        && let Some(pattern) = Pattern::parse(location)?
    {
        let base = Path::parse(&pattern.base).unwrap_or_default();
        (pattern.base.clone(), list(store, &base, &name).await?, Some(pattern))
    } else {
        (location.path().as_ref().to_owned(), folder, None)
    };
    let folders: BTreeSet<&str> = objects.iter().flat_map(|meta| ancestors(meta.location.as_ref())).collect();
    let mut found = Found { paths: BTreeMap::new(), ignored: 0, base, delta_log: None };
    for meta in &objects {
        let path = meta.location.as_ref();
        let Some(relative) = below(path, &found.base) else { continue };
        // The key `folder/` of 0 bytes stands for the folder itself; its slash is lost in the listing.
        if meta.size == 0 && (relative.is_empty() || folders.contains(path)) {
            continue;
        }
        let named = match pattern.as_ref().map(|pattern| pattern.takes(relative)) {
            None => false,
            Some(Some(named)) => named,
            Some(None) => continue,
        };
        if let Some(log) = delta_log(relative) {
            found.delta_log.get_or_insert_with(|| log.to_owned());
        }
        if is_hidden(relative) || !(named || kind.takes(relative)) || (meta.size == 0 && is_marker(relative)) {
            found.ignored += 1;
        } else {
            found.paths.insert(meta.location.clone(), Some(meta.clone()));
        }
    }
    Ok(found)
}

async fn list(store: &dyn ObjectStore, prefix: &Path, name: &str) -> Result<Vec<ObjectMeta>> {
    let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
    store.list(prefix).try_collect().await.map_err(|e| store_error("LIST", name, e))
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

/// What follows `base/` in a path.
fn below<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    if base.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Whether a path, relative to what was listed, is none of the user's data.
pub(crate) fn is_hidden(relative: &str) -> bool {
    let hidden_part = |part: &str| part.starts_with('.') || (part.starts_with('_') && !part.contains('='));
    let name = relative.rsplit('/').next().unwrap_or_default();
    // `name#1` is a file that object_store is still writing.
    let staged = name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    relative.split('/').any(hidden_part) || name.ends_with(".crc") || staged
}

/// An empty object without extension is the mark of an empty folder, unless it is named as a part of a data set.
fn is_marker(relative: &str) -> bool {
    let name = relative.rsplit('/').next().unwrap_or_default();
    !name.contains('.') && !name.starts_with("part-")
}

fn partitions(relative: &str) -> Vec<(String, Option<String>)> {
    let plain = |text: &str| decode(text).unwrap_or_else(|_| text.to_owned());
    ancestors(relative)
        .filter_map(|folder| folder.rsplit('/').next()?.split_once('='))
        .map(|(key, value)| (plain(key), (value != HIVE_NULL).then(|| plain(value))))
        .collect()
}
