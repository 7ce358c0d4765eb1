//! What was acknowledged, refused, or never answered.

use super::*;
use crate::log::Op;

#[test]
fn an_acknowledged_write_is_in_the_log() {
    let recorder = Recorder::new();
    write(&recorder, 1, vec![put("a", "1")]);
    clean(&recorder, vec![record(1, "a", "1")]);
    breaks(Rule::AcknowledgedIsThere, &recorder, vec![]);
}

#[test]
fn an_acknowledged_write_is_unaltered() {
    let recorder = Recorder::new();
    write(&recorder, 1, vec![put("a", "1").expiring(50)]);
    write(&recorder, 2, vec![put("b", "2"), del("c")]);
    let good = vec![Record { expires: Some(1050), ..record(1, "a", "1") }, record(2, "b", "2"), gone(3, "c")];
    clean(&recorder, good.clone());
    for (i, other) in [
        (0, record(1, "a", "1")),
        (0, Record { expires: Some(1051), ..record(1, "a", "1") }),
        (1, record(2, "b", "3")),
        (1, record(2, "x", "2")),
        (2, record(3, "c", "")),
    ] {
        let mut records = good.clone();
        records[i] = other;
        breaks(Rule::AcknowledgedIsUnaltered, &recorder, records);
    }
    let mut records = good;
    records.iter_mut().for_each(|r| r.epoch = Some(2));
    breaks(Rule::AcknowledgedIsUnaltered, &recorder, records);
}

#[test]
fn an_atomic_batch_is_consecutive() {
    let recorder = Recorder::new();
    let outcome = WriteOutcome::Acknowledged { epoch: 1, first_seq: 1, last_seq: 3, ack: Ack::Bucket };
    write_as(&recorder, vec![put("a", "1"), put("b", "2")], outcome);
    let records = vec![record(1, "a", "1"), record(2, "x", "9"), record(3, "b", "2")];
    breaks(Rule::AcknowledgedIsUnaltered, &recorder, records);
}

#[test]
fn an_event_has_its_number_in_its_key() {
    let recorder = Recorder::new();
    let op = recorder.write_invoked(&client(), vec![Mutation::event(key("s"), b"1")]);
    recorder.write_answered(op, acknowledged(1, 1));
    write_as(&recorder, vec![Mutation::event(key("s"), b"2")], unknown());
    let one = record(1, "s/0000000000000001", "1");
    clean(&recorder, vec![one.clone()]);
    clean(&recorder, vec![one.clone(), record(2, "s/0000000000000002", "2")]);
    breaks(Rule::AcknowledgedIsUnaltered, &recorder, vec![record(1, "s/0000000000000002", "1")]);
    breaks(Rule::SomebodyWroteIt, &recorder, vec![one, record(2, "s/0000000000000003", "2")]);
}

#[test]
fn a_refused_write_is_nowhere() {
    let recorder = Recorder::new();
    write_as(&recorder, vec![put("a", "1")], WriteOutcome::Refused { code: "not_leader".into() });
    clean(&recorder, vec![]);
    breaks(Rule::RefusedIsNowhere, &recorder, vec![record(1, "a", "1")]);
}

#[test]
fn an_unknown_write_is_whole_or_not_at_all() {
    let recorder = Recorder::new();
    write_as(&recorder, vec![put("a", "1"), del("b"), put("c", "3")], unknown());
    let whole = vec![record(1, "a", "1"), gone(2, "b"), record(3, "c", "3")];
    clean(&recorder, vec![]);
    clean(&recorder, whole.clone());
    breaks(Rule::UnknownIsWhole, &recorder, whole[..2].to_vec());
    breaks(Rule::UnknownIsWhole, &recorder, vec![record(1, "c", "3")]);
    let report = judge(&recorder, whole);
    assert_eq!((report.counts.unknown, report.counts.unknown_applied), (1, 1));
}

#[test]
fn a_write_never_answered_is_unknown() {
    let recorder = Recorder::new();
    recorder.write_invoked(&client(), vec![put("a", "1")]);
    clean(&recorder, vec![]);
    clean(&recorder, vec![record(1, "a", "1")]);
}

#[test]
fn deletes_of_unknown_outcome_are_told_apart_as_far_as_needed() {
    let recorder = Recorder::new();
    write_as(&recorder, vec![del("a")], unknown());
    write_as(&recorder, vec![del("a"), put("b", "1")], unknown());
    clean(&recorder, vec![gone(1, "a"), record(2, "b", "1")]);
    clean(&recorder, vec![gone(1, "a"), gone(2, "a"), record(3, "b", "1")]);
    breaks(
        Rule::SomebodyWroteIt,
        &recorder,
        vec![gone(1, "a"), gone(2, "a"), record(3, "b", "1"), gone(4, "a")],
    );
}

#[test]
fn nothing_appears_twice() {
    let recorder = Recorder::new();
    write_as(&recorder, vec![put("a", "1")], unknown());
    clean(&recorder, vec![record(1, "a", "1")]);
    breaks(Rule::AtMostOnce, &recorder, vec![record(1, "a", "1"), record(2, "a", "1")]);

    let recorder = Recorder::new();
    write(&recorder, 1, vec![del("a")]);
    let again = recorder.clone();
    write(&again, 1, vec![del("a")]);
    breaks(Rule::AtMostOnce, &recorder, vec![gone(1, "a")]);
}

