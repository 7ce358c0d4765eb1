//! What must hold for any bytes that claim to be part of a table: they are refused, or everything the type promises
//! is true of them. Never a panic, never an allocation out of proportion.
//!
//! The checksums are made right first: what is tested is what stands behind them.

use isle_storage::format::{Compression, REQUIRED, Sealer, SectionWriter, checksum};
use isle_storage::ids::SeqNo;
use isle_storage::sst::{Block, BlockCursor, FOOTER_LEN, LookupRef, TableMeta, meta_offset};

/// Keys tried against metadata of any kind.
const PROBES: [&[u8]; 5] = [b"", b"a", b"deb/games/", b"m\0", &[0xff; 40]];

/// Any bytes as the rows of a sealed block.
pub fn block(data: &[u8]) {
    let _ = Block::decode(&data.to_vec().into());
    let mut sealed = Vec::new();
    Sealer::new(Compression::None).seal_to(data, &mut sealed);
    let Ok(block) = Block::decode(&sealed.into()) else { return };
    let forward = walk(&block, BlockCursor::first, BlockCursor::next);
    let mut backward = walk(&block, BlockCursor::last, BlockCursor::prev);
    backward.reverse();
    assert_eq!(forward.len(), block.len());
    assert_eq!(forward, backward);
    let mut cursor = block.cursor();
    cursor.first();
    let mut before: Option<(Vec<u8>, SeqNo)> = None;
    while let Some(row) = cursor.row() {
        let ascends =
            |(key, seq): &(Vec<u8>, SeqNo)| key[..] < *row.key || (key == row.key && *seq > row.seq);
        assert!(before.as_ref().is_none_or(ascends));
        before = Some((row.key.to_vec(), row.seq));
        assert_eq!(block.get_ref(row.key, row.seq), LookupRef::Found(row));
        let mut sought = block.cursor();
        sought.seek(row.key);
        assert!(sought.key() == Some(row.key) && sought.seq() >= Some(row.seq));
        sought.seek_before(row.key);
        assert!(sought.key().is_none_or(|key| key < row.key));
        cursor.next();
    }
}

/// Number and key length of every row from where `start` puts the cursor.
fn walk(block: &Block, start: fn(&mut BlockCursor), step: fn(&mut BlockCursor)) -> Vec<(SeqNo, usize)> {
    let mut cursor = block.cursor();
    assert!(cursor.row().is_none());
    start(&mut cursor);
    let mut seen = Vec::new();
    while let Some(row) = cursor.row() {
        seen.push((row.seq, row.key.len()));
        step(&mut cursor);
    }
    step(&mut cursor);
    assert!(cursor.row().is_none(), "off stays off");
    seen
}

/// Any bytes as filter, index and properties of a table: a byte of flags, the length of the data blocks, the lengths
/// of filter and index, then the three.
pub fn table_meta(data: &[u8]) {
    let _ = TableMeta::decode(data.to_vec().into(), 0);
    let _ = meta_offset(data);
    if let Some((meta, data_len)) = joined(data) {
        check_meta(&meta, data_len);
    }
}

/// The metadata that `data` describes, where it is accepted, and the length of the data blocks it speaks of.
pub fn joined(data: &[u8]) -> Option<(TableMeta, u64)> {
    let ([flags, d0, d1, d2, f0, f1, i0, i1], parts) = data.split_first_chunk::<8>()?;
    let data_len = u64::from(u32::from_le_bytes([*d0, *d1, *d2, 0]));
    let cut = |part: &'_ [u8], lo, hi| usize::from(u16::from_le_bytes([lo, hi])).min(part.len());
    let (filter, rest) = parts.split_at(cut(parts, *f0, *f1));
    let (index, properties) = rest.split_at(cut(rest, *i0, *i1));
    let mut sections = SectionWriter::new();
    for (tag, content, is_there) in [
        (1, filter, flags & 1 == 0),
        (REQUIRED | 2, index, flags & 2 == 0),
        (REQUIRED | 3, properties, flags & 4 == 0),
        (99, filter, flags & 8 != 0),
    ] {
        if is_there {
            let crc = checksum::crc32c_of([&u16::to_le_bytes(tag)[..], content]);
            sections.put(tag, &[content, &crc.to_le_bytes()].concat());
        }
    }
    let tail = with_footer(sections.finish(), data_len);
    assert_eq!(meta_offset(&tail), Ok(data_len));
    TableMeta::decode(tail.into(), data_len).ok().map(|meta| (meta, data_len))
}

fn with_footer(mut tail: Vec<u8>, offset: u64) -> Vec<u8> {
    let len = (tail.len() + FOOTER_LEN) as u64;
    let extent = [offset.to_le_bytes(), len.to_le_bytes()].concat();
    let preamble = b"ISST\x01\0\0\0";
    tail.extend_from_slice(&extent);
    tail.extend_from_slice(&checksum::crc32c_of([&extent[..], preamble]).to_le_bytes());
    tail.extend_from_slice(preamble);
    tail
}

/// The blocks tile the data, and every answer about a key names one of them.
fn check_meta(meta: &TableMeta, data_len: u64) {
    let blocks = meta.block_count();
    let mut end = 0;
    for i in 0..blocks {
        let range = meta.block_range(i);
        assert!(range.start == end && range.end > end);
        end = range.end;
    }
    assert_eq!(end, data_len);
    let bounds = [meta.properties().smallest.as_slice(), meta.properties().largest.as_slice()];
    for key in PROBES.iter().copied().chain(bounds) {
        assert!(!meta.key_goes_on(blocks) && (meta.may_contain(key) || meta.has_filter()));
        let at = meta.seek(key);
        assert!(at <= blocks && meta.seek_before(key).is_none_or(|before| before < blocks && before <= at));
    }
    assert!(meta.memory() > 0);
}
