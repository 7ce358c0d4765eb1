//! Sealed blocks: the unit in which rows are stored, compressed and checksummed, in tables and in the log alike.
//!
//! | bytes | field |
//! | --- | --- |
//! | n | payload: the raw bytes, or their compressed form |
//! | 1 | how the payload is stored: 0 raw, 1 LZ4 block, 2 zstd frame |
//! | 4 | length of the raw bytes, little-endian |
//! | 4 | CRC32C of everything before, little-endian |
//!
//! The fixed part is a *trailer* so that an uncompressed block is stored by reference: the payload piece is the raw
//! buffer itself and only nine bytes are made anew. Opening such a block slices, it does not copy.
//!
//! # Data that does not compress
//! Compressing costs more than everything else a writer does to a block. So, unless the block before gained, a sample from
//! the block's middle is tried first, and where several blocks in a row gave nothing, most of the following ones are not
//! even sampled.
//!
//! # Hostile input
//! The checksum is verified first. The declared length is held against [`MAX_BLOCK_RAW`], and for LZ4 against what the
//! payload could possibly expand to, before a buffer of that length is made; a payload that yields more or fewer
//! bytes than declared is damaged.

use bytes::Bytes;

use super::codec::{self, Compressor};
use super::{Compression, Crc, FormatError};

/// Most raw bytes in one block: the largest inline value with its key and head fits several times over. A block that
/// declares more is refused unread.
pub const MAX_BLOCK_RAW: usize = 32 * 1024 * 1024;

/// Length of the fixed part after the payload.
pub const TRAILER_LEN: usize = 9;

/// Bytes of a block that are compressed to see whether compressing it is worth while.
const SAMPLE: usize = 4096;

/// Blocks up to this long are compressed whole: sampling would cost as much.
const SAMPLE_FROM: usize = 4 * SAMPLE;

/// A payload is stored compressed where it saves at least one part in this many.
const GAIN: usize = 16;

/// After so many fruitless blocks in a row, only one in [`PROBE_EVERY`] is tried.
const GIVE_UP_AFTER: u32 = 4;

/// How often a block is tried while the data has not been compressing.
const PROBE_EVERY: u32 = 16;

/// LZ4 cannot expand a payload by more than this factor.
const LZ4_MAX_RATIO: usize = 255;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// A sealed block, in two pieces that follow one another.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Raw or compressed bytes.
    pub payload: Bytes,
    /// How, how long, checksum.
    pub trailer: [u8; TRAILER_LEN],
    payload_crc: Crc,
}

impl Sealed {
    /// Stored length in bytes. Saturates above 4 GiB, which no block within [`MAX_BLOCK_RAW`] comes near.
    #[must_use]
    pub fn stored_len(&self) -> u32 {
        u32::try_from(self.payload.len() + TRAILER_LEN).unwrap_or(u32::MAX)
    }

    /// The block's own checksum, as its trailer ends with it.
    #[must_use]
    pub fn crc(&self) -> u32 {
        let [.., a, b, c, d] = self.trailer;
        u32::from_le_bytes([a, b, c, d])
    }

    /// The checksum of an object that went up to `before`, continued by this block, without reading a large payload
    /// again.
    #[must_use]
    pub fn continue_crc(&self, before: Crc) -> Crc {
        before.join(&self.payload, self.payload_crc).then(&self.trailer)
    }

    /// Whether the payload is the raw bytes.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.trailer[0] == RAW
    }

    /// Appends both pieces.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.payload);
        out.extend_from_slice(&self.trailer);
    }

    fn new(payload: Bytes, how: u8, raw_len: usize) -> Self {
        let payload_crc = Crc::of(&payload);
        let [r0, r1, r2, r3] = (raw_len as u32).to_le_bytes();
        let fixed = [how, r0, r1, r2, r3];
        let [c0, c1, c2, c3] = payload_crc.then(&fixed).value().to_le_bytes();
        Self { payload, trailer: [how, r0, r1, r2, r3, c0, c1, c2, c3], payload_crc }
    }
}

/// Seals the blocks of one object, remembering how well they compress.
pub struct Sealer {
    compression: Compression,
    compressor: Compressor,
    /// Whether the newest block that was tried gained.
    gaining: bool,
    fruitless: u32,
    skipped: u32,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("compression", &self.compression)
            .field("fruitless", &self.fruitless)
            .finish()
    }
}

