//! Tables: whatever is pushed comes back, from every side, and whatever is damaged is noticed.

use bytes::Bytes;
use isle_storage::format::{Compression, FormatError};
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::BlobUse;
use isle_storage::object::Body;
use isle_storage::row::{MAX_INLINE_VALUE_LEN, MAX_KEY_LEN, Row, Value, prefix_end, successor};
use isle_storage::sst::{self, Block, Lookup, TableBuilder, TableMeta, TableOptions};
use proptest::prelude::*;

use crate::rows::{EPOCH_TIME, Opened, any_key, any_options, any_rows, build, drain, sort};

fn put(key: impl Into<Bytes>, seq: u64, value: impl Into<Bytes>) -> Row {
    let value = Value::Put(value.into());
    Row { key: key.into(), seq: SeqNo(seq), time: Timestamp(EPOCH_TIME), expires: None, value }
}

fn small_blocks() -> TableOptions {
    TableOptions { block_bytes: 256, compression: Compression::Lz4 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A table read from any point, in either direction, is what was pushed.
    #[test]
    fn scans_equal_the_model_from_every_key_both_ways(
        rows in any_rows(90), options in any_options(), others in proptest::collection::vec(any_key(), 0..8),
    ) {
        let table = Opened::of(&rows, options);
        prop_assert_eq!(&table.all()?, &rows);
        for key in rows.iter().map(|r| &r.key).chain(&others) {
            for bound in [key.to_vec(), successor(key), prefix_end(key).unwrap_or(vec![0xff; 800])] {
                let (below, from): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|r| r.key < bound);
                prop_assert!(table.from(&bound)?.iter().eq(from));
                prop_assert!(table.before(&bound)?.iter().eq(below.into_iter().rev()));
            }
        }
    }

    /// A lookup at any sequence number finds the newest version at or below it.
    #[test]
    fn lookups_equal_the_model_at_every_sequence_number(
        rows in any_rows(60), options in any_options(), others in proptest::collection::vec(any_key(), 0..8),
    ) {
        let table = Opened::of(&rows, options);
        for key in rows.iter().map(|r| &r.key).chain(&others) {
            for max_seq in (0..rows.len() as u64 + 2).map(SeqNo) {
                let expected = rows.iter().find(|r| r.key == *key && r.seq <= max_seq);
                prop_assert_eq!(table.get(key, max_seq)?, expected.cloned());
            }
        }
    }

    /// A cursor moved at random is where a position in a list would be, and off where that is off: after the end, before
    /// the start, after a seek that finds nothing, it never shows the row it was on.
    #[test]
    fn a_cursor_moved_at_random_is_never_stale(
        rows in any_rows(60), moves in proptest::collection::vec((0u8..6, any_key()), 1..200),
    ) {
        let options = TableOptions { block_bytes: 1 << 20, compression: Compression::None };
        let block = Opened::of(&rows, options).block(0)?;
        prop_assert_eq!(block.len(), rows.len());
        let mut cursor = block.cursor();
        let end = rows.len() as i64;
        let mut at = -1i64;
        for (kind, key) in moves {
            match kind {
                0 => { cursor.first(); at = 0 }
                1 => { cursor.last(); at = end - 1 }
                2 => { cursor.seek(&key); at = rows.partition_point(|r| r.key < key) as i64 }
                3 => { cursor.seek_before(&key); at = rows.partition_point(|r| r.key < key) as i64 - 1 }
                4 => { cursor.next(); at = (at + 1).min(end) }
                _ => { cursor.prev(); at = (at - 1).max(-1) }
            }
            let expected = usize::try_from(at).ok().and_then(|i| rows.get(i));
            prop_assert_eq!(cursor.row(), expected.map(Row::as_ref));
            prop_assert_eq!(cursor.key(), expected.map(|r| &r.key[..]));
            prop_assert_eq!(cursor.seq(), expected.map(|r| r.seq));
            prop_assert_eq!(cursor.is_on(), expected.is_some());
            let value = expected.and_then(|r| if let Value::Put(v) = &r.value { Some(v.clone()) } else { None });
            prop_assert_eq!(cursor.shared_value(), value);
        }
    }

    /// The manifest entry and the table's own properties say what the rows say.
    #[test]
    fn entry_and_properties_count_what_was_pushed(rows in any_rows(100), options in any_options()) {
        let table = build(&rows, options);
        let entry = &table.entry;
        let object = table.body.to_bytes();
        prop_assert_eq!(entry.len, object.len() as u64);
        prop_assert_eq!(entry.crc, isle_storage::format::checksum::crc32c(&object[entry.meta_offset as usize..]));
        prop_assert_eq!(entry.smallest.as_slice(), &rows[0].key[..]);
        prop_assert_eq!(entry.largest.as_slice(), &rows[rows.len() - 1].key[..]);
        prop_assert_eq!(entry.rows, rows.len() as u64);
        prop_assert_eq!(entry.deletes, rows.iter().filter(|r| r.value == Value::Delete).count() as u64);
        prop_assert_eq!((entry.min_seq, entry.max_seq), (SeqNo(1), SeqNo(rows.len() as u64)));
        prop_assert_eq!(Some(entry.min_time), rows.iter().map(|r| r.time).min());
        prop_assert_eq!(Some(entry.max_time), rows.iter().map(|r| r.time).max());
        prop_assert_eq!(entry.min_expires, rows.iter().filter_map(|r| r.expires).min());
        let opened = Opened::new(object, entry.meta_offset)?;
        let properties = opened.meta.properties();
        prop_assert_eq!(&properties.to_entry(&entry.name, entry.len, entry.meta_offset, entry.crc), entry);
        prop_assert_eq!(properties.blocks, opened.meta.block_count() as u64);
        let mut blobs: Vec<&str> = rows
            .iter()
            .filter_map(|r| if let Value::Blob(p) = &r.value { Some(p.blob.as_str()) } else { None })
            .collect();
        blobs.sort_unstable();
        blobs.dedup();
        prop_assert_eq!(&entry.blobs, &blobs);
        let used = blobs.iter().map(|blob| {
            let mut used = BlobUse::default();
            for row in &rows {
                match &row.value {
                    Value::Blob(p) if p.blob == *blob => used.add_value(p.len),
                    _ => {}
                }
            }
            used
        });
        prop_assert_eq!(&entry.blob_use, &used.collect::<Vec<_>>());
    }
}

