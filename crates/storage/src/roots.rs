//! The places that stores may be asked about, when whoever asks is not trusted with the whole machine.

use std::fmt;
use std::io::ErrorKind as IoErrorKind;
use std::ops::Range;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};

use crate::{Error, Location, Result};

/// Files, folders and prefixes that may be read and, if so said, written. Nothing else of their stores is reached.
///
/// Local paths are compared after all links in them are followed, on both sides: a link out of a root, `..` and
/// `/proc/self/root` lead nowhere.
#[derive(Clone, Debug)]
pub struct Roots {
    places: Vec<Place>,
    writable: bool,
}

#[derive(Clone, Debug)]
enum Place {
    /// A path without links.
    Local(PathBuf),
    Remote(Location),
}

/// A place outside the roots, or a change that was not allowed; travels through `object_store` as a source.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Refused {
    pub(crate) reason: &'static str,
    pub(crate) file: String,
    pub(crate) cure: &'static str,
}

impl Roots {
    /// These places may be read.
    #[must_use]
    pub fn new(locations: impl IntoIterator<Item = Location>) -> Self {
        let places = locations.into_iter().filter_map(|location| match location.local_path() {
            Some(path) => real_path(&path).map(Place::Local),
            None => Some(Place::Remote(location)),
        });
        Self { places: places.collect(), writable: false }
    }

    /// Whether they may be written as well.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// # Errors
    /// [`Error::Policy`] for a location outside the roots.
    pub fn check(&self, location: &Location) -> Result<()> {
        self.allow(location).map_err(Error::from)
    }

    fn allow(&self, location: &Location) -> Result<(), Refused> {
        let inside = match location.local_path() {
            Some(path) => real_path(&path).is_some_and(|real| {
                self.places.iter().any(|place| matches!(place, Place::Local(root) if real.starts_with(root)))
            }),
            None => self.places.iter().any(|place| matches!(place, Place::Remote(root) if root.contains(location))),
        };
        if inside {
            return Ok(());
        }
        let reason = "the location is outside of what SQL may read here";
        Err(Refused { reason, file: location.to_string(), cure: "name it or a folder above it with --root" })
    }
}

impl From<Refused> for Error {
    fn from(Refused { reason, file, cure }: Refused) -> Self {
        Self::Policy { reason, file, cure }
    }
}

