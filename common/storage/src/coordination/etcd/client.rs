//! Calls to etcd: dialling, fail-over between endpoints, and a bound on every request.
//!
//! One connection to one endpoint is used until it fails; then it is dropped and the next endpoint is tried. That is
//! done here rather than by the library's balancer, which goes on sending a share of the requests to a member that
//! accepts connections but has stopped answering. A dropped connection is finished by the calls that still use it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Client, Error, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::error::CallError;
use super::space::Space;
use super::target::Target;
use super::witness::Witness;

/// Largest answer accepted: a few hundred edits just below the size that makes them objects.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Tries of a request that never left this process, over all endpoints; then the caller is told.
const NOT_SENT_TRIES: usize = 12;

/// Pause after every endpoint has refused the connection.
const NOT_SENT_PAUSE: Duration = Duration::from_millis(50);

/// A read of everything may take this many times longer than other requests: it may be megabytes on a slow line.
const MUCH_FACTOR: u32 = 3;

/// Tries of a read whose answer did not come; then the caller is told.
const READ_TRIES: usize = 2;

/// A connection for one purpose, replaced when it fails.
#[derive(Debug)]
pub(super) struct Dialer {
    target: Arc<Target>,
    slot: tokio::sync::Mutex<Slot>,
}

struct Slot {
    /// The endpoint in use, modulo their number.
    at: usize,
    /// Counts the connections.
    serial: u64,
    client: Option<Client>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("at", &self.at).field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// A connection in use.
#[derive(Clone)]
pub(super) struct Dialed {
    /// The connection.
    pub(super) client: Client,
    /// Where it leads.
    pub(super) endpoint: String,
    serial: u64,
}

impl Dialer {
    /// Dials `target` when first used, beginning with the endpoint number `start` (modulo their number).
    pub(super) fn new(target: Arc<Target>, start: usize) -> Self {
        Self { target, slot: tokio::sync::Mutex::new(Slot { at: start, serial: 0, client: None }) }
    }

    /// Bound of every request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.target.request_timeout
    }

    /// The connection in use, or a new one.
    pub(super) async fn dial(&self) -> Result<Dialed, CallError> {
        let mut slot = self.slot.lock().await;
        let endpoints = &self.target.url.endpoints;
        let endpoint = &endpoints[slot.at % endpoints.len()];
        if let Some(client) = &slot.client {
            return Ok(Dialed { client: client.clone(), endpoint: endpoint.clone(), serial: slot.serial });
        }
        // Connecting is lazy, but with a password the library asks for a token here.
        let connect = Client::connect([endpoint], Some(self.target.options.clone()));
        let client = match timeout(self.target.request_timeout, connect).await {
            Ok(Ok(client)) => client,
            Ok(Err(e)) => {
                slot.at += 1;
                return Err(undialed(CallError::of(&e)).at(endpoint));
            }
            Err(_) => {
                slot.at += 1;
                return Err(CallError::NotSent(format!("{endpoint} does not answer")));
            }
        };
        slot.serial += 1;
        slot.client = Some(client.clone());
        Ok(Dialed { client, endpoint: endpoint.clone(), serial: slot.serial })
    }

    /// Gives up a connection that failed: the next call goes to the next endpoint.
    pub(super) async fn discard(&self, dialed: &Dialed) {
        let mut slot = self.slot.lock().await;
        if slot.serial == dialed.serial && slot.client.is_some() {
            slot.client = None;
            slot.at += 1;
            self.interrupted();
        }
    }

    /// What lies behind the connection may no longer be what it was.
    fn interrupted(&self) {
        self.target.interruptions.fetch_add(1, Ordering::AcqRel);
    }

    /// One request, bounded; the connection is given up where another may do better.
    async fn once<T, F>(&self, bound: Duration, request: impl FnOnce(Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let dialed = self.dial().await?;
        let error = match timeout(bound, request(dialed.client.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) => CallError::of(&e),
            Err(_) => CallError::Unclear(format!("no answer within {bound:?}")),
        };
        if error.is_connection() {
            self.discard(&dialed).await;
        }
        Err(error.at(&dialed.endpoint))
    }

    /// One request that reaches etcd at most once: repeated at once only while it has not left this process.
    pub(super) async fn call<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_within(self.request_timeout(), request).await
    }

    async fn call_within<T, F>(&self, bound: Duration, request: impl Fn(Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let started = Instant::now();
        let endpoints = self.target.url.endpoints.len();
        for n in 1.. {
            match self.once(bound, &request).await {
                Err(CallError::NotSent(_))
                    if n < NOT_SENT_TRIES && started.elapsed() < self.request_timeout() =>
                {
                    if n % endpoints == 0 {
                        sleep(NOT_SENT_PAUSE).await;
                    }
                }
                other => return other,
            }
        }
        Err(CallError::NotSent("no endpoint accepts a connection".to_owned()))
    }
}

/// A failure before the request itself was sent.
fn undialed(error: CallError) -> CallError {
    match error {
        CallError::Unclear(why) => CallError::NotSent(why),
        other => other,
    }
}

/// What a transaction answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether its comparisons held.
    pub(super) succeeded: bool,
    /// What each operation of the branch taken read, in their order; nothing for operations that read nothing.
    pub(super) reads: Vec<Vec<KeyValue>>,
    /// The revision of the answer.
    pub(super) revision: i64,
}

