//! What scenarios are made of: processes, writers, segments, edits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isle_storage::coordination::claim::{self, TakeoverError};
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{
    Authority, Backend, Claim, ClaimAttempt, Coordination, CoordinationError, HeadState, Loaded, NodeInfo,
    Proposal,
};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::format::Compression;
use isle_storage::ids::{CommitId, Incarnation, Timestamp};
use isle_storage::log::{Batch, EncodedLog, LogHeader, Push, encode_segment};
use isle_storage::manifest::{Author, Change, CompactionMode, Edit, LogEntry, LogTail, Manifest, Snapshot};
use isle_storage::names::LogKind;
use isle_storage::object::Bucket;
use tokio::time::Instant;

use super::Service;
use crate::coordination::LossyCoordination;
use crate::fault::FaultBucket;

/// The database's name in every scenario.
pub const NAME: &str = "contract";

/// How long anything may take before a scenario fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A fresh service and its bucket.
pub struct World {
    /// The service.
    pub service: Arc<dyn Service>,
}

impl World {
    /// The world of one scenario.
    #[must_use]
    pub fn new(service: Arc<dyn Service>) -> Self {
        Self { service }
    }

    /// Whether the head itself lies in the bucket.
    #[must_use]
    pub fn head_is_in_bucket(&self) -> bool {
        self.service.backend() == Backend::Bucket
    }

    /// The bucket without faults.
    #[must_use]
    pub fn bucket(&self) -> Arc<dyn Bucket> {
        self.service.bucket()
    }

    /// A process that creates the database where it is missing.
    pub async fn process(&self) -> Database {
        self.try_open(self.bucket(), NAME, &creating()).await.unwrap()
    }

    /// A process with a faulty bucket of its own.
    pub async fn faulty(&self) -> (Database, Arc<FaultBucket>) {
        let faults = FaultBucket::new(self.bucket());
        (self.try_open(faults.clone(), NAME, &creating()).await.unwrap(), faults)
    }

    /// A process whose commits' answers can be lost.
    pub async fn lossy(&self) -> (Database, Arc<LossyCoordination>) {
        let lossy = LossyCoordination::new(self.service.connect(self.bucket()).await);
        let db = open(self.bucket(), lossy.clone(), NAME, &creating()).await.unwrap();
        (db, lossy)
    }

    /// Opens under any circumstances.
    pub async fn try_open(
        &self,
        bucket: Arc<dyn Bucket>,
        name: &str,
        mode: &OpenMode,
    ) -> Result<Database, CoordinationError> {
        open(bucket.clone(), self.service.connect(bucket).await, name, mode).await
    }

    /// A writer in a process of its own; whoever wrote before is paused without being told.
    pub async fn writer(&self) -> Writer {
        self.writer_in(self.process().await).await
    }

    /// A writer in the given process; whoever wrote before is paused without being told.
    pub async fn writer_in(&self, db: Database) -> Writer {
        let claim = self.claim(&db).await;
        Writer::take_over(db, claim).await.unwrap()
    }

    /// A claim won in the given process; whoever wrote before is paused without being told.
    pub async fn claim(&self, db: &Database) -> Claim {
        self.service.expire_writer().await;
        loop {
            let incarnation = Incarnation(db.env.entropy.next_u64());
            match db.coordination.claim_writer(&node(), incarnation).await.unwrap() {
                ClaimAttempt::Won(claim) => return claim,
                ClaimAttempt::HeldBy(_) => db.coordination.vacancy(Duration::from_millis(100)).await,
            }
        }
    }

    /// What a process that has just started sees.
    pub async fn fresh_load(&self) -> Loaded {
        self.process().await.load().await.unwrap()
    }
}

/// Opens a database in a process of its own.
///
/// # Errors
/// As [`Database::open`].
pub async fn open(
    bucket: Arc<dyn Bucket>,
    coordination: Arc<dyn Coordination>,
    name: &str,
    mode: &OpenMode,
) -> Result<Database, CoordinationError> {
    Database::open(bucket, coordination, Environment::system("test", name), name, mode).await
}

/// The mode of roles that may create.
#[must_use]
pub fn creating() -> OpenMode {
    OpenMode::CreateIfMissing(CompactionMode::Merge)
}

/// A node nobody else is.
#[must_use]
pub fn node() -> NodeInfo {
    static NODES: AtomicU64 = AtomicU64::new(0);
    let n = NODES.fetch_add(1, Ordering::Relaxed);
    NodeInfo { node: format!("node-{n}"), advertise: format!("http://127.0.0.1:{n}") }
}

/// The end of a scenario's patience.
#[must_use]
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// A deadline for an answer that must not come.
#[must_use]
pub fn soon() -> Instant {
    Instant::now() + Duration::from_millis(400)
}

/// A writer that has taken over.
#[derive(Debug)]
pub struct Writer {
    /// Its process.
    pub db: Database,
    /// Its claim.
    pub claim: Claim,
    /// The newest state it knows.
    pub at: Loaded,
}

impl Writer {
    /// Takes over with a claim that was won.
    ///
    /// # Errors
    /// As [`claim::take_over`].
    pub async fn take_over(db: Database, claim: Claim) -> Result<Self, TakeoverError> {
        let at = claim::take_over(&db, &claim, "a writer").await?;
        Ok(Self { db, claim, at })
    }

