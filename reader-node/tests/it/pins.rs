//! Long scans pin what they read; ordinary reads write nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isle_storage::coordination::Coordination;
use isle_storage::environment::Clock;
use isle_storage::ids::{Timestamp, Version};
use reader_node::{ReadError, ReadOptions, Reader, ReaderSettings, Scan, ScanRequest};

use crate::damage::wait_for;
use crate::fixture::{Shape, World};

/// One block read ahead at a time, so that a scan's later rows are not in memory when it begins.
fn settings() -> ReaderSettings {
    ReaderSettings { read_ahead_bytes: 4096, read_ahead_total_bytes: 4096, ..ReaderSettings::default() }
}

async fn world() -> World {
    let mut world = World::with(Shape { block_bytes: 256, rows_per_table: 20, chunks: true }).await;
    for n in 0..400u32 {
        world.put(format!("key/{n:04}").as_bytes(), &[b'v'; 200]);
    }
    world.commit().await;
    world.flush(1).await;
    world
}

/// A scan that has delivered one row, and a database that has moved on.
async fn long_scan(world: &mut World, reader: &Reader) -> (Scan, Version) {
    let version = reader.position().0;
    let mut scan = reader.scan(&ScanRequest::default()).await.unwrap();
    scan.next().await.unwrap().unwrap();
    supersede(world, reader).await;
    (scan, version)
}

async fn supersede(world: &mut World, reader: &Reader) {
    world.put(b"zzz", b"new");
    world.commit().await;
    world.flush(1).await;
    world.catch_up(reader).await;
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_outlives_its_view_pins_it_and_lets_go_at_its_end() {
    let mut world = world().await;
    let reader = world.reader_with(settings()).await;
    let (scan, version) = long_scan(&mut world, &reader).await;
    pass(30).await;
    assert_eq!(world.coordination.pins(), 0, "still within any grace");
    pass(40).await;
    wait_for(|| world.coordination.pins() == 1).await;
    let newest = world.manifest().version;
    assert_eq!(world.coordination.raise_gc_floor(newest).await.unwrap(), version);
    // The lease is lost and another taken.
    world.coordination.expire_pins();
    wait_for(|| world.coordination.pins() == 1).await;
    drop(scan);
    wait_for(|| world.coordination.pins() == 0).await;
    assert_eq!(world.coordination.raise_gc_floor(newest).await.unwrap(), newest);
}

#[tokio::test(start_paused = true)]
async fn reads_of_the_newest_view_and_short_ones_pin_nothing() {
    let mut world = world().await;
    let reader = world.reader_with(settings()).await;
    let mut scan = reader.scan(&ScanRequest::default()).await.unwrap();
    scan.next().await.unwrap().unwrap();
    for _ in 0..60 {
        pass(10).await;
        reader.get(b"key/0001", &ReadOptions::default()).await.unwrap();
        assert_eq!(world.coordination.pins(), 0, "nothing that the newest view names is retired");
    }
    drop(scan);
    supersede(&mut world, &reader).await;
    pass(600).await;
    assert_eq!(world.coordination.pins(), 0, "the scan is over");
}

/// Many scans of one view, and the pages that follow on it, have one pin among them.
#[tokio::test(start_paused = true)]
async fn scans_and_pages_of_one_view_share_a_pin() {
    let mut world = world().await;
    let reader = world.reader_with(settings()).await;
    let request = ScanRequest { limit: Some(10), ..ScanRequest::default() };
    let mut page = reader.scan(&request).await.unwrap();
    let (scan, version) = long_scan(&mut world, &reader).await;
    pass(70).await;
    wait_for(|| world.coordination.pins() == 1).await;
    while page.next().await.unwrap().is_some() {}
    let next = page.next_page();
    drop((page, scan));
    pass(5).await;
    assert_eq!(world.coordination.pins(), 1, "held for the next page");
    let request = ScanRequest { page: next, consistent: true, ..request };
    let mut page = reader.scan(&request).await.unwrap();
    assert_eq!(page.next().await.unwrap().unwrap().key, "key/0010");
    assert_eq!(world.coordination.raise_gc_floor(world.manifest().version).await.unwrap(), version);
    drop(page);
    // The view is let go of, and the pin with it.
    pass(120).await;
    wait_for(|| world.coordination.pins() == 0).await;
}

/// The floor has passed: the scan reads on, and ends in an error where something is gone, never in a hole.
#[tokio::test(start_paused = true)]
async fn a_scan_that_cannot_pin_ends_right_or_in_view_expired() {
    let mut world = world().await;
    let reader = world.reader_with(settings()).await;
    let (mut scan, _) = long_scan(&mut world, &reader).await;
    world.merge(0, 2).await;
    world.coordination.raise_gc_floor(world.manifest().version).await.unwrap();
    pass(90).await;
    assert_eq!(world.coordination.pins(), 0);
    world.collect().await;
    let (mut delivered, mut error) = (1, None);
    while error.is_none() {
        match scan.next().await {
            Ok(Some(record)) => {
                assert_eq!(record.key, format!("key/{delivered:04}"), "a hole");
                delivered += 1;
            }
            Ok(None) => panic!("the end, after {delivered} of 400"),
            Err(e) => error = Some(e),
        }
    }
    assert!(matches!(error, Some(ReadError::ViewExpired { .. })), "{error:?}");
    assert!(delivered < 400);
    assert!(scan.next().await.unwrap().is_none(), "an ended scan stays ended");
}

/// A reader that may not write goes on as before.
#[tokio::test(start_paused = true)]
async fn pinning_can_be_turned_off() {
    let mut world = world().await;
    let reader = world.reader_with(ReaderSettings { pin_after_ms: 0, ..settings() }).await;
    let (_scan, _) = long_scan(&mut world, &reader).await;
    pass(600).await;
    assert_eq!(world.coordination.pins(), 0);
}

/// A clock of a machine that sleeps when the test says so.
#[derive(Debug, Default)]
struct Sleepy(AtomicU64);

impl Clock for Sleepy {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn suspended(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Timers stand still while a machine sleeps; the view grows old all the same.
#[tokio::test(start_paused = true)]
async fn a_view_ages_while_the_machine_sleeps() {
    let world = world().await;
    let clock = Arc::new(Sleepy::default());
    let mut db = world.reader_db().await;
    db.env.clock = clock.clone();
    let reader = Reader::open(db, settings()).unwrap();
    reader.ready().await.unwrap();
    assert!(reader.health().is_well());
    clock.0.store(3600, Ordering::SeqCst);
    let health = reader.health();
    assert!(health.view_age.unwrap() >= Duration::from_secs(3600) && !health.is_well(), "{health:?}");
    // Awake, it hears from coordination again.
    wait_for(|| reader.health().is_well()).await;
}