impl Answer {
    /// The one key that operation `n` asked for.
    pub(super) fn one(&self, n: usize) -> Option<&KeyValue> {
        self.reads.get(n)?.first()
    }

    /// The value of the one key that operation `n` asked for.
    pub(super) fn value(&self, n: usize) -> Option<&[u8]> {
        self.one(n).map(KeyValue::value)
    }
}

/// Linearizable reads and transactions, each answer seen by the witness.
#[derive(Debug)]
pub(super) struct Kv {
    dialer: Dialer,
    /// What all answers so far have shown.
    pub(super) witness: Witness,
    pulse: Mutex<Pulse>,
}

/// How the last calls went, for people.
#[derive(Debug, Clone, Default)]
struct Pulse {
    answered: Option<Instant>,
    trouble: Option<String>,
    space: Option<Space>,
    /// The term of the last answer's leader.
    term: u64,
}

impl Kv {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, witness: Witness::new(), pulse: Mutex::default() }
    }

    /// The connection beneath.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// One transaction that reaches etcd at most once.
    pub(super) async fn txn(&self, txn: &Txn) -> Result<Answer, CallError> {
        self.txn_within(self.dialer.request_timeout(), txn).await
    }

    async fn txn_within(&self, bound: Duration, txn: &Txn) -> Result<Answer, CallError> {
        let before = self.witness.before();
        let outcome = self
            .dialer
            .call_within(bound, |client| {
                let txn = txn.clone();
                async move { client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES).txn(txn).await }
            })
            .await;
        self.note(outcome.as_ref().err());
        let answer = outcome?;
        let header = answer.header();
        let revision = header.map_or(0, etcd_client::ResponseHeader::revision);
        if let Some(header) = header
            && let Some(change) = self.witness.judge(before, header.cluster_id(), revision)
        {
            tracing::warn!(%change, "etcd is not what it was: everything is read again");
            self.dialer.interrupted();
        }
        // The library reconnects by itself where no request is under way; a member that was started again, over whatever
        // data, has had another election.
        if let Some(term) = header.map(etcd_client::ResponseHeader::raft_term)
            && std::mem::replace(&mut self.pulse.lock().term, term) != term
        {
            self.dialer.interrupted();
        }
        let reads = answer.op_responses().into_iter().map(read_of).collect();
        Ok(Answer { succeeded: answer.succeeded(), reads, revision })
    }

    /// Reads, all at one revision; repeated within a bound where no answer comes.
    pub(super) async fn read(&self, gets: Vec<TxnOp>) -> Result<Answer, CallError> {
        self.read_within(self.dialer.request_timeout(), gets).await
    }

    /// Reads that may answer with megabytes.
    pub(super) async fn read_much(&self, gets: Vec<TxnOp>) -> Result<Answer, CallError> {
        self.read_within(self.dialer.request_timeout() * MUCH_FACTOR, gets).await
    }

    async fn read_within(&self, bound: Duration, gets: Vec<TxnOp>) -> Result<Answer, CallError> {
        let txn = Txn::new().and_then(gets);
        for _ in 1..READ_TRIES {
            match self.txn_within(bound, &txn).await {
                Err(CallError::Unclear(_)) => {}
                other => return other,
            }
        }
        self.txn_within(bound, &txn).await
    }

    /// How full the database of the member in use is.
    pub(super) async fn space(&self) -> Result<Space, CallError> {
        let ask = |client: Client| async move { client.maintenance_client().status().await };
        let status = self.dialer.call(ask).await?;
        let space =
            Space { used: status.db_size().max(0) as u64, quota: status.db_size_quota().max(0) as u64 };
        self.pulse.lock().space = Some(space);
        Ok(space)
    }

    fn note(&self, error: Option<&CallError>) {
        let mut pulse = self.pulse.lock();
        match error {
            None => {
                pulse.answered = Some(Instant::now());
                pulse.trouble = None;
            }
            Some(e) => pulse.trouble = Some(e.reason().to_owned()),
        }
    }

    /// How the last calls went, in words.
    pub(super) fn describe(&self) -> String {
        let Pulse { answered, trouble, space, .. } = self.pulse.lock().clone();
        let mut words = vec![
            answered.map_or_else(
                || "never answered".to_owned(),
                |at| format!("last answered {:.1} s ago", at.elapsed().as_secs_f64()),
            ),
            format!("revision {}", self.witness.highest()),
        ];
        words.extend(space.map(|s| format!("{:.1} MiB", s.used as f64 / f64::from(1 << 20))));
        words.extend(space.and_then(Space::warning));
        words.extend(trouble.map(|why| format!("trouble: {why}")));
        words.join(", ")
    }
}

fn read_of(response: TxnOpResponse) -> Vec<KeyValue> {
    match response {
        TxnOpResponse::Get(mut get) => get.take_kvs(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => Vec::new(),
    }
}

/// Reads one key.
pub(super) fn get(key: String) -> TxnOp {
    TxnOp::get(key, None)
}

/// Reads every key with a prefix, ascending.
pub(super) fn get_prefix(prefix: String) -> TxnOp {
    TxnOp::get(prefix, Some(GetOptions::new().with_prefix()))
}
