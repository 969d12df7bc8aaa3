//! Where something is: a local path or an object in a bucket.
use crate::Result;
use object_store::path::Path;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// A file, a folder or an object: what a person typed, made absolute and checked.
#[derive(Clone, Eq, PartialEq, Hash)]
pub struct Location {
    url: Url,
    path: Path,
    prefix: bool,
}
impl Location {
    /// The location that a text names.
    pub fn parse(_text: &str) -> Result<Self> {
        todo!()
    }
    /// The whole URL.
    pub fn url(&self) -> &Url {
        &self.url
    }
    /// The URL of the store: scheme and bucket.
    pub fn store_url(&self) -> Url {
        todo!()
    }
    /// The path inside the store.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Whether it is on local disk.
    pub fn is_local(&self) -> bool {
        todo!()
    }
    /// The path on local disk.
    pub fn local_path(&self) -> Option<PathBuf> {
        todo!()
    }
    /// Something below it.
    pub fn child(&self, _relative: &str) -> Result<Location> {
        todo!()
    }
    /// Whether it was written with a `/` at the end.
    pub fn is_prefix(&self) -> bool {
        self.prefix
    }
}
impl fmt::Display for Location {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}
