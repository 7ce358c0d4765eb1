//! A store's URL taken apart: scheme, bucket, prefix and the few parameters each kind of store knows.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::open::OpenError;
use crate::names::ObjectPath;

/// Where a database's objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A directory of the local machine.
    File(PathBuf),
    /// The memory of this process, under a name or on its own.
    Memory(Option<String>),
    /// Nowhere: bodies are discarded.
    Null,
    /// A bucket of a cloud store.
    Cloud(Cloud),
}

/// Which cloud protocol a bucket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Amazon S3 and everything that speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Protocol {
    /// The parameters its URL may carry.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["region", "endpoint", "allow_http"],
            Self::Gcs => &["endpoint", "allow_http"],
            Self::Azure => &["account", "endpoint", "allow_http"],
        }
    }

    /// The cargo feature that brings it.
    #[cfg_attr(
        all(feature = "aws", feature = "gcp", feature = "azure"),
        expect(dead_code, reason = "all are in")
    )]
    pub(super) fn feature(self) -> &'static str {
        match self {
            Self::S3 => "aws",
            Self::Gcs => "gcp",
            Self::Azure => "azure",
        }
    }

    /// The URL's scheme.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket of a cloud store, the prefix in it, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cloud {
    pub(super) protocol: Protocol,
    pub(super) bucket: String,
    /// Without slashes at its ends; empty for the whole bucket.
    pub(super) prefix: String,
    pub(super) region: Option<String>,
    pub(super) account: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) allow_http: bool,
}

impl fmt::Display for Cloud {
    /// The URL for messages; it cannot hold a secret, as URLs with a user part are refused.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.protocol.scheme(), self.bucket, self.prefix)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

impl Location {
    /// Parses a store URL.
    pub(super) fn parse(text: &str) -> Result<Self, OpenError> {
        if matches!(text, "null:" | "null://") {
            return Ok(Self::Null);
        }
        let bad = |why: String| OpenError::Url { url: without_user(text), why };
        let url = Url::parse(text).map_err(|e| {
            bad(format!(
                "{e}; expected file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
            ))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "credentials do not belong in the URL; give them as environment variables".into()
            ));
        }
        if url.fragment().is_some() || url.port().is_some() {
            return Err(bad(
                "a store's URL has neither port nor fragment; a server's address is the parameter \
                            endpoint=http://host:port"
                    .into(),
            ));
        }
        match url.scheme() {
            "file" => file(&url).map_err(bad),
            "memory" => memory(&url).map_err(bad),
            "s3" => cloud(Protocol::S3, &url).map(Self::Cloud).map_err(bad),
            "gs" => cloud(Protocol::Gcs, &url).map(Self::Cloud).map_err(bad),
            "az" => cloud(Protocol::Azure, &url).map(Self::Cloud).map_err(bad),
            other => Err(bad(format!("there is no store {other}:; known are file, memory, s3, gs and az"))),
        }
    }
}

/// The text up to its user part, which may hold a password.
fn without_user(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

fn file(url: &Url) -> Result<Location, String> {
    no_parameters(url)?;
    match url.to_file_path() {
        Ok(path) if path.parent().is_some() => Ok(Location::File(path)),
        Ok(_) => Err("the root of the file system is no place for a database".into()),
        Err(()) => Err("a file URL has three slashes and an absolute path: file:///path".into()),
    }
}

fn memory(url: &Url) -> Result<Location, String> {
    no_parameters(url)?;
    if !matches!(url.path(), "" | "/") {
        return Err("a memory store has at most a name: memory:// or memory://name".into());
    }
    Ok(Location::Memory(url.host_str().filter(|name| !name.is_empty()).map(str::to_owned)))
}

fn cloud(protocol: Protocol, url: &Url) -> Result<Cloud, String> {
    let bucket = url.host_str().unwrap_or_default().to_owned();
    if bucket.is_empty() {
        return Err(format!("the bucket's name is missing: {}://bucket/prefix", protocol.scheme()));
    }
    let prefix = url.path().trim_matches('/').to_owned();
    if !prefix.is_empty() {
        ObjectPath::new(prefix.clone())?;
    }
    let mut given = parameters(url, protocol.parameters())?;
    let allow_http = match given.remove("allow_http").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(format!("allow_http is {other:?}; it is true or false")),
    };
    let endpoint = given.remove("endpoint");
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint, allow_http)?;
    }
    let (region, account) = (given.remove("region"), given.remove("account"));
    Ok(Cloud { protocol, bucket, prefix, region, account, endpoint, allow_http })
}