/// A flipped bit anywhere is an error, or (in the filter) costs reads and changes no answer.
#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    let mut rows: Vec<Row> = (0..36).map(|i| put(format!("key-{i:03}"), i + 1, vec![i as u8; 20])).collect();
    rows[7].value = Value::Delete;
    rows[9].expires = Some(Timestamp(EPOCH_TIME + 5));
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let table = build(&rows, TableOptions { block_bytes: 256, compression });
        let object = table.body.to_bytes();
        for at in 0..object.len() {
            for flip in [1 << (at % 8), 0xff] {
                let mut damaged = object.to_vec();
                damaged[at] ^= flip;
                let all = Opened::new(damaged.into(), table.entry.meta_offset).and_then(|t| {
                    let gets =
                        rows.iter().filter(|r| t.get(&r.key, r.seq).is_ok_and(|f| f.as_ref() == Some(r)));
                    Ok((gets.count(), t.meta.has_filter(), t.all()?))
                });
                if let Ok((gets, has_filter, all)) = all {
                    assert!(!has_filter && at as u64 >= table.entry.meta_offset, "byte {at}");
                    assert_eq!((gets, &all), (rows.len(), &rows), "byte {at}");
                }
            }
        }
    }
}

/// A filter that answered "absent" because it is damaged would be silent data loss.
#[test]
fn a_damaged_filter_means_may_contain_and_nothing_else_changes() {
    let rows: Vec<Row> = (0..500).map(|i| put(format!("key-{i:03}"), i + 1, "v")).collect();
    let table = build(&rows, small_blocks());
    let mut object = table.body.to_bytes().to_vec();
    object[table.entry.meta_offset as usize + 40] ^= 0x10;
    let opened = Opened::new(object.into(), table.entry.meta_offset).unwrap();
    assert!(!opened.meta.has_filter());
    assert!(opened.meta.may_contain(b"key-001") && opened.meta.may_contain(b"no such key"));
    assert_eq!(opened.get(b"key-123", SeqNo(1000)).unwrap(), Some(rows[123].clone()));
    assert_eq!(opened.get(b"key-1234", SeqNo(1000)).unwrap(), None);
}

#[test]
fn truncated_metadata_and_truncated_blocks_are_errors() {
    let rows: Vec<Row> = (0..40).map(|i| put(format!("key-{i:03}"), i + 1, "some value")).collect();
    let table = build(&rows, small_blocks());
    let object = table.body.to_bytes();
    let meta_offset = table.entry.meta_offset;
    let tail = object.slice(meta_offset as usize..);
    for len in 0..tail.len() {
        assert!(TableMeta::decode(tail.slice(..len), meta_offset).is_err(), "{len} of {} bytes", tail.len());
        assert!(TableMeta::decode(tail.slice(len + 1..), meta_offset).is_err(), "from byte {}", len + 1);
    }
    let opened = Opened::new(object.clone(), meta_offset).unwrap();
    let range = opened.meta.block_range(0);
    for len in 0..range.end as usize {
        assert!(Block::decode(&object.slice(..len)).is_err(), "{len} of {} bytes", range.end);
    }
    assert!(Block::decode(&object.slice(..range.end as usize + 1)).is_err());
    assert!(TableMeta::decode(tail, meta_offset + 1).is_err(), "another offset than the table's own");
}

