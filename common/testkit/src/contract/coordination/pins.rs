//! Pins against the collector's floor.

use std::sync::Arc;

use futures::future::join_all;
use isle_storage::coordination::{Lease, PinAttempt};
use isle_storage::database::Database;
use isle_storage::ids::Version;

use super::world::{World, node};

async fn held(db: &Database, version: u64) -> Arc<dyn Lease> {
    match db.coordination.pin(Version(version), &node()).await.unwrap() {
        PinAttempt::Held(lease) => lease,
        PinAttempt::Passed(floor) => panic!("version {version} was refused under the floor {floor}"),
    }
}

async fn raise(db: &Database, version: u64) -> u64 {
    db.coordination.raise_gc_floor(Version(version)).await.unwrap().0
}

/// Nothing above the lowest pin is given free, by whichever collector.
pub(super) async fn a_pin_stops_the_floor_until_it_is_given_back(world: World) {
    let (reader, collector) = (world.process().await, world.process().await);
    assert_eq!(raise(&collector, 3).await, 3);
    let (low, high) = (held(&reader, 5).await, held(&reader, 7).await);
    assert_eq!(raise(&collector, 4).await, 4, "below the pins it goes where it wants");
    assert_eq!(raise(&collector, 9).await, 5);
    assert_eq!(raise(&world.process().await, 9).await, 5);
    low.give_back().await;
    assert_eq!(raise(&collector, 9).await, 7);
    high.give_back().await;
    assert_eq!(raise(&collector, 9).await, 9);
    assert_eq!(raise(&collector, 2).await, 9, "it never goes back");
}

/// The floor came first: the reader must load anew. At the floor itself nothing is lost yet.
pub(super) async fn a_version_below_the_floor_cannot_be_pinned(world: World) {
    let (reader, collector) = (world.process().await, world.process().await);
    assert_eq!(raise(&collector, 7).await, 7);
    for refused in [1, 6] {
        let attempt = reader.coordination.pin(Version(refused), &node()).await.unwrap();
        assert!(matches!(attempt, PinAttempt::Passed(Version(7))), "{attempt:?}");
    }
    assert_eq!(raise(&collector, 8).await, 8, "a refused pin holds nothing");
    let lease = held(&reader, 8).await;
    assert_eq!(raise(&collector, 20).await, 8);
    lease.give_back().await;
}

/// A holder that is gone holds nothing for ever.
pub(super) async fn the_floor_passes_a_pin_whose_lease_has_ended(world: World) {
    let (reader, collector) = (world.process().await, world.process().await);
    let _lease = held(&reader, 5).await;
    assert_eq!(raise(&collector, 9).await, 5);
    if world.service.expire_pins().await {
        assert_eq!(raise(&collector, 9).await, 9);
    }
}

/// Both at once, many times: never is a version held and given free.
pub(super) async fn of_a_pin_and_a_floor_that_race_one_gives_way(world: World) {
    let readers = join_all((0..3).map(|_| world.process())).await;
    let collectors = join_all((0..2).map(|_| world.process())).await;
    for round in 1..=20u64 {
        let version = Version(round * 10);
        let pins =
            readers.iter().map(|db| async move { db.coordination.pin(version, &node()).await.unwrap() });
        let floors = collectors.iter().map(|db| async move { raise(db, version.0 + 1).await });
        let (pins, floors) = futures::join!(join_all(pins), join_all(floors));
        let freed = floors.iter().max().copied().unwrap_or_default();
        for pin in pins {
            if let PinAttempt::Held(lease) = pin {
                assert!(freed <= version.0, "{version} is held and {freed} is free");
                lease.give_back().await;
            }
        }
    }
}
