//! Leases: granted, kept alive by a task of their own on a connection of their own, and watched for their end.
//!
//! ```text
//!   grant ──▶ renew every ttl/3 ──▶ … ──▶ given back
//!               │ no answer: dial anew, at once, then with growing pauses
//!               ├─ etcd says it does not exist ──▶ lost
//!               └─ ttl passed since the last answered request was SENT ──▶ lost
//! ```
//!
//! The time counts from the send of a request that was answered: etcd cannot have started its own count earlier, so
//! the lease certainly lives until then, and whoever relies on it stops before etcd gives the role away, not after.
//! A lease is for liveness only, whatever happens here; commits compare the key it carries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::client::Dialer;
use super::error::CallError;
use crate::coordination::Lease;

/// Renewals within one time to live.
const RENEWALS: u32 = 3;

/// First pause after a broken keep-alive; doubles up to [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// Longest pause between attempts to renew: short beside any time to live.
const PAUSE_MOST: Duration = Duration::from_millis(500);

/// Tries to give a lease back; then it ends by itself.
const REVOKE_TRIES: usize = 3;

/// Grants a lease. Returns its id, until when it certainly lives, and for how long it is granted each time.
pub(super) async fn grant(dialer: &Dialer, ttl: Duration) -> Result<(i64, Instant, Duration), CallError> {
    let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
    let sent = Instant::now();
    let granted =
        dialer.call(|client| async move { client.lease_client().grant(seconds, None).await }).await?;
    let ttl = Duration::from_secs(granted.ttl().max(0) as u64);
    Ok((granted.id(), sent + ttl, ttl))
}

/// Ends a lease and with it every key it carries, as far as etcd can be reached.
pub(super) async fn revoke(dialer: &Dialer, id: i64) -> Result<(), CallError> {
    let mut last = Ok(());
    for _ in 0..REVOKE_TRIES {
        last = dialer.call(|client| async move { client.lease_client().revoke(id).await.map(drop) }).await;
        match &last {
            Ok(()) | Err(CallError::LeaseGone(_)) => return Ok(()),
            Err(e) if e.is_connection() => {}
            Err(_) => return last,
        }
    }
    last
}

/// How a lease stands.
#[derive(Debug, Clone)]
struct Standing {
    valid_until: Instant,
    lost: Option<String>,
}

/// A granted lease that is kept alive until it is dropped, given back or lost.
#[derive(Debug)]
pub(super) struct EtcdLease {
    id: i64,
    dialer: Arc<Dialer>,
    standing: Arc<watch::Sender<Standing>>,
    keeper: AbortOnDropHandle<()>,
}

impl EtcdLease {
    /// Keeps a granted lease alive.
    pub(super) fn keep(dialer: Arc<Dialer>, id: i64, valid_until: Instant, ttl: Duration) -> Self {
        let standing = Arc::new(watch::Sender::new(Standing { valid_until, lost: None }));
        let keeper = Keeper { dialer: Arc::clone(&dialer), id, ttl, standing: Arc::clone(&standing) };
        Self { id, dialer, standing, keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())) }
    }
}

#[async_trait]
impl Lease for EtcdLease {
    fn valid_until(&self) -> Option<Instant> {
        Some(self.standing.borrow().valid_until)
    }

    async fn lost(&self) -> String {
        let mut standing = self.standing.subscribe();
        loop {
            let Standing { valid_until, lost } = standing.borrow_and_update().clone();
            if let Some(why) = lost {
                return why;
            }
            if valid_until <= Instant::now() {
                // The keeper says so too; this holds even where it does not get to run, and once said it stays so.
                lose(&self.standing, expired());
                continue;
            }
            tokio::select! {
                _ = standing.changed() => {}
                () = sleep_until(valid_until) => {}
            }
        }
    }

    async fn give_back(&self) {
        self.keeper.abort();
        lose(&self.standing, "the lease was given back".to_owned());
        if let Err(e) = revoke(&self.dialer, self.id).await {
            tracing::warn!(reason = e.reason(), "a lease could not be given back: it ends by itself");
        }
    }
}

/// The first reason stays.
fn lose(standing: &watch::Sender<Standing>, why: String) {
    standing.send_modify(|s| {
        s.lost.get_or_insert(why);
    });
}

fn expired() -> String {
    "the lease was not renewed in time".to_owned()
}

/// The task that renews.
struct Keeper {
    dialer: Arc<Dialer>,
    id: i64,
    ttl: Duration,
    standing: Arc<watch::Sender<Standing>>,
}

impl Keeper {
    async fn run(self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let before = self.standing.borrow().valid_until;
            // Whatever the connection does, the end of the lease is noticed when it comes.
            let error = tokio::select! {
                error = self.renew() => error,
                () = self.end() => return self.lose(expired()),
            };
            match error {
                CallError::LeaseGone(why) => {
                    return self.lose(format!("etcd no longer knows the lease: {why}"));
                }
                CallError::Denied(why) | CallError::Refused(why) => return self.lose(why),
                other => {
                    tracing::debug!(reason = other.reason(), "a lease's keep-alive broke: dialling anew")
                }
            }
            if self.standing.borrow().valid_until > before {
                pause = PAUSE_FIRST;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.end() => return self.lose(expired()),
            }
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }

    /// Renews over one stream until it breaks.
    async fn renew(&self) -> CallError {
        let dialed = match self.dialer.dial().await {
            Ok(dialed) => dialed,
            Err(e) => return e,
        };
        let error = self.renew_over(dialed.client.lease_client()).await;
        self.dialer.discard(&dialed).await;
        error
    }

    async fn renew_over(&self, mut client: etcd_client::LeaseClient) -> CallError {
        let bound = self.dialer.request_timeout();
        let silent = || CallError::Unclear(format!("no answer to a keep-alive within {bound:?}"));
        let sent = Instant::now();
        let (mut keeper, mut answers) = match timeout(bound, client.keep_alive(self.id)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return CallError::of(&e),
            Err(_) => return silent(),
        };
        self.extend(sent + self.ttl);
        loop {
            sleep(self.ttl / RENEWALS).await;
            let sent = Instant::now();
            let round = async {
                keeper.keep_alive().await?;
                answers.message().await
            };
            match timeout(bound, round).await {
                Ok(Ok(Some(answer))) if answer.ttl() > 0 => {
                    self.extend(sent + Duration::from_secs(answer.ttl() as u64));
                }
                Ok(Ok(Some(_))) => return CallError::LeaseGone("it has expired".to_owned()),
                Ok(Ok(None)) => return CallError::Unclear("the keep-alive stream has ended".to_owned()),
                Ok(Err(e)) => return CallError::of(&e),
                Err(_) => return silent(),
            }
        }
    }

    fn extend(&self, until: Instant) {
        self.standing.send_modify(|s| s.valid_until = s.valid_until.max(until));
    }

    /// Resolves when the lease has run out, or somebody has said that it has.
    async fn end(&self) {
        loop {
            let Standing { valid_until, lost } = self.standing.borrow().clone();
            if lost.is_some() || valid_until <= Instant::now() {
                return;
            }
            sleep_until(valid_until).await;
        }
    }

    fn lose(&self, why: String) {
        lose(&self.standing, why);
    }
}
