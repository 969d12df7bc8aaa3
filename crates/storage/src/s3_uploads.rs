//! Open multipart uploads of a bucket: listed and aborted by requests of our own, since `object_store` has none for that.
//! They are signed by its signer and sent by its client.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;

use crate::location::decode;
use crate::store_error::store_error;
use crate::whole_answers::WholeAnswers;
use crate::{Error, Result};

/// How often a request is sent, with a wait in between that doubles from a tenth of a second.
const TRIES: u32 = 6;
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
}

impl Uploads {
    /// `builder` has all settings of the bucket, with its credentials.
    pub(crate) fn new(bucket: &str, builder: AmazonS3Builder) -> object_store::Result<Self> {
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
        let options = CLIENT_KEYS.into_iter().fold(ClientOptions::new(), |options, key| {
            match builder.get_config_value(&AmazonS3ConfigKey::Client(key)) {
                Some(value) => options.with_config(key, value),
                None => options,
            }
        });
        let client = WholeAnswers::default().connect(&options)?;
        Ok(Self { bucket: bucket.to_owned(), store: builder.build()?, client, region })
    }

    /// All open uploads whose keys begin with a prefix.
    ///
    /// # Errors
    /// What the store answered, and for an answer that is no such listing.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Upload>> {
        let place = format!("s3://{}/{prefix}", self.bucket);
        let (mut found, mut after): (Vec<Upload>, Option<(String, String)>) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let mut query = vec![("encoding-type", "url"), ("prefix", prefix), ("uploads", "")];
            if let Some((key, id)) = &after {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
            }
            let text = self.send("LIST", &place, "GET", &Path::default(), &query).await?;
            let page = page(&text).ok_or_else(|| Error::Store {
                operation: "LIST",
                reason: "the answer is no listing of uploads".to_owned(),
                file: place.clone(),
                source: None,
            })?;
            found.extend(page.uploads);
            match page.next {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                _ => return Ok(found),
            }
        }
        Ok(found)
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

    /// Sends a request until it has an answer that is final.
    async fn send(
        &self,
        operation: &'static str,
        place: &str,
        method: &str,
        key: &Path,
        query: &[(&str, &str)],
    ) -> Result<String> {
        let mut wait = Duration::from_millis(100);
        let mut tries = 0;
        loop {
            tries += 1;
            let failed = match self.try_send(method, key, query).await {
                Ok((200..=299, text)) => return Ok(text),
                Ok((status, text)) => {
                    let error = refusal(operation, place, status, &text);
                    if !matches!(status, 429 | 500..) {
                        return Err(error);
                    }
                    error
                }
                Err(error) => store_error(operation, place, error),
            };
            if tries >= TRIES || failed.kind() != crate::ErrorKind::Storage {
                return Err(failed);
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
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

/// An answer that is no success, by its status and the code in its text; nothing else of the text is told.
fn refusal(operation: &'static str, place: &str, status: u16, text: &str) -> Error {
    let code = between(text, "<Code>", "</Code>").map(crate::location::printable).unwrap_or_default();
    let (detail, file) = (format!("{status} {code}").trim_end().to_owned(), place.to_owned());
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
        300..=399 => Error::StoreSetting {
            reason: format!("{operation} was refused ({detail})"),
            file,
            cure: "no redirect is followed; set AWS_REGION to the region of the bucket, and AWS_ENDPOINT to the server itself"
                .to_owned(),
            source: None,
        },
        501 => Error::StoreSetting {
            reason: format!("the store cannot {operation} open uploads ({detail})"),
            file,
            cure: "leave out --uploads, and let a lifecycle rule of the bucket abort them".to_owned(),
            source: None,
        },
        _ => Error::Store { operation, reason: detail, file, source: None },
    }
}

/// One page of a listing, and after which upload the next one begins.
struct Page {
    uploads: Vec<Upload>,
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
    let next = (between(list, "<IsTruncated>", "</IsTruncated>") == Some("true"))
        .then(|| {
            let key = key_of(list, "<NextKeyMarker>", "</NextKeyMarker>")?;
            let id = between(list, "<NextUploadIdMarker>", "</NextUploadIdMarker>").map(unescaped)?;
            Some((key, id))
        })
        .flatten();
    Some(Page { uploads, next })
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
}
