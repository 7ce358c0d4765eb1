//! Segments and chunks.

use bytes::Bytes;
use isle_storage::format::{Compression, FormatError, REQUIRED, Sealer, SectionWriter, checksum};
use isle_storage::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo, Timestamp};
use isle_storage::log::{self, Batch, LogHeader, LogIndex, Push, RawBlock, SealedBatch};
use isle_storage::manifest::LogTail;
use isle_storage::names::{LogId, LogKind};
use isle_storage::row::BlobPointerRef;

use super::{assert_same_text, fixture, text_fixture};

const COMPRESSIONS: [(&str, Compression); 3] =
    [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];

fn header() -> LogHeader {
    let previous = LogId { epoch: Epoch(2), incarnation: Incarnation(0xfeed), first_seq: SeqNo(31) };
    LogHeader {
        kind: LogKind::Segment,
        database: DatabaseId(0xda7a_0000_0000_0000_0000_0000_0000_0001),
        lineage: Lineage(0x11ea_0000_0000_0000_0000_0000_0000_0002),
        epoch: Epoch(3),
        incarnation: Incarnation(0xbeef),
        first_seq: SeqNo(41),
        last_seq: SeqNo(41),
        previous: Some(LogTail { id: previous, last_seq: SeqNo(40) }),
        starts_generation: true,
        blobs: Vec::new(),
        parts: Vec::new(),
    }
}

/// Every kind of record: with and without expiry, empty and long values, keys of any bytes, times far apart.
fn batch(first: u64) -> SealedBatch {
    let mut b = Batch::new(SeqNo(first), 400);
    let at = |n: i64| Timestamp(1_700_000_000_000_000 + n);
    b.push(b"deb/games/chess", at(0), None, Push::Put(b"a board, sixty-four squares, a board"));
    b.push(b"deb/games/chess", at(1), None, Push::Delete);
    b.push(b"\xff\x00\x80 any bytes", at(1), Some(at(3_600_000_000)), Push::Put(b""));
    b.push(b"expiring delete", at(70_000), Some(Timestamp(-1)), Push::Delete);
    for (n, blob) in ["3-000000000000beef-2", "3-000000000000beef-1"].into_iter().enumerate() {
        let place = BlobPointerRef { blob, offset: n as u64 * 4096, len: 9 << 30, crc: 0x0102_0304 };
        b.push(b"large", at(80_000), (n == 1).then_some(at(5)), Push::Blob(place));
    }
    b.push(&[b'k'; 300], at(90_000_000_000), None, Push::Put(&[b'v'; 1000]));
    for n in 0..20u8 {
        b.push(&[n], at(90_000_000_000 + i64::from(n)), None, Push::Put(&[n, 0xf0]));
    }
    b.seal().unwrap()
}

fn segment(compression: Compression) -> Vec<u8> {
    log::encode_segment(&header(), &batch(41), compression).body.to_bytes().to_vec()
}

/// Two segments of one generation, the second a later epoch's.
fn chunk() -> Vec<u8> {
    let (a, b) = (batch(41), batch(68));
    let blocks: Vec<RawBlock> = a.blocks.iter().chain(b.blocks.iter()).cloned().collect();
    let part = |b: &SealedBatch, epoch| LogTail {
        id: LogId { epoch: Epoch(epoch), incarnation: Incarnation(0xbeef), first_seq: b.first_seq },
        last_seq: b.last_seq,
    };
    let header = LogHeader {
        kind: LogKind::Chunk,
        epoch: Epoch(4),
        incarnation: Incarnation(0xcafe),
        blobs: a.blobs.clone(),
        parts: vec![part(&a, 3), part(&b, 4)],
        ..header()
    };
    log::encode_chunk(&header, &blocks, 4096, Compression::Zstd).body.to_bytes().to_vec()
}

/// A segment with one more section in its tail, as a later version might write it.
fn with_section(tag: u16) -> Vec<u8> {
    let good = segment(Compression::Lz4);
    let (blocks, sections) = parts(&good);
    let mut more = SectionWriter::new();
    more.put(tag, b"from the future");
    with_tail(&blocks, &[more.finish(), sections].concat(), 1)
}

