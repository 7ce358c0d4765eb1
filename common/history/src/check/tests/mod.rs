//! The checker bites, and bites nobody who is innocent.

mod property;
mod reads;
mod tails;
mod world;
mod writes;

use super::*;
use crate::event::{Ack, Mutation, WriteOutcome};
use crate::key::Key;
use crate::log::Record;
use crate::recorder::Recorder;
use world::*;

/// Judges what was recorded against the records.
fn judge(recorder: &Recorder, records: Vec<Record>) -> Report {
    check(&recorder.events(), LogPiece::whole(records), Limits::default())
}

#[track_caller]
fn clean(recorder: &Recorder, records: Vec<Record>) {
    let report = judge(recorder, records);
    assert!(report.is_clean(), "{report}");
}

#[track_caller]
fn breaks(rule: Rule, recorder: &Recorder, records: Vec<Record>) {
    let report = judge(recorder, records);
    assert!(report.breaks(rule), "expected {rule}: {report}");
}

#[test]
fn the_log_is_judged_by_itself() {
    let recorder = Recorder::new();
    let log = || {
        write(&recorder, 1, vec![put("a", "1")]);
        write(&recorder, 2, vec![put("a", "2")]);
        vec![record(1, "a", "1"), record(2, "a", "2")]
    };
    let good = log();
    clean(&recorder, good.clone());

    breaks(Rule::NumbersAreDense, &recorder, vec![good[0].clone(), Record { seq: 3, ..good[1].clone() }]);
    breaks(Rule::NumbersAreDense, &recorder, vec![good[0].clone(), good[0].clone(), good[1].clone()]);
    let early = Record { time: good[0].time - 1, ..good[1].clone() };
    breaks(Rule::TimesNeverDecrease, &recorder, vec![good[0].clone(), early]);
    let mut epochs = good.clone();
    (epochs[0].epoch, epochs[1].epoch) = (Some(2), Some(1));
    breaks(Rule::EpochsNeverDecrease, &recorder, epochs);
}

#[test]
fn a_log_that_lacks_its_bottom_is_judged_above_it() {
    let recorder = Recorder::new();
    write(&recorder, 1, vec![put("a", "1")]);
    write(&recorder, 2, vec![put("b", "2")]);
    read(&recorder, 2, &["a", "b"], &[seen(1, "a", "1"), seen(2, "b", "2")]);
    let piece = LogPiece { after: 1, through: 2, records: vec![record(2, "b", "2")] };
    let report = check(&recorder.events(), piece.clone(), Limits::default());
    assert!(report.is_clean() && report.counts.unjudged == 2, "{report}");

    read(&recorder, 2, &["b"], &[seen(2, "b", "other")]);
    assert!(check(&recorder.events(), piece, Limits::default()).breaks(Rule::ReadsMatchTheModel));
}

#[test]
fn a_run_is_judged_while_it_goes_on_and_memory_is_bounded() {
    let recorder = Recorder::new();
    let mut checker = Checker::new(Limits { keep: Some(50), ..Limits::default() });
    let mut through = 0;
    for round in 0..200_u64 {
        let mut records = Vec::new();
        for n in 1..=10 {
            let seq = round * 10 + n;
            let (key, value) = (format!("k{}", seq % 7), format!("v{seq}"));
            write(&recorder, seq, vec![put(&key, &value)]);
            records.push(record(seq, &key, &value));
            if n == 5 {
                read(&recorder, seq, &[&key], &[seen(seq, &key, &value)]);
            }
        }
        // The log arrives a little late: half of this round's events talk of numbers it does not reach yet.
        checker.events(&recorder.drain());
        checker.settle();
        let end = through + 10;
        checker.log(LogPiece { after: through, through: end, records });
        through = end;
        assert!(checker.settle().is_clean(), "{}", checker.report());
        assert!(checker.truth.unclaimed.is_empty());
        let versions: usize =
            (0..7).map(|k| checker.truth.model.versions(&Key::new(format!("k{k}").as_bytes())).len()).sum();
        assert!(versions <= 60, "{versions} versions");
    }
    read(&recorder, through, &["k1"], &[seen(1, "k1", "v1")]);
    checker.events(&recorder.drain());
    let report = checker.finish();
    assert_eq!((report.total, report.counts.acknowledged), (1, 2000), "{report}");
}

#[test]
fn a_sparse_log_is_judged_for_its_own_keys() {
    let recorder = Recorder::new();
    write(&recorder, 3, vec![put("a", "1")]);
    write(&recorder, 7, vec![put("a", "2"), put("b", "3")]);
    let records = vec![record(3, "a", "1"), record(7, "a", "2"), record(8, "b", "3")];
    let piece = LogPiece { after: 0, through: 20, records };
    let limits = Limits { sparse: true, ..Limits::default() };
    let report = check(&recorder.events(), piece.clone(), limits.clone());
    assert!(report.is_clean(), "{report}");

    write(&recorder, 12, vec![put("c", "4")]);
    assert!(check(&recorder.events(), piece, limits).breaks(Rule::AcknowledgedIsThere));
}

#[test]
fn violations_are_counted_beyond_their_limit_and_print_their_context() {
    let recorder = Recorder::new();
    recorder.remark("writer killed");
    for seq in 1..=20 {
        write(&recorder, seq, vec![put("a", "1")]);
    }
    let report =
        check(&recorder.events(), LogPiece::default(), Limits { violations: 5, ..Limits::default() });
    assert!(report.violations.len() == 5 && report.total >= 20, "{report}");
    assert!(report.to_string().contains("-- writer killed"), "{report}");
}

#[test]
fn answers_without_a_question_are_no_history() {
    let recorder = Recorder::new();
    let op = recorder.write_invoked(&client(), vec![put("a", "1")]);
    recorder.write_answered(op, WriteOutcome::Refused { code: "overloaded".into() });
    clean(&recorder, vec![]);
    recorder.write_answered(op, WriteOutcome::Refused { code: "overloaded".into() });
    breaks(Rule::HistoryIsSound, &recorder, vec![]);
}