impl Sealer {
    /// A sealer for one object.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            compressor: Compressor::new(compression),
            gaining: false,
            fruitless: 0,
            skipped: 0,
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Seals a block of at most [`MAX_BLOCK_RAW`] bytes. Where compression gains nothing the payload is `raw` itself,
    /// by reference.
    #[must_use]
    pub fn seal(&mut self, raw: &Bytes) -> Sealed {
        debug_assert!(raw.len() <= MAX_BLOCK_RAW, "a block of {} bytes", raw.len());
        let how = self.how();
        match self.shrink(raw) {
            Some(payload) => Sealed::new(Bytes::copy_from_slice(payload), how, raw.len()),
            None => Sealed::new(raw.clone(), RAW, raw.len()),
        }
    }

    /// Seals a block straight onto the end of `out` and returns its stored length.
    pub fn seal_to(&mut self, raw: &[u8], out: &mut Vec<u8>) -> usize {
        debug_assert!(raw.len() <= MAX_BLOCK_RAW, "a block of {} bytes", raw.len());
        let start = out.len();
        let how = self.how();
        let (payload, how) = self.shrink(raw).map_or((raw, RAW), |payload| (payload, how));
        out.extend_from_slice(payload);
        out.push(how);
        out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        let crc = Crc::of(&out[start..]).value();
        out.extend_from_slice(&crc.to_le_bytes());
        out.len() - start
    }

    fn how(&self) -> u8 {
        match self.compression {
            Compression::None => RAW,
            Compression::Lz4 => LZ4,
            Compression::Zstd => ZSTD,
        }
    }

    /// The compressed form, where it is worth having.
    fn shrink(&mut self, raw: &[u8]) -> Option<&[u8]> {
        if self.compression == Compression::None || raw.is_empty() || self.passes_over() {
            return None;
        }
        let promising = self.gaining || self.sample_gains(raw);
        let gained = if promising { self.compressor.compress(raw) } else { None };
        let gained = gained.filter(|c| gains(raw.len(), c.len()));
        self.gaining = gained.is_some();
        self.fruitless = if self.gaining { 0 } else { self.fruitless.saturating_add(1) };
        gained
    }

    fn passes_over(&mut self) -> bool {
        if self.fruitless < GIVE_UP_AFTER {
            return false;
        }
        self.skipped = (self.skipped + 1) % PROBE_EVERY;
        self.skipped != 0
    }

    fn sample_gains(&mut self, raw: &[u8]) -> bool {
        if raw.len() < SAMPLE_FROM {
            return true;
        }
        let middle = (raw.len() - SAMPLE) / 2;
        self.compressor.compress(&raw[middle..middle + SAMPLE]).is_some_and(|c| gains(SAMPLE, c.len()))
    }
}

fn gains(raw: usize, stored: usize) -> bool {
    stored + raw / GAIN < raw
}

/// Opens a sealed block, whose bytes must be exactly `stored`: verifies its checksum and gives back the raw bytes. A
/// block that was not compressed shares the memory of `stored`.
///
/// # Errors
/// [`FormatError::Damaged`] where the checksum or a length does not fit, [`FormatError::TooNew`] where it is stored
/// in a way this build does not know; `what` names the structure.
pub fn open(what: &'static str, stored: &Bytes) -> Result<Bytes, FormatError> {
    let damaged = |why: String| FormatError::damaged(what, why);
    let Some((_, trailer)) = stored.split_last_chunk::<TRAILER_LEN>() else {
        return Err(damaged(format!("{} bytes are no block", stored.len())));
    };
    let [how, r0, r1, r2, r3, c0, c1, c2, c3] = *trailer;
    let covered = stored.len() - 4;
    if Crc::of(&stored[..covered]).value() != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    let payload = stored.slice(..stored.len() - TRAILER_LEN);
    let raw_len = u32::from_le_bytes([r0, r1, r2, r3]) as usize;
    if raw_len > MAX_BLOCK_RAW {
        return Err(damaged(format!("it declares {raw_len} bytes, more than {MAX_BLOCK_RAW}")));
    }
    match how {
        RAW if payload.len() == raw_len => Ok(payload),
        RAW => Err(damaged(format!("{} bytes where {raw_len} were declared", payload.len()))),
        LZ4 => open_lz4(what, &payload, raw_len),
        ZSTD => open_zstd(what, &payload, raw_len),
        other => Err(FormatError::too_new(what, format!("it is stored in way {other}"))),
    }
}

