//! What reads were answered.

use super::*;
use crate::event::{Name, Page, Query, ReadAnswer, SeenRow, Span, Want};

/// Four keys: `a` overwritten, `b` deleted, `c` and `d` plain.
fn base() -> (Recorder, Vec<Record>) {
    let recorder = Recorder::new();
    let records = vec![
        record(1, "a", "1"),
        record(2, "b", "2"),
        record(3, "a", "3"),
        gone(4, "b"),
        record(5, "c", "5"),
        record(6, "d", "6"),
    ];
    for (seq, m) in
        (1..).zip([put("a", "1"), put("b", "2"), put("a", "3"), del("b"), put("c", "5"), put("d", "6")])
    {
        write(&recorder, seq, vec![m]);
    }
    (recorder, records)
}

#[track_caller]
fn good(query: Query, answer: ReadAnswer) {
    let (recorder, records) = base();
    read_as(&recorder, query, answer);
    clean(&recorder, records);
}

#[track_caller]
fn bad(rule: Rule, query: Query, answer: ReadAnswer) {
    let (recorder, records) = base();
    read_as(&recorder, query, answer);
    breaks(rule, &recorder, records);
}

fn keys(names: &[&str]) -> Query {
    Query::keys(names.iter().map(|k| key(k)))
}

fn range(start: &str, end: Option<&str>, limit: Option<u64>, reverse: bool) -> Query {
    Query::of(Want::Range { start: key(start), end: end.map(key), limit, reverse })
}

#[test]
fn a_get_shows_the_newest_version_of_its_view() {
    good(keys(&["a"]), answer(6, &[seen(3, "a", "3")]));
    good(keys(&["a"]), answer(2, &[seen(1, "a", "1")]));
    good(keys(&["b", "zz"]), answer(6, &[]));
    bad(Rule::ReadsMatchTheModel, keys(&["a"]), answer(6, &[seen(1, "a", "1")]));
    bad(Rule::ReadsMatchTheModel, keys(&["a"]), answer(2, &[seen(3, "a", "3")]));
    bad(Rule::ReadsMatchTheModel, keys(&["a"]), answer(6, &[seen(3, "a", "x")]));
    bad(Rule::ReadsMatchTheModel, keys(&["a"]), answer(6, &[]));
    bad(Rule::ReadsMatchTheModel, keys(&["b"]), answer(6, &[seen(2, "b", "2")]));
    bad(Rule::ReadsMatchTheModel, keys(&["zz"]), answer(6, &[seen(2, "zz", "2")]));
}

#[test]
fn several_keys_are_one_snapshot() {
    good(keys(&["a", "b", "a"]), answer(3, &[seen(3, "a", "3"), seen(2, "b", "2"), seen(3, "a", "3")]));
    bad(Rule::ReadsMatchTheModel, keys(&["a", "b"]), answer(4, &[seen(3, "a", "3"), seen(2, "b", "2")]));
    bad(Rule::ReadsMatchTheModel, keys(&["a", "b"]), answer(3, &[seen(2, "b", "2"), seen(3, "a", "3")]));
}

#[test]
fn a_scan_is_the_range_of_one_view_both_ways() {
    let all = [seen(3, "a", "3"), seen(5, "c", "5"), seen(6, "d", "6")];
    let back: Vec<SeenRow> = all.iter().rev().cloned().collect();
    good(range("", None, None, false), answer(6, &all));
    good(range("", None, None, true), answer(6, &back));
    good(range("b", Some("d"), None, false), answer(6, &all[1..2]));
    good(range("", None, Some(2), false), answer(6, &all[..2]));
    good(range("", None, Some(2), true), answer(6, &back[..2]));
    good(range("", None, Some(3), false), ReadAnswer { more: true, ..answer(6, &all[..1]) });
    good(range("z", Some("a"), None, false), answer(6, &[]));

    for rows in [vec![all[0].clone(), all[2].clone()], all[..2].to_vec(), vec![]] {
        bad(Rule::ReadsMatchTheModel, range("", None, None, false), answer(6, &rows));
        bad(
            Rule::ReadsMatchTheModel,
            range("", None, None, true),
            answer(6, &rows.into_iter().rev().collect::<Vec<_>>()),
        );
    }
    let with_deleted = [all[0].clone(), seen(2, "b", "2"), all[1].clone(), all[2].clone()];
    bad(Rule::ReadsMatchTheModel, range("", None, None, false), answer(6, &with_deleted));
    let invented = [all[0].clone(), seen(5, "bb", "5"), all[1].clone(), all[2].clone()];
    bad(Rule::ReadsMatchTheModel, range("", None, None, false), answer(6, &invented));
    bad(Rule::ReadsMatchTheModel, range("", None, Some(2), false), answer(6, &all[1..]));
    bad(
        Rule::ReadsMatchTheModel,
        range("", None, Some(3), false),
        ReadAnswer { more: true, ..answer(6, &all[1..2]) },
    );
}

