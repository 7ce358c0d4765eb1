//! Log objects, their blocks and their tails.

use bytes::Bytes;
use isle_storage::format::{Compression, Sealer, checksum};
use isle_storage::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo, Timestamp};
use isle_storage::log::{self, Batch, BlockHandle, LogHeader, LogIndex, Push, RawBlock};
use isle_storage::names::LogKind;
use isle_storage::row::{Row, ValueRef};

/// Any bytes as a whole log object. What is accepted has an entry and an index that agree with it.
pub fn object(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(object) = log::decode(&bytes) else { return };
    let Ok(entry) = log::describe(&bytes) else { panic!("decoded and not described") };
    assert_eq!((entry.id, entry.last_seq), (object.header.id(), object.header.last_seq));
    assert_eq!(entry.len, bytes.len() as u64);
    let tail = &bytes[entry.index_offset as usize..];
    let Ok(index) = LogIndex::decode(tail, entry.index_offset) else { panic!("decoded without its index") };
    assert_eq!(index.header, object.header);
    assert_eq!(index.blocks.len(), object.blocks.len());
    object.blocks.iter().for_each(check_block);
}

/// Any bytes as the records of a block: one byte for their number, two for the base time, then the records. What is
/// accepted can be pushed again and is the same then.
pub fn block(data: &[u8]) {
    let Some(([count, t0, t1], raw)) = data.split_first_chunk::<3>() else { return };
    let base_time = Timestamp(i64::from(i16::from_le_bytes([*t0, *t1])) << 48);
    let mut stored = Vec::new();
    Sealer::new(Compression::None).seal_to(raw, &mut stored);
    let handle = BlockHandle {
        offset: 8,
        len: stored.len() as u32,
        first_seq: SeqNo(7),
        count: u32::from(*count),
        base_time,
        crc: stored.last_chunk().map_or(0, |c| u32::from_le_bytes(*c)),
    };
    let Ok(block) = log::decode_block(&handle, &stored.into()) else { return };
    check_block(&block);
    if block.count > 0 {
        check_again(&block);
    }
}

fn check_block(block: &RawBlock) {
    let mut seen = 0;
    let mut last = block.base_time;
    for (offset, row) in block.rows_with_offsets() {
        assert_eq!(row.seq, SeqNo(block.first_seq.0 + seen));
        assert_eq!(block.row_at(offset, row.seq), row);
        assert!(row.time >= last && !row.key.is_empty());
        last = row.time;
        seen += 1;
    }
    assert_eq!(seen, u64::from(block.count));
    assert_eq!(last, block.last_time());
}

fn check_again(block: &RawBlock) {
    let mut batch = Batch::new(block.first_seq, 64);
    for row in block.rows() {
        let value = match row.value {
            ValueRef::Put(v) => Push::Put(v),
            ValueRef::Delete => Push::Delete,
            ValueRef::Blob(p) => Push::Blob(p),
        };
        batch.push(row.key, row.time, row.expires, value);
    }
    let Some(sealed) = batch.seal() else { panic!("rows were pushed") };
    let encoded = log::encode_segment(&header(), &sealed, Compression::Lz4);
    let Ok(back) = log::decode(&encoded.body.to_bytes()) else { panic!("encoded and not decoded") };
    let rows = |blocks: &[RawBlock]| -> Vec<Row> {
        blocks.iter().flat_map(RawBlock::rows).map(|r| r.to_row()).collect()
    };
    assert_eq!(rows(&back.blocks), rows(std::slice::from_ref(block)));
}

fn header() -> LogHeader {
    LogHeader {
        kind: LogKind::Segment,
        database: DatabaseId(1),
        lineage: Lineage(2),
        epoch: Epoch(3),
        incarnation: Incarnation(4),
        first_seq: SeqNo(7),
        last_seq: SeqNo(7),
        previous: None,
        starts_generation: false,
        blobs: Vec::new(),
        parts: Vec::new(),
    }
}

/// Any bytes as the sections of a log object's tail, behind three bytes that say where it starts; the footer is made
/// right. What is accepted describes blocks that fill the object and numbers that are dense.
pub fn index(data: &[u8]) {
    let _ = LogIndex::decode(data, 8);
    let Some(([o0, o1, o2], sections)) = data.split_first_chunk::<3>() else { return };
    let index_offset = u64::from(u32::from_le_bytes([*o0, *o1, *o2, 0]));
    let mut tail = [sections, &index_offset.to_le_bytes()].concat();
    let preamble = b"ISLL\x01\0\0\0";
    let crc = checksum::crc32c_of([&tail[..], preamble]);
    tail.extend_from_slice(&crc.to_le_bytes());
    tail.extend_from_slice(preamble);
    let Ok(index) = LogIndex::decode(&tail, index_offset) else { return };
    let (mut offset, mut seq) = (8, index.header.first_seq);
    for (i, b) in index.blocks.iter().enumerate() {
        assert_eq!((b.offset, b.first_seq), (offset, seq));
        assert_eq!((index.block_at(seq), b.count > 0), (i, true));
        offset += u64::from(b.len);
        seq = SeqNo(seq.0 + u64::from(b.count));
    }
    assert_eq!((offset, seq), (index_offset, index.header.last_seq.next()));
    assert!(index.header.previous.is_none_or(|p| p.last_seq.next() == index.header.first_seq));
}
