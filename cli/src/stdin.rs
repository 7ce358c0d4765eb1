//! Standard input as the body of a request, without holding all of it.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use futures::stream;
use isle_service::client::Body;
use tokio::sync::mpsc;

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces read ahead of the one being sent.
const PIECES_AHEAD: usize = 2;

/// An input that is read on a thread of its own, as far as somebody takes what was read.
pub(crate) struct Input(mpsc::Receiver<io::Result<Bytes>>);

/// How an input begins.
pub(crate) enum Beginning {
    /// All of it.
    Whole(Bytes),
    /// So much of it, and there is more.
    More(Bytes),
}

impl Input {
    /// Standard input.
    pub(crate) fn standard() -> Self {
        Self::of(io::stdin())
    }

    fn of(mut source: impl Read + Send + 'static) -> Self {
        let (tx, rx) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            loop {
                let piece = read_piece(&mut source);
                let (end, broken) = (matches!(&piece, Ok(piece) if piece.is_empty()), piece.is_err());
                // Nobody takes it any more where the request has failed.
                if end || tx.blocking_send(piece).is_err() || broken {
                    return;
                }
            }
        });
        Self(rx)
    }

    /// Its first bytes, at least `most` of them where there are so many.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn begin(&mut self, most: usize) -> io::Result<Beginning> {
        let mut first = BytesMut::new();
        while first.len() < most {
            match self.0.recv().await {
                Some(piece) => first.extend_from_slice(&piece?),
                None => return Ok(Beginning::Whole(first.freeze())),
            }
        }
        Ok(Beginning::More(first.freeze()))
    }

    /// A body of what was taken already and all that follows. Where that cannot be read, the request breaks off: a
    /// value is never stored by half.
    pub(crate) fn into_body(self, first: Bytes) -> Body {
        let rest = stream::unfold(self.0, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
        Body::from_stream(stream::StreamExt::chain(stream::once(async { Ok(first) }), rest))
    }
}

/// A full piece, or what is left; empty at the end.
fn read_piece(source: &mut impl Read) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    source.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_input_comes_whole_however_long_it_is() {
        for len in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 3] {
            let bytes: Vec<u8> = (0..len).map(|n| (n / 251 + n) as u8).collect();
            let mut input = Input::of(io::Cursor::new(bytes.clone()));
            match input.begin(PIECE_BYTES).await.unwrap() {
                Beginning::Whole(all) => {
                    assert!(len < PIECE_BYTES, "{len}");
                    assert_eq!(all, bytes);
                }
                Beginning::More(first) => {
                    assert!(len >= PIECE_BYTES, "{len}");
                    let all = input.into_body(first).collect().await.unwrap().to_bytes();
                    assert!(all == bytes, "{len}");
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_input_that_breaks_off_breaks_its_body() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("unplugged"))?;
                into.fill(7);
                Ok(into.len())
            }
        }
        let mut input = Input::of(Broken(8));
        let Beginning::More(first) = input.begin(1).await.unwrap() else { panic!("there is more") };
        let broken = input.into_body(first).collect().await.unwrap_err();
        assert!(format!("{broken:?}").contains("unplugged"), "{broken:?}");
    }
}
