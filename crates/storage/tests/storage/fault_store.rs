//! An object store that answers wrongly on purpose.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to one PUT of a commit object, or of a list of the forgotten.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Written, then an error.
    ApplyThenError,
    /// Not written, and an error.
    ErrorWithoutApply,
    /// Written by the first try, and the retry below us gets 412 (F7a).
    ExistsForOurOwn,
    /// 409 although nothing is there (F7b).
    ExistsButNothing,
    /// Someone else's commit lands first.
    Other(Bytes),
    /// 403.
    Denied,
    /// The error comes first, the write lands later, before the next request.
    ErrorThenLateApply,
}

/// Faults for PUTs of commits, in order, and switches for the rest.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) commit_puts: VecDeque<Fault>,
    /// Used when `commit_puts` has run out.
    pub(crate) always: Option<Fault>,
    /// Faults for PUTs of lists of the forgotten, in order.
    pub(crate) list_puts: VecDeque<Fault>,
    /// GETs of commits that fail.
    pub(crate) failing_gets: usize,
    /// The store ignores `PutMode::Create`.
    pub(crate) ignores_condition: bool,
    /// Listings leave out objects whose path contains this.
    pub(crate) unlisted: Option<String>,
    pub(crate) puts_seen: usize,
    pub(crate) aborted: usize,
    pub(crate) late: Option<(Path, PutPayload)>,
    /// The clock of the store: when it began, in tokio's time, and how far it is off.
    pub(crate) clock: Option<(tokio::time::Instant, Duration)>,
    /// When objects were last written, since the clock began.
    pub(crate) written: HashMap<Path, Duration>,
}

impl Plan {
    /// A store whose clock is tokio's, so that days pass at once, and off by so much.
    pub(crate) fn with_clock(off: Duration) -> Self {
        Self { clock: Some((tokio::time::Instant::now(), off)), ..Self::default() }
    }

    fn stamp(&mut self, path: &Path) {
        if let Some((began, _)) = self.clock {
            self.written.insert(path.clone(), began.elapsed());
        }
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let (Some((_, off)), Some(at)) = (self.clock, self.written.get(&meta.location)) {
            meta.last_modified = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) + off + *at).into();
        }
        meta
    }
}

#[derive(Debug, Clone)]
pub(crate) struct FaultStore {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) plan: Arc<Mutex<Plan>>,
}

impl FaultStore {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { inner: Arc::new(InMemory::new()), plan: Arc::new(Mutex::new(plan)) }
    }

    async fn land(&self) {
        let late = self.plan.lock().unwrap().late.take();
        if let Some((path, payload)) = late {
            let _ = self.inner.put_opts(&path, payload, PutMode::Create.into()).await;
        }
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

fn reset() -> Error {
    Error::Generic { store: "fault", source: "connection reset by peer".into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "412".into() }
}

fn is_commit(path: &Path) -> bool {
    path.as_ref().contains("_item_affinity/commits/")
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut opts: PutOptions) -> Result<PutResult> {
        self.land().await;
        let fault = {
            let mut plan = self.plan.lock().unwrap();
            if plan.ignores_condition {
                opts.mode = PutMode::Overwrite;
            }
            if is_commit(location) {
                plan.puts_seen += 1;
                plan.commit_puts.pop_front().or_else(|| plan.always.clone()).unwrap_or(Fault::None)
            } else if location.as_ref().contains("_item_affinity/forgotten/") {
                plan.list_puts.pop_front().unwrap_or(Fault::None)
            } else {
                Fault::None
            }
        };
        if !matches!(fault, Fault::ErrorWithoutApply | Fault::ExistsButNothing | Fault::Denied) {
            self.plan.lock().unwrap().stamp(location);
        }
        match fault {
            Fault::None => self.inner.put_opts(location, payload, opts).await,
            Fault::ApplyThenError => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(reset())
            }
            Fault::ErrorWithoutApply => Err(reset()),
            Fault::ExistsForOurOwn => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(exists(location))
            }
            Fault::ExistsButNothing => Err(exists(location)),
            Fault::Other(bytes) => {
                self.inner.put_opts(location, PutPayload::from_bytes(bytes), PutMode::Create.into()).await?;
                self.inner.put_opts(location, payload, opts).await
            }
            Fault::Denied => Err(Error::PermissionDenied { path: location.to_string(), source: "403".into() }),
            Fault::ErrorThenLateApply => {
                self.plan.lock().unwrap().late = Some((location.clone(), payload));
                Err(reset())
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(CountedUpload { upload, plan: Arc::clone(&self.plan) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if is_commit(location) && !options.head {
            let mut plan = self.plan.lock().unwrap();
            if plan.failing_gets > 0 {
                plan.failing_gets -= 1;
                return Err(reset());
            }
        }
        let mut found = self.inner.get_opts(location, options).await;
        if let Ok(found) = &mut found {
            found.meta = self.plan.lock().unwrap().dated(found.meta.clone());
        }
        if found.is_err() {
            // A late write lands after the first look.
            self.land().await;
        }
        found
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        use futures::StreamExt;
        let unlisted = self.plan.lock().unwrap().unlisted.clone();
        let plan = Arc::clone(&self.plan);
        let listed =
            self.inner.list(prefix).map(move |meta| Ok(plan.lock().unwrap().dated(meta?))).filter(move |meta| {
                let hidden =
                    meta.as_ref().is_ok_and(|m| unlisted.as_ref().is_some_and(|u| m.location.as_ref().contains(u)));
                std::future::ready(!hidden)
            });
        // Every object comes twice, the last one first.
        let twice = listed.collect::<Vec<_>>().map(|mut metas| {
            metas.reverse();
            let again: Vec<_> = metas.iter().filter_map(|m| m.as_ref().ok().cloned()).map(Ok).collect();
            futures::stream::iter(metas.into_iter().chain(again))
        });
        use futures::FutureExt;
        twice.flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct CountedUpload {
    upload: Box<dyn MultipartUpload>,
    plan: Arc<Mutex<Plan>>,
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.plan.lock().unwrap().aborted += 1;
        self.upload.abort().await
    }
}

/// Faults off, the wrapper is a plain store.
#[tokio::test]
async fn without_faults_it_stores() {
    let store = FaultStore::new(Plan::default());
    store.put(&Path::from("a"), "x".into()).await.unwrap();
    assert_eq!(store.get(&Path::from("a")).await.unwrap().bytes().await.unwrap(), "x");
}
