//! Who is there, and how far the collector may go.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::EtcdCoordination;
use super::client::{Answer, get, get_prefix};
use super::lease;
use crate::coordination::{CoordinationError, Member};
use crate::ids::Version;

/// How long a member that has gone silent is still listed: three missed writes.
const MEMBER_TTL: Duration = Duration::from_secs(95);

/// A member is written at most this often; what it says in between is dropped.
const MEMBER_EVERY: Duration = Duration::from_secs(30);

/// Tries to raise the floor against new pins and other collectors; then the floor stays where it is.
const FLOOR_TRIES: usize = 5;

/// When each member was last written by this process, by its key.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<BTreeMap<String, Instant>>);

impl Written {
    /// Whether `key` is due; if so, it counts as written from now on.
    fn is_due(&self, key: &str) -> bool {
        let now = Instant::now();
        let mut written = self.0.lock();
        written.retain(|_, at| now.duration_since(*at) < MEMBER_EVERY);
        let due = !written.contains_key(key);
        if due {
            written.insert(key.to_owned(), now);
        }
        due
    }

    fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}

/// A pin as it stands in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    version: Version,
}

impl EtcdCoordination {
    pub(super) async fn write_member(&self, member: &Member) -> Result<(), CoordinationError> {
        let key = self.keys.member(&member.role, &member.node.node);
        if !self.written.is_due(&key) {
            return Ok(());
        }
        let outcome = self.write_member_now(&key, member).await;
        if outcome.is_err() {
            self.written.forget(&key);
        }
        outcome
    }

    /// Under a new lease each time: the one before then carries nothing and ends by itself.
    async fn write_member_now(&self, key: &str, member: &Member) -> Result<(), CoordinationError> {
        let value = serde_json::to_vec(member).map_err(|e| CoordinationError::Damaged(e.to_string()))?;
        let (id, _, _) = lease::grant(self.kv.dialer(), MEMBER_TTL).await?;
        let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(id)));
        self.kv.txn(&Txn::new().and_then([put])).await?;
        Ok(())
    }

    pub(super) async fn read_members(&self) -> Result<Vec<Member>, CoordinationError> {
        let answer = self.kv.read(vec![get_prefix(self.keys.members())]).await?;
        Ok(answer.reads[0].iter().filter_map(|kv| serde_json::from_slice(kv.value()).ok()).collect())
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
