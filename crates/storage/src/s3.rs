//! S3 stores from the environment: credentials, endpoint, timeouts and retries.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::client::{ClientConfigKey, CredentialProvider};
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use url::{Host, Url};

use crate::s3_uploads::Uploads;
use crate::store_error::NoCredentials;
use crate::whole_answers::WholeAnswers;
use crate::{Error, Result};

pub(crate) const RETRY_TIMEOUT: &str = "ITEM_AFFINITY_RETRY_TIMEOUT";

/// What a process was told, once, instead of the three minutes.
pub(crate) static RETRY_FOR: OnceLock<Duration> = OnceLock::new();

/// How long credentials may take in all; a machine without any must find out quickly.
const CREDENTIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// The store of a bucket, by the settings that are given or by those of the environment.
pub(crate) fn build(bucket: &str, settings: Option<&Settings>) -> Result<Arc<dyn ObjectStore>> {
    build_from(builder_of(settings), bucket, retry_timeout(settings)?)
}

/// The open uploads of a bucket, by the same settings.
pub(crate) fn uploads(bucket: &str, settings: Option<&Settings>) -> Result<Uploads> {
    let patience = retry_timeout(settings)?;
    let builder = prepared(builder_of(settings), bucket, patience)?;
    Uploads::new(bucket, builder, patience).map_err(|e| setting(&format!("s3://{bucket}/"), e))
}

fn builder_of(settings: Option<&Settings>) -> AmazonS3Builder {
    match settings {
        None => AmazonS3Builder::from_env(),
        Some(settings) => {
            let known =
                |(name, value): (&String, &String)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone()));
            settings
                .iter()
                .filter_map(known)
                .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
        }
    }
}

/// Settings by the names that they have in the environment.
pub(crate) type Settings = BTreeMap<String, String>;

/// The total time that one operation may be retried.
pub(crate) fn retry_timeout(settings: Option<&Settings>) -> Result<Duration> {
    let text = match settings {
        None => std::env::var(RETRY_TIMEOUT).ok(),
        Some(settings) => settings.get(RETRY_TIMEOUT).cloned(),
    };
    let default = RETRY_FOR.get().copied().unwrap_or(Duration::from_secs(180));
    text.map_or(Ok(default), |text| parse_retry_timeout(&text))
}

/// The encryption that writes ask for.
pub(crate) fn encryption(settings: Option<&Settings>) -> Option<String> {
    const NAME: &str = "AWS_SERVER_SIDE_ENCRYPTION";
    match settings {
        None => std::env::var(NAME).ok(),
        Some(settings) => settings.get(NAME).cloned(),
    }
}

fn parse_retry_timeout(text: &str) -> Result<Duration> {
    match text.trim().parse::<u64>() {
        Ok(seconds @ 0..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::StoreSetting {
            reason: format!("{RETRY_TIMEOUT} is not a number of seconds in 0..=86400"),
            file: "environment".to_owned(),
            cure: format!("set {RETRY_TIMEOUT}=180, or unset it"),
            source: None,
        }),
    }
}

fn build_from(builder: AmazonS3Builder, bucket: &str, retry_timeout: Duration) -> Result<Arc<dyn ObjectStore>> {
    let store = prepared(builder, bucket, retry_timeout)?.build();
    Ok(Arc::new(store.map_err(|e| setting(&format!("s3://{bucket}/"), e))?))
}

