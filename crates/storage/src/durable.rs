//! Files on local disk that are whole or absent after a power cut, private to their owner unless it was said otherwise.
//!
//! `object_store` does not call fsync, and a name that reaches the disk before its bytes is an empty file. So what we
//! write below `file://` goes through the few system calls here.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::file_mode::FileMode;
use crate::folder::Object;
use crate::store_error::io_error;
use crate::{Error, Result};

/// A folder of ours on local disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) root: PathBuf,
    /// Whether to call fsync.
    pub(crate) durable: bool,
}

/// How the creation of a name ended.
#[derive(Debug)]
pub(crate) enum Put {
    /// The name is new and has our bytes.
    Created,
    /// The store says that the name is taken, perhaps by us.
    Exists,
    /// Nothing was written, and no retry will change that.
    Refused(Error),
    /// The bytes may be there or not, or may come later.
    Unclear(Error),
    /// The name is there, but the disk did not confirm it, or the store did not encrypt it.
    NotDurable(Error),
}

impl Disk {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a folder with all above it, and puts those that are new on disk.
    pub(crate) fn make_folder(&self, name: &str) -> Result<()> {
        let folder = if name.is_empty() { self.root.clone() } else { self.path(name) };
        let failed = |e| io_error("create folder", &folder.display().to_string(), 0, e);
        let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
        new_folder(&folder).map_err(failed)?;
        // The name of a folder stands in the one above it.
        for above in missing.iter().filter_map(|path| path.parent()) {
            self.sync_folder(above).map_err(failed)?;
        }
        Ok(())
    }

    /// A new file, open for writing.
    pub(crate) fn open_new(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        let failed = |e| io_error("create file", &path.display().to_string(), 0, e);
        if let Some(folder) = path.parent() {
            new_folder(folder).map_err(failed)?;
        }
        private_file(&path).map_err(failed)
    }

    /// Writes a new file; its name is on disk only after [`sync_folders`](Self::sync_folders).
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.open_new(name)?;
        let written = file.write_all(bytes).and_then(|()| self.sync_file(&file));
        written.map_err(|e| {
            let path = self.path(name);
            let _ = std::fs::remove_file(&path);
            io_error("write", &path.display().to_string(), bytes.len() as u64, e)
        })
    }

    /// Replaces a file at once; for hints, so it is not forced to disk.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        let temporary = self.temporary(&path);
        let written = new_folder(path.parent().unwrap_or(&path))
            .and_then(|()| private_file(&temporary))
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            io_error("write", &path.display().to_string(), bytes.len() as u64, e)
        })
    }

    /// Creates a name with all its bytes, unless the name is taken: temporary file, fsync, hard link, fsync.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Put {
        let path = self.path(name);
        let temporary = self.temporary(&path);
        let put = self.link_new(&path, &temporary, bytes);
        let _ = std::fs::remove_file(&temporary);
        put
    }

    fn link_new(&self, path: &Path, temporary: &Path, bytes: &[u8]) -> Put {
        let shown = path.display().to_string();
        let failed = |e| io_error("write", &shown, bytes.len() as u64, e);
        let folder = path.parent().unwrap_or(path);
        let written = new_folder(folder).and_then(|()| {
            let mut file = private_file(temporary)?;
            file.write_all(bytes)?;
            self.sync_file(&file)
        });
        if let Err(error) = written {
            return Put::Refused(failed(error));
        }
        match std::fs::hard_link(temporary, path) {
            Ok(()) => match self.sync_folder(folder) {
                Ok(()) => Put::Created,
                Err(error) => Put::NotDurable(failed(error)),
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Put::Exists,
            Err(error) if no_links(&error) => Put::Refused(Error::StoreSetting {
                reason: "the file system has no hard links".to_owned(),
                file: shown.clone(),
                cure: "use another disk, or s3://".to_owned(),
                source: Some(Box::new(error)),
            }),
            Err(error) => match failed(error) {
                error @ Error::Store { .. } => Put::Unclear(error),
                known => Put::Refused(known),
            },
        }
    }

    /// Puts the names of files on disk: every folder from each file up to the root.
    pub(crate) fn sync_folders<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut folders = BTreeSet::from([self.root.clone()]);
        for name in names {
            let path = self.path(name);
            folders.extend(path.ancestors().skip(1).take_while(|p| *p != self.root).map(Path::to_owned));
        }
        folders.iter().rev().try_for_each(|folder| {
            self.sync_folder(folder).map_err(|e| io_error("fsync", &folder.display().to_string(), 0, e))
        })
    }

    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.durable { file.sync_all() } else { Ok(()) }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.durable { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    /// Removes files and then the folders that they leave empty below the root; what fails stays.
    pub(crate) fn remove(&self, names: &[String]) {
        let mut folders = BTreeSet::new();
        for name in names {
            let path = self.path(name);
            let _ = std::fs::remove_file(&path);
            folders.extend(path.ancestors().skip(1).take_while(|p| *p != self.root).map(Path::to_owned));
        }
        for folder in folders.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Removes a file and the folders that it leaves empty below the root.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(io_error("remove", &path.display().to_string(), 0, error))
            }
            _ => {
                self.remove(&[name.to_owned()]);
                Ok(())
            }
        }
    }

    /// The files below a folder, whatever their names. Links are not followed: what they lead to is not ours.
    pub(crate) fn files(&self, folder: &str) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let path = self.path(&folder);
            let failed = |e| io_error("list", &path.display().to_string(), 0, e);
            let entries = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                // Another run may have removed it a moment ago.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                };
                if meta.is_dir() {
                    open.push(name);
                    continue;
                }
                let since = meta.modified().map_err(failed)?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let modified = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
                found.push(Object { name, bytes: meta.len(), modified });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// A name that readers and listings pass over.
    fn temporary(&self, path: &Path) -> PathBuf {
        path.with_file_name(format!(".{:032x}.tmp", rand::random::<u128>()))
    }
}

