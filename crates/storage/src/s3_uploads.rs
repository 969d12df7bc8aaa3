//! Open multipart uploads of a bucket: listed and aborted by requests of our own, since `object_store` has none for that.
//! They are signed by its signer and sent by its client.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;
use tokio::time::Instant;

use crate::location::decode;
use crate::publish::Backoff;
use crate::store_error::{Facts, store_error};
use crate::whole_answers::WholeAnswers;
use crate::{Error, ErrorKind, Result};

/// Pages of a listing at most; each has up to a thousand uploads.
const MOST_PAGES: usize = 10_000;

/// Every setting of a client that the environment may hold.
const CLIENT_KEYS: [ClientConfigKey; 17] = {
    use ClientConfigKey as K;
    [
        K::AllowHttp,
        K::AllowInvalidCertificates,
        K::ConnectTimeout,
        K::Http1Only,
        K::Http2KeepAliveInterval,
        K::Http2KeepAliveTimeout,
        K::Http2KeepAliveWhileIdle,
        K::Http2MaxFrameSize,
        K::Http2Only,
        K::PoolIdleTimeout,
        K::PoolMaxIdlePerHost,
        K::ProxyUrl,
        K::ProxyCaCertificate,
        K::ProxyExcludes,
        K::RandomizeAddresses,
        K::Timeout,
        K::UserAgent,
    ]
};

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) key: String,
    pub(crate) id: String,
    /// When it was begun, in milliseconds of the clock of the store.
    pub(crate) begun: i64,
}

/// The uploads of one bucket.
#[derive(Debug)]
pub(crate) struct Uploads {
    bucket: String,
    store: AmazonS3,
    client: HttpClient,
    region: String,
    /// How long a request is retried.
    patience: Duration,
}

impl Uploads {
    /// `builder` has all settings of the bucket, with its credentials.
    pub(crate) fn new(bucket: &str, builder: AmazonS3Builder, patience: Duration) -> object_store::Result<Self> {
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
        let options = CLIENT_KEYS.into_iter().fold(ClientOptions::new(), |options, key| {
            match builder.get_config_value(&AmazonS3ConfigKey::Client(key)) {
                Some(value) => options.with_config(key, value),
                None => options,
            }
        });
        let client = WholeAnswers::default().connect(&options)?;
        Ok(Self { bucket: bucket.to_owned(), store: builder.build()?, client, region, patience })
    }

