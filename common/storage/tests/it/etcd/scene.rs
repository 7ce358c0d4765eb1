//! A database coordinated by a real etcd, and what every test does with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use isle_storage::coordination::etcd::{EtcdCoordination, EtcdSettings};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{
    Authority, Claim, ClaimAttempt, CommitOutcome, Coordination, CoordinationError, HeadState, Loaded,
    NodeInfo, Proposal, WatchEvent, claim, commit,
};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::ids::{CommitId, Incarnation, SeqNo, Timestamp};
use isle_storage::manifest::{Author, Change, CompactionMode, Edit, Manifest, Snapshot};
use isle_storage::object::{Bucket, MemoryBucket};
use tokio::time::Instant;

use super::server::EtcdServer;

/// Nothing in these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One etcd, one bucket, and a database in them.
pub(crate) struct Scene {
    pub(crate) etcd: EtcdServer,
    pub(crate) bucket: Arc<dyn Bucket>,
    pub(crate) env: Environment,
}

impl Scene {
    /// A fresh etcd with a new database.
    pub(crate) async fn new() -> (Self, Database) {
        Self::on(EtcdServer::start().await).await
    }

    /// A new database on this etcd.
    pub(crate) async fn on(etcd: EtcdServer) -> (Self, Database) {
        let env = Environment::system("test", "default");
        let bucket = Arc::new(MemoryBucket::new(Arc::clone(&env.clock)));
        let scene = Self { etcd, bucket, env };
        let db = scene.open(scene.connect().await).await.unwrap();
        (scene, db)
    }

    pub(crate) fn settings(&self) -> EtcdSettings {
        self.settings_for(&[self.etcd.address()])
    }

    /// Settings for other addresses, with short times so that tests are.
    pub(crate) fn settings_for(&self, addresses: &[std::net::SocketAddr]) -> EtcdSettings {
        let hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut settings = EtcdSettings::new(format!("etcd://{}", hosts.join(",")));
        settings.request_timeout = Duration::from_millis(1500);
        settings.lease_ttl = Duration::from_secs(3);
        settings.heartbeat = Duration::from_millis(300);
        settings
    }

    pub(crate) async fn connect(&self) -> Arc<EtcdCoordination> {
        self.connect_with(&self.settings()).await.unwrap()
    }

    pub(crate) async fn connect_with(
        &self,
        settings: &EtcdSettings,
    ) -> Result<Arc<EtcdCoordination>, CoordinationError> {
        EtcdCoordination::connect(settings, "default", Arc::clone(&self.bucket), &self.env).await
    }

    pub(crate) async fn open(
        &self,
        coordination: Arc<EtcdCoordination>,
    ) -> Result<Database, CoordinationError> {
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        Database::open(Arc::clone(&self.bucket), coordination, self.env.clone(), "default", &mode).await
    }

    pub(crate) async fn database(&self) -> Database {
        self.open(self.connect().await).await.unwrap()
    }

    /// The database seen through other settings.
    pub(crate) async fn database_with(&self, settings: &EtcdSettings) -> Database {
        self.open(self.connect_with(settings).await.unwrap()).await.unwrap()
    }
}

pub(crate) fn node(name: &str) -> NodeInfo {
    NodeInfo { node: name.to_owned(), advertise: format!("http://{name}") }
}

/// The writer's role, which must be free.
pub(crate) async fn claim_writer(db: &Database, name: &str) -> Claim {
    let incarnation = Incarnation(db.env.entropy.next_u64());
    match db.coordination.claim_writer(&node(name), incarnation).await.unwrap() {
        ClaimAttempt::Won(claim) => claim,
        ClaimAttempt::HeldBy(who) => panic!("the role is held by {who:?}"),
    }
}

/// The writer's role, taken over to the end.
pub(crate) async fn take_over(db: &Database, name: &str) -> (Claim, Loaded) {
    let claim = claim_writer(db, name).await;
    let loaded = claim::take_over(db, &claim, name).await.unwrap();
    (claim, loaded)
}

