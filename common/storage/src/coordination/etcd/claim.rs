//! Claims: the writer's role and compaction jobs, each a key that lives as long as its lease (PROTOCOL section 3).
//!
//! ```text
//! writer:  IF create_revision(writer) = 0 AND value(epoch) = <lineage>:<n-1>
//!          THEN put writer (leased), put epoch <lineage>:<n>          ELSE get writer
//! job:     IF create_revision(jobs/<id>) = 0 THEN put jobs/<id> (leased)   ELSE get jobs/<id>
//! ```
//!
//! The token that later commits compare is the revision at which the key was created. Where the answer is lost, the
//! key tells: its lease is ours or it is not. Where it is not there either, the transaction may still be on its way;
//! the lease is then given back, and without its lease it cannot apply.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, WatchOptions,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::EtcdCoordination;
use super::client::get;
use super::error::CallError;
use super::keys::EpochValue;
use super::lease::{self, EtcdLease};
use super::txn::absent;
use crate::coordination::{
    Authority, Claim, ClaimAttempt, CoordinationError, JobAttempt, LeaderInfo, Lease, NodeInfo,
};
use crate::ids::{Epoch, Incarnation, JobId};

/// Tries to read what became of a claim whose answer was lost.
const RESOLVE_TRIES: usize = 3;

/// A job's lease lives this many times longer than the writer's: nobody waits for a job, and one taken away in a busy
/// moment is hours of work thrown away.
pub(super) const JOB_TTL_FACTOR: u32 = 3;

/// How long a standby waits before it asks again where the watch for a vacancy cannot be had.
const VACANCY_PAUSE: Duration = Duration::from_secs(1);

/// How a leased key's creation ended.
pub(super) enum Created {
    /// It is ours; the revision at which it was created.
    Ours(i64, EtcdLease),
    /// It is not; what stands there, if anything does.
    Theirs(Option<KeyValue>),
}

