//! Snapshots, modes, claims, groups, and the whole judged from nowhere: each test fails where its rule is taken out.

use std::sync::Arc;

use isle_storage::ids::{CommitId, Epoch, JobId, Lineage, RunId, SeqNo, Timestamp, Version};
use isle_storage::manifest::{
    Change, CompactionMode, EpochStart, GroupCursor, JobClaim, LogEntry, LogTail, Manifest, TableEntry,
    check, text,
};
use isle_storage::names::LogKind;

use super::build::*;

type Tamper = fn(&mut Manifest);

fn entry(m: &mut Manifest, i: usize, f: fn(&mut LogEntry)) {
    f(Arc::make_mut(&mut m.log[i]));
}

fn take(name: &str, seq: u64) -> Change {
    Change::TakeSnapshot { name: name.to_owned(), snapshot: snapshot(seq) }
}

/// A snapshot below what a merge has judged against would see a history with holes.
#[test]
fn a_snapshot_lies_between_the_history_floor_and_the_newest_number() {
    let (m, [_, mid, old]) = with_runs();
    let Change::Merge { inputs, snapshots, planned_mode, .. } = merge(&[mid, old], vec![]) else { panic!() };
    let tables = vec![Arc::new(TableEntry { rows: 5, ..table("j-1", "a", "m", 1, 20) })];
    let (dropped, judged, expiry) = (true, SeqNo(20), None);
    let job = Change::Merge { inputs, tables, snapshots, planned_mode, dropped, judged, expiry };
    let m = after(&m, job);
    assert_refused(&m, take("s", 19), "history floor");
    assert_refused(&m, take("s", 41), "history floor");
    let m = after(&after(&m, take("low", 20)), take("high", 40));
    assert_refused(&m, take("low", 30), "already a snapshot");
    assert_refused(&m, Change::DropSnapshot { name: "none".into() }, "there is no snapshot");
    assert_eq!(after(&m, Change::DropSnapshot { name: "low".into() }).snapshots.len(), 1);
}

/// A retention of zero or less deletes everything; it is refused with the reason.
#[test]
fn a_mode_that_would_delete_everything_is_refused() {
    let m = genesis();
    let set = |compaction| Change::SetCompaction { compaction };
    for us in [0, -1, i64::MIN] {
        let fifo = CompactionMode::Fifo { retention_us: us, retention_count: 1 };
        assert_refused(&m, set(fifo), "deletes everything");
        let window = CompactionMode::TimeWindow { segment_us: 5, retention_us: us, retention_count: 1 };
        assert_refused(&m, set(window), "deletes everything");
        let window = CompactionMode::TimeWindow { segment_us: us, retention_us: 5, retention_count: 1 };
        assert_refused(&m, set(window), "holds nothing");
    }
    after(&m, set(CompactionMode::Fifo { retention_us: 1, retention_count: 0 }));
}

#[test]
fn a_job_is_claimed_by_one_node_until_its_claim_ends() {
    let claim = |node: &str, beat| Change::ClaimJob {
        job: JobId(7),
        claim: JobClaim { node: node.into(), beat, at: None },
    };
    let m = after(&after(&genesis(), claim("a", 1)), claim("a", 2));
    assert_eq!(m.jobs[&JobId(7)].beat, 2);
    assert_refused(&m, claim("b", 3), "is claimed by a");
    let free = after(&m, Change::EndJob { job: JobId(7) });
    assert_eq!(after(&free, claim("b", 3)).jobs[&JobId(7)].node, "b");
}

/// A late commit of an earlier cursor must not make the group consume twice.
#[test]
fn a_groups_cursor_only_moves_on() {
    let cursor =
        |seq| Some(GroupCursor { seq: SeqNo(seq), max_lag: Default::default(), extra: Default::default() });
    let set = |c| Change::SetGroup { group: "g".into(), cursor: c };
    let m = after(&with_log(&[(1, 10)]), set(cursor(5)));
    assert_refused(&m, set(cursor(4)), "cannot move to 4");
    assert_refused(&m, set(cursor(11)), "cannot move to 11");
    after(&m, set(cursor(5)));
    after(&m, set(cursor(10)));
    let rewound = m.apply(&edit(&m, vec![set(None), set(cursor(1))])).unwrap();
    assert_eq!(rewound.groups["g"].seq, SeqNo(1));
    assert!(after(&m, set(None)).groups.is_empty());
}

