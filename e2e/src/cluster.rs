//! A database and the programs that serve it, on one of the backends that the scenarios share.
//!
//! ```text
//! Cluster::embedded()   file:// store, coordination in the bucket: nothing but the programs
//! Cluster::etcd()       S3 without atomic conditional puts, coordination in etcd
//! Cluster::over(…)      any other pair
//! ```

use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::node::{Node, Role, run};
use crate::servers::{Env, Etcd, S3};

/// A database somewhere, and how programs are told of it.
///
/// Programs started from it must be dropped before it; declared after it they are.
#[derive(Debug)]
pub struct Cluster {
    store: String,
    coordination: String,
    env: Env,
    /// The real etcd, where that coordinates.
    pub etcd: Option<Etcd>,
    /// The S3 server, where that stores.
    pub s3: Option<S3>,
    dir: TempDir,
}

impl Cluster {
    /// The embedded default: files, and coordination in the bucket.
    #[must_use]
    pub fn embedded() -> Self {
        let dir = directory();
        let store = format!("file://{}", dir.path().join("bucket").display());
        Self { store, coordination: "bucket".to_owned(), env: calm(), etcd: None, s3: None, dir }
    }

    /// The cluster form: S3, and coordination in etcd.
    pub async fn etcd() -> Self {
        let (etcd, s3) = (Etcd::single().await, S3::start().await);
        let mut cluster = Self::over(s3.url("db"), etcd.url("isle"), s3.env());
        (cluster.etcd, cluster.s3) = (Some(etcd), Some(s3));
        cluster
    }

    /// A database at a store and a coordination that the test holds.
    #[must_use]
    pub fn over(store: String, coordination: String, credentials: Env) -> Self {
        let env = calm().into_iter().chain(credentials).collect();
        Self { store, coordination, env, etcd: None, s3: None, dir: directory() }
    }

    /// Sets a setting for every program started from now on: `writer.linger_ms`.
    pub fn set(&mut self, setting: &str, value: &str) {
        let name = format!("ISLE__{}", setting.to_uppercase().replace('.', "__"));
        self.env.retain(|(n, _)| *n != name);
        self.env.push((name, value.to_owned()));
    }

    /// A directory of the test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The environment that programs are started with.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The flags that name the database.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        ["--store", &self.store, "--coordination", &self.coordination].map(str::to_owned).to_vec()
    }

    /// Starts a program and does not wait.
    #[must_use]
    pub fn spawn(&self, role: Role) -> Node {
        Node::spawn(role, self.flags(), self.env.clone(), self.dir.path())
    }

    /// Starts a program and waits until it is ready.
    pub async fn start(&self, role: Role) -> Node {
        let mut node = self.spawn(role);
        node.ready().await;
        node
    }

    /// Runs a program to its end, with `args` after the flags that name the database.
    pub async fn run(&self, role: Role, args: &[&str]) -> Output {
        let flags = self.flags();
        let args: Vec<&str> = flags.iter().map(String::as_str).chain(args.iter().copied()).collect();
        run(role.program(), &args, &self.env).await
    }

    /// The files of the database's objects below a folder, where the store keeps files.
    ///
    /// # Panics
    /// If they cannot be listed.
    #[must_use]
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let root = match &self.s3 {
            Some(s3) => s3.file("db", folder),
            None => self.dir.path().join("bucket").join(folder),
        };
        let mut found = Vec::new();
        let mut folders = vec![root];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("isle-e2e-").tempdir().unwrap()
}

/// Settings of every test: takeovers in seconds, a bounded start, and logs without a line for each look at `/readyz`.
fn calm() -> Env {
    let pairs = [
        ("ISLE__COORDINATION__LEASE_TTL_SECONDS", "3"),
        ("ISLE__SERVER__STARTUP_TIMEOUT", "10s"),
        ("ISLE__LOG__LEVEL", "info,isle_service::server::request=warn"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}
