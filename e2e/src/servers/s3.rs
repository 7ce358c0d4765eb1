//! S3 in this process (or, as [`S3Process`], in its own): signatures are checked, objects are files.
//!
//! Its conditional puts are looked at but not atomic: of racing creates several may win. That is the right store to
//! show that coordination by etcd needs none. With [`Conditions::Ignored`] it does not even look: the silent kind of
//! store that the start-up probe exists for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output,
    PutObjectInput, PutObjectOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::daemon::{Daemon, free_port};
use super::{Env, env, http};

const ACCESS_KEY: &str = "isle-test";
const SECRET_KEY: &str = "isle-test-secret";
const BUCKET: &str = "isle";

/// What the server does with `If-None-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// Looks whether the object exists, then writes: not atomic.
    Checked,
    /// Ignores it and overwrites.
    Ignored,
}

/// An S3 server on a thread of its own, so that a blocked test does not block it.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    conditions: Conditions,
    state: Arc<State>,
    running: Option<Running>,
    dir: TempDir,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// What the test steers and reads.
#[derive(Debug, Default)]
struct State {
    requests: AtomicU64,
    /// Answered instead of doing anything, if not zero.
    outage: AtomicU16,
}

impl S3 {
    /// A server with an empty bucket.
    pub async fn start() -> Self {
        Self::with(Conditions::Checked).await
    }

    /// A server that treats conditional puts so.
    pub async fn with(conditions: Conditions) -> Self {
        let dir = tempfile::Builder::new().prefix("isle-s3-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut s3 = Self { address, conditions, state: Arc::default(), running: None, dir };
        s3.restart().await;
        s3
    }

    /// The store URL of a prefix in its bucket.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        self.url_by(self.address, prefix)
    }

    /// The same by way of a proxy.
    #[must_use]
    pub fn url_by(&self, proxy: SocketAddr, prefix: &str) -> String {
        url(proxy, prefix)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The credentials, as environment variables.
    #[must_use]
    pub fn env(&self) -> Env {
        keys()
    }

    /// Where an object of a prefix lies as a file, for those who want to damage it.
    #[must_use]
    pub fn file(&self, prefix: &str, path: &str) -> PathBuf {
        self.dir.path().join(BUCKET).join(prefix).join(path)
    }

    /// Requests received so far, whatever became of them.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Answers every request with this status from now on; `None` ends the outage.
    pub fn outage(&self, status: Option<u16>) {
        self.state.outage.store(status.unwrap_or(0), Ordering::Relaxed);
    }

    /// Closes the port and every connection; the data stays.
    ///
    /// # Panics
    /// If the server has panicked.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // A receiver that is gone has stopped already.
            let _stopped = running.stop.send(());
            running.thread.join().unwrap();
        }
    }

    /// Listens again at the same address.
    ///
    /// # Panics
    /// If somebody else took the port meanwhile.
    pub async fn restart(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let service = service(self.dir.path(), self.conditions);
        let (address, state) = (self.address, Arc::clone(&self.state));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind(address).await.unwrap();
                let _waiting = ready.send(());
                tokio::select! {
                    () = accept(listener, service, state) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.await.expect("the S3 server could not listen");
        self.running = Some(Running { stop, thread });
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

fn url(address: SocketAddr, prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}?region=us-east-1&endpoint=http://{address}&allow_http=true")
}

fn keys() -> Env {
    env([("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)])
}

fn service(dir: &Path, conditions: Conditions) -> S3Service {
    let files = FileSystem::new(dir).unwrap();
    let mut builder = match conditions {
        Conditions::Checked => S3ServiceBuilder::new(files),
        Conditions::Ignored => S3ServiceBuilder::new(Ignoring(files)),
    };
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    builder.build()
}

async fn accept(listener: TcpListener, service: S3Service, state: Arc<State>) {
    loop {
        // A connection that broke before it was accepted is its client's affair.
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (service, state) = (service.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(service.clone(), Arc::clone(&state), request));
            let server = Builder::new(TokioExecutor::new());
            let _broken = server.serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(
    service: S3Service,
    state: Arc<State>,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<HttpResponse, Infallible> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let refused = |status: u16| {
        let body = Body::from("<Error><Code>SlowDown</Code></Error>".to_owned());
        hyper::Response::builder().status(status).body(body).unwrap()
    };
    Ok(match state.outage.load(Ordering::Relaxed) {
        0 => hyper::service::Service::call(&service, request).await.unwrap_or_else(|_| refused(500)),
        status => refused(status),
    })
}

/// Files behind an S3 front that never looks at conditions.
#[derive(Debug)]
struct Ignoring(FileSystem);

#[async_trait::async_trait]
impl s3s::S3 for Ignoring {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        req.input.if_none_match = None;
        req.input.if_match = None;
        self.0.put_object(req).await
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.0.get_object(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.0.head_object(req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.0.head_bucket(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.0.list_objects_v2(req).await
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.0.delete_object(req).await
    }
}

/// The same server as a process of its own, which can be frozen and killed. It runs the `e2e-s3` program.
#[derive(Debug)]
pub struct S3Process {
    program: PathBuf,
    address: SocketAddr,
    daemon: Option<Daemon>,
    dir: TempDir,
}

impl S3Process {
    /// Starts the program (in a test of this package `env!("CARGO_BIN_EXE_e2e-s3")`) over an empty bucket.
    pub async fn start(program: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("isle-s3-").tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data").join(BUCKET)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut s3 = Self { program: program.to_path_buf(), address, daemon: None, dir };
        s3.restart().await;
        s3
    }

    /// The store URL of a prefix in its bucket.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        url(self.address, prefix)
    }

    /// The credentials, as environment variables.
    #[must_use]
    pub fn env(&self) -> Env {
        keys()
    }

    /// Where an object of a prefix lies as a file.
    #[must_use]
    pub fn file(&self, prefix: &str, path: &str) -> PathBuf {
        self.dir.path().join("data").join(BUCKET).join(prefix).join(path)
    }

    /// Freezes it: connections stay, answers do not come.
    pub fn stop(&self) {
        self.daemon.iter().for_each(Daemon::stop);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.daemon.iter().for_each(Daemon::cont);
    }

    /// Kills it; the data stays.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Starts it again at the same address.
    pub async fn restart(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg(self.dir.path().join("data")).arg(self.address.to_string());
        let mut daemon = Daemon::spawn("the S3 server", &mut command, &self.dir.path().join("log"));
        let port = self.address.port();
        daemon.ready(|| http::status(([127, 0, 0, 1], port), "GET", "/", &[])).await;
        self.daemon = Some(daemon);
    }
}

/// What the `e2e-s3` program does: serves `dir` at `address` until it is killed.
///
/// # Panics
/// If it cannot listen there.
pub fn serve(dir: &Path, address: SocketAddr) {
    std::fs::create_dir_all(dir.join(BUCKET)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.unwrap();
        accept(listener, service(dir, Conditions::Checked), Arc::default()).await;
    });
}