#[test]
fn a_blob_files_name_is_never_used_for_another() {
    let add = |name: &str, len| Change::AddBlobs { blobs: [(name.to_owned(), len)].into() };
    let m = after(&genesis(), add("b-1", 10));
    assert_refused(&m, add("b-1", 11), "are added under its name");
    after(&m, add("b-1", 10));
    for bad in ["", "../b", "a/b", "ä"] {
        assert_refused(&m, add(bad, 1), "is no blob file's name");
    }
}

/// Remembering commits is bounded, and so is remembering epochs: a crash loop must not grow the manifest for ever.
#[test]
fn what_is_remembered_is_bounded() {
    let mut m = genesis();
    for epoch in 1..=isle_storage::manifest::state::MAX_EPOCHS as u64 + 10 {
        m = after(&m, adopt(epoch, vec![]));
    }
    assert_eq!(m.epochs.len(), isle_storage::manifest::state::MAX_EPOCHS);
    assert_eq!(m.epochs[0].epoch, Epoch(11));
    assert_eq!(m.recent.len(), isle_storage::manifest::state::RECENT_COMMITS);
    assert_eq!(m.recent.last().unwrap().0, m.version);
    check::whole(&m).unwrap();
}

/// The counters of an existing manifest only grow, whatever made the new one.
#[test]
fn counters_that_regress_are_refused() {
    let (old, _) = with_runs();
    let grown = |f: &dyn Fn(&mut Manifest)| {
        let mut new = old.clone();
        new.version = new.version.next();
        f(&mut new);
        check::step(&old, &new).map_err(|v| v.0)
    };
    grown(&|_| ()).unwrap();
    let cases: &[(&str, Tamper)] = &[
        ("after", |m| m.version = Version(1)),
        ("database id", |m| m.database.0 += 1),
        ("lineage", |m| m.lineage = Lineage(5)),
        ("epoch 0 after", |m| m.epoch = Epoch(0)),
        ("sequence number 39 after", |m| m.last_seq = SeqNo(39)),
        ("write time", |m| m.last_write_time = Timestamp(1)),
        ("flushed number", |m| m.flushed_seq = SeqNo(20)),
        ("history floor", |m| m.history_floor = SeqNo(31)),
        ("twice", |m| m.runs[1] = Arc::clone(&m.runs[0])),
    ];
    for (why, f) in cases {
        let said = grown(f).unwrap_err();
        assert!(said.contains(why) || said.contains("wholly above"), "{why}: {said}");
    }
    let (trimmed, floor) = {
        let mut m = after(&old, Change::TrimLog { trimmed_seq: SeqNo(10) });
        m.history_floor = SeqNo(30);
        (m.clone(), m)
    };
    let mut new = trimmed.clone();
    (new.version, new.trimmed_seq) = (new.version.next(), SeqNo(0));
    assert!(check::step(&trimmed, &new).unwrap_err().0.contains("trimmed number"));
    let mut new = floor.clone();
    (new.version, new.history_floor) = (new.version.next(), SeqNo(29));
    assert!(check::step(&floor, &new).unwrap_err().0.contains("history floor goes back"));
}

/// A manifest that comes from nowhere (a checkpoint) is judged in every part.
#[test]
fn a_manifest_that_contradicts_itself_is_refused_whole() {
    let (good, _) = with_runs();
    check::whole(&good).unwrap();
    let cases: &[(&str, Tamper)] = &[
        ("manifest format", |m| m.format = 2),
        ("needs the feature", |m| m.required_features.push("time_travel".into())),
        ("does not follow", |m| drop(m.log.remove(1))),
        ("the log starts at", |m| drop(m.log.remove(0))),
        ("the log ends at", |m| drop(m.log.pop())),
        ("the tail ends at", |m| m.tail = None),
        ("the tail is", |m| m.tail = Some(LogTail { id: log_id(1, 35), ..m.tail.unwrap() })),
        ("inside a log object", |m| m.flushed_seq = SeqNo(35)),
        ("above the flushed number", |m| m.flushed_seq = SeqNo(20)),
        ("trimmed", |m| m.trimmed_seq = SeqNo(35)),
        ("wholly above", |m| m.runs.swap(0, 1)),
        ("has no table", |m| Arc::make_mut(&mut m.runs[0]).tables.clear()),
        ("history floor", |m| m.history_floor = SeqNo(39)),
        ("snapshot", |m| drop(m.snapshots.insert("s".into(), snapshot(41)))),
        ("newest epoch in the list", |m| m.epochs.clear()),
        ("is newer than version", |m| Arc::make_mut(&mut m.runs[0]).id = RunId(99)),
    ];
    for (why, f) in cases {
        let mut m = good.clone();
        f(&mut m);
        let said = check::whole(&m).unwrap_err().0;
        assert!(said.contains(why), "{why}: {said}");
    }
}

