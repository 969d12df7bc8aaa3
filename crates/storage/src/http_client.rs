//! The HTTP client of a store: made by the settings of `object_store`, but it follows no redirect.
//!
//! `object_store` lets `reqwest` follow ten of them, which takes the authorization off a request to another host and
//! nothing else: a session token, the key of a customer and the bytes of a write would go to whomever a store names. S3
//! needs no redirect where region and endpoint are right, so one is an answer like others.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::{ClientOptions, Error, Result};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, NoProxy, Proxy};

/// Makes clients that follow no redirect.
#[derive(Debug, Default)]
pub(crate) struct NoRedirects;

impl HttpConnector for NoRedirects {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        client(&ClientSettings(options)).map(HttpClient::new)
    }
}

fn client(settings: &ClientSettings<'_>) -> Result<Client> {
    use ClientConfigKey as K;
    let mut builder = Client::builder().redirect(Policy::none());
    let own = || concat!("item-affinity/", env!("CARGO_PKG_VERSION")).to_owned();
    builder = builder.user_agent(settings.text(K::UserAgent).unwrap_or_else(own));
    if let Some(url) = settings.text(K::ProxyUrl) {
        let mut proxy = Proxy::all(url).map_err(|_| refused(K::ProxyUrl))?;
        if let Some(pem) = settings.text(K::ProxyCaCertificate) {
            let certificate = Certificate::from_pem(pem.as_bytes()).map_err(|_| refused(K::ProxyCaCertificate))?;
            builder = builder.add_root_certificate(certificate);
        }
        if let Some(hosts) = settings.text(K::ProxyExcludes) {
            proxy = proxy.no_proxy(NoProxy::from_string(&hosts));
        }
        builder = builder.proxy(proxy);
    }
    if let Some(time) = settings.duration(K::Timeout)? {
        builder = builder.timeout(time);
    }
    if let Some(time) = settings.duration(K::ConnectTimeout)? {
        builder = builder.connect_timeout(time);
    }
    if let Some(time) = settings.duration(K::PoolIdleTimeout)? {
        builder = builder.pool_idle_timeout(time);
    }
    if let Some(most) = settings.number(K::PoolMaxIdlePerHost)? {
        builder = builder.pool_max_idle_per_host(most);
    }
    if let Some(time) = settings.duration(K::Http2KeepAliveInterval)? {
        builder = builder.http2_keep_alive_interval(time);
    }
    if let Some(time) = settings.duration(K::Http2KeepAliveTimeout)? {
        builder = builder.http2_keep_alive_timeout(time);
    }
    if let Some(size) = settings.number::<u32>(K::Http2MaxFrameSize)? {
        builder = builder.http2_max_frame_size(size);
    }
    if settings.is_on(K::Http2KeepAliveWhileIdle)? {
        builder = builder.http2_keep_alive_while_idle(true);
    }
    if settings.is_on(K::Http1Only)? {
        builder = builder.http1_only();
    }
    if settings.is_on(K::Http2Only)? {
        builder = builder.http2_prior_knowledge();
    }
    if settings.is_on(K::AllowInvalidCertificates)? {
        builder = builder.danger_accept_invalid_certs(true);
    }
    if settings.is_on(K::RandomizeAddresses)? {
        builder = builder.dns_resolver(Arc::new(AnyAddress));
    }
    // A body that is unpacked on the way has another length than the object.
    builder = builder.no_gzip().no_brotli().no_zstd().no_deflate();
    let client = builder.https_only(!settings.is_on(K::AllowHttp)?).build();
    client.map_err(|e| Error::Generic { store: "HTTP client", source: Box::new(e) })
}

/// The settings of a client, by their keys.
struct ClientSettings<'a>(&'a ClientOptions);

impl ClientSettings<'_> {
    fn text(&self, key: ClientConfigKey) -> Option<String> {
        self.0.get_config_value(&key)
    }

    fn number<T: FromStr>(&self, key: ClientConfigKey) -> Result<Option<T>> {
        self.text(key).map(|text| text.parse::<T>().map_err(|_| refused(key))).transpose()
    }

    fn duration(&self, key: ClientConfigKey) -> Result<Option<Duration>> {
        self.text(key).map(|text| humantime::parse_duration(&text).map_err(|_| refused(key))).transpose()
    }

    /// A switch, by the words that `object_store` takes.
    fn is_on(&self, key: ClientConfigKey) -> Result<bool> {
        match self.text(key).unwrap_or_default().to_ascii_lowercase().as_str() {
            "1" | "true" | "on" | "yes" | "y" => Ok(true),
            "" | "0" | "false" | "off" | "no" | "n" => Ok(false),
            _ => Err(refused(key)),
        }
    }
}

/// The setting by its name alone: a value may be secret, as that of a proxy, and errors repeat values.
fn refused(key: ClientConfigKey) -> Error {
    Error::Generic { store: "HTTP client", source: format!("{} cannot be used", key.as_ref()).into() }
}

/// Resolves names to their addresses in random order, so that connections spread over the servers of a store.
#[derive(Debug)]
struct AnyAddress;

impl Resolve for AnyAddress {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let look_up = move || (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
            let mut addresses = tokio::task::spawn_blocking(look_up).await??;
            addresses.sort_by_cached_key(|_| rand::random::<u64>());
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn made(settings: &[(ClientConfigKey, &str)]) -> Result<Client> {
        let with = |options: ClientOptions, (key, value): &(ClientConfigKey, &str)| options.with_config(*key, *value);
        client(&ClientSettings(&settings.iter().fold(ClientOptions::new(), with)))
    }

    #[test]
    fn p31_a_setting_that_cannot_be_used_is_named_and_its_value_is_not() {
        use ClientConfigKey as K;
        for (key, value, good) in [
            (K::Timeout, "30 seconds", true),
            (K::Timeout, "canary", false),
            (K::ProxyUrl, "http://user:secret@proxy:3128", true),
            (K::ProxyUrl, "http://canary canary", false),
            (K::PoolMaxIdlePerHost, "7", true),
            (K::PoolMaxIdlePerHost, "canary", false),
            (K::Http2MaxFrameSize, "65536", true),
            (K::AllowHttp, "Yes", true),
            (K::AllowHttp, "canary", false),
            (K::RandomizeAddresses, "off", true),
        ] {
            match made(&[(key, value)]) {
                Ok(_) => assert!(good, "{key:?} {value}"),
                Err(error) => {
                    assert!(!good && error.to_string().contains(key.as_ref()), "{error}");
                    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
                }
            }
        }
    }
}
