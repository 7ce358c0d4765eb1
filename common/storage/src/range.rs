//! Ranges of keys: what a scan reads, and what one part of a merge rewrites.

use bytes::Bytes;

use crate::row;

/// A half-open range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// The first key inside, if it exists; empty before every key.
    pub start: Bytes,
    /// The first key beyond; `None`: no end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Every key that starts with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: Bytes::copy_from_slice(prefix), end: row::prefix_end(prefix).map(Bytes::from) }
    }

    /// Whether no key can lie inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` lies inside.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        self.start[..] <= *key && self.end.as_ref().is_none_or(|end| *key < end[..])
    }

    /// What is left of the range after `last` was delivered.
    #[must_use]
    pub fn after(mut self, last: &[u8], reverse: bool) -> Self {
        if reverse {
            let end = Bytes::copy_from_slice(last);
            self.end = Some(self.end.map_or_else(|| end.clone(), |e| e.min(end.clone())));
        } else {
            self.start = self.start.max(row::successor(last).into());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    #[test]
    fn a_range_continues_after_the_last_key_without_skipping_its_extensions() {
        let range = KeyRange::prefix(b"a").after(b"ab", false);
        assert_eq!(range.start, Bytes::from_static(b"ab\0"));
        let range = KeyRange::prefix(b"a").after(b"ab", true);
        assert_eq!(range.end, Some(Bytes::from_static(b"ab")));
        assert_eq!(KeyRange::prefix(b"\xff\xff").end, None);
    }

    #[test]
    fn a_page_never_widens_the_range() {
        assert_eq!(range("c", "d").after(b"a", false).start, Bytes::from_static(b"c"));
        assert_eq!(range("c", "d").after(b"x", true).end, Some(Bytes::from_static(b"d")));
    }

    #[test]
    fn the_end_lies_outside() {
        let r = range("c", "f");
        assert_eq!([&b"b"[..], b"c", b"ezz", b"f"].map(|key| r.holds(key)), [false, true, true, false]);
        assert!(range("c", "c").is_empty() && !r.is_empty() && !KeyRange::all().is_empty());
    }
}