/// Some file systems answer a hard link with a plain "not permitted".
fn no_links(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooManyLinks | ErrorKind::PermissionDenied)
}

fn new_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, FileMode::chosen().of_folders());
    builder.create(path)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FileMode::chosen().of_files());
    options.open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn disk() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("new/out");
        let disk = Disk { root, durable: true };
        disk.make_folder("").unwrap();
        (dir, disk)
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_we_make_is_private() {
        let (_dir, disk) = disk();
        disk.write("a/b/data", b"x").unwrap();
        assert!(matches!(disk.create("c/1.json", b"x"), Put::Created));
        disk.replace("latest.json", b"x").unwrap();
        disk.sync_folders(["a/b/data", "c/1.json"].into_iter()).unwrap();
        for folder in ["a", "a/b", "c"] {
            assert_eq!(mode(&disk.path(folder)), 0o700, "{folder}");
        }
        assert_eq!(mode(&disk.root), 0o700);
        for file in ["a/b/data", "c/1.json", "latest.json"] {
            assert_eq!(mode(&disk.path(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn name_that_exists_keeps_its_bytes_and_no_temporary_file_stays() {
        let (_dir, disk) = disk();
        assert!(matches!(disk.create("c/1.json", b"first"), Put::Created));
        assert!(matches!(disk.create("c/1.json", b"second"), Put::Exists));
        assert!(disk.write("c/1.json", b"third").is_err());
        assert_eq!(std::fs::read(disk.path("c/1.json")).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(disk.path("c")).unwrap().count(), 1);
    }

    #[test]
    fn replaced_file_has_only_the_new_bytes() {
        let (_dir, disk) = disk();
        disk.replace("latest.json", b"long first text").unwrap();
        disk.replace("latest.json", b"second").unwrap();
        assert_eq!(std::fs::read(disk.path("latest.json")).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(&disk.root).unwrap().count(), 1);
    }

    #[test]
    fn removal_stops_at_the_root_and_at_folders_in_use() {
        let (_dir, disk) = disk();
        disk.write("a/b/x", b"x").unwrap();
        disk.write("a/y", b"y").unwrap();
        disk.remove(&["a/b/x".to_owned(), "a/none".to_owned()]);
        assert!(!disk.path("a/b").exists() && disk.path("a/y").exists());
        disk.remove(&["a/y".to_owned()]);
        assert!(disk.root.exists() && !disk.path("a").exists());
    }

    #[test]
    fn device_without_space_is_a_full_disk_with_path_and_bytes() {
        let (_dir, disk) = disk();
        std::os::unix::fs::symlink("/dev/full", disk.path("full")).unwrap();
        let mut full = OpenOptions::new().write(true).open(disk.path("full")).unwrap();
        let error = full.write_all(b"x").unwrap_err();
        let error = io_error("write", "/out/part", 1, error);
        assert!(error.to_string().starts_with("ERR_DISK_FULL: write of 1 bytes failed"), "{error}");
    }
}
