//! The values a merge moves: copied into new blob files beside the merge, in the order in which its rows are written.
//!
//! ```text
//!   engine ─▶ moves ─▶ windows ─▶ fetched ahead, each chunk verified ─▶ encoder ─▶ parts of the new file
//!            (in order)           (bounded, in order)                    the value's checksum is the pointer's
//! ```
//! Rows that point at a value's new place are written before the value is there; nobody names them before it is
//! ([`Values::durable`]). A value is never in memory whole: it goes through in windows, and out in parts.
//!
//! **A value that cannot be read** ends the merge, and nothing has happened: the old file keeps every pointer. The error
//! names the file, so that the next merge can leave it alone ([`JobError::UnreadableValue`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use isle_storage::blob::{BlobEncoder, CHUNK_BYTES, ValueReader};
use isle_storage::database::Database;
use isle_storage::merge::Move;
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::{StoreErrorKind, Upload};
use isle_storage::row::{BlobId, BlobPointer};
use isle_storage::sabotage::{Rule, broken};
use isle_storage::values::{self, ValueError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Resources;
use crate::error::JobError;

/// Bytes of a value that one request fetches.
const WINDOW: u64 = 16 * CHUNK_BYTES;

/// Windows of one merge that are on their way, or wait for their turn.
const WINDOWS_AHEAD: usize = 8;

/// Turns of the engine whose moves wait; it waits when there are more.
const TURNS_AHEAD: usize = 1;

/// Nobody is told: whoever gives up says why himself.
const GIVEN_UP: JobError = JobError::Stopped("the merge was given up");

/// Values on their way into new files.
#[derive(Debug)]
pub(super) struct Values<'a> {
    db: &'a Database,
    resources: &'a Resources,
    copying: Option<Copying>,
    /// Every file that was begun.
    pub(super) names: Vec<ObjectPath>,
}

#[derive(Debug)]
struct Copying {
    moves: mpsc::Sender<Vec<Move>>,
    /// Cancelled when the files are to be taken back.
    given_up: CancellationToken,
    files: AbortOnDropHandle<Result<BTreeMap<BlobId, u64>, JobError>>,
}

impl<'a> Values<'a> {
    pub(super) fn new(db: &'a Database, resources: &'a Resources) -> Self {
        Self { db, resources, copying: None, names: Vec::new() }
    }

    /// Takes what the engine has moved; waits while much is still to be copied.
    pub(super) async fn take(&mut self, moves: Vec<Move>) -> Result<(), JobError> {
        for m in &moves {
            let path = names::blob(&m.to);
            if self.names.last() != Some(&path) {
                self.names.push(path);
            }
        }
        if moves.is_empty() || broken(Rule::ValuesBeforePointers) {
            return Ok(());
        }
        let copying = self.copying.get_or_insert_with(|| {
            let (tx, moves) = mpsc::channel(TURNS_AHEAD);
            let given_up = CancellationToken::new();
            let files = copy(self.db.clone(), self.resources.clone(), moves, given_up.clone());
            Copying { moves: tx, given_up, files: AbortOnDropHandle::new(tokio::spawn(files)) }
        });
        let sent = copying.moves.send(moves).await;
        if sent.is_ok() {
            return Ok(());
        }
        // The copying has ended early: it says why.
        self.durable().await.map(drop)
    }

    /// Every value is where its row says, durably: the new files, with their lengths.
    pub(super) async fn durable(&mut self) -> Result<BTreeMap<BlobId, u64>, JobError> {
        if broken(Rule::ValuesBeforePointers) {
            let stems =
                self.names.iter().filter_map(|p| p.as_str().rsplit('/').next()?.strip_suffix(".blob"));
            return Ok(stems.map(|name| (name.to_owned(), 1)).collect());
        }
        let Some(Copying { moves, files, .. }) = self.copying.take() else { return Ok(BTreeMap::new()) };
        drop(moves);
        files.await.map_err(|e| JobError::Internal(e.to_string()))?
    }

    /// Nobody will name what was made.
    pub(super) async fn take_back(&mut self) {
        if let Some(Copying { files, given_up, .. }) = self.copying.take() {
            given_up.cancel();
            let _failed = files.await;
        }
        super::take_back(self.db, &self.names).await;
    }
}

/// A piece of a value, at most a window long.
struct Piece {
    of: Arc<Move>,
    at: Range<u64>,
}

async fn copy(
    db: Database,
    resources: Resources,
    moves: mpsc::Receiver<Vec<Move>>,
    given_up: CancellationToken,
) -> Result<BTreeMap<BlobId, u64>, JobError> {
    let mut open = None;
    let copied = copy_into(&mut open, &db, &resources, moves, given_up).await;
    if let Some(File { upload, .. }) = open {
        upload.abort().await;
    }
    copied
}

