//! The compactor's settings: plain data, validated together.

use isle_storage::format::Compression;
use isle_storage::object::PART_BYTES;
use serde::{Deserialize, Serialize};

/// Below, requests would outweigh what they carry on any store.
const LEAST_PART_BYTES: u64 = 4 << 10;

/// Everything that can be set about compaction, checkpoints and garbage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompactorSettings {
    /// L0 runs that start a merge. At fewer, reads stay cheap enough and waiting makes the merge larger.
    pub l0_trigger: usize,
    /// Neighbouring runs that start a merge, where the largest is not much larger than the others together.
    pub tier_width: usize,
    /// Sorted runs above which neighbours are merged even where their sizes are not similar.
    pub max_runs: usize,
    /// Runs one merge takes at most: bounds its memory (one read-ahead window each).
    pub max_merge_width: usize,
    /// In leveled mode, how many times larger each level is than the one above it.
    pub level_fanout: u64,
    /// A run of which so many rows in a hundred are tombstones or have expired is rewritten for that reason alone.
    pub waste_percent: u32,
    /// A blob file of which so many bytes in a hundred are garbage gives its other values to a new one, and goes. Files that
    /// the log points at stay as they are. At 100 none does before nothing of it is alive.
    pub blob_garbage_percent: u32,
    /// A blob file that values move into is closed at about this many bytes.
    pub blob_file_bytes: u64,
    /// In fifo and time_window mode, flushed runs that one merge joins at most.
    pub join_width: usize,
    /// In fifo and time_window mode, runs above which joined ones are joined once more.
    pub max_slices: usize,
    /// A merged run's tables are split at about this many bytes.
    pub table_bytes: u64,
    /// Data blocks of merged tables, in bytes of rows.
    pub block_bytes: usize,
    /// Compression of merged tables.
    pub compression: Compression,
    /// Bytes one ranged GET of a merge fetches.
    pub read_ahead_bytes: u64,
    /// Merges, or parts of merges, that one process works on at a time: about one for each processor.
    pub merge_workers: usize,
    /// A merge of at least twice as many bytes is cut by key into parts of about this size, which any number of
    /// processes work on.
    pub part_bytes: u64,
    /// A merge in parts of which nothing was done for this long is given up: its inputs are free again.
    pub parts_max_age_seconds: u64,
    /// Bytes a second that the merges of this process read at most; 0 is no limit.
    pub max_read_bytes_per_second: u64,
    /// Bytes a second that the merges of this process write at most; 0 is no limit.
    pub max_write_bytes_per_second: u64,
    /// Bytes of tables in memory, being built or uploaded, at once, but never less than a part of an upload; merges wait
    /// above it.
    pub upload_bytes_in_flight: u64,
    /// A larger table goes up in parts of so many bytes while it is being built. The cloud stores refuse parts below 5 MiB.
    pub upload_part_bytes: u64,
    /// A row whose expiry is this long past is expired on every clock.
    pub max_clock_skew_seconds: u64,
    /// A checkpoint is written when this many edits lie beyond the last one.
    pub fold_edits: u64,
    /// Store time between the checkpoint that covers an object's retirement and its deletion.
    pub grace_seconds: u64,
    /// Objects one pass of the collector, or of the orphan sweep, deletes at most.
    pub max_deletes_per_pass: usize,
    /// How often the bucket is swept for orphans: a listing of everything.
    pub sweep_interval_seconds: u64,
    /// An object that nobody names and nobody ever will goes only at this age, in the store's time.
    pub orphan_age_seconds: u64,
    /// A pass of the orphan sweep begins no further folder after it has listed this many objects; the next goes on.
    pub max_listed_per_pass: u64,
    /// Log older than this is no longer kept for tailers; 0 keeps it for ever.
    pub log_retention_seconds: u64,
    /// Log beyond this many bytes is no longer kept for tailers; 0 keeps all.
    pub log_retention_bytes: u64,
    /// A consumer group that sets no bound of its own holds the log no longer than this; 0 for ever.
    pub group_max_lag_seconds: u64,
    /// A consumer group that sets no bound of its own holds at most this many bytes of log; 0 any number.
    pub group_max_lag_bytes: u64,
    /// Wait after a passing failure, first and longest.
    pub backoff_seconds: (f64, f64),
}

