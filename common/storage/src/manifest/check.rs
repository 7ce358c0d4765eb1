//! The manifest's invariants as code: every new manifest is judged before it is installed.
//!
//! [`whole`] judges a manifest from nowhere (a checkpoint, a test); [`step`] judges the successor of one that has been
//! judged. Both run the same checks. Entries are shared between versions, so a step looks only at those that are
//! not, and at the places where they meet the others: what follows from one entry alone, or from two neighbours, has
//! not changed for the rest.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::staged::{MAX_PARTS, MAX_STAGED_MERGES, StagedMerge};
use super::state::{FORMAT, KNOWN_FEATURES, LogEntry, MAX_EPOCHS, Manifest, RECENT_COMMITS, Run, TableEntry};
use crate::ids::{SeqNo, Version};
use crate::names::{LogKind, is_name};
use crate::row::{BlobId, MAX_KEY_LEN};
use crate::sabotage::{Rule, broken};

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
    for blob in m.blobs.keys().chain(m.retired.iter().flat_map(|r| &r.blobs)) {
        require!(is_name(blob), "{blob:?} is no blob file's name");
    }
    judge(m, 0..m.log.len(), 0..m.runs.len())?;
    m.staged.iter().try_for_each(|(id, merge)| staged_tables(m, *id, merge))
}

/// Judges a step: the new manifest is whole, and nothing that must only grow has shrunk. `old` has been judged.
///
/// # Errors
/// The first broken invariant.
pub fn step(old: &Manifest, new: &Manifest) -> Result<(), Violation> {
    require!(new.database == old.database, "the database id has changed");
    require!(new.lineage == old.lineage, "the lineage has changed");
    require!(new.version == old.version.next(), "version {} after {}", new.version, old.version);
    require!(new.version > old.version, "there is no version after {}", old.version);
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
    require!(new.expiry_floor >= old.expiry_floor, "the expiry floor goes back");
    if !Arc::ptr_eq(&old.blobs, &new.blobs) {
        for blob in new.blobs.keys().filter(|b| !old.blobs.contains_key(*b)) {
            require!(is_name(blob), "{blob:?} is no blob file's name");
        }
    }
    judge(new, unshared(&old.log, &new.log), unshared(&old.runs, &new.runs))?;
    let same = |id, merge| old.staged.get(id).is_some_and(|before| Arc::ptr_eq(before, merge));
    new.staged
        .iter()
        .filter(|(id, merge)| !same(*id, merge))
        .try_for_each(|(id, merge)| staged_tables(new, *id, merge))
}

/// The positions in `new` between what it begins with as `old` does, and what it ends with as `old` does.
fn unshared<T>(old: &[Arc<T>], new: &[Arc<T>]) -> Range<usize> {
    let same = |(a, b): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(a, b);
    let front = old.iter().zip(new).take_while(same).count();
    let back = old[front..].iter().rev().zip(new[front..].iter().rev()).take_while(same).count();
    front..new.len() - back
}

/// All checks; those of log objects and runs only within the given positions, and against their neighbours.
fn judge(m: &Manifest, log: Range<usize>, runs: Range<usize>) -> Result<(), Violation> {
    if broken(Rule::FlushAfterCommit) || broken(Rule::MergeInPlace) {
        return Ok(());
    }
    require!(m.format == FORMAT, "manifest format {} is not {FORMAT}: upgrade this program", m.format);
    for f in &m.required_features {
        require!(
            KNOWN_FEATURES.contains(&f.as_str()),
            "the manifest needs the feature {f:?}, which this program does not know: upgrade it"
        );
    }
    numbers(m)?;
    m.compaction.validate().map_err(Violation)?;
    require!(
        m.default_ttl_us.is_none_or(|us| us > 0),
        "by default a row would live {:?} µs",
        m.default_ttl_us
    );
    log_objects(m, log)?;
    tail(m)?;
    epochs(m)?;
    tree(m, runs)?;
    staged(m)?;
    for (name, s) in &m.snapshots {
        require!(s.seq <= m.last_seq, "snapshot {name:?} at {} lies above {}", s.seq, m.last_seq);
    }
    let newest = m.recent.last().map(|(v, _)| *v).unwrap_or_default();
    require!(newest <= m.version, "a commit of version {newest} is remembered at version {}", m.version);
    require!(m.recent.is_sorted_by(|a, b| a.0 < b.0), "the remembered commits do not ascend");
    require!(m.recent.len() <= RECENT_COMMITS, "more than {RECENT_COMMITS} commits are remembered");
    Ok(())
}