/// The builder with everything that we want of a store, and with what it refuses.
fn prepared(builder: AmazonS3Builder, bucket: &str, retry_timeout: Duration) -> Result<AmazonS3Builder> {
    let file = format!("s3://{bucket}/");
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout };
    let mut builder = builder.with_bucket_name(bucket).with_retry(retry).with_http_connector(WholeAnswers::default());
    builder = allow_loopback_http(builder, &file)?;
    for (key, value) in [(ClientConfigKey::ConnectTimeout, "5 seconds"), (ClientConfigKey::Timeout, "30 seconds")] {
        builder = default_value(builder, AmazonS3ConfigKey::Client(key), value);
    }
    let set = |key| builder.get_config_value(&key).is_some();
    let keys = (set(AmazonS3ConfigKey::AccessKeyId), set(AmazonS3ConfigKey::SecretAccessKey));
    let unsigned = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).is_some_and(|v| v == "true");
    match keys {
        (true, false) => return Err(half("AWS_SECRET_ACCESS_KEY is not set", file)),
        (false, true) => return Err(half("AWS_ACCESS_KEY_ID is not set", file)),
        (false, false) if !unsigned => {
            let provider = quick_credentials(builder.clone(), &file)?;
            builder = builder.with_credentials(provider);
        }
        _ => {}
    }
    Ok(builder)
}

fn half(reason: &str, file: String) -> Error {
    Error::Credentials { reason: reason.to_owned(), file }
}

fn setting(file: &str, error: object_store::Error) -> Error {
    // The text may repeat a value of the environment, so only its class is told.
    drop(error);
    Error::StoreSetting {
        reason: "the AWS_* variables of the environment do not describe a usable store".to_owned(),
        file: file.to_owned(),
        cure: "check AWS_ENDPOINT, AWS_REGION and the switches, which are true or false".to_owned(),
        source: None,
    }
}

fn default_value(builder: AmazonS3Builder, key: AmazonS3ConfigKey, value: &str) -> AmazonS3Builder {
    if builder.get_config_value(&key).is_some() { builder } else { builder.with_config(key, value) }
}

/// Plain http is for this machine, unless `AWS_ALLOW_HTTP` says that the network is trusted.
fn allow_loopback_http(builder: AmazonS3Builder, file: &str) -> Result<AmazonS3Builder> {
    let endpoint = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let Some(endpoint) = endpoint else { return Ok(builder) };
    let Ok(url) = Url::parse(&endpoint) else {
        return Err(Error::StoreSetting {
            reason: "AWS_ENDPOINT is not a URL".to_owned(),
            file: file.to_owned(),
            cure: "write it as https://host:port".to_owned(),
            source: None,
        });
    };
    if url.scheme() != "http" {
        return Ok(builder);
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    let allowed = builder.get_config_value(&allow_http).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let own_key: Option<AmazonS3ConfigKey> = "aws_sse_customer_key_base64".parse().ok();
    let own_key = own_key.and_then(|key| builder.get_config_value(&key));
    if own_key.is_some() && !loopback {
        return Err(Error::StoreSetting {
            reason: "AWS_SSE_CUSTOMER_KEY_BASE64 would go over the network with every request by plain http".to_owned(),
            file: file.to_owned(),
            cure: "use an https endpoint".to_owned(),
            source: None,
        });
    }
    if loopback || allowed {
        return Ok(builder.with_allow_http(true));
    }
    Err(Error::StoreSetting {
        reason: format!(
            "plain http to {} would show data and credentials on the network",
            url.host_str().unwrap_or("?")
        ),
        file: file.to_owned(),
        cure: "use an https endpoint, or set AWS_ALLOW_HTTP=true on a network that you trust".to_owned(),
        source: None,
    })
}

/// Credentials of a role, which give up after seconds and not after the retries of a data request.
fn quick_credentials(builder: AmazonS3Builder, file: &str) -> Result<AwsCredentialProvider> {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(500),
            base: 2.,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(4),
    };
    let store = builder
        .with_retry(retry)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "4 seconds")
        .build()
        .map_err(|e| setting(file, e))?;
    Ok(Arc::new(QuickCredentials(Arc::clone(store.credentials()))))
}

#[derive(Debug)]
struct QuickCredentials(AwsCredentialProvider);