/// The bytes before the tail, and the tail's sections.
fn parts(object: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let offset = log::describe(&object.to_vec().into()).unwrap().index_offset as usize;
    (object[..offset].to_vec(), object[offset..object.len() - 20].to_vec())
}

/// An object whose footer is made as the format's description says.
fn with_tail(blocks: &[u8], sections: &[u8], version: u8) -> Vec<u8> {
    let offset = (blocks.len() as u64).to_le_bytes();
    let preamble = [b'I', b'S', b'L', b'L', version, 0, 0, 0];
    let crc = checksum::crc32c_of([sections, &offset, &preamble]).to_le_bytes();
    [&preamble, &blocks[8..], sections, &offset, &crc, &preamble].concat()
}

fn printed(object: &[u8]) -> Result<String, FormatError> {
    let bytes = Bytes::copy_from_slice(object);
    let entry = log::describe(&bytes)?;
    LogIndex::decode(&bytes[entry.index_offset as usize..], entry.index_offset)?;
    Ok(log::text::print(&log::decode(&bytes)?))
}

fn segment_text() -> String {
    text_fixture("segment.txt", || printed(&segment(Compression::None)).unwrap())
}

#[test]
fn segments_of_version_1_are_read_whatever_their_compression() {
    let expected = segment_text();
    for (name, compression) in COMPRESSIONS {
        let object = fixture(&format!("segment-{name}.seg"), || segment(compression));
        assert_same_text(name, &expected, &printed(&object).unwrap());
    }
}

#[test]
fn a_chunk_of_version_1_is_read() {
    let object = fixture("chunk-zstd.chunk", chunk);
    let printed = printed(&object).unwrap();
    assert_same_text("chunk", &text_fixture("chunk.txt", || printed.clone()), &printed);
}

#[test]
fn a_section_an_older_reader_may_skip_is_skipped() {
    let object = fixture("segment-optional-section.seg", || with_section(0x0777));
    assert_same_text("segment", &segment_text(), &printed(&object).unwrap());
}

#[test]
fn a_section_an_older_reader_must_know_and_a_newer_version_are_refused_as_too_new() {
    let required = fixture("segment-required-section.seg", || with_section(REQUIRED | 0x0777));
    let (blocks, sections) = parts(&segment(Compression::Lz4));
    let newer = fixture("segment-version-2.seg", || with_tail(&blocks, &sections, 2));
    for object in [required, newer] {
        assert!(matches!(printed(&object), Err(FormatError::TooNew { .. })));
    }
    assert_eq!(with_tail(&blocks, &sections, 1), segment(Compression::Lz4), "as the format is described");
}

pub(super) fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let objects = COMPRESSIONS.map(|(name, compression)| (name.to_owned(), segment(compression)));
    let tail_of = |object: &[u8]| {
        let (blocks, sections) = parts(object);
        [&(blocks.len() as u32).to_le_bytes()[..3], &sections].concat()
    };
    let named = |name: &str, seed: Vec<u8>| (name.to_owned(), seed);
    match target {
        "log_object" => objects.into_iter().chain([named("chunk", chunk())]).collect(),
        "log_index" => vec![named("segment", tail_of(&objects[0].1)), named("chunk", tail_of(&chunk()))],
        "log_block" => {
            let blocks = batch(41).blocks;
            let seed = |b: &RawBlock| [&[b.count as u8, 0, 0], &b.raw[..]].concat();
            blocks.iter().enumerate().map(|(n, b)| (n.to_string(), seed(b))).collect()
        }
        "sections" => vec![named("segment", parts(&objects[0].1).1)],
        _ => COMPRESSIONS.map(|(name, compression)| named(name, sealed(compression))).into(),
    }
}

/// A sealed block in the order the fuzz target takes it: way of storing, length, payload.
fn sealed(compression: Compression) -> Vec<u8> {
    let sealed = Sealer::new(compression).seal(&Bytes::from(b"again and again, and ".repeat(20)));
    [&sealed.trailer[..5], &sealed.payload].concat()
}
