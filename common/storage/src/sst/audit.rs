//! Whether a table says the truth of its rows: every row looked at, everything stated held against what is there.
//!
//! Readers trust a table's metadata once its checksums match. A builder with a defect writes checksums that match, so
//! an audit believes nothing: it counts again, asks the filter for every key, and asks the index where each key
//! begins.

use super::meta::TableMeta;
use super::properties::{Gathered, Properties};
use super::{Block, BlockCursor};
use crate::ids::SeqNo;
use crate::manifest::Key;
use crate::row::RowRef;

/// Faults of one kind told of one table; the rest is counted.
const TOLD: usize = 3;

/// Looks at a table's blocks, one after the other.
#[derive(Debug)]
pub struct TableAudit<'m> {
    meta: &'m TableMeta,
    gathered: Gathered,
    blocks: u64,
    smallest: Vec<u8>,
    /// Key and number of the row before.
    last: Option<(Vec<u8>, SeqNo)>,
    faults: Vec<String>,
    filter_misses: u64,
    index_misses: u64,
    disorders: u64,
}

impl<'m> TableAudit<'m> {
    /// An audit of the table that `meta` speaks of.
    #[must_use]
    pub fn new(meta: &'m TableMeta) -> Self {
        Self {
            meta,
            gathered: Gathered::new(),
            blocks: 0,
            smallest: Vec::new(),
            last: None,
            faults: Vec::new(),
            filter_misses: 0,
            index_misses: 0,
            disorders: 0,
        }
    }

    /// Looks at the next block.
    pub fn block(&mut self, block: &Block) {
        let at = self.blocks as usize;
        let mut cursor: BlockCursor = block.cursor();
        cursor.first();
        let goes_on = self.last.as_ref().is_some_and(|(last, _)| cursor.key() == Some(last.as_slice()));
        if let Some(before) = at.checked_sub(1)
            && self.meta.key_goes_on(before) != goes_on
        {
            let says = if goes_on { "ends" } else { "goes on" };
            self.faults
                .push(format!("the index says that the last key of block {before} {says} there, wrongly"));
        }
        while let Some(row) = cursor.row() {
            self.row(&row, at);
            cursor.next();
        }
        self.blocks += 1;
    }

    fn row(&mut self, row: &RowRef<'_>, block: usize) {
        let new_key = self.last.as_ref().is_none_or(|(key, _)| key != row.key);
        if let Some((key, seq)) = &self.last
            && (key.as_slice() > row.key || key == row.key && *seq <= row.seq)
        {
            self.disorders += 1;
            let place = row.key.escape_ascii();
            told(&mut self.faults, self.disorders, || format!("row \"{place}\" {} is out of order", row.seq));
        }
        if new_key {
            if !self.meta.may_contain(row.key) {
                self.filter_misses += 1;
                let key = row.key.escape_ascii();
                told(&mut self.faults, self.filter_misses, || format!("the filter denies its key \"{key}\""));
            }
            if self.meta.seek(row.key) != block {
                self.index_misses += 1;
                let (key, there) = (row.key.escape_ascii(), self.meta.seek(row.key));
                let why = || format!("the index places its key \"{key}\" in block {there}, it is in {block}");
                told(&mut self.faults, self.index_misses, why);
            }
            if self.last.is_none() {
                self.smallest = row.key.to_vec();
            }
        }
        self.gathered.add(row, new_key);
        match &mut self.last {
            Some((key, seq)) => {
                if new_key {
                    key.clear();
                    key.extend_from_slice(row.key);
                }
                *seq = row.seq;
            }
            none => *none = Some((row.key.to_vec(), row.seq)),
        }
    }

    /// What the rows are, and every fault found.
    #[must_use]
    pub fn finish(mut self) -> (Properties, Vec<String>) {
        let stated = self.meta.properties();
        for (count, what) in [
            (self.disorders, "rows are out of order"),
            (self.filter_misses, "keys are denied by the filter"),
            (self.index_misses, "keys are misplaced by the index"),
        ] {
            if count > TOLD as u64 {
                self.faults.push(format!("{count} {what} in all"));
            }
        }
        let largest = self.last.map(|(key, _)| key).unwrap_or_default();
        let (smallest, largest) = (Key(self.smallest.into()), Key(largest.into()));
        let found = self.gathered.finish(smallest, largest, self.blocks, stated.stored_bytes);
        let mut told = found.clone();
        if stated.blob_use.is_empty() {
            // Tables of an earlier version do not count what they point at; those that do must be right.
            told.blob_use.clear();
        }
        if told != *stated {
            self.faults.push(format!("its properties state {stated:?}, its rows are {found:?}"));
        }
        (found, self.faults)
    }
}

fn told(faults: &mut Vec<String>, count: u64, fault: impl FnOnce() -> String) {
    if count <= TOLD as u64 {
        faults.push(fault());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TableBuilder, TableOptions};
    use super::*;
    use crate::ids::Timestamp;
    use crate::row::ValueRef;
    use bytes::Bytes;

    /// A table of `keys` with three versions each, in small blocks.
    fn table(keys: u32, salt: &str) -> (Bytes, u64) {
        let mut builder = TableBuilder::new(TableOptions { block_bytes: 64, ..TableOptions::default() });
        for k in 0..keys {
            let key = format!("{salt}{k:05}");
            for seq in [3, 2, 1] {
                let value = if seq == 2 { ValueRef::Delete } else { ValueRef::Put(b"value") };
                let seq = SeqNo(u64::from(k) * 3 + seq);
                builder.push(RowRef { key: key.as_bytes(), seq, time: Timestamp(7), expires: None, value });
            }
        }
        let table = builder.finish("1-00000000000000aa-1");
        (table.body.to_bytes(), table.entry.meta_offset)
    }

    fn audit(meta: &TableMeta, object: &Bytes, blocks: impl Iterator<Item = usize>) -> Vec<String> {
        let mut audit = TableAudit::new(meta);
        for i in blocks {
            let range = meta.block_range(i);
            audit.block(&Block::decode(&object.slice(range.start as usize..range.end as usize)).unwrap());
        }
        audit.finish().1
    }

    #[test]
    fn a_true_table_passes_and_a_lie_is_told() {
        let (object, at) = table(200, "key");
        let meta = TableMeta::decode(object.slice(at as usize..), at).unwrap();
        assert!(meta.block_count() > 20);
        assert_eq!(audit(&meta, &object, 0..meta.block_count()), Vec::<String>::new());

        // The metadata of one table over the rows of another.
        let (other, _) = table(200, "kez");
        let faults = audit(&meta, &other, 0..meta.block_count()).join("\n");
        for word in [
            "the filter denies",
            "keys are denied by the filter in all",
            "the index places",
            "its properties",
        ] {
            assert!(faults.contains(word), "{word}: {faults}");
        }

        let faults = audit(&meta, &object, (0..meta.block_count()).rev()).join("\n");
        assert!(faults.contains("out of order"), "{faults}");
        let faults = audit(&meta, &object, 0..meta.block_count() - 1).join("\n");
        assert!(faults.contains("its properties"), "{faults}");
        let faults = audit(&meta, &object, (0..meta.block_count()).filter(|i| *i != 1)).join("\n");
        assert!(faults.contains("goes on"), "{faults}");
    }
}
