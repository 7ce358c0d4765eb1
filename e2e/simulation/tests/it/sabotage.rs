//! Proof that the checkers bite: every rule, broken on purpose, is caught.
//!
//! Each test breaks one rule, runs schedules of a plan that gives the rule work, and expects a violation within a few
//! of them. That the same plans find nothing while no rule is broken is asserted too: what is caught is the rule.

use isle_storage::sabotage::{Rule, sabotage};
use simulation::plan::{Form, Step, Trouble};
use simulation::world::{MILLI, ProcessId, SECOND, Service};
use simulation::{Plan, run_plan};

/// A plan of a service beside the bucket, without the steps drawn for it.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::new(seed);
    plan.form = Form::Service;
    plan.steps.clear();
    plan.writers = 3;
    plan.holding = 0;
    plan.copying = 0;
    plan.active = 4 * SECOND;
    plan
}

/// Writers lose their lease again and again, by the service's doing, and others take over at once.
fn contested(seed: u64) -> Plan {
    let mut plan = plan(seed);
    plan.writer.standby_poll_ms = 60;
    plan.active = 5 * SECOND;
    plan.steps = (3..14).map(|i| (i * 350 * MILLI, Step::Expire("writer"))).collect();
    plan
}

/// The violation found within `most` schedules while `rule` is broken.
fn caught(rule: Rule, most: u64, plan: impl Fn(u64) -> Plan) -> String {
    let clean = run_plan(plan(1), false);
    assert!(clean.is_clean(), "the plan alone breaks a promise: {clean}");
    let _broken = sabotage(rule);
    let found = (1..=most).find_map(|seed| {
        let report = run_plan(plan(seed), false);
        report.violations.first().map(|why| format!("seed {seed}: {why}"))
    });
    found.unwrap_or_else(|| panic!("{rule:?} was broken in {most} schedules, and nobody noticed"))
}

#[test]
fn a_commit_that_compares_the_head_only() {
    let why = caught(Rule::FenceAtCommit, 40, contested);
    assert!(why.contains("was claimed"), "{why}");
}

#[test]
fn an_acknowledgement_before_the_commit() {
    let why = caught(Rule::AcknowledgeAfterCommit, 3, plan);
    assert!(why.contains("acknowledged"), "{why}");
}

#[test]
fn garbage_collected_without_grace() {
    let why = caught(Rule::GarbageWaits, 10, plan);
    assert!(why.contains("deletes"), "{why}");
}

#[test]
fn a_head_read_before_the_claim() {
    caught(Rule::ReadAfterClaim, 40, contested);
}

#[test]
fn an_epoch_object_without_the_cut() {
    let why = caught(Rule::RecordTheCut, 5, contested);
    assert!(why.contains("cut"), "{why}");
}

#[test]
fn a_memtable_kept_across_a_reclaim() {
    caught(Rule::RebuildMemtable, 40, contested);
}

#[test]
fn a_flush_ahead_of_the_commit() {
    let why = caught(Rule::FlushAfterCommit, 20, |seed| {
        let mut plan = plan(seed);
        plan.writer.segments_per_commit = 1;
        plan.writer.segment_records = 2;
        plan.writer.generation_segments = 2;
        plan.writer.uploads_in_flight = 6;
        plan.writer.segments_unpublished = 24;
        plan.writer.max_commits_per_second = Some(10);
        plan.steps = vec![(SECOND, Step::Trouble(Service::Coordination, Trouble::Storm))];
        plan
    });
    assert!(why.contains("flushed"), "{why}");
}

#[test]
fn an_unchanged_head_taken_for_a_failure() {
    caught(Rule::UnchangedHeadProvesNothing, 40, |seed| {
        let mut plan = contested(seed);
        plan.steps.push((SECOND, Step::Trouble(Service::Store, Trouble::Storm)));
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    });
}

#[test]
fn a_head_made_where_it_is_missing() {
    let why = caught(Rule::MissingHeadIsRefused, 5, |seed| {
        let mut plan = plan(seed);
        plan.steps = vec![
            (2 * SECOND, Step::Lost(true)),
            (2_100 * MILLI, Step::Crash(ProcessId(0))),
            (2_200 * MILLI, Step::Start(ProcessId(0))),
            (4 * SECOND, Step::Lost(false)),
        ];
        plan
    });
    assert!(why.contains("second head"), "{why}");
}

#[test]
fn a_merged_run_placed_on_top() {
    caught(Rule::MergeInPlace, 20, |seed| {
        let mut plan = plan(seed);
        plan.keys = 5;
        plan.writer.generation_age_ms = 200;
        plan.compactor.l0_trigger = 2;
        plan.reading = 3;
        plan
    });
}

#[test]
fn a_merge_that_forgets_the_snapshots() {
    let why = caught(Rule::MergeForSnapshots, 20, |seed| {
        let mut plan = plan(seed);
        plan.keys = 5;
        plan.holding = 2;
        plan.writer.generation_age_ms = 200;
        plan.compactor.l0_trigger = 1;
        plan
    });
    assert!(why.contains("holding"), "{why}");
}

#[test]
fn rows_that_point_at_values_before_they_are_there() {
    let why = caught(Rule::ValuesBeforePointers, 20, |seed| {
        let mut plan = plan(seed);
        plan.keys = 5;
        plan.writer.generation_age_ms = 200;
        // Nearly every value lies in a file, and neither the log nor a group holds it for long.
        plan.writer.blob_threshold = 3;
        plan.compactor.l0_trigger = 1;
        plan.compactor.log_retention_seconds = 1;
        plan.compactor.group_max_lag_seconds = 1;
        plan.compactor.blob_garbage_percent = 10;
        plan
    });
    assert!(why.contains("which is not in the bucket"), "{why}");
}

#[test]
fn a_tail_page_delivered_twice() {
    let why = caught(Rule::DeliverOnce, 3, plan);
    assert!(why.contains("consuming"), "{why}");
}
