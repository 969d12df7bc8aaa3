//! A small S3 on loopback that can answer falsely on purpose. One thread answers one request after the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a request asks for.
pub(super) struct Request {
    pub(super) method: String,
    /// Key in the bucket; empty for the bucket itself.
    pub(super) key: String,
    pub(super) query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// How many requests came before.
    pub(super) number: usize,
}

/// What the store does instead of what it should.
pub(super) enum Fault {
    /// Answers this and does nothing.
    Refuse(u16, &'static str),
    /// Does it, and answers this.
    DoThenSay(u16, &'static str),
    /// Closes the connection in the middle of the body.
    CutBody,
    /// Does it, and closes the connection without an answer.
    DoThenReset,
    /// Answers with another ETag.
    OtherEtag,
    /// Ignores conditions.
    NoConditions,
    /// Gives the list again with each object twice and in another order.
    OddList,
}

/// Parts of open uploads, by key and number.
type Uploads = BTreeMap<String, BTreeMap<u32, Vec<u8>>>;
type Plan = Box<dyn Fn(&Request) -> Option<Fault> + Send>;

pub(super) struct Store {
    port: u16,
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    pub(super) open_uploads: Arc<Mutex<Uploads>>,
}

impl Store {
    pub(super) fn start(plan: impl Fn(&Request) -> Option<Fault> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Self { port, objects: Arc::default(), open_uploads: Arc::default() };
        let server = Server {
            objects: Arc::clone(&store.objects),
            uploads: Arc::clone(&store.open_uploads),
            plan: Box::new(plan),
        };
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                drop(server.answer(stream, number));
            }
        });
        store
    }

    pub(super) fn put(&self, key: &str, bytes: Vec<u8>) {
        self.objects.lock().unwrap().insert(key.to_owned(), bytes);
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    /// What a client needs to know.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "canary-key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "canary-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("ITEM_AFFINITY_RETRY_TIMEOUT", "3".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

struct Server {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    uploads: Arc<Mutex<Uploads>>,
    plan: Plan,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::of(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"))
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{:08x}-{}\"", super::hand_made::crc32(bytes), bytes.len())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl Server {
    fn answer(&self, stream: TcpStream, number: usize) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let key =
            decoded(path.trim_start_matches('/')).split_once('/').map(|(_, key)| key.to_owned()).unwrap_or_default();
        let request = Request { method, key, query: query.to_owned(), headers, body, number };
        let fault = (self.plan)(&request);
        let mut answer = match fault {
            Some(Fault::Refuse(status, code)) => Answer::error(status, code),
            _ => self.done(&request, fault.as_ref()),
        };
        match fault {
            Some(Fault::DoThenReset) => return Ok(()),
            Some(Fault::DoThenSay(status, code)) => answer = Answer::error(status, code),
            Some(Fault::OtherEtag) => {
                answer.headers.iter_mut().filter(|(n, _)| *n == "ETag").for_each(|h| h.1 = "\"other\"".into())
            }
            _ => {}
        }
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
            answer.status,
            answer.body.len()
        )?;
        for (name, value) in &answer.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(stream, "\r\n")?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let end = if matches!(fault, Some(Fault::CutBody)) { answer.body.len() / 2 } else { answer.body.len() };
        stream.write_all(&answer.body[..end])
    }

    fn done(&self, request: &Request, fault: Option<&Fault>) -> Answer {
        let mut objects = self.objects.lock().unwrap();
        let argument = |name: &str| {
            request
                .query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| decoded(v)))
        };
        let conditions = !matches!(fault, Some(Fault::NoConditions));
        let header = |name: &str| request.headers.get(name).filter(|_| conditions);
        match (request.method.as_str(), request.key.as_str()) {
            ("GET", "") => list(&objects, &argument("prefix").unwrap_or_default(), fault),
            ("GET" | "HEAD", key) => {
                let Some(bytes) = objects.get(key) else { return Answer::error(404, "NoSuchKey") };
                if header("if-match").is_some_and(|wanted| *wanted != etag(bytes)) {
                    return Answer::error(412, "PreconditionFailed");
                }
                let dates = ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT".to_owned());
                let headers = vec![("ETag", etag(bytes)), dates];
                let range =
                    request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
                let Some((from, to)) = range else {
                    let mut answer = Answer { status: 200, headers, body: bytes.clone() };
                    if request.method == "HEAD" {
                        answer.headers.push(("X-Length", bytes.len().to_string()));
                    }
                    return answer;
                };
                let from = from.parse::<usize>().unwrap_or_else(|_| bytes.len().saturating_sub(to.parse().unwrap()));
                let end = to.parse::<usize>().map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
                let mut answer = Answer { status: 206, headers, body: bytes[from..end].to_vec() };
                answer.headers.push(("Content-Range", format!("bytes {from}-{}/{}", end - 1, bytes.len())));
                answer
            }
            ("PUT", key) if argument("partNumber").is_some() => {
                let part = argument("partNumber").unwrap().parse().unwrap();
                self.uploads.lock().unwrap().entry(key.to_owned()).or_default().insert(part, request.body.clone());
                Answer { status: 200, headers: vec![("ETag", etag(&request.body))], body: Vec::new() }
            }
            ("PUT", key) => {
                if header("if-none-match").is_some() && objects.contains_key(key) {
                    return Answer::error(412, "PreconditionFailed");
                }
                let copied = request.headers.get("x-amz-copy-source").map(|from| decoded(from));
                let bytes = match copied {
                    None => request.body.clone(),
                    Some(from) => objects[from.trim_start_matches('/').split_once('/').unwrap().1].clone(),
                };
                let tag = etag(&bytes);
                objects.insert(key.to_owned(), bytes);
                let body = format!(
                    "<CopyObjectResult><ETag>{tag}</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></CopyObjectResult>"
                );
                let body =
                    if request.headers.contains_key("x-amz-copy-source") { body.into_bytes() } else { Vec::new() };
                Answer { status: 200, headers: vec![("ETag", tag)], body }
            }
            ("POST", key) if request.query.starts_with("uploads") => {
                self.uploads.lock().unwrap().entry(key.to_owned()).or_default();
                Answer::of(
                    200,
                    "<InitiateMultipartUploadResult><Bucket>lake</Bucket><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>",
                )
            }
            ("POST", key) if request.query.contains("uploadId=") => {
                let bytes = self
                    .uploads
                    .lock()
                    .unwrap()
                    .remove(key)
                    .unwrap_or_default()
                    .into_values()
                    .flatten()
                    .collect::<Vec<_>>();
                let tag = etag(&bytes);
                objects.insert(key.to_owned(), bytes);
                Answer::of(
                    200,
                    format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"),
                )
            }
            ("DELETE", key) => {
                if request.query.contains("uploadId=") {
                    self.uploads.lock().unwrap().remove(key);
                } else {
                    objects.remove(key);
                }
                Answer::of(204, "")
            }
            _ => Answer::error(501, "NotImplemented"),
        }
    }
}

fn list(objects: &BTreeMap<String, Vec<u8>>, prefix: &str, fault: Option<&Fault>) -> Answer {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut entries = objects.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, bytes)| {
        format!(
            "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
            escaped(key), bytes.len(), etag(bytes).replace('"', "&quot;")
        )
    }).collect::<Vec<_>>();
    if matches!(fault, Some(Fault::OddList)) {
        entries.reverse();
        entries.extend(entries.clone());
    }
    Answer::of(
        200,
        format!(
            "<?xml version=\"1.0\"?><ListBucketResult>{}<IsTruncated>false</IsTruncated></ListBucketResult>",
            entries.concat()
        ),
    )
}
