//! Opening a store by its URL, and stacking the decorators over it.

use std::sync::Arc;

use super::file::FileBucket;
use super::limit::LimitBucket;
use super::location::{Cloud, Location, Protocol};
use super::memory::MemoryBucket;
use super::meter::{Meter, MeterBucket, Prices};
use super::null::NullBucket;
use super::retry::{RetryBucket, RetryPolicy};
use super::{Bucket, StoreSettings};
use crate::environment::Environment;

/// Why a store could not be opened. No request has been made yet: a bucket that cannot be reached shows itself at
/// the first operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The URL is wrong, or has a parameter nobody knows.
    #[error("store URL {url}: {why}")]
    Url {
        /// The URL without secrets.
        url: String,
        /// Which rule it breaks.
        why: String,
    },
    /// Settings that cannot be.
    #[error("{}", .0.join("; "))]
    Settings(Vec<String>),
    /// This program was built without that store.
    #[error("{scheme}:// needs the cargo feature `{feature}`, which this program was built without")]
    Feature {
        /// The URL's scheme.
        scheme: &'static str,
        /// The cargo feature.
        feature: &'static str,
    },
    /// There are no credentials, or they cannot be used, or the directory may not be.
    #[error("{message}")]
    Denied {
        /// What is missing and how to give it.
        message: String,
    },
    /// The directory is not there.
    #[error("{what} is missing: {why}")]
    Missing {
        /// What is missing.
        what: String,
        /// Why it was not made.
        why: String,
    },
    /// Anything else, in the system's own words.
    #[error("{message}")]
    Unusable {
        /// What failed and why.
        message: String,
    },
}

/// What a program does about an [`OpenError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// Wrong flag or setting: ends the program, exit 2.
    Usage,
    /// Credentials refused: ends the program, exit 1.
    Denied,
    /// Not there (yet): a daemon may wait for it.
    Unavailable,
}

impl OpenError {
    /// What a program does about it.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        match self {
            Self::Url { .. } | Self::Settings(_) | Self::Feature { .. } => OpenErrorKind::Usage,
            Self::Denied { .. } => OpenErrorKind::Denied,
            Self::Missing { .. } | Self::Unusable { .. } => OpenErrorKind::Unavailable,
        }
    }
}

/// A store and the counters of what goes to it.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The store.
    pub bucket: Arc<dyn Bucket>,
    /// Its counters.
    pub meter: Arc<Meter>,
}

/// Opens the store at `url` (`settings.url` is not looked at: a flag may have overruled it). Registers metrics in
/// `env`, so one environment opens one store. Makes no request to a remote store.
///
/// # Errors
/// See [`OpenError`].
pub fn open(url: &str, settings: &StoreSettings, env: &Environment) -> Result<Arc<dyn Bucket>, OpenError> {
    Ok(open_metered(url, settings, env)?.bucket)
}

/// Like [`open`], with the counters.
///
/// # Errors
/// See [`OpenError`].
pub fn open_metered(url: &str, settings: &StoreSettings, env: &Environment) -> Result<Opened, OpenError> {
    settings.validate().map_err(OpenError::Settings)?;
    let location = Location::parse(url)?;
    let bucket: Arc<dyn Bucket> = match &location {
        Location::File(root) => Arc::new(FileBucket::open(root, env)?),
        Location::Memory(None) => Arc::new(MemoryBucket::new(Arc::clone(&env.clock))),
        Location::Memory(Some(name)) => MemoryBucket::named(name, &env.clock),
        Location::Null => Arc::new(NullBucket::new(Arc::clone(&env.clock))),
        Location::Cloud(cloud) => connect(cloud, settings)?,
    };
    let meter = Meter::new(prices(&location, settings), &env.metrics);
    if matches!(location, Location::Memory(_) | Location::Null) {
        // They never fail in passing and have no one to spare.
        return Ok(Opened { bucket: Arc::new(MeterBucket::new(bucket, Arc::clone(&meter))), meter });
    }
    Ok(decorate(bucket, settings, env, meter))
}

/// Puts metering, admission and retries over any bucket.
#[must_use]
pub fn decorate(
    bucket: Arc<dyn Bucket>,
    settings: &StoreSettings,
    env: &Environment,
    meter: Arc<Meter>,
) -> Opened {
    let metered = Arc::new(MeterBucket::new(bucket, Arc::clone(&meter)));
    let limited = Arc::new(LimitBucket::new(metered, settings.max_concurrent_requests));
    let policy = RetryPolicy::with_budget(settings.retry_budget());
    Opened { bucket: Arc::new(RetryBucket::new(limited, policy, Arc::clone(&env.entropy))), meter }
}

/// The settings' prices, or the providers' list prices for the same region in standard storage.
fn prices(location: &Location, settings: &StoreSettings) -> Prices {
    let (writes, reads) = match location {
        Location::File(_) | Location::Memory(_) | Location::Null => (0.0, 0.0),
        Location::Cloud(cloud) => match cloud.protocol {
            Protocol::S3 | Protocol::Gcs => (5.0, 0.4),
            Protocol::Azure => (6.5, 0.5),
        },
    };
    Prices {
        million_writes: settings.usd_per_million_writes.unwrap_or(writes),
        million_reads: settings.usd_per_million_reads.unwrap_or(reads),
        gib_read: settings.usd_per_gib_read.unwrap_or(0.0),
    }
}

#[cfg(feature = "cloud")]
fn connect(cloud: &Cloud, settings: &StoreSettings) -> Result<Arc<dyn Bucket>, OpenError> {
    super::cloud::connect(cloud, settings)
}

#[cfg(not(feature = "cloud"))]
fn connect(cloud: &Cloud, _: &StoreSettings) -> Result<Arc<dyn Bucket>, OpenError> {
    Err(OpenError::Feature { scheme: cloud.protocol.scheme(), feature: cloud.protocol.feature() })
}
