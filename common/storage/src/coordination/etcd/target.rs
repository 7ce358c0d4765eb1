//! Where etcd is and how to get in: the URL, the credentials and the certificates, read once and checked together.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::settings::EtcdSettings;
use crate::coordination::CoordinationError;

/// The subtree used where the URL names none.
const DEFAULT_ROOT: &str = "isle";

/// The port used where the URL names none.
const DEFAULT_PORT: u16 = 2379;

/// HTTP/2 pings keep watch over connections that carry a stream. etcd closes connections that ping more often than
/// its `--grpc-keepalive-min-time`, 5 s by default.
const PING_EVERY: Duration = Duration::from_secs(6);

/// An unanswered ping ends the connection after this long.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle socket goes before the kernel probes it.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// An etcd URL taken apart: `etcd://host:port[,host:port…][/root]`, or `etcds://` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EtcdUrl {
    /// `http://host:port` or `https://host:port`, at least one.
    pub(super) endpoints: Vec<String>,
    /// The subtree, without slashes at its ends.
    pub(super) root: String,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
}

impl EtcdUrl {
    /// Parses an etcd URL.
    ///
    /// # Errors
    /// A text saying which rule it breaks.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("coordination URL {url:?}: {why}");
        let (tls, rest) = match url.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(bad("expected etcd://host:2379[,host:2379][/root] or etcds://…")),
        };
        if rest.contains('@') {
            return Err(bad(
                "credentials do not belong in the URL: set coordination.username and password_file",
            ));
        }
        let (hosts, root) = rest.split_once('/').unwrap_or((rest, ""));
        let root = root.trim_matches('/');
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        if !root.bytes().all(allowed) {
            return Err(bad("the root may only have characters of [A-Za-z0-9._/-]"));
        }
        let scheme = if tls { "https" } else { "http" };
        let endpoint =
            |host: &str| endpoint(scheme, host).ok_or_else(|| bad("expected host:port between commas"));
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let root = if root.is_empty() { DEFAULT_ROOT } else { root };
        Ok(Self { endpoints, root: root.to_owned(), tls })
    }
}

/// `scheme://host:port`; `None` where the text is no host.
fn endpoint(scheme: &str, host: &str) -> Option<String> {
    let parsed = url::Url::parse(&format!("{scheme}://{host}")).ok()?;
    let plain = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
    // The scheme's own port (80, 443) is dropped by the parser when it is written out; it is then what the text ends in.
    let port = parsed.port().or_else(|| host.ends_with(":80").then_some(80));
    let port = port.or_else(|| host.ends_with(":443").then_some(443)).unwrap_or(DEFAULT_PORT);
    plain.then_some(())?;
    Some(format!("{scheme}://{}:{port}", parsed.host_str().filter(|h| !h.is_empty())?))
}

/// Everything needed to dial.
pub(super) struct Target {
    /// Where.
    pub(super) url: EtcdUrl,
    /// How.
    pub(super) options: ConnectOptions,
    /// Bound of every request.
    pub(super) request_timeout: Duration,
    /// How often a connection made from this was, or may have been, interrupted.
    pub(super) interruptions: AtomicU64,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The options hold the password.
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Target {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// [`CoordinationError::Refused`] for a malformed URL, an unreadable file, or settings that contradict each other.
    pub(super) async fn read(settings: &EtcdSettings) -> Result<Self, CoordinationError> {
        let url = EtcdUrl::parse(&settings.url).map_err(CoordinationError::Refused)?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(settings.request_timeout)
            .with_tcp_keepalive(TCP_KEEPALIVE)
            .with_keep_alive(PING_EVERY, PING_TIMEOUT)
            // Pings on a connection without a stream break etcd's rules: it closes such a connection after the third,
            // and whatever is sent at that moment has an unknown outcome. The request timeout watches over these.
            .with_keep_alive_while_idle(false)
            // A member cut off from its peers answers "no leader" instead of serving what it last knew.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = credentials(settings).await? {
            options = options.with_user(user, password);
        }
        if let Some(tls) = certificates(settings, &url).await? {
            options = options.with_tls(tls);
        }
        Ok(Self { url, options, request_timeout: settings.request_timeout, interruptions: AtomicU64::new(0) })
    }
}

async fn credentials(settings: &EtcdSettings) -> Result<Option<(String, String)>, CoordinationError> {
    match (&settings.username, &settings.password_file) {
        (None, None) => Ok(None),
        (Some(user), Some(file)) => {
            let password = String::from_utf8_lossy(&read(file, "password_file").await?).trim_end().to_owned();
            Ok(Some((user.clone(), password)))
        }
        _ => Err(refused("coordination.username and coordination.password_file go together")),
    }
}

async fn certificates(
    settings: &EtcdSettings,
    url: &EtcdUrl,
) -> Result<Option<TlsOptions>, CoordinationError> {
    if !url.tls {
        let given = settings.ca.is_some() || settings.cert.is_some() || settings.key.is_some();
        return if given {
            Err(refused("coordination.ca, cert and key need an etcds:// URL"))
        } else {
            Ok(None)
        };
    }
    let Some(ca) = &settings.ca else {
        return Err(refused("an etcds:// URL needs coordination.ca, the certificate that signed etcd's"));
    };
    let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca, "ca").await?));
    match (&settings.cert, &settings.key) {
        (None, None) => Ok(Some(tls)),
        (Some(cert), Some(key)) => {
            Ok(Some(tls.identity(Identity::from_pem(read(cert, "cert").await?, read(key, "key").await?))))
        }
        _ => Err(refused("coordination.cert and coordination.key go together")),
    }
}

async fn read(path: &Path, what: &str) -> Result<Vec<u8>, CoordinationError> {
    let shown = path.display();
    tokio::fs::read(path)
        .await
        .map_err(|e| CoordinationError::Refused(format!("coordination.{what} {shown} cannot be read: {e}")))
}

fn refused(why: &str) -> CoordinationError {
    CoordinationError::Refused(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_endpoints_and_root() {
        let one = EtcdUrl::parse("etcd://127.0.0.1:2379").unwrap();
        assert_eq!(one.endpoints, ["http://127.0.0.1:2379"]);
        assert_eq!((one.root.as_str(), one.tls), ("isle", false));
        let many = EtcdUrl::parse("etcds://a:1,[::1]:2,c,d:443/prod/eu/").unwrap();
        assert_eq!(many.endpoints, ["https://a:1", "https://[::1]:2", "https://c:2379", "https://d:443"]);
        assert_eq!((many.root.as_str(), many.tls), ("prod/eu", true));
    }

    #[test]
    fn urls_that_are_none_are_refused_with_the_reason() {
        for bad in
            ["", "http://a:1", "etcd://", "etcd://a:1,,b:2", "etcd://a:x", "etcd://a:1/ro ot", "etcd://a:1?b"]
        {
            let why = EtcdUrl::parse(bad).unwrap_err();
            assert!(why.contains("coordination URL"), "{bad}: {why}");
        }
        let why = EtcdUrl::parse("etcd://me:secret@a:1").unwrap_err();
        assert!(why.contains("password_file"), "{why}");
    }
}