#[test]
fn a_scan_is_in_order_inside_its_range_and_limit() {
    let all = [seen(3, "a", "3"), seen(5, "c", "5"), seen(6, "d", "6")];
    let back: Vec<SeenRow> = all.iter().rev().cloned().collect();
    bad(Rule::ScansAreOrdered, range("", None, None, false), answer(6, &back));
    bad(Rule::ScansAreOrdered, range("", None, None, true), answer(6, &all));
    bad(Rule::ScansAreOrdered, range("", None, Some(2), false), answer(6, &all));
    bad(Rule::ScansAreOrdered, range("", Some("d"), None, false), answer(6, &all));
    let twice = [all[0].clone(), all[0].clone(), all[1].clone(), all[2].clone()];
    bad(Rule::ScansAreOrdered, range("", None, None, false), answer(6, &twice));
}

#[test]
fn a_view_holds_the_number_asked_for() {
    good(keys(&["a"]).at_least(3), answer(3, &[seen(3, "a", "3")]));
    bad(Rule::MinSeqIsHeld, keys(&["a"]).at_least(3), answer(2, &[seen(1, "a", "1")]));
}

#[test]
fn a_client_reads_its_own_write() {
    // The write was acknowledged as 3 and its number asked for: an answer without it breaks one rule or the other.
    bad(Rule::MinSeqIsHeld, keys(&["a"]).at_least(3), answer(2, &[seen(1, "a", "1")]));
    bad(Rule::ReadsMatchTheModel, keys(&["a"]).at_least(3), answer(3, &[seen(1, "a", "1")]));
}

#[test]
fn no_view_goes_beyond_what_is_committed() {
    bad(Rule::ViewsAreCommitted, keys(&["a"]), answer(7, &[seen(3, "a", "3")]));
    let (recorder, records) = base();
    recorder.view_reported(&"reader".into(), None, 9, 7);
    breaks(Rule::ViewsAreCommitted, &recorder, records);
}

#[test]
fn views_of_a_reader_and_of_a_session_never_go_back() {
    let reader: Name = "reader".into();
    for (by_reader, by_session) in [(true, false), (false, true)] {
        let (recorder, records) = base();
        let read = |view: u64, row: SeenRow| {
            let reader = Some(&reader);
            let op = recorder.read_invoked(
                &client(),
                reader.filter(|_| by_reader),
                reader.filter(|_| by_session),
                keys(&["a"]),
            );
            (op, answer(view, &[row]))
        };
        let early = read(2, seen(1, "a", "1"));
        let late = read(5, seen(3, "a", "3"));
        recorder.read_answered(late.0, late.1);
        recorder.read_answered(early.0, early.1);
        clean(&recorder, records.clone());
        let back = read(4, seen(3, "a", "3"));
        recorder.read_answered(back.0, back.1);
        breaks(Rule::ViewsNeverGoBack, &recorder, records);
    }
}

#[test]
fn reported_views_never_go_back_within_a_lineage() {
    let report = |second: (&str, u64, u64)| {
        let (recorder, records) = base();
        let process: Name = "reader".into();
        recorder.view_reported(&process, Some(&"one".into()), 5, 5);
        recorder.view_reported(&process, Some(&second.0.into()), second.1, second.2);
        judge(&recorder, records)
    };
    assert!(report(("one", 6, 5)).is_clean());
    assert!(report(("two", 4, 5)).is_clean());
    assert!(report(("one", 4, 5)).breaks(Rule::ViewsNeverGoBack));
    assert!(report(("one", 6, 4)).breaks(Rule::ViewsNeverGoBack));
}

