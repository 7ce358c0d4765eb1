//! A scan of one manifest: the rows that are visible at one number and one instant, in key order, read once and
//! forgotten. For whoever reads everything: no cache, no pages, forward only.
//!
//! ```text
//!   unflushed log, sorted ─┐
//!   lane ──stored blocks───┼─▶ engine: open ─▶ merge ─▶ newest at or below the number, not expired ─▶ batches
//!   lane ──stored blocks───┘   in turns, off the async threads
//! ```
//! **Lanes, not runs.** A merge needs each of its sources sorted, no more. So tables are laid into as few lanes as their
//! keys allow ([`lanes`]), whatever run they are of: as many as overlap at one key. Of a lane one table is open. A year
//! of events in two thousand slices of time, which share no key, is one lane.
//!
//! **Memory.** The windows of all lanes share one budget ([`ScanBounds::read_bytes`]); a window holds at least one block.
//! Of an open table only the places of its blocks are kept. The log that is not in tables yet is held as a whole, within a
//! budget of its own; where there is more, the scan is refused: the next flush makes room.
//!
//! Which objects stand meanwhile is the caller's business. One that is gone ends the scan ([`ScanError::Gone`]); where
//! a snapshot holds the rows, they are in other objects now, and a newer manifest shows the same rows at that snapshot.

mod engine;
mod lane;
mod lanes;
mod unflushed;

use std::sync::Arc;

use crate::database::Database;
use crate::environment::Offload;
use crate::format::FormatError;
use crate::manifest::{KeyRange, Manifest};
use crate::merge::Visibility;
use crate::names::ObjectPath;
use crate::object::StoreError;
use crate::row::Row;

use self::engine::{Engine, Turn};
use self::lane::{Lane, Reading};

/// The longest window; more saves no request worth mentioning.
const MOST_WINDOW: u64 = 4 << 20;

/// What one scan may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanBounds {
    /// Bytes of blocks read ahead, over all lanes.
    pub read_bytes: u64,
    /// Bytes of log records not in tables yet, before compression.
    pub log_bytes: u64,
}

/// Why a scan has ended before its end. What it delivered is right, and not everything.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScanError {
    /// An object that the manifest names is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// An object is not what it should be.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object.
        object: String,
        /// What contradicts what.
        why: String,
    },
    /// The store failed.
    #[error("{0}")]
    Store(String),
    /// More of the log is not in tables yet than the scan may hold.
    #[error("{bytes} bytes of log are not in tables yet, and a scan holds at most {limit}")]
    TooMuchLog {
        /// What there is.
        bytes: u64,
        /// [`ScanBounds::log_bytes`].
        limit: u64,
    },
    /// The scan was interrupted and cannot go on.
    #[error("the scan was cut off: {0}")]
    CutOff(String),
}

impl ScanError {
    fn damaged(path: &ObjectPath, error: FormatError) -> Self {
        let why = match error {
            FormatError::Damaged { why, .. } => why,
            other @ FormatError::TooNew { .. } => other.to_string(),
        };
        Self::Damaged { object: path.to_string(), why }
    }
}

impl From<StoreError> for ScanError {
    fn from(e: StoreError) -> Self {
        if e.is_not_found() { Self::Gone(e.path) } else { Self::Store(e.to_string()) }
    }
}

/// A scan under way.
#[derive(Debug)]
pub struct Scan {
    offload: Offload,
    lanes: Vec<Lane>,
    /// Absent while a turn is under way, after an error, and at the end.
    engine: Option<Engine>,
    over: bool,
}

impl Scan {
    /// Begins to read the keys of `range` as `manifest` holds them, seen as `at` says.
    ///
    /// # Errors
    /// [`ScanError`].
    pub async fn open(
        db: &Database,
        manifest: &Manifest,
        range: &KeyRange,
        at: Visibility,
        bounds: ScanBounds,
    ) -> Result<Self, ScanError> {
        let rows = unflushed::rows(db, manifest, range, at.max_seq, bounds.log_bytes).await?;
        let tables = manifest.tables().filter(|t| t.min_seq <= at.max_seq && range.meets(t));
        let lanes = lanes::lay(tables);
        let window = (bounds.read_bytes / (lane::WINDOWS * lanes.len().max(1) as u64)).clamp(1, MOST_WINDOW);
        let reading = Arc::new(Reading::new(db, range, window));
        let lanes: Vec<Lane> = lanes.into_iter().map(|tables| Lane::open(&reading, tables)).collect();
        let batch = bounds.read_bytes.min(BATCH_BYTES);
        let engine = Some(Engine::new(lanes.len(), rows, range, at, batch));
        Ok(Self { offload: db.env.offload, lanes, engine, over: false })
    }

    /// The next rows in key order, at least one, about [`BATCH_BYTES`] of them; `None` at the end. No row is a delete; a
    /// value in a blob file stays where it is, and counts as its bytes.
    ///
    /// # Errors
    /// [`ScanError`]; the scan is over. So it is where an earlier call was dropped before its answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, ScanError> {
        if self.over {
            return Ok(None);
        }
        loop {
            let Some(mut engine) = self.engine.take() else {
                return Err(ScanError::CutOff("an earlier call did not come to its end".to_owned()));
            };
            let done = self.offload.run(move || {
                let turn = engine.turn();
                (engine, turn)
            });
            let (mut engine, turn) = done.await.map_err(|e| ScanError::CutOff(e.to_string()))?;
            match turn? {
                Turn::Needs(i) => {
                    let window = self.lanes[i].next().await?;
                    engine.feed(i, window);
                    self.engine = Some(engine);
                }
                Turn::Batch(rows) => {
                    self.engine = Some(engine);
                    return Ok(Some(rows));
                }
                Turn::Breath => {
                    self.engine = Some(engine);
                    tokio::task::yield_now().await;
                }
                Turn::Done => {
                    self.over = true;
                    return Ok(None);
                }
            }
        }
    }
}

pub use self::engine::BATCH_BYTES;
