//! What a bootstrap copies: a snapshot of its own, taken and dropped by edits, or one that has a name.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::observe::{self, ObserveError};
use isle_storage::database::Database;
use isle_storage::ids::Timestamp;
use isle_storage::manifest::{Change, Manifest, Snapshot};
use tokio::time::Instant;

use super::At;
use crate::cursor::Cursor;
use crate::error::TailError;
use crate::tailer::Tailer;

/// How the names of bootstraps' own snapshots begin.
const PREFIX: &str = "bootstrap-";

/// Most of them at once, over all tailers: each holds versions and log.
const MAX_HOLDS: usize = 64;

/// How long a hold may take to be committed.
const COMMIT_DEADLINE: Duration = Duration::from_secs(20);

/// The author of these edits.
const WHO: &str = "tailer";

/// A snapshot to copy, the manifest in which it was found or taken, and whose it is.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) at: At,
    pub(super) manifest: Arc<Manifest>,
    /// Where it is the bootstrap's own: until when it holds for sure.
    pub(super) own_until: Option<Timestamp>,
    /// When a named one that holds the log ends, if ever.
    pub(super) expires: Option<Timestamp>,
}

/// Takes one of everything committed. It holds the log; it expires by itself once the bootstrap may no longer go on, and
/// its cursor has been there for a moment.
pub(super) async fn take(tailer: &Tailer, at_most: Duration) -> Result<Held, TailError> {
    let db = tailer.database();
    let name = format!("{PREFIX}{:016x}", db.env.entropy.next_u64());
    let linger = Duration::from_secs(tailer.settings().bootstrap_linger_seconds);
    let mut taken = None;
    let plan = |m: &Manifest| {
        let holds = m.snapshots.keys().filter(|n| n.starts_with(PREFIX)).count();
        if holds >= MAX_HOLDS {
            return Err(format!("the database is held by {holds} bootstraps already"));
        }
        let snapshot = present(m, db.env.clock.now(), at_most + linger);
        taken = Some(snapshot.clone());
        Ok(vec![Change::TakeSnapshot { name: name.clone(), snapshot }])
    };
    let committed = observe::commit(db, WHO, Instant::now() + COMMIT_DEADLINE, plan).await;
    let refused = match (committed, taken) {
        (Ok(loaded), Some(s)) => {
            let at = At { name, seq: s.seq, instant: s.created };
            return Ok(Held { at, manifest: loaded.manifest, own_until: s.expires, expires: s.expires });
        }
        (Err(ObserveError::Unknown(why)), _) => {
            // It may stand, or come to stand: what is there is dropped, and what comes later expires.
            let (db, name) = (db.clone(), name.clone());
            tailer.tasks().spawn(async move { drop(&db, &name).await });
            TailError::NotReady(format!("whether a snapshot was taken is unknown: {why}"))
        }
        (Err(ObserveError::Refused(why)), _) => TailError::Busy(why),
        (Err(ObserveError::Misfit(why)), _) => {
            TailError::NotReady(format!("no snapshot can be taken: {why}"))
        }
        (Err(ObserveError::NotDone(e)), _) if e.is_passing() => {
            TailError::NotReady(format!("no snapshot can be taken: {e}"))
        }
        (Err(ObserveError::NotDone(e)), _) => TailError::Coordination(e),
        (Ok(_), None) => TailError::NotReady("no snapshot was planned".to_owned()),
    };
    Err(refused)
}

/// A snapshot of the present.
fn present(m: &Manifest, now: Timestamp, lasting: Duration) -> Snapshot {
    let created = m.snapshot_instant(now);
    Snapshot {
        seq: m.last_seq,
        created,
        expires: Some(created.plus(lasting)),
        holds_log: true,
        extra: Default::default(),
    }
}

/// Drops a bootstrap's own; where that cannot be done, the compactor does once it has expired.
pub(super) async fn drop(db: &Database, name: &str) {
    let plan = |m: &Manifest| match m.snapshots.contains_key(name) {
        true => Ok(vec![Change::DropSnapshot { name: name.to_owned() }]),
        false => Err("it is not there"),
    };
    match observe::commit(db, WHO, Instant::now() + COMMIT_DEADLINE, plan).await {
        Ok(_) | Err(ObserveError::Refused(_)) => {}
        Err(error) => tracing::warn!(snapshot = name, %error, "a bootstrap's hold stays until it expires"),
    }
}

/// The snapshot of this name, as the head has it now, if a cursor can go on from it.
pub(super) async fn named(tailer: &Tailer, name: &str) -> Result<Held, TailError> {
    let manifest = newest(tailer.database()).await?;
    let Some(s) = manifest.snapshots.get(name) else {
        return Err(TailError::UnknownSnapshot(name.to_owned()));
    };
    let at = At { name: name.to_owned(), seq: s.seq, instant: s.created };
    reaches(&manifest, &at)?;
    let expires = s.expires.filter(|_| s.holds_log);
    Ok(Held { at, manifest, own_until: None, expires })
}

/// The head's manifest, asked for now.
pub(super) async fn newest(db: &Database) -> Result<Arc<Manifest>, TailError> {
    match db.load().await {
        Ok(loaded) => Ok(loaded.manifest),
        Err(e) if e.is_passing() => Err(TailError::NotReady(format!("the head cannot be read: {e}"))),
        Err(e @ CoordinationError::NotFound(_)) => Err(TailError::NotReady(e.to_string())),
        Err(e) => Err(TailError::Coordination(e)),
    }
}

/// Whether the log reaches back to `at`.
pub(super) fn reaches(manifest: &Manifest, at: &At) -> Result<(), TailError> {
    if manifest.trimmed_seq <= at.seq {
        return Ok(());
    }
    let trimmed = manifest.trimmed_seq;
    let earliest = Cursor { database: manifest.database, lineage: manifest.lineage, seq: trimmed };
    Err(TailError::CursorExpired { trimmed, earliest })
}

#[cfg(test)]
mod tests {
    use isle_storage::ids::{DatabaseId, Lineage, SeqNo};
    use isle_storage::manifest::CompactionMode;

    use super::*;

    #[test]
    fn a_hold_is_at_the_head_and_at_no_earlier_instant_than_what_is_there() {
        let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        (m.last_seq, m.last_write_time) = (SeqNo(9), Timestamp(500));
        let at = |m: &Manifest, now| present(m, Timestamp(now), Duration::from_micros(50));
        assert_eq!((at(&m, 700).seq, at(&m, 700).created), (SeqNo(9), Timestamp(700)));
        assert_eq!(at(&m, 400).created, Timestamp(500), "a clock behind the newest write");
        let other = Snapshot { created: Timestamp(900), ..at(&m, 1) };
        m.snapshots.insert("other".into(), other);
        let taken = at(&m, 700);
        assert_eq!((taken.created, taken.expires), (Timestamp(900), Some(Timestamp(950))));
        assert!(taken.holds_log);
    }
}
