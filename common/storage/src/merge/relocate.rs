//! Values out of blob files that are given up: which rows get another pointer, and where each value will lie.
//!
//! ```text
//!   old file  [ A │ x │ B │ x │ x │ C ]         rows kept by the rewrite, in key order:  C  A  B
//!   new file  [ C │ A │ B ]                     their places there follow from their lengths alone
//! ```
//! A pointer says how long its value is, and what a value takes in a file follows from its length. So the new place of a
//! value is known when its row is written, before a byte of the value is read: rows and values go their ways side by side,
//! in one pass over the rows, and whoever copies the values, in the order of [`Relocation::take_moves`], finds them in
//! exactly these places. Nothing of this has to be gathered, however many values there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::blob::{FIRST, stored_len};
use crate::row::{BlobId, BlobPointer, BlobPointerRef, RowRef, ValueRef};

/// A value that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Where it lies.
    pub from: BlobPointer,
    /// The new file.
    pub to: BlobId,
    /// Where it will lie there.
    pub at: u64,
}

/// Gives rows that point into certain files pointers into new ones.
///
/// ```
/// use isle_storage::ids::{SeqNo, Timestamp};
/// use isle_storage::merge::Relocation;
/// use isle_storage::row::{BlobPointerRef, RowRef, ValueRef};
///
/// let files = std::sync::Arc::new(["old-1".to_owned()].into());
/// let mut relocation = Relocation::new(files, "job", 1 << 20, 1 << 20);
/// let value = |blob, offset| ValueRef::Blob(BlobPointerRef { blob, offset, len: 1000, crc: 7 });
/// let row = |value| RowRef { key: b"k", seq: SeqNo(1), time: Timestamp(0), expires: None, value };
/// assert_eq!(relocation.place(row(value("old-1", 5000))).value, value("job-0", 8));
/// assert_eq!(relocation.place(row(value("old-2", 8))).value, value("old-2", 8));
/// assert_eq!(relocation.place(row(value("old-1", 9000))).value, value("job-0", 1012));
/// assert_eq!(relocation.take_moves().len(), 2);
/// ```
#[derive(Debug, Clone)]
pub struct Relocation {
    files: Arc<BTreeSet<BlobId>>,
    owner: String,
    file_bytes: u64,
    /// How much more may move.
    left: u64,
    /// The number of the next file.
    next: u64,
    /// The file being laid out, and where its next value begins.
    file: BlobId,
    end: u64,
    moves: Vec<Move>,
}

impl Relocation {
    /// Moves values out of `files` into files named `<owner>-<n>`, each of them closed at about `file_bytes`. After
    /// `most_bytes` of values the rest stays where it is: a merge that dies begins anew.
    #[must_use]
    pub fn new(files: Arc<BTreeSet<BlobId>>, owner: &str, file_bytes: u64, most_bytes: u64) -> Self {
        Self {
            files,
            owner: owner.to_owned(),
            file_bytes,
            left: most_bytes,
            next: 0,
            file: BlobId::new(),
            end: u64::MAX,
            moves: Vec::new(),
        }
    }

    /// The row to write for `row`, which is kept: itself, or with another pointer.
    pub fn place<'a>(&'a mut self, row: RowRef<'a>) -> RowRef<'a> {
        let ValueRef::Blob(p) = row.value else { return row };
        if self.left == 0 || !self.files.contains(p.blob) {
            return row;
        }
        let (len, at) = (stored_len(p.len), self.begin());
        self.left = self.left.saturating_sub(len.max(1));
        self.end = at.saturating_add(len);
        self.moves.push(Move { from: p.to_owned(), to: self.file.clone(), at });
        let value = ValueRef::Blob(BlobPointerRef { blob: &self.file, offset: at, ..p });
        RowRef { value, ..row }
    }

    /// What has been moved since this was asked last, in the order in which it must be copied.
    pub fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    /// Where the next value begins, in the file it goes into.
    fn begin(&mut self) -> u64 {
        if self.end >= self.file_bytes.max(FIRST + 1) {
            self.file = format!("{}-{}", self.owner, self.next);
            self.next += 1;
            self.end = FIRST;
        }
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::{BlobDirectory, BlobEncoder};
    use crate::ids::{SeqNo, Timestamp};

    fn moves(lens: &[u64], file_bytes: u64, most_bytes: u64) -> Vec<Move> {
        let files = Arc::new(BTreeSet::from(["old".to_owned()]));
        let mut relocation = Relocation::new(files, "job", file_bytes, most_bytes);
        for (i, len) in lens.iter().enumerate() {
            let p = BlobPointerRef { blob: "old", offset: 8 + i as u64 * 1_000_000, len: *len, crc: 7 };
            let value = ValueRef::Blob(p);
            let row = RowRef { key: b"k", seq: SeqNo(1), time: Timestamp(0), expires: None, value };
            let placed = relocation.place(row);
            let ValueRef::Blob(q) = placed.value else { panic!("{placed:?}") };
            assert_eq!((q.len, q.crc), (*len, 7));
        }
        relocation.take_moves()
    }

    /// The places that are given out are those where the encoder puts the values.
    #[test]
    fn values_come_to_lie_where_their_rows_say() {
        let lens = [100, 0, 70_000, 65_536, 1, 0, 131_073];
        let moves = moves(&lens, u64::MAX, u64::MAX);
        let (mut file, mut encoder) = (Vec::new(), BlobEncoder::new());
        for m in &moves {
            encoder.write(&vec![3; m.from.len as usize], &mut file);
            assert_eq!(encoder.end_value(&mut file).0, m.at);
        }
        encoder.finish(&mut file);
        let directory = BlobDirectory::of(&file.into()).unwrap();
        let there: Vec<u64> = directory.values().iter().map(|v| v.offset).collect();
        assert_eq!(there, moves.iter().map(|m| m.at).collect::<Vec<_>>());
    }

    #[test]
    fn files_are_closed_at_their_size_and_the_rest_stays() {
        let named = |moves: &[Move]| moves.iter().map(|m| (m.to.clone(), m.at)).collect::<Vec<_>>();
        let place = |file: &str, at| (file.to_owned(), at);
        assert_eq!(
            named(&moves(&[100, 100, 100, 5000, 1], 200, u64::MAX)),
            [
                place("job-0", 8),
                place("job-0", 112),
                place("job-1", 8),
                place("job-1", 112),
                place("job-2", 8)
            ]
        );
        assert_eq!(moves(&[100, 100, 100], u64::MAX, 150).len(), 2);
        assert_eq!(moves(&[100, 100], u64::MAX, 0).len(), 0);
        // However small files are to be, each holds a value.
        assert_eq!(named(&moves(&[9, 9], 0, u64::MAX)), [place("job-0", 8), place("job-1", 8)]);
    }
}
