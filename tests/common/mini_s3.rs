//! An S3 server on loopback that answers wrongly on purpose.
//!
//! It keeps objects in memory and speaks what a client of ours says: conditional and multipart PUT, ranges, listings by
//! page, copies, deletions. A plan decides for each request how the answer goes wrong.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use item_affinity_storage::Stores;

/// Asks for encryption, and says that it was done.
pub(crate) const ENCRYPTION: &str = "x-amz-server-side-encryption";

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    None,
    /// An error instead of the work.
    Status(u16, &'static str),
    /// The work, then an error instead of its answer.
    ApplyThenStatus(u16, &'static str),
    /// The connection is reset before the work, or after it instead of an answer.
    ResetBefore,
    ResetAfter,
    /// Half of the answer, then a reset.
    HalfBody,
    /// Half of the body, then a proper end.
    CutBody,
    /// The answer with another ETag.
    OtherEtag,
    /// The work, and an answer that does not say that it was encrypted.
    NotEncrypted,
    /// The work without its conditions.
    NoConditions,
    /// A listing with each object twice, and from the last to the first.
    OddList,
    /// 200 with an error as its body, as S3 may end a multipart upload.
    ErrorIn200,
    /// The answer comes slowly, by a few bytes at a time; so many milliseconds after each.
    Drip(u64),
    /// No answer at all.
    Silence,
    /// A reset, and the work is done a moment later.
    LateApply,
    /// The address of another server on this machine instead of the work: status, host, port.
    Redirect(u16, &'static str, u16),
}

/// A request as a plan sees it.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The key of the object, without the bucket.
    pub(crate) key: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) bytes: Vec<u8>,
    etag: String,
    modified: u64,
}

struct Upload {
    key: String,
    parts: BTreeMap<u32, Vec<u8>>,
    begun: u64,
}

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    written: u64,
}

impl Kept {
    pub(crate) fn put(&mut self, key: &str, bytes: Vec<u8>) -> String {
        self.written += 1;
        let etag = format!("\"{:032x}\"", self.written);
        self.objects.insert(key.to_owned(), Object { bytes, etag: etag.clone(), modified: now() });
        etag
    }

    /// Makes everything so many seconds older.
    pub(crate) fn age(&mut self, seconds: u64) {
        self.objects.values_mut().for_each(|object| object.modified -= seconds);
        self.uploads.values_mut().for_each(|upload| upload.begun -= seconds);
    }

    pub(crate) fn open_uploads(&self) -> usize {
        self.uploads.len()
    }
}

type Plan = Box<dyn FnMut(&Asked, &mut Kept) -> Fault + Send>;

struct State {
    kept: Mutex<Kept>,
    plan: Mutex<Plan>,
    fired: Mutex<BTreeMap<String, u64>>,
    requests: AtomicU64,
    stopped: AtomicBool,
}

pub(crate) struct MiniS3 {
    port: u16,
    state: Arc<State>,
}

impl MiniS3 {
    pub(crate) const BUCKET: &str = "lake";

    pub(crate) fn start(plan: impl FnMut(&Asked, &mut Kept) -> Fault + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State {
            kept: Mutex::default(),
            plan: Mutex::new(Box::new(plan)),
            fired: Mutex::default(),
            requests: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let state = Arc::clone(&accepting);
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        Self { port, state }
    }

    /// Answers rightly from now on.
    pub(crate) fn heal(&self) {
        *self.state.plan.lock().unwrap() = Box::new(|_, _| Fault::None);
    }

    pub(crate) fn plan(&self, plan: impl FnMut(&Asked, &mut Kept) -> Fault + Send + 'static) {
        *self.state.plan.lock().unwrap() = Box::new(plan);
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.state.kept.lock().unwrap())
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// How often each fault came.
    pub(crate) fn fired(&self) -> BTreeMap<String, u64> {
        self.state.fired.lock().unwrap().clone()
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "canary-key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "canary-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn stores(&self, more: &[(&str, &str)]) -> Stores {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Stores::with_settings(self.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).chain(more))
    }
}

impl Drop for MiniS3 {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        // Wakes the one that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>test</Message></Error>"))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn bytes(&self, head_only: bool) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} Test\r\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.headers.iter().any(|(name, _)| *name == "Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !head_only {
            bytes.extend(&self.body);
        }
        bytes
    }
}

