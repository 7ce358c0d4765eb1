//! The writer's settings: plain data, every limit by name, judged together.

use std::time::Duration;

use isle_storage::coordination::Backend;
use isle_storage::format::Compression;
use isle_storage::object::PART_BYTES;
use isle_storage::row::{MAX_INLINE_VALUE_LEN, MAX_KEY_LEN, MAX_VALUE_LEN};
use serde::{Deserialize, Serialize};

use crate::intake::RECORD_OVERHEAD;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a writer may be told. Units are in the names; unknown names are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterSettings {
    /// Longest value; longer ones are refused. At most 256 MiB, and 8 MiB where `blob_threshold` is 0.
    pub max_value_bytes: usize,
    /// Values longer than this many bytes are stored apart from their rows, in blob files; at most 8 MiB. 0: none are.
    pub blob_threshold: usize,
    /// Bytes of large values in memory on their way into blob files, over all requests; more wait.
    pub blob_bytes_in_flight: u64,
    /// Blob files are uploaded in parts of this many bytes: what the stores want. Only tests have it smaller.
    #[serde(skip)]
    pub blob_part_bytes: usize,
    /// Largest atomic batch (keys, values and a fixed overhead a record); larger ones are refused.
    pub max_batch_bytes: usize,
    /// Bytes of mutations held in memory: queued, in flight, and waiting to be flushed. At the limit writers wait.
    pub admission_bytes: u64,
    /// From this share of `admission_bytes` on, writers are slowed down smoothly towards the rate at which memory is
    /// freed. 100 turns that off.
    pub slow_down_percent: u8,
    /// How long a request over HTTP waits for admission before it is answered 429.
    pub admission_wait_ms: u64,
    /// Bytes of request bodies read over HTTP and not yet accepted, over all requests; more wait `admission_wait_ms`, and
    /// are then answered 429.
    pub request_bytes: usize,
    /// Longest time a mutation waits for company before its segment is uploaded.
    pub linger_ms: u64,
    /// A segment is closed at about this many bytes.
    pub segment_bytes: usize,
    /// A segment is closed at this many records.
    pub segment_records: u64,
    /// Records within a segment are compressed in blocks of about this many bytes.
    pub block_bytes: usize,
    /// How segments, chunks and tables are compressed.
    pub compression: Compression,
    /// Segments being uploaded at once; more wait.
    pub uploads_in_flight: usize,
    /// Bytes of segments being uploaded at once; more wait (a single larger segment still goes).
    pub upload_bytes_in_flight: u64,
    /// Segments uploaded or under way and not yet committed; at the limit no further upload starts.
    pub segments_unpublished: usize,
    /// Segments named by one edit at most.
    pub segments_per_commit: usize,
    /// A generation ends at about this many bytes.
    pub generation_bytes: u64,
    /// A generation ends at this many segments, so that a trickle never leaves thousands of small objects.
    pub generation_segments: usize,
    /// A generation ends at this age.
    pub generation_age_ms: u64,
    /// Generations being turned into tables at once.
    pub flushes_in_flight: usize,
    /// A flush begins a new table at about this many bytes (never inside one key's versions).
    pub table_bytes: u64,
    /// Data blocks of tables are closed at about this many bytes.
    pub table_block_bytes: usize,
    /// Commits a second at most; absent: 50 with etcd, no limit otherwise. One commit carries all ready segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_commits_per_second: Option<u32>,
    /// Log segments uploaded a second at most, for stores that charge for each; absent: no limit. Where it binds, a
    /// durable write waits for the next upload, which then carries more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_puts_per_second: Option<u32>,
    /// How long one round of finding out a commit's outcome may take before trouble is reported; rounds repeat.
    pub commit_round_ms: u64,
    /// How long a caller waits for its commit unless it says otherwise; then the answer is `outcome_unknown`.
    pub ack_timeout_ms: u64,
    /// The writer folds edits into a checkpoint where this many have gathered, i.e. where no compactor did.
    pub fold_edits: u64,
    /// Named snapshots at once, over all who take them; more are refused.
    pub max_snapshots: usize,
    /// How far this node's clock may lie behind the last write time of the log it takes over.
    pub max_clock_skew_ms: u64,
    /// First pause after a failed request to the store or to coordination; doubles up to `retry_max_ms`.
    pub retry_min_ms: u64,
    /// Longest pause between attempts.
    pub retry_max_ms: u64,
    /// A standby looks for a vacancy at least this often.
    pub standby_poll_ms: u64,
    /// Trouble that lasts longer than this makes the node not ready.
    pub unready_after_ms: u64,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            max_value_bytes: MAX_VALUE_LEN,
            blob_threshold: 64 * KIB,
            blob_bytes_in_flight: 64 * MIB as u64,
            blob_part_bytes: PART_BYTES,
            max_batch_bytes: 16 * MIB,
            admission_bytes: 256 * MIB as u64,
            slow_down_percent: 60,
            admission_wait_ms: 500,
            request_bytes: 128 * MIB,
            linger_ms: 20,
            segment_bytes: 4 * MIB,
            segment_records: 1 << 18,
            block_bytes: 128 * KIB,
            compression: Compression::Lz4,
            uploads_in_flight: 8,
            upload_bytes_in_flight: 64 * MIB as u64,
            segments_unpublished: 64,
            segments_per_commit: 64,
            generation_bytes: 64 * MIB as u64,
            generation_segments: 256,
            generation_age_ms: 300_000,
            flushes_in_flight: 2,
            table_bytes: 64 * MIB as u64,
            table_block_bytes: 16 * KIB,
            max_commits_per_second: None,
            max_puts_per_second: None,
            commit_round_ms: 5_000,
            ack_timeout_ms: 60_000,
            fold_edits: 512,
            max_snapshots: 100,
            max_clock_skew_ms: 10_000,
            retry_min_ms: 20,
            retry_max_ms: 2_000,
            standby_poll_ms: 10_000,
            unready_after_ms: 10_000,
        }
    }
}

