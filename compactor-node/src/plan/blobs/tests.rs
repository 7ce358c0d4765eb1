//! Which files are due, which are worth it, and what a merge for their sake takes.

use bytes::Bytes;
use isle_storage::ids::{DatabaseId, Incarnation, Lineage, RunId, SeqNo};
use isle_storage::manifest::{BlobUse, CompactionMode, Key, LogEntry};
use isle_storage::names::{LogId, LogKind};

use super::*;

const SECOND: i64 = 1_000_000;

/// A table of `len` bytes whose rows point at so many bytes of each file.
fn table(name: &str, len: u64, used: &[(&str, u64)]) -> Arc<TableEntry> {
    let key = Key(Bytes::copy_from_slice(name.as_bytes()));
    Arc::new(TableEntry {
        name: name.to_owned(),
        len,
        meta_offset: len / 2,
        crc: 0,
        smallest: key.clone(),
        largest: key,
        min_seq: SeqNo(1),
        max_seq: SeqNo(1),
        min_time: Timestamp(0),
        max_time: Timestamp(0),
        rows: 100,
        deletes: 0,
        min_expires: None,
        expiring: None,
        raw_bytes: len,
        blobs: used.iter().map(|(name, _)| (*name).to_owned()).collect(),
        blob_use: used.iter().map(|(_, bytes)| BlobUse { bytes: *bytes, values: 1 }).collect(),
        extra: Default::default(),
    })
}

/// Files of a million bytes each, and merged runs, newest first.
fn manifest(files: &[&str], runs: &[&[Arc<TableEntry>]]) -> Manifest {
    let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
    m.blobs = Arc::new(files.iter().map(|name| ((*name).to_owned(), 1_000_000)).collect());
    for (i, tables) in runs.iter().enumerate() {
        let id = RunId((runs.len() - i) as u64);
        m.runs.push(Arc::new(Run { id, l0: false, tables: tables.to_vec() }));
    }
    m
}

fn settings() -> CompactorSettings {
    CompactorSettings { blob_garbage_percent: 50, ..CompactorSettings::default() }
}

fn planned(m: &Manifest) -> Vec<(u64, Vec<String>, Vec<String>)> {
    planned_with(m, &settings(), &[])
}

