//! The planner of `merge` mode: a manifest in, a plan out. Pure.
//!
//! Runs stand newest first. Only neighbours merge, and the result takes exactly their place, so newer never loses to
//! older. Two rules, in this order:
//!
//! 1. **L0**: when `l0_trigger` flushed runs have gathered, all of them (at most `max_merge_width`, the oldest first)
//!    become one run.
//! 2. **Tiers**: among the merged runs, `tier_width` neighbours of which none dwarfs the others become one. Where the
//!    number of runs passes `max_runs`, any neighbours do. Of several candidates the one that reads the fewest bytes
//!    for every run it saves wins: small runs pay little and are merged often, large ones rarely, so every row is
//!    rewritten about log(size) times.
//!
//! ```text
//!   newest                                             oldest
//!   [L0][L0][L0][L0] [ 64M ][ 60M ][ 70M ][ 61M ] [    1G    ]
//!   └── rule 1 ────┘ └────────── rule 2 ────────┘
//! ```

use isle_storage::ids::{JobId, RunId, SeqNo};
use isle_storage::manifest::{CompactionMode, Manifest, Run};
use std::sync::Arc;

use crate::settings::CompactorSettings;

/// A merge of neighbouring runs into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePlan {
    /// The inputs, newest first.
    pub inputs: Vec<RunId>,
    /// Whether nothing lies beneath them: deletes and expired rows may go.
    pub bottom: bool,
    /// Bytes to read.
    pub bytes: u64,
    /// Every snapshot's sequence number at planning time.
    pub snapshots: Vec<SeqNo>,
    /// The mode it was planned in.
    pub mode: CompactionMode,
    /// Why, for people.
    pub reason: &'static str,
}

impl MergePlan {
    /// The id under which the merge is claimed: the same for everybody who plans the same inputs.
    #[must_use]
    pub fn job(&self) -> JobId {
        let mut text = String::from("merge");
        for id in &self.inputs {
            text.push('/');
            text.push_str(&id.to_string());
        }
        job_named(&text)
    }
}

/// The id of a kind of work that only one process does at a time.
#[must_use]
pub fn job_named(name: &str) -> JobId {
    // FNV-1a, 64 bits: stable for ever, and ids only have to differ.
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    JobId(hash)
}

/// What merge mode wants done, if anything.
#[must_use]
pub fn merge(manifest: &Manifest, settings: &CompactorSettings) -> Option<MergePlan> {
    if manifest.compaction != CompactionMode::Merge {
        return None;
    }
    let l0 = manifest.runs.iter().take_while(|r| r.l0).count();
    if l0 >= settings.l0_trigger {
        let from = l0.saturating_sub(settings.max_merge_width);
        return Some(plan(manifest, from, l0, "l0"));
    }
    let merged = &manifest.runs[l0..];
    let (from, to, reason) = tier(merged, settings)?;
    Some(plan(manifest, l0 + from, l0 + to, reason))
}

/// Every run into one, whatever their sizes: what a person asks for. `None` where that is already so and nothing in
/// the one run could be dropped.
#[must_use]
pub fn full(manifest: &Manifest, settings: &CompactorSettings) -> Option<MergePlan> {
    let droppable = manifest.tables().any(|t| t.deletes > 0 || t.min_expires.is_some());
    let worth = match manifest.runs.as_slice() {
        [] => false,
        [one] => one.l0 || droppable,
        _ => true,
    };
    if !worth || manifest.compaction != CompactionMode::Merge {
        return None;
    }
    let from = manifest.runs.len().saturating_sub(settings.max_merge_width);
    Some(plan(manifest, from, manifest.runs.len(), "requested"))
}

/// Bytes that the rules would have merged by now: how far compaction is behind.
#[must_use]
pub fn debt_bytes(manifest: &Manifest, settings: &CompactorSettings) -> u64 {
    merge(manifest, settings).map_or(0, |p| p.bytes)
}

fn plan(manifest: &Manifest, from: usize, to: usize, reason: &'static str) -> MergePlan {
    let inputs = &manifest.runs[from..to];
    let mut snapshots: Vec<SeqNo> = manifest.snapshots.values().map(|s| s.seq).collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    MergePlan {
        inputs: inputs.iter().map(|r| r.id).collect(),
        bottom: to == manifest.runs.len(),
        bytes: inputs.iter().map(|r| r.len_bytes()).sum(),
        snapshots,
        mode: manifest.compaction.clone(),
        reason,
    }
}

