//! The sections every program reads.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::CommonArgs;
use super::error::ConfigError;
use super::print::print;
use super::tree::Layers;

/// Name of the database where none is given.
pub const DEFAULT_DATABASE: &str = "default";

/// `[store]`: where the database lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The database's own prefix: `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub url: String,
    /// The database's name.
    pub database: String,
    /// How long one operation is repeated through throttling, broken connections and 5xx answers.
    pub retry_budget_seconds: u64,
    /// How long one attempt may stay without progress; uploads get time for their size on top.
    pub request_timeout_seconds: u64,
    /// Requests in flight at once, reads and writes counted apart.
    pub max_concurrent_requests: usize,
    /// Whether the machine's own cloud identity (the metadata address) may be asked for credentials.
    pub instance_credentials: bool,
    /// Price of a million puts, creates and lists, in US dollars; the provider's list price if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_million_writes: Option<f64>,
    /// Price of a million gets and heads, in US dollars; the provider's list price if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_million_reads: Option<f64>,
    /// Price of reading one GiB out of the store, in US dollars; nothing if not given (the same region).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_gib_read: Option<f64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            database: DEFAULT_DATABASE.to_owned(),
            retry_budget_seconds: 60,
            request_timeout_seconds: 30,
            max_concurrent_requests: 64,
            instance_credentials: false,
            usd_per_million_writes: None,
            usd_per_million_reads: None,
            usd_per_gib_read: None,
        }
    }
}

/// `[coordination]`: where the head of the manifest is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinationSettings {
    /// `bucket`, `etcd://host:2379[,host:2379][/root]` or `etcds://…`.
    pub url: String,
    /// Name to log in to etcd with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// File with the certificates of authorities etcd's is checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// File with our own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// File with the key of our own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// etcd: bound of every request, in milliseconds.
    pub request_timeout_ms: u64,
    /// etcd: how long a leader that has gone silent keeps its role, in seconds.
    pub lease_ttl_seconds: u64,
    /// etcd: how often a watch proves that it is alive and the view fresh, in milliseconds.
    pub heartbeat_ms: u64,
    /// etcd: commits a second the writer sends at most; one carries every segment that is ready.
    pub max_commits_per_second: u32,
    /// bucket: the shortest pause between two looks for a new edit, in milliseconds.
    pub poll_min_ms: u64,
    /// bucket: the longest pause, reached by doubling while nothing comes.
    pub poll_max_ms: u64,
    /// bucket: how often a running job renews its claim, in seconds.
    pub job_beat_seconds: u64,
    /// bucket: how long a claim must stand unrenewed before another process takes the job over, in seconds.
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

/// `[server]`: the HTTP face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Address to listen at; the role's port on loopback where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// URL others are told; required where `listen` is a wildcard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// How long a drain may take before what is left is cut.
    #[serde(with = "duration")]
    pub shutdown_timeout: Duration,
    /// How long a one-shot command tries to reach bucket and coordination.
    #[serde(with = "duration")]
    pub startup_timeout: Duration,
    /// Connections served at once; beyond it only health is answered, the rest gets 503.
    pub max_connections: usize,
    /// How long a client may take to send a request's head, and how long a connection may idle between requests.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// Requests in progress at once on one HTTP/2 connection.
    pub max_streams_per_connection: u32,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: None,
            advertise: None,
            shutdown_timeout: Duration::from_secs(20),
            startup_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            header_timeout: Duration::from_secs(60),
            max_streams_per_connection: 256,
        }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For eyes.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,writer_node=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// Everything a program of one role reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings<R> {
    /// `[store]`.
    pub store: StoreSettings,
    /// `[coordination]`.
    pub coordination: CoordinationSettings,
    /// `[server]`.
    pub server: ServerSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// The role's own section.
    pub role: R,
}

