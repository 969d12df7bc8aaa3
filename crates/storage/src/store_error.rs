//! The one place where answers of a store become our errors.

use std::error::Error as StdError;
use std::io;

use url::{Position, Url};

use crate::location::printable;
use crate::roots::Refused;
use crate::whole_answers::NotEncrypted;
use crate::{Error, ParquetFault};

/// Why no credentials could be had; travels through `object_store` as a source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoCredentials(pub(crate) String);

/// What a store said, without the body of its answer: S3 repeats access key ids and signed strings there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Answer(String);

/// Our error for an answer to `operation` on `file`.
pub(crate) fn store_error(operation: &'static str, file: &str, error: object_store::Error) -> Error {
    in_our_words(operation, file, &error)
}

/// Our error for an answer that a store gave to another reader, such as the query engine: what was asked of which
/// object is taken from the answer.
#[must_use]
pub fn from_object_store(error: &object_store::Error) -> Error {
    let (operation, file) = request(error);
    in_our_words(operation, &file, error)
}

/// The file, when a local store was asked for a range that it does not have: a retry gives the same answer.
fn beyond_the_end(error: &object_store::Error) -> Option<String> {
    let text = error.to_string();
    let (_, rest) = text.split_once("Out of range of file ")?;
    rest.split_once(", expected").map(|(file, _)| printable(file))
}

fn in_our_words(operation: &'static str, file: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    let file = file.to_owned();
    if let Some(missing) = find::<NoCredentials>(error) {
        return Error::Credentials { reason: missing.0.clone(), file };
    }
    if is_not_encrypted(error) {
        let reason = format!("{NotEncrypted}");
        let cure = "use a store that encrypts, or unset AWS_SERVER_SIDE_ENCRYPTION".to_owned();
        return Error::StoreSetting { reason, file, cure, source: None };
    }
    if let Some(refused) = find::<Refused>(error) {
        return refused.clone().into();
    }
    let io = find::<io::Error>(error).and_then(|e| e.raw_os_error()).map(io::Error::from_raw_os_error);
    if let Some(io) = io {
        return io_error(operation, &file, 0, io);
    }
    if let Some(file) = beyond_the_end(error) {
        let reason = "bytes beyond the end of the file were asked for, since a header in it says so".to_owned();
        return Error::Parquet {
            fault: ParquetFault::ChunkRange,
            reason,
            file,
            row_group: None,
            column: None,
            source: None,
        };
    }
    let facts = Facts::of(error);
    let detail = facts.detail();
    if let Some(cure) = facts.setting() {
        let source = Some(facts.source());
        return Error::StoreSetting { reason: format!("{operation} was refused ({detail})"), file, cure, source };
    }
    match error {
        // A listing says so without a kind of its own.
        _ if facts.code.as_deref() == Some("NoSuchBucket") => Error::NotFound {
            operation,
            reason: "the bucket does not exist".to_owned(),
            file,
            cure: "check the name of the bucket, AWS_ENDPOINT and AWS_REGION".to_owned(),
            source: Some(facts.source()),
        },
        E::NotFound { .. } => Error::NotFound {
            operation,
            reason: "there is no such object".to_owned(),
            file,
            cure: "check the name; if a rule or a person deleted it, restore it".to_owned(),
            source: Some(facts.source()),
        },
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            Error::StoreDenied { operation, file, detail, right: right(operation), source: Some(facts.source()) }
        }
        // A listing has no kind for a refusal either.
        _ if facts.is_refusal() => {
            Error::StoreDenied { operation, file, detail, right: right(operation), source: Some(facts.source()) }
        }
        E::NotImplemented { .. } | E::NotSupported { .. } => Error::StoreSetting {
            reason: format!("the store cannot do {operation}"),
            file,
            cure: "use a store with conditional writes, such as S3".to_owned(),
            source: Some(facts.source()),
        },
        E::InvalidPath { .. } => Error::StoreSetting {
            reason: "the store cannot hold an object of this name".to_owned(),
            file,
            cure: "rename it; names that end in # and digits are temporary files".to_owned(),
            source: Some(facts.source()),
        },
        _ => Error::Store { operation, reason: detail, file, source: Some(facts.source()) },
    }
}