    /// All open uploads whose keys begin with a prefix.
    ///
    /// # Errors
    /// What the store answered, and for an answer that is no such listing, or one that does not say how it goes on.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Upload>> {
        let place = format!("s3://{}/{prefix}", self.bucket);
        let odd = |reason: &str| Error::Store {
            operation: "LIST",
            reason: reason.to_owned(),
            file: place.clone(),
            source: None,
        };
        let (mut found, mut after): (Vec<Upload>, Option<(String, String)>) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let mut query = vec![("encoding-type", "url"), ("prefix", prefix), ("uploads", "")];
            if let Some((key, id)) = &after {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
            }
            let text = self.send("LIST", &place, "GET", &Path::default(), &query).await?;
            let page = page(&text).ok_or_else(|| odd("the answer is no listing of uploads"))?;
            found.extend(page.uploads);
            if !page.is_truncated {
                return Ok(found);
            }
            match page.next {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                _ => return Err(odd("a page of the listing of uploads does not say where the next one begins")),
            }
        }
        Err(odd("the listing of uploads does not end"))
    }

    /// Aborts an upload: its parts are removed. It is no error when it is gone.
    pub(crate) async fn abort(&self, upload: &Upload) -> Result<()> {
        let place = format!("s3://{}/{}", self.bucket, upload.key);
        let key = Path::parse(&upload.key).map_err(|e| store_error("DELETE", &place, e.into()))?;
        match self.send("DELETE", &place, "DELETE", &key, &[("uploadId", &upload.id)]).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a request until it has an answer that is final, or the time for retries is over.
    async fn send(
        &self,
        operation: &'static str,
        place: &str,
        method: &str,
        key: &Path,
        query: &[(&str, &str)],
    ) -> Result<String> {
        let until = Instant::now() + self.patience;
        let mut wait = Backoff::default();
        let mut retries = 0;
        loop {
            let failed = match self.try_send(method, key, query).await {
                Ok((200..=299, text)) if !holds_error(&text) => return Ok(text),
                Ok((status, text)) => refusal(operation, place, (status, retries), &text),
                Err(error) => store_error(operation, place, error),
            };
            if failed.kind() != ErrorKind::Storage || Instant::now() >= until {
                return Err(failed);
            }
            wait.pause().await;
            retries += 1;
        }
    }

    async fn try_send(&self, method: &str, key: &Path, query: &[(&str, &str)]) -> object_store::Result<(u16, String)> {
        let broken =
            |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        let credential = self.store.credentials().get_credential().await?;
        // The address of the key, however the bucket is addressed; its signature is not needed.
        let read = method_of("GET").ok_or_else(|| broken("no method".into()))?;
        let mut url = self.store.signed_url(read, key, Duration::from_secs(60)).await?;
        url.query_pairs_mut().clear().extend_pairs(query);
        // What is signed has %20 for a space.
        let text = url.query().unwrap_or_default().replace('+', "%20");
        url.set_query(Some(&text));
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method_of(method).ok_or_else(|| broken("no method".into()))?;
        *request.uri_mut() = url.as_str().parse().map_err(|_| broken("the address of the bucket is no URI".into()))?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let answer = self.client.execute(request).await.map_err(|e| broken(Box::new(e)))?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().bytes().await.map_err(|e| broken(Box::new(e)))?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// A method by its name, of whatever type the client wants.
fn method_of<M: std::str::FromStr>(name: &str) -> Option<M> {
    name.parse().ok()
}

/// Whether an answer is an error, whatever its status says: S3 may find out after it has sent that of a success.
fn holds_error(text: &str) -> bool {
    text.contains("<Error>") || text.contains("<Error ")
}

/// An answer that is no success, by its status, how often it was asked for again, and the code in its text; nothing else of
/// the text is told. What may pass later is [`Error::Store`].
fn refusal(operation: &'static str, place: &str, (status, retries): (u16, u32), text: &str) -> Error {
    let code = between(text, "<Code>", "</Code>").filter(|code| (1..=60).contains(&code.len()));
    let code = code.map(crate::location::printable);
    // S3 says so of a connection that was too slow, with the status of a bad request.
    let too_slow = code.as_deref() == Some("RequestTimeout");
    let facts = Facts::of_answer(status, code, retries);
    let (detail, file) = (facts.detail(), place.to_owned());
    if let Some(cure) = facts.setting() {
        return Error::StoreSetting { reason: format!("{operation} was refused ({detail})"), file, cure, source: None };
    }
    match status {
        404 => Error::NotFound {
            operation,
            reason: format!("there is no such bucket or upload ({detail})"),
            file,
            cure: "check the name of the bucket, AWS_ENDPOINT and AWS_REGION".to_owned(),
            source: None,
        },
        401 | 403 => {
            let right = match operation {
                "LIST" => "the role needs s3:ListBucketMultipartUploads",
                _ => "the role needs s3:AbortMultipartUpload",
            };
            Error::StoreDenied { operation, file, detail, right: right.to_owned(), source: None }
        }
        405 | 501 => Error::StoreSetting {
            reason: format!("the store cannot {operation} open uploads ({detail})"),
            file,
            cure: "leave out --uploads, and let a lifecycle rule of the bucket abort them".to_owned(),
            source: None,
        },
        // A timeout, another request for the same upload, or too many of them.
        408 | 409 | 429 => Error::Store { operation, reason: detail, file, source: None },
        400..=499 if !too_slow => Error::StoreSetting {
            reason: format!("{operation} was refused ({detail})"),
            file,
            cure: "check the name of the bucket, AWS_ENDPOINT and AWS_REGION".to_owned(),
            source: None,
        },
        _ => Error::Store { operation, reason: detail, file, source: None },
    }
}

/// One page of a listing.
struct Page {
    uploads: Vec<Upload>,
    /// Whether there are more.
    is_truncated: bool,
    /// After which upload the next page begins.
    next: Option<(String, String)>,
}

/// Reads a page; none for another text. An upload without its key, id or time is passed over: it cannot be aborted.
fn page(text: &str) -> Option<Page> {
    let (_, list) = text.split_once("<ListMultipartUploadsResult")?;
    let is_url = between(list, "<EncodingType>", "</EncodingType>") == Some("url");
    let key_of = |part: &str, start: &str, end: &str| {
        let key = unescaped(between(part, start, end)?);
        if is_url { decode(&key.replace('+', " ")).ok() } else { Some(key) }
    };
    let upload = |part: &str| {
        let part = part.split("</Upload>").next()?;
        let begun = between(part, "<Initiated>", "</Initiated>")?.trim().parse::<DateTime<Utc>>().ok()?;
        let id = unescaped(between(part, "<UploadId>", "</UploadId>")?);
        Some(Upload { key: key_of(part, "<Key>", "</Key>")?, id, begun: begun.timestamp_millis() })
    };
    let uploads = list.split("<Upload>").skip(1).filter_map(upload).collect();
    let is_truncated = between(list, "<IsTruncated>", "</IsTruncated>").is_some_and(|text| text.trim() == "true");
    let id = between(list, "<NextUploadIdMarker>", "</NextUploadIdMarker>").map(unescaped);
    let next = key_of(list, "<NextKeyMarker>", "</NextKeyMarker>").zip(id);
    Some(Page { uploads, is_truncated, next })
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(value, _)| value)
}

/// The text of an element.
fn unescaped(text: &str) -> String {
    let mut plain = text.to_owned();
    for (name, character) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
        plain = plain.replace(name, character);
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const PAGE: &str = "<?xml version=\"1.0\"?>\n<ListMultipartUploadsResult xmlns=\"http://s3\"><Bucket>lake</Bucket>\
        <NextKeyMarker>b%20c</NextKeyMarker><NextUploadIdMarker>y&amp;z</NextUploadIdMarker><EncodingType>url</EncodingType>\
        <IsTruncated>true</IsTruncated>\
        <Upload><Key>out/data/run%3D1/part</Key><UploadId>x</UploadId><Initiated>2026-01-01T00:00:01.000Z</Initiated></Upload>\
        <Upload><Key>no-id</Key><Initiated>2026-01-01T00:00:01.000Z</Initiated></Upload>\
        <Upload><Key>b+c</Key><UploadId>y&amp;z</UploadId><Initiated>2026-01-01T00:00:02Z</Initiated></Upload>\
        </ListMultipartUploadsResult>";

    #[test]
    fn a_page_gives_its_uploads_and_where_the_next_one_begins() {
        let page = page(PAGE).unwrap();
        let upload = |key: &str, id: &str, begun| Upload { key: key.to_owned(), id: id.to_owned(), begun };
        let first = 1_767_225_601_000;
        assert_eq!(page.uploads, [upload("out/data/run=1/part", "x", first), upload("b c", "y&z", first + 1_000)]);
        assert!(page.is_truncated);
        assert_eq!(page.next, Some(("b c".to_owned(), "y&z".to_owned())));
    }

    #[test]
    fn another_text_is_no_page_and_a_cut_one_panics_nowhere() {
        for text in ["", "<html>", "<ListBucketResult></ListBucketResult>"] {
            assert!(page(text).is_none(), "{text}");
        }
        for end in (0..PAGE.len()).filter(|end| PAGE.is_char_boundary(*end)) {
            let _ = page(&PAGE[..end]);
        }
    }

    /// The last page, with one upload.
    const LAST: &str = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
        <Upload><Key>a</Key><UploadId>x</UploadId><Initiated>2026-01-01T00:00:01.000Z</Initiated></Upload>\
        </ListMultipartUploadsResult>";
    const ERROR: &str = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>canary</Message></Error>";

    /// The uploads of a server that gives these answers, one after the other and then none; and how many it has given.
    fn answering(answers: Vec<(u16, &'static str)>, patience: &str) -> (Uploads, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let given = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&given);
        std::thread::spawn(move || {
            for (status, text) in answers {
                // A connection without a request takes no answer.
                let mut stream = loop {
                    let mut input = BufReader::new(listener.accept().unwrap().0);
                    let mut lines = 0;
                    while input.read_until(b'\n', &mut Vec::new()).is_ok_and(|bytes| bytes > 2) {
                        lines += 1;
                    }
                    if lines > 0 {
                        break input.into_inner();
                    }
                };
                let length = text.len();
                count.fetch_add(1, Ordering::Relaxed);
                let head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(format!("{head}{text}").as_bytes()).unwrap();
            }
        });
        let settings = [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("ITEM_AFFINITY_RETRY_TIMEOUT", patience),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (crate::s3::uploads("lake", Some(&settings.into())).unwrap(), given)
    }

    #[tokio::test]
    async fn p28_an_error_behind_a_200_is_asked_for_again() {
        let (uploads, given) = answering(vec![(200, ERROR), (200, LAST), (200, ERROR), (204, "")], "60");
        let found = uploads.list("").await.unwrap();
        assert_eq!((found.len(), given.load(Ordering::Relaxed)), (1, 2));
        uploads.abort(&found[0]).await.unwrap();
        assert_eq!(given.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn p27_requests_are_retried_as_long_as_stores_are_told() {
        let busy = || vec![(503, "<Error><Code>SlowDown</Code></Error>"); 7];
        let (uploads, given) = answering(busy().into_iter().chain([(200, LAST)]).collect(), "60");
        assert_eq!(uploads.list("").await.unwrap().len(), 1);
        assert_eq!(given.load(Ordering::Relaxed), 8);
        let (uploads, given) = answering(busy(), "0");
        let error = uploads.list("").await.unwrap_err();
        assert_eq!((error.kind(), given.load(Ordering::Relaxed)), (ErrorKind::Storage, 1));
        assert!(error.to_string().contains("LIST failed: 503 SlowDown; file=s3://lake/"), "{error}");
    }

    #[tokio::test]
    async fn a_listing_that_does_not_say_how_it_goes_on_is_no_whole_one() {
        for mark in ["", "<NextKeyMarker>a</NextKeyMarker><NextUploadIdMarker/>"] {
            let cut = PAGE
                .replace("<NextKeyMarker>b%20c</NextKeyMarker><NextUploadIdMarker>y&amp;z</NextUploadIdMarker>", mark);
            let cut: &'static str = cut.leak();
            let (uploads, _) = answering(vec![(200, cut)], "0");
            let error = uploads.list("").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage);
            assert!(error.to_string().contains("does not say where the next one begins"), "{error}");
        }
        let (uploads, given) = answering(vec![(200, PAGE), (200, PAGE), (200, LAST)], "0");
        assert!(uploads.list("").await.is_err());
        assert_eq!(given.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn p28_refusals_have_the_kinds_and_cures_of_other_requests() {
        use ErrorKind::{BadInput, Storage};
        for (status, code, kind, says) in [
            (400, "ExpiredToken", BadInput, "get new credentials"),
            (400, "AuthorizationHeaderMalformed", BadInput, "set AWS_REGION"),
            (400, "InvalidRequest", BadInput, "400 InvalidRequest"),
            (400, "RequestTimeout", Storage, "400 RequestTimeout"),
            (403, "RequestTimeTooSkewed", BadInput, "set the clock"),
            (403, "SignatureDoesNotMatch", BadInput, "check AWS_ACCESS_KEY_ID"),
            (403, "AccessDenied", BadInput, "the role needs s3:ListBucketMultipartUploads"),
            (301, "PermanentRedirect", BadInput, "set AWS_REGION"),
            (307, "", BadInput, "no redirect is followed"),
            (404, "NoSuchBucket", BadInput, "404 NoSuchBucket"),
            (405, "MethodNotAllowed", BadInput, "let a lifecycle rule of the bucket abort them"),
            (409, "OperationAborted", Storage, "409 OperationAborted, after 3 retries"),
            (429, "SlowDown", Storage, "429 SlowDown"),
            (200, "InternalError", Storage, "200 InternalError"),
            (503, "SlowDown", Storage, "503 SlowDown, after 3 retries"),
        ] {
            let text = format!("<Error><Code>{code}</Code><Message>canary</Message></Error>");
            let error = refusal("LIST", "s3://lake/out/", (status, 3), &text);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(says) && error.to_string().contains("s3://lake/out/"), "{error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
