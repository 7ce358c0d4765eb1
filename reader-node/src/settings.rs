//! The reader's settings: plain data, validated together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings that contradict themselves or a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reader.{setting}: {why}")]
pub struct InvalidSettings {
    /// The offending setting.
    pub setting: &'static str,
    /// The rule it breaks.
    pub why: String,
}

/// How a reader uses memory, the bucket, and its callers' patience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReaderSettings {
    /// Memory for table blocks and table metadata together. At the limit the least useful is let go.
    pub cache_bytes: u64,
    /// A view older than this makes the reader say so in `/readyz`; it goes on serving.
    pub max_view_age_ms: u64,
    /// Largest ranged GET of a scan, per sorted run; scans start small and grow to it.
    pub read_ahead_bytes: u64,
    /// Bytes all scans together may read ahead; beyond it each of them reads block by block.
    pub read_ahead_total_bytes: u64,
    /// Bytes of values from blob files on their way to clients at once, over all reads; more wait.
    pub value_bytes_in_flight: u64,
    /// GETs of tables in flight at once; further ones wait in order, so that a cold start does not fan out.
    pub max_concurrent_reads: usize,
    /// Log segments fetched at once when the view moves on.
    pub max_concurrent_segments: usize,
    /// An in-memory generation is closed at this size even where the writer's goes on.
    pub generation_bytes: u64,
    /// Largest unflushed log a view may hold in memory. Beyond it the last view goes on serving, and the reader says
    /// so, until the writer has flushed.
    pub max_unflushed_bytes: u64,
    /// Rows of a scan that gives no limit, over HTTP.
    pub default_limit: usize,
    /// Largest limit of a scan over HTTP; a larger one is refused.
    pub max_limit: usize,
    /// A scan's page ends after about this many bytes of keys and values, whatever its limit.
    pub max_page_bytes: u64,
    /// Keys of one multi-get.
    pub max_mget_keys: usize,
    /// Keys of one multi-get looked up at once where the cache does not hold them.
    pub mget_parallelism: usize,
    /// How long a read waits for `min_seq` where it does not say.
    pub default_wait_ms: u64,
    /// The longest it may ask for.
    pub max_wait_ms: u64,
    /// Views kept for the next pages of scans.
    pub held_views: usize,
    /// How long a view is kept after the last page read from it.
    pub held_view_age_ms: u64,
    /// A scan still under way this long after its view was superseded pins it: well below the compactor's
    /// `grace_seconds`. 0: no scan pins.
    pub pin_after_ms: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Default for ReaderSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 256 * MIB,
            max_view_age_ms: 30_000,
            read_ahead_bytes: MIB,
            read_ahead_total_bytes: 64 * MIB,
            value_bytes_in_flight: 128 * MIB,
            max_concurrent_reads: 64,
            max_concurrent_segments: 16,
            generation_bytes: 64 * MIB,
            max_unflushed_bytes: 1024 * MIB,
            default_limit: 1_000,
            max_limit: 100_000,
            max_page_bytes: 32 * MIB,
            max_mget_keys: 10_000,
            mget_parallelism: 16,
            default_wait_ms: 10_000,
            max_wait_ms: 60_000,
            held_views: 64,
            held_view_age_ms: 60_000,
            pin_after_ms: 60_000,
        }
    }
}

impl ReaderSettings {
    /// Judges the settings together.
    ///
    /// # Errors
    /// The first setting that breaks a rule, with the rule.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let refuse = |setting, why: String| Err(InvalidSettings { setting, why });
        let positive = [
            ("max_view_age_ms", self.max_view_age_ms),
            ("max_concurrent_reads", self.max_concurrent_reads as u64),
            ("max_concurrent_segments", self.max_concurrent_segments as u64),
            ("generation_bytes", self.generation_bytes),
            ("max_unflushed_bytes", self.max_unflushed_bytes),
            ("default_limit", self.default_limit as u64),
            ("max_limit", self.max_limit as u64),
            ("max_page_bytes", self.max_page_bytes),
            ("max_mget_keys", self.max_mget_keys as u64),
            ("mget_parallelism", self.mget_parallelism as u64),
            ("max_wait_ms", self.max_wait_ms),
            ("held_view_age_ms", self.held_view_age_ms),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, n)| *n == 0) {
            return refuse(setting, "must be above 0".to_owned());
        }
        if self.cache_bytes < MIB {
            return refuse(
                "cache_bytes",
                format!("{} is below 1 MiB, less than a table's metadata", self.cache_bytes),
            );
        }
        if !(4 * KIB..=64 * MIB).contains(&self.read_ahead_bytes) {
            return refuse(
                "read_ahead_bytes",
                format!("{} is not between 4 KiB and 64 MiB", self.read_ahead_bytes),
            );
        }
        if self.value_bytes_in_flight < 8 * MIB {
            return refuse("value_bytes_in_flight", "is below 8 MiB, the longest value of a row".to_owned());
        }
        if self.read_ahead_total_bytes < self.read_ahead_bytes {
            return refuse("read_ahead_total_bytes", "is below read_ahead_bytes".to_owned());
        }
        if self.default_limit > self.max_limit {
            return refuse("default_limit", "is above max_limit".to_owned());
        }
        if self.default_wait_ms > self.max_wait_ms {
            return refuse("default_wait_ms", "is above max_wait_ms".to_owned());
        }
        Ok(())
    }

    /// [`Self::max_view_age_ms`].
    #[must_use]
    pub fn max_view_age(&self) -> Duration {
        Duration::from_millis(self.max_view_age_ms)
    }

    /// How long a read that asked for `wait` waits: its own wish up to the limit, or the default.
    #[must_use]
    pub fn wait(&self, wait: Option<Duration>) -> Duration {
        let max = Duration::from_millis(self.max_wait_ms);
        wait.unwrap_or(Duration::from_millis(self.default_wait_ms)).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_contradictions_are_refused_by_name() {
        ReaderSettings::default().validate().unwrap();
        let bad = ReaderSettings { default_limit: 10, max_limit: 5, ..ReaderSettings::default() };
        assert_eq!(bad.validate().unwrap_err().setting, "default_limit");
        let bad = ReaderSettings { max_concurrent_reads: 0, ..ReaderSettings::default() };
        assert_eq!(bad.validate().unwrap_err().to_string(), "reader.max_concurrent_reads: must be above 0");
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<ReaderSettings>(r#"{"cache_byte": 1}"#).is_err());
        let some: ReaderSettings = serde_json::from_str(r#"{"cache_bytes": 2097152}"#).unwrap();
        assert_eq!(some.cache_bytes, 2 << 20);
    }
}