/// Our error for a failed system call on a local path.
pub(crate) fn io_error(operation: &'static str, file: &str, bytes: u64, source: io::Error) -> Error {
    use io::ErrorKind as K;
    let file = file.to_owned();
    let reason = source.to_string();
    match source.kind() {
        K::NotFound => Error::NotFound {
            operation,
            reason: "there is no such file or folder".to_owned(),
            file,
            cure: "check the path".to_owned(),
            source: Some(Box::new(source)),
        },
        K::PermissionDenied => Error::StoreDenied {
            operation,
            file,
            detail: reason,
            right: "give this user the right, or choose another path".to_owned(),
            source: Some(Box::new(source)),
        },
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
            Error::DiskFull { operation, bytes, reason, file, source }
        }
        K::ReadOnlyFilesystem | K::NotADirectory | K::IsADirectory | K::InvalidFilename => Error::StoreSetting {
            reason: format!("{operation} failed: {reason}"),
            file,
            cure: "choose another path".to_owned(),
            source: Some(Box::new(source)),
        },
        _ => Error::Store { operation, reason, file, source: Some(Box::new(source)) },
    }
}

/// Whether the answer proves that nothing was or will be written.
pub(crate) fn is_final(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(
        error,
        E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::NotImplemented { .. }
            | E::NotSupported { .. }
            | E::InvalidPath { .. }
            | E::NotFound { .. }
    ) || find::<NoCredentials>(error).is_some()
        || find::<Refused>(error).is_some()
}

/// Whether the store wrote what it was asked to write, but did not say that it is encrypted.
pub(crate) fn is_not_encrypted(error: &object_store::Error) -> bool {
    find::<NotEncrypted>(error).is_some()
}

pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // An `io::Error` hides what it wraps from `source`.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = inner.downcast_ref::<T>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The operation and the object of an answer, as far as its text tells; user info and query may hold secrets.
fn request(error: &object_store::Error) -> (&'static str, String) {
    use object_store::Error as E;
    let text = text_of(error);
    // A failed listing says "Error performing list request: Error performing GET …".
    let words = text.rsplit_once("Error performing ").and_then(|(_, rest)| rest.split_once(' '));
    let url = words.and_then(|(_, rest)| Url::parse(rest.split_whitespace().next()?).ok());
    if let (Some((method, _)), Some(url)) = (words, url) {
        let listing = url.query().is_some_and(|query| query.contains("list-type="));
        let operation = match method {
            "GET" if listing => "LIST",
            "GET" => "GET",
            "HEAD" => "HEAD",
            "DELETE" => "DELETE",
            _ => "PUT",
        };
        let object = [&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPath]].concat();
        return (operation, crate::location::printable(&object));
    }
    match error {
        E::NotFound { path, .. } | E::PermissionDenied { path, .. } | E::Unauthenticated { path, .. } => {
            ("GET", crate::location::printable(path))
        }
        _ => ("GET", "unknown".to_owned()),
    }
}

/// The text of an error and of all that caused it.
fn text_of(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// What can be told from the text of an answer; its structure is private to `object_store`.
pub(crate) struct Facts {
    status: Option<String>,
    code: Option<String>,
    retries: Option<String>,
    redirect: bool,
    plain: String,
}

impl Facts {
    fn of(error: &object_store::Error) -> Self {
        let text = text_of(error);
        let between = |start: &str, end: &str| {
            let (_, rest) = text.split_once(start)?;
            rest.split_once(end).map(|(value, _)| value.trim().to_owned()).filter(|v| v.len() <= 60)
        };
        let plain = text.split('<').next().unwrap_or_default();
        // URIs of requests may be presigned; the object is named in our own message.
        let plain: Vec<&str> = plain.split_whitespace().filter(|word| !word.contains("://")).collect();
        Self {
            status: between("status code: ", ":"),
            code: between("<Code>", "</Code>"),
            retries: between(", after ", " retries"),
            redirect: text.contains("redirect without LOCATION"),
            plain: crate::location::printable(&plain.join(" ")),
        }
    }

    /// Those of an answer that did not come through `object_store`.
    pub(crate) fn of_answer(status: u16, code: Option<String>, retries: u32) -> Self {
        let retries = (retries > 0).then(|| retries.to_string());
        Self { status: Some(status.to_string()), code, retries, redirect: false, plain: String::new() }
    }

    /// Status, code and retries, for a person.
    pub(crate) fn detail(&self) -> String {
        let mut detail = match (&self.status, &self.code) {
            (Some(status), Some(code)) => format!("{} {code}", status.split(' ').next().unwrap_or(status)),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => self.plain.clone(),
        };
        if let Some(retries) = &self.retries {
            detail.push_str(&format!(", after {retries} retries"));
        }
        detail
    }

    /// The cure, when the answer is about a setting and not about the object.
    pub(crate) fn setting(&self) -> Option<String> {
        let code = self.code.as_deref().unwrap_or_default();
        let cure = match code {
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                "set AWS_REGION to the region of the bucket"
            }
            "RequestTimeTooSkewed" => "set the clock of this machine",
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "get new credentials: the session token expired"
            }
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" => "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            _ if self.redirect => "set AWS_REGION to the region of the bucket",
            // Credentials and data would go with it.
            _ if self.status.as_deref().is_some_and(|status| status.starts_with('3')) => {
                "no redirect is followed; set AWS_REGION to the region of the bucket, and AWS_ENDPOINT to the server itself"
            }
            _ => return None,
        };
        Some(cure.to_owned())
    }

    /// Whether the store knows who asks, or does not, and refuses.
    fn is_refusal(&self) -> bool {
        let status = self.status.as_deref().and_then(|s| s.split(' ').next());
        matches!(status, Some("401" | "403"))
    }

    fn source(&self) -> Box<dyn StdError + Send + Sync> {
        Box::new(Answer(self.plain.clone()))
    }
}

