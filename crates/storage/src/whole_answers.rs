//! Answers of a server that are read to their end before anybody acts on them.
//!
//! `object_store` repeats a request that failed, and goes on with a download that broke; but a listing whose text breaks
//! off is an error at once. Read here, such an answer is a request that failed, and is repeated like others.
//!
//! The answer to a write that asked for encryption has to say that it was done.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use crate::http_client::NoRedirects;

/// Connects as `object_store` does but follows no redirect, and reads short answers whole.
#[derive(Debug, Default)]
pub(crate) struct WholeAnswers(NoRedirects);

impl HttpConnector for WholeAnswers {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Whole(self.0.connect(options)?)))
    }
}

/// The header that asks for encryption, and says in the answer that it was done.
const ENCRYPTION: &str = "x-amz-server-side-encryption";

/// A store wrote an object and did not say that it encrypted it as asked; travels through `object_store` as a source.
#[derive(Debug, thiserror::Error)]
#[error("the store did not say that it encrypts what it was asked to encrypt")]
pub(crate) struct NotEncrypted;

#[derive(Debug)]
struct Whole(HttpClient);

#[async_trait]
impl HttpService for Whole {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_listing = request.uri().query().is_some_and(|query| query.contains("list-type="));
        let is_download = request.method().as_str() == "GET" && !is_listing;
        let encryption = request.headers().get(ENCRYPTION).map(|value| value.as_bytes().to_vec());
        let answer = self.0.execute(request).await.map_err(|error| match error.kind() {
            HttpErrorKind::Unknown => broken(error),
            _ => error,
        })?;
        if let Some(asked) = encryption
            && answer.status().is_success()
            && answer.headers().get(ENCRYPTION).is_none_or(|done| done.as_bytes() != asked)
        {
            // Not a kind that is repeated: the store would answer the same.
            return Err(HttpError::new(HttpErrorKind::Unknown, NotEncrypted));
        }
        if is_download {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.bytes().await.map_err(broken)?;
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// A connection that broke may have brought the request to the server: this kind is repeated when that does no harm.
fn broken(error: HttpError) -> HttpError {
    match error.kind() {
        HttpErrorKind::Timeout => error,
        _ => HttpError::new(HttpErrorKind::Interrupted, error),
    }
}