#[test]
fn the_footer_alone_tells_where_the_metadata_starts() {
    let table = build(&[put("k", 1, "v")], small_blocks());
    let object = table.body.to_bytes();
    let end = &object[object.len() - sst::FOOTER_LEN..];
    assert_eq!(sst::meta_offset(end), Ok(table.entry.meta_offset));
    assert_eq!(sst::meta_offset(&object), Ok(table.entry.meta_offset));
    assert!(matches!(sst::meta_offset(&end[1..]), Err(FormatError::Damaged { .. })));
}

/// Versions of one key fill many blocks: the newest is found, and so is each older one.
#[test]
fn versions_of_one_key_straddle_blocks() {
    let mut rows: Vec<Row> = (1..400).map(|seq| put("same key", seq, format!("version {seq}"))).collect();
    rows.push(put("before", 400, "b"));
    rows.push(put("same key and more", 401, "a"));
    sort(&mut rows);
    let table = Opened::of(&rows, small_blocks());
    assert!(table.meta.block_count() > 10);
    for seq in 1..400 {
        assert_eq!(
            table.get(b"same key", SeqNo(seq)).unwrap(),
            Some(put("same key", seq, format!("version {seq}")))
        );
    }
    assert_eq!(table.get(b"same key", SeqNo(0)).unwrap(), None);
    assert_eq!(table.from(b"same key").unwrap().len(), 400);
    assert_eq!(table.before(b"same key").unwrap().len(), 1);
    let first = table.meta.seek(b"same key");
    assert!(table.meta.key_goes_on(first));
    assert_eq!(table.block(first).unwrap().get(b"same key", SeqNo(1)), Lookup::Next);
}

/// The largest keys and values there are, beside the smallest.
#[test]
fn the_largest_keys_and_values_round_trip() {
    let long = |last: u8| {
        let mut key = vec![b'k'; MAX_KEY_LEN];
        key[MAX_KEY_LEN - 1] = last;
        key
    };
    let mut rows: Vec<Row> = (0..40).map(|i| put(long(i), u64::from(i) + 1, vec![i; 30])).collect();
    rows.push(put("a", 50, vec![1; MAX_INLINE_VALUE_LEN + 5]));
    rows.push(put("b", 51, ""));
    rows.push(put(vec![0xff; MAX_KEY_LEN], 52, "x"));
    rows.push(put([0u8].to_vec(), 53, "y"));
    sort(&mut rows);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let table = Opened::of(&rows, TableOptions { compression, ..TableOptions::default() });
        assert_eq!(table.all().unwrap(), rows);
        assert!(table.before(&[0xff; MAX_KEY_LEN + 1]).unwrap().iter().eq(rows.iter().rev()));
        for row in &rows {
            assert_eq!(table.get(&row.key, SeqNo(100)).unwrap().as_ref(), Some(row));
        }
        assert_eq!(table.get(&successor(&long(39)), SeqNo(100)).unwrap(), None);
    }
}

/// A row with a big value has a block of its own, so that its neighbours stay cheap to read.
#[test]
fn a_big_row_shares_its_block_with_nobody_before_it() {
    let mut rows = vec![put("a", 1, "small"), put("b", 2, vec![7; 1 << 20]), put("c", 3, "small")];
    sort(&mut rows);
    let table = Opened::of(&rows, TableOptions { compression: Compression::None, ..TableOptions::default() });
    let lens: Vec<usize> = (0..table.meta.block_count()).map(|i| table.block(i).unwrap().len()).collect();
    assert_eq!(lens, [1, 1, 1]);
    assert!(table.meta.block_range(0).end < 200);
}

