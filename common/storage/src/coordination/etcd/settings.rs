//! What the etcd form needs to be told.

use std::path::PathBuf;
use std::time::Duration;

/// Where etcd is, how to get in, and the bounds of its calls.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// `etcd://host:2379[,host:2379][/root]` or `etcds://…`.
    pub url: String,
    /// Name to authenticate with.
    pub username: Option<String>,
    /// File holding the password; white space at its end is dropped.
    pub password_file: Option<PathBuf>,
    /// PEM file of the certificate authority that signed etcd's certificate.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key.
    pub key: Option<PathBuf>,
    /// Bound of every request.
    pub request_timeout: Duration,
    /// How long a leader that has gone silent keeps its role; etcd takes whole seconds, at least 2.
    pub lease_ttl: Duration,
    /// How often a watch proves that it is alive, and the view that it is fresh.
    pub heartbeat: Duration,
}

impl EtcdSettings {
    /// The defaults for one URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: None,
            password_file: None,
            ca: None,
            cert: None,
            key: None,
            request_timeout: Duration::from_secs(1),
            lease_ttl: Duration::from_secs(10),
            heartbeat: Duration::from_secs(5),
        }
    }
}
