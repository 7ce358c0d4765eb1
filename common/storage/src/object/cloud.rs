//! Connecting to the cloud stores: one file per provider, each with the credentials it takes.
//!
//! No provider's client is ever built without explicit credentials unless the settings allow it, because it would
//! ask the cloud's metadata address (169.254.169.254), which hangs outside that cloud and hands out the machine's
//! identity inside it.

#[cfg(feature = "azure")]
mod azure;
pub(super) mod failure;
#[cfg(feature = "gcp")]
mod gcs;
#[cfg(feature = "aws")]
mod s3;

use std::sync::Arc;
use std::time::Duration;

use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::adapter::{Adapter, Store};
use super::location::{Cloud, Protocol};
use super::{Bucket, OpenError, StoreSettings};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds the client of a cloud bucket; makes no request.
pub(super) fn connect(cloud: &Cloud, settings: &StoreSettings) -> Result<Arc<dyn Bucket>, OpenError> {
    // Without a process-wide choice of cryptography the HTTP client panics; that one is chosen already is fine.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let store = build(cloud, settings)?;
    Ok(Arc::new(Adapter::new(store, cloud, settings)))
}

fn build(cloud: &Cloud, settings: &StoreSettings) -> Result<Store, OpenError> {
    match cloud.protocol {
        #[cfg(feature = "aws")]
        Protocol::S3 => s3::build(cloud, settings),
        #[cfg(feature = "gcp")]
        Protocol::Gcs => gcs::build(cloud, settings),
        #[cfg(feature = "azure")]
        Protocol::Azure => azure::build(cloud, settings),
        #[cfg(not(all(feature = "aws", feature = "gcp", feature = "azure")))]
        protocol => Err(OpenError::Feature { scheme: protocol.scheme(), feature: protocol.feature() }),
    }
}

/// What every provider's HTTP client is told.
#[cfg_attr(
    not(any(feature = "aws", feature = "gcp", feature = "azure")),
    expect(dead_code, reason = "no provider")
)]
fn client_options(cloud: &Cloud, settings: &StoreSettings) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(cloud.allow_http)
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT.min(Duration::from_secs(settings.request_timeout_seconds)))
        .with_pool_max_idle_per_host(settings.max_concurrent_requests)
}

/// The client's own retries: none.
#[cfg_attr(
    not(any(feature = "aws", feature = "gcp", feature = "azure")),
    expect(dead_code, reason = "no provider")
)]
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

/// No credentials were given.
#[cfg_attr(
    not(any(feature = "aws", feature = "gcp", feature = "azure")),
    expect(dead_code, reason = "no provider")
)]
fn denied(cloud: &Cloud, how: &str) -> OpenError {
    OpenError::Denied {
        message: format!(
            "{cloud}: no credentials; set {how}, or store.instance_credentials = true to use the machine's own"
        ),
    }
}

/// A client that could not be built, mostly because credentials cannot be read.
#[cfg_attr(
    not(any(feature = "aws", feature = "gcp", feature = "azure")),
    expect(dead_code, reason = "no provider")
)]
fn unusable(cloud: &Cloud, error: &object_store::Error) -> OpenError {
    OpenError::Denied { message: format!("{cloud}: {error}") }
}