/// An endpoint is a plain web address; unencrypted only where the URL says so.
fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), String> {
    let url = Url::parse(endpoint).map_err(|e| format!("endpoint {endpoint:?} is not a URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong in the endpoint; give them as environment variables".into());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if allow_http => Ok(()),
        "http" => Err(format!("endpoint {endpoint} is unencrypted; add allow_http=true if that is meant")),
        other => Err(format!("endpoint {endpoint} has the scheme {other}; it is http or https")),
    }
}

fn no_parameters(url: &Url) -> Result<(), String> {
    parameters(url, &[]).map(drop)
}

/// The query's parameters: known ones only, each once.
fn parameters(url: &Url, known: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let mut given = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if !known.contains(&name.as_ref()) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("unknown parameter {name}; {}:// knows {known}", url.scheme()));
        }
        if value.is_empty() {
            return Err(format!("parameter {name} has no value"));
        }
        if given.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(format!("parameter {name} is given twice"));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Location::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_store_has_its_url() {
        assert_eq!(Location::parse("file:///a/b%20c").unwrap(), Location::File("/a/b c".into()));
        assert_eq!(Location::parse("memory://").unwrap(), Location::Memory(None));
        assert_eq!(Location::parse("memory://x").unwrap(), Location::Memory(Some("x".into())));
        assert_eq!(Location::parse("null:").unwrap(), Location::Null);
        let s3 = "s3://My_bucket/a/b/?region=eu-1&endpoint=http://127.0.0.1:9000&allow_http=true";
        let Location::Cloud(cloud) = Location::parse(s3).unwrap() else { panic!("not a cloud store") };
        assert_eq!((cloud.bucket.as_str(), cloud.prefix.as_str()), ("My_bucket", "a/b"));
        assert_eq!(cloud.region.as_deref(), Some("eu-1"));
        assert_eq!(cloud.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(cloud.to_string(), "s3://My_bucket/a/b at http://127.0.0.1:9000");
    }

    #[test]
    fn a_wrong_url_is_refused_with_its_reason() {
        for (url, reason) in [
            ("s3://b/p?reigon=x", "unknown parameter reigon; s3:// knows region, endpoint, allow_http"),
            ("file:///a?x=1", "unknown parameter x; file:// knows none"),
            ("file://host/a", "three slashes"),
            ("file:///", "root of the file system"),
            ("s3:///p", "bucket's name is missing"),
            ("s3://b?region=a&region=b", "given twice"),
            ("s3://b?endpoint=http://h", "allow_http=true"),
            ("s3://b?allow_http=yes", "true or false"),
            ("s3://b/a%20b", "character outside"),
            ("ftp://x", "no store ftp:"),
            ("/var/lib/isle", "file:///path"),
            ("memory://a/b", "at most a name"),
        ] {
            let message = refused(url);
            assert!(message.contains(reason), "{url}: {message}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let message = refused("s3://key:hunter2@bucket/p");
        assert!(message.contains("environment variables") && !message.contains("hunter2"), "{message}");
        let message = refused("s3://b?endpoint=http://key:hunter2@h&allow_http=true");
        assert!(message.contains("environment variables") && !message.contains("hunter2"), "{message}");
    }
}
