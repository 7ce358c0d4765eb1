//! Google Cloud Storage, the few calls of its XML interface that a bucket makes, in this process and in memory.
//!
//! Objects have generations; `x-goog-if-generation-match: 0` creates. A wrong token is 401. It is written from the
//! interface's published description, as no emulator speaks that interface; it shows that Isle's side of the talk is
//! right, not that Google's is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::{Env, env};

const TOKEN: &str = "isle-test-token";
const BUCKET: &str = "isle";
/// Objects on one page of a listing.
const PAGE: usize = 1_000;

/// A running fake with an empty bucket; it ends with the test's runtime or when dropped.
#[derive(Debug)]
pub struct Gcs {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Objects {
    generation: u64,
    all: BTreeMap<String, Object>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    generation: u64,
    written: Timestamp,
}

impl Gcs {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, serving: tokio::spawn(accept(listener)) }
    }

    /// The store URL of a prefix in its bucket.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("gs://{BUCKET}/{prefix}?endpoint=http://{}&allow_http=true", self.address)
    }

    /// The credentials, as environment variables.
    #[must_use]
    pub fn env(&self) -> Env {
        env([("GOOGLE_BEARER_TOKEN", TOKEN)])
    }
}

impl Drop for Gcs {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener) {
    let objects: Arc<Mutex<Objects>> = Arc::default();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let objects = Arc::clone(&objects);
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(Arc::clone(&objects), request));
            let server = Builder::new(TokioExecutor::new());
            let _broken = server.serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(objects: Arc<Mutex<Objects>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    if header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Ok(error(401, "AuthenticationRequired"));
    }
    let path = decoded(head.uri.path());
    let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    if bucket != BUCKET {
        return Ok(error(404, "NoSuchBucket"));
    }
    let Ok(body) = body.collect().await else { return Ok(error(400, "IncompleteBody")) };
    let mut objects = objects.lock().unwrap();
    Ok(match head.method {
        Method::GET if key.is_empty() => objects.list(head.uri.query().unwrap_or_default()),
        Method::GET => objects.get(key, header("range")),
        Method::HEAD => objects.get(key, None),
        Method::PUT if header("x-goog-copy-source").is_some() => {
            objects.copy(&decoded(header("x-goog-copy-source").unwrap_or_default()), key)
        }
        Method::PUT => objects.put(key, body.to_bytes(), header("x-goog-if-generation-match")),
        Method::DELETE => objects.delete(key),
        _ => error(405, "MethodNotAllowed"),
    })
}

impl Objects {
    fn put(&mut self, key: &str, bytes: Bytes, condition: Option<&str>) -> Answer {
        let present = self.all.get(key).map_or(0, |object| object.generation);
        if condition.is_some_and(|wanted| wanted != present.to_string()) {
            return error(412, "PreconditionFailed");
        }
        self.generation += 1;
        let object = Object { bytes, generation: self.generation, written: Timestamp::now() };
        let answer = object.described(Response::builder()).body(Full::default()).unwrap();
        self.all.insert(key.to_owned(), object);
        answer
    }

    fn copy(&mut self, source: &str, key: &str) -> Answer {
        let from = source.strip_prefix(BUCKET).and_then(|rest| rest.strip_prefix('/'));
        let Some(bytes) = from.and_then(|from| self.all.get(from)).map(|object| object.bytes.clone()) else {
            return error(404, "NoSuchKey");
        };
        self.put(key, bytes, None)
    }

    fn get(&self, key: &str, range: Option<&str>) -> Answer {
        let Some(object) = self.all.get(key) else { return error(404, "NoSuchKey") };
        let answer = object.described(Response::builder());
        let len = object.bytes.len();
        let Some(range) = range else {
            // Said out loud, because the answer to a HEAD has no body to count.
            return answer.header("content-length", len).body(object.bytes.clone().into()).unwrap();
        };
        let (start, last) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).unwrap();
        let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
        if start >= len {
            return error(416, "InvalidRange");
        }
        let end = len.min(last + 1);
        let answer = answer.status(206).header("content-range", format!("bytes {start}-{}/{len}", end - 1));
        answer.body(object.bytes.slice(start..end).into()).unwrap()
    }

    fn delete(&mut self, key: &str) -> Answer {
        match self.all.remove(key) {
            Some(_) => Response::builder().status(204).body(Full::default()).unwrap(),
            None => error(404, "NoSuchKey"),
        }
    }

    fn list(&self, query: &str) -> Answer {
        let given = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(n, _)| *n == name).map(|(_, value)| decoded(value)).next()
        };
        let prefix = given("prefix").unwrap_or_default();
        let after = given("continuation-token").unwrap_or_default();
        let wanted = |(key, _): &(&String, &Object)| key.starts_with(&prefix) && **key > after;
        let page: Vec<_> = self.all.iter().filter(wanted).take(PAGE + 1).collect();
        let mut text = String::from(r#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>"#);
        for (key, object) in page.iter().take(PAGE) {
            text += &format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>{}</LastModified>\
                 <ETag>\"{}\"</ETag></Contents>",
                object.bytes.len(),
                object.written,
                object.generation,
            );
        }
        if page.len() > PAGE {
            text += &format!("<NextContinuationToken>{}</NextContinuationToken>", page[PAGE - 1].0);
        }
        text += "</ListBucketResult>";
        Response::new(text.into())
    }
}

impl Object {
    fn described(&self, answer: hyper::http::response::Builder) -> hyper::http::response::Builder {
        answer
            .header("etag", format!("\"{}\"", self.generation))
            .header("x-goog-generation", self.generation)
            .header("last-modified", self.written.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
    }
}

fn error(status: u16, code: &str) -> Answer {
    let body = format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
    Response::builder().status(status).body(body.into()).unwrap()
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next().unwrap_or(b'0')).to_digit(16).unwrap_or(0);
                (digit() * 16 + digit()) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}