fn right(operation: &str) -> String {
    let action = match operation {
        "GET" | "HEAD" => "s3:GetObject and, if the object is encrypted with KMS, kms:Decrypt",
        "LIST" => "s3:ListBucket",
        "DELETE" => "s3:DeleteObject",
        _ => "s3:PutObject and, if the bucket encrypts with KMS, kms:GenerateDataKey",
    };
    format!("the role needs {action}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ErrorKind;

    fn http(body: &str) -> Box<dyn StdError + Send + Sync> {
        format!(
            "Error performing PUT http://h/x?X-Amz-Signature=CANARY in 1ms, after 10 retries, max_retries: 10, \
             retry_timeout: 180s  - Server returned non-2xx status code: {body}"
        )
        .into()
    }

    #[test]
    fn denied_answer_names_operation_right_and_code_but_no_body() {
        let error = object_store::Error::PermissionDenied {
            path: "x".into(),
            source: http("403 Forbidden: <Error><Code>AccessDenied</Code><Key>CANARY</Key></Error>"),
        };
        let ours = store_error("PUT", "s3://lake/x", error);
        assert_eq!(
            ours.to_string(),
            "ERR_STORE_DENIED: PUT was refused (403 AccessDenied, after 10 retries); file=s3://lake/x; the role needs \
             s3:PutObject and, if the bucket encrypts with KMS, kms:GenerateDataKey"
        );
        assert_eq!(ours.kind(), ErrorKind::BadInput);
        let chain = format!("{ours:?} {}", ours.source().unwrap());
        assert!(!chain.contains("CANARY"), "{chain}");
    }

    #[test]
    fn server_errors_are_retryable_and_settings_are_not() {
        let generic = |body: &str| object_store::Error::Generic { store: "S3", source: http(body) };
        let busy = store_error("GET", "f", generic("503 Service Unavailable: <Error><Code>SlowDown</Code></Error>"));
        assert_eq!(busy.kind(), ErrorKind::Storage);
        assert!(busy.to_string().contains("503 SlowDown, after 10 retries"), "{busy}");
        let token = store_error("GET", "f", generic("400 Bad Request: <Error><Code>ExpiredToken</Code></Error>"));
        assert_eq!(token.kind(), ErrorKind::BadInput);
        assert!(token.to_string().contains("get new credentials"), "{token}");
        let bucket = object_store::Error::NotFound {
            path: "x".into(),
            source: http("404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"),
        };
        assert!(store_error("LIST", "f", bucket).to_string().contains("the bucket does not exist"));
    }

    #[test]
    fn answers_to_other_readers_name_the_object_and_no_signature() {
        let missing = "Error performing list request: Error performing GET \
                       http://user:CANARY@h:1/lake?list-type=2&sig=CANARY in 1ms - Server returned non-2xx status \
                       code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>";
        let error = from_object_store(&object_store::Error::Generic { store: "S3", source: missing.into() });
        assert_eq!(
            error.to_string(),
            "ERR_NOT_FOUND: LIST: the bucket does not exist; file=http://h:1/lake; check the name of the bucket, \
             AWS_ENDPOINT and AWS_REGION"
        );
        let source = "no text of ours".into();
        let error = from_object_store(&object_store::Error::NotFound { path: "lake/x".into(), source });
        assert!(error.to_string().contains("there is no such object; file=lake/x"), "{error}");
    }

    #[test]
    fn full_disk_may_pass_later_and_read_only_may_not() {
        let full = io_error("write", "/out/x", 512, io::Error::from_raw_os_error(28));
        assert_eq!(full.kind(), ErrorKind::Storage);
        assert!(full.to_string().contains("512 bytes") && full.to_string().contains("/out/x"), "{full}");
        assert_eq!(io_error("write", "/out/x", 512, io::Error::from_raw_os_error(30)).kind(), ErrorKind::BadInput);
    }
}