fn serve(state: &Arc<State>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some(mut asked) = read_request(&mut input) {
        state.requests.fetch_add(1, Ordering::Relaxed);
        let fault = {
            let mut kept = state.kept.lock().unwrap();
            (state.plan.lock().unwrap())(&asked, &mut kept)
        };
        if fault != Fault::None {
            let name = format!("{fault:?}").split('(').next().unwrap_or_default().to_owned();
            let name = match fault {
                Fault::Status(status, _) | Fault::ApplyThenStatus(status, _) => format!("{name} {status}"),
                _ => name,
            };
            *state.fired.lock().unwrap().entry(name).or_default() += 1;
        }
        if fault == Fault::NoConditions {
            asked.headers.retain(|name, _| !name.starts_with("if-"));
        }
        let apply = || {
            let mut answer = answer(&mut state.kept.lock().unwrap(), &asked);
            if let Some(encryption) = asked.headers.get(ENCRYPTION)
                && fault != Fault::NotEncrypted
            {
                answer = answer.with(ENCRYPTION, encryption.clone());
            }
            match fault {
                Fault::OtherEtag => {
                    let etags = answer.headers.iter_mut().filter(|(name, _)| *name == "ETag");
                    etags.for_each(|(_, etag)| *etag = "\"other\"".to_owned());
                }
                Fault::OddList => answer.body = odd_list(&answer.body),
                _ => {}
            }
            answer
        };
        let head_only = asked.method == "HEAD";
        let sent = match fault {
            Fault::None | Fault::OtherEtag | Fault::NotEncrypted | Fault::NoConditions | Fault::OddList => {
                out.write_all(&apply().bytes(head_only))
            }
            Fault::Status(status, code) => out.write_all(&Answer::error(status, code).bytes(head_only)),
            Fault::ApplyThenStatus(status, code) => {
                apply();
                out.write_all(&Answer::error(status, code).bytes(head_only))
            }
            Fault::Redirect(status, host, port) => {
                let to = format!("http://{host}:{port}/{}/{}", MiniS3::BUCKET, asked.key);
                out.write_all(&Answer::error(status, "Redirect").with("Location", to).bytes(head_only))
            }
            Fault::ResetBefore => return reset(&out),
            Fault::ResetAfter => {
                apply();
                return reset(&out);
            }
            Fault::LateApply => {
                let state = Arc::clone(state);
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(30));
                    answer(&mut state.kept.lock().unwrap(), &asked);
                });
                return reset(&out);
            }
            Fault::HalfBody => {
                let bytes = apply().bytes(head_only);
                // Most of the head would be no answer at all, so that half is of the whole.
                out.write_all(&bytes[..bytes.len() - bytes.len() / 3]).ok();
                std::thread::sleep(Duration::from_millis(5));
                return reset(&out);
            }
            Fault::CutBody => {
                let answer = apply();
                let (bytes, missing) =
                    (answer.bytes(head_only), if head_only { 0 } else { answer.body.len().div_ceil(2) });
                out.write_all(&bytes[..bytes.len() - missing]).ok();
                return;
            }
            Fault::ErrorIn200 => out.write_all(&Answer::error(200, "InternalError").bytes(head_only)),
            Fault::Drip(millis) => apply().bytes(head_only).chunks(200).try_for_each(|chunk| {
                std::thread::sleep(Duration::from_millis(millis));
                if state.stopped.load(Ordering::Relaxed) {
                    Err(std::io::ErrorKind::Other.into())
                } else {
                    out.write_all(chunk)
                }
            }),
            Fault::Silence => {
                while !state.stopped.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Closes with a reset and not with an end, so that the client cannot take it for an answer.
fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

fn read_request(input: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    if input.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let pair = pair.replace('+', " ");
        let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
        (decode(name), decode(value))
    });
    let path = decode(path.strip_prefix('/')?);
    let key = path.strip_prefix(MiniS3::BUCKET).map(|key| key.trim_start_matches('/').to_owned());
    Some(Asked { method, key: key.unwrap_or_else(|| format!("?{path}")), query: query.collect(), headers, body })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: Vec<u8> = rest.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(kept: &mut Kept, asked: &Asked) -> Answer {
    if asked.key.starts_with('?') {
        return Answer::error(404, "NoSuchBucket");
    }
    let upload = asked.query.get("uploadId");
    match (asked.method.as_str(), upload) {
        ("PUT", Some(id)) => {
            let part = asked.query["partNumber"].parse().unwrap();
            let Some(upload) = kept.uploads.get_mut(id) else { return Answer::error(404, "NoSuchUpload") };
            upload.parts.insert(part, asked.body.clone());
            Answer::new(200, "").with("ETag", format!("\"{part:032x}\""))
        }
        ("PUT", None) => put(kept, asked),
        ("POST", Some(id)) => match kept.uploads.remove(id) {
            Some(Upload { key, parts, .. }) => {
                let etag = kept.put(&key, parts.into_values().flatten().collect());
                Answer::new(
                    200,
                    format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"),
                )
            }
            None => Answer::error(404, "NoSuchUpload"),
        },
        ("POST", None) if asked.query.contains_key("uploads") => {
            kept.written += 1;
            let id = format!("upload-{}", kept.written);
            let upload = Upload { key: asked.key.clone(), parts: BTreeMap::new(), begun: now() };
            kept.uploads.insert(id.clone(), upload);
            Answer::new(
                200,
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
            )
        }
        ("POST", None) => {
            let text = String::from_utf8(asked.body.clone()).unwrap();
            let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let deleted = keys.map(|key| {
                kept.objects.remove(&key.replace("&amp;", "&"));
                format!("<Deleted><Key>{key}</Key></Deleted>")
            });
            Answer::new(200, format!("<DeleteResult>{}</DeleteResult>", deleted.collect::<String>()))
        }
        ("DELETE", Some(id)) => {
            let gone = kept.uploads.remove(id);
            if gone.is_some() { Answer::new(204, "") } else { Answer::error(404, "NoSuchUpload") }
        }
        ("DELETE", None) => {
            kept.objects.remove(&asked.key);
            Answer::new(204, "")
        }
        ("GET", _) if asked.query.contains_key("uploads") => list_uploads(kept, asked),
        ("GET", _) if asked.query.contains_key("list-type") => list(kept, asked),
        _ => get(kept, asked),
    }
}

