//! Edits of every kind, the manifest they lead to, its checkpoint, and the small JSON objects beside them.

use std::collections::BTreeMap;

use isle_storage::format::FormatError;
use isle_storage::ids::{CommitId, JobId, SeqNo, Timestamp};
use isle_storage::manifest::judge::EpochObject;
use isle_storage::manifest::{
    Author, Change, CheckpointRef, CompactionMode, Edit, GroupCursor, Head, JobClaim, LogEntry, Manifest,
    Snapshot, TableEntry, checkpoint, text,
};
use isle_storage::names;
use serde_json::{Value as Json, json};

use super::{assert_same_text, fixture, text_fixture};
use crate::manifest::build;

/// One edit of every kind of change, every field of version 1 in use, and what a later version may add.
fn edits() -> Vec<Edit> {
    let mut m = build::genesis();
    let mut edits = Vec::new();
    for (n, changes) in histories().into_iter().enumerate() {
        let mut edit = build::edit(&m, changes);
        edit.commit = CommitId(0xc000 + n as u64);
        if n == 3 {
            edit.required_features = vec!["blobs".to_owned(), "snapshots".to_owned()];
            edit.extra.insert("from_the_future".to_owned(), json!({"skip": ["me", 1]}));
        }
        if edit.changes.iter().all(|c| matches!(c, Change::TakeSnapshot { .. })) {
            edit.author = Author::Observer("reader-7".to_owned());
        }
        if edit.changes.iter().any(|c| matches!(c, Change::Merge { .. })) {
            edit.author = Author::Job(JobId(0x77));
        }
        m = m.apply(&edit).unwrap();
        edits.push(edit);
    }
    edits
}

fn histories() -> Vec<Vec<Change>> {
    let blobs = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
    let add = |name: &str, len| Change::AddBlobs { blobs: [(name.to_owned(), len)].into() };
    let future: BTreeMap<String, Json> = [("encoding".to_owned(), json!({"v": 2}))].into();
    let marked = LogEntry { starts_generation: true, extra: future.clone(), ..build::segment(1, 1, 10) };
    let with_blob = LogEntry { blobs: blobs(&["1-b-1"]), ..build::segment(1, 11, 20) };
    let first = TableEntry {
        deletes: 2,
        min_expires: Some(Timestamp(5_000)),
        blobs: blobs(&["1-b-1"]),
        extra: future.clone(),
        ..build::table("1-000000000000ab01-1", "\u{0}", "k \"quoted\"", 1, 20)
    };
    let binary = TableEntry {
        smallest: isle_storage::manifest::Key(vec![0xff, 0x00].into()),
        largest: isle_storage::manifest::Key(vec![0xff, 0xff].into()),
        ..build::table("1-000000000000ab01-2", "", "", 3, 19)
    };
    let chunk = LogEntry { blobs: blobs(&["1-b-1"]), ..build::chunk(1, 1, 20) };
    let newest = LogEntry { blobs: blobs(&["3-b-2"]), extra: future.clone(), ..build::segment(3, 31, 33) };
    let last = TableEntry {
        deletes: 1,
        min_expires: Some(Timestamp(-7)),
        blobs: blobs(&["3-b-2"]),
        extra: future,
        ..build::table("3-000000000000ab03-2", "\u{e9}t\u{e9}", "\u{fc}ber", 27, 33)
    };
    let snapshot = Snapshot {
        expires: Some(Timestamp(99_000)),
        holds_log: true,
        extra: [("label".to_owned(), json!("nightly"))].into(),
        ..build::snapshot(25)
    };
    let cursor = GroupCursor {
        seq: SeqNo(12),
        max_lag: Default::default(),
        extra: [("lag".to_owned(), json!(3))].into(),
    };
    let claim = JobClaim { node: "compactor \"a\"".to_owned(), beat: 4, at: None };
    let fifo = CompactionMode::Fifo { retention_us: 86_400_000_000, retention_count: 12 };
    let windows = CompactionMode::TimeWindow {
        segment_us: 3_600_000_000,
        retention_us: 86_400_000_000,
        retention_count: 24,
    };
    vec![
        vec![build::adopt(1, vec![])],
        vec![build::append(vec![marked])],
        vec![add("1-b-1", 70_000), build::append(vec![with_blob])],
        vec![build::flush(20, vec![first, binary], Some(chunk))],
        vec![build::adopt(3, vec![build::segment(1, 21, 25), build::segment(2, 26, 26)])],
        vec![build::append(vec![build::segment(3, 27, 30)])],
        vec![Change::TakeSnapshot { name: "night \"ly\"".to_owned(), snapshot }],
        vec![Change::TakeSnapshot { name: "brief".to_owned(), snapshot: build::snapshot(26) }],
        vec![Change::DropSnapshot { name: "brief".to_owned() }],
        vec![build::flush(26, vec![build::table("3-000000000000ab03-1", "a", "b", 21, 26)], None)],
        vec![Change::Merge {
            inputs: vec![isle_storage::ids::RunId(11), isle_storage::ids::RunId(5)],
            tables: vec![TableEntry { rows: 30, ..build::table("77-1", "\u{0}", "z", 1, 26) }.into()],
            snapshots: vec![SeqNo(25)],
            planned_mode: CompactionMode::Merge,
            dropped: true,
            judged: SeqNo(25),
            expiry: None,
        }],
        vec![Change::TrimLog { trimmed_seq: SeqNo(20) }],
        vec![Change::Collected { paths: vec![names::table("1-000000000000ab01-2")] }],
        vec![Change::ClaimJob { job: JobId(0x77), claim: claim.clone() }],
        vec![Change::EndJob { job: JobId(0x77) }, Change::ClaimJob { job: JobId(0x78), claim }],
        vec![Change::SetGroup { group: "mail ers".to_owned(), cursor: Some(cursor) }],
        vec![add("3-b-2", 5_000), build::append(vec![newest])],
        vec![build::flush(33, vec![last], None)],
        vec![Change::SetCompaction { compaction: windows }],
        vec![Change::SetCompaction { compaction: fifo }],
        vec![],
    ]
}

