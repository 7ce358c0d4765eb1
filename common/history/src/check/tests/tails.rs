//! What consumers were given.

use super::*;
use crate::event::{Name, Start};

fn log() -> (Recorder, Vec<Record>, Name) {
    let recorder = Recorder::new();
    let records: Vec<Record> =
        (1..=5).map(|seq| record(seq, if seq % 2 == 0 { "even" } else { "odd" }, &seq.to_string())).collect();
    for r in &records {
        let k = if r.seq % 2 == 0 { "even" } else { "odd" };
        write(&recorder, r.seq, vec![put(k, &r.seq.to_string())]);
    }
    (recorder, records, "consumer".into())
}

/// What a consumer that started somewhere and got these numbers shows.
fn given(from: Start, prefix: Option<&str>, numbers: &[usize]) -> Report {
    let (recorder, records, consumer) = log();
    recorder.consumer_started(&consumer, from, prefix.map(key));
    for n in numbers {
        recorder.delivered(&consumer, records[n - 1].clone());
    }
    judge(&recorder, records)
}

#[test]
fn a_consumer_sees_the_commit_order_from_where_it_started() {
    assert!(given(Start::Earliest, None, &[1, 2, 3]).is_clean());
    assert!(given(Start::After(2), None, &[3, 4, 5]).is_clean());
    assert!(given(Start::Anywhere, None, &[4, 5]).is_clean());
    assert!(given(Start::Earliest, Some("even"), &[2, 4]).is_clean());

    assert!(given(Start::Earliest, None, &[2, 3]).breaks(Rule::TailHasNoGap));
    assert!(given(Start::Earliest, None, &[1, 3]).breaks(Rule::TailHasNoGap));
    assert!(given(Start::After(2), None, &[4]).breaks(Rule::TailHasNoGap));
    assert!(given(Start::After(2), None, &[2, 3]).breaks(Rule::TailNeverRepeats));
    assert!(given(Start::Earliest, None, &[1, 2, 2]).breaks(Rule::TailNeverRepeats));
    assert!(given(Start::Earliest, None, &[1, 2, 1]).breaks(Rule::TailNeverRepeats));
    assert!(given(Start::Anywhere, None, &[3, 5]).breaks(Rule::TailHasNoGap));
    assert!(given(Start::Earliest, Some("even"), &[4]).breaks(Rule::TailHasNoGap));
    assert!(given(Start::Earliest, Some("even"), &[2, 3]).breaks(Rule::TailIsTheLog));
}

#[test]
fn a_resume_continues_after_the_cursor_that_was_kept() {
    let resumed = |after: u64, next: usize| {
        let (recorder, records, consumer) = log();
        recorder.consumer_started(&consumer, Start::Earliest, None);
        recorder.delivered(&consumer, records[0].clone());
        recorder.delivered(&consumer, records[1].clone());
        recorder.consumer_started(&consumer, Start::After(after), None);
        recorder.delivered(&consumer, records[next - 1].clone());
        judge(&recorder, records)
    };
    assert!(resumed(2, 3).is_clean());
    assert!(resumed(1, 2).is_clean());
    assert!(resumed(2, 2).breaks(Rule::TailNeverRepeats));
    assert!(resumed(2, 4).breaks(Rule::TailHasNoGap));
}

#[test]
fn a_cursor_skips_nothing_and_goes_back_nowhere() {
    let told = |through: u64| {
        let (recorder, records, consumer) = log();
        recorder.consumer_started(&consumer, Start::After(1), Some(key("even")));
        recorder.delivered(&consumer, records[1].clone());
        recorder.advanced(&consumer, through);
        judge(&recorder, records)
    };
    assert!(told(3).is_clean());
    assert!(told(4).breaks(Rule::TailHasNoGap));
    assert!(told(1).breaks(Rule::TailNeverRepeats));
    assert!(told(9).breaks(Rule::TailIsTheLog));
}

#[test]
fn a_consumer_gets_what_was_committed() {
    let altered = |change: fn(&mut Record)| {
        let (recorder, records, consumer) = log();
        recorder.consumer_started(&consumer, Start::After(4), None);
        let mut record = records[4].clone();
        change(&mut record);
        recorder.delivered(&consumer, record);
        judge(&recorder, records)
    };
    assert!(altered(|r| r.epoch = Some(1)).is_clean());
    for change in [
        |r: &mut Record| r.key = key("x"),
        |r: &mut Record| r.op = crate::log::Op::Delete,
        |r: &mut Record| r.time += 1,
        |r: &mut Record| r.expires = Some(1),
        |r: &mut Record| r.seq = 6,
    ] {
        assert!(altered(change).breaks(Rule::TailIsTheLog));
    }
}
