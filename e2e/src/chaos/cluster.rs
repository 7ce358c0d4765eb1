//! The cluster that chaos is done to: three etcd members, an S3 server, and seven programs, each of which reaches etcd
//! and the bucket through proxies of its own and runs on a host of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::clients::BLOB_THRESHOLD;
use crate::client::Api;
use crate::network::{Host, Network};
use crate::node::{Node, Role};
use crate::proxy::{Done, Fault, Protocol, Proxy};
use crate::servers::{Env, Etcd, S3};

/// How fast the cluster lives: everything that takes minutes in production takes seconds here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// The writer's lease.
    pub lease: Duration,
    /// The compactor's grace.
    pub grace: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { lease: Duration::from_secs(3), grace: Duration::from_secs(2) }
    }
}

impl Tuning {
    /// So long after it has fallen silent, a writer has been replaced.
    #[must_use]
    pub fn beyond_lease(&self) -> Duration {
        self.lease + Duration::from_millis(1_500)
    }

    /// So long after it was retired, an object is gone: a checkpoint, the grace, and the collector's own pace.
    #[must_use]
    pub fn beyond_garbage(&self) -> Duration {
        2 * self.grace + Duration::from_secs(4)
    }

    fn env(&self) -> Env {
        let seconds = |d: Duration| d.as_secs().max(1).to_string();
        let pairs = [
            ("LOG__LEVEL", "info,isle_service::server::request=warn".to_owned()),
            ("COORDINATION__LEASE_TTL_SECONDS", seconds(self.lease)),
            ("COORDINATION__HEARTBEAT_MS", "1000".to_owned()),
            // An attempt that stands still is given up soon, so that there are many attempts in a short outage.
            ("STORE__REQUEST_TIMEOUT_SECONDS", "2".to_owned()),
            ("STORE__RETRY_BUDGET_SECONDS", "20".to_owned()),
            // Generations, merges, checkpoints and garbage within seconds.
            ("WRITER__GENERATION_AGE_MS", "2000".to_owned()),
            ("WRITER__GENERATION_SEGMENTS", "24".to_owned()),
            ("WRITER__TABLE_BYTES", "65536".to_owned()),
            ("WRITER__TABLE_BLOCK_BYTES", "1024".to_owned()),
            ("WRITER__FOLD_EDITS", "200".to_owned()),
            ("WRITER__BLOB_THRESHOLD", BLOB_THRESHOLD.to_string()),
            ("WRITER__STANDBY_POLL_MS", "2000".to_owned()),
            ("WRITER__ACK_TIMEOUT_MS", "8000".to_owned()),
            ("READER__CACHE_BYTES", "1048576".to_owned()),
            ("TAILER__CACHE_BYTES", "1048576".to_owned()),
            ("TAILER__HEARTBEAT_SECONDS", "1".to_owned()),
            ("COMPACTOR__L0_TRIGGER", "2".to_owned()),
            ("COMPACTOR__TIER_WIDTH", "2".to_owned()),
            ("COMPACTOR__MAX_RUNS", "4".to_owned()),
            ("COMPACTOR__TABLE_BYTES", "65536".to_owned()),
            ("COMPACTOR__BLOCK_BYTES", "1024".to_owned()),
            ("COMPACTOR__FOLD_EDITS", "40".to_owned()),
            ("COMPACTOR__GRACE_SECONDS", seconds(self.grace)),
        ];
        pairs.into_iter().map(|(name, value)| (format!("ISLE__{name}"), value)).collect()
    }
}

/// One program, and the ways it has out.
#[derive(Debug)]
pub struct Actor {
    /// What it is called in reports.
    pub name: String,
    /// The program.
    pub node: Node,
    /// To each member of etcd.
    pub etcd: Vec<Proxy>,
    /// To the bucket.
    pub bucket: Proxy,
}

/// The whole cluster. Nothing of it survives its drop.
#[derive(Debug)]
pub struct ChaosCluster {
    /// The programs: the two writers first.
    pub actors: Vec<Actor>,
    /// etcd.
    pub etcd: Etcd,
    /// The bucket.
    pub s3: S3,
    /// How it was set up.
    pub tuning: Tuning,
    network: Network,
    dir: TempDir,
}

/// What runs.
const ROLES: [(&str, Role); 7] = [
    ("writer-0", Role::Writer),
    ("writer-1", Role::Writer),
    ("reader-0", Role::Reader),
    ("reader-1", Role::Reader),
    ("tailer-0", Role::Tailer),
    ("tailer-1", Role::Tailer),
    ("compactor", Role::Compactor),
];

