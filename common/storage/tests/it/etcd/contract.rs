//! The contract of coordination, run over one etcd with a root for each scenario.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use isle_storage::coordination::etcd::{EtcdCoordination, EtcdSettings};
use isle_storage::coordination::{Backend, Coordination};
use isle_storage::environment::Environment;
use isle_storage::object::{Bucket, MemoryBucket};
use isle_testkit::contract;
use isle_testkit::contract::coordination::Service;

use super::server::EtcdServer;

struct Etcd {
    server: Arc<EtcdServer>,
    root: String,
    bucket: Arc<dyn Bucket>,
    env: Environment,
}

impl Etcd {
    fn fresh(server: &Arc<EtcdServer>, n: u32) -> Arc<Self> {
        let env = Environment::system("test", "contract");
        let bucket = Arc::new(MemoryBucket::new(Arc::clone(&env.clock)));
        Arc::new(Self { server: Arc::clone(server), root: format!("scenario-{n}"), bucket, env })
    }

    fn delete(&self, args: &[&str], key: &str) {
        let key = format!("/{}/contract/{key}", self.root);
        self.server.ctl(&[&["del"], args, &[key.as_str()]].concat());
    }
}

#[async_trait]
impl Service for Etcd {
    fn backend(&self) -> Backend {
        Backend::Etcd
    }

    fn bucket(&self) -> Arc<dyn Bucket> {
        Arc::clone(&self.bucket)
    }

    async fn connect(&self, bucket: Arc<dyn Bucket>) -> Arc<dyn Coordination> {
        let settings = EtcdSettings {
            heartbeat: Duration::from_millis(300),
            request_timeout: Duration::from_secs(3),
            ..EtcdSettings::new(format!("etcd://{}/{}", self.server.address(), self.root))
        };
        EtcdCoordination::connect(&settings, "contract", bucket, &self.env).await.unwrap()
    }

    async fn expire_writer(&self) {
        self.delete(&[], "writer");
    }

    async fn expire_jobs(&self) -> bool {
        self.delete(&["--prefix"], "jobs/");
        true
    }

    async fn expire_pins(&self) -> bool {
        self.delete(&["--prefix"], "pins/");
        true
    }

    async fn wipe(&self) {
        self.delete(&["--prefix"], "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_etcd_form_keeps_the_contract() {
    let server = Arc::new(EtcdServer::start().await);
    let roots = AtomicU32::new(0);
    contract::coordination(|| async {
        let service: Arc<dyn Service> = Etcd::fresh(&server, roots.fetch_add(1, Ordering::Relaxed));
        service
    })
    .await;
}
