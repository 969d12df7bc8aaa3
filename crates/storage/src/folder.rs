//! The folder that holds the versions: the same few operations on local disk and on an object store.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::durable::{Disk, Put};
use crate::listing::DELTA_LOG;
use crate::store_error::{io_error, is_final, is_not_encrypted, store_error};
use crate::{Error, Location, Result, Stores};

/// How often a removal is tried when the connection breaks.
const REMOVALS: usize = 5;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object {
    /// Its name below the location.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// When it was last written, in milliseconds of the clock of the store.
    pub(crate) modified: i64,
}

/// A location that we own, addressed by relative names.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) location: Location,
    store: Arc<dyn ObjectStore>,
    pub(crate) disk: Option<Disk>,
}

impl Folder {
    pub(crate) fn new(stores: &Stores, location: Location) -> Result<Self> {
        let store = stores.store(&location)?;
        let disk = location.local_path().map(|root| Disk { root, durable: true });
        Ok(Self { location, store, disk })
    }

    /// A name as a person would type it.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.location.child(name).map_or_else(|_| crate::location::printable(name), |child| child.to_string())
    }

    fn path(&self, name: &str) -> Result<Path> {
        Ok(self.location.child(name)?.path().clone())
    }

    fn failed(&self, operation: &'static str, name: &str, error: object_store::Error) -> Error {
        store_error(operation, &self.shown(name), error)
    }

    /// The bytes of an object of at most `limit` bytes; `None` when there is none.
    pub(crate) async fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        let result = match self.store.get_opts(&self.path(name)?, GetOptions::default()).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("GET", name, error)),
        };
        if result.meta.size > limit {
            let reason = format!("the object has {} bytes, the limit is {limit}", result.meta.size);
            let cure = "restore the object".to_owned();
            return Err(Error::Commit { reason, file: self.shown(name), cure, source: None });
        }
        result.bytes().await.map(Some).map_err(|e| self.failed("GET", name, e))
    }

    /// The size of an object; `None` when there is none.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.store.head(&self.path(name)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("HEAD", name, error)),
        }
    }

    /// The last parts of the names below a folder; on local disk, what is being written there is left out.
    pub(crate) async fn names(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = self.path(folder)?;
        let listed = self.store.list(Some(&prefix)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|e| self.failed("LIST", folder, e))?;
        Ok(listed.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect())
    }

    /// When an object was last written, in milliseconds of the clock of the store; `None` when there is none.
    pub(crate) async fn modified(&self, name: &str) -> Result<Option<i64>> {
        match self.store.head(&self.path(name)?).await {
            Ok(meta) => Ok(Some(meta.last_modified.timestamp_millis())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("HEAD", name, error)),
        }
    }

    /// Everything below a folder; on local disk also what `object_store` hides, such as the remains of a killed upload.
    pub(crate) async fn objects(&self, folder: &str) -> Result<Vec<Object>> {
        if let Some(disk) = self.disk.clone() {
            let folder = folder.to_owned();
            return blocking(move || disk.files(&folder)).await;
        }
        let (prefix, base) = (self.path(folder)?, self.location.path().clone());
        let listed = self.store.list(Some(&prefix)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|e| self.failed("LIST", folder, e))?;
        let below = |path: &Path| {
            let base = base.as_ref();
            if base.is_empty() {
                Some(path.to_string())
            } else {
                Some(path.as_ref().strip_prefix(base)?.strip_prefix('/')?.to_owned())
            }
        };
        let mut objects: Vec<Object> = listed
            .iter()
            .filter_map(|meta| {
                let modified = meta.last_modified.timestamp_millis();
                Some(Object { name: below(&meta.location)?, bytes: meta.size, modified })
            })
            .collect();
        // A listing may repeat an object.
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        objects.dedup_by(|a, b| a.name == b.name);
        Ok(objects)
    }

    /// Removes an object that is known to be no part of any version; it is no error when it is gone already.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        if let Some(disk) = self.disk.clone() {
            let name = name.to_owned();
            return blocking(move || disk.delete(&name)).await;
        }
        match self.store.delete(&self.path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("DELETE", name, error)),
        }
    }

    /// Whether a Delta table lies here.
    pub(crate) async fn has_delta_log(&self) -> Result<bool> {
        Ok(!self.names(DELTA_LOG).await?.is_empty())
    }

    /// One object that is there although `ours` is not: the location belongs to someone else.
    pub(crate) async fn foreign(&self, ours: &str) -> Result<Option<String>> {
        if let Some(disk) = &self.disk {
            let entries = match std::fs::read_dir(&disk.root) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(io_error("list", &self.location.to_string(), 0, e)),
            };
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let names: Vec<String> = names.collect();
            let is_ours = names.is_empty() || names.iter().any(|name| name == ours);
            return Ok(if is_ours { None } else { names.into_iter().min() });
        }
        let own = self.path(ours)?;
        let first = |prefix: Path| async move {
            let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
            self.store.list(prefix.as_ref()).next().await.transpose().map_err(|e| self.failed("LIST", ours, e))
        };
        if first(own.clone()).await?.is_some() {
            return Ok(None);
        }
        // Another run may have begun since.
        let other = first(self.location.path().clone()).await?.filter(|meta| !meta.location.prefix_matches(&own));
        Ok(other.map(|meta| crate::location::printable(meta.location.filename().unwrap_or_default())))
    }

    /// Creates an object unless its name is taken.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Put {
        if let Some(disk) = self.disk.clone() {
            let name = name.to_owned();
            let created = tokio::task::spawn_blocking(move || disk.create(&name, &bytes)).await;
            return created.unwrap_or_else(|e| Put::Unclear(cut_short(e)));
        }
        let path = match self.path(name) {
            Ok(path) => path,
            Err(error) => return Put::Refused(error),
        };
        match self.store.put_opts(&path, PutPayload::from_bytes(bytes), PutMode::Create.into()).await {
            Ok(_) => Put::Created,
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Put::Exists,
            Err(error) if is_not_encrypted(&error) => Put::NotDurable(self.failed("PUT", name, error)),
            Err(error) if is_final(&error) => Put::Refused(self.failed("PUT", name, error)),
            Err(error) => Put::Unclear(self.failed("PUT", name, error)),
        }
    }

    /// Writes an object of a run.
    pub(crate) async fn write(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.disk.clone() {
            Some(disk) => {
                let name = name.to_owned();
                blocking(move || disk.write(&name, &bytes)).await
            }
            None => self.put(name, bytes).await,
        }
    }

    /// Writes or replaces a hint.
    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.disk.clone() {
            Some(disk) => {
                let name = name.to_owned();
                blocking(move || disk.replace(&name, &bytes)).await
            }
            None => self.put(name, bytes).await,
        }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&self.path(name)?, PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(|e| self.failed("PUT", name, e))
    }

    /// Removes objects; what cannot be removed stays.
    pub(crate) async fn remove(&self, names: Vec<String>) {
        if let Some(disk) = self.disk.clone() {
            let _ = tokio::task::spawn_blocking(move || disk.remove(&names)).await;
            return;
        }
        for name in names {
            let Ok(path) = self.path(&name) else { continue };
            for tries in 1..=REMOVALS {
                match self.store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => break,
                    Err(error) if is_final(&error) || tries == REMOVALS => {
                        let error = self.failed("DELETE", &name, error);
                        tracing::debug!(%error, "a file of an abandoned run stays");
                        break;
                    }
                    // Several at once are removed by one request, which object_store does not repeat.
                    Err(_) => {}
                }
            }
        }
    }

    /// Puts the names of files on disk, where the store is a disk.
    pub(crate) async fn sync(&self, names: Vec<String>) -> Result<()> {
        match self.disk.clone() {
            Some(disk) => blocking(move || disk.sync_folders(names.iter().map(String::as_str))).await,
            None => Ok(()),
        }
    }

    /// Puts an object that another writer wrote on disk, where the store is a disk.
    pub(crate) async fn sync_object(&self, name: &str) -> Result<()> {
        let Some(disk) = self.disk.clone() else { return Ok(()) };
        let name = name.to_owned();
        let synced = move || {
            let path = disk.path(&name);
            let file = std::fs::File::open(&path).and_then(|file| disk.sync_file(&file));
            file.map_err(|e| io_error("fsync", &path.display().to_string(), 0, e))?;
            disk.sync_folders(std::iter::once(name.as_str()))
        };
        blocking(synced).await
    }

    /// The store and the path of a name, for streaming.
    pub(crate) fn target(&self, name: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((Arc::clone(&self.store), self.path(name)?))
    }
}

/// Runs system calls where they may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(cut_short)?
}

fn cut_short(source: tokio::task::JoinError) -> Error {
    Error::Bug { reason: "work on local disk was cut short".to_owned(), source: Some(Box::new(source)) }
}