#[async_trait]
impl CredentialProvider for QuickCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let failed = |source: NoCredentials| object_store::Error::Generic { store: "S3", source: Box::new(source) };
        match tokio::time::timeout(CREDENTIAL_TIMEOUT, self.0.get_credential()).await {
            Ok(Ok(credential)) => Ok(credential),
            // The text of the provider may hold tokens of the metadata service.
            Ok(Err(_)) => Err(failed(NoCredentials(
                "no credentials found (tried the environment, web identity, container and instance metadata)"
                    .to_owned(),
            ))),
            Err(_) => Err(failed(NoCredentials(format!(
                "no credentials found: the credential service did not answer within {} seconds",
                CREDENTIAL_TIMEOUT.as_secs()
            )))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use object_store::{ObjectStoreExt, path::Path};

    fn built(builder: AmazonS3Builder) -> Result<Arc<dyn ObjectStore>> {
        build_from(builder, "lake", Duration::from_secs(1))
    }

    fn with_keys() -> AmazonS3Builder {
        AmazonS3Builder::new().with_access_key_id("k").with_secret_access_key("CANARY")
    }

    #[test]
    fn plain_http_is_refused_off_loopback() {
        for (endpoint, good) in [
            ("http://127.0.0.1:9", true),
            ("http://localhost:9", true),
            ("http://[::1]:9", true),
            ("https://example.org", true),
            ("http://example.org", false),
            ("http://169.254.169.254", false),
            ("http://localhost.example.org", false),
            ("nonsense", false),
        ] {
            let result = built(with_keys().with_endpoint(endpoint));
            assert_eq!(result.is_ok(), good, "{endpoint}");
        }
        assert!(built(with_keys().with_endpoint("http://example.org").with_allow_http(true)).is_ok());
    }

    #[test]
    fn p32_a_key_of_the_customer_goes_over_no_plain_http() {
        let keyed = |endpoint: &str| {
            with_keys()
                .with_config("aws_server_side_encryption".parse().unwrap(), "sse-c")
                .with_config("aws_sse_customer_key_base64".parse().unwrap(), "Q0FOQVJZLUNBTkFSWS1DQU5BUlktQ0FOQVJZLTMy")
                .with_endpoint(endpoint)
                .with_allow_http(true)
        };
        let error = built(keyed("http://example.org")).unwrap_err().to_string();
        assert!(error.contains("plain http") && !error.contains("Q0FO"), "{error}");
        assert!(built(keyed("https://example.org")).is_ok());
    }

    #[test]
    fn half_of_the_credentials_is_an_error_that_names_the_other_half() {
        let error = built(AmazonS3Builder::new().with_access_key_id("k")).unwrap_err();
        assert!(error.to_string().starts_with("ERR_CREDENTIALS: AWS_SECRET_ACCESS_KEY is not set"), "{error}");
    }

    #[test]
    fn retry_timeout_is_seconds_or_an_error() {
        assert_eq!(parse_retry_timeout("7").unwrap(), Duration::from_secs(7));
        for bad in ["", "-1", "1.5", "86401", "soon"] {
            assert_eq!(parse_retry_timeout(bad).unwrap_err().kind(), crate::ErrorKind::BadInput, "{bad}");
        }
    }

    #[tokio::test]
    async fn missing_credentials_fail_quickly_and_say_what_to_set() {
        // A closed port stands in for a machine without a metadata service.
        let store = built(AmazonS3Builder::new().with_metadata_endpoint("http://127.0.0.1:9")).unwrap();
        let begun = std::time::Instant::now();
        let error = store.head(&Path::from("x")).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10));
        let error = crate::store_error::store_error("HEAD", "s3://lake/x", error);
        let text = error.to_string();
        assert!(text.starts_with("ERR_CREDENTIALS: no credentials found (tried the environment"), "{text}");
        assert!(text.contains("AWS_ACCESS_KEY_ID") && text.contains("s3://lake/x"), "{text}");
        assert_eq!(error.kind(), crate::ErrorKind::BadInput);
    }
}
