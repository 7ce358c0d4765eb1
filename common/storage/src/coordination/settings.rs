//! What coordination needs to be told, as plain data, and the one place that turns it into a form.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bucket::BucketCoordination;
use super::memory::MemoryCoordination;
use super::{Coordination, CoordinationError, identity};
use crate::environment::Environment;
use crate::object::Bucket;

/// The section `coordination` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinationSettings {
    /// `bucket`, `etcd://host:2379[,host:2379][/root]`, `etcds://…` (with TLS), or `memory` (within one process).
    pub url: String,
    /// etcd: name to authenticate with.
    pub username: Option<String>,
    /// etcd: file holding the password.
    pub password_file: Option<PathBuf>,
    /// etcd: PEM file of the certificate authority that signed its certificate.
    pub ca: Option<PathBuf>,
    /// etcd: PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// etcd: PEM file of the client's key.
    pub key: Option<PathBuf>,
    /// etcd: bound of every request, in milliseconds.
    pub request_timeout_ms: u64,
    /// etcd: how long a leader that has gone silent keeps its role, in seconds.
    pub lease_ttl_seconds: u64,
    /// etcd: how often a watch proves that it is alive and the view fresh, in milliseconds.
    pub heartbeat_ms: u64,
    /// etcd: how many commits a second the writer sends at most; an edit carries every segment that is ready.
    pub max_commits_per_second: u32,
    /// bucket: the shortest pause between two looks for a new edit, in milliseconds, right after one came.
    pub poll_min_ms: u64,
    /// bucket: the longest pause, reached by doubling while nothing comes.
    pub poll_max_ms: u64,
    /// bucket: how often a running job renews its claim, in seconds.
    pub job_beat_seconds: u64,
    /// bucket: how long a claim must stand unrenewed under a process's own eyes before it takes the job over.
    pub job_stale_seconds: u64,
}

impl Default for CoordinationSettings {
    fn default() -> Self {
        Self {
            url: "bucket".to_owned(),
            username: None,
            password_file: None,
            ca: None,
            cert: None,
            key: None,
            request_timeout_ms: 1_000,
            lease_ttl_seconds: 10,
            heartbeat_ms: 5_000,
            max_commits_per_second: 50,
            poll_min_ms: 10,
            poll_max_ms: 1_000,
            job_beat_seconds: 30,
            job_stale_seconds: 150,
        }
    }
}

impl CoordinationSettings {
    /// The defaults for one URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Everything that is wrong with the settings, each with its reason.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let etcd = self.is_etcd();
        let known = etcd || matches!(self.url.as_str(), "bucket" | "memory");
        let etcd_only = self.username.is_some()
            || self.password_file.is_some()
            || [&self.ca, &self.cert, &self.key].into_iter().any(Option::is_some);
        let rules = [
            (known, format!("coordination.url is {:?}: use bucket, memory, etcd://… or etcds://…", self.url)),
            (etcd || !etcd_only, "coordination: credentials and certificates are for etcd only".to_owned()),
            (
                self.username.is_some() == self.password_file.is_some(),
                "coordination: username and password_file belong together".to_owned(),
            ),
            (
                self.cert.is_some() == self.key.is_some(),
                "coordination: cert and key belong together".to_owned(),
            ),
            (self.request_timeout_ms > 0, "coordination.request_timeout_ms must be above 0".to_owned()),
            (
                self.lease_ttl_seconds >= 2,
                "coordination.lease_ttl_seconds must be at least 2: etcd grants no less".to_owned(),
            ),
            (self.heartbeat_ms > 0, "coordination.heartbeat_ms must be above 0".to_owned()),
            (self.max_commits_per_second > 0, "coordination.max_commits_per_second must be above 0".to_owned()),
            (
                0 < self.poll_min_ms && self.poll_min_ms <= self.poll_max_ms,
                "coordination.poll_min_ms must be above 0 and at most poll_max_ms".to_owned(),
            ),
            (
                0 < self.job_beat_seconds && 3 * self.job_beat_seconds <= self.job_stale_seconds,
                "coordination.job_stale_seconds must be at least three times job_beat_seconds, so that one lost \
                 renewal costs nobody a job"
                    .to_owned(),
            ),
        ];
        let broken: Vec<String> = rules.into_iter().filter(|(ok, _)| !ok).map(|(_, why)| why).collect();
        if broken.is_empty() { Ok(()) } else { Err(broken) }
    }

    fn is_etcd(&self) -> bool {
        self.url.starts_with("etcd://") || self.url.starts_with("etcds://")
    }
}

/// Connects to the coordination service of the database `database`, whose objects lie in `bucket`.
///
/// # Errors
/// `Refused` for settings that cannot work or a form this build does not have; `Unavailable` where the service does not
/// answer, which may be tried again.
pub async fn connect(
    settings: &CoordinationSettings,
    database: &str,
    bucket: Arc<dyn Bucket>,
    env: &Environment,
) -> Result<Arc<dyn Coordination>, CoordinationError> {
    settings.validate().map_err(|broken| CoordinationError::Refused(broken.join("; ")))?;
    identity::check_name(database)?;
    match settings.url.as_str() {
        "bucket" => Ok(BucketCoordination::new(settings, bucket, env)),
        "memory" => Ok(MemoryCoordination::new(bucket)),
        _ => etcd(settings, database, bucket, env).await,
    }
}

#[cfg(feature = "etcd")]
async fn etcd(
    settings: &CoordinationSettings,
    database: &str,
    bucket: Arc<dyn Bucket>,
    env: &Environment,
) -> Result<Arc<dyn Coordination>, CoordinationError> {
    use std::time::Duration;

    use super::etcd::{EtcdCoordination, EtcdSettings};

    let etcd = EtcdSettings {
        username: settings.username.clone(),
        password_file: settings.password_file.clone(),
        ca: settings.ca.clone(),
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
        lease_ttl: Duration::from_secs(settings.lease_ttl_seconds),
        heartbeat: Duration::from_millis(settings.heartbeat_ms),
        ..EtcdSettings::new(settings.url.clone())
    };
    Ok(EtcdCoordination::connect(&etcd, database, bucket, env).await?)
}

#[cfg(not(feature = "etcd"))]
async fn etcd(
    settings: &CoordinationSettings,
    _database: &str,
    _bucket: Arc<dyn Bucket>,
    _env: &Environment,
) -> Result<Arc<dyn Coordination>, CoordinationError> {
    std::future::ready(Err(CoordinationError::Refused(format!(
        "{} needs a build with the feature `etcd`, which this one is without",
        settings.url
    ))))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_contradictions_are_named() {
        assert_eq!(CoordinationSettings::default().validate(), Ok(()));
        let bad = CoordinationSettings {
            username: Some("u".to_owned()),
            poll_min_ms: 0,
            ..CoordinationSettings::new("zookeeper://x")
        };
        assert_eq!(bad.validate().unwrap_err().len(), 4);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let ok: CoordinationSettings = serde_json::from_str(r#"{"url":"etcd://h:1"}"#).unwrap();
        assert_eq!(ok, CoordinationSettings::new("etcd://h:1"));
        assert!(serde_json::from_str::<CoordinationSettings>(r#"{"uri":"bucket"}"#).is_err());
    }
}