/// What edits cannot lead to, but a damaged or forged checkpoint may hold.
#[test]
fn every_part_of_a_manifest_from_nowhere_is_judged() {
    let good = after(&with_runs().0, adopt(2, vec![]));
    let good = after(&good, append(vec![segment(2, 41, 50)]));
    check::whole(&good).unwrap();
    let cases: &[(&str, Tamper)] = &[
        ("no blob file's name", |m| {
            Arc::make_mut(&mut m.blobs).insert("../b".into(), 1);
        }),
        ("is remembered at version", |m| m.recent.push((m.version.next(), CommitId(1)))),
        ("do not ascend", |m| m.recent.swap(0, 1)),
        ("commits are remembered", |m| {
            m.version = Version(1000);
            m.recent = (1..=300).map(|v| (Version(v), CommitId(v))).collect();
        }),
        ("log trimmed to 40 above 30", |m| {
            m.log.drain(..4);
            m.trimmed_seq = SeqNo(40);
        }),
        ("flushed to 60 above 50", |m| m.flushed_seq = SeqNo(60)),
        ("write time goes back", |m| entry(m, 1, |e| e.first_time = Timestamp(9))),
        ("is empty", |m| entry(m, 4, |e| e.last_seq = SeqNo(40))),
        ("ends before it begins", |m| entry(m, 4, |e| e.last_time = Timestamp(40))),
        ("newer than the newest write", |m| entry(m, 4, |e| e.last_time = Timestamp(51))),
        ("of an epoch after 2", |m| entry(m, 4, |e| e.id.epoch = Epoch(3))),
        ("is not flushed", |m| entry(m, 4, |e| e.kind = LogKind::Chunk)),
        ("starts before", |m| {
            m.flushed_seq = SeqNo(50);
            entry(m, 4, |e| e.kind = LogKind::Chunk);
            m.tail = Some(link(2, 40, 50));
        }),
        ("epoch 1 after 1", |m| m.epochs.insert(0, m.epochs[0].clone())),
        ("the cut of epoch 2 goes back", |m| m.epochs[0].cut = Some(link(0, 1, 45))),
        ("epochs are remembered", |m| {
            let first = m.epochs[0].clone();
            m.epoch = Epoch(2000);
            m.epochs = (1..=2000).map(|n| EpochStart { epoch: Epoch(n), ..first.clone() }).collect();
        }),
        ("begins after 60", |m| m.epochs[1].cut = Some(link(1, 51, 60))),
        ("no table's name", |m| {
            let run = Arc::make_mut(&mut m.runs[0]);
            Arc::make_mut(&mut run.tables[0]).name = "../t".into();
        }),
    ];
    for (why, f) in cases {
        let mut m = good.clone();
        f(&mut m);
        let said = check::whole(&m).unwrap_err().0;
        assert!(said.contains(why), "{why}: {said}");
    }
    let mut jumped = good.clone();
    jumped.version = later(&good, 2);
    assert!(check::step(&good, &jumped).unwrap_err().0.contains("after"));
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused_not_run_over() {
    let m = with_log(&[(1, 10)]);
    let mut last = m.clone();
    last.version = Version(u64::MAX);
    assert!(last.apply(&edit(&last, vec![])).is_err());
    let endless = LogEntry { last_time: Timestamp(11), ..segment(1, 11, u64::MAX) };
    assert_refused(&m, append(vec![endless]), "no sequence number after");
    let parsed = text::parse(&text::print(&last)).unwrap();
    assert_eq!(parsed, last);
}