/// A listing with its objects from the last to the first, and all of them once more.
fn odd_list(listing: &[u8]) -> Vec<u8> {
    const END: &str = "</Contents>";
    let text = String::from_utf8(listing.to_vec()).unwrap();
    let Some((head, objects)) = text.split_once("<Contents>") else { return listing.to_vec() };
    let (objects, tail) = objects.rsplit_once(END).unwrap();
    let objects = objects.rsplit("</Contents><Contents>").map(|object| format!("<Contents>{object}{END}"));
    format!("{head}{}{tail}", objects.collect::<String>().repeat(2)).into_bytes()
}

fn put(kept: &mut Kept, asked: &Asked) -> Answer {
    if let Some(from) = asked.headers.get("x-amz-copy-source") {
        let from = decode(from);
        let from = from.trim_start_matches('/').strip_prefix(MiniS3::BUCKET).unwrap_or_default();
        let Some(object) = kept.objects.get(from.trim_start_matches('/')).cloned() else {
            return Answer::error(404, "NoSuchKey");
        };
        let etag = kept.put(&asked.key, object.bytes);
        let time = iso(now());
        return Answer::new(
            200,
            format!("<CopyObjectResult><ETag>{etag}</ETag><LastModified>{time}</LastModified></CopyObjectResult>"),
        );
    }
    if asked.headers.contains_key("if-none-match") && kept.objects.contains_key(&asked.key) {
        return Answer::error(412, "PreconditionFailed");
    }
    let etag = kept.put(&asked.key, asked.body.clone());
    Answer::new(200, "").with("ETag", etag)
}

