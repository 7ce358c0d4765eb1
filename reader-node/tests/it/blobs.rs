//! Values in blob files: streamed and in ranges, verified to the last byte, beside everything else.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::blob::CHUNK_BYTES;
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};
use reader_node::{ReadError, ReadOptions, Reader, ReaderSettings, ScanRequest};

pub(crate) fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 13 + n + salt) as u8).collect()
}

/// A database whose values above 100 bytes lie in blob files.
pub(crate) struct Stored {
    pub(crate) e: Embedded,
    pub(crate) scribe: Scribe,
    pub(crate) reader: Reader,
}

impl Stored {
    pub(crate) async fn new() -> Self {
        let e = Embedded::new().await;
        let mut scribe = Scribe::take_over(&e.db).await;
        scribe.blob_threshold = 100;
        let reader = Reader::open(e.process("reader"), ReaderSettings::default()).unwrap();
        reader.ready().await.unwrap();
        Self { e, scribe, reader }
    }

    pub(crate) async fn put(&mut self, key: &str, value: &[u8]) {
        self.scribe.append(&[Entry::put(key, value)]).await;
        self.reader.reached(self.scribe.manifest().version).await.unwrap();
    }

    pub(crate) async fn flush(&mut self) {
        self.scribe.flush().await;
        self.reader.reached(self.scribe.manifest().version).await.unwrap();
    }
}

async fn open(reader: &Reader, key: &str, part: Option<std::ops::Range<u64>>) -> Result<Vec<u8>, ReadError> {
    let plain = ReadOptions::default();
    let answer =
        reader.open_value(key.as_bytes(), &plain, &|row| part.clone().unwrap_or(0..row.value_len)).await?;
    let (_, mut value) = answer.found.expect("the key is there");
    let mut whole = Vec::new();
    while let Some(piece) = value.next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

#[tokio::test]
async fn values_are_read_from_memory_and_from_tables_whole_and_in_part() {
    let mut s = Stored::new().await;
    let long = bytes(9 * 1024 * 1024, 0);
    s.put("long", &long).await;
    s.put("small", b"v").await;
    for flushed in [false, true] {
        if flushed {
            s.flush().await;
        }
        let plain = ReadOptions::default();
        assert!(open(&s.reader, "long", None).await.unwrap() == long);
        assert!(s.reader.get(b"long", &plain).await.unwrap().found.unwrap().value == long);
        assert_eq!(s.reader.head(b"long", &plain).await.unwrap().found.unwrap().value_len, long.len() as u64);
        let chunk = CHUNK_BYTES as usize;
        for (from, to) in
            [(0, 1), (chunk - 1, chunk + 1), (5_000_000, 9_000_000), (long.len() - 1, long.len())]
        {
            let part = open(&s.reader, "long", Some(from as u64..to as u64)).await.unwrap();
            assert!(part == long[from..to], "{from}..{to}");
        }
        assert_eq!(open(&s.reader, "small", Some(0..1)).await.unwrap(), b"v");
    }
}

/// One GET for a value up to the size of a window, besides the table's; a small range fetches little.
#[tokio::test]
async fn a_value_costs_one_request() {
    let mut s = Stored::new().await;
    let value = bytes(3 << 20, 1);
    s.put("k", &value).await;
    s.flush().await;
    assert!(open(&s.reader, "k", None).await.unwrap() == value);
    drop(s.e.bucket.take_history());
    assert!(open(&s.reader, "k", None).await.unwrap() == value);
    assert_eq!(s.e.bucket.count(Op::Get, "blob/*"), 1);
    assert_eq!(s.e.bucket.take_history().len(), 1, "table and metadata are cached");
    open(&s.reader, "k", Some(1_000_000..1_000_010)).await.unwrap();
    assert_eq!(s.e.bucket.take_history()[0].len, CHUNK_BYTES + 4);
}

/// Values up to 8 MiB come with their rows; of larger ones the length does. A page counts their bytes.
#[tokio::test]
async fn scans_and_multi_gets_return_values_and_bound_what_they_hold() {
    let mut s = Stored::new().await;
    let (fits, beyond) = (bytes(8 << 20, 0), bytes((8 << 20) + 1, 0));
    s.put("a", &fits).await;
    s.put("b", &beyond).await;
    s.put("c", b"small").await;
    s.flush().await;
    let keys = ["a", "b", "c", "d"].map(Bytes::from);
    let many = s.reader.mget(&keys, &ReadOptions::default()).await.unwrap().found;
    let mut scan = s.reader.scan(&ScanRequest::default()).await.unwrap();
    for found in &many[..3] {
        let (record, found) = (scan.next().await.unwrap().unwrap(), found.clone().unwrap());
        assert!(record.value == found.value && record.elsewhere == found.elsewhere);
    }
    assert!(many[3].is_none() && scan.next().await.unwrap().is_none());
    assert!(many[0].as_ref().unwrap().value == fits);
    assert_eq!(many[1].as_ref().unwrap().elsewhere, Some(beyond.len() as u64));
    assert_eq!(many[2].as_ref().unwrap().value, "small");
    let page = ScanRequest { max_bytes: Some(1 << 20), ..ScanRequest::default() };
    let mut scan = s.reader.scan(&page).await.unwrap();
    assert!(scan.next().await.unwrap().is_some());
    assert!(scan.next().await.unwrap().is_none(), "the value's bytes end the page");
    assert!(scan.next_page().is_some());
}

/// Damage is an error, never an answer, wherever it lies and however the value is read.
#[tokio::test]
async fn a_damaged_value_is_never_complete() {
    let mut s = Stored::new().await;
    let value = bytes(10 << 20, 0);
    s.put("k", &value).await;
    for window in 1..=3 {
        s.e.bucket.inject(Rule::on(Op::Get).path("blob/*").nth(window), Fault::FlipBit(-100_000));
        assert!(matches!(open(&s.reader, "k", None).await, Err(ReadError::Damaged { .. })), "{window}");
    }
    s.e.bucket.inject(Rule::on(Op::Get).path("blob/*").nth(1), Fault::FlipBit(7));
    assert!(matches!(open(&s.reader, "k", Some(5..6)).await, Err(ReadError::Damaged { .. })));
    s.e.bucket.inject(Rule::on(Op::Get).path("blob/*").nth(1), Fault::Truncate(1000));
    assert!(matches!(open(&s.reader, "k", None).await, Err(ReadError::Damaged { .. })));
    let path = isle_storage::names::blob(s.scribe.manifest().blobs.keys().next().unwrap());
    let bucket: Arc<dyn isle_storage::object::Bucket> = s.e.objects.clone();
    bucket.delete(&path).await.unwrap();
    assert!(matches!(open(&s.reader, "k", None).await, Err(ReadError::ViewExpired { .. })));
}
