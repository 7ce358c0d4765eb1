//! By which instant merges took rows for expired, and what that is to snapshots: each test fails where its rule is taken
//! out.

use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::expiry::EXPIRY_FEATURE;
use isle_storage::manifest::{
    Change, Edit, Held, JudgedExpiry, Key, Manifest, Snapshot, StagedPart, TableEntry, check,
};

use super::build::*;

/// One run of 1..=10 whose rows expire from the instant 80 on.
fn expiring() -> (Manifest, u64) {
    let m = with_log(&[(1, 10), (11, 20)]);
    let table = TableEntry { min_expires: Some(Timestamp(80)), ..table("w-1", "a", "m", 1, 10) };
    let m = after(&m, flush(10, vec![table], None));
    let id = m.runs[0].id.0;
    (m, id)
}

fn judged(by: i64, held: &[(u64, i64)]) -> Option<JudgedExpiry> {
    let held: Vec<Held> =
        held.iter().map(|(seq, at)| Held { seq: SeqNo(*seq), instant: Timestamp(*at) }).collect();
    Some(JudgedExpiry { by: Some(Timestamp(by)), held })
}

/// A merge of the run `id`, planned with snapshots at `planned`, that made deletes of expired rows.
fn job(id: u64, planned: &[u64], says: Option<JudgedExpiry>) -> Change {
    let made = TableEntry { deletes: 1, ..table("j-1", "a", "m", 1, 10) };
    let mut change = merge(&[id], vec![made]);
    let Change::Merge { snapshots, judged, expiry, .. } = &mut change else { panic!("a merge") };
    *snapshots = planned.iter().copied().map(SeqNo).collect();
    (*judged, *expiry) = (SeqNo(10), says);
    change
}

fn take(name: &str, seq: u64, created: i64) -> Change {
    let snapshot = Snapshot { created: Timestamp(created), ..snapshot(seq) };
    Change::TakeSnapshot { name: name.to_owned(), snapshot }
}

fn begin(id: u64, says: Option<JudgedExpiry>) -> Change {
    let Change::Merge { inputs, snapshots, planned_mode, expiry, .. } = job(id, &[], says) else {
        panic!("a merge")
    };
    let splits = vec![Key("g".to_owned().into())];
    Change::BeginMerge { inputs, splits, snapshots, planned_mode, bottom: true, expiry, at: Timestamp(1) }
}

fn stage(m: &Manifest, part: u32, expired_by: Option<i64>) -> Change {
    let merge = *m.staged.keys().next().unwrap();
    let expired_by = expired_by.map(Timestamp);
    let made = StagedPart { tables: Vec::new(), dropped: true, judged: SeqNo(10), expired_by };
    Change::StagePart { merge, part, made, at: Timestamp(2) }
}

#[test]
fn a_snapshot_before_the_instant_of_a_merge_stops_it_and_a_later_one_does_not() {
    let (m, id) = expiring();
    for (created, harmed) in [(89, true), (90, false), (91, false)] {
        let held = after(&m, take("s", 10, created));
        match harmed {
            true => assert_refused(&held, job(id, &[], judged(90, &[])), "taken after the job was planned"),
            false => drop(after(&held, job(id, &[], judged(90, &[])))),
        }
        // Of a job that does not say, nothing is known.
        assert_refused(&held, job(id, &[], None), "taken after the job was planned");
    }
    // Nothing of these rows had expired by then, or was taken for it.
    let early = after(&m, take("s", 10, 3));
    after(&early, job(id, &[], judged(79, &[])));
    after(&early, job(id, &[], Some(JudgedExpiry { by: None, held: Vec::new() })));
}

/// Dropped and taken again at the same number by a slower clock, it is another snapshot.
#[test]
fn a_snapshot_is_planned_with_at_its_instant() {
    let (m, id) = expiring();
    let held = after(&m, take("s", 10, 85));
    after(&held, job(id, &[10], judged(90, &[(10, 85)])));
    let again = after(&after(&held, Change::DropSnapshot { name: "s".into() }), take("s", 10, 84));
    assert_refused(&again, job(id, &[10], judged(90, &[(10, 85)])), "taken after the job was planned");
    after(&again, job(id, &[10], judged(84, &[])));
    // A version that only it sees is another matter, whatever the instants are.
    let within = after(&m, take("s", 9, 95));
    assert_refused(&within, job(id, &[], judged(90, &[])), "taken after the job was planned");
}