/// Where the sealed block that starts at the first byte of `bytes` ends, found by its trailer alone: the first place
/// whose fixed part is plausible and whose checksum matches everything before it. For tools that have lost the index;
/// `None` where the block itself is damaged. Takes time proportional to the length searched.
#[must_use]
pub fn find_end(bytes: &[u8]) -> Option<usize> {
    let most = bytes.len().min(MAX_BLOCK_RAW + TRAILER_LEN);
    let (mut crc, mut covered) = (Crc::of(&[]), 0);
    (TRAILER_LEN..=most).find(|end| {
        let payload = end - TRAILER_LEN;
        let Some([how, r0, r1, r2, r3, c0, c1, c2, c3]) = bytes[payload..*end].first_chunk().copied() else {
            return false;
        };
        let raw_len = u32::from_le_bytes([r0, r1, r2, r3]) as usize;
        let plausible = match how {
            RAW => raw_len == payload,
            LZ4 | ZSTD => payload < raw_len && raw_len <= MAX_BLOCK_RAW,
            _ => false,
        };
        if !plausible {
            return false;
        }
        crc = crc.then(&bytes[covered..end - 4]);
        covered = end - 4;
        crc.value() == u32::from_le_bytes([c0, c1, c2, c3])
    })
}

/// The sealed blocks that lie one after the other from byte `from` of `object` on, as far as their ends are found.
#[must_use]
pub fn find_all(object: &[u8], from: usize) -> Vec<std::ops::Range<u64>> {
    let mut found = Vec::new();
    let mut at = from;
    while let Some(len) = object.get(at..).filter(|rest| !rest.is_empty()).and_then(find_end) {
        found.push(at as u64..(at + len) as u64);
        at += len;
    }
    found
}

fn open_lz4(what: &'static str, payload: &[u8], raw_len: usize) -> Result<Bytes, FormatError> {
    if raw_len > payload.len().saturating_mul(LZ4_MAX_RATIO) {
        return Err(FormatError::damaged(
            what,
            format!("{} bytes cannot expand to {raw_len}", payload.len()),
        ));
    }
    codec::expand_lz4(payload, raw_len).map(Bytes::from).map_err(|why| FormatError::damaged(what, why))
}

