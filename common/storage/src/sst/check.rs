//! Proves a block's rows sound, once, when it is decoded.
//!
//! Every entry is walked: that it parses and ends where the next begins, that keys ascend (and sequence numbers
//! descend within a key), that each restart point is an entry that stands alone, that no entry is far from one, and
//! that the counts are right. What lookups and cursors do afterwards needs no error path.

use std::cmp::Ordering;

use super::block::{Block, HEAD_LEN};
use super::entry::{self, EntryKey, Fields};
use crate::ids::SeqNo;

/// Most entries from one restart point to the next: bounds the memory a reverse scan needs to rebuild their keys. Four
/// times what is written, so that a later builder has some freedom.
const MAX_RESTART_INTERVAL: usize = 64;

/// Why `block` is damaged, if it is.
pub(super) fn check(block: &Block) -> Result<(), String> {
    let mut walk = Walk {
        block,
        at: HEAD_LEN,
        rows: 0,
        restarts: 0,
        since_restart: None,
        key: Vec::new(),
        seq: SeqNo::ZERO,
    };
    while walk.at < block.entries().len() {
        walk.one().map_err(|why| format!("row {} at byte {}: {why}", walk.rows, walk.at))?;
    }
    walk.end()
}

struct Walk<'a> {
    block: &'a Block,
    at: usize,
    rows: usize,
    restarts: usize,
    /// Entries since the last restart point; `None` before the first.
    since_restart: Option<usize>,
    /// Key and number of the row before.
    key: Vec<u8>,
    seq: SeqNo,
}

impl Walk<'_> {
    fn one(&mut self) -> Result<(), &'static str> {
        let entries = self.block.entries();
        let part = entry::key_at(entries, self.at).ok_or("its key is cut short")?;
        let fields = entry::fields_of(entries, &part, self.block.base()).ok_or("it is cut short")?;
        if !part.is_well_formed() || part.shared > self.key.len() {
            return Err("it is malformed");
        }
        self.count_from_restart(&part)?;
        if self.rows > 0 && !self.ascends_to(&part, &fields) {
            return Err("it does not follow the row before");
        }
        self.key.truncate(part.shared);
        self.key.extend_from_slice(part.suffix);
        self.seq = fields.seq;
        self.at = fields.next;
        self.rows += 1;
        Ok(())
    }

    fn count_from_restart(&mut self, part: &EntryKey<'_>) -> Result<(), &'static str> {
        if self.block.restart(self.restarts) == Some(self.at) {
            self.restarts += 1;
            self.since_restart = Some(0);
            if part.shared != 0 {
                return Err("a restart point that needs the key before it");
            }
        }
        let since = self.since_restart.ok_or("the first row is no restart point")?;
        self.since_restart = Some(since + 1);
        if since == MAX_RESTART_INTERVAL { Err("too far from a restart point") } else { Ok(()) }
    }

    /// Both keys start with the same `shared` bytes, so that the rest decides.
    fn ascends_to(&self, part: &EntryKey<'_>, fields: &Fields) -> bool {
        match part.suffix.cmp(&self.key[part.shared..]) {
            Ordering::Greater => true,
            Ordering::Equal => fields.seq < self.seq,
            Ordering::Less => false,
        }
    }

    fn end(&self) -> Result<(), String> {
        let found = (self.at, self.rows, self.restarts);
        let stated = (self.block.entries().len(), self.block.len(), self.block.restarts());
        if found == stated {
            Ok(())
        } else {
            Err(format!("(bytes, rows, restart points) are {found:?}, and {stated:?} were stated"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_encoder::BlockEncoder;
    use super::*;
    use crate::ids::Timestamp;
    use crate::row::{RowRef, ValueRef};

    /// A block of these rows, each with as many bytes shared as given, however wrong that is.
    fn block(rows: &[(&[u8], u64, usize)]) -> Vec<u8> {
        let mut encoder = BlockEncoder::new(0);
        for (key, seq, shared) in rows {
            let value = ValueRef::Put(b"v");
            let row = RowRef { key, seq: SeqNo(*seq), time: Timestamp(9), expires: None, value };
            encoder.push(&row, *shared);
        }
        encoder.take()
    }

    fn refused(raw: Vec<u8>) -> Option<String> {
        Block::from_raw(raw.into()).err().map(|e| e.to_string())
    }

    #[track_caller]
    fn assert_refused(raw: Vec<u8>, why: &str) {
        let message = refused(raw).unwrap_or_default();
        assert!(message.contains(why), "{message:?}");
    }

    /// A release build does not check what is pushed into a table: its readers do.
    #[test]
    fn rows_out_of_order_are_refused() {
        assert_eq!(refused(block(&[(b"a", 2, 0), (b"a", 1, 1), (b"b", 9, 0)])), None);
        assert_refused(block(&[(b"a", 2, 0), (b"a", 2, 1)]), "does not follow");
        assert_refused(block(&[(b"a", 2, 0), (b"a", 3, 1)]), "does not follow");
        assert_refused(block(&[(b"b", 2, 0), (b"a", 1, 0)]), "does not follow");
        assert_refused(block(&[(b"ab", 2, 0), (b"a", 1, 1)]), "does not follow");
    }

    #[test]
    fn keys_that_lean_on_nothing_are_refused() {
        assert_refused(block(&[(b"ab", 2, 0), (b"abcd", 1, 3)]), "malformed");
        assert_refused(block(&[(b"", 2, 0)]), "malformed");
        let mut moved = block(&[(b"a", 2, 0), (b"b", 1, 0)]);
        let restart = moved.len() - 12;
        moved[restart] += 1;
        assert_refused(moved, "no restart point");
    }

    /// The memory of a reverse scan rests on it.
    #[test]
    fn rows_far_from_a_restart_point_are_refused() {
        let keys: Vec<[u8; 2]> = (0..200u16).map(u16::to_be_bytes).collect();
        let rows: Vec<(&[u8], u64, usize)> = keys.iter().map(|k| (&k[..], 1, 1)).collect();
        assert_eq!(refused(block(&rows)), None);
        let mut only_one = block(&rows);
        let counts = only_one.split_off(only_one.len() - 8);
        only_one.truncate(only_one.len() - 4 * 13 + 4);
        only_one.extend_from_slice(&1u32.to_le_bytes());
        only_one.extend_from_slice(&counts[4..]);
        assert_refused(only_one, "far from a restart point");
    }

    #[test]
    fn wrong_counts_are_refused() {
        let good = block(&[(b"a", 2, 0), (b"b", 1, 0)]);
        for (from_end, why) in [(4, "were stated"), (8, "")] {
            let mut bad = good.clone();
            let at = bad.len() - from_end;
            bad[at] += 1;
            assert_refused(bad, why);
        }
        for cut in 0..good.len() {
            assert!(refused(good[..cut].to_vec()).is_some(), "{cut} bytes");
        }
    }
}