#[test]
fn a_snapshot_before_what_was_taken_for_expired_is_refused() {
    let (m, id) = expiring();
    let done = after(&m, job(id, &[], judged(90, &[])));
    assert_eq!(done.expiry_floor, Some(Timestamp(90)));
    assert_refused(&done, take("s", 20, 89), "have been dropped");
    after(&done, take("s", 20, 90));
    // It never sinks, and rises no further than rows were taken for expired.
    let id = done.runs[0].id.0;
    let nothing = Some(JudgedExpiry { by: None, held: Vec::new() });
    for (says, floor) in [(judged(85, &[]), 90), (nothing, 90), (None, 90), (judged(99, &[]), 99)] {
        let mut again = job(id, &[], says);
        let Change::Merge { tables, .. } = &mut again else { panic!("a merge") };
        std::sync::Arc::make_mut(&mut tables[0]).name = "j-2".to_owned();
        assert_eq!(after(&done, again).expiry_floor, Some(Timestamp(floor)));
    }
    let mut sunk = after(&done, Change::SetPause { pause: None });
    sunk.expiry_floor = Some(Timestamp(89));
    assert!(check::step(&done, &sunk).unwrap_err().0.contains("expiry floor goes back"));
}

/// Parts are judged by the instant of the beginning; what they found raises the floor when the last one is there.
#[test]
fn the_parts_of_a_merge_share_one_instant() {
    let (m, id) = expiring();
    let m = after(&m, begin(id, judged(90, &[])));
    assert_refused(&m, stage(&m, 0, Some(91)), "judges by");
    let m = after(&m, stage(&m, 0, Some(88)));
    assert_eq!(m.expiry_floor, None);
    assert_eq!(after(&m, stage(&m, 1, None)).expiry_floor, Some(Timestamp(88)));
    // One of the present leaves it alone; an earlier one ends it, whatever the parts so far have found.
    let later = after(&m, take("s", 20, 90));
    assert_eq!(after(&later, stage(&later, 1, Some(90))).expiry_floor, Some(Timestamp(90)));
    assert!(after(&m, take("s", 20, 89)).staged.is_empty());
}

/// A worker that plans without a snapshot that was dropped since would harm the next one of its number.
#[test]
fn parts_are_planned_with_the_snapshots_of_the_beginning() {
    let (m, id) = expiring();
    let m = after(&m, take("s", 10, 85));
    let mut begin = begin(id, judged(90, &[(10, 85)]));
    let Change::BeginMerge { snapshots, .. } = &mut begin else { panic!("a merge begins") };
    *snapshots = vec![SeqNo(10)];
    let m = after(&after(&m, begin), Change::DropSnapshot { name: "s".into() });
    let planned = m.staged.values().next().unwrap().planned_with();
    assert!(planned.contains(&Held { seq: SeqNo(10), instant: Timestamp(85) }), "{planned:?}");
    assert_eq!(after(&m, take("s", 10, 85)).staged.len(), 1);
    assert!(after(&m, take("s", 10, 84)).staged.is_empty());
}

#[test]
fn what_an_older_program_would_judge_otherwise_announces_itself() {
    let (m, id) = expiring();
    for says in [judged(90, &[]), Some(JudgedExpiry { by: None, held: Vec::new() })] {
        assert_eq!(job(id, &[], says.clone()).required_feature(), Some(EXPIRY_FEATURE));
        assert_eq!(begin(id, says).required_feature(), Some(EXPIRY_FEATURE));
    }
    assert_eq!(job(id, &[], None).required_feature(), None);
    assert_eq!(begin(id, None).required_feature(), Some("merge_parts"));
    let begun = after(&m, begin(id, judged(90, &[])));
    assert_eq!(stage(&begun, 0, None).required_feature(), Some("merge_parts"));
    assert_eq!(stage(&begun, 0, Some(88)).required_feature(), Some(EXPIRY_FEATURE));
}

/// An edit of an older program has no such field, and one without it is written as it always was.
#[test]
fn an_edit_that_says_nothing_is_the_edit_of_old() {
    let (m, id) = expiring();
    let plain = edit(&m, vec![job(id, &[], None), begin(id, None)]);
    let json = String::from_utf8(plain.to_json().unwrap()).unwrap();
    assert!(!json.contains("expir"), "{json}");
    assert_eq!(Edit::from_json(json.as_bytes()).unwrap(), plain);
    let telling = edit(&m, vec![job(id, &[], judged(90, &[(10, 85)]))]);
    assert_eq!(Edit::from_json(&telling.to_json().unwrap()).unwrap(), telling);
}