fn get(kept: &Kept, asked: &Asked) -> Answer {
    let Some(object) = kept.objects.get(&asked.key) else { return Answer::error(404, "NoSuchKey") };
    if asked.headers.get("if-match").is_some_and(|etag| *etag != object.etag) {
        return Answer::error(412, "PreconditionFailed");
    }
    let length = object.bytes.len();
    let range = asked.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let (start, end) = match range.and_then(|range| range.split_once('-')) {
        None => (0, length),
        Some(("", last)) => (length.saturating_sub(last.parse().unwrap()), length),
        Some((first, "")) => (first.parse().unwrap(), length),
        Some((first, last)) => (first.parse().unwrap(), (last.parse::<usize>().unwrap() + 1).min(length)),
    };
    let part = object.bytes.get(start..end).unwrap_or_default().to_vec();
    let answer = Answer::new(if range.is_some() { 206 } else { 200 }, part)
        .with("ETag", object.etag.clone())
        .with("Last-Modified", http_date(object.modified));
    match range {
        Some(_) => answer.with("Content-Range", format!("bytes {start}-{}/{length}", end.saturating_sub(1))),
        None if asked.method == "HEAD" => answer.with("Content-Length", length.to_string()),
        None => answer,
    }
}

fn list(kept: &Kept, asked: &Asked) -> Answer {
    let prefix = asked.query.get("prefix").cloned().unwrap_or_default();
    let delimiter = asked.query.get("delimiter").cloned().unwrap_or_default();
    let after = asked.query.get("continuation-token").or_else(|| asked.query.get("start-after"));
    let limit = asked.query.get("max-keys").map_or(1_000, |limit| limit.parse().unwrap());
    let mut folders = std::collections::BTreeSet::new();
    let mut text = String::new();
    let (mut count, mut last, mut truncated) = (0, String::new(), false);
    for (key, object) in kept.objects.range(prefix.clone()..) {
        if !key.starts_with(&prefix) || after.is_some_and(|after| key <= after) {
            continue;
        }
        if count == limit {
            truncated = true;
            break;
        }
        (count, last) = (count + 1, key.clone());
        let below = &key[prefix.len()..];
        if let Some(at) = (!delimiter.is_empty()).then(|| below.find(&delimiter)).flatten() {
            folders.insert(format!("{prefix}{}", &below[..=at]));
            continue;
        }
        text.push_str(&format!(
            "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            key.replace('&', "&amp;"),
            iso(object.modified),
            object.etag,
            object.bytes.len()
        ));
    }
    for folder in folders {
        text.push_str(&format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", folder.replace('&', "&amp;")));
    }
    let next = if truncated { format!("<NextContinuationToken>{last}</NextContinuationToken>") } else { String::new() };
    Answer::new(
        200,
        format!(
            "<ListBucketResult><IsTruncated>{truncated}</IsTruncated><KeyCount>{count}</KeyCount>{next}{text}</ListBucketResult>"
        ),
    )
}

/// Two uploads a page, ordered by key and then by id, as S3 does with its thousand.
fn list_uploads(kept: &Kept, asked: &Asked) -> Answer {
    let text = |name: &str| asked.query.get(name).cloned().unwrap_or_default();
    let (prefix, after) = (text("prefix"), (text("key-marker"), text("upload-id-marker")));
    let open = kept.uploads.iter().map(|(id, upload)| ((upload.key.clone(), id.clone()), upload.begun));
    let open = open.collect::<BTreeMap<_, _>>();
    let mut listed = open.iter().filter(|(at, _)| at.0.starts_with(&prefix) && **at > after);
    let page = listed.by_ref().take(2).collect::<Vec<_>>();
    let uploads = page.iter().map(|((key, id), begun)| {
        let key = key.replace('=', "%3D");
        format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{}</Initiated></Upload>", iso(**begun))
    });
    let uploads = uploads.collect::<String>();
    let more = listed.next().is_some();
    let next = page.last().filter(|_| more).map_or_else(String::new, |((key, id), _)| {
        format!("<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>")
    });
    Answer::new(
        200,
        format!(
            "<ListMultipartUploadsResult><EncodingType>url</EncodingType>{next}<IsTruncated>{more}</IsTruncated>{uploads}</ListMultipartUploadsResult>"
        ),
    )
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn iso(seconds: u64) -> String {
    formatted(seconds, "%Y-%m-%dT%H:%M:%S.000Z")
}

fn http_date(seconds: u64) -> String {
    formatted(seconds, "%a, %d %b %Y %H:%M:%S GMT")
}

fn formatted(seconds: u64, format: &str) -> String {
    let time = chrono::DateTime::from_timestamp(seconds.try_into().unwrap(), 0).unwrap();
    time.format(format).to_string()
}