impl<R: Serialize + for<'de> Deserialize<'de> + Default> Settings<R> {
    /// Reads the shared sections and the role's, called `role`, and checks the shared ones together.
    pub fn from_layers(layers: &Layers, role: &str) -> Result<Self, ConfigError> {
        let settings = Self {
            store: layers.section("store")?,
            coordination: layers.section("coordination")?,
            server: layers.section("server")?,
            log: layers.section("log")?,
            role: layers.section(role)?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Reads all four layers as the command line says; `environment` is the process's.
    pub fn load(
        args: &CommonArgs,
        role: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::read(args.config.as_deref(), environment)?;
        args.lay_on(&mut layers)?;
        Self::from_layers(&layers, role)
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_database_name(&self.store.database).map_err(|e| ConfigError::at("store.database", e))?;
        if self.coordination.url.is_empty() {
            return Err(ConfigError::at("coordination.url", "is empty; it is bucket or etcd://host:port"));
        }
        self.server.check()
    }

    /// The settings as a file, secrets hidden; the role's section under `role`.
    pub fn to_toml(&self, role: &str) -> Result<String, ConfigError> {
        let mut out = String::new();
        print(&mut out, "store", &self.store)?;
        print(&mut out, "coordination", &self.coordination)?;
        print(&mut out, "server", &self.server)?;
        print(&mut out, "log", &self.log)?;
        print(&mut out, role, &self.role)?;
        Ok(out)
    }
}

impl ServerSettings {
    fn check(&self) -> Result<(), ConfigError> {
        if self.listen.is_some_and(|a| a.ip().is_unspecified()) && self.advertise.is_none() {
            return Err(ConfigError::at(
                "server.advertise",
                "is required where --listen is a wildcard address: the URL others reach this program at",
            ));
        }
        if let Some(url) = &self.advertise {
            let ok = url.parse::<http::Uri>().is_ok_and(|u| {
                matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty())
            });
            if !ok {
                return Err(ConfigError::at(
                    "server.advertise",
                    format!("{url:?} is not a URL such as http://host:7301"),
                ));
            }
        }
        for (name, value) in
            [("shutdown_timeout", self.shutdown_timeout), ("header_timeout", self.header_timeout)]
        {
            if value.is_zero() {
                return Err(ConfigError::at(format!("server.{name}"), "must be above zero"));
            }
        }
        if self.max_connections == 0 || self.max_streams_per_connection == 0 {
            return Err(ConfigError::at(
                "server.max_connections",
                "and max_streams_per_connection must be above zero",
            ));
        }
        Ok(())
    }

    /// The address to listen at, on loopback and `port` where none is set.
    #[must_use]
    pub fn listen_or(&self, port: u16) -> SocketAddr {
        self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// What others are told when the listener is bound to `local`.
    #[must_use]
    pub fn advertise_or(&self, local: SocketAddr) -> String {
        let url = self.advertise.clone().unwrap_or_else(|| format!("http://{local}"));
        url.trim_end_matches('/').to_owned()
    }
}

/// Whether `name` can name a database: 1 to 63 of `[a-z0-9-]`.
pub fn check_database_name(name: &str) -> Result<(), String> {
    let fits = (1..=63).contains(&name.len());
    if fits && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Ok(());
    }
    Err(format!("{name:?} is not a database name: 1 to 63 lower-case letters, digits and hyphens"))
}

/// Durations in settings: `"20s"`, `"500ms"`, or whole seconds.
pub mod duration {
    use std::fmt;
    use std::time::Duration;

    use serde::de::{self, Deserializer, Visitor};
    use serde::ser::Serializer;

    use crate::wire::duration::parse;

    /// As people write it.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::wire::duration::format(*duration))
    }

    /// From text with a unit, or whole seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct Durations;
        impl Visitor<'_> for Durations {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"20s\" or \"500ms\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                parse(text).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
                u64::try_from(seconds).map(Duration::from_secs).map_err(|_| E::custom("must not be negative"))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
                Ok(Duration::from_secs(seconds))
            }
        }
        deserializer.deserialize_any(Durations)
    }
}
