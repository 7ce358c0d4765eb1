//! Pins hold back the collector, and only it.

use std::time::Duration;

use isle_storage::coordination::{Lease, PinAttempt};
use isle_storage::ids::Version;
use isle_testkit::embedded::Embedded;
use std::sync::Arc;

use crate::collect::{database_with_garbage, pass};
use crate::merge::{generation, node, settings};

async fn pin(e: &Embedded, version: Version) -> Result<Arc<dyn Lease>, Version> {
    match e.db.coordination.pin(version, &node("reader")).await.unwrap() {
        PinAttempt::Held(lease) => Ok(lease),
        PinAttempt::Passed(floor) => Err(floor),
    }
}

/// What a pinned version names stays as long as the pin does, and what was retired before it goes.
#[tokio::test]
async fn what_a_pinned_version_names_stays_until_the_pin_is_given_back() {
    let (e, mut scribe) = database_with_garbage().await;
    let settings = settings();
    let pinned = e.db.load().await.unwrap().manifest;
    let lease = pin(&e, pinned.version).await.unwrap();
    scribe.append(&generation(7, e.db.env.clock.now())).await;
    scribe.append(&generation(8, e.db.env.clock.now())).await;
    scribe.flush().await;
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    for _ in 0..3 {
        e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
        pass(&e, &settings).await;
    }
    let held = e.db.load().await.unwrap().manifest.retired.clone();
    assert!(!held.is_empty() && held.iter().all(|r| r.version > pinned.version), "{held:?}");
    for entry in &pinned.log {
        e.db.bucket.head(&entry.path()).await.unwrap();
    }
    lease.give_back().await;
    pass(&e, &settings).await;
    assert!(e.db.load().await.unwrap().manifest.retired.is_empty());
    let passed = pin(&e, pinned.version).await;
    assert!(passed.is_err(), "what it names is gone");
}

/// The floor goes only as far as something is deleted: a view younger than the grace can always be pinned, however often
/// the collector comes by.
#[tokio::test]
async fn a_view_younger_than_the_grace_can_be_pinned() {
    let (e, mut scribe) = database_with_garbage().await;
    let settings = settings();
    let mut deleted = 0;
    for n in 0..10 {
        let view = e.db.load().await.unwrap().manifest.version;
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
        e.clock.advance(Duration::from_secs(settings.grace_seconds / 3));
        for _ in 0..2 {
            deleted += pass(&e, &settings).await.deleted;
        }
        assert!(pin(&e, view).await.is_ok(), "round {n}");
        e.coordination.expire_pins();
    }
    assert!(deleted > 10, "the collector has collected meanwhile: {deleted}");
}
