//! The tailer's settings: plain data, validated together.

use isle_storage::coordination::groups::MAX_GROUPS;
use serde::{Deserialize, Serialize};

/// Everything that can be set about tailing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TailerSettings {
    /// Memory for decoded log blocks, shared by all consumers. Blocks least used go first; a consumer that falls
    /// behind what is kept is served from the bucket.
    pub cache_bytes: u64,
    /// Log objects up to this size are fetched whole, in one GET; larger ones by their index and in windows.
    pub whole_object_bytes: u64,
    /// Bytes one ranged GET of a large log object fetches.
    pub window_bytes: u64,
    /// Fetches from the bucket under way at once, over all consumers; further ones wait.
    pub max_concurrent_fetches: usize,
    /// Consumers at once; further ones are refused with 429.
    pub max_consumers: usize,
    /// A stream with nothing to say sends a heartbeat this often.
    pub heartbeat_seconds: u64,
    /// Changes in one page of `/v1/changes` at most.
    pub max_page_changes: usize,
    /// Bytes of keys and values in one page of `/v1/changes` at most (one change is always delivered).
    pub max_page_bytes: u64,
    /// Longest `wait` of `/v1/changes`.
    pub max_wait_seconds: u64,
    /// Bootstraps at once; further ones are refused with 429.
    pub max_bootstraps: usize,
    /// Bytes one bootstrap reads ahead, over all tables it merges.
    pub bootstrap_read_bytes: u64,
    /// Log not in tables yet that one bootstrap holds in memory, before compression; where there is more, it is refused
    /// with 429 until the writer has flushed.
    pub bootstrap_log_bytes: u64,
    /// Longest time one bootstrap may take: then its snapshot expires, which holds the log and the versions it copies.
    pub bootstrap_hold_seconds: u64,
    /// How long that snapshot stays after the last row, so that the consumer can begin by the cursor.
    pub bootstrap_linger_seconds: u64,
    /// Consumer groups of the database at most, 100 or fewer.
    pub max_groups: usize,
    /// Commits of one consumer group within this time become one write; one that comes alone is written at once.
    pub group_commit_interval_ms: u64,
    /// Commits of consumer groups that wait to be stored, over all groups; further ones are refused with 429.
    pub max_group_commits: usize,
}

impl Default for TailerSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 128 << 20,
            whole_object_bytes: 8 << 20,
            window_bytes: 4 << 20,
            max_concurrent_fetches: 16,
            max_consumers: 10_000,
            heartbeat_seconds: 15,
            max_page_changes: 10_000,
            max_page_bytes: 8 << 20,
            max_wait_seconds: 60,
            max_bootstraps: 4,
            bootstrap_read_bytes: 64 << 20,
            bootstrap_log_bytes: 256 << 20,
            bootstrap_hold_seconds: 3600,
            bootstrap_linger_seconds: 60,
            max_groups: MAX_GROUPS,
            group_commit_interval_ms: 50,
            max_group_commits: 10_000,
        }
    }
}

impl TailerSettings {
    /// Judges the settings together.
    ///
    /// # Errors
    /// A sentence naming the setting and the rule it breaks.
    pub fn validate(&self) -> Result<(), String> {
        let at_least = |name: &str, value: u64, least: u64| {
            if value < least {
                return Err(format!("tailer.{name} is {value}; it must be at least {least}"));
            }
            Ok(())
        };
        at_least("cache_bytes", self.cache_bytes, 1 << 20)?;
        at_least("window_bytes", self.window_bytes, 64 << 10)?;
        at_least("max_concurrent_fetches", self.max_concurrent_fetches as u64, 1)?;
        at_least("max_consumers", self.max_consumers as u64, 1)?;
        at_least("heartbeat_seconds", self.heartbeat_seconds, 1)?;
        at_least("max_page_changes", self.max_page_changes as u64, 1)?;
        at_least("max_page_bytes", self.max_page_bytes, 1)?;
        at_least("max_bootstraps", self.max_bootstraps as u64, 1)?;
        at_least("bootstrap_read_bytes", self.bootstrap_read_bytes, 1 << 10)?;
        at_least("bootstrap_hold_seconds", self.bootstrap_hold_seconds, 1)?;
        at_least("max_group_commits", self.max_group_commits as u64, 1)?;
        if self.max_groups > MAX_GROUPS {
            return Err(format!(
                "tailer.max_groups is {}; it can be at most {MAX_GROUPS}, since a recover stores all groups in one step",
                self.max_groups
            ));
        }
        Ok(())
    }
}
