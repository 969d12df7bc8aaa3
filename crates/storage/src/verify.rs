//! Comparing what is there with what was committed, byte by byte.

use std::io::Read;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::folder::blocking;
use crate::manifest::hex;
use crate::store_error::{io_error, store_error};
use crate::{Error, ErrorKind, FileEntry, Result, Versions};

/// Bytes read at once from local disk.
const CHUNK: usize = 1 << 20;
/// Files hashed at once.
const FILES_AT_ONCE: usize = 4;

/// What a comparison found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The versions whose files were compared.
    pub versions: Vec<u64>,
    /// Files whose size and SHA-256 are those of the commit.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All kept versions; each one's link to the commit before it was checked.
    pub chain: Vec<u64>,
    /// What is damaged, one error each.
    pub faults: Vec<Error>,
}

impl Versions {
    /// Compares the files of a version (of the newest, or of every kept one with `all`) with their sizes and SHA-256, and
    /// the commits with each other.
    ///
    /// Damage is no error here but a fault in the result, so that all of it is found.
    ///
    /// # Errors
    /// [`Error::NoVersion`]; a gap in the numbers; a store that does not answer.
    ///
    /// # Cost
    /// Every byte of the files is read; a few megabytes of memory.
    pub async fn verify(&self, version: Option<u64>, all: bool) -> Result<Verified> {
        let chain = self.numbers().await?;
        let newest = match chain.last() {
            Some(newest) => *newest,
            None => self.resolve(None).await?.version,
        };
        let asked = version.unwrap_or(newest);
        if !chain.contains(&asked) {
            self.read(asked).await?;
        }
        let mut found = Verified { chain, ..Verified::default() };
        for number in found.chain.clone() {
            let commit = match self.read_in_chain(number).await {
                Ok(commit) => commit,
                Err(error @ Error::Commit { .. }) => {
                    found.faults.push(error);
                    // A broken link says nothing about the files.
                    match self.read(number).await {
                        Ok(commit) => commit,
                        Err(Error::Commit { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            };
            if !all && number != asked {
                continue;
            }
            found.versions.push(number);
            let compared = futures::stream::iter(commit.files)
                .map(|entry| async move { (self.verify_file(&entry).await, entry.bytes) })
                .buffered(FILES_AT_ONCE)
                .collect::<Vec<_>>()
                .await;
            for (compared, bytes) in compared {
                match compared {
                    Ok(()) => {
                        found.files += 1;
                        found.bytes = found.bytes.saturating_add(bytes);
                    }
                    Err(error)
                        if error.kind() == ErrorKind::BadInput && !matches!(error, Error::StoreDenied { .. }) =>
                    {
                        found.faults.push(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    /// Compares one file with its size and SHA-256 without holding it.
    pub(crate) async fn verify_file(&self, entry: &FileEntry) -> Result<()> {
        self.check_file(entry).await?;
        let (bytes, found) = match self.folder.disk.clone() {
            Some(disk) => {
                let (path, shown) = (disk.path(&entry.path), self.folder.shown(&entry.path));
                blocking(move || hash_local(&path).map_err(|e| io_error("read", &shown, 0, e))).await?
            }
            None => self.hash_remote(&entry.path).await?,
        };
        self.check_size(entry, bytes)?;
        if found == entry.sha256 { Ok(()) } else { Err(self.other_bytes(entry)) }
    }

    async fn hash_remote(&self, name: &str) -> Result<(u64, String)> {
        use object_store::ObjectStoreExt;
        let (store, path) = self.folder.target(name)?;
        let failed = |error| store_error("GET", &self.folder.shown(name), error);
        let mut chunks = store.get(&path).await.map_err(failed)?.into_stream();
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
            bytes = bytes.saturating_add(chunk.len() as u64);
            hash.update(&chunk);
        }
        Ok((bytes, hex(hash.finalize().as_slice())))
    }
}

fn hash_local(path: &std::path::Path) -> std::io::Result<(u64, String)> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0_u64, vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((bytes, hex(hash.finalize().as_slice()))),
            read => {
                bytes = bytes.saturating_add(read as u64);
                hash.update(chunk.get(..read).unwrap_or_default());
            }
        }
    }
}
