//! Who is there.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{PutOptions, Txn, TxnOp};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::EtcdCoordination;
use super::client::get_prefix;
use super::lease;
use crate::coordination::{CoordinationError, Member};

/// How long a member that has gone silent is still listed: three missed writes.
const MEMBER_TTL: Duration = Duration::from_secs(95);

/// A member is written at most this often; what it says in between is dropped.
const MEMBER_EVERY: Duration = Duration::from_secs(30);

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
}
