//! The four roles' processes: what each one does from its start on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use compactor_node::Compactor;
use futures::FutureExt;
use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::recover::{self, Consent, Fresh, RecoverError, carry_out, survey};
use isle_storage::coordination::{Coordination, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::{Environment, Metrics, Offload};
use isle_storage::ids::{CommitId, Incarnation, Lineage};
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{Bucket, RetryBucket, RetryPolicy};
use isle_storage::verify;
use reader_node::Reader;
use tailer_node::Tailer;
use tokio::time::sleep;
use writer_node::Writer;

use crate::coordination::{Cluster, SimCoordination};
use crate::node::{Address, Node, serve};
use crate::oracle::Oracle;
use crate::plan::{Form, Plan};
use crate::rng::{Rng, SeededEntropy};
use crate::store::SimBucket;
use crate::world::{ProcessId, SkewedClock, World};

/// An engine with the number of the process it runs in.
#[derive(Debug, Clone)]
pub struct Seat<E> {
    /// The engine.
    pub engine: E,
    /// Counts the processes at this address.
    pub incarnation: u64,
}

/// What every process of a schedule shares.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The world.
    pub world: Arc<World>,
    /// The oracle.
    pub oracle: Arc<Oracle>,
    /// The coordination service.
    pub cluster: Arc<Cluster>,
    /// The plan.
    pub plan: Arc<Plan>,
}

impl Parts {
    fn environment(&self, process: ProcessId, incarnation: u64, role: &str) -> Environment {
        // Every start of every process has a stream of its own.
        let stream = self.plan.seed.rotate_left(17) ^ ((process.0 as u64) << 48) ^ (incarnation << 32) ^ 1;
        Environment {
            clock: SkewedClock::new(&self.world, process),
            entropy: Arc::new(SeededEntropy::new(Rng::new(stream))),
            metrics: Metrics::new(role, "default"),
            offload: Offload::Inline,
        }
    }

    fn bucket(&self, process: ProcessId, env: &Environment) -> Arc<dyn Bucket> {
        let bucket = Arc::new(SimBucket::new(&self.world, &self.oracle, process));
        if !self.plan.retries {
            return bucket;
        }
        let policy = RetryPolicy {
            budget: Duration::from_millis(1_500),
            first_pause: Duration::from_millis(20),
            max_pause: Duration::from_millis(400),
        };
        Arc::new(RetryBucket::new(bucket, policy, Arc::clone(&env.entropy)))
    }

    fn coordination(
        &self,
        process: ProcessId,
        bucket: &Arc<dyn Bucket>,
        env: &Environment,
    ) -> Arc<dyn Coordination> {
        match self.plan.form {
            Form::Service => {
                SimCoordination::new(&self.world, &self.oracle, &self.cluster, Arc::clone(bucket), process)
            }
            Form::Bucket => {
                let settings = CoordinationSettings {
                    poll_min_ms: 20,
                    poll_max_ms: 250,
                    job_beat_seconds: 1,
                    job_stale_seconds: 3,
                    ..CoordinationSettings::default()
                };
                BucketCoordination::trusting(&settings, Arc::clone(bucket), env)
            }
        }
    }

    /// Opens the database, again and again: a supervisor starts a program that ends.
    async fn database(
        &self,
        process: ProcessId,
        incarnation: u64,
        role: &str,
        mode: &OpenMode,
    ) -> (Database, NodeInfo) {
        let env = self.environment(process, incarnation, role);
        let bucket = self.bucket(process, &env);
        let coordination = self.coordination(process, &bucket, &env);
        let node = NodeInfo {
            node: format!("{}-{incarnation}", self.world.name(process)),
            advertise: "simulated".to_owned(),
        };
        loop {
            let opened =
                Database::open(Arc::clone(&bucket), Arc::clone(&coordination), env.clone(), "default", mode);
            match opened.await {
                Ok(db) => return (db, node),
                Err(e) => {
                    self.world.note_of(process, format_args!("cannot open: {e}"));
                    sleep(Duration::from_millis(if e.is_passing() { 50 } else { 250 })).await;
                }
            }
        }
    }

