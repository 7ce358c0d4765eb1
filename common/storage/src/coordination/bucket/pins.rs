//! Pins of the bucket form: objects of their own, beside the numbered edits.
//!
//! ```text
//!   reader                                        collector
//!   1  put  pin-<p>-<nonce>                       1  put  floor-<f>
//!   2  list floors: the highest is F              2  list pins: the lowest that lives is P
//!   3  F > p: refused, the pin is taken back      3  delete what was retired at or below min(f, P)
//!      else:  held
//! ```
//! **Proof.** A store's reads see every completed write. Suppose that a pin of `p` is held and a collector deletes what
//! was retired above `p`: then `f > p`, and the collector's listing (2) did not show the pin. So the pin's put was
//! not complete when that listing began, and the floor's put was complete before. The reader's listing began after its
//! pin's put, hence after the floor's: it showed a floor above `p`, and the pin was refused. Contradiction. □
//!
//! Edits would do as well (a floor edit and a pin edit meet by their numbers), and would cost every process of the
//! database a version for each beat of each long scan; and a holder that died could only be told by somebody who has
//! watched it stand still, which a collector run by cron never has the time for.
//!
//! **A pin's life** is counted in the store's time, from its writing to a marker written just now: no clock of a host
//! is asked. A holder renews by a fresh pin before it takes the old one back, and stops relying on a pin earlier than
//! any collector may stop heeding it, by its own monotonic clock from before the put was sent. Should that fail all the
//! same (a machine that slept), an object may be gone, and the read says so.
//!
//! **Superseded floors** are deleted once they have been superseded for longer than any listing may take, so that a
//! listing never falls between an old floor that is deleted and a new one that it has passed already.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Inner;
use crate::coordination::{CoordinationError, Lease, PinAttempt};
use crate::ids::{Timestamp, Version};
use crate::names::{self, ObjectPath};
use crate::object::{ObjectMeta, StoreError, store_now};
use crate::watch;

/// How long a pin is heeded after it was written, in the store's time.
const LIFE: Duration = Duration::from_secs(300);

/// How long its holder relies on it: less than [`LIFE`] by what clocks drift and stores round.
const RELIED_ON: Duration = Duration::from_secs(240);

/// How often it is renewed.
const BEAT: Duration = Duration::from_secs(80);

/// Pause after a renewal that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Longest attempt to pin: its listing is over by then.
const ATTEMPT: Duration = Duration::from_secs(60);

/// How long a superseded floor stays: longer than [`ATTEMPT`] on any clock.
const FLOOR_STAYS: Duration = Duration::from_secs(600);

/// What a pin or a floor holds, for people; its name says everything.
const BODY: &[u8] = b"isle";

pub(super) async fn pin(inner: &Arc<Inner>, version: Version) -> Result<PinAttempt, CoordinationError> {
    let sent = Instant::now();
    let path = names::pin(version, inner.env.entropy.next_u64());
    let outcome = timeout(ATTEMPT, attempt(inner, version, &path)).await;
    let passed = match outcome {
        Ok(Ok(None)) => return Ok(PinAttempt::Held(Arc::new(BucketPin::begin(inner, version, path, sent)))),
        Ok(Ok(Some(floor))) => Ok(PinAttempt::Passed(floor)),
        Ok(Err(e)) => Err(e.into()),
        Err(_) => Err(CoordinationError::Unavailable(format!("{path} took longer than {ATTEMPT:?}"))),
    };
    inner.take_back(&path).await;
    passed
}

/// The floor that has passed `version`, if one has.
async fn attempt(inner: &Inner, version: Version, path: &ObjectPath) -> Result<Option<Version>, StoreError> {
    inner.bucket.put(path, Bytes::from_static(BODY).into()).await?;
    // Only now: a floor that is not in this listing was put by somebody who will see the pin.
    let floor = Listed::read(inner).await?.floor();
    Ok((floor > version).then_some(floor))
}

/// Raises the floor as far as pins allow, and says how far may be deleted.
pub(super) async fn raise_floor(inner: &Inner, version: Version) -> Result<Version, StoreError> {
    let mut listed = Listed::read(inner).await?;
    let now = listed.needs_time().then(|| store_now(inner.bucket.as_ref(), inner.env.entropy.as_ref()));
    let now = match now {
        Some(asking) => asking.await?,
        None => Timestamp(0),
    };
    listed.tidy(inner, now).await;
    let wanted = listed.lowest_pin(now).map_or(version, |pin| pin.min(version));
    let floor = listed.floor().max(wanted);
    if wanted > listed.floor() {
        inner.bucket.put(&names::floor(wanted), Bytes::from_static(BODY).into()).await?;
        // Only now: a pin that is not in this listing will see the floor.
        listed = Listed::read(inner).await?;
    }
    Ok(listed.lowest_pin(now).map_or(floor, |pin| pin.min(floor)))
}

