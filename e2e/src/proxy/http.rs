//! As much of HTTP/1.1 as it takes to know where a request begins and where it ends.

/// Longest head that is looked at; what is longer is carried and not understood.
const MAX_HEAD: usize = 64 << 10;

/// What a refused request is told, as S3 says it.
pub(super) const SLOW_DOWN: &str = concat!(
    "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 84\r\n\r\n",
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code><Message/></Error>",
);

/// Where in the stream of requests the next byte stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Framing {
    /// In a head; what there is of it.
    Head(Vec<u8>),
    /// In a body, with so much to come.
    Body(u64),
    /// Something that is not understood; only the end of the connection ends it.
    Opaque,
}

impl Framing {
    /// At the beginning of a request.
    pub(super) fn new() -> Self {
        Self::Head(Vec::new())
    }

    /// Whether the next byte begins a request.
    pub(super) fn at_boundary(&self) -> bool {
        matches!(self, Self::Head(head) if head.is_empty())
    }

    /// Follows bytes; how many requests end within them.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while !bytes.is_empty() {
            match self {
                Self::Opaque => return ended,
                Self::Body(left) => {
                    let taken = (bytes.len() as u64).min(*left);
                    *left -= taken;
                    bytes = &bytes[taken as usize..];
                    if *left == 0 {
                        ended += 1;
                        *self = Self::new();
                    }
                }
                Self::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let Some(end) = end_of_head(head) else {
                        if head.len() > MAX_HEAD {
                            *self = Self::Opaque;
                        }
                        return ended;
                    };
                    bytes = &bytes[end - before..];
                    *self = match body_len(&head[..end]) {
                        Some(0) => {
                            ended += 1;
                            Self::new()
                        }
                        Some(len) => Self::Body(len),
                        None => Self::Opaque,
                    };
                }
            }
        }
        ended
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// The length of the body that follows a request's head; `None` where the head does not say.
fn body_len(head: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(head);
    let mut len = 0;
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case("content-length") {
            len = value.trim().parse().ok()?;
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_are_told_apart_wherever_the_pieces_end() {
        for piece in 1..=TWO.len() {
            let mut framing = Framing::new();
            let ended: u64 = TWO.chunks(piece).map(|bytes| framing.follow(bytes)).sum();
            assert_eq!((ended, framing.at_boundary()), (2, true), "in pieces of {piece}");
        }
        let mut framing = Framing::new();
        assert_eq!(framing.follow(&TWO[..TWO.len() - 1]), 1);
        assert!(!framing.at_boundary());
    }

    #[test]
    fn what_is_not_understood_is_never_at_a_boundary() {
        let mut framing = Framing::new();
        framing.follow(b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert_eq!(framing, Framing::Opaque);
        let mut framing = Framing::new();
        framing.follow(&vec![b'x'; MAX_HEAD + 1]);
        assert_eq!(framing, Framing::Opaque);
    }

    #[test]
    fn the_refusal_says_its_own_length() {
        let (head, body) = SLOW_DOWN.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