fn numbers(m: &Manifest) -> Result<(), Violation> {
    require!(m.last_seq.0 < u64::MAX, "there is no sequence number after {}", m.last_seq);
    require!(m.trimmed_seq <= m.flushed_seq, "log trimmed to {} above {}", m.trimmed_seq, m.flushed_seq);
    require!(m.flushed_seq <= m.last_seq, "flushed to {} above {}", m.flushed_seq, m.last_seq);
    require!(m.history_floor <= m.flushed_seq, "history floor {} above {}", m.history_floor, m.flushed_seq);
    Ok(())
}

fn log_objects(m: &Manifest, looked_at: Range<usize>) -> Result<(), Violation> {
    for e in &m.log[looked_at.clone()] {
        log_object(m, e)?;
    }
    let first = m.log.first().map_or(m.last_seq.next(), |e| e.id.first_seq);
    require!(first == m.trimmed_seq.next(), "the log starts at {first}, trimmed to {}", m.trimmed_seq);
    for (i, pair) in meeting(&m.log, looked_at) {
        let [a, b] = pair else { continue };
        require!(
            b.id.first_seq == a.last_seq.next(),
            "log object {} (number {i}) does not follow {}",
            b.id,
            a.last_seq
        );
        require!(b.first_time >= a.last_time, "in log object {} write time goes back", b.id);
    }
    let last = m.log.last().map_or(m.trimmed_seq, |e| e.last_seq);
    require!(last == m.last_seq, "the log ends at {last}, the head at {}", m.last_seq);
    let flushed = m.log[..m.log.partition_point(|e| e.last_seq <= m.flushed_seq)].last();
    let boundary = flushed.map_or(m.trimmed_seq, |e| e.last_seq);
    require!(boundary == m.flushed_seq, "flushed to {}, inside a log object", m.flushed_seq);
    Ok(())
}

fn log_object(m: &Manifest, e: &LogEntry) -> Result<(), Violation> {
    require!(e.last_seq >= e.id.first_seq, "log object {} is empty", e.id);
    require!(e.index_offset < e.len, "log object {} has its index beyond its end", e.id);
    require!(e.first_time <= e.last_time, "log object {} ends before it begins", e.id);
    require!(e.last_time <= m.last_write_time, "log object {} is newer than the newest write", e.id);
    require!(e.id.epoch <= m.epoch, "log object {} is of an epoch after {}", e.id, m.epoch);
    let flushed = e.last_seq <= m.flushed_seq;
    require!(e.kind == LogKind::Segment || flushed, "chunk {} is not flushed", e.id);
    blobs_are_there(m, &e.blobs, &e.id)
}

fn blobs_are_there(m: &Manifest, blobs: &[BlobId], of: &dyn std::fmt::Display) -> Result<(), Violation> {
    for blob in blobs {
        require!(
            m.blobs.contains_key(blob),
            "{of} points at the blob file {blob:?}, which is not in the manifest"
        );
    }
    Ok(())
}

fn tail(m: &Manifest) -> Result<(), Violation> {
    let last = m.tail.map(|t| t.last_seq).unwrap_or_default();
    require!(last == m.last_seq, "the tail ends at {last}, the head at {}", m.last_seq);
    if let (Some(tail), Some(e)) = (&m.tail, m.log.last()) {
        require!(tail.id.first_seq >= e.id.first_seq, "the tail {} starts before {}", tail.id, e.id);
        require!(
            e.kind == LogKind::Chunk || e.id == tail.id,
            "the tail is {}, the log ends with {}",
            tail.id,
            e.id
        );
    }
    Ok(())
}

fn epochs(m: &Manifest) -> Result<(), Violation> {
    for pair in m.epochs.windows(2) {
        require!(pair[0].epoch < pair[1].epoch, "epoch {} after {}", pair[1].epoch, pair[0].epoch);
        require!(pair[0].cut_seq() <= pair[1].cut_seq(), "the cut of epoch {} goes back", pair[1].epoch);
    }
    require!(m.epochs.len() <= MAX_EPOCHS, "more than {MAX_EPOCHS} epochs are remembered");
    let newest = m.epochs.last().map(|e| e.epoch).unwrap_or_default();
    require!(newest == m.epoch, "the newest epoch in the list is {newest}, the manifest's {}", m.epoch);
    let cut = m.epochs.last().map(|e| e.cut_seq()).unwrap_or_default();
    require!(cut <= m.last_seq, "epoch {newest} begins after {cut}, above {}", m.last_seq);
    Ok(())
}