/// Settings that cannot work, each with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

impl WriterSettings {
    /// Judges all settings together.
    ///
    /// # Errors
    /// Every setting that cannot work, with the reason.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let mut wrong = Vec::new();
        let mut require = |holds: bool, why: String| {
            if !holds {
                wrong.push(why);
            }
        };
        let s = self;
        let zero = [
            ("max_value_bytes", s.max_value_bytes as u64),
            ("segment_bytes", s.segment_bytes as u64),
            ("segment_records", s.segment_records),
            ("block_bytes", s.block_bytes as u64),
            ("uploads_in_flight", s.uploads_in_flight as u64),
            ("upload_bytes_in_flight", s.upload_bytes_in_flight),
            ("segments_unpublished", s.segments_unpublished as u64),
            ("segments_per_commit", s.segments_per_commit as u64),
            ("generation_bytes", s.generation_bytes),
            ("generation_segments", s.generation_segments as u64),
            ("generation_age_ms", s.generation_age_ms),
            ("flushes_in_flight", s.flushes_in_flight as u64),
            ("table_bytes", s.table_bytes),
            ("table_block_bytes", s.table_block_bytes as u64),
            ("commit_round_ms", s.commit_round_ms),
            ("ack_timeout_ms", s.ack_timeout_ms),
            ("fold_edits", s.fold_edits),
            ("retry_min_ms", s.retry_min_ms),
            ("standby_poll_ms", s.standby_poll_ms),
        ];
        for (name, value) in zero {
            require(value > 0, format!("{name} must be over 0"));
        }
        for (name, value) in [
            ("max_commits_per_second", s.max_commits_per_second),
            ("max_puts_per_second", s.max_puts_per_second),
        ] {
            require(value != Some(0), format!("{name} must be over 0"));
        }
        let longest = if s.blob_threshold == 0 { MAX_INLINE_VALUE_LEN } else { MAX_VALUE_LEN };
        require(
            s.max_value_bytes <= longest,
            format!(
                "max_value_bytes is {}, and with this blob_threshold at most {longest}",
                s.max_value_bytes
            ),
        );
        require(
            s.blob_threshold <= MAX_INLINE_VALUE_LEN,
            format!(
                "blob_threshold is {}, and what lies among rows has at most {MAX_INLINE_VALUE_LEN} bytes",
                s.blob_threshold
            ),
        );
        require(
            s.blob_bytes_in_flight >= s.blob_part_bytes as u64,
            format!(
                "blob_bytes_in_flight is {}, less than one part of an upload ({})",
                s.blob_bytes_in_flight, s.blob_part_bytes
            ),
        );
        let apart = if s.blob_threshold == 0 { usize::MAX } else { s.blob_threshold };
        let one = s.max_value_bytes.min(apart) + MAX_KEY_LEN + RECORD_OVERHEAD;
        require(
            s.max_batch_bytes >= one,
            format!(
                "max_batch_bytes is {}, less than one record of the longest key and the longest value that is not stored apart ({one})",
                s.max_batch_bytes
            ),
        );
        require(
            s.max_batch_bytes <= u32::MAX as usize / 4,
            format!("max_batch_bytes is {}, and a segment holds at most 1 GiB", s.max_batch_bytes),
        );
        let needed = 2 * s.generation_bytes + 2 * (s.max_batch_bytes + s.segment_bytes) as u64;
        require(
            s.admission_bytes >= needed,
            format!(
                "admission_bytes is {}, less than {needed}: two generations, and two segments as large as the largest \
                 batch, or writers would wait for a flush that waits for them",
                s.admission_bytes
            ),
        );
        require(
            s.request_bytes >= s.max_batch_bytes,
            format!(
                "request_bytes is {}, less than max_batch_bytes ({}): such a batch could never be sent",
                s.request_bytes, s.max_batch_bytes
            ),
        );
        require(
            s.slow_down_percent <= 100,
            format!("slow_down_percent is {}, not a percentage", s.slow_down_percent),
        );
        require(
            s.retry_min_ms <= s.retry_max_ms,
            format!("retry_min_ms ({}) is over retry_max_ms ({})", s.retry_min_ms, s.retry_max_ms),
        );
        if wrong.is_empty() { Ok(()) } else { Err(SettingsError(wrong)) }
    }

    /// The commit rate that holds with this form of coordination.
    pub(crate) fn commits_per_second(&self, backend: Backend) -> Option<u32> {
        self.max_commits_per_second.or((backend == Backend::Etcd).then_some(50))
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    pub(crate) fn generation_age(&self) -> Duration {
        Duration::from_millis(self.generation_age_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(WriterSettings::default().validate(), Ok(()));
    }

    #[test]
    fn everything_wrong_is_named_at_once_with_its_reason() {
        let bad = WriterSettings {
            max_value_bytes: 9 * MIB,
            blob_threshold: 0,
            admission_bytes: 1,
            uploads_in_flight: 0,
            max_commits_per_second: Some(0),
            max_puts_per_second: Some(0),
            ..WriterSettings::default()
        };
        let text = bad.validate().unwrap_err().to_string();
        for name in [
            "max_value_bytes",
            "admission_bytes",
            "uploads_in_flight",
            "max_commits_per_second",
            "max_puts_per_second",
        ] {
            assert!(text.contains(name), "{name} is missing in: {text}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let text = r#"{"linger_msec": 5}"#;
        assert!(serde_json::from_str::<WriterSettings>(text).is_err());
    }
}
