//! One file under a name that a person chose: created once, never overwritten.

use bytes::Bytes;
use object_store::path::Path;

use crate::durable::Put;
use crate::folder::Folder;
use crate::{Error, Location, Result, Stores};

/// Largest file that is compared with what was to be written.
const COMPARED: u64 = 64 << 20;

/// How the writing of a new file ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewFile {
    /// It was not there and is now.
    Written,
    /// It was there with the same bytes: an earlier run wrote it.
    AlreadyThere,
}

/// Refuses a name that is taken by something else than an earlier result of the same kind, before any work is done.
///
/// `marker` is a text that every result of the kind holds.
///
/// # Errors
/// [`Error::OutputExists`]; what the store answered.
pub async fn check_new_file(stores: &Stores, location: &Location, marker: &str) -> Result<()> {
    let (folder, name) = place(stores, location)?;
    if folder.disk.as_ref().is_some_and(|disk| disk.path(&name).is_dir()) {
        return Err(taken(location));
    }
    match folder.size(&name).await? {
        None => Ok(()),
        Some(size) if size > COMPARED => Err(taken(location)),
        Some(_) => {
            let found = folder.read(&name, COMPARED).await?.unwrap_or_default();
            let marked = found.windows(marker.len().max(1)).any(|window| window == marker.as_bytes());
            if marked { Ok(()) } else { Err(taken(location)) }
        }
    }
}

/// Creates a file with all its bytes in one step; a run that finds its own bytes there has nothing to do.
///
/// # Errors
/// [`Error::OutputExists`] when the name is taken by other bytes, which stay as they are; what the store or the disk
/// answered.
pub async fn write_new_file(stores: &Stores, location: &Location, bytes: Bytes) -> Result<NewFile> {
    let (folder, name) = place(stores, location)?;
    let unclear = match folder.create(&name, bytes.clone()).await {
        Put::Created => return Ok(NewFile::Written),
        Put::Refused(error) | Put::NotDurable(error) => return Err(error),
        Put::Exists => None,
        Put::Unclear(error) => Some(error),
    };
    // A false "exists" for our own write and a lost answer look the same: the bytes tell.
    let same_size = folder.size(&name).await?.is_some_and(|size| size == bytes.len() as u64);
    if same_size && folder.read(&name, bytes.len() as u64).await?.is_some_and(|found| found == bytes) {
        return Ok(NewFile::AlreadyThere);
    }
    Err(unclear.unwrap_or_else(|| taken(location)))
}

fn place(stores: &Stores, location: &Location) -> Result<(Folder, String)> {
    let path = location.path();
    let name = path.filename().filter(|_| !location.is_prefix()).ok_or_else(|| Error::Location {
        reason: format!("{location} names a folder where a file is needed"),
        cure: "add the name of a file".to_owned(),
    })?;
    let parts = path.parts().count().saturating_sub(1);
    let above = path.parts().take(parts).collect::<Path>();
    Ok((Folder::new(stores, location.sibling(&above)?)?, name.to_owned()))
}

fn taken(location: &Location) -> Error {
    Error::OutputExists(location.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn contract(stores: &Stores, location: &Location) {
        let write = |text: &'static str| write_new_file(stores, location, Bytes::from_static(text.as_bytes()));
        check_new_file(stores, location, "mine").await.unwrap();
        assert_eq!(write("mine: 1").await.unwrap(), NewFile::Written);
        assert_eq!(write("mine: 1").await.unwrap(), NewFile::AlreadyThere);
        check_new_file(stores, location, "mine").await.unwrap();
        for other in ["mine: 2", "mine: 10", ""] {
            let error = write(other).await.unwrap_err();
            assert!(matches!(error, Error::OutputExists(_)), "{error}");
        }
        let error = check_new_file(stores, location, "yours").await.unwrap_err();
        assert!(
            error.to_string().starts_with("ERR_OUTPUT_EXISTS: ") && error.to_string().contains("a b.json"),
            "{error}"
        );
        assert_eq!(crate::read_small(stores, location, 100).await.unwrap(), "mine: 1");
    }

    #[tokio::test]
    async fn a_new_file_is_written_once_in_memory_and_on_disk() {
        let stores = Stores::in_memory();
        contract(&stores, &Location::parse("memory:///new/a b.json").unwrap()).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a b.json");
        contract(&stores, &Location::parse(&path.display().to_string()).unwrap()).await;
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_folder_is_no_place_for_a_file() {
        let stores = Stores::in_memory();
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(&folder.path().display().to_string()).unwrap();
        assert!(check_new_file(&stores, &location, "x").await.is_err());
        assert!(write_new_file(&stores, &location, Bytes::from_static(b"x")).await.is_err());
        let prefix = Location::parse("memory:///reports/").unwrap();
        assert!(matches!(check_new_file(&stores, &prefix, "x").await, Err(Error::Location { .. })));
    }
}