fn replayed(edits: &[Edit]) -> Manifest {
    let mut m = edits.iter().fold(build::genesis(), |m, e| m.apply(e).unwrap());
    m.extra.insert("from_the_future".to_owned(), json!([1, {"two": null}]));
    m
}

fn manifest_text() -> String {
    text_fixture("manifest.txt", || text::print(&replayed(&edits())))
}

fn json_line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn edits_of_version_1_are_read_and_lead_to_the_same_manifest() {
    let lines = text_fixture("edits.ndjson", || edits().iter().map(|e| json_line(e) + "\n").collect());
    let read: Vec<Edit> = lines.lines().map(|l| Edit::from_json(l.as_bytes()).unwrap()).collect();
    let m = replayed(&read);
    assert_same_text("manifest.txt", &manifest_text(), &text::print(&m));
    for (line, edit) in lines.lines().zip(&read) {
        let again: Json = serde_json::from_slice(&edit.to_json().unwrap()).unwrap();
        assert_eq!(again, serde_json::from_str::<Json>(line).unwrap(), "nothing is lost on the way");
    }
}

#[test]
fn a_checkpoint_of_version_1_is_read() {
    let bytes = fixture("checkpoint", || checkpoint::encode(&replayed(&edits())).to_vec());
    let m = checkpoint::decode(&bytes).unwrap();
    let with_windows = Manifest {
        compaction: CompactionMode::TimeWindow { segment_us: 60, retention_us: 600, retention_count: 20 },
        ..m.clone()
    };
    let bytes = fixture("checkpoint-time-window", || checkpoint::encode(&with_windows).to_vec());
    assert_eq!(checkpoint::decode(&bytes).unwrap(), with_windows);
    assert_same_text("manifest.txt", &manifest_text(), &text::print(&m));
    assert_eq!(text::parse(&manifest_text()).unwrap(), m);
}

#[test]
fn a_checkpoint_that_needs_more_than_version_1_is_refused_as_too_new() {
    let feature = fixture("checkpoint-required-feature", || {
        let mut m = replayed(&edits());
        m.required_features.push("columns".to_owned());
        checkpoint::encode(&m).to_vec()
    });
    let newer = fixture("checkpoint-format-2", || {
        let mut m = replayed(&edits());
        m.format = 2;
        checkpoint::encode(&m).to_vec()
    });
    for (bytes, why) in [(feature, "columns"), (newer, "format 2")] {
        let error = checkpoint::decode(&bytes).unwrap_err();
        assert!(matches!(&error, FormatError::TooNew { why: w, .. } if w.contains(why)), "{error}");
    }
}

/// Every compaction mode in its JSON form.
#[test]
fn modes_of_version_1_are_read() {
    let mut modes = vec![CompactionMode::Merge];
    modes.extend(edits().into_iter().flat_map(|e| e.changes).filter_map(|c| match c {
        Change::SetCompaction { compaction } => Some(compaction),
        _ => None,
    }));
    let lines = text_fixture("modes.ndjson", || modes.iter().map(|m| json_line(m) + "\n").collect());
    let read: Vec<CompactionMode> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(read, modes);
}

#[test]
fn a_head_and_an_epoch_object_of_version_1_are_read() {
    let m = replayed(&edits());
    let reference = CheckpointRef {
        path: names::checkpoint(m.version, 0xabc),
        len: 1234,
        crc: 0xfedc_ba98,
        version: m.version,
    };
    let mut head = m.head(reference, CommitId(0xc0ff_ee00));
    head.extra.insert("from_the_future".to_owned(), json!(true));
    let line = text_fixture("head.json", || json_line(&head));
    assert_eq!(serde_json::from_str::<Head>(&line).unwrap(), head);
    assert_eq!(json_line(&head), line);
    let object = EpochObject {
        database: m.database,
        lineage: m.lineage,
        epoch: m.epoch,
        incarnation: build::incarnation(3),
        head_version: m.version,
        cut: m.epochs.last().unwrap().cut,
        epochs: m.epochs.clone(),
    };
    let line = text_fixture("epoch.json", || json_line(&object));
    assert_eq!(serde_json::from_str::<EpochObject>(&line).unwrap(), object);
    assert_eq!(json_line(&object), line);
}

pub(super) fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let m = replayed(&edits());
    let small = build::with_log(&[(1, 10), (11, 20)]);
    match target {
        "edit" => {
            let seeds = edits().into_iter().enumerate();
            seeds.map(|(n, e)| (format!("{n:02}"), e.to_json().unwrap())).collect()
        }
        "manifest_text" => {
            vec![
                ("full".to_owned(), text::print(&m).into()),
                ("small".to_owned(), text::print(&small).into()),
            ]
        }
        _ => vec![
            ("object".to_owned(), checkpoint::encode(&small).to_vec()),
            ("json-full".to_owned(), json_line(&m).into()),
            ("json-small".to_owned(), json_line(&small).into()),
        ],
    }
}
