//! The manifest's invariants as code: every new manifest is judged before it is installed.

use std::sync::Arc;

use super::state::{FORMAT, KNOWN_FEATURES, Manifest, TableEntry};

/// A broken invariant, in words a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

macro_rules! require {
    ($cond:expr, $($why:tt)+) => {
        if !$cond {
            return Err(Violation(format!($($why)+)));
        }
    };
}

/// Judges a whole manifest: formats known, log dense and ascending, runs ordered and disjoint, floors consistent.
///
/// # Errors
/// The first broken invariant.
pub fn whole(m: &Manifest) -> Result<(), Violation> {
    require!(m.format == FORMAT, "manifest format {} is not {FORMAT}: upgrade this program", m.format);
    for f in &m.required_features {
        require!(
            KNOWN_FEATURES.contains(&f.as_str()),
            "the manifest needs the feature {f:?}, which this program does not know: upgrade it"
        );
    }
    log(m)?;
    epochs(m)?;
    for run in &m.runs {
        tables(&run.tables, &format!("run {}", run.id))?;
        require!(run.max_seq() <= m.flushed_seq, "run {} holds rows above the flushed number", run.id);
    }
    for pair in m.runs.windows(2) {
        require!(
            pair[0].min_seq() > pair[1].max_seq(),
            "run {} (from {}) does not lie wholly above run {} (to {})",
            pair[0].id,
            pair[0].min_seq(),
            pair[1].id,
            pair[1].max_seq()
        );
        require!(pair[0].id != pair[1].id, "run id {} stands twice", pair[0].id);
    }
    require!(m.history_floor <= m.last_seq, "history floor {} above {}", m.history_floor, m.last_seq);
    for (name, s) in &m.snapshots {
        require!(s.seq <= m.last_seq, "snapshot {name:?} at {} lies above {}", s.seq, m.last_seq);
    }
    Ok(())
}

/// Judges a step: the new manifest is whole, and nothing that must only grow has shrunk.
///
/// # Errors
/// The first broken invariant.
pub fn step(old: &Manifest, new: &Manifest) -> Result<(), Violation> {
    require!(new.database == old.database, "the database id has changed");
    require!(new.version == old.version.next(), "version {} after {}", new.version, old.version);
    require!(new.epoch >= old.epoch, "epoch {} after {}", new.epoch, old.epoch);
    require!(new.last_seq >= old.last_seq, "sequence number {} after {}", new.last_seq, old.last_seq);
    require!(new.last_write_time >= old.last_write_time, "write time goes back");
    require!(
        new.flushed_seq >= old.flushed_seq,
        "flushed number {} after {}",
        new.flushed_seq,
        old.flushed_seq
    );
    require!(
        new.trimmed_seq >= old.trimmed_seq,
        "trimmed number {} after {}",
        new.trimmed_seq,
        old.trimmed_seq
    );
    require!(new.history_floor >= old.history_floor, "the history floor goes back");
    whole(new)
}

fn log(m: &Manifest) -> Result<(), Violation> {
    let mut last = m.trimmed_seq;
    for e in &m.log {
        require!(e.id.first_seq == last.next(), "log object {} does not follow {last}", e.id);
        require!(e.last_seq >= e.id.first_seq, "log object {} is empty", e.id);
        require!(e.index_offset < e.len, "log object {} has its index beyond its end", e.id);
        require!(e.first_time <= e.last_time, "log object {} ends before it begins", e.id);
        last = e.last_seq;
    }
    require!(last == m.last_seq, "the log ends at {last}, the head at {}", m.last_seq);
    require!(m.trimmed_seq <= m.flushed_seq, "log trimmed to {} above {}", m.trimmed_seq, m.flushed_seq);
    require!(m.flushed_seq <= m.last_seq, "flushed to {} above {}", m.flushed_seq, m.last_seq);
    let tail = m.tail.map(|t| t.last_seq).unwrap_or_default();
    require!(tail == m.last_seq, "the tail ends at {tail}, the head at {}", m.last_seq);
    Ok(())
}

fn epochs(m: &Manifest) -> Result<(), Violation> {
    for pair in m.epochs.windows(2) {
        require!(pair[0].epoch < pair[1].epoch, "epoch {} after {}", pair[1].epoch, pair[0].epoch);
        require!(pair[0].cut_seq() <= pair[1].cut_seq(), "the cut of epoch {} goes back", pair[1].epoch);
    }
    let newest = m.epochs.last().map(|e| e.epoch).unwrap_or_default();
    require!(newest == m.epoch, "the newest epoch in the list is {newest}, the manifest's {}", m.epoch);
    Ok(())
}

fn tables(tables: &[Arc<TableEntry>], what: &str) -> Result<(), Violation> {
    require!(!tables.is_empty(), "{what} has no table");
    for t in tables {
        require!(t.smallest <= t.largest, "table {} ends before it begins", t.name);
        require!(t.min_seq <= t.max_seq && t.rows > 0, "table {} is empty", t.name);
        require!(t.meta_offset < t.len, "table {} has its metadata beyond its end", t.name);
    }
    for pair in tables.windows(2) {
        require!(
            pair[0].largest < pair[1].smallest,
            "tables {} and {} of {what} overlap",
            pair[0].name,
            pair[1].name
        );
    }
    Ok(())
}
