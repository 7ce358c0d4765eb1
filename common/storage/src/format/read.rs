//! A cursor over bytes that cannot run past their end.

use super::{FormatError, varint};

/// Reads numbers and slices from the front of a byte slice. Running out is [`FormatError::Damaged`], named after the
/// structure being read; no method allocates.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of a structure called `what` in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error about this structure.
    #[must_use]
    pub fn damaged(&self, why: impl Into<String>) -> FormatError {
        FormatError::damaged(self.what, why)
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], FormatError> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(self.damaged(format!("{n} bytes were announced and {} remain", self.rest.len())));
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes, as an array.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.damaged(format!("{N} bytes were expected and {} remain", self.rest.len())));
        };
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] at the end.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, signed.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes, little-endian.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn u128(&mut self) -> Result<u128, FormatError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A variable-length number.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where there is none.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let Some((n, len)) = varint::get(self.rest) else {
            return Err(self.damaged("a variable-length number is cut short or not in its shortest form"));
        };
        self.rest = &self.rest[len..];
        Ok(n)
    }

    /// A variable-length number that counts things of at least `each` bytes, all of which must still be ahead: so a
    /// hostile count never makes anybody allocate more than a multiple of what was really received.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where there is no number or it is too large.
    pub fn count(&mut self, each: usize) -> Result<usize, FormatError> {
        let n = self.varint()?;
        match usize::try_from(n) {
            Ok(n) if n.checked_mul(each.max(1)).is_some_and(|need| need <= self.rest.len()) => Ok(n),
            _ => Err(self.damaged(format!("a count of {n} does not fit the {} bytes left", self.rest.len()))),
        }
    }

    /// A variable-length length and that many bytes.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain.
    pub fn prefixed(&mut self) -> Result<&'a [u8], FormatError> {
        let n = self.count(1)?;
        self.bytes(n)
    }

    /// A variable-length length and that many bytes of UTF-8.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where fewer remain or they are not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, FormatError> {
        let bytes = self.prefixed()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    /// Demands that nothing is left.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where bytes remain.
    pub fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged(format!("{} bytes too many", self.rest.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lengths_and_counts_are_refused_before_anything_is_allocated() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 7];
        assert!(Reader::new("test", &huge).prefixed().is_err());
        assert!(Reader::new("test", &huge).count(1).is_err());
        assert!(Reader::new("test", &[2, 0, 0, 0]).count(2).is_err());
        assert_eq!(Reader::new("test", &[2, 0, 0, 0, 0]).count(2), Ok(2));
    }

    #[test]
    fn what_is_read_is_consumed_and_what_is_left_is_noticed() {
        let mut r = Reader::new("test", &[1, 2, 0, 3, b'a', b'b', b'c', 9]);
        assert_eq!((r.u8(), r.u16(), r.text()), (Ok(1), Ok(2), Ok("abc")));
        assert!(r.end().is_err());
        assert_eq!(r.u8(), Ok(9));
        assert!(r.end().is_ok());
        assert!(r.u32().is_err());
    }
}
