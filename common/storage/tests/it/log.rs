//! Log objects: whatever is pushed comes back, and whatever is damaged is noticed.

use std::collections::BTreeSet;

use bytes::Bytes;
use isle_storage::format::{Compression, FormatError};
use isle_storage::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo, Timestamp};
use isle_storage::log::{self, Batch, LogHeader, LogIndex, LogObject, Push, RawBlock, SealedBatch};
use isle_storage::manifest::LogTail;
use isle_storage::names::{LogId, LogKind};
use isle_storage::row::{BlobPointer, MAX_KEY_LEN, Row, Value};
use proptest::collection::vec;
use proptest::prelude::*;

const FIRST: SeqNo = SeqNo(41);

fn header() -> LogHeader {
    let id = LogId { epoch: Epoch(2), incarnation: Incarnation(0xfeed), first_seq: SeqNo(31) };
    LogHeader {
        kind: LogKind::Segment,
        database: DatabaseId(0xda7a),
        lineage: Lineage(0x11ea6e),
        epoch: Epoch(3),
        incarnation: Incarnation(0xbeef),
        first_seq: FIRST,
        last_seq: FIRST,
        previous: Some(LogTail { id, last_seq: SeqNo(40) }),
        starts_generation: true,
        blobs: Vec::new(),
        parts: Vec::new(),
    }
}

fn push_value(v: &Value) -> Push<'_> {
    match v {
        Value::Put(v) => Push::Put(v),
        Value::Delete => Push::Delete,
        Value::Blob(p) => Push::Blob(isle_storage::row::BlobPointerRef {
            blob: &p.blob,
            offset: p.offset,
            len: p.len,
            crc: p.crc,
        }),
    }
}

fn batch(rows: &[Row], block_bytes: usize) -> SealedBatch {
    let mut batch = Batch::new(rows[0].seq, block_bytes);
    for row in rows {
        assert_eq!(batch.push(&row.key, row.time, row.expires, push_value(&row.value)), row.seq);
    }
    assert_eq!(batch.count(), rows.len() as u64);
    batch.seal().unwrap()
}

fn rows_of(blocks: &[RawBlock]) -> Vec<Row> {
    blocks.iter().flat_map(RawBlock::rows).map(|r| r.to_row()).collect()
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..200).prop_map(|v| Value::Put(v.into())),
        1 => Just(Value::Put(Bytes::new())),
        1 => (1usize..20_000, any::<u8>()).prop_map(|(n, b)| Value::Put(vec![b; n].into())),
        2 => Just(Value::Delete),
        2 => ("[a-z0-9]{1,12}-[0-9]{1,3}", any::<u64>(), any::<u64>(), any::<u32>())
            .prop_map(|(blob, offset, len, crc)| Value::Blob(BlobPointer { blob, offset, len, crc })),
    ]
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 1..40).prop_map(Bytes::from),
        1 => (1usize..=MAX_KEY_LEN, any::<u8>()).prop_map(|(n, b)| vec![b; n].into()),
        1 => any::<u8>().prop_map(|b| vec![b; MAX_KEY_LEN].into()),
    ]
}

prop_compose! {
    fn any_rows(max: usize)(
        base in prop_oneof![Just(0i64), any::<i64>().prop_map(|t| t / 2)],
        parts in vec((any_key(), 0i64..5_000_000, proptest::option::of(any::<i64>()), any_value()), 1..max),
    ) -> Vec<Row> {
        let mut time = base;
        let mut rows = Vec::new();
        for (n, (key, later, expires, value)) in parts.into_iter().enumerate() {
            time += later;
            rows.push(Row {
                key,
                seq: SeqNo(FIRST.0 + n as u64),
                time: Timestamp(time),
                expires: expires.map(Timestamp),
                value,
            });
        }
        rows
    }
}

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

fn any_block_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), 50usize..5000, Just(65_536)]
}

