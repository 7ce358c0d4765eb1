//! Copying: bootstraps at whichever tailer answers, some of them broken off, and the log after their cursors.

use std::time::Duration;

use isle_history::{Digest, Event, Key, Name, Query, ReadAnswer, Record, SeenRow, Span, Start, Want};
use isle_storage::row::{Row, Value};
use tailer_node::{BootstrapRequest, From, TailError, Tailer};
use tokio::time::sleep;

use super::Client;
use super::consume::page;
use crate::plan::Step;

const PATIENCE: Duration = Duration::from_secs(8);

/// What a bootstrap delivered, and the first changes after its cursor.
struct Copied {
    rows: Vec<SeenRow>,
    seq: u64,
    instant: i64,
    snapshot: String,
    after: Result<Vec<Record>, TailError>,
}

impl Client {
    pub(super) async fn copy_on(mut self) {
        while self.holds_on() {
            let prefix = match self.rng.below(3) {
                0 => b"s".to_vec(),
                1 => b"k1".to_vec(),
                _ => Vec::new(),
            };
            // A consumer that goes away in the middle.
            let most = if self.rng.per_mille(250) { self.rng.between(0, 2) as usize } else { usize::MAX };
            let slow = Duration::from_millis(self.rng.between(0, 40) * self.rng.between(0, 10));
            let acknowledged = self.shared.newest.lock().map_or(0, |p| p.seq.0);
            let shared = std::sync::Arc::clone(&self.shared);
            let at = self.rng.below(shared.tailers.len() as u64) as usize;
            let wanted = prefix.clone();
            let answer = shared.tailers[at].call(&shared.world, PATIENCE, move |seat| async move {
                copy(&seat.engine, wanted, most, slow).await
            });
            match answer.await {
                Ok(Ok(Some(copied))) => self.judge(&prefix, acknowledged, copied),
                Ok(Ok(None)) => shared.world.note(format_args!("{} breaks a copy off", self.name)),
                Ok(Err(e)) => {
                    shared.world.note(format_args!("{}: {e}", self.name));
                    if let TailError::Damaged(why) = &e {
                        shared.world.violation(format!("a bootstrap says {why}"));
                    }
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(self.rng.between(50, 900))).await;
        }
    }

    /// A copy is a scan at its number, and the changes after its cursor follow it.
    fn judge(&mut self, prefix: &[u8], acknowledged: u64, copied: Copied) {
        let Copied { rows, seq, instant, snapshot, after } = copied;
        let shared = &self.shared;
        shared.world.note(format_args!("{} has {} rows up to {seq}", self.name, rows.len()));
        // Recover may end a hold, and with it what the copy promised.
        let recovers = shared.plan.steps.iter().any(|(_, s)| matches!(s, Step::Recover(_)));
        if seq < acknowledged {
            shared
                .world
                .violation(format!("{acknowledged} was acknowledged, and a copy after it ends at {seq}"));
        }
        let snapshot: Name = snapshot.into();
        shared.recorder.record(Event::SnapshotTaken { name: snapshot.clone(), seq });
        let end = isle_storage::row::prefix_end(prefix);
        let want = Want::Range {
            start: Key::new(prefix),
            end: end.as_ref().map(|e| Key::new(e)),
            limit: None,
            reverse: false,
        };
        let mut query = Query::of(want);
        query.snapshot = Some(snapshot);
        let op = shared.recorder.read_invoked(&self.name, None, None, query);
        let judged = Some(Span { from: instant, to: instant });
        shared.recorder.read_answered(op, ReadAnswer { rows, view_seq: seq, more: false, judged });
        self.made += 1;
        match after {
            Ok(rows) => {
                let consumer: Name = format!("{}-{}", self.name, self.made).into();
                shared.recorder.consumer_started(&consumer, Start::After(seq), None);
                rows.into_iter().for_each(|row| shared.recorder.delivered(&consumer, row));
            }
            Err(TailError::CursorExpired { trimmed, .. }) if !recovers => {
                let why = format!("a copy ends at {seq}, and the log only begins after {trimmed}");
                shared.world.violation(why);
            }
            Err(e) => shared.world.note(format_args!("{}: {e}", self.name)),
        }
    }
}

/// A copy, unless it is broken off after `most` batches.
async fn copy(
    tailer: &Tailer,
    prefix: Vec<u8>,
    most: usize,
    slow: Duration,
) -> Result<Option<Copied>, TailError> {
    let request = BootstrapRequest { prefix: prefix.into(), ..Default::default() };
    let mut bootstrap = tailer.bootstrap(request).await?;
    let (mut rows, mut batches) = (Vec::new(), 0);
    sleep(slow).await;
    while batches < most {
        let Some(batch) = bootstrap.next().await? else { break };
        rows.extend(batch.iter().map(seen));
        batches += 1;
        sleep(slow).await;
    }
    let Some(copied) = bootstrap.copied().cloned() else { return Ok(None) };
    let after = page(tailer, From::Cursor(copied.cursor), 20, Duration::from_millis(100)).await;
    Ok(Some(Copied {
        rows,
        seq: copied.cursor.seq.0,
        instant: bootstrap.instant().0,
        snapshot: copied.snapshot,
        after: after.map(|page| page.rows),
    }))
}

fn seen(row: &Row) -> SeenRow {
    let value = match &row.value {
        Value::Put(value) => Some(Digest::of(value)),
        Value::Blob(_) | Value::Delete => None,
    };
    SeenRow { key: Key::new(&row.key), seq: Some(row.seq.0), value }
}
