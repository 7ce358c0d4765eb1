//! Fetching one log segment: one GET, verified, decoded, tried again until it is there or no longer needed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isle_storage::database::Database;
use isle_storage::ids::{DatabaseId, SeqNo};
use isle_storage::log::{self, RawBlock};
use isle_storage::manifest::LogEntry;
use isle_storage::watch;
use tokio::time::Instant;

use super::shared::{Shared, Trouble};

/// Pauses between attempts; the store's own retries come before each of them.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Segments above this are decoded off the task that follows.
const DECODE_INLINE: usize = 64 << 10;

/// What became of a piece of the log.
#[derive(Debug)]
pub(super) enum Fetched {
    Segment {
        entry: Arc<LogEntry>,
        blocks: Vec<RawBlock>,
    },
    /// Not needed any more: everything up to here is in tables. `bytes` were accounted for it.
    Skipped {
        upto: SeqNo,
        bytes: u64,
    },
}

/// Fetches the segment, or finds that a flush (`floor`) has overtaken it.
pub(super) async fn fetch(
    db: Database,
    entry: Arc<LogEntry>,
    mut floor: watch::Receiver<SeqNo>,
    shared: Arc<Shared>,
) -> Fetched {
    let mut pause = FIRST_PAUSE;
    loop {
        if *floor.borrow_and_update() >= entry.last_seq {
            return Fetched::Skipped { upto: entry.last_seq, bytes: entry.raw_bytes };
        }
        match attempt(&db, &entry).await {
            Ok(blocks) => return Fetched::Segment { entry, blocks },
            Err(why) => {
                tracing::warn!(segment = %entry.path(), error = %why, "a log segment cannot be applied");
                let why = format!("the view cannot move past {}: {why}", entry.id.first_seq);
                shared.set_trouble(Trouble::Segments, Some(why));
            }
        }
        wait(&mut floor, entry.last_seq, pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for `pause`, or until a flush has overtaken `seq`.
async fn wait(floor: &mut watch::Receiver<SeqNo>, seq: SeqNo, pause: Duration) {
    let until = Instant::now() + pause;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => return,
            changed = floor.changed() => {
                if changed.is_err() || *floor.borrow() >= seq {
                    return;
                }
            }
        }
    }
}

async fn attempt(db: &Database, entry: &Arc<LogEntry>) -> Result<Vec<RawBlock>, String> {
    let bytes = db.bucket.get(&entry.path()).await.map_err(|e| e.to_string())?;
    let database = db.identity.database;
    if bytes.len() <= DECODE_INLINE {
        return decode(&bytes, entry, database);
    }
    let entry = Arc::clone(entry);
    let decoding = db.env.offload.run(move || decode(&bytes, &entry, database));
    decoding.await.map_err(|e| e.to_string())?
}

/// The blocks of the object that `entry` describes; any difference is damage.
fn decode(bytes: &Bytes, entry: &LogEntry, database: DatabaseId) -> Result<Vec<RawBlock>, String> {
    let object = log::decode_as(bytes, entry, database);
    object.map(|o| o.blocks).map_err(|e| format!("{} is damaged: {e}", entry.path()))
}