/// The path without links; what does not exist yet stays as it is. None for a link that leads nowhere.
fn real_path(path: &LocalPath) -> Option<PathBuf> {
    for above in path.ancestors() {
        match above.canonicalize() {
            Ok(real) => {
                let rest = path.strip_prefix(above).ok()?;
                // A path that ends in a slash is another path to the kernel.
                return Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            Err(error) if error.kind() == IoErrorKind::NotFound && above.symlink_metadata().is_ok() => return None,
            // What cannot be looked into cannot be opened either.
            Err(_) => {}
        }
    }
    None
}

/// A store that answers for the roots alone.
pub(crate) struct Guarded {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The location of the whole store.
    pub(crate) base: Location,
    pub(crate) roots: Roots,
}

impl Guarded {
    fn readable(&self, path: &Path) -> object_store::Result<()> {
        self.base.sibling(path).map_err(refused).and_then(|location| self.roots.allow(&location).map_err(refused))
    }

    fn writable(&self, path: &Path) -> object_store::Result<()> {
        if !self.roots.writable {
            let reason = "SQL may not write here";
            let file = self.base.sibling(path).map_or_else(|_| "unknown".to_owned(), |location| location.to_string());
            return Err(refused(Refused { reason, file, cure: "add --allow-copy if it shall" }));
        }
        self.readable(path)
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "roots", source: Box::new(error) }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({})", self.base)
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Guarded {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.writable(location)?;
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.writable(location)?;
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.readable(location)?;
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.readable(location)?;
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let own = Self { store: Arc::clone(&self.store), base: self.base.clone(), roots: self.roots.clone() };
        let checked = locations.and_then(move |path| futures::future::ready(own.writable(&path).map(|()| path)));
        self.store.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.readable(prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.store.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.readable(prefix.unwrap_or(&Path::default()))?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.readable(from)?;
        self.writable(to)?;
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.writable(from)?;
        self.writable(to)?;
        self.store.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use object_store::ObjectStoreExt;
    use proptest::prelude::*;

    use super::*;
    use crate::Stores;

    /// A root with a file, beside a file that is not for SQL, and links from the root to it.
    fn folders() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("root/deep")).unwrap();
        std::fs::create_dir_all(base.join("root-2")).unwrap();
        for name in ["root/in", "root/deep/in", "root-2/out", "out"] {
            std::fs::write(base.join(name), name).unwrap();
        }
        for (link, target) in [
            ("root/file", "out"),
            ("root/folder", "root-2"),
            ("root/up", "."),
            ("way-in", "root/deep"),
            ("root/nowhere", "none"),
        ] {
            std::os::unix::fs::symlink(base.join(target), base.join(link)).unwrap();
        }
        (dir, base)
    }

    fn within(root: &LocalPath) -> Roots {
        Roots::new([Location::parse(root.to_str().unwrap()).unwrap()])
    }

    #[test]
    fn p30_links_dots_and_proc_lead_out_of_no_root() {
        let (_dir, base) = folders();
        let roots = within(&base.join("root"));
        let allowed = |text: &str| {
            let text = text.replace("BASE", base.to_str().unwrap());
            Location::parse(&text).is_ok_and(|location| roots.check(&location).is_ok())
        };
        for text in [
            "BASE/root",
            "BASE/root/in",
            "file://BASE/root/in",
            "BASE/root/deep/../new/x",
            "BASE/way-in/in",
            "BASE/root/up/root/in",
        ] {
            assert!(allowed(text), "{text}");
        }
        for text in [
            "BASE",
            "BASE/out",
            "BASE/root-2/out",
            "BASE/root/../out",
            "file://BASE/root/%2e%2e/out",
            "BASE/root/file",
            "BASE/root/folder/out",
            "BASE/root/folder/new",
            "BASE/root/nowhere",
            "BASE/root/up/out",
            "BASE/way-in/../../out",
            "/proc/self/rootBASE/out",
            "/proc/self/root/etc/passwd",
            "/etc/passwd",
            "/",
            "s3://lake/x",
            "memory:///x",
        ] {
            assert!(!allowed(text), "{text}");
        }
    }

    #[test]
    fn p30_a_prefix_of_a_bucket_opens_no_other_name_and_no_other_bucket() {
        let roots = Roots::new([Location::parse("s3://lake/in").unwrap()]);
        let allowed = |text: &str| roots.check(&Location::parse(text).unwrap()).is_ok();
        assert!(allowed("s3://lake/in") && allowed("s3a://lake/in/x"));
        for text in ["s3://lake/", "s3://lake/inside", "s3://lake/other", "s3://lake2/in/x", "/in", "memory:///in"] {
            assert!(!allowed(text), "{text}");
        }
    }

    #[tokio::test]
    async fn p30_a_guarded_store_neither_reads_nor_writes_outside() {
        let (_dir, base) = folders();
        let text = |name: &str| Location::parse(base.join(name).to_str().unwrap()).unwrap();
        let stores = Stores::from_env().within(within(&base.join("root")));
        let store = stores.store(&text("root/in")).unwrap();
        assert_eq!(store.get(text("root/in").path()).await.unwrap().bytes().await.unwrap(), "root/in");
        assert!(stores.store(&text("out")).is_err());
        for name in ["out", "root/file", "root/folder/out", "root-2/out"] {
            let error = store.get(text(name).path()).await.unwrap_err();
            let error = crate::from_object_store(&error);
            assert!(error.to_string().starts_with("ERR_SQL_POLICY: "), "{error}");
            assert_eq!(error.kind(), crate::ErrorKind::BadInput);
        }
        assert!(store.list(None).next().await.unwrap().is_err());
        assert!(store.list(Some(text("root-2").path())).next().await.unwrap().is_err());
        assert!(store.put(text("root/new").path(), "x".into()).await.is_err());
        assert!(store.delete(text("root/in").path()).await.is_err());
        assert!(base.join("root/in").exists() && !base.join("root/new").exists());

        let stores = Stores::from_env().within(within(&base.join("root")).writable(true));
        let store = stores.store(&text("root/in")).unwrap();
        store.put(text("root/new").path(), "x".into()).await.unwrap();
        assert!(store.copy(text("root/new").path(), text("copy").path()).await.is_err());
        assert!(store.rename(text("root/new").path(), text("root/folder/new").path()).await.is_err());
        assert!(store.put(text("root/file").path(), "x".into()).await.is_err());
        assert!(store.delete(text("out").path()).await.is_err());
        assert_eq!(std::fs::read_to_string(base.join("out")).unwrap(), "out");
        assert!(!base.join("copy").exists() && !base.join("root-2/new").exists());
    }

    proptest! {
        /// Whatever is allowed lies, once opened, below the root.
        #[test]
        fn p30_what_is_allowed_is_below_the_root(
            parts in prop::collection::vec(
                prop::sample::select(vec!["..", ".", "root", "deep", "folder", "file", "up", "in", "out", "root-2", "way-in", "nowhere", "%2e%2e", "new"]),
                1..7,
            ),
            url in any::<bool>(),
        ) {
            let (_dir, base) = folders();
            let roots = within(&base.join("root"));
            let path = format!("{}/root/{}", base.display(), parts.join("/"));
            let text = if url { format!("file://{path}") } else { path };
            if let Ok(location) = Location::parse(&text)
                && roots.check(&location).is_ok()
                && let Ok(real) = location.local_path().unwrap().canonicalize()
            {
                prop_assert!(real.starts_with(base.join("root")), "{} -> {}", text, real.display());
            }
        }
    }
}
