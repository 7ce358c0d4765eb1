//! What the dump tools read of damaged objects: everything that is whole, the place of everything that is not, and
//! nothing that was never written.

use bytes::Bytes;
use isle_storage::format::{Compression, Damage};
use isle_storage::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo, Timestamp};
use isle_storage::log::{self, Batch, LogHeader, Push};
use isle_storage::manifest::{CompactionMode, Manifest, checkpoint};
use isle_storage::names::LogKind;
use isle_storage::row::{Row, Value};
use isle_storage::sst::{FOOTER_LEN, Salvage, TableBuilder, TableOptions};
use proptest::prelude::*;

const ROWS: u64 = 60;

fn value(i: u64) -> Bytes {
    Bytes::from(format!("value {i} ").repeat(1 + i as usize % 9))
}

/// A table of a few blocks, and where its metadata begins.
fn table(compression: Compression) -> (Bytes, usize) {
    let mut builder = TableBuilder::new(TableOptions { block_bytes: 512, compression });
    for i in 0..ROWS {
        let key = Bytes::from(format!("key{i:04}"));
        let row = Row {
            key,
            seq: SeqNo(i + 1),
            time: Timestamp(i as i64),
            expires: None,
            value: Value::Put(value(i)),
        };
        builder.push(row.as_ref());
    }
    let table = builder.finish("o-1");
    (table.body.to_bytes(), table.entry.meta_offset as usize)
}

/// The rows that are found, all of which were written, and the damage.
fn rows_of(bytes: &Bytes) -> (Vec<u64>, Vec<Damage>) {
    let salvage = Salvage::of(bytes);
    let mut damage = salvage.damage.clone();
    let mut seqs = Vec::new();
    for i in 0..salvage.blocks.len() {
        match salvage.block(i) {
            Ok(block) => {
                let mut cursor = block.cursor();
                cursor.first();
                while let Some(row) = cursor.row() {
                    let i = row.seq.0 - 1;
                    assert_eq!(row.key, format!("key{i:04}").as_bytes());
                    assert_eq!(row.to_row().value, Value::Put(value(i)));
                    seqs.push(row.seq.0);
                    cursor.next();
                }
            }
            Err(d) => damage.push(d),
        }
    }
    (seqs, damage)
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bad = bytes.to_vec();
    bad[at] ^= 0x10;
    bad.into()
}

#[test]
fn a_whole_table_has_no_damage() {
    let (bytes, _) = table(Compression::Lz4);
    let (seqs, damage) = rows_of(&bytes);
    assert_eq!((seqs.len() as u64, damage), (ROWS, Vec::new()));
    let salvage = Salvage::of(&bytes);
    assert!(salvage.filter && salvage.properties.is_some_and(|p| p.rows == ROWS) && salvage.blocks.len() > 3);
}

/// One bad byte costs at most the block it lies in; one in the metadata costs no row at all, and one in the filter not
/// even the properties.
#[test]
fn one_bad_byte_costs_one_block_and_its_place_is_told() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let (bytes, meta) = table(compression);
        let blocks = Salvage::of(&bytes).blocks;
        for at in (0..bytes.len()).step_by(3).chain(bytes.len() - FOOTER_LEN..bytes.len()) {
            let bad = flipped(&bytes, at);
            let (seqs, damage) = rows_of(&bad);
            let at_64 = at as u64;
            if at < meta {
                let hit = blocks.iter().position(|b| b.contains(&at_64)).unwrap();
                assert_eq!(damage.len(), 1, "byte {at}");
                assert_eq!(damage[0].range, blocks[hit], "byte {at}");
                assert!(seqs.len() as u64 > ROWS / 2, "byte {at}");
            } else {
                assert_eq!(seqs.len() as u64, ROWS, "byte {at}");
                let told = damage.iter().any(|d| d.range.contains(&at_64));
                assert!(told || !Salvage::of(&bad).filter, "byte {at}: {damage:?}");
            }
        }
    }
}