fn blobs_in(rows: &[Row]) -> Vec<String> {
    let names: BTreeSet<String> = rows
        .iter()
        .filter_map(|r| match &r.value {
            Value::Blob(p) => Some(p.blob.clone()),
            _ => None,
        })
        .collect();
    names.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_gives_back_what_was_pushed(
        rows in any_rows(60),
        block_bytes in any_block_bytes(),
        compression in any_compression(),
    ) {
        let sealed = batch(&rows, block_bytes);
        prop_assert_eq!(rows_of(&sealed.blocks), rows.clone());
        prop_assert_eq!(sealed.first_time, rows[0].time);
        prop_assert_eq!(sealed.last_time, rows[rows.len() - 1].time);
        prop_assert_eq!(&sealed.blobs, &blobs_in(&rows));

        let encoded = log::encode_segment(&header(), &sealed, compression);
        let bytes = encoded.body.to_bytes();
        prop_assert_eq!(encoded.entry.len, bytes.len() as u64);
        prop_assert_eq!(encoded.entry.crc, crc32c::crc32c(&bytes));
        prop_assert_eq!(encoded.entry.raw_bytes, sealed.raw_bytes);

        let object = log::decode(&bytes).unwrap();
        prop_assert_eq!(rows_of(&object.blocks), rows.clone());
        prop_assert_eq!(&object.header.previous, &header().previous);
        prop_assert_eq!(&object.header.blobs, &blobs_in(&rows));
        prop_assert_eq!(object.header.last_seq, sealed.last_seq);
        prop_assert_eq!(log::describe(&bytes).unwrap(), encoded.entry.clone());

        let index_offset = encoded.entry.index_offset;
        let index = LogIndex::decode(&bytes[index_offset as usize..], index_offset).unwrap();
        prop_assert_eq!(&index.header, &object.header);
        for row in &rows {
            let handle = index.blocks[index.block_at(row.seq)];
            let stored = bytes.slice(handle.offset as usize..handle.offset as usize + handle.len as usize);
            let block = log::decode_block(&handle, &stored).unwrap();
            let (offset, found) = block.rows_with_offsets().find(|(_, r)| r.seq == row.seq).unwrap();
            prop_assert_eq!(&found.to_row(), row);
            prop_assert_eq!(&block.row_at(offset, row.seq).to_row(), row);
        }
        prop_assert_eq!(index.block_at(sealed.last_seq.next()), index.blocks.len());
    }

    #[test]
    fn a_chunk_stands_for_its_segments(
        rows in any_rows(60),
        cuts in vec(1usize..60, 0..6),
        block_bytes in any_block_bytes(),
        chunk_block_bytes in any_block_bytes(),
        compression in any_compression(),
    ) {
        let cuts: BTreeSet<usize> =
            cuts.into_iter().filter(|c| *c < rows.len()).chain([0, rows.len()]).collect();
        let cuts: Vec<usize> = cuts.into_iter().collect();
        let batches: Vec<SealedBatch> =
            cuts.windows(2).map(|w| batch(&rows[w[0]..w[1]], block_bytes)).collect();
        let id = |b: &SealedBatch| LogTail {
            id: LogId { first_seq: b.first_seq, ..header().id() },
            last_seq: b.last_seq,
        };
        for b in &batches {
            let one = LogHeader { previous: None, ..header() };
            let decoded = log::decode(&log::encode_segment(&one, b, compression).body.to_bytes()).unwrap();
            prop_assert_eq!(decoded.header.tail(), id(b));
        }
        let blocks: Vec<RawBlock> = batches.iter().flat_map(|b| b.blocks.iter().cloned()).collect();
        let blobs = batches.iter().flat_map(|b| b.blobs.clone()).collect();
        let parts: Vec<LogTail> = batches.iter().map(id).collect();
        let chunk_header = LogHeader { kind: LogKind::Chunk, blobs, parts: parts.clone(), ..header() };
        let encoded = log::encode_chunk(&chunk_header, &blocks, chunk_block_bytes, compression);
        let bytes = encoded.body.to_bytes();
        prop_assert_eq!(encoded.entry.crc, crc32c::crc32c(&bytes));
        prop_assert_eq!(log::describe(&bytes).unwrap(), encoded.entry);
        let object = log::decode(&bytes).unwrap();
        prop_assert_eq!(rows_of(&object.blocks), rows);
        prop_assert_eq!(object.header.parts, parts);
    }
}

fn small() -> Bytes {
    let blob = Value::Blob(BlobPointer { blob: "3-00ab-1".into(), offset: 7, len: 1 << 33, crc: 5 });
    let values = [Value::Put("one".into()), Value::Delete, blob, Value::Put(vec![7; 120].into())];
    let rows: Vec<Row> = (0..values.len())
        .map(|n| Row {
            key: format!("key-{n}").into(),
            seq: SeqNo(FIRST.0 + n as u64),
            time: Timestamp(1_000_000 + n as i64),
            expires: (n == 3).then_some(Timestamp(9_000_000)),
            value: values[n].clone(),
        })
        .collect();
    log::encode_segment(&header(), &batch(&rows, 60), Compression::Lz4).body.to_bytes()
}

