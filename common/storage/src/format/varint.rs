//! Unsigned integers of variable length: seven bits a byte, lowest first, the high bit set on all but the last.
//!
//! Every number has exactly one encoding (no padding with zero groups), so that equal contents are equal bytes and a
//! flipped bit cannot hide in an overlong form.

/// Longest encoding of a `u64`, in bytes.
pub const MAX_LEN: usize = 10;

/// Appends `n`.
#[inline]
pub fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Writes `n` at the start of `out` and returns the length written; `out` must have room for it ([`len`]), or
/// nothing beyond its end is written.
#[inline]
pub fn write(out: &mut [u8], mut n: u64) -> usize {
    let mut at = 0;
    for byte in out.iter_mut() {
        at += 1;
        if n < 0x80 {
            *byte = n as u8;
            break;
        }
        *byte = n as u8 | 0x80;
        n >>= 7;
    }
    at
}

/// Length of `n`'s encoding in bytes.
#[must_use]
#[inline]
pub fn len(n: u64) -> usize {
    (70 - (n | 1).leading_zeros() as usize) / 7
}

/// The number at the start of `bytes` and the length of its encoding; `None` where the bytes end too early, the
/// number does not fit a `u64`, or the encoding is not the shortest.
#[must_use]
#[inline]
pub fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes.first() {
        Some(b) if *b < 0x80 => Some((u64::from(*b), 1)),
        _ => get_long(bytes),
    }
}

fn get_long(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut n = 0u64;
    for (i, b) in bytes.iter().take(MAX_LEN).enumerate() {
        let group = u64::from(b & 0x7f);
        if i == MAX_LEN - 1 && group > 1 {
            return None;
        }
        n |= group << (7 * i);
        if b & 0x80 == 0 {
            return (group != 0 || i == 0).then_some((n, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_every_width_round_trip_in_their_stated_length() {
        let mut numbers = vec![0, 1, u64::MAX];
        for shift in 0..64 {
            numbers.extend([(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1]);
        }
        for n in numbers {
            let mut out = Vec::new();
            put(&mut out, n);
            assert_eq!(out.len(), len(n), "{n}");
            assert_eq!(get(&out), Some((n, out.len())));
            let mut fixed = [0; MAX_LEN];
            assert_eq!((write(&mut fixed, n), &fixed[..out.len()]), (out.len(), out.as_slice()));
            assert_eq!(get(&out[..out.len() - 1]), None, "{n} cut short");
        }
    }

    #[test]
    fn overlong_and_overflowing_encodings_are_refused() {
        assert_eq!(get(&[0x80, 0x00]), None);
        assert_eq!(get(&[0xff, 0x80, 0x00]), None);
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(get(&[0x80; 11]), None);
        assert_eq!(get(&[]), None);
    }
}
