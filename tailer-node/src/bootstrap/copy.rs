//! The task of one bootstrap: scans, fetches values, goes on where objects are gone, and lets its hold go.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use isle_storage::ids::Timestamp;
use isle_storage::manifest::{KeyRange, Manifest};
use isle_storage::merge::Visibility;
use isle_storage::row::{BlobPointer, MAX_INLINE_VALUE_LEN, Row, Value};
use isle_storage::scan::{Scan, ScanBounds, ScanError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::hold::{self, Held};
use super::{At, Copied, Place, Step};
use crate::cursor::Cursor;
use crate::error::TailError;
use crate::tailer::Tailer;

/// How often in a row a scan begins anew, because objects are gone, without a row to show for it.
const MOST_ATTEMPTS: u32 = 8;

/// Pause before it does so again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a tailer that stops waits for somebody to take the last word.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Values of one batch fetched at once.
const VALUES_AT_ONCE: usize = 8;

/// A bootstrap at work.
#[derive(Debug)]
pub(super) struct Copying {
    tailer: Tailer,
    at: At,
    own_until: Option<Timestamp>,
    expires: Option<Timestamp>,
    manifest: Arc<Manifest>,
    /// What is still to be delivered.
    range: KeyRange,
    rows: u64,
    at_most: Duration,
    deadline: Instant,
}

type Steps = mpsc::Sender<Result<Step, TailError>>;

impl Copying {
    pub(super) fn new(tailer: Tailer, held: Held, range: KeyRange, at_most: Duration) -> Self {
        let Held { at, manifest, own_until, expires } = held;
        let deadline = Instant::now() + at_most;
        Self { tailer, at, own_until, expires, manifest, range, rows: 0, at_most, deadline }
    }

    /// Delivers everything, or an error as the last word; then lets go of the hold.
    pub(super) async fn run(mut self, steps: Steps, place: Place) {
        let (stop, deadline) = (self.tailer.stop().clone(), self.deadline);
        let over = self.too_long();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Err(TailError::Closing),
            () = sleep_until(deadline) => Err(over),
            () = steps.closed() => Err(TailError::Closing),
            ended = self.copy(&steps) => ended,
        };
        drop(place);
        match ended {
            Ok(copied) => {
                tracing::info!(rows = copied.rows, seq = self.at.seq.0, "a bootstrap has come to its end");
                let taken = self.say(&steps, Ok(Step::Copied(copied))).await;
                if !taken || self.linger().await {
                    self.let_go().await;
                }
            }
            // The hold does not wait for somebody to take the last word.
            Err(error) => {
                tokio::join!(self.let_go(), self.say(&steps, Err(error)));
            }
        }
    }

    /// The last word, for as long as somebody may take it; whether it was taken.
    async fn say(&self, steps: &Steps, word: Result<Step, TailError>) -> bool {
        let stop = self.tailer.stop().clone();
        let stopped = async {
            stop.cancelled().await;
            sleep(LAST_WORD).await;
        };
        tokio::select! {
            biased;
            said = steps.send(word) => said.is_ok(),
            () = stopped => false,
        }
    }

    async fn let_go(&self) {
        if self.own_until.is_some() {
            hold::drop(self.tailer.database(), &self.at.name).await;
        }
    }

    /// Holds on for a moment, so that the consumer can begin; false where the tailer stops meanwhile: it may
    /// begin at another one, and the hold is left to expire.
    async fn linger(&self) -> bool {
        let linger = Duration::from_secs(self.tailer.settings().bootstrap_linger_seconds);
        tokio::select! {
            biased;
            () = self.tailer.stop().cancelled() => false,
            () = sleep(linger) => true,
        }
    }

    fn too_long(&self) -> TailError {
        TailError::HoldEnded(format!(
            "the bootstrap took longer than it may, {:.0} s (tailer.bootstrap_hold_seconds), and its hold ends: begin again",
            self.at_most.as_secs_f64()
        ))
    }

    async fn copy(&mut self, steps: &Steps) -> Result<Copied, TailError> {
        let mut attempts = 0;
        loop {
            let before = self.rows;
            let gone = match self.scan(steps).await {
                Ok(()) => break,
                Err(Broken::Gone(object)) => object,
                Err(Broken::Otherwise(e)) => return Err(e),
            };
            attempts = if self.rows > before { 0 } else { attempts + 1 };
            self.move_on(&gone, attempts).await?;
        }
        self.copied()
    }

    /// One scan of what is left, over one manifest.
    async fn scan(&mut self, steps: &Steps) -> Result<(), Broken> {
        let settings = self.tailer.settings();
        let bounds =
            ScanBounds { read_bytes: settings.bootstrap_read_bytes, log_bytes: settings.bootstrap_log_bytes };
        let at = Visibility { max_seq: self.at.seq, now: self.at.instant };
        let mut scan = Scan::open(self.tailer.database(), &self.manifest, &self.range, at, bounds).await?;
        while let Some(rows) = scan.next().await? {
            let rows = self.with_values(rows).await?;
            let Some(last) = rows.last() else { continue };
            let (count, range) = (rows.len() as u64, self.range.clone().after(&last.key, false));
            // A send that fails ends the whole: nobody listens.
            steps.send(Ok(Step::Rows(rows))).await.map_err(|_| TailError::Closing)?;
            self.rows += count;
            self.range = range;
            self.tailer.metrics().copied.inc_by(count);
        }
        Ok(())
    }

    /// The rows with the values that lie in blob files, but for those too large to lie among others.
    async fn with_values(&self, mut rows: Vec<Row>) -> Result<Vec<Row>, TailError> {
        let fits = |row: &Row| match &row.value {
            Value::Blob(p) if p.len <= MAX_INLINE_VALUE_LEN as u64 => Some(p.clone()),
            _ => None,
        };
        let wanted: Vec<(usize, BlobPointer)> =
            rows.iter().enumerate().filter_map(|(i, row)| Some((i, fits(row)?))).collect();
        let fetches: Vec<_> = wanted.iter().map(|(_, p)| self.tailer.value_once(p)).collect();
        let values: Vec<Bytes> =
            futures::stream::iter(fetches).buffered(VALUES_AT_ONCE).try_collect().await?;
        for ((i, _), value) in wanted.iter().zip(values) {
            rows[*i].value = Value::Put(value);
        }
        Ok(rows)
    }

    /// Goes on over the newest manifest, in which the rows that the snapshot holds lie elsewhere.
    async fn move_on(&mut self, gone: &str, attempts: u32) -> Result<(), TailError> {
        if attempts > 0 {
            sleep(PAUSE).await;
        }
        let newest = hold::newest(self.tailer.database()).await?;
        if newest.lineage != self.manifest.lineage {
            let why = format!("{gone} is gone, and the database has another history now: begin again");
            return Err(TailError::HoldEnded(why));
        }
        if !self.at.stands_in(&newest) {
            let why = format!("{gone} is gone, and so is the snapshot {:?}: begin again", self.at.name);
            return Err(TailError::HoldEnded(why));
        }
        if newest.version <= self.manifest.version || attempts >= MOST_ATTEMPTS {
            return Err(TailError::Gone(format!("{gone} is named by the newest manifest, and is gone")));
        }
        tracing::info!(
            object = gone,
            version = newest.version.0,
            "a bootstrap goes on over a newer manifest"
        );
        self.manifest = newest;
        Ok(())
    }

    /// Where to go on, if the log still reaches back to there, as far as is known.
    fn copied(&self) -> Result<Copied, TailError> {
        let followed = self.tailer.manifest()?;
        let newest = if followed.version > self.manifest.version { &followed } else { &self.manifest };
        if newest.lineage != self.manifest.lineage {
            let why = "the database has another history now: begin again".to_owned();
            return Err(TailError::HoldEnded(why));
        }
        hold::reaches(newest, &self.at)?;
        let cursor = Cursor { database: newest.database, lineage: newest.lineage, seq: self.at.seq };
        let snapshot = self.at.name.clone();
        Ok(Copied { cursor, rows: self.rows, snapshot, held_until: self.held_until() })
    }

    fn held_until(&self) -> Option<Timestamp> {
        let linger = Duration::from_secs(self.tailer.settings().bootstrap_linger_seconds);
        let lingers = self.tailer.database().env.clock.now().plus(linger);
        match self.own_until {
            Some(expires) => Some(expires.min(lingers)),
            None => self.expires,
        }
    }
}

/// Why one scan has ended early.
enum Broken {
    Gone(String),
    Otherwise(TailError),
}

impl From<TailError> for Broken {
    fn from(e: TailError) -> Self {
        match e {
            TailError::Gone(object) => Self::Gone(object),
            e => Self::Otherwise(e),
        }
    }
}

impl From<ScanError> for Broken {
    fn from(e: ScanError) -> Self {
        let text = e.to_string();
        match e {
            ScanError::Gone(object) => Self::Gone(object),
            ScanError::Damaged { .. } => Self::Otherwise(TailError::Damaged(text)),
            ScanError::Store(_) | ScanError::CutOff(_) => Self::Otherwise(TailError::Store(text)),
            ScanError::TooMuchLog { .. } => {
                Self::Otherwise(TailError::Busy(format!("{text}: the next flush makes room")))
            }
        }
    }
}