/// An edit that takes a snapshot of this name: small, harmless, and visible in the manifest.
pub(crate) fn snapshot_edit(db: &Database, on: &Manifest, name: &str, authority: &Authority) -> Edit {
    let snapshot = Snapshot {
        seq: SeqNo::ZERO,
        created: Timestamp(1),
        expires: None,
        holds_log: false,
        extra: BTreeMap::new(),
    };
    Edit {
        version: on.version.next(),
        lineage: on.lineage,
        epoch: on.epoch,
        commit: CommitId(db.env.entropy.next_u64()),
        author: match authority {
            Authority::Writer { .. } => Author::Writer,
            Authority::Job { job, .. } => Author::Job(*job),
            Authority::Observer => Author::Observer("test".to_owned()),
        },
        changes: vec![Change::TakeSnapshot { name: name.to_owned(), snapshot }],
        required_features: Vec::new(),
        extra: BTreeMap::new(),
    }
}

/// A proposal for that edit.
pub(crate) fn propose(db: &Database, on: &Loaded, name: &str, authority: &Authority) -> Proposal {
    let edit = snapshot_edit(db, &on.manifest, name, authority);
    commit::propose(&on.state, &on.manifest, edit, authority).unwrap()
}

/// One committed edit on top of the newest manifest.
pub(crate) async fn commit_snapshot(db: &Database, name: &str) -> HeadState {
    let loaded = db.coordination.load().await.unwrap();
    let proposal = propose(db, &loaded, name, &Authority::Observer);
    let until = Instant::now() + PATIENCE;
    loop {
        match db.coordination.commit(&proposal).await {
            CommitOutcome::Committed(state) => return state,
            // A busy machine: the identical transaction again.
            CommitOutcome::Unknown(_) if Instant::now() < until => {}
            other => panic!("{name} was not committed: {other:?}"),
        }
    }
}

/// A watch whose events are awaited with a bound.
pub(crate) struct Watched(BoxStream<'static, WatchEvent>);

impl Watched {
    pub(crate) fn from(coordination: &Arc<dyn Coordination>, state: &HeadState) -> Self {
        Self(coordination.watch(state))
    }

    pub(crate) async fn next(&mut self) -> WatchEvent {
        tokio::time::timeout(PATIENCE, self.0.next())
            .await
            .expect("no event in time")
            .expect("a watch never ends")
    }

    /// The next event that says more than that nothing has happened.
    pub(crate) async fn news(&mut self) -> WatchEvent {
        loop {
            match self.next().await {
                WatchEvent::Alive(_) => {}
                event => return event,
            }
        }
    }

    /// The next event that is neither an interruption nor a sign of life.
    pub(crate) async fn change(&mut self) -> WatchEvent {
        loop {
            match self.news().await {
                WatchEvent::Down(_) => {}
                event => return event,
            }
        }
    }

    pub(crate) async fn until_down(&mut self) -> String {
        loop {
            if let WatchEvent::Down(why) = self.next().await {
                return why;
            }
        }
    }

    pub(crate) async fn until_alive(&mut self) {
        while !matches!(self.next().await, WatchEvent::Alive(_)) {}
    }

    /// Until a sign of life that was asked for after `since`.
    pub(crate) async fn until_fresh_since(&mut self, since: Instant) {
        while !matches!(self.next().await, WatchEvent::Alive(at) if at > since) {}
    }

    /// The next change, which must be this snapshot being taken.
    pub(crate) async fn expect_snapshot(&mut self, name: &str) -> HeadState {
        match self.change().await {
            WatchEvent::Edit { edit: Some(edit), state, .. } => {
                assert_eq!(edit.version, state.head.version);
                let taken = edit
                    .changes
                    .iter()
                    .any(|c| matches!(c, Change::TakeSnapshot { name: n, .. } if n == name));
                assert!(taken, "expected {name}, got {edit:?}");
                state
            }
            other => panic!("expected {name}, got {other:?}"),
        }
    }

    pub(crate) async fn expect_reset(&mut self) -> String {
        match self.change().await {
            WatchEvent::Reset(why) => why,
            other => panic!("expected a reset, got {other:?}"),
        }
    }
}
