//! Finding input files on local disk without opening any: a pipe must not block, a loop must not run for ever.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use object_store::path::Path as StorePath;

use crate::listing::{FileKind, Found, delta_log, is_hidden, no_input};
use crate::location::printable;
use crate::pattern::Pattern;
use crate::store_error::io_error;
use crate::{Error, Location, Result};

/// Folders inside folders; deeper ones are a loop of mounts or a mistake.
const MAX_DEPTH: usize = 64;

/// The files at a local location.
pub(crate) fn find(location: &Location, of: FileKind) -> Result<Found> {
    let path = location.local_path().unwrap_or_default();
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => walk(&path, location.path().as_ref(), None, of),
        Ok(meta) if meta.is_file() && location.is_prefix() => {
            Err(no_input(location, "this is a file, not a folder", "remove the / at the end"))
        }
        Ok(meta) if meta.is_file() => {
            let base = location.path().as_ref().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            Ok(Found { paths: BTreeMap::from([(location.path().clone(), None)]), ignored: 0, base, delta_log: None })
        }
        Ok(meta) => Err(not_a_file(&path, kind(&meta))),
        Err(_) if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) => {
            Err(not_a_file(&path, "a link that leads nowhere or to itself"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match Pattern::parse(location)? {
            Some(pattern) => {
                let base = PathBuf::from(format!("/{}", pattern.base));
                if !base.is_dir() {
                    let reason = format!("there is no folder {}", base.display());
                    return Err(no_input(location, reason, "check the path before the first wildcard"));
                }
                walk(&base, &pattern.base, Some(&pattern), of)
            }
            None => Err(no_input(location, "there is no such file or folder", "check the path")),
        },
        Err(error) => Err(io_error("stat", &location.to_string(), 0, error)),
    }
}

/// A folder to look into, its path relative to the base, and the real folders above it.
struct Folder {
    path: PathBuf,
    relative: String,
    above: Vec<PathBuf>,
}

fn walk(root: &Path, base: &str, pattern: Option<&Pattern>, of: FileKind) -> Result<Found> {
    let mut found = Found { paths: BTreeMap::new(), ignored: 0, base: base.to_owned(), delta_log: None };
    let mut open = vec![Folder { path: root.to_owned(), relative: String::new(), above: Vec::new() }];
    while let Some(folder) = open.pop() {
        let failed = |error| io_error("list", &folder.path.display().to_string(), 0, error);
        let real = folder.path.canonicalize().map_err(failed)?;
        if folder.above.contains(&real) || folder.above.len() > MAX_DEPTH {
            return Err(not_a_file(&folder.path, "a loop of links"));
        }
        for entry in std::fs::read_dir(&folder.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let relative =
                if folder.relative.is_empty() { text.to_string() } else { format!("{}/{text}", folder.relative) };
            if is_hidden(&relative) {
                if let Some(log) = delta_log(&relative) {
                    found.delta_log.get_or_insert_with(|| log.to_owned());
                }
                found.ignored += 1;
                continue;
            }
            let path = entry.path();
            let meta = std::fs::metadata(&path);
            if meta.as_ref().is_ok_and(Metadata::is_dir) {
                if pattern.is_none_or(|pattern| pattern.enters(&relative)) {
                    let above = folder.above.iter().chain([&real]).cloned().collect();
                    open.push(Folder { path, relative, above });
                }
                continue;
            }
            let named = match pattern.map(|pattern| pattern.takes(&relative)) {
                None => false,
                Some(Some(named)) => named,
                Some(None) => continue,
            };
            if !(named || of.takes(&relative)) {
                found.ignored += 1;
                continue;
            }
            match meta {
                _ if name.to_str().is_none() => return Err(not_a_file(&path, "a name that is not UTF-8")),
                Ok(meta) if meta.is_file() => {}
                Ok(meta) => return Err(not_a_file(&path, kind(&meta))),
                Err(_) => return Err(not_a_file(&path, "a link that leads nowhere or to itself")),
            }
            let full = if base.is_empty() { relative } else { format!("{base}/{relative}") };
            let full = StorePath::parse(full).map_err(|_| not_a_file(&path, "a name with control characters"))?;
            found.paths.insert(full, None);
        }
    }
    Ok(found)
}

fn not_a_file(path: &Path, what: &str) -> Error {
    Error::InputFile {
        reason: format!("this is {what}, not a regular file"),
        file: printable(&path.display().to_string()),
    }
}

#[cfg(unix)]
fn kind(meta: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "a special file",
    }
}

#[cfg(not(unix))]
fn kind(_: &Metadata) -> &'static str {
    "a special file"
}
