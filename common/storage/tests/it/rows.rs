//! Random rows, and a table opened the way a reader opens one: shared by the tests of tables and merges.

use bytes::Bytes;
use isle_storage::format::{Compression, FormatError};
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::row::{BlobPointer, Row, Value};
use isle_storage::sst::{
    Block, BlockCursor, EncodedTable, Lookup, LookupRef, TableBuilder, TableMeta, TableOptions,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Write time of sequence number zero in random rows.
pub(crate) const EPOCH_TIME: i64 = 1_700_000_000_000_000;

/// Keys that collide, extend one another, share long prefixes and end in 0x00 and 0xFF.
pub(crate) fn any_key() -> impl Strategy<Value = Bytes> {
    let short = vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)], 1..4);
    let long = (vec(any::<u8>(), 1..3), 200usize..700).prop_map(|(tail, len)| {
        let mut key = vec![b'p'; len - len % 100];
        key.extend(tail);
        key
    });
    prop_oneof![6 => short, 1 => long].prop_map(Bytes::from)
}

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let bytes = prop_oneof![
        2 => vec(any::<u8>(), 0..40),
        1 => Just(Vec::new()),
        1 => (100usize..900, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
    ];
    let pointer = (0u8..3, any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(n, offset, len, crc)| {
        Value::Blob(BlobPointer { blob: format!("3-00000000000000aa-{n}"), offset, len, crc })
    });
    prop_oneof![5 => bytes.prop_map(|v| Value::Put(v.into())), 2 => Just(Value::Delete), 1 => pointer]
}

/// At least one row, sorted as a table wants them; sequence numbers are dense from 1 in random key order, write times
/// grow with them, and expiries lie around [`EPOCH_TIME`] + 100.
pub(crate) fn any_rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let row = (any_key(), any_value(), proptest::option::weighted(0.3, -100i64..300));
    vec(row, 1..most).prop_map(|rows| {
        let mut rows: Vec<Row> = rows
            .into_iter()
            .enumerate()
            .map(|(i, (key, value, expires))| Row {
                key,
                seq: SeqNo(i as u64 + 1),
                time: Timestamp(EPOCH_TIME + i as i64 / 3),
                expires: expires.map(|e| Timestamp(EPOCH_TIME + e)),
                value,
            })
            .collect();
        sort(&mut rows);
        rows
    })
}

/// Table order.
pub(crate) fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
}

pub(crate) fn any_options() -> impl Strategy<Value = TableOptions> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)];
    (prop_oneof![Just(64usize), Just(400), Just(4096)], compression)
        .prop_map(|(block_bytes, compression)| TableOptions { block_bytes, compression })
}

pub(crate) fn build(rows: &[Row], options: TableOptions) -> EncodedTable {
    let mut builder = TableBuilder::new(options);
    for row in rows {
        builder.push(row.as_ref());
    }
    builder.finish("1-00000000000000aa-1")
}

/// A table object with its metadata.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) object: Bytes,
    pub(crate) meta: TableMeta,
}

impl Opened {
    pub(crate) fn new(object: Bytes, meta_offset: u64) -> Result<Self, FormatError> {
        let meta = TableMeta::decode(object.slice(meta_offset as usize..), meta_offset)?;
        Ok(Self { object, meta })
    }

    pub(crate) fn of(rows: &[Row], options: TableOptions) -> Self {
        let table = build(rows, options);
        Self::new(table.body.to_bytes(), table.entry.meta_offset).unwrap()
    }

    pub(crate) fn block(&self, i: usize) -> Result<Block, FormatError> {
        let range = self.meta.block_range(i);
        Block::decode(&self.object.slice(range.start as usize..range.end as usize))
    }

    /// A point lookup as a reader does it.
    pub(crate) fn get(&self, key: &[u8], max_seq: SeqNo) -> Result<Option<Row>, FormatError> {
        if !self.meta.may_contain(key) {
            return Ok(None);
        }
        for i in self.meta.seek(key)..self.meta.block_count() {
            let block = self.block(i)?;
            let found = block.get(key, max_seq);
            let borrowed = block.get_ref(key, max_seq);
            match found {
                Lookup::Found(row) => {
                    assert_eq!(borrowed, LookupRef::Found(row.as_ref()));
                    return Ok(Some(row));
                }
                Lookup::Absent => {
                    assert_eq!(borrowed, LookupRef::Absent);
                    return Ok(None);
                }
                Lookup::Next if !self.meta.key_goes_on(i) => return Ok(None),
                Lookup::Next => assert_eq!(borrowed, LookupRef::Next),
            }
        }
        Ok(None)
    }

    pub(crate) fn all(&self) -> Result<Vec<Row>, FormatError> {
        self.from(b"")
    }

    /// Every row with a key at or above `start`, found through the index.
    pub(crate) fn from(&self, start: &[u8]) -> Result<Vec<Row>, FormatError> {
        let first = self.meta.seek(start);
        let mut rows = Vec::new();
        for i in first..self.meta.block_count() {
            let mut cursor = self.block(i)?.cursor();
            if i == first {
                cursor.seek(start)
            } else {
                cursor.first()
            }
            drain(&mut cursor, &mut rows, BlockCursor::next);
        }
        Ok(rows)
    }

    /// Every row with a key below `end`, last first, found through the index.
    pub(crate) fn before(&self, end: &[u8]) -> Result<Vec<Row>, FormatError> {
        let mut rows = Vec::new();
        let Some(last) = self.meta.seek_before(end) else { return Ok(rows) };
        for i in (0..=last).rev() {
            let mut cursor = self.block(i)?.cursor();
            if i == last {
                cursor.seek_before(end)
            } else {
                cursor.last()
            }
            drain(&mut cursor, &mut rows, BlockCursor::prev);
        }
        Ok(rows)
    }
}

/// Takes every row from where the cursor is to where it goes off.
pub(crate) fn drain(cursor: &mut BlockCursor, rows: &mut Vec<Row>, step: impl Fn(&mut BlockCursor)) {
    while let Some(row) = cursor.row() {
        rows.push(row.to_row());
        step(cursor);
    }
}