/// Of each plan the run, the files and the tables.
fn planned_with(
    m: &Manifest,
    settings: &CompactorSettings,
    unreadable: &[&str],
) -> Vec<(u64, Vec<String>, Vec<String>)> {
    let unreadable = unreadable.iter().map(|name| (*name).to_owned()).collect();
    let told = |p: MergePlan| -> (u64, Vec<String>, Vec<String>) {
        let moving = p.moving.unwrap();
        (p.inputs[0].0, moving.files.into_iter().collect(), moving.tables.into_iter().collect())
    };
    plans(m, settings, Timestamp(0), &unreadable).into_iter().map(told).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn a_file_is_due_from_its_ratio_on_and_only_the_tables_that_point_at_it_are_written_again() {
    let with = |alive| {
        manifest(
            &["a", "b"],
            &[&[
                table("t1", 1000, &[("a", alive)]),
                table("t2", 1000, &[("b", 900_000)]),
                table("t3", 10, &[]),
            ]],
        )
    };
    assert!(planned(&with(500_100)).is_empty(), "49.9 % are garbage");
    let m = with(499_000);
    assert_eq!(planned(&m), [(1, names(&["a"]), names(&["t1"]))]);
    let p = plans(&m, &settings(), Timestamp(0), &BTreeSet::new()).remove(0);
    assert_eq!((p.reason, p.bytes, p.bottom), ("blob_garbage", 500_000, true));
    assert!((100..=200).contains(&p.score), "{}", p.score);
    let all = CompactorSettings { blob_garbage_percent: 100, ..settings() };
    assert!(planned_with(&with(1), &all, &[]).is_empty(), "only what has nothing alive goes, by itself");
}

#[test]
fn what_is_held_not_counted_unreadable_or_flushed_is_left_alone() {
    let m = manifest(&["a"], &[&[table("t1", 1000, &[("a", 1000)])]]);
    assert_eq!(planned(&m).len(), 1);
    assert!(planned_with(&m, &settings(), &["a"]).is_empty(), "a value of it cannot be read");

    let mut logged = m.clone();
    let id = LogId { epoch: Default::default(), incarnation: Incarnation(0), first_seq: SeqNo(1) };
    logged.log.push(Arc::new(LogEntry {
        kind: LogKind::Chunk,
        id,
        last_seq: SeqNo(1),
        len: 1,
        index_offset: 0,
        crc: 0,
        first_time: Timestamp(0),
        last_time: Timestamp(0),
        raw_bytes: 1,
        starts_generation: false,
        blobs: names(&["a"]),
        extra: Default::default(),
    }));
    assert!(planned(&logged).is_empty() && due(&logged, &settings(), &BTreeSet::new()).is_empty());

    let mut older = m.clone();
    let run = Arc::make_mut(&mut older.runs[0]);
    Arc::make_mut(&mut run.tables[0]).blob_use.clear();
    assert!(due(&older, &settings(), &BTreeSet::new()).is_empty());

    let mut flushed = m;
    Arc::make_mut(&mut flushed.runs[0]).l0 = true;
    assert!(planned(&flushed).is_empty(), "a merge is on its way to it");
    assert_eq!(due(&flushed, &settings(), &BTreeSet::new()).len(), 1, "and moves its values in passing");
}

/// What is set free is shared out among the tables that must be written again for it.
#[test]
fn a_table_is_not_written_again_for_less_than_its_own_length() {
    let free = 1_000_000 - 1000;
    assert_eq!(planned(&manifest(&["a"], &[&[table("t", free - 100, &[("a", 1000)])]])).len(), 1);
    assert!(planned(&manifest(&["a"], &[&[table("t", free + 1, &[("a", 1000)])]])).is_empty());
    let together = table("t", free + 1, &[("a", 1000), ("b", 1000)]);
    assert_eq!(planned(&manifest(&["a", "b"], &[&[together]])), [(1, names(&["a", "b"]), names(&["t"]))]);
    // The large one would have to be written again for little: the file stays, and the small one with it.
    let [large, small] =
        [("large", 9_000_000), ("small", 1000)].map(|(n, len)| table(n, len, &[("a", 1000)]));
    assert!(planned(&manifest(&["a"], &[std::slice::from_ref(&small), &[large]])).is_empty());
    let other = table("other", 2000, &[("a", 1000)]);
    assert_eq!(
        planned(&manifest(&["a"], &[&[small], &[other]])),
        [(2, names(&["a"]), names(&["small"])), (1, names(&["a"]), names(&["other"]))],
        "a shared file takes a merge of each run"
    );
}

#[test]
fn one_merge_moves_about_a_part_and_the_next_goes_on() {
    let s = CompactorSettings { part_bytes: 250_000, ..settings() };
    let tables: Vec<_> = (0..4).map(|i| table(&format!("t{i}"), 1000, &[("a", 100_000)])).collect();
    let m = manifest(&["a"], &[&tables]);
    assert_eq!(planned_with(&m, &s, &[]), [(1, names(&["a"]), names(&["t0", "t1", "t2"]))]);
    // These three point at a new file now, and the old one is worth it all the more.
    let moved = (0..3).map(|i| table(&format!("j{i}"), 1000, &[("n", 300_000)]));
    let m = manifest(&["a", "n"], &[&moved.chain([tables[3].clone()]).collect::<Vec<_>>()]);
    assert_eq!(planned_with(&m, &s, &[]), [(1, names(&["a"]), names(&["t3"]))]);
}

/// What goes by itself soon is not moved.
#[test]
fn by_age_only_what_is_in_the_first_half_of_its_retention_is_moved() {
    let mut m = manifest(&["a"], &[&[table("t", 1000, &[("a", 1000)])]]);
    for mode in [
        CompactionMode::Fifo { retention_us: 100 * SECOND, retention_count: 0 },
        CompactionMode::TimeWindow {
            segment_us: 10 * SECOND,
            retention_us: 100 * SECOND,
            retention_count: 0,
        },
    ] {
        m.compaction = mode;
        let at = |s: i64| plans(&m, &settings(), Timestamp(s * SECOND), &BTreeSet::new()).len();
        assert_eq!([0, 49, 50, 200].map(at), [1, 1, 0, 0]);
    }
}