    /// The segment of `count` records after `previous`, not uploaded.
    #[must_use]
    pub fn segment(&self, previous: Option<LogTail>, count: u64) -> EncodedLog {
        let manifest = &self.at.manifest;
        let first_seq = previous.map(|t| t.last_seq).unwrap_or_default().next();
        let mut batch = Batch::new(first_seq, 4096);
        for n in 0..count {
            let seq = first_seq.0 + n;
            let (key, value) = (format!("key-{}", seq % 10), format!("epoch {} seq {seq}", self.claim.epoch));
            batch.push(key.as_bytes(), Timestamp(seq as i64), None, Push::Put(value.as_bytes()));
        }
        let batch = batch.seal().unwrap();
        let header = LogHeader {
            kind: LogKind::Segment,
            database: manifest.database,
            lineage: manifest.lineage,
            epoch: self.claim.epoch,
            incarnation: self.claim.incarnation,
            first_seq,
            last_seq: batch.last_seq,
            previous,
            starts_generation: false,
            blobs: Vec::new(),
            parts: Vec::new(),
        };
        encode_segment(&header, &batch, Compression::None)
    }

    /// Uploads a segment.
    pub async fn upload(&self, segment: &EncodedLog) {
        self.db.bucket.put(&segment.entry.path(), segment.body.clone()).await.unwrap();
    }

    /// Uploads the next `segments` segments of two records each, without committing them.
    pub async fn upload_next(&self, segments: usize) -> Vec<LogEntry> {
        let mut tail = self.at.manifest.tail;
        let mut entries = Vec::new();
        for _ in 0..segments {
            let segment = self.segment(tail, 2);
            self.upload(&segment).await;
            tail = Some(tail_of(&segment.entry));
            entries.push(segment.entry);
        }
        entries
    }

    /// Proposes to append segments.
    #[must_use]
    pub fn propose(&self, segments: &[LogEntry]) -> Proposal {
        let segments = segments.iter().cloned().map(Arc::new).collect();
        self.propose_changes(vec![Change::AppendLog { segments }])
    }

    /// Proposes anything under the writer's authority.
    #[must_use]
    pub fn propose_changes(&self, changes: Vec<Change>) -> Proposal {
        let edit = edit(&self.db, &self.at.manifest, Author::Writer, changes);
        commit::propose(&self.at.state, &self.at.manifest, edit, &self.claim.authority).unwrap()
    }

    /// Uploads and commits one segment of `count` records; other people's edits in between are reloaded over.
    pub async fn append(&mut self, count: u64) -> LogEntry {
        let segment = self.segment(self.at.manifest.tail, count);
        self.upload(&segment).await;
        self.commit_segment(&segment.entry).await;
        segment.entry
    }

    /// Commits an uploaded segment, reloading over other people's edits.
    pub async fn commit_segment(&mut self, entry: &LogEntry) {
        loop {
            let proposal = self.propose(std::slice::from_ref(entry));
            match commit::commit(&self.db, &proposal, deadline()).await {
                Resolved::Committed(state) => return self.advance(&proposal, state),
                Resolved::CommittedEarlier(loaded) => return self.at = loaded,
                Resolved::Moved(loaded) => self.at = loaded,
                other => panic!("not committed: {other:?}"),
            }
        }
    }

    /// The proposal was committed.
    pub fn advance(&mut self, proposal: &Proposal, state: HeadState) {
        self.at = Loaded { state, manifest: Arc::clone(&proposal.manifest), as_of: Instant::now() };
    }
}

/// A segment's place in the log.
#[must_use]
pub fn tail_of(entry: &LogEntry) -> LogTail {
    LogTail { id: entry.id, last_seq: entry.last_seq }
}

/// An edit on top of `manifest`.
#[must_use]
pub fn edit(db: &Database, manifest: &Manifest, author: Author, changes: Vec<Change>) -> Edit {
    Edit {
        version: manifest.version.next(),
        lineage: manifest.lineage,
        epoch: manifest.epoch,
        commit: CommitId(db.env.entropy.next_u64()),
        author,
        changes,
        required_features: Vec::new(),
        extra: BTreeMap::new(),
    }
}

/// An observer's proposal on top of `at`: the snapshot `<series>-<n>` of everything there is.
#[must_use]
pub fn observe(db: &Database, at: &Loaded, series: &str, n: u64) -> Proposal {
    let seq = at.manifest.last_seq;
    let snapshot =
        Snapshot { seq, created: Timestamp(1), expires: None, holds_log: false, extra: BTreeMap::new() };
    let changes = vec![Change::TakeSnapshot { name: format!("{series}-{n}"), snapshot }];
    let edit = edit(db, &at.manifest, Author::Observer("test".to_owned()), changes);
    commit::propose(&at.state, &at.manifest, edit, &Authority::Observer).unwrap()
}

/// Commits an observer's edit, however often somebody else is faster.
pub async fn observe_until_in(db: &Database, series: &str, n: u64) {
    let mut at = db.load().await.unwrap();
    loop {
        match commit::commit(db, &observe(db, &at, series, n), deadline()).await {
            Resolved::Committed(_) | Resolved::CommittedEarlier(_) => return,
            Resolved::Moved(loaded) => at = loaded,
            other => panic!("an observer's edit was not committed: {other:?}"),
        }
    }
}

/// How many times a segment stands in the log.
#[must_use]
pub fn times_in(manifest: &Manifest, entry: &LogEntry) -> usize {
    manifest.log.iter().filter(|e| e.id == entry.id).count()
}

/// Waits for something within the scenario's patience.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}