    /// A place for a role's process.
    fn node<E: Clone + Send + 'static>(
        &self,
        process: ProcessId,
        role: &'static str,
        mode: OpenMode,
        open: impl Fn(Database, NodeInfo, &Plan) -> Result<E, String> + Clone + Send + Sync + 'static,
    ) -> Node<Seat<E>> {
        let parts = self.clone();
        Node::new(&self.world, Address::new(process), move |inbox, incarnation| {
            let (parts, mode, open) = (parts.clone(), mode.clone(), open.clone());
            async move {
                let (db, node) = parts.database(process, incarnation, role, &mode).await;
                match open(db, node, &parts.plan) {
                    Ok(engine) => serve(inbox, Seat { engine, incarnation }).await,
                    Err(e) => parts.world.violation(format!("{role} settings are refused: {e}")),
                }
            }
            .boxed()
        })
    }

    /// What somebody does who finds coordination lost, and every role stopped: recover, until it is done.
    pub async fn recover(self, incarnation: u64, done: Arc<AtomicBool>) {
        let process = self.plan.recovering();
        let env = self.environment(process, incarnation, "recover");
        let bucket = self.bucket(process, &env);
        let coordination = self.coordination(process, &bucket, &env);
        let mut consent = Consent { loss: false, sound: true };
        loop {
            let result = self.attempt(&bucket, &coordination, &env, consent).await;
            match result {
                Ok(()) => return done.store(true, Ordering::Relaxed),
                Err(e) => {
                    self.world.note_of(process, format_args!("cannot recover: {e}"));
                    // What is missing was never acknowledged, says the person; the oracle knows whether that is true.
                    consent.loss |= matches!(e, RecoverError::Loss { .. });
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Verifies the whole database, when everything has come to rest, and says what is wrong with it.
    pub async fn verify(self, done: Arc<AtomicBool>) {
        let process = self.plan.recovering();
        let env = self.environment(process, 0, "verify");
        let bucket: Arc<dyn Bucket> = Arc::new(SimBucket::new(&self.world, &self.oracle, process));
        let coordination = self.coordination(process, &bucket, &env);
        match verify::verify(&bucket, verify::From::Coordination(coordination), "default", &()).await {
            Ok(report) if report.is_clean() => {
                self.world.note_of(process, format_args!("{} is clean", report.version));
            }
            Ok(report) => {
                let found = report.damage.first.iter().chain(&report.unreadable.first);
                let all: Vec<String> = found.map(|d| format!("{}: {}", d.object, d.what)).collect();
                self.world.violation(format!("verify at rest: {}", all.join("; ")));
            }
            Err(e) => self.world.violation(format!("verify at rest: {e}")),
        }
        done.store(true, Ordering::Relaxed);
    }

    async fn attempt(
        &self,
        bucket: &Arc<dyn Bucket>,
        coordination: &Arc<dyn Coordination>,
        env: &Environment,
        consent: Consent,
    ) -> Result<(), RecoverError> {
        let silent = |_| {};
        let found = survey(bucket, coordination, env, "default", &silent).await?;
        let fresh = Fresh {
            lineage: Lineage(env.entropy.next_u128()),
            incarnation: Incarnation(env.entropy.next_u64()),
            commit: CommitId(env.entropy.next_u64()),
        };
        let planned = recover::plan(&found, consent, fresh)?;
        carry_out(bucket, coordination, env, &planned, &silent).await.map(drop)
    }

    /// Writer number `i`.
    #[must_use]
    pub fn writer(&self, i: usize) -> Node<Seat<Writer>> {
        let process = ProcessId(self.plan.firsts()[0] + i);
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        self.node(process, "writer", mode, |db, node, plan| {
            Writer::open(db, plan.writer.clone(), node).map_err(|e| e.to_string())
        })
    }

    /// Reader number `i`.
    #[must_use]
    pub fn reader(&self, i: usize) -> Node<Seat<Reader>> {
        let process = ProcessId(self.plan.firsts()[1] + i);
        self.node(process, "reader", OpenMode::Existing, |db, _, plan| {
            Reader::open(db, plan.reader.clone()).map_err(|e| e.to_string())
        })
    }

    /// Tailer number `i`.
    #[must_use]
    pub fn tailer(&self, i: usize) -> Node<Seat<Tailer>> {
        let process = ProcessId(self.plan.firsts()[2] + i);
        self.node(process, "tailer", OpenMode::Existing, |db, _, plan| Tailer::open(db, plan.tailer.clone()))
    }

    /// Compactor number `i`.
    #[must_use]
    pub fn compactor(&self, i: usize) -> Node<Seat<Compactor>> {
        let process = ProcessId(self.plan.firsts()[3] + i);
        self.node(process, "compactor", OpenMode::Existing, |db, node, plan| {
            Compactor::open(db, node, plan.compactor.clone())
        })
    }
}
