//! Leases as a cluster keeps them: the service counts from the last renewal that arrived, the holder from when it sent
//! the last one that was answered, so the holder always ends first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use isle_storage::coordination::Lease;
use isle_storage::ids::Version;
use isle_storage::watch;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::SimCoordination;
use crate::oracle::Oracle;
use crate::world::{Micros, Request, Service, World};

/// A granted lease, as the service keeps it.
struct Granted {
    until: Micros,
    right: Arc<dyn Lease>,
    what: &'static str,
    pin: Option<(Arc<Oracle>, Version)>,
}

/// Every lease the service has granted and not ended.
#[derive(Debug)]
pub struct Leases {
    ttl: Micros,
    table: Mutex<BTreeMap<u64, Granted>>,
    next: Mutex<u64>,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} until {}", self.what, self.until)
    }
}

impl Leases {
    /// A service whose leases live for `ttl`.
    #[must_use]
    pub fn new(ttl: Micros) -> Arc<Self> {
        Arc::new(Self { ttl, table: Mutex::default(), next: Mutex::default() })
    }

    pub(super) fn grant(
        &self,
        world: &Arc<World>,
        right: Arc<dyn Lease>,
        what: &'static str,
        pin: Option<(Arc<Oracle>, Version)>,
    ) -> u64 {
        let id = {
            let mut next = self.next.lock();
            *next += 1;
            *next
        };
        if let Some((oracle, version)) = &pin {
            oracle.pinned(id, Some(*version));
        }
        self.table.lock().insert(id, Granted { until: world.now() + self.ttl, right, what, pin });
        id
    }

    fn renew(&self, world: &Arc<World>, id: u64) -> bool {
        match self.table.lock().get_mut(&id) {
            Some(lease) => {
                lease.until = world.now() + self.ttl;
                true
            }
            None => false,
        }
    }

    fn end(&self, world: &Arc<World>, id: u64, why: &str) {
        let Some(lease) = self.table.lock().remove(&id) else { return };
        // The memory form ends it at once.
        lease.right.give_back().now_or_never();
        if let Some((oracle, _)) = &lease.pin {
            oracle.pinned(id, None);
        }
        world.note(format_args!("the lease of a {} ends: {why}", lease.what));
    }

    /// Ends what was not renewed in time.
    pub fn expire_due(&self, world: &Arc<World>) {
        let now = world.now();
        let due: Vec<u64> =
            self.table.lock().iter().filter(|(_, l)| l.until <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.end(world, id, "not renewed in time");
        }
    }

    /// Ends every lease of a kind at once, as a cluster does that loses its state of them.
    pub fn expire_all(&self, world: &Arc<World>, what: &str) {
        let all: Vec<u64> =
            self.table.lock().iter().filter(|(_, l)| l.what == what).map(|(id, _)| *id).collect();
        for id in all {
            world.fault("lease ended early", format_args!("{what}"));
            self.end(world, id, "lost by the service");
        }
    }

    /// A service that was away gives everybody a whole time to live again.
    pub fn extend_all(&self, world: &Arc<World>) {
        let until = world.now() + self.ttl;
        self.table.lock().values_mut().for_each(|l| l.until = until);
    }
}

#[derive(Debug, Clone)]
struct Standing {
    valid_until: Instant,
    lost: Option<String>,
}

/// A lease as its holder has it: renewed by a task of the holder's process.
#[derive(Debug)]
struct SimLease {
    coordination: SimCoordination,
    id: u64,
    standing: Arc<watch::Sender<Standing>>,
    keeper: AbortOnDropHandle<()>,
}

impl SimCoordination {
    /// Keeps lease `id`, granted by a request that was sent at `sent`.
    pub(super) fn keep(&self, id: u64, sent: Instant) -> Arc<dyn Lease> {
        let ttl = Duration::from_micros(self.leases.ttl);
        let standing = Arc::new(watch::Sender::new(Standing { valid_until: sent + ttl, lost: None }));
        let keeper = renew(self.clone(), id, ttl, Arc::clone(&standing));
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper));
        Arc::new(SimLease { coordination: self.clone(), id, standing, keeper })
    }

    async fn lease_request(
        &self,
        what: &str,
        id: u64,
        apply: impl FnOnce(&Leases, &Arc<World>) -> bool + Send + 'static,
    ) -> Option<bool> {
        let what = format!("{what} lease {id}");
        let request = Request { process: self.process, service: Service::Coordination, what };
        let leases = Arc::clone(&self.leases);
        self.world.request(request, move |world| apply(&leases, world)).await.ok()
    }
}

async fn renew(
    coordination: SimCoordination,
    id: u64,
    ttl: Duration,
    standing: Arc<watch::Sender<Standing>>,
) {
    loop {
        sleep(ttl / 3).await;
        let sent = Instant::now();
        let answer = coordination.lease_request("renew", id, move |leases, world| leases.renew(world, id));
        match answer.await {
            Some(true) => standing.send_modify(|s| s.valid_until = sent + ttl),
            Some(false) => return lose(&standing, "the service no longer knows the lease"),
            None => {}
        }
    }
}

fn lose(standing: &watch::Sender<Standing>, why: &str) {
    standing.send_modify(|s| {
        s.lost.get_or_insert_with(|| why.to_owned());
    });
}

#[async_trait]
impl Lease for SimLease {
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
                lose(&self.standing, "the lease was not renewed in time");
                continue;
            }
            tokio::select! {
                biased;
                _ = standing.changed() => {}
                () = sleep_until(valid_until) => {}
            }
        }
    }

    async fn give_back(&self) {
        self.keeper.abort();
        lose(&self.standing, "given back");
        let id = self.id;
        let ended = self.coordination.lease_request("give back", id, move |leases, world| {
            leases.end(world, id, "given back");
            true
        });
        let _answered = ended.await;
    }
}
