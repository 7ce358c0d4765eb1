//! How full etcd is: told before it refuses every write.
//!
//! etcd keeps every revision until it is compacted, and stops taking writes when its database reaches a quota. Members
//! before 3.6 do not tell their quota; then the default is assumed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::Kv;

/// etcd's default quota.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// How often a process asks.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(300);

/// A member's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes on disk.
    pub(super) used: u64,
    /// Bytes allowed; zero where the member does not tell.
    pub(super) quota: u64,
}

impl Space {
    /// What an operator should know before it is too late.
    pub(super) fn warning(self) -> Option<String> {
        let quota = if self.quota == 0 { DEFAULT_QUOTA } else { self.quota };
        (self.used >= quota / 2).then(|| {
            format!(
                "etcd's database has {} of {} MiB: when it is full every write is refused; compact it \
                 (--auto-compaction-retention=5m), defragment it, or raise --quota-backend-bytes",
                self.used >> 20,
                quota >> 20
            )
        })
    }
}

/// Asks now and then how full etcd is, and warns; for as long as it is polled.
pub(super) async fn keep_asking(kv: Arc<Kv>) {
    let mut next = Instant::now();
    loop {
        tokio::time::sleep_until(next).await;
        next += ASK_EVERY;
        // Not every user may ask, and nothing depends on the answer.
        let Ok(space) = kv.space().await else { continue };
        if let Some(warning) = space.warning() {
            tracing::warn!("{warning}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_quota_is_worth_a_word() {
        assert_eq!(Space { used: 10 << 20, quota: 64 << 20 }.warning(), None);
        assert!(Space { used: 40 << 20, quota: 64 << 20 }.warning().unwrap().contains("40 of 64 MiB"));
        assert_eq!(Space { used: 40 << 20, quota: 0 }.warning(), None);
        assert!(Space { used: 1 << 30, quota: 0 }.warning().unwrap().contains("1024 of 2048 MiB"));
    }
}
