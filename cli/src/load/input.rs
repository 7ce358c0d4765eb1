//! The input of `isle load`: a file or standard input, plain, gzip or zstd (told by its first bytes), cut into pieces
//! of whole lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest line that is accepted: the largest value as base64, a key, and the braces around them.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;

/// Whole lines that travel in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Number of the first line in the input, from 1.
    pub(crate) first_line: u64,
    /// Number of lines, blank ones included.
    pub(crate) lines: u64,
    /// The lines.
    pub(crate) bytes: Vec<u8>,
}

/// The input and how far it has been read.
pub(crate) struct Input {
    reader: Box<dyn BufRead + Send>,
    /// Size of the file in bytes; `None` for standard input.
    pub(crate) total: Option<u64>,
    /// Bytes of the file (compressed, where it is) read so far.
    pub(crate) consumed: Arc<AtomicU64>,
    next_line: u64,
}

impl Input {
    /// Opens `path`, or standard input for `-`.
    ///
    /// # Errors
    /// A sentence naming the file and why it cannot be read.
    pub(crate) fn open(path: &str) -> Result<Self, String> {
        let why = |e: io::Error| format!("{path}: {e}");
        if path == "-" {
            return Self::from_reader(Box::new(io::stdin()), None).map_err(why);
        }
        let file = File::open(Path::new(path)).map_err(why)?;
        let meta = file.metadata().map_err(why)?;
        if meta.is_dir() {
            return Err(format!("{path}: is a directory; give a file or - for standard input"));
        }
        Self::from_reader(Box::new(file), Some(meta.len())).map_err(why)
    }

    fn from_reader(raw: Box<dyn Read + Send>, total: Option<u64>) -> io::Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: raw, count: Arc::clone(&consumed) };
        let mut buffered = BufReader::with_capacity(1 << 20, counted);
        let start = buffered.fill_buf()?;
        let reader: Box<dyn BufRead + Send> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(1 << 20, flate2::bufread::MultiGzDecoder::new(buffered)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Box::new(BufReader::with_capacity(1 << 20, zstd::stream::read::Decoder::with_buffer(buffered)?))
        } else {
            Box::new(buffered)
        };
        Ok(Self { reader, total, consumed, next_line: 1 })
    }

    /// The next piece of at most about `max_bytes` (one line at least) and `max_lines`; `None` at the end.
    ///
    /// # Errors
    /// A sentence naming the line: unreadable, or longer than [`MAX_LINE_BYTES`].
    pub(crate) fn next_piece(&mut self, max_bytes: usize, max_lines: u64) -> Result<Option<Piece>, String> {
        let mut piece =
            Piece { first_line: self.next_line, lines: 0, bytes: Vec::with_capacity(max_bytes + 4096) };
        while piece.bytes.len() < max_bytes && piece.lines < max_lines {
            let line = self.next_line;
            let before = piece.bytes.len();
            let limit = MAX_LINE_BYTES as u64 + 1;
            let read = (&mut self.reader).take(limit).read_until(b'\n', &mut piece.bytes);
            let read = read.map_err(|e| format!("line {line}: cannot be read: {e}"))?;
            if read == 0 {
                break;
            }
            if read as u64 == limit && piece.bytes.last() != Some(&b'\n') {
                piece.bytes.truncate(before);
                return Err(format!("line {line} is longer than {MAX_LINE_BYTES} bytes"));
            }
            if piece.bytes.last() != Some(&b'\n') {
                piece.bytes.push(b'\n');
            }
            piece.lines += 1;
            self.next_line += 1;
        }
        Ok((piece.lines > 0).then_some(piece))
    }

    /// Passes over the first `lines` lines.
    ///
    /// # Errors
    /// As for [`Input::next_piece`].
    pub(crate) fn skip(&mut self, lines: u64) -> Result<(), String> {
        while self.next_line <= lines {
            let left = lines - self.next_line + 1;
            if self.next_piece(1 << 20, left)?.is_none() {
                return Err(format!(
                    "the input has only {} lines, fewer than --skip {lines}",
                    self.next_line - 1
                ));
            }
        }
        Ok(())
    }
}

/// Splits a piece after its first `lines` lines: what is left to send.
pub(crate) fn rest_after(piece: &Piece, lines: u64) -> Option<Piece> {
    let mut at = 0;
    for _ in 0..lines {
        at += piece.bytes[at..].iter().position(|b| *b == b'\n').map_or(piece.bytes.len() - at, |n| n + 1);
    }
    let left = piece.lines.saturating_sub(lines);
    (left > 0 && at < piece.bytes.len()).then(|| Piece {
        first_line: piece.first_line + lines,
        lines: left,
        bytes: piece.bytes[at..].to_vec(),
    })
}

struct Counted {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(mut input: Input) -> Vec<Piece> {
        std::iter::from_fn(|| input.next_piece(8, 100).unwrap()).collect()
    }

    fn of(bytes: Vec<u8>) -> Input {
        Input::from_reader(Box::new(io::Cursor::new(bytes)), None).unwrap()
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_pieces() {
        let text = b"one\ntwo\nthree\n\nfive".to_vec();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        let plain = all(of(text.clone()));
        assert_eq!(plain.iter().map(|p| (p.first_line, p.lines)).collect::<Vec<_>>(), [(1, 2), (3, 3)]);
        assert_eq!(plain[1].bytes, b"three\n\nfive\n");
        assert_eq!(all(of(gz.finish().unwrap())), plain);
        assert_eq!(all(of(zstd::stream::encode_all(&text[..], 1).unwrap())), plain);
    }

    #[test]
    fn a_truncated_gzip_is_an_error_and_not_an_end() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&b"line\n".repeat(10_000)).unwrap();
        let mut bytes = gz.finish().unwrap();
        bytes.truncate(bytes.len() / 2);
        let mut input = of(bytes);
        let mut result = Ok(None);
        for _ in 0..10_000 {
            result = input.next_piece(1 << 10, 1000);
            if !matches!(result, Ok(Some(_))) {
                break;
            }
        }
        assert!(result.unwrap_err().contains("line"));
    }

    #[test]
    fn what_is_left_of_a_piece_starts_at_the_right_line() {
        let piece = Piece { first_line: 10, lines: 3, bytes: b"a\nbb\nccc\n".to_vec() };
        let rest = rest_after(&piece, 2).unwrap();
        assert_eq!((rest.first_line, rest.lines, rest.bytes.as_slice()), (12, 1, &b"ccc\n"[..]));
        assert!(rest_after(&piece, 3).is_none());
    }

    #[test]
    fn skipping_beyond_the_end_is_refused() {
        let mut input = of(b"a\nb\n".to_vec());
        assert!(input.skip(3).unwrap_err().contains("only 2 lines"));
        let mut input = of(b"a\nb\n".to_vec());
        input.skip(1).unwrap();
        assert_eq!(input.next_piece(100, 100).unwrap().unwrap().bytes, b"b\n");
    }
}