impl EtcdCoordination {
    pub(super) async fn claim_role(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError> {
        let answer = self.kv.read(vec![get(self.keys.writer()), get(self.keys.epoch())]).await?;
        if let Some(held) = answer.one(0) {
            return Ok(ClaimAttempt::HeldBy(leader_of(held)));
        }
        let seen = answer.value(1).ok_or_else(|| CoordinationError::NotFound(self.place()))?;
        let mine = EpochValue::parse(seen).map(EpochValue::next).ok_or_else(|| {
            let text = String::from_utf8_lossy(seen);
            CoordinationError::Damaged(format!("the epoch in etcd is {text:?}, not <lineage>:<number>"))
        })?;
        let info = LeaderInfo { node: node.clone(), epoch: mine.epoch };
        let claim = Leased {
            key: self.keys.writer(),
            value: to_json(&info)?,
            compares: vec![Compare::value(self.keys.epoch(), CompareOp::Equal, seen)],
            puts: vec![TxnOp::put(self.keys.epoch(), mine.to_string(), None)],
        };
        match self.create_leased(claim, self.settings.lease_ttl).await? {
            Created::Ours(token, lease) => Ok(ClaimAttempt::Won(Claim {
                epoch: mine.epoch,
                incarnation,
                authority: Authority::Writer { lineage: mine.lineage, epoch: mine.epoch, token },
                lease: Arc::new(lease),
            })),
            Created::Theirs(held) => Ok(ClaimAttempt::HeldBy(held.as_ref().and_then(leader_of))),
        }
    }

    pub(super) async fn current_leader(&self) -> Result<Option<LeaderInfo>, CoordinationError> {
        let answer = self.kv.read(vec![get(self.keys.writer())]).await?;
        Ok(answer.one(0).and_then(leader_of))
    }

    pub(super) async fn take_job(
        &self,
        job: JobId,
        node: &NodeInfo,
    ) -> Result<JobAttempt, CoordinationError> {
        // A lease is not asked for in vain: of many workers most find the job taken.
        let answer = self.kv.read(vec![get(self.keys.job(job))]).await?;
        if let Some(held) = answer.one(0) {
            return Ok(JobAttempt::HeldBy(node_of(held)));
        }
        let claim =
            Leased { key: self.keys.job(job), value: to_json(node)?, compares: Vec::new(), puts: Vec::new() };
        match self.create_leased(claim, self.settings.lease_ttl * JOB_TTL_FACTOR).await? {
            Created::Ours(token, lease) => {
                let lease: Arc<dyn Lease> = Arc::new(lease);
                Ok(JobAttempt::Won(Authority::Job { job, token }, lease))
            }
            Created::Theirs(held) => {
                Ok(JobAttempt::HeldBy(held.as_ref().map_or_else(|| "somebody else".to_owned(), node_of)))
            }
        }
    }

    pub(super) async fn job_stands(&self, job: JobId) -> Result<bool, CoordinationError> {
        let answer = self.kv.read(vec![get(self.keys.job(job))]).await?;
        Ok(answer.one(0).is_some())
    }

    /// Creates a key under a new lease, where there is none.
    pub(super) async fn create_leased(
        &self,
        claim: Leased,
        ttl: Duration,
    ) -> Result<Created, CoordinationError> {
        let dialer = Arc::new(self.dialer());
        let (id, valid_until, ttl) = lease::grant(&dialer, ttl).await?;
        match self.create_under(&claim, id).await {
            Ok(Ok(token)) => Ok(Created::Ours(token, EtcdLease::keep(dialer, id, valid_until, ttl))),
            Ok(Err(held)) => {
                // Nothing depends on it: where it cannot be given back it ends by itself.
                let _unused = lease::revoke(&dialer, id).await;
                Ok(Created::Theirs(held))
            }
            Err(e) => {
                let _unused = lease::revoke(&dialer, id).await;
                Err(e.into())
            }
        }
    }

    /// `Ok(Ok(create revision))` where the key is ours, `Ok(Err(key))` where it certainly is not.
    async fn create_under(
        &self,
        claim: &Leased,
        lease: i64,
    ) -> Result<Result<i64, Option<KeyValue>>, CallError> {
        match self.kv.txn(&claim.txn(lease)).await {
            Ok(answer) if answer.succeeded => Ok(Ok(answer.revision)),
            Ok(answer) => Ok(ours(answer.one(0), lease).ok_or_else(|| answer.one(0).cloned())),
            Err(e @ (CallError::Unclear(_) | CallError::Full(_))) => self.resolve(claim, lease, e).await,
            Err(e) => Err(e),
        }
    }

    async fn resolve(
        &self,
        claim: &Leased,
        lease: i64,
        error: CallError,
    ) -> Result<Result<i64, Option<KeyValue>>, CallError> {
        for _ in 0..RESOLVE_TRIES {
            if let Ok(answer) = self.kv.read(vec![get(claim.key.clone())]).await {
                return match (ours(answer.one(0), lease), answer.one(0)) {
                    (Some(created), _) => Ok(Ok(created)),
                    (None, Some(held)) => Ok(Err(Some(held.clone()))),
                    (None, None) => Err(error),
                };
            }
        }
        Err(error)
    }

    /// Resolves when the writer's key is gone, or may be, or after `at_most`.
    pub(super) async fn wait_for_vacancy(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        if let Err(e) = timeout_at(until, self.watch_vacancy()).await.unwrap_or(Ok(())) {
            tracing::debug!(reason = e.reason(), "the writer's key cannot be watched: asking again later");
            sleep(VACANCY_PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }

    async fn watch_vacancy(&self) -> Result<(), CallError> {
        let answer = self
            .kv
            .read(vec![TxnOp::get(self.keys.writer(), Some(GetOptions::new().with_keys_only()))])
            .await?;
        if answer.one(0).is_none() {
            return Ok(());
        }
        let dialer = self.kv.dialer();
        let dialed = dialer.dial().await?;
        let options = WatchOptions::new().with_start_revision(answer.revision + 1);
        let mut client = dialed.client.watch_client();
        let opened = timeout(dialer.request_timeout(), client.watch(self.keys.writer(), Some(options))).await;
        let mut stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(CallError::of(&e)),
            Err(_) => return Err(CallError::Unclear("a watch was not answered".to_owned())),
        };
        loop {
            match stream.message().await {
                Ok(Some(m)) if m.canceled() => return Err(CallError::Unclear(m.cancel_reason().to_owned())),
                Ok(Some(m)) if m.events().iter().any(|e| e.event_type() == EventType::Delete) => {
                    return Ok(());
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(CallError::Unclear("the watch has ended".to_owned())),
                Err(e) => return Err(CallError::of(&e)),
            }
        }
    }
}

/// A key to be created under a lease.
pub(super) struct Leased {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) compares: Vec<Compare>,
    pub(super) puts: Vec<TxnOp>,
}

impl Leased {
    fn txn(&self, lease: i64) -> Txn {
        let mut compares = vec![absent(self.key.clone())];
        compares.extend(self.compares.iter().cloned());
        let put = TxnOp::put(self.key.clone(), self.value.clone(), Some(PutOptions::new().with_lease(lease)));
        let mut puts = vec![put];
        puts.extend(self.puts.iter().cloned());
        Txn::new().when(compares).and_then(puts).or_else([get(self.key.clone())])
    }
}

/// When the key was created, if it carries our lease.
fn ours(found: Option<&KeyValue>, lease: i64) -> Option<i64> {
    found.filter(|kv| kv.lease() == lease).map(KeyValue::create_revision)
}

fn leader_of(kv: &KeyValue) -> Option<LeaderInfo> {
    serde_json::from_slice(kv.value()).ok()
}

/// The holder of the writer's key, also where a newer program has written it.
pub(super) fn leader_or_unknown(kv: &KeyValue) -> LeaderInfo {
    leader_of(kv).unwrap_or_else(|| LeaderInfo {
        node: NodeInfo { node: "somebody".to_owned(), advertise: "unknown".to_owned() },
        epoch: Epoch::ZERO,
    })
}

/// The node's name in a job's key.
fn node_of(kv: &KeyValue) -> String {
    let node = serde_json::from_slice::<NodeInfo>(kv.value());
    node.map_or_else(|_| "somebody else".to_owned(), |n| n.node)
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, CoordinationError> {
    serde_json::to_vec(value)
        .map_err(|e| CoordinationError::Damaged(format!("cannot be written as JSON: {e}")))
}
