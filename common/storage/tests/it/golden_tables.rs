//! Tables of version 1 as they were first written, kept for ever: every later build reads them.
//!
//! A fixture is made once, by running these tests with `ISLE_WRITE_FIXTURES=1` while its file is missing, and never
//! written over. A change that breaks one of them breaks every bucket there is.

use std::path::PathBuf;

use bytes::Bytes;
use isle_storage::format::{Compression, FormatError, REQUIRED, SectionWriter, checksum};
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::row::{BlobPointer, Row, Value};
use isle_storage::sst::{FOOTER_LEN, TableOptions, meta_offset};

use crate::rows::{EPOCH_TIME, Opened, build, sort};

/// Puts, deletes, blob pointers, expiries, empty values, and a key whose versions straddle blocks.
pub(crate) fn golden_rows() -> Vec<Row> {
    let row = |key: String, seq: u64, value: Value| Row {
        key: key.into(),
        seq: SeqNo(seq),
        time: Timestamp(EPOCH_TIME + seq as i64 * 1000),
        expires: seq.is_multiple_of(5).then_some(Timestamp(EPOCH_TIME + 3_600_000_000 + seq as i64)),
        value,
    };
    let value = |i: u64| match i % 7 {
        0 => Value::Delete,
        3 => Value::Blob(BlobPointer {
            blob: format!("7-00000000000000bb-{}", i % 2),
            offset: i * 4096,
            len: 1 << (i % 40),
            crc: i as u32 * 0x0101_0101,
        }),
        5 => Value::Put(Bytes::new()),
        _ => Value::Put(format!("value {i} {}", "·".repeat(i as usize % 13)).into()),
    };
    let mut rows: Vec<Row> =
        (1..=90).map(|i| row(format!("deb/games/package-{:02}", i * 37 % 61), i, value(i))).collect();
    rows.extend((91..=130).map(|i| row("deb/games/often written".to_owned(), i, value(i))));
    rows.push(Row { key: Bytes::from_static(b"\xff\x00\xfe not text"), ..row(String::new(), 131, value(1)) });
    sort(&mut rows);
    rows
}

fn built(compression: Compression) -> Vec<u8> {
    build(&golden_rows(), TableOptions { block_bytes: 512, compression }).body.to_bytes().to_vec()
}

/// A table with one more section, as a later version might write it.
fn with_section(tag: u16) -> Vec<u8> {
    let table = built(Compression::Lz4);
    let offset = meta_offset(&table).unwrap();
    let (data, meta) = table.split_at(offset as usize);
    let (sections, footer) = meta.split_at(meta.len() - FOOTER_LEN);
    let mut more = SectionWriter::new();
    more.put(tag, b"from the future");
    let sections = [&more.finish(), sections].concat();
    [data, &sections, &footer_of(offset, sections.len(), footer.last_chunk().unwrap())].concat()
}

/// As `sst/meta.rs` describes it: offset, length, checksum, magic and version.
fn footer_of(offset: u64, sections: usize, preamble: &[u8; 8]) -> Vec<u8> {
    let extent = [offset.to_le_bytes(), ((sections + FOOTER_LEN) as u64).to_le_bytes()].concat();
    let crc = checksum::crc32c_of([&extent[..], preamble]).to_le_bytes();
    [&extent[..], &crc, preamble].concat()
}

fn of_version_2() -> Vec<u8> {
    let mut table = built(Compression::Lz4);
    let offset = meta_offset(&table).unwrap();
    let sections = table.len() - offset as usize - FOOTER_LEN;
    table.truncate(table.len() - FOOTER_LEN);
    table.extend(footer_of(offset, sections, b"ISST\x02\0\0\0"));
    table
}

fn fixture(name: &str, make: impl Fn() -> Vec<u8>) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name);
    if !path.exists() && std::env::var_os("ISLE_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    let read = std::fs::read(&path);
    read.unwrap_or_else(|e| panic!("{}: {e}; ISLE_WRITE_FIXTURES=1 makes it", path.display())).into()
}

fn open(object: &Bytes) -> Result<Opened, FormatError> {
    Opened::new(object.clone(), meta_offset(object)?)
}

fn assert_golden(table: &Opened) {
    let rows = golden_rows();
    assert_eq!(table.all().unwrap(), rows);
    assert!(table.before(b"\xff\xff").unwrap().iter().eq(rows.iter().rev()));
    assert!(table.meta.has_filter());
    for row in &rows {
        assert_eq!(table.get(&row.key, row.seq).unwrap().as_ref(), Some(row));
    }
    let absent = (0..1000).filter(|i| !table.meta.may_contain(format!("absent {i}").as_bytes())).count();
    assert!(absent > 950, "the filter still filters: {absent}");
    let properties = table.meta.properties();
    assert_eq!((properties.rows, properties.max_seq), (131, SeqNo(131)));
    assert_eq!(properties.min_expires, Some(Timestamp(EPOCH_TIME + 3_600_000_005)));
    assert_eq!(properties.blobs, ["7-00000000000000bb-0", "7-00000000000000bb-1"]);
}

#[test]
fn tables_of_version_1_are_read_whatever_their_compression() {
    for (name, compression) in [
        ("table-none.sst", Compression::None),
        ("table-lz4.sst", Compression::Lz4),
        ("table-zstd.sst", Compression::Zstd),
    ] {
        let object = fixture(name, || built(compression));
        assert_golden(&open(&object).unwrap_or_else(|e| panic!("{name}: {e}")));
    }
}

#[test]
fn a_section_an_older_reader_may_skip_is_skipped() {
    assert_golden(&open(&fixture("table-optional-section.sst", || with_section(0x0777))).unwrap());
}

#[test]
fn a_section_an_older_reader_must_know_and_a_newer_version_are_refused_as_too_new() {
    for (name, make) in [
        ("table-required-section.sst", (|| with_section(REQUIRED | 0x0777)) as fn() -> Vec<u8>),
        ("table-version-2.sst", of_version_2),
    ] {
        let refused = open(&fixture(name, make)).map(|_| ());
        assert!(matches!(refused, Err(FormatError::TooNew { .. })), "{name}: {refused:?}");
    }
}