/// What a lookup hands out stays what it is, whatever becomes of block and neighbours, and a small value does not keep
/// its block alive.
#[test]
fn returned_rows_do_not_alias_their_neighbours() {
    let rows: Vec<Row> = (0..9).map(|i| put(format!("k{i}"), i + 1, vec![i as u8; 100])).collect();
    let table = Opened::of(&rows, TableOptions { compression: Compression::None, ..TableOptions::default() });
    let block = table.block(0).unwrap();
    let found: Vec<Row> = (0..9)
        .map(|i| match block.get(format!("k{i}").as_bytes(), SeqNo(100)) {
            Lookup::Found(row) => row,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut scanned = Vec::new();
    let mut cursor = block.cursor();
    cursor.first();
    drain(&mut cursor, &mut scanned, |c| c.next());
    drop((block, cursor, table));
    assert_eq!(found, rows);
    assert_eq!(scanned, rows);
    for row in found {
        let Value::Put(value) = row.value else { panic!() };
        let mut value = value.try_into_mut().expect("a small value has a buffer of its own");
        value.fill(0xee);
    }
}

/// A cached block keeps no more memory than it says: not the large read it was part of.
#[test]
fn a_decoded_block_does_not_pin_the_read_it_came_from() {
    let rows = [put("k", 1, "v")];
    for compression in [Compression::None, Compression::Lz4] {
        let object = build(&rows, TableOptions { compression, ..TableOptions::default() }).body.to_bytes();
        let mut read = object.to_vec();
        read.resize(1 << 20, 0);
        let read = Bytes::from(read);
        let opened = Opened::new(object, build(&rows, small_blocks()).entry.meta_offset).unwrap();
        let range = opened.meta.block_range(0);
        let block = Block::decode(&read.slice(..range.end as usize)).unwrap();
        assert!(read.try_into_mut().is_ok(), "the block shares the read's memory");
        assert!(block.memory() < 300);
    }
}

#[test]
fn shared_decoding_gives_the_same_rows() {
    let rows: Vec<Row> = (0..90).map(|i| put(format!("k{i:02}"), i + 1, "v")).collect();
    let table = Opened::of(&rows, TableOptions { compression: Compression::None, ..TableOptions::default() });
    let range = table.meta.block_range(0);
    let stored = table.object.slice(range.start as usize..range.end as usize);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (block, rows) in [(Block::decode(&stored), &mut a), (Block::decode_shared(&stored), &mut b)] {
        let mut cursor = block.unwrap().cursor();
        cursor.first();
        drain(&mut cursor, rows, |c| c.next());
    }
    assert_eq!((&a, &b), (&rows, &rows));
}

/// The estimate steers where tables are split.
#[test]
fn the_estimated_length_is_near_the_real_one() {
    for compression in [Compression::None, Compression::Lz4] {
        let mut builder = TableBuilder::new(TableOptions { compression, ..TableOptions::default() });
        assert!(builder.is_empty() && builder.last_key().is_none());
        for i in 0..20_000u64 {
            builder.push(put(format!("deb/games/{i:06}"), i + 1, format!("value {i}")).as_ref());
        }
        assert_eq!(builder.last_key(), Some(&b"deb/games/019999"[..]));
        let estimate = builder.estimated_len() as f64;
        let real = builder.finish("1-00000000000000aa-1").entry.len as f64;
        assert!((estimate / real - 1.0).abs() < 0.05, "{estimate} for {real}");
    }
}

#[test]
fn equal_rows_make_equal_bytes() {
    let rows: Vec<Row> = (0..3000).map(|i| put(format!("k{i:05}"), i + 1, "v")).collect();
    let bytes = || build(&rows, TableOptions::default()).body.to_bytes();
    assert_eq!(bytes(), bytes());
}

/// What is taken while a table is open, and what is left at its end, are the object it would have been whole.
#[test]
fn a_table_taken_in_pieces_is_the_same_table() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let options = TableOptions { block_bytes: 400, compression };
        let rows: Vec<Row> = (0..2000u64)
            .map(|n| put(format!("{n:05}"), n + 1, format!("{:x}", n * n * n).repeat(5)))
            .collect();
        let whole = build(&rows, options);
        let mut builder = TableBuilder::new(options).in_pieces_of(3000);
        let (mut taken, mut most, mut times) = (Vec::new(), 0, 0);
        for row in &rows {
            builder.push(row.as_ref());
            if builder.finished_len() >= 9000 {
                most = most.max(builder.finished_len());
                times += 1;
                taken.extend(builder.take_finished());
                assert_eq!(builder.finished_len(), 0);
            }
        }
        let end = builder.finish("1-00000000000000aa-1");
        taken.extend_from_slice(end.body.pieces());
        assert_eq!(end.entry, whole.entry);
        assert_eq!(Body::from(taken).to_bytes(), whole.body.to_bytes());
        assert!(
            times > 2 && most < 12_000 && end.body.len() < whole.body.len(),
            "{times} times, {most} at most"
        );
    }
}
