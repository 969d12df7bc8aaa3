//! One object store for each scheme and bucket, built when first used.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use url::Url;

use crate::roots::{Guarded, Roots};
use crate::s3::{self, Settings};
use crate::s3_uploads::Uploads;
use crate::{Error, Location, Result};

/// The object stores of a process: local disk, S3 and, for tests, memory. Clones share the same stores.
#[derive(Clone)]
pub struct Stores(Arc<Inner>);

struct Inner {
    built: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    network: bool,
    /// Instead of the environment.
    settings: Option<Settings>,
    /// The only places that may be asked about; none: all.
    roots: Option<Roots>,
}

impl Stores {
    /// Stores configured by the environment.
    ///
    /// | Variable | Purpose |
    /// | --- | --- |
    /// | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | credentials; else web identity, container and instance metadata |
    /// | `AWS_REGION`, `AWS_DEFAULT_REGION` | region, `us-east-1` when unset |
    /// | `AWS_ENDPOINT`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3` | another server that speaks S3 |
    /// | `AWS_ALLOW_HTTP` | `true` allows plain http to a server that is not on this machine |
    /// | `AWS_SKIP_SIGNATURE` | `true` reads public buckets without credentials |
    /// | `AWS_TIMEOUT`, `AWS_CONNECT_TIMEOUT` | time of one request, `30 seconds`, and of its connection, `5 seconds`, when unset |
    /// | `AWS_VIRTUAL_HOSTED_STYLE_REQUEST` | `true` puts the bucket into the host name |
    /// | `AWS_SERVER_SIDE_ENCRYPTION`, `AWS_SSE_KMS_KEY_ID`, `AWS_SSE_BUCKET_KEY_ENABLED` | `AES256`, `aws:kms` or `aws:kms:dsse`: every write asks for it, and an answer that does not say that it was done is an error |
    /// | `AWS_SSE_CUSTOMER_KEY_BASE64` | with `AWS_SERVER_SIDE_ENCRYPTION=sse-c`, the key of the customer; over https alone |
    /// | `ITEM_AFFINITY_RETRY_TIMEOUT` | seconds after which a request is no longer retried, 180 when unset |
    #[must_use]
    pub fn from_env() -> Self {
        Self(Arc::new(Inner { built: Mutex::default(), network: true, settings: None, roots: None }))
    }

    /// Sets the total time for which stores of this process retry a request, where `ITEM_AFFINITY_RETRY_TIMEOUT` does not
    /// say it. The first call counts.
    pub fn retry_for(timeout: Duration) {
        s3::RETRY_FOR.get_or_init(|| timeout);
    }

    /// Stores configured by these settings, by the names that [`from_env`](Self::from_env) gives, and by nothing else.
    #[must_use]
    pub fn with_settings<N: Into<String>, V: Into<String>>(settings: impl IntoIterator<Item = (N, V)>) -> Self {
        let settings = settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self(Arc::new(Inner { built: Mutex::default(), network: true, settings: Some(settings), roots: None }))
    }

    /// Local disk and one shared `memory://` store; nothing that needs a network.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner { built: Mutex::default(), network: false, settings: None, roots: None }))
    }

    /// The same stores, newly built, for these places alone.
    #[must_use]
    pub fn within(&self, roots: Roots) -> Self {
        let (network, settings) = (self.0.network, self.0.settings.clone());
        Self(Arc::new(Inner { built: Mutex::default(), network, settings, roots: Some(roots) }))
    }

    /// Uses `store` for a scheme and bucket from now on.
    ///
    /// Commits below `file://` do not go through it: they need system calls that no object store has.
    pub fn register(&self, store_url: &Url, store: Arc<dyn ObjectStore>) {
        self.built().insert(key(store_url), store);
    }

    /// The store of a location.
    ///
    /// # Errors
    /// When the environment does not describe a usable store; [`Error::Policy`] outside the places of
    /// [`within`](Self::within).
    pub fn store(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        if let Some(roots) = &self.0.roots {
            roots.check(location)?;
        }
        self.store_for_url(location.url())
    }

    /// The store of a URL with scheme `file`, `s3`, `s3a` or `memory`.
    ///
    /// # Errors
    /// [`Error::Location`] for another scheme, and when the environment does not describe a usable store.
    pub fn store_for_url(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let key = key(url);
        if let Some(store) = self.built().get(&key) {
            return Ok(Arc::clone(store));
        }
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => Arc::new(LocalFileSystem::new()),
            "memory" => Arc::new(InMemory::new()),
            "s3" | "s3a" if self.0.network => s3::build(url.host_str().unwrap_or_default(), self.0.settings.as_ref())?,
            scheme => {
                return Err(Error::Location {
                    reason: format!("no store for {scheme}:// locations"),
                    cure: "give a local path, file:///path or s3://bucket/path".to_owned(),
                });
            }
        };
        let store = match &self.0.roots {
            Some(roots) => {
                Arc::new(Guarded { store, base: Location::parse(&format!("{key}/"))?, roots: roots.clone() })
            }
            None => store,
        };
        Ok(Arc::clone(self.built().entry(key).or_insert(store)))
    }

    /// The open uploads of the bucket of a location; none where a store has none.
    pub(crate) fn uploads(&self, location: &Location) -> Result<Option<Uploads>> {
        if let Some(roots) = &self.0.roots {
            roots.check(location)?;
        }
        let url = location.url();
        match url.scheme() {
            "s3" if self.0.network => {
                s3::uploads(url.host_str().unwrap_or_default(), self.0.settings.as_ref()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether another process gets the same stores from the same environment.
    pub(crate) fn are_of_the_environment(&self) -> bool {
        self.0.network && self.0.settings.is_none()
    }

    /// The total time that one operation may be retried.
    pub(crate) fn retry_timeout(&self) -> Result<Duration> {
        s3::retry_timeout(self.0.settings.as_ref())
    }

    /// The encryption that writes to a location ask for.
    pub(crate) fn encryption(&self, location: &Location) -> Option<String> {
        let remote = location.url().scheme() == "s3";
        remote.then(|| s3::encryption(self.0.settings.as_ref())).flatten()
    }

    fn built(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<dyn ObjectStore>>> {
        // The map is whole after every single call on it, so a panic elsewhere does not spoil it.
        self.0.built.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints no configuration: that of S3 holds secrets.
impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<String> = self.built().keys().cloned().collect();
        keys.sort();
        f.debug_tuple("Stores").field(&keys).finish()
    }
}

fn key(url: &Url) -> String {
    let scheme = if url.scheme() == "s3a" { "s3" } else { url.scheme() };
    format!("{scheme}://{}", url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_store_serves_all_paths_of_a_bucket() {
        let stores = Stores::in_memory();
        let a = stores.store(&Location::parse("memory:///a").unwrap()).unwrap();
        let b = stores.clone().store(&Location::parse("memory:///b/c").unwrap()).unwrap();
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn registered_store_is_used_for_both_spellings_of_s3() {
        let stores = Stores::in_memory();
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        stores.register(&Url::parse("s3://lake/").unwrap(), Arc::clone(&memory));
        let found = stores.store_for_url(&Url::parse("s3a://lake/x/y").unwrap()).unwrap();
        assert!(Arc::ptr_eq(&memory, &found));
        assert!(stores.store_for_url(&Url::parse("s3://other/").unwrap()).is_err());
        assert!(stores.store_for_url(&Url::parse("gs://other/").unwrap()).is_err());
        assert_eq!(format!("{stores:?}"), "Stores([\"s3://lake\"])");
    }
}