/// Where the database lies in the bucket, and below which root in etcd.
const PREFIX: &str = "db";
const ROOT: &str = "isle";

impl ChaosCluster {
    /// Starts everything and waits until it is ready.
    ///
    /// # Panics
    /// If something does not come up.
    pub async fn start(tuning: Tuning) -> Self {
        let mut network = Network::new();
        let etcd = Etcd::on((0..3).map(|_| network.host()).collect()).await;
        let s3 = S3::start().await;
        let dir = tempfile::Builder::new().prefix("isle-chaos-").tempdir().unwrap();
        let mut cluster = Self { actors: Vec::new(), etcd, s3, tuning, network, dir };
        for (name, role) in ROLES {
            cluster.add(name, role).await;
        }
        for actor in &mut cluster.actors {
            actor.node.ready().await;
        }
        cluster
    }

    /// Starts one more program; its place in the list.
    ///
    /// # Panics
    /// If its proxies cannot listen.
    pub async fn add(&mut self, name: &str, role: Role) -> usize {
        let gateway = SocketAddr::new(self.network.gateway(), 0);
        let mut etcd = Vec::new();
        for n in 0..self.etcd.len() {
            etcd.push(Proxy::at(gateway, self.etcd.member(n).address(), Protocol::Tcp).await);
        }
        let bucket = Proxy::at(gateway, self.s3.address(), Protocol::Http).await;
        let members: Vec<_> = etcd.iter().map(|p| p.address().to_string()).collect();
        let args = [
            "--store".to_owned(),
            self.s3.url_by(bucket.address(), PREFIX),
            "--coordination".to_owned(),
            format!("etcd://{}/{ROOT}", members.join(",")),
        ];
        let env = self.tuning.env().into_iter().chain(self.s3.env()).collect();
        let host = self.network.host();
        let port = host.free_port();
        let node = Node::spawn_on(host, role, port, args.to_vec(), env, self.dir.path());
        self.actors.push(Actor { name: name.to_owned(), node, etcd, bucket });
        self.actors.len() - 1
    }

    /// Whether every program has a network namespace of its own.
    #[must_use]
    pub fn has_namespaces(&self) -> bool {
        self.network.has_namespaces()
    }

    /// Flags that name the database for a program that uses no proxy.
    #[must_use]
    pub fn direct_flags(&self) -> Vec<String> {
        ["--store", &self.s3.url(PREFIX), "--coordination", &self.etcd.url(ROOT)].map(str::to_owned).to_vec()
    }

    /// Where the programs' logs are.
    #[must_use]
    pub fn logs(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the logs beyond the end; where they are.
    pub fn keep_logs(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    /// The names and calls of all programs of one role.
    #[must_use]
    pub fn apis(&self, role: Role) -> Vec<(String, Api)> {
        let of = |a: &Actor| (a.name.clone(), Api::impatient(&a.node.url()));
        self.actors.iter().filter(|a| a.node.role() == role).map(of).collect()
    }

    /// The writer that says it leads, if one does.
    pub async fn leader(&self) -> Option<usize> {
        for (n, actor) in self.actors.iter().enumerate() {
            if actor.node.role() != Role::Writer {
                continue;
            }
            let status = tokio::time::timeout(Duration::from_secs(1), actor.node.api().status()).await;
            if status.is_ok_and(|s| s.is_ok_and(|s| s["leader"] == true)) {
                return Some(n);
            }
        }
        None
    }

    /// What all proxies have done.
    #[must_use]
    pub fn proxied(&self) -> Done {
        let mut sum = Done::default();
        for proxy in self.actors.iter().flat_map(|a| a.etcd.iter().chain([&a.bucket])) {
            let one = proxy.done();
            sum.connections += one.connections;
            sum.broken += one.broken;
            sum.swallowed += one.swallowed;
            sum.refused += one.refused;
            sum.replies_lost += one.replies_lost;
        }
        sum
    }
}

impl Actor {
    /// Where it goes for etcd.
    #[must_use]
    pub fn etcd_addresses(&self) -> Vec<SocketAddr> {
        self.etcd.iter().map(Proxy::address).collect()
    }

    /// Sets what its proxies to etcd do.
    pub fn set_etcd(&self, fault: Fault) {
        self.etcd.iter().for_each(|p| p.set(fault));
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        self.node.host()
    }
}