/// The cheapest admissible window of neighbours: `(from, to, reason)`.
fn tier(runs: &[Arc<Run>], settings: &CompactorSettings) -> Option<(usize, usize, &'static str)> {
    let sizes: Vec<u64> = runs.iter().map(|r| r.len_bytes()).collect();
    let crowded = sizes.len() > settings.max_runs;
    let least = if crowded { 2 } else { settings.tier_width };
    let mut best: Option<(u64, usize, usize)> = None;
    for from in 0..sizes.len() {
        let (mut sum, mut largest) = (0u64, 0u64);
        for (to, size) in sizes.iter().enumerate().skip(from).take(settings.max_merge_width) {
            sum += size;
            largest = largest.max(*size);
            let width = to + 1 - from;
            let similar = largest <= sum - largest;
            if width >= least && (similar || crowded) {
                let cost = sum / (width as u64 - 1);
                if best.is_none_or(|(c, ..)| cost < c) {
                    best = Some((cost, from, to + 1));
                }
            }
        }
    }
    best.map(|(_, from, to)| (from, to, if crowded { "too_many_runs" } else { "tier" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use isle_storage::ids::{DatabaseId, Lineage, Timestamp};
    use isle_storage::manifest::{Key, TableEntry};

    fn table(name: &str, seq: u64, len: u64) -> Arc<TableEntry> {
        let key = Key(Bytes::from_static(b"k"));
        Arc::new(TableEntry {
            name: name.to_owned(),
            len,
            meta_offset: len / 2,
            crc: 0,
            smallest: key.clone(),
            largest: key,
            min_seq: SeqNo(seq),
            max_seq: SeqNo(seq),
            min_time: Timestamp(0),
            max_time: Timestamp(0),
            rows: 1,
            deletes: 0,
            min_expires: None,
            raw_bytes: len,
            blobs: Vec::new(),
            extra: Default::default(),
        })
    }

    /// Runs newest first, as `(is L0, bytes)`.
    fn manifest(runs: &[(bool, u64)]) -> Manifest {
        let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        for (i, (l0, len)) in runs.iter().enumerate() {
            let seq = (runs.len() - i) as u64;
            let tables = vec![table(&format!("t{i}"), seq, *len)];
            m.runs.push(Arc::new(Run { id: RunId(seq), l0: *l0, tables }));
        }
        m
    }

    fn inputs(p: Option<MergePlan>) -> Vec<u64> {
        p.map(|p| p.inputs.iter().map(|r| r.0).collect()).unwrap_or_default()
    }

    const M: u64 = 1 << 20;

    #[test]
    fn l0_runs_merge_when_enough_have_gathered() {
        let s = CompactorSettings::default();
        assert_eq!(inputs(merge(&manifest(&[(true, M); 3]), &s)), Vec::<u64>::new());
        let p = merge(&manifest(&[(true, M), (true, M), (true, M), (true, M), (false, 90 * M)]), &s);
        assert_eq!(p.as_ref().map(|p| p.bottom), Some(false));
        assert_eq!(inputs(p), [5, 4, 3, 2]);
        let p = merge(&manifest(&[(true, M); 4]), &s).unwrap();
        assert!(p.bottom);
    }

    #[test]
    fn similar_neighbours_merge_and_a_giant_is_left_alone() {
        let s = CompactorSettings::default();
        let p = merge(
            &manifest(&[
                (false, 64 * M),
                (false, 60 * M),
                (false, 70 * M),
                (false, 61 * M),
                (false, 9000 * M),
            ]),
            &s,
        );
        assert_eq!(inputs(p), [5, 4, 3, 2]);
        let p = merge(
            &manifest(&[(false, M), (false, 100 * M), (false, 10_000 * M), (false, 1_000_000 * M)]),
            &s,
        );
        assert!(p.is_none());
    }

    /// A small run caught beneath a larger one must not stay there for ever.
    #[test]
    fn the_number_of_runs_is_bounded_whatever_their_sizes() {
        let s = CompactorSettings::default();
        let sizes: Vec<(bool, u64)> = (0..17u32).map(|i| (false, M << (2 * (17 - i)))).collect();
        let p = merge(&manifest(&sizes), &s).unwrap();
        assert_eq!(p.reason, "too_many_runs");
        // The cheapest pair: the two smallest, at the old end.
        assert_eq!(p.inputs.iter().map(|r| r.0).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_day_of_one_second_flushes_stays_small_and_each_row_is_rewritten_a_few_times() {
        let s = CompactorSettings::default();
        let mut m = manifest(&[]);
        let (mut written, mut merged) = (0u64, 0u64);
        for i in 1..=86_400u64 {
            let tables = vec![table(&format!("f{i}"), i, 1000)];
            m.runs.insert(0, Arc::new(Run { id: RunId(i), l0: true, tables }));
            written += 1000;
            while let Some(p) = merge(&m, &s) {
                let at = m.runs.iter().position(|r| r.id == p.inputs[0]).unwrap();
                let gone: Vec<_> = m.runs.drain(at..at + p.inputs.len()).collect();
                let seq = gone.iter().map(|r| r.max_seq().0).max().unwrap();
                let mut t = (*table(&format!("m{i}-{seq}"), seq, p.bytes)).clone();
                t.min_seq = gone.iter().map(|r| r.min_seq()).min().unwrap();
                m.runs.insert(at, Arc::new(Run { id: gone[0].id, l0: false, tables: vec![Arc::new(t)] }));
                merged += p.bytes;
            }
            assert!(m.runs.len() <= s.max_runs + s.l0_trigger, "{} runs", m.runs.len());
        }
        let amplification = merged as f64 / written as f64;
        assert!(amplification < 12.0, "each row was rewritten {amplification:.1} times");
        assert!(m.runs.windows(2).all(|p| p[0].min_seq() > p[1].max_seq()));
    }

    #[test]
    fn claims_of_the_same_inputs_collide_and_others_do_not() {
        let s = CompactorSettings::default();
        let a = merge(&manifest(&[(true, M); 4]), &s).unwrap();
        let b = merge(&manifest(&[(true, M); 4]), &s).unwrap();
        let c = merge(&manifest(&[(true, M); 5]), &s).unwrap();
        assert_eq!(a.job(), b.job());
        assert_ne!(a.job(), c.job());
    }
}