/// Leaves `open` what is not finished.
async fn copy_into(
    open: &mut Option<File>,
    db: &Database,
    resources: &Resources,
    moves: mpsc::Receiver<Vec<Move>>,
    given_up: CancellationToken,
) -> Result<BTreeMap<BlobId, u64>, JobError> {
    let turns =
        stream::unfold(moves, |mut moves| async move { moves.recv().await.map(|turn| (turn, moves)) });
    let pieces = turns.flat_map(|turn| stream::iter(turn).flat_map(|m| stream::iter(pieces(m))));
    let fetched = pieces.map(|piece| fetch(db, resources, piece)).buffered(WINDOWS_AHEAD);
    futures::pin_mut!(fetched);
    let mut files = BTreeMap::new();
    loop {
        let piece = tokio::select! {
            biased;
            () = given_up.cancelled() => return Err(GIVEN_UP),
            piece = fetched.next() => piece,
        };
        let Some(piece) = piece else { break };
        let (Piece { of, at }, bytes) = piece?;
        if open.as_ref().is_some_and(|file| file.name != of.to)
            && let Some(file) = open.take()
        {
            file.finish(&mut files, &given_up).await?;
        }
        let file = match &mut *open {
            Some(file) => file,
            none => none.insert(File::begin(db, resources, &of.to).await),
        };
        file.write(&bytes).await?;
        if at.end == of.from.len {
            file.end_value(&of).await?;
        }
    }
    if let Some(file) = open.take() {
        file.finish(&mut files, &given_up).await?;
    }
    Ok(files)
}

/// The pieces of a value, in order; an empty value has one, which is empty.
fn pieces(of: Move) -> impl Iterator<Item = Piece> {
    let (len, of) = (of.from.len, Arc::new(of));
    let starts = std::iter::once(0).chain((WINDOW..len).step_by(WINDOW as usize));
    starts.map(move |start| Piece { of: Arc::clone(&of), at: start..len.min(start + WINDOW) })
}

async fn fetch(db: &Database, resources: &Resources, piece: Piece) -> Result<(Piece, Vec<Bytes>), JobError> {
    let mut reader = ValueReader::new(&piece.of.from, piece.at.clone(), WINDOW);
    resources.reads.take(reader.next_len()).await;
    let mut bytes = Vec::new();
    while let Some(window) =
        values::next_window(&*db.bucket, &mut reader).await.map_err(|e| unreadable(&piece, e))?
    {
        bytes.extend(window);
    }
    Ok((piece, bytes))
}

fn unreadable(piece: &Piece, error: ValueError) -> JobError {
    match error {
        ValueError::Store(e) if !matches!(e.kind, StoreErrorKind::NotFound | StoreErrorKind::Permanent) => {
            JobError::Store(e)
        }
        error => JobError::UnreadableValue { blob: piece.of.from.blob.clone(), why: error.to_string() },
    }
}

/// A new file on its way into the bucket.
struct File {
    name: BlobId,
    upload: Upload,
    encoder: BlobEncoder,
    encoded: Vec<u8>,
    resources: Resources,
}

impl File {
    async fn begin(db: &Database, resources: &Resources, name: &BlobId) -> Self {
        let upload = Upload::begin(&db.bucket, names::blob(name), &resources.values, None).await;
        let (name, resources) = (name.clone(), resources.clone());
        Self { name, upload, encoder: BlobEncoder::new(), encoded: Vec::new(), resources }
    }

    async fn write(&mut self, bytes: &[Bytes]) -> Result<(), JobError> {
        for piece in bytes {
            self.encoder.write(piece, &mut self.encoded);
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Ends a value, which must lie where its row says and be what its pointer said.
    async fn end_value(&mut self, of: &Move) -> Result<(), JobError> {
        let (at, len, crc) = self.encoder.end_value(&mut self.encoded);
        let BlobPointer { blob, offset, .. } = &of.from;
        if crc != of.from.crc {
            let why = format!("{}: the value at {offset} does not match its checksum", names::blob(blob));
            return Err(JobError::UnreadableValue { blob: blob.clone(), why });
        }
        if (at, len) != (of.at, of.from.len) {
            let why = format!("a value of {len} bytes lies at {at} of {}, its row says {}", self.name, of.at);
            return Err(JobError::Internal(why));
        }
        self.hand_over().await
    }

    async fn hand_over(&mut self) -> Result<(), JobError> {
        self.resources.writes.take(self.encoded.len() as u64).await;
        let written = self.upload.write(&self.encoded).await;
        self.encoded.clear();
        written.map_err(JobError::from)
    }

    async fn finish(
        mut self,
        files: &mut BTreeMap<BlobId, u64>,
        given_up: &CancellationToken,
    ) -> Result<(), JobError> {
        std::mem::take(&mut self.encoder).finish(&mut self.encoded);
        self.hand_over().await?;
        let Self { name, upload, .. } = self;
        let len = upload.finish_unless(given_up.cancelled()).await?.ok_or(GIVEN_UP)?;
        files.insert(name, len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_into_windows_and_an_empty_one_is_one_piece() {
        let of = |len| {
            let from = BlobPointer { blob: "b".to_owned(), offset: 8, len, crc: 0 };
            let all = pieces(Move { from, to: "n".to_owned(), at: 8 });
            all.map(|p| (p.at.start, p.at.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(0, 0)]);
        assert_eq!(of(1), [(0, 1)]);
        assert_eq!(of(WINDOW), [(0, WINDOW)]);
        assert_eq!(of(2 * WINDOW + 5), [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 2 * WINDOW + 5)]);
    }
}
