//! The fault-injecting store itself: each fault does what it says.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::object::{Bucket, StoreErrorKind};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};

use super::{body, memory, path};

#[tokio::test]
async fn failing_before_and_losing_the_reply_differ_in_what_is_applied() {
    let faults = FaultBucket::new(memory());
    faults.inject(Rule::on(Op::Put).path("a/*").nth(1), Fault::Fail(StoreErrorKind::Denied));
    faults.inject(Rule::on(Op::Put).path("a/*").nth(2), Fault::LoseReply);
    assert_eq!(faults.put(&path("a/1"), body("1")).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert!(faults.put(&path("a/2"), body("2")).await.unwrap_err().is_transient());
    faults.put(&path("b/3"), body("3")).await.unwrap();
    assert!(faults.get(&path("a/1")).await.unwrap_err().is_not_found());
    assert_eq!(faults.get(&path("a/2")).await.unwrap(), "2");
    let told: Vec<_> = faults.take_history().into_iter().map(|e| (e.op, e.path, e.told.unwrap())).collect();
    assert_eq!(told[1], (Op::Put, "a/2".to_owned(), Err(StoreErrorKind::Transient)));
    assert_eq!(told.len(), 5);
    assert!(faults.history().is_empty());
}

#[tokio::test]
async fn a_gate_holds_an_operation_before_or_after_it_is_applied() {
    let faults = FaultBucket::new(memory());
    let gate = faults.hold(Rule::on(Op::Put).nth(1));
    let held = {
        let faults = Arc::clone(&faults);
        tokio::spawn(async move { faults.put(&path("x"), body("late")).await })
    };
    gate.arrived(1).await;
    assert!(faults.get(&path("x")).await.unwrap_err().is_not_found());
    faults.put(&path("x"), body("early")).await.unwrap();
    gate.open();
    held.await.unwrap().unwrap();
    assert_eq!(faults.get(&path("x")).await.unwrap(), "late");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_damaged_delayed_or_never_come() {
    let faults = FaultBucket::new(memory());
    faults.put(&path("x"), body("abc")).await.unwrap();
    faults.inject(Rule::on(Op::Get).nth(1), Fault::FlipBit(-1));
    faults.inject(Rule::on(Op::Get).nth(1), Fault::Truncate(1));
    assert_eq!(faults.get(&path("x")).await.unwrap(), "abb");
    assert_eq!(faults.get(&path("x")).await.unwrap(), "a");
    faults.inject(Rule::on(Op::Get).nth(1), Fault::Delay(Duration::from_secs(5)));
    let started = tokio::time::Instant::now();
    assert_eq!(faults.get(&path("x")).await.unwrap(), "abc");
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    faults.inject(Rule::any().when(|_, path| path == "x"), Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_secs(99), faults.get(&path("x"))).await.is_err());
    faults.heal();
    assert_eq!(faults.get(&path("x")).await.unwrap(), "abc");
}
