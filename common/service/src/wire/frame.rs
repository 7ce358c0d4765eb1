//! One record of `application/vnd.isle.frames`.
//!
//! ```text
//! u32 LE  length of the body
//! body:   u8 kind, u64 LE seq, i64 LE time µs, i64 LE expires µs, u32 LE key length, key, value
//! u32 LE  CRC32C of the body
//! ```
//!
//! In requests `expires` is the time to live in µs, and `seq` and `time` are ignored. Trailer and error frames have no
//! key and hold JSON in place of the value.

use bytes::{Buf, Bytes};

/// Bytes of a body before its key.
pub const FIXED_BYTES: usize = 1 + 8 + 8 + 8 + 4;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A row, or a put.
    Put = 1,
    /// A delete.
    Delete = 2,
    /// A key alone: asked for in a multi-get, or answered by a `keys_only` scan.
    Key = 3,
    /// A key that is not there.
    Absent = 4,
    /// The JSON trailer that ends a complete answer.
    Trailer = 5,
    /// The JSON error that ends an incomplete one.
    Error = 6,
    /// A row or a put whose value is too large for a frame: in its place stands its length, u64 little-endian.
    Elsewhere = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Put, Self::Delete, Self::Key, Self::Absent, Self::Trailer, Self::Error, Self::Elsewhere]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// A decoded frame; key and value share the buffer the frame came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Sequence number, 0 where there is none.
    pub seq: u64,
    /// Write time, microseconds since 1970.
    pub time: i64,
    /// Expiry, microseconds since 1970, 0 for none; in requests the time to live.
    pub expires: i64,
    /// The key.
    pub key: Bytes,
    /// The value, or JSON.
    pub value: Bytes,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body is shorter than what every body begins with.
    #[error("its body has {0} bytes, fewer than the {FIXED_BYTES} every body begins with")]
    Short(usize),
    /// The body is longer than this reader takes.
    #[error("its body has {size} bytes; the limit is {limit}")]
    TooLong {
        /// The length it announces.
        size: usize,
        /// The longest that is taken.
        limit: usize,
    },
    /// The body does not match its checksum.
    #[error("its checksum does not match")]
    Checksum,
    /// The kind is none of those known.
    #[error("its kind {0} is unknown")]
    Kind(u8),
    /// The key would end beyond the body.
    #[error("its key of {key} bytes would end beyond its body of {body}")]
    KeyLength {
        /// The key length it announces.
        key: usize,
        /// The body's length.
        body: usize,
    },
}

/// Appends a frame.
pub fn encode(out: &mut Vec<u8>, kind: Kind, seq: u64, time: i64, expires: i64, key: &[u8], value: &[u8]) {
    let length = FIXED_BYTES + key.len() + value.len();
    out.reserve(length + 8);
    // Keys and values are bounded far below 4 GiB before they come here.
    out.extend_from_slice(&(length as u32).to_le_bytes());
    let body = out.len();
    out.push(kind as u8);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&time.to_le_bytes());
    out.extend_from_slice(&expires.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    let crc = crc32c::crc32c(&out[body..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Appends a trailer or error frame.
pub fn encode_json(out: &mut Vec<u8>, kind: Kind, json: &[u8]) {
    encode(out, kind, 0, 0, 0, b"", json);
}

/// Decodes a body against the checksum that follows it.
pub fn decode(mut body: Bytes, crc: u32) -> Result<Frame, FrameError> {
    let length = body.len();
    if length < FIXED_BYTES {
        return Err(FrameError::Short(length));
    }
    if crc32c::crc32c(&body) != crc {
        return Err(FrameError::Checksum);
    }
    let kind = body.get_u8();
    let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
    let (seq, time, expires) = (body.get_u64_le(), body.get_i64_le(), body.get_i64_le());
    let key_length = body.get_u32_le() as usize;
    if key_length > body.len() {
        return Err(FrameError::KeyLength { key: key_length, body: length });
    }
    let key = body.split_to(key_length);
    Ok(Frame { kind, seq, time, expires, key, value: body })
}

impl Frame {
    /// Appends this frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(out, self.kind, self.seq, self.time, self.expires, &self.key, &self.value);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        pub(in crate::wire) fn frames()(
            kind in 1u8..=7, seq in any::<u64>(), time in any::<i64>(), expires in any::<i64>(),
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..400),
        ) -> Frame {
            let kind = Kind::from_byte(kind).unwrap();
            Frame { kind, seq, time, expires, key: key.into(), value: value.into() }
        }
    }

    /// A frame's bytes as (announced length, body, checksum).
    fn parts(bytes: &[u8]) -> (usize, Bytes, u32) {
        let end = bytes.len() - 4;
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let crc = u32::from_le_bytes(bytes[end..].try_into().unwrap());
        (length as usize, Bytes::copy_from_slice(&bytes[4..end]), crc)
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(frame in frames()) {
            let mut out = Vec::new();
            frame.encode(&mut out);
            let (length, body, crc) = parts(&out);
            prop_assert_eq!(length, body.len());
            prop_assert_eq!(decode(body, crc).unwrap(), frame);
        }

        #[test]
        fn a_flipped_bit_is_noticed(frame in frames(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut out = Vec::new();
            frame.encode(&mut out);
            let at = 4 + at.index(out.len() - 4);
            out[at] ^= 1 << bit;
            let (_, body, crc) = parts(&out);
            prop_assert!(decode(body, crc).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let crc = crc32c::crc32c(&bytes);
            let _judged = decode(bytes.into(), crc);
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let mut body = vec![1u8; FIXED_BYTES];
        body[FIXED_BYTES - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = crc32c::crc32c(&body);
        assert!(matches!(decode(body.into(), crc), Err(FrameError::KeyLength { .. })));
        assert_eq!(decode(Bytes::new(), 0), Err(FrameError::Short(0)));
        let mut unknown = vec![0u8; FIXED_BYTES];
        unknown[0] = 8;
        let crc = crc32c::crc32c(&unknown);
        assert_eq!(decode(unknown.into(), crc), Err(FrameError::Kind(8)));
    }
}
