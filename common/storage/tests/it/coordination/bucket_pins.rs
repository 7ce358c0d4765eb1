//! Pins of the bucket form: objects, judged in the store's time.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use isle_storage::coordination::{Lease, PinAttempt};
use isle_storage::database::Database;
use isle_storage::ids::Version;
use isle_storage::names;
use isle_storage::object::StoreErrorKind;
use isle_testkit::contract::coordination::World;
use isle_testkit::contract::coordination::world::node;
use isle_testkit::embedded::ManualClock;
use isle_testkit::fault::{Fault, Op, Rule};

use super::services::Objects;

fn world() -> (World, Arc<ManualClock>) {
    let clock = ManualClock::at(1_700_000_000);
    (World::new(Objects::on(clock.clone())), clock)
}

async fn pin(db: &Database, version: u64) -> PinAttempt {
    db.coordination.pin(Version(version), &node()).await.unwrap()
}

async fn held(db: &Database, version: u64) -> Arc<dyn Lease> {
    match pin(db, version).await {
        PinAttempt::Held(lease) => lease,
        PinAttempt::Passed(floor) => panic!("the floor {floor} has passed {version}"),
    }
}

async fn raise(db: &Database, version: u64) -> u64 {
    db.coordination.raise_gc_floor(Version(version)).await.unwrap().0
}

async fn objects(db: &Database, kind: &str) -> usize {
    let listed: Vec<_> = db.bucket.list("manifest").try_collect().await.unwrap();
    listed.iter().filter(|o| o.path.starts_with(&format!("manifest/{kind}-"))).count()
}

/// Moves the store's clock and the processes' timers together.
async fn wait(clock: &ManualClock, seconds: u64) {
    for _ in 0..seconds {
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A holder that renews holds for hours; what it leaves behind is one object. A dead one's pin is over after its life.
#[tokio::test(start_paused = true)]
async fn a_renewed_pin_holds_for_hours_and_a_dead_ones_ends() {
    let (world, clock) = world();
    let (reader, collector) = (world.process().await, world.process().await);
    let lease = held(&reader, 5).await;
    for _ in 0..12 {
        wait(&clock, 600).await;
        assert_eq!(raise(&collector, 9).await, 5);
        assert_eq!(objects(&collector, "pin").await, 1);
    }
    drop(lease);
    wait(&clock, 200).await;
    assert_eq!(raise(&collector, 9).await, 5, "it may only be slow");
    wait(&clock, 120).await;
    assert_eq!(raise(&collector, 9).await, 9);
    assert_eq!(objects(&collector, "pin").await, 0);
}

/// A holder that cannot renew knows it before any collector may stop heeding its pin.
#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_stops_relying_on_its_pin_first() {
    let (world, clock) = world();
    let ((reader, faults), collector) = (world.faulty().await, world.process().await);
    let lease = held(&reader, 5).await;
    faults.inject(Rule::any(), Fault::Fail(StoreErrorKind::Transient));
    let mut lost = std::pin::pin!(lease.lost());
    let mut seconds = 0;
    while futures::poll!(lost.as_mut()).is_pending() {
        wait(&clock, 1).await;
        seconds += 1;
        assert_eq!(raise(&collector, 9).await, 5, "after {seconds} s the holder still relies on it");
    }
    assert!(seconds > 200, "{seconds}");
}

/// The floor is put between the pin and the reader's look at the floors: the reader gives way.
#[tokio::test]
async fn a_floor_put_while_the_pin_is_being_made_is_seen() {
    let (world, _clock) = world();
    let ((reader, faults), collector) = (world.faulty().await, world.process().await);
    raise(&collector, 1).await;
    let gate = faults.hold(Rule::on(Op::Put).path("manifest/pin-*"));
    let pinning = tokio::spawn(async move { pin(&reader, 5).await });
    gate.arrived(1).await;
    assert_eq!(raise(&collector, 9).await, 9, "there is no pin yet");
    gate.open();
    let attempt = pinning.await.unwrap();
    assert!(matches!(attempt, PinAttempt::Passed(Version(9))), "{attempt:?}");
    assert_eq!(objects(&collector, "pin").await, 0);
}

/// The pin is made between the collector's two looks: it is seen by the second.
#[tokio::test]
async fn a_pin_made_while_the_floor_is_being_put_is_seen() {
    let (world, _clock) = world();
    let (reader, (collector, faults)) = (world.process().await, world.faulty().await);
    let gate = faults.hold(Rule::on(Op::Put).path("manifest/floor-*"));
    let raising = tokio::spawn(async move { raise(&collector, 9).await });
    gate.arrived(1).await;
    let _lease = held(&reader, 5).await;
    gate.open();
    assert_eq!(raising.await.unwrap(), 5);
}

/// Old floors do not pile up, and the newest is never among those deleted.
#[tokio::test(start_paused = true)]
async fn superseded_floors_go_and_the_newest_stays() {
    let (world, clock) = world();
    let collector = world.process().await;
    for version in 1..=20 {
        assert_eq!(raise(&collector, version).await, version);
        clock.advance(Duration::from_secs(300));
    }
    let listed: Vec<_> = collector.bucket.list("manifest").try_collect().await.unwrap();
    let floors: Vec<Version> = listed.iter().filter_map(|o| names::parse_floor(&o.path)).collect();
    assert!(floors.len() <= 4 && floors.contains(&Version(20)), "{floors:?}");
    assert!(matches!(pin(&collector, 19).await, PinAttempt::Passed(Version(20))));
}
