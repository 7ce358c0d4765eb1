//! Pins and the collector's floor: each side's transaction compares the other's key (PROTOCOL section 9).
//!
//! ```text
//! pin:        IF value(gc_floor) = f, f <= my version     THEN put pins/<id> {version} (leased)
//! collector:  IF every pins/* mod_revision <= R           THEN put gc_floor        R: the revision it read the pins at
//! ```
//! Whichever comes first is seen by the other: a pin put before the floor is among those that the collector read, or is
//! newer than `R` and makes it read again; a floor put before the pin is no longer `f`, and the pin is judged anew. A
//! holder that is cut off loses its lease, and with it the key.

use std::sync::Arc;

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};
use serde::{Deserialize, Serialize};

use super::EtcdCoordination;
use super::claim::{Created, JOB_TTL_FACTOR, Leased, to_json};
use super::client::{Answer, get, get_prefix};
use super::txn::absent;
use crate::coordination::{CoordinationError, NodeInfo, PinAttempt};
use crate::ids::Version;

/// Tries to raise the floor against new pins and other collectors; then the floor stays where it is.
const FLOOR_TRIES: usize = 5;

/// Tries to pin against a floor that keeps moving; then the caller is told that it may try again.
const PIN_TRIES: usize = 5;

/// A pin as it stands in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    version: Version,
    /// The holder, for people.
    #[serde(default)]
    node: String,
}

impl EtcdCoordination {
    pub(super) async fn put_pin(
        &self,
        version: Version,
        node: &NodeInfo,
    ) -> Result<PinAttempt, CoordinationError> {
        let value = to_json(&Pin { version, node: node.node.clone() })?;
        for _ in 0..PIN_TRIES {
            let answer = self.kv.read(vec![get(self.keys.gc_floor())]).await?;
            let floor = read_floor(answer.one(0))?;
            // What was retired up to the floor may be gone already.
            if floor > version {
                return Ok(PinAttempt::Passed(floor));
            }
            let stands = match answer.value(0) {
                Some(raw) => Compare::value(self.keys.gc_floor(), CompareOp::Equal, raw),
                None => absent(self.keys.gc_floor()),
            };
            let key = self.keys.pin(self.env.entropy.next_u64());
            let pin = Leased { key, value: value.clone(), compares: vec![stands], puts: Vec::new() };
            if let Created::Ours(_, lease) =
                self.create_leased(pin, self.settings.lease_ttl * JOB_TTL_FACTOR).await?
            {
                return Ok(PinAttempt::Held(Arc::new(lease)));
            }
        }
        Err(CoordinationError::Unavailable("the collector's floor never stood still".to_owned()))
    }

    pub(super) async fn raise_floor(&self, version: Version) -> Result<Version, CoordinationError> {
        let mut floor = Version::ZERO;
        for _ in 0..FLOOR_TRIES {
            let reads = vec![get(self.keys.gc_floor()), get_prefix(self.keys.pins())];
            let answer = self.kv.read(reads).await?;
            floor = read_floor(answer.one(0))?;
            let wanted = lowest_pin(&answer, floor).map_or(version, |pin| pin.min(version));
            if wanted <= floor || self.put_floor(&answer, wanted).await? {
                return Ok(wanted.max(floor));
            }
        }
        Ok(floor)
    }

    /// Whether the floor was put: no pin has come, and no other collector has moved it, since `read`.
    async fn put_floor(&self, read: &Answer, floor: Version) -> Result<bool, CoordinationError> {
        let before = read.one(0).map_or(0, KeyValue::mod_revision);
        let pins = Compare::mod_revision(self.keys.pins(), CompareOp::Less, read.revision + 1).with_prefix();
        let txn = Txn::new()
            .when([pins, Compare::mod_revision(self.keys.gc_floor(), CompareOp::Equal, before)])
            .and_then([TxnOp::put(self.keys.gc_floor(), floor.to_string(), None)]);
        Ok(self.kv.txn(&txn).await?.succeeded)
    }
}

fn read_floor(found: Option<&KeyValue>) -> Result<Version, CoordinationError> {
    let Some(kv) = found else { return Ok(Version::ZERO) };
    let text = String::from_utf8_lossy(kv.value()).into_owned();
    text.parse().map(Version).map_err(|_| {
        CoordinationError::Damaged(format!("the collector's floor in etcd is {text:?}, not a version"))
    })
}

/// The lowest version pinned; a pin that cannot be read holds everything above `floor`.
fn lowest_pin(answer: &Answer, floor: Version) -> Option<Version> {
    let pins = answer.reads.get(1)?;
    pins.iter().map(|kv| serde_json::from_slice::<Pin>(kv.value()).map_or(floor, |pin| pin.version)).min()
}
