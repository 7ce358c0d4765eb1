//! A coordination service that is wiped or set back to an older copy, played with the memory form: noticed, refused, and
//! nothing acknowledged is lost.

use isle_storage::coordination::claim::{self, TakeoverError};
use isle_storage::coordination::follow::{Followed, follow};
use isle_storage::coordination::{CoordinationError, fold};
use isle_testkit::contract::coordination::world::{times_in, within};
use isle_testkit::contract::coordination::{World, Writer};

use super::services::Memory;

fn regressed(taken: &Result<Writer, TakeoverError>) -> bool {
    matches!(taken, Err(TakeoverError::Coordination(CoordinationError::Regressed(_))))
}

async fn try_take_over(world: &World) -> Result<Writer, TakeoverError> {
    let db = world.process().await;
    let claim = world.claim(&db).await;
    let taken = Writer::take_over(db, claim.clone()).await;
    if taken.is_err() {
        claim.lease.give_back().await;
    }
    taken
}

/// Epochs 2 and 3 are adopted and write; the copy is of epoch 1. The first claims hand out 2 and 3 again: refused. The
/// one after that starts from the cut of the highest record, although the head knows nothing of it, and every
/// acknowledged record is there.
#[tokio::test]
async fn after_a_restore_the_highest_cut_counts_and_not_the_head() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut first = world.writer().await;
    let mut acknowledged = vec![first.append(2).await];
    let copy = service.service.backup();
    acknowledged.push(first.append(1).await);
    let mut second = world.writer().await;
    acknowledged.push(second.append(3).await);
    let mut third = world.writer().await;
    acknowledged.push(third.append(1).await);
    let unnamed = third.upload_next(1).await.remove(0);
    service.service.restore(&copy);
    for _ in 2..=3 {
        let taken = try_take_over(&world).await;
        assert!(regressed(&taken), "{taken:?}");
    }
    let fourth = try_take_over(&world).await.unwrap();
    for entry in acknowledged.iter().chain([&unnamed]) {
        assert_eq!(times_in(&fourth.at.manifest, entry), 1, "{}", entry.id);
    }
    assert_eq!(fourth.at.manifest.last_seq, unnamed.last_seq);
}

/// The same where a segment of an older epoch, voided by a cut that the restored head does not know, lies where the
/// head's own path would lead: the cut decides, and the refused record stays refused.
#[tokio::test]
async fn after_a_restore_a_voided_segment_stays_void() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut first = world.writer().await;
    first.append(2).await;
    let copy = service.service.backup();
    let late = first.segment(first.at.manifest.tail, 5);
    let mut second = world.writer().await;
    let good = second.append(1).await;
    first.upload(&late).await;
    service.service.restore(&copy);
    assert!(regressed(&try_take_over(&world).await));
    let third = try_take_over(&world).await.unwrap();
    assert_eq!(times_in(&third.at.manifest, &late.entry), 0);
    assert_eq!(times_in(&third.at.manifest, &good), 1);
}

/// A restored head below a checkpoint in the bucket is refused, whatever the epochs say.
#[tokio::test]
async fn a_restored_head_below_a_checkpoint_is_refused() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut writer = world.writer().await;
    writer.append(1).await;
    let copy = service.service.backup();
    for _ in 0..3 {
        writer.append(1).await;
    }
    fold::fold(&writer.db, &writer.at).await.unwrap().unwrap();
    service.service.restore(&copy);
    for _ in 0..3 {
        let taken = try_take_over(&world).await;
        assert!(regressed(&taken), "{taken:?}");
    }
}

/// A record whose path does not lead through the head's tail is a contradiction that nobody may resolve by guessing.
#[tokio::test]
async fn a_cut_that_contradicts_the_head_is_refused() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut first = world.writer().await;
    first.append(1).await;
    let copy = service.service.backup();
    let mut second = world.writer().await;
    second.append(1).await;
    world.writer().await;
    service.service.restore(&copy);
    // The old copy goes on by itself for a while: a second path.
    let taken = try_take_over(&world).await;
    assert!(regressed(&taken), "{taken:?}");
    let gone = second.at.manifest.log.last().unwrap().path();
    world.bucket().delete(&gone).await.unwrap();
    for _ in 0..3 {
        let taken = try_take_over(&world).await;
        assert!(regressed(&taken), "{taken:?}");
    }
}

/// Whoever has seen a higher version refuses a lower one, goes on serving the last view, and follows again once the head
/// is back where it belongs.
#[tokio::test(start_paused = true)]
async fn a_follower_never_goes_back() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut writer = world.writer().await;
    writer.append(1).await;
    let copy = service.service.backup();
    writer.append(1).await;
    let newest = service.service.backup();
    let db = world.process().await;
    let (mut events, current) = follow(&db);
    let Some(Followed::Loaded(seen)) = events.recv().await else { panic!("a load comes first") };
    assert_eq!(seen.manifest, writer.at.manifest);
    for break_it in [0, 1] {
        match break_it {
            0 => service.service.restore(&copy),
            _ => service.service.wipe(),
        }
        let refused = within(async {
            loop {
                match events.recv().await.unwrap() {
                    Followed::Refused(e) => return e,
                    Followed::Loaded(at) => assert!(at.manifest.version >= seen.manifest.version),
                    _ => {}
                }
            }
        })
        .await;
        match break_it {
            0 => assert!(matches!(refused, CoordinationError::Regressed(_)), "{refused:?}"),
            _ => assert!(matches!(refused, CoordinationError::Lost(_)), "{refused:?}"),
        }
        let serving = current.borrow().clone().unwrap();
        assert_eq!(serving.manifest, seen.manifest);
        assert!(serving.trouble.is_some());
        service.service.restore(&newest);
        let back = within(async {
            loop {
                if let Followed::Loaded(at) = events.recv().await.unwrap() {
                    return at;
                }
            }
        });
        assert_eq!(back.await.manifest, seen.manifest);
        assert_eq!(current.borrow().clone().unwrap().trouble, None);
    }
}

/// While the service is away a follower says so, and resumes by itself.
#[tokio::test(start_paused = true)]
async fn a_follower_resumes_after_an_outage() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut writer = world.writer().await;
    let (mut events, mut current) = follow(&world.process().await);
    let Some(Followed::Loaded(_)) = events.recv().await else { panic!("a load comes first") };
    service.service.set_down(true);
    let down = within(async {
        loop {
            if let Followed::Down(why) = events.recv().await.unwrap() {
                return why;
            }
        }
    });
    assert!(down.await.contains("down"));
    assert!(current.borrow().as_ref().unwrap().trouble.is_some());
    service.service.set_down(false);
    writer.append(1).await;
    let version = writer.at.manifest.version;
    drop(events);
    let reached =
        within(current.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version == version))).await;
    assert_eq!(reached.unwrap().as_ref().unwrap().trouble, None);
}

/// A writer that asks again after its connection was away notices a service that came back as an older copy, and one
/// that has gone on without it.
#[tokio::test]
async fn a_writer_that_asks_again_notices_a_restore() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut first = world.writer().await;
    first.append(1).await;
    claim::check_again(&first.db, first.claim.epoch).await.unwrap();
    let copy = service.service.backup();
    world.writer().await;
    let fenced = claim::check_again(&first.db, first.claim.epoch).await;
    assert!(matches!(fenced, Err(TakeoverError::Fenced(_))), "{fenced:?}");
    service.service.restore(&copy);
    let back = claim::check_again(&first.db, first.claim.epoch).await;
    let refused = matches!(back, Err(TakeoverError::Coordination(CoordinationError::Regressed(_))));
    assert!(refused, "{back:?}");
}