fn open_zstd(what: &'static str, payload: &[u8], raw_len: usize) -> Result<Bytes, FormatError> {
    codec::expand_zstd(payload, raw_len).map(Bytes::from).map_err(|why| FormatError::damaged(what, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    /// Bytes without any structure.
    fn noise(n: usize) -> Bytes {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        let step = |_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        (0..n).map(step).collect::<Vec<u8>>().into()
    }

    fn text(n: usize) -> Bytes {
        b"the same words over and over, and over again; "
            .iter()
            .copied()
            .cycle()
            .take(n)
            .collect::<Vec<u8>>()
            .into()
    }

    fn whole(s: &Sealed) -> Bytes {
        let mut out = Vec::new();
        s.write_to(&mut out);
        out.into()
    }

    #[test]
    fn blocks_of_every_kind_and_size_come_back() {
        for kind in KINDS {
            for n in [0, 1, 100, SAMPLE, SAMPLE_FROM, 100_000] {
                for raw in [noise(n), text(n)] {
                    let sealed = Sealer::new(kind).seal(&raw);
                    let stored = whole(&sealed);
                    assert_eq!(stored.len(), sealed.stored_len() as usize);
                    assert_eq!(open("test", &stored).unwrap(), raw);
                    assert_eq!(sealed.continue_crc(Crc::of(b"before")), Crc::of(b"before").then(&stored));
                    let mut direct = b"before".to_vec();
                    assert_eq!(Sealer::new(kind).seal_to(&raw, &mut direct), stored.len());
                    assert_eq!(direct[6..], stored);
                }
            }
        }
    }

    /// What a sealer keeps from block to block is never seen in the next one, whatever came before it.
    #[test]
    fn one_sealer_seals_blocks_of_every_size_in_any_order() {
        for kind in KINDS {
            let mut sealer = Sealer::new(kind);
            for n in [100_000, 1, 0, SAMPLE_FROM, 70_000, 100, SAMPLE, 300_000, 5] {
                for raw in [text(n), noise(n), text(n / 2)] {
                    let mut out = Vec::new();
                    sealer.seal_to(&raw, &mut out);
                    assert_eq!(open("test", &out.into()).unwrap(), raw, "{n}");
                    assert_eq!(open("test", &whole(&sealer.seal(&raw))).unwrap(), raw, "{n}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_compress_is_stored_by_reference_and_opened_without_a_copy() {
        let raw = noise(100_000);
        let sealed = Sealer::new(Compression::Lz4).seal(&raw);
        assert!(sealed.is_raw());
        assert_eq!(sealed.payload.as_ptr(), raw.as_ptr());
        let stored = whole(&sealed);
        assert_eq!(open("test", &stored).unwrap().as_ptr(), stored.as_ptr());
        assert!(Sealer::new(Compression::Lz4).seal(&text(100_000)).stored_len() < 10_000);
    }

    #[test]
    fn a_sealer_gives_up_on_noise_and_finds_back_when_the_data_changes() {
        let mut sealer = Sealer::new(Compression::Lz4);
        for _ in 0..GIVE_UP_AFTER {
            assert!(sealer.seal(&noise(50_000)).is_raw());
        }
        let tries = (0..PROBE_EVERY).filter(|_| !sealer.seal(&text(50_000)).is_raw()).count();
        assert_eq!(tries, 1, "one block in {PROBE_EVERY} is tried");
        assert!(!sealer.seal(&text(50_000)).is_raw(), "and one success is enough");
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        for kind in KINDS {
            let stored = whole(&Sealer::new(kind).seal(&text(300)));
            for at in 0..stored.len() {
                let mut bad = stored.to_vec();
                bad[at] ^= 1 << (at % 8);
                assert!(open("test", &bad.into()).is_err(), "byte {at}");
                assert!(open("test", &stored.slice(..at)).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn blocks_are_found_without_an_index_up_to_a_damaged_one() {
        let mut object = b"preamble".to_vec();
        let mut ends = Vec::new();
        for (kind, raw) in KINDS.into_iter().zip([text(5000), text(70_000), noise(300)]) {
            Sealer::new(kind).seal_to(&raw, &mut object);
            ends.push(object.len() as u64);
        }
        object.extend_from_slice(&noise(500));
        let found = find_all(&object, 8);
        assert_eq!(found.iter().map(|r| r.end).collect::<Vec<_>>(), ends);
        assert_eq!(found[0].start, 8);
        object[ends[0] as usize + 40] ^= 1;
        assert_eq!(find_all(&object, 8).len(), 1);
    }

    fn forged(payload: &[u8], how: u8, raw_len: u32) -> Bytes {
        let mut out = payload.to_vec();
        out.push(how);
        out.extend_from_slice(&raw_len.to_le_bytes());
        let crc = Crc::of(&out).value();
        out.extend_from_slice(&crc.to_le_bytes());
        out.into()
    }

    /// Decompression beyond the declared size, and hostile lengths with a right checksum.
    #[test]
    fn lengths_that_lie_are_refused() {
        let raw = text(10_000);
        let lz4 = lz4_flex::block::compress(&raw);
        let zstd = zstd::bulk::compress(&raw, 3).unwrap();
        assert!(open("test", &forged(&lz4, LZ4, 10_000)).is_ok());
        assert!(open("test", &forged(&zstd, ZSTD, 10_000)).is_ok());
        for lie in [0, 1, 9_999, 10_001, 1 << 24, u32::MAX] {
            for (payload, how) in [(&lz4[..], LZ4), (&zstd[..], ZSTD), (&raw[..], RAW)] {
                let answer = open("test", &forged(payload, how, lie));
                assert!(matches!(answer, Err(FormatError::Damaged { .. })), "{how} {lie}");
            }
        }
        assert!(matches!(open("test", &forged(b"x", 9, 1)), Err(FormatError::TooNew { .. })));
    }
}