fn tree(m: &Manifest, looked_at: Range<usize>) -> Result<(), Violation> {
    for run in &m.runs[looked_at.clone()] {
        tables(m, run)?;
        require!(run.max_seq() <= m.flushed_seq, "run {} holds rows above the flushed number", run.id);
        require!(run.id.0 <= m.version.0, "run {} is newer than version {}", run.id, m.version);
    }
    for (_, pair) in meeting(&m.runs, looked_at) {
        let [a, b] = pair else { continue };
        let (from, to) = (a.min_seq(), b.max_seq());
        require!(from > to, "run {} (from {from}) does not lie wholly above run {} (to {to})", a.id, b.id);
    }
    let ids: BTreeSet<_> = m.runs.iter().map(|r| r.id).collect();
    require!(ids.len() == m.runs.len(), "a run's id stands twice");
    Ok(())
}

/// Merges in parts: their inputs are there, neighbours, and nobody else's.
fn staged(m: &Manifest) -> Result<(), Violation> {
    require!(m.staged.len() <= MAX_STAGED_MERGES, "more than {MAX_STAGED_MERGES} merges in parts");
    let mut held = BTreeSet::new();
    for (id, merge) in &m.staged {
        require!(*id <= m.version, "a merge in parts of version {id} at version {}", m.version);
        let at = m.runs.iter().position(|r| Some(&r.id) == merge.inputs.first());
        let there = at.map(|at| m.runs[at..].iter().take(merge.inputs.len()).map(|r| r.id));
        require!(
            there.is_some_and(|there| there.eq(merge.inputs.iter().copied())),
            "the inputs of the merge in parts {id} are not there as neighbours"
        );
        require!(
            merge.inputs.iter().all(|run| held.insert(*run)),
            "an input of the merge in parts {id} is another's too"
        );
        require!(merge.planned_mode == m.compaction, "merge in parts {id} is of another mode");
        require!(merge.parts.len() < merge.part_count() as usize, "merge in parts {id} is done");
    }
    Ok(())
}

/// What one merge in parts has staged.
fn staged_tables(m: &Manifest, id: Version, merge: &StagedMerge) -> Result<(), Violation> {
    let ascend = merge.splits.windows(2).all(|p| p[0] < p[1]);
    require!(
        ascend && !merge.splits.is_empty() && merge.splits.len() < MAX_PARTS,
        "the split keys of the merge in parts {id} do not ascend, or are none or too many"
    );
    for (i, part) in &merge.parts {
        require!(*i < merge.part_count(), "the merge in parts {id} has no part {i}");
        let range = merge.range(*i);
        for t in &part.tables {
            table(t)?;
            blobs_are_there(m, &t.blobs, &t.name)?;
            require!(range.holds_all(t), "staged table {} reaches beyond its part", t.name);
        }
        let ascend = part.tables.windows(2).all(|p| p[0].largest < p[1].smallest);
        require!(ascend, "staged tables of part {i} of merge {id} overlap");
    }
    Ok(())
}

fn tables(m: &Manifest, run: &Run) -> Result<(), Violation> {
    require!(!run.tables.is_empty(), "run {} has no table", run.id);
    for t in &run.tables {
        table(t)?;
        blobs_are_there(m, &t.blobs, &t.name)?;
    }
    for pair in run.tables.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        require!(a.largest < b.smallest, "tables {} and {} of run {} overlap", a.name, b.name, run.id);
    }
    Ok(())
}

fn table(t: &TableEntry) -> Result<(), Violation> {
    require!(is_name(&t.name), "{:?} is no table's name", t.name);
    require!(t.smallest <= t.largest, "table {} ends before it begins", t.name);
    let fits = |k: &[u8]| (1..=MAX_KEY_LEN).contains(&k.len());
    require!(
        fits(t.smallest.as_slice()) && fits(t.largest.as_slice()),
        "table {} has an impossible key",
        t.name
    );
    require!(t.min_seq <= t.max_seq && t.min_seq > SeqNo::ZERO && t.rows > 0, "table {} is empty", t.name);
    require!(t.deletes <= t.rows, "table {} has more deletes than rows", t.name);
    require!(t.min_time <= t.max_time, "table {} ends before it begins, in time", t.name);
    require!(t.meta_offset < t.len, "table {} has its metadata beyond its end", t.name);
    require!(
        t.blob_use.is_empty() || t.blob_use.len() == t.blobs.len(),
        "table {} counts {} blob files and points at {}",
        t.name,
        t.blob_use.len(),
        t.blobs.len()
    );
    Ok(())
}

/// The neighbours of which at least one was looked at, or which have become neighbours there, with the second's
/// position.
fn meeting<T>(all: &[T], looked_at: Range<usize>) -> impl Iterator<Item = (usize, &[T])> {
    let from = looked_at.start.max(1);
    let to = (looked_at.end + 1).min(all.len());
    (from..to).map(|i| (i, &all[i - 1..=i]))
}