/// Pins and floors as one listing shows them.
#[derive(Debug, Default)]
struct Listed {
    pins: Vec<(Version, ObjectMeta)>,
    floors: Vec<(Version, ObjectMeta)>,
}

impl Listed {
    async fn read(inner: &Inner) -> Result<Self, StoreError> {
        let mut listed = Self::default();
        let mut objects = inner.bucket.list("manifest");
        while let Some(object) = objects.try_next().await? {
            if let Some(version) = names::parse_pin(&object.path) {
                listed.pins.push((version, object));
            } else if let Some(version) = names::parse_floor(&object.path) {
                listed.floors.push((version, object));
            }
        }
        listed.floors.sort_by_key(|(version, _)| *version);
        Ok(listed)
    }

    fn floor(&self) -> Version {
        self.floors.last().map(|(version, _)| *version).unwrap_or_default()
    }

    /// The lowest version pinned by a pin that lives. One written after `now` was asked lives.
    fn lowest_pin(&self, now: Timestamp) -> Option<Version> {
        self.pins.iter().filter(|(_, pin)| !is_over(pin, now)).map(|(version, _)| *version).min()
    }

    fn needs_time(&self) -> bool {
        !self.pins.is_empty() || self.floors.len() > 1
    }

    /// Deletes pins that are over and floors long superseded. What cannot be deleted now, the next raise deletes.
    async fn tidy(&self, inner: &Inner, now: Timestamp) {
        let over = self.pins.iter().filter(|(_, pin)| is_over(pin, now)).map(|(_, pin)| pin);
        let superseded = self.floors.windows(2).filter_map(|pair| {
            let ((_, old), (_, next)) = (&pair[0], &pair[1]);
            (next.last_modified.plus(FLOOR_STAYS) < now).then_some(old)
        });
        for object in over.chain(superseded) {
            if let Ok(path) = ObjectPath::new(object.path.clone()) {
                inner.take_back(&path).await;
            }
        }
    }
}

fn is_over(pin: &ObjectMeta, now: Timestamp) -> bool {
    pin.last_modified.plus(LIFE) < now
}

impl Inner {
    async fn take_back(&self, path: &ObjectPath) {
        if let Err(error) = self.bucket.delete(path).await {
            tracing::debug!(%path, %error, "it stays until a collector finds it over");
        }
    }
}

/// A pin, renewed by a task of its own until it is given back, lost, or dropped.
#[derive(Debug)]
struct BucketPin {
    inner: Arc<Inner>,
    /// The object that stands for it now.
    path: Arc<Mutex<ObjectPath>>,
    valid: watch::Receiver<Instant>,
    lost: watch::Receiver<Option<String>>,
    renewing: tokio::task::AbortHandle,
}

impl BucketPin {
    fn begin(inner: &Arc<Inner>, version: Version, path: ObjectPath, sent: Instant) -> Self {
        let path = Arc::new(Mutex::new(path));
        let (valid_tx, valid) = watch::channel(sent + RELIED_ON);
        let (lost_tx, lost) = watch::channel(None);
        let (inner, renewed) = (Arc::clone(inner), (Arc::clone(inner), Arc::clone(&path)));
        let renewing = tokio::spawn(async move {
            let why = renew(&renewed.0, version, &renewed.1, &valid_tx).await;
            lost_tx.send_replace(Some(why));
        });
        Self { inner, path, valid, lost, renewing: renewing.abort_handle() }
    }
}

/// Renews until that has failed for too long; says why.
async fn renew(
    inner: &Inner,
    version: Version,
    path: &Mutex<ObjectPath>,
    valid: &watch::Sender<Instant>,
) -> String {
    let mut pause = BEAT;
    loop {
        sleep(pause).await;
        let (sent, until) = (Instant::now(), *valid.borrow());
        let fresh = names::pin(version, inner.env.entropy.next_u64());
        let put = inner.bucket.put(&fresh, Bytes::from_static(BODY).into());
        let why = match tokio::time::timeout_at(until, put).await {
            // The old one was heeded until the new one stood, so no floor has come between them.
            Ok(Ok(())) => {
                valid.send_replace(sent + RELIED_ON);
                let old = std::mem::replace(&mut *path.lock(), fresh);
                inner.take_back(&old).await;
                pause = BEAT;
                continue;
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("{fresh} could not be written in time"),
        };
        if Instant::now() + PAUSE >= until {
            return why;
        }
        tracing::debug!(%version, why, "a pin could not be renewed yet");
        pause = PAUSE;
    }
}

#[async_trait]
impl Lease for BucketPin {
    fn valid_until(&self) -> Option<Instant> {
        Some(*self.valid.borrow())
    }

    async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "it was given back".to_owned())
    }

    async fn give_back(&self) {
        self.renewing.abort();
        let path = self.path.lock().clone();
        self.inner.take_back(&path).await;
    }
}

impl Drop for BucketPin {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