impl Default for CompactorSettings {
    fn default() -> Self {
        Self {
            l0_trigger: 4,
            tier_width: 6,
            max_runs: 16,
            max_merge_width: 32,
            level_fanout: 10,
            waste_percent: 50,
            blob_garbage_percent: 50,
            blob_file_bytes: 256 << 20,
            join_width: 1024,
            max_slices: 4096,
            table_bytes: 64 << 20,
            block_bytes: 16 << 10,
            compression: Compression::Lz4,
            read_ahead_bytes: 4 << 20,
            merge_workers: 2,
            part_bytes: 256 << 20,
            parts_max_age_seconds: 7 * 24 * 3600,
            max_read_bytes_per_second: 0,
            max_write_bytes_per_second: 0,
            upload_bytes_in_flight: 64 << 20,
            upload_part_bytes: PART_BYTES as u64,
            max_clock_skew_seconds: 10,
            fold_edits: 256,
            grace_seconds: 300,
            max_deletes_per_pass: 1000,
            sweep_interval_seconds: 3600,
            orphan_age_seconds: 24 * 3600,
            max_listed_per_pass: 1_000_000,
            log_retention_seconds: 0,
            log_retention_bytes: 0,
            group_max_lag_seconds: 7 * 24 * 3600,
            group_max_lag_bytes: 0,
            backoff_seconds: (0.2, 30.0),
        }
    }
}

impl CompactorSettings {
    /// Judges the settings together.
    ///
    /// # Errors
    /// A sentence naming the setting and the rule it breaks.
    pub fn validate(&self) -> Result<(), String> {
        let at_least = |name: &str, value: u64, least: u64| {
            if value < least {
                return Err(format!("compactor.{name} is {value}; it must be at least {least}"));
            }
            Ok(())
        };
        at_least("l0_trigger", self.l0_trigger as u64, 1)?;
        at_least("tier_width", self.tier_width as u64, 2)?;
        at_least("max_runs", self.max_runs as u64, 2)?;
        at_least(
            "max_merge_width",
            self.max_merge_width as u64,
            self.l0_trigger.max(self.tier_width) as u64,
        )?;
        at_least("level_fanout", self.level_fanout, 2)?;
        for (name, percent) in
            [("waste_percent", self.waste_percent), ("blob_garbage_percent", self.blob_garbage_percent)]
        {
            at_least(name, u64::from(percent), 10)?;
            if percent > 100 {
                return Err(format!("compactor.{name} is {percent}; it must be at most 100"));
            }
        }
        at_least("blob_file_bytes", self.blob_file_bytes, 1)?;
        at_least("join_width", self.join_width as u64, self.l0_trigger.max(2) as u64)?;
        at_least("max_slices", self.max_slices as u64, 2)?;
        at_least("table_bytes", self.table_bytes, 64 << 10)?;
        at_least("block_bytes", self.block_bytes as u64, 512)?;
        at_least("read_ahead_bytes", self.read_ahead_bytes, self.block_bytes as u64)?;
        at_least("upload_part_bytes", self.upload_part_bytes, LEAST_PART_BYTES)?;
        let table_or_part = self.table_bytes.min(self.upload_part_bytes);
        at_least("upload_bytes_in_flight", self.upload_bytes_in_flight, table_or_part)?;
        at_least("merge_workers", self.merge_workers as u64, 1)?;
        at_least("part_bytes", self.part_bytes, 1)?;
        at_least("parts_max_age_seconds", self.parts_max_age_seconds, 1)?;
        at_least("fold_edits", self.fold_edits, 1)?;
        at_least("max_deletes_per_pass", self.max_deletes_per_pass as u64, 1)?;
        at_least("sweep_interval_seconds", self.sweep_interval_seconds, 1)?;
        at_least("max_listed_per_pass", self.max_listed_per_pass, 1)?;
        let (first, longest) = self.backoff_seconds;
        if !(first > 0.0 && longest >= first && longest.is_finite()) {
            return Err(format!(
                "compactor.backoff_seconds is [{first}, {longest}]; it must be [a, b], 0 < a <= b"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_contradictions_are_named() {
        CompactorSettings::default().validate().unwrap();
        let bad = CompactorSettings { max_merge_width: 2, ..Default::default() };
        assert!(bad.validate().unwrap_err().contains("max_merge_width"));
        let bad = CompactorSettings { upload_part_bytes: 1 << 10, ..Default::default() };
        assert!(bad.validate().unwrap_err().contains("upload_part_bytes"));
        let bad = CompactorSettings { upload_bytes_in_flight: 1 << 20, ..Default::default() };
        assert!(bad.validate().unwrap_err().contains("upload_bytes_in_flight"));
        let small = CompactorSettings { table_bytes: 1 << 20, ..bad };
        small.validate().unwrap();
        let bad = CompactorSettings { backoff_seconds: (0.0, 1.0), ..Default::default() };
        assert!(bad.validate().unwrap_err().contains("backoff_seconds"));
        for percent in [9, 101] {
            let bad = CompactorSettings { blob_garbage_percent: percent, ..Default::default() };
            assert!(bad.validate().unwrap_err().contains("blob_garbage_percent"));
        }
    }
}
