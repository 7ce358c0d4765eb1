//! Tagged sections: metadata that grows without a new format version.
//!
//! A container is a sequence of sections, each tag at most once:
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | tag, little-endian; high bit set: required |
//! | 4 | length of the content, little-endian |
//! | n | content |
//!
//! A reader skips an unknown tag without the high bit, and refuses the object as too new where the bit is set:
//! ignoring that section would make it answer wrongly. The container carries no checksum; what encloses it does.

use super::{FormatError, Reader};

/// The bit of a tag that says: an older reader must refuse what it does not know.
pub const REQUIRED: u16 = 0x8000;

/// Most sections in one container: far above any real one, so that a damaged container cannot cost quadratic work.
pub const MAX_SECTIONS: usize = 256;

/// Writes a container.
#[derive(Debug, Default)]
pub struct SectionWriter {
    out: Vec<u8>,
}

impl SectionWriter {
    /// An empty container.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a section. Each tag at most once.
    pub fn put(&mut self, tag: u16, content: &[u8]) -> &mut Self {
        self.out.extend_from_slice(&tag.to_le_bytes());
        self.out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        self.out.extend_from_slice(content);
        self
    }

    /// The container's bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// A container that has been taken apart.
#[derive(Debug, Clone)]
pub struct Sections<'a> {
    what: &'static str,
    found: Vec<(u16, &'a [u8])>,
}

impl<'a> Sections<'a> {
    /// Takes apart the whole of `bytes`; `known` are the tags this build understands (with their high bit where they
    /// have one).
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where the bytes are no container or a tag stands twice, [`FormatError::TooNew`] where
    /// a required tag is not known.
    pub fn parse(what: &'static str, bytes: &'a [u8], known: &[u16]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(what, bytes);
        let mut found: Vec<(u16, &[u8])> = Vec::new();
        while reader.remaining() > 0 {
            let tag = reader.u16()?;
            let len = reader.u32()?;
            let content = reader.bytes(len as usize)?;
            if found.iter().any(|(t, _)| *t == tag) {
                return Err(reader.damaged(format!("section {tag:#06x} stands twice")));
            }
            if found.len() == MAX_SECTIONS {
                return Err(reader.damaged(format!("more than {MAX_SECTIONS} sections")));
            }
            if tag & REQUIRED != 0 && !known.contains(&tag) {
                return Err(FormatError::too_new(
                    what,
                    format!("it needs section {tag:#06x}, unknown to this build"),
                ));
            }
            found.push((tag, content));
        }
        Ok(Self { what, found })
    }

    /// A section's content, if it is there.
    #[must_use]
    pub fn get(&self, tag: u16) -> Option<&'a [u8]> {
        self.found.iter().find(|(t, _)| *t == tag).map(|(_, content)| *content)
    }

    /// A reader of a section's content, if it is there.
    #[must_use]
    pub fn reader(&self, tag: u16) -> Option<Reader<'a>> {
        self.get(tag).map(|content| Reader::new(self.what, content))
    }

    /// A reader of a section that must be there.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where it is not.
    pub fn need(&self, tag: u16) -> Result<Reader<'a>, FormatError> {
        self.reader(tag)
            .ok_or_else(|| FormatError::damaged(self.what, format!("section {tag:#06x} is missing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(tags: &[u16]) -> Vec<u8> {
        let mut w = SectionWriter::new();
        for t in tags {
            w.put(*t, &t.to_le_bytes());
        }
        w.finish()
    }

    #[test]
    fn unknown_sections_are_skipped_or_refused_by_their_high_bit() {
        let known = [1, REQUIRED | 2];
        let bytes = container(&[1, REQUIRED | 2, 77]);
        let s = Sections::parse("test", &bytes, &known).unwrap();
        assert_eq!(s.get(1), Some(&[1, 0][..]));
        assert_eq!(s.need(REQUIRED | 2).unwrap().u16(), Ok(REQUIRED | 2));
        assert!(s.need(5).is_err());
        let refused = container(&[1, REQUIRED | 77]);
        assert!(matches!(Sections::parse("test", &refused, &known), Err(FormatError::TooNew { .. })));
    }

    #[test]
    fn repeated_tags_and_cut_containers_are_damaged() {
        assert!(Sections::parse("test", &container(&[1, 1]), &[1]).is_err());
        let whole = container(&[1, 2]);
        for cut in 1..whole.len() {
            let whole_sections = cut % 8 == 0;
            assert_eq!(Sections::parse("test", &whole[..cut], &[]).is_ok(), whole_sections, "cut at {cut}");
        }
    }
}