#[test]
fn pages_of_a_consistent_scan_are_of_one_view() {
    let pages = |second: ReadAnswer, consistent: bool| {
        let (recorder, records) = base();
        let page = |first| Some(Page { scan: "scan".into(), first, consistent });
        let first = Query { page: page(true), ..range("", None, Some(1), false) };
        read_as(&recorder, first, ReadAnswer { more: true, ..answer(5, &[seen(3, "a", "3")]) });
        read_as(&recorder, Query { page: page(false), ..range("a\0", None, None, false) }, second);
        judge(&recorder, records)
    };
    let same = answer(5, &[seen(5, "c", "5")]);
    let other = answer(6, &[seen(5, "c", "5"), seen(6, "d", "6")]);
    assert!(pages(same, true).is_clean());
    assert!(pages(other.clone(), false).is_clean());
    assert!(pages(other, true).breaks(Rule::PagesAreOneView));
}

#[test]
fn a_snapshot_stands_still() {
    let of = |view: u64| {
        let (recorder, records) = base();
        recorder.record(Event::SnapshotTaken { name: "s".into(), seq: 2 });
        let query = Query { snapshot: Some("s".into()), ..keys(&["a"]) };
        let row = if view < 3 { seen(1, "a", "1") } else { seen(3, "a", "3") };
        read_as(&recorder, query, answer(view, &[row]));
        judge(&recorder, records)
    };
    assert!(of(2).is_clean());
    assert!(of(3).breaks(Rule::SnapshotsStandStill));
}

/// Two rows that expire at 5000 and at 7000.
fn expiring(rows: &[SeenRow], judged: Option<Span>, tolerance: i64) -> Report {
    let recorder = Recorder::new();
    write(&recorder, 1, vec![put("a", "1").expiring(4000)]);
    write(&recorder, 2, vec![put("b", "2").expiring(5000)]);
    let records = vec![
        Record { expires: Some(5000), ..record(1, "a", "1") },
        Record { expires: Some(7000), ..record(2, "b", "2") },
    ];
    read_as(&recorder, range("", None, None, false), ReadAnswer { judged, ..answer(2, rows) });
    let limits = Limits { clock_tolerance: tolerance, ..Limits::default() };
    check(&recorder.events(), LogPiece::whole(records), limits)
}

#[test]
fn expiry_is_judged_when_the_read_says() {
    let (a, b) = (seen(1, "a", "1"), seen(2, "b", "2"));
    let at = |from, to| Some(Span { from, to });
    assert!(expiring(&[a.clone(), b.clone()], at(4999, 4999), 0).is_clean());
    assert!(expiring(std::slice::from_ref(&b), at(5000, 5000), 0).is_clean());
    assert!(expiring(&[], at(7000, 7000), 0).is_clean());
    assert!(expiring(&[a.clone(), b.clone()], at(5000, 5000), 0).breaks(Rule::ReadsMatchTheModel));
    assert!(expiring(std::slice::from_ref(&b), at(4999, 4999), 0).breaks(Rule::ReadsMatchTheModel));
    assert!(expiring(&[a.clone(), b.clone()], at(5000, 5000), 10).is_clean());
    assert!(expiring(std::slice::from_ref(&b), at(4000, 6000), 0).is_clean());
    assert!(expiring(&[b], None, 0).is_clean());
}

#[test]
fn one_read_judges_at_one_instant() {
    let (a, b) = (seen(1, "a", "1"), seen(2, "b", "2"));
    let wide = Some(Span { from: 4000, to: 8000 });
    for judged in [wide, None] {
        assert!(expiring(std::slice::from_ref(&b), judged, 0).is_clean());
        assert!(expiring(std::slice::from_ref(&a), judged, 0).breaks(Rule::OneInstant));
    }
}

#[test]
fn damage_and_loss_are_no_answers() {
    let failed = |code: &str| {
        let (recorder, records) = base();
        let op = recorder.read_invoked(&client(), None, None, keys(&["a"]).at_least(3));
        recorder.read_failed(op, code);
        judge(&recorder, records)
    };
    assert!(failed("view_behind").is_clean());
    assert!(failed("damaged").breaks(Rule::NoBrokenAnswers));
    assert!(failed("write_lost").breaks(Rule::AcknowledgedIsThere));
}