#[test]
fn nothing_appears_that_nobody_wrote() {
    let recorder = Recorder::new();
    write(&recorder, 1, vec![put("a", "1")]);
    breaks(Rule::SomebodyWroteIt, &recorder, vec![record(1, "a", "1"), record(2, "z", "?")]);
}

#[test]
fn epochs_never_decrease_with_the_numbers_answered() {
    let with = |first: u64, second: u64| {
        let recorder = Recorder::new();
        for (seq, epoch) in [(1, first), (2, second)] {
            let outcome =
                WriteOutcome::Acknowledged { epoch, first_seq: seq, last_seq: seq, ack: Ack::Bucket };
            write_as(&recorder, vec![put("a", &seq.to_string())], outcome);
        }
        recorder
    };
    let records = vec![record(1, "a", "1"), record(2, "a", "2")];
    clean(&with(1, 2), records.clone());
    breaks(Rule::EpochsNeverDecrease, &with(2, 1), records);
}

#[test]
fn real_time_order_is_commit_order() {
    let records = vec![record(1, "a", "1"), record(2, "b", "2")];
    let concurrent = Recorder::new();
    let (b, a) = (
        concurrent.write_invoked(&client(), vec![put("b", "2")]),
        concurrent.write_invoked(&client(), vec![put("a", "1")]),
    );
    concurrent.write_answered(b, acknowledged(2, 1));
    concurrent.write_answered(a, acknowledged(1, 1));
    clean(&concurrent, records.clone());

    let after_an_answer = Recorder::new();
    write(&after_an_answer, 2, vec![put("b", "2")]);
    write(&after_an_answer, 1, vec![put("a", "1")]);
    breaks(Rule::RealTimeOrder, &after_an_answer, records.clone());

    let after_a_read = Recorder::new();
    let b = after_a_read.write_invoked(&client(), vec![put("b", "2")]);
    read(&after_a_read, 2, &["b"], &[seen(2, "b", "2")]);
    write_as(&after_a_read, vec![put("a", "1")], unknown());
    after_a_read.write_answered(b, acknowledged(2, 1));
    breaks(Rule::RealTimeOrder, &after_a_read, records);
}

#[test]
fn a_provisional_write_stands_at_its_numbers_or_is_lost() {
    let recorder = Recorder::new();
    let outcome = WriteOutcome::Acknowledged { epoch: 1, first_seq: 1, last_seq: 1, ack: Ack::Provisional };
    write_as(&recorder, vec![put("a", "1")], outcome);
    let outcome = WriteOutcome::Acknowledged { epoch: 2, first_seq: 1, last_seq: 1, ack: Ack::Bucket };
    let other = recorder.clone();
    clean(&recorder, vec![record(1, "a", "1")]);
    write_as(&other, vec![put("b", "2")], outcome);
    clean(&recorder, vec![record(1, "b", "2")]);
    breaks(Rule::RefusedIsNowhere, &recorder, vec![record(1, "b", "2"), record(2, "a", "1")]);
}

#[test]
fn lines_of_an_ingest_are_committed_in_their_order_up_to_where_it_said() {
    let ingest = |lines, last_seq, rest_unknown| {
        let recorder = Recorder::new();
        let op = recorder.write_invoked(&client(), vec![put("a", "1"), put("b", "2"), put("c", "3")]);
        write_as(&recorder, vec![put("x", "x")], acknowledged(2, 1));
        recorder.write_answered(op, WriteOutcome::Streamed { lines, last_seq, rest_unknown });
        recorder
    };
    let (a, x, b) = (record(1, "a", "1"), record(2, "x", "x"), record(3, "b", "2"));
    let c = record(4, "c", "3");
    let [two, all] =
        [vec![a.clone(), x.clone(), b.clone()], vec![a.clone(), x.clone(), b.clone(), c.clone()]];
    clean(&ingest(2, 3, false), two.clone());
    clean(&ingest(2, 3, true), two.clone());
    clean(&ingest(2, 3, true), all.clone());
    clean(&ingest(3, 4, false), all.clone());
    breaks(Rule::RefusedIsNowhere, &ingest(2, 3, false), all.clone());
    breaks(Rule::AcknowledgedIsThere, &ingest(3, 4, false), two.clone());
    breaks(Rule::AcknowledgedIsThere, &ingest(2, 4, false), all);
    let swapped = vec![record(1, "b", "2"), x.clone(), record(3, "a", "1")];
    breaks(Rule::AcknowledgedIsThere, &ingest(2, 3, false), swapped);
    let skipped = vec![a, x, record(3, "c", "3")];
    breaks(Rule::UnknownIsWhole, &ingest(1, 1, true), skipped);
}

#[test]
fn a_record_waits_for_the_answer_of_a_write_under_way() {
    let recorder = Recorder::new();
    let mut checker = Checker::new(Limits::default());
    let op = recorder.write_invoked(&client(), vec![put("a", "1")]);
    checker.log(LogPiece::whole(vec![record(1, "a", "1")]));
    checker.events(&recorder.drain());
    assert!(checker.settle().is_clean());
    recorder.write_answered(op, WriteOutcome::Refused { code: "overloaded".into() });
    checker.events(&recorder.drain());
    assert!(checker.settle().breaks(Rule::RefusedIsNowhere));
    assert!(matches!(record(1, "a", "1").op, Op::Put(_)));
}
