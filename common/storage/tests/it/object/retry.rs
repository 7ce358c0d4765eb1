//! Retries: what is repeated, what is not, and whose object a taken name holds.

use std::time::Duration;

use futures::TryStreamExt;
use isle_storage::object::StoreErrorKind;
use isle_testkit::fault::{Fault, Op, Rule};

use super::{body, path, retried};

/// "Precondition failed" that comes from our own retry of a create which had succeeded: the writer must not fence
/// itself.
#[tokio::test(start_paused = true)]
async fn a_create_whose_reply_is_lost_is_recognised_as_our_own() {
    let (faults, bucket) = retried();
    faults.inject(Rule::on(Op::Create).nth(1), Fault::LoseReply);
    bucket.create(&path("x"), body("ours")).await.unwrap();
    assert_eq!(faults.count(Op::Create, "x"), 2);
    assert_eq!(faults.count(Op::Get, "x"), 1, "it was read back");
}

#[tokio::test(start_paused = true)]
async fn a_create_that_lost_to_another_during_its_retries_says_so() {
    let (faults, bucket) = retried();
    let failing = faults.hold(Rule::on(Op::Create).nth(2));
    faults.inject(Rule::on(Op::Create).nth(1), Fault::Fail(StoreErrorKind::Transient));
    let (ours, x) = (bucket.clone(), path("x"));
    let task = tokio::spawn(async move { ours.create(&path("x"), body("ours")).await });
    failing.arrived(1).await;
    bucket.put(&x, body("theirs")).await.unwrap();
    failing.open();
    assert_eq!(task.await.unwrap().unwrap_err().kind, StoreErrorKind::AlreadyExists);
    assert_eq!(bucket.get(&x).await.unwrap(), "theirs");
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_at_the_first_attempt_is_anothers_even_with_equal_bytes() {
    let (faults, bucket) = retried();
    bucket.put(&path("x"), body("same")).await.unwrap();
    let lost = bucket.create(&path("x"), body("same")).await.unwrap_err();
    assert_eq!(lost.kind, StoreErrorKind::AlreadyExists);
    assert_eq!(faults.count(Op::Get, "*"), 0);
}

/// A commit's outcome is never guessed: a name that is taken but cannot be read is unknown, not lost.
#[tokio::test(start_paused = true)]
async fn a_taken_name_that_cannot_be_read_back_is_unknown() {
    let (faults, bucket) = retried();
    faults.inject(Rule::on(Op::Create).nth(1), Fault::LoseReply);
    faults.inject(Rule::on(Op::Get), Fault::Fail(StoreErrorKind::NotFound));
    let error = bucket.create(&path("x"), body("ours")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_happened_never_fails_as_if_it_had_not() {
    let (faults, bucket) = retried();
    faults.inject(Rule::on(Op::Put).nth(1), Fault::LoseReply);
    faults.inject(Rule::on(Op::Put), Fault::Fail(StoreErrorKind::Denied));
    let error = bucket.put(&path("x"), body("1")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
    assert!(error.message.contains("may have happened"), "{error}");
    let first = bucket.put(&path("x"), body("1")).await.unwrap_err();
    assert_eq!(first.kind, StoreErrorKind::Denied, "a first attempt that is refused is refused");
}

/// A transient store error costs a retry, not the process: ten seconds of 503.
#[tokio::test(start_paused = true)]
async fn an_outage_within_the_budget_is_ridden_out() {
    let (faults, bucket) = retried();
    bucket.put(&path("x"), body("1")).await.unwrap();
    let outage = faults.inject(Rule::any(), Fault::Fail(StoreErrorKind::Transient));
    let healing = tokio::spawn({
        let faults = faults.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            faults.remove(outage);
        }
    });
    assert_eq!(bucket.get(&path("x")).await.unwrap(), "1");
    healing.await.unwrap();
    assert!(faults.count(Op::Get, "x") < 20, "back-off grows: {}", faults.count(Op::Get, "x"));
}

/// A bounded retry says what it waited for.
#[tokio::test(start_paused = true)]
async fn beyond_the_budget_the_error_tells_how_long_was_tried() {
    let (faults, bucket) = retried();
    faults.inject(Rule::any(), Fault::Fail(StoreErrorKind::Transient));
    let started = tokio::time::Instant::now();
    let error = bucket.put(&path("x"), body("1")).await.unwrap_err();
    assert!(started.elapsed() <= Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(error.is_transient() && error.message.contains("gave up after"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn definite_answers_are_not_repeated() {
    let (faults, bucket) = retried();
    assert!(bucket.get(&path("gone")).await.unwrap_err().is_not_found());
    faults.inject(Rule::on(Op::Head), Fault::Fail(StoreErrorKind::Denied));
    assert_eq!(bucket.head(&path("gone")).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(faults.history().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broken_listing_goes_on_without_gap_or_repeat() {
    let (faults, bucket) = retried();
    let names: Vec<_> = (0..10).map(|n| format!("log/{n}")).collect();
    for name in &names {
        bucket.put(&path(name), body("x")).await.unwrap();
    }
    faults.inject(Rule::on(Op::List).nth(1), Fault::Truncate(4));
    faults.inject(Rule::on(Op::List).nth(1), Fault::Fail(StoreErrorKind::Transient));
    faults.inject(Rule::on(Op::List).nth(1), Fault::Truncate(7));
    let listed: Vec<_> = bucket.list("log").map_ok(|meta| meta.path).try_collect().await.unwrap();
    assert_eq!(listed, names);
    assert_eq!(faults.count(Op::List, "log"), 4);
}