/// A table that was cut off gives the blocks before the cut.
#[test]
fn a_cut_table_gives_the_blocks_before_the_cut() {
    let (bytes, _) = table(Compression::Lz4);
    let blocks = Salvage::of(&bytes).blocks;
    for cut in (0..bytes.len()).step_by(7) {
        let (seqs, damage) = rows_of(&bytes.slice(..cut));
        let whole = blocks.iter().filter(|b| b.end <= cut as u64).count();
        assert_eq!(Salvage::of(&bytes.slice(..cut)).blocks.len(), whole, "cut at {cut}");
        assert_eq!(seqs.is_empty(), whole == 0, "cut at {cut}");
        assert!(!damage.is_empty(), "cut at {cut}");
    }
}

fn segment(compression: Compression) -> Bytes {
    let mut batch = Batch::new(SeqNo(41), 256);
    for i in 0..ROWS {
        batch.push(format!("key{i:04}").as_bytes(), Timestamp(1000 + i as i64), None, Push::Put(&value(i)));
    }
    let sealed = batch.seal().unwrap();
    let header = LogHeader {
        kind: LogKind::Segment,
        database: DatabaseId(1),
        lineage: Lineage(2),
        epoch: Epoch(3),
        incarnation: Incarnation(4),
        first_seq: SeqNo(41),
        last_seq: SeqNo(40 + ROWS),
        previous: None,
        starts_generation: true,
        blobs: Vec::new(),
        parts: Vec::new(),
    };
    log::encode_segment(&header, &sealed, compression).body.to_bytes()
}

#[test]
fn a_bad_byte_in_a_segment_costs_one_block() {
    for compression in [Compression::None, Compression::Lz4] {
        let bytes = segment(compression);
        let whole = log::Salvage::of(&bytes, SeqNo(41));
        assert!(whole.numbered && whole.damage.is_empty() && whole.blocks.len() > 3);
        let index = whole.blocks.last().unwrap().0.end;
        for at in 0..bytes.len() {
            let salvage = log::Salvage::of(&flipped(&bytes, at), SeqNo(41));
            assert!(salvage.damage.iter().any(|d| d.range.contains(&(at as u64))), "byte {at}");
            let lost = usize::from((8..index).contains(&(at as u64)));
            assert_eq!(salvage.blocks.len(), whole.blocks.len() - lost, "byte {at}");
            assert_eq!(salvage.numbered, (at as u64) < index, "byte {at}");
            for (range, block) in &salvage.blocks {
                let original = &whole.blocks.iter().find(|(r, _)| r == range).unwrap().1;
                let keys = |b: &log::RawBlock| -> Vec<_> {
                    b.rows().map(|r| (r.seq, r.key.to_vec(), r.to_row().value)).collect()
                };
                assert_eq!(keys(block), keys(original), "byte {at}");
            }
        }
    }
}

#[test]
fn a_damaged_checkpoint_gives_its_json_up_to_the_damage() {
    let manifest = Manifest::genesis(DatabaseId(1), Lineage(2), CompactionMode::Merge);
    let bytes = checkpoint::encode(&manifest);
    let (json, damage) = checkpoint::salvage(&bytes);
    assert_eq!(damage, Vec::new());
    assert_eq!(serde_json::from_slice::<Manifest>(&json).unwrap(), manifest);
    for at in 0..bytes.len() {
        let (json, damage) = checkpoint::salvage(&flipped(&bytes, at));
        assert!(!damage.is_empty(), "byte {at}");
        // Magic, declared length and checksum cost nothing of the content.
        let outside = at < 16 || at >= bytes.len() - 4;
        assert_eq!(serde_json::from_slice::<Manifest>(&json).is_ok(), outside, "byte {at}");
    }
}

proptest! {
    /// Whatever the bytes are, reading them comes to an end and tells of damage.
    #[test]
    fn noise_is_damage(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bytes = Bytes::from(noise);
        prop_assert!(!Salvage::of(&bytes).damage.is_empty());
        prop_assert!(!log::Salvage::of(&bytes, SeqNo(1)).damage.is_empty());
        prop_assert!(!checkpoint::salvage(&bytes).1.is_empty());
    }
}