#[test]
fn a_flipped_bit_anywhere_in_a_log_object_is_noticed() {
    let good = small();
    assert!(log::decode(&good).is_ok());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(log::decode(&bad.into()).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_tail_is_noticed_by_the_tail_alone() {
    let good = small();
    let offset = log::describe(&good).unwrap().index_offset;
    let tail = &good[offset as usize..];
    assert!(LogIndex::decode(tail, offset).is_ok());
    assert!(LogIndex::decode(tail, offset + 1).is_err());
    for at in 0..tail.len() {
        let mut bad = tail.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(LogIndex::decode(&bad, offset).is_err(), "byte {at}");
        assert!(LogIndex::decode(&tail[..at], offset).is_err(), "cut at {at}");
    }
}

#[test]
fn a_log_object_cut_anywhere_or_followed_by_anything_is_refused() {
    let good = small();
    for len in 0..good.len() {
        assert!(log::decode(&good.slice(..len)).is_err(), "cut to {len}");
    }
    assert!(log::decode(&[&good[..], b"\0"].concat().into()).is_err());
    assert!(log::decode(&[&good[..], &good[..]].concat().into()).is_err());
}

/// A block that is sound in itself but belongs to another object (a misdirected write, a stale cache) is noticed.
#[test]
fn a_sound_block_in_the_wrong_place_is_refused() {
    let one = |value: &'static str| {
        let row = Row {
            key: "k".into(),
            seq: FIRST,
            time: Timestamp(5),
            expires: None,
            value: Value::Put(value.into()),
        };
        let encoded = log::encode_segment(&header(), &batch(&[row], 100), Compression::None);
        (encoded.body.to_bytes(), encoded.entry.index_offset as usize)
    };
    let ((a, end), (b, _)) = (one("aaa"), one("bbb"));
    let mixed = [&a[..8], &b[8..end], &a[end..]].concat();
    assert!(matches!(log::decode(&mixed.into()), Err(FormatError::Damaged { .. })));
}

/// Incompressible data must go from the accepting buffer to the store without being copied, and into the chunk too.
#[test]
fn stored_blocks_that_do_not_compress_are_uploaded_by_reference() {
    let mut x = 1u64;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 56) as u8
        })
        .collect();
    let mut open = Batch::new(FIRST, 64 * 1024);
    for value in noise.chunks(1000) {
        open.push(b"key", Timestamp(1), None, Push::Put(value));
    }
    let sealed = open.seal().unwrap();
    let segment = log::encode_segment(&header(), &sealed, Compression::Lz4);
    let chunk = log::encode_chunk(&header(), &sealed.blocks, 64 * 1024, Compression::Lz4);
    for body in [segment.body, chunk.body] {
        let starts: BTreeSet<*const u8> = body.pieces().iter().map(|p| p.as_ptr()).collect();
        // The last block is small and stays alone, so every one of them is there.
        assert!(sealed.blocks.iter().all(|b| starts.contains(&b.raw.as_ptr())));
    }
}

/// A large block that does compress keeps its stored form, so that a flush does not compress it again.
#[test]
fn a_chunk_takes_over_the_stored_form_of_large_blocks() {
    let mut open = Batch::new(FIRST, 64 * 1024);
    for n in 0..300 {
        open.push(format!("key {n}").as_bytes(), Timestamp(n), None, Push::Put(&[b'v'; 1000]));
    }
    let sealed = open.seal().unwrap();
    let payloads = |o: &log::EncodedLog| -> BTreeSet<*const u8> {
        o.body.pieces().iter().filter(|p| p.len() > 100).map(|p| p.as_ptr()).collect()
    };
    let segment = log::encode_segment(&header(), &sealed, Compression::Lz4);
    let chunk = log::encode_chunk(&header(), &sealed.blocks, 64 * 1024, Compression::Lz4);
    let common = payloads(&segment).intersection(&payloads(&chunk)).count();
    assert!(common >= sealed.blocks.len() - 1, "{common} of {}", sealed.blocks.len());
}

#[test]
fn a_time_that_goes_back_is_lifted_to_the_one_before() {
    let mut open = Batch::new(FIRST, 1000);
    for t in [50, 40, 60] {
        open.push(b"k", Timestamp(t), None, Push::Delete);
    }
    let sealed = open.seal().unwrap();
    let bytes = log::encode_segment(&header(), &sealed, Compression::Lz4).body.to_bytes();
    let LogObject { blocks, .. } = log::decode(&bytes).unwrap();
    let times: Vec<i64> = rows_of(&blocks).iter().map(|r| r.time.0).collect();
    assert_eq!(times, [50, 50, 60]);
}

#[test]
fn an_empty_batch_seals_to_nothing() {
    assert!(Batch::new(FIRST, 1000).seal().is_none());
    assert_eq!(Batch::new(FIRST, 1000).raw_bytes(), 0);
}

/// A record larger than a block gets one of its own, and small batches hold no more memory than they need.
#[test]
fn blocks_are_as_large_as_their_records_need() {
    let mut open = Batch::new(FIRST, 1000);
    open.push(b"small", Timestamp(1), None, Push::Put(b"x"));
    open.push(b"large", Timestamp(1), None, Push::Put(&[1; 5000]));
    open.push(b"small", Timestamp(1), None, Push::Put(b"x"));
    let sealed = open.seal().unwrap();
    assert_eq!(sealed.blocks.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(sealed.raw_bytes as usize, sealed.blocks.iter().map(|b| b.raw.len()).sum::<usize>());
}
