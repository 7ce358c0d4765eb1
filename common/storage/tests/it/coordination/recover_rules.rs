//! What recover refuses, and what it passes over: each rule by a bucket that breaks it.

use isle_storage::coordination::recover::{Consent, Fate, Plan, RecoverError};
use isle_storage::coordination::{CoordinationError, epoch, fold, lineage};
use isle_storage::ids::{Epoch, Incarnation, Lineage, SeqNo};
use isle_storage::names;
use isle_storage::object::StoreErrorKind;
use isle_testkit::contract::coordination::recovering::{Recoverer, recover};
use isle_testkit::contract::coordination::world::tail_of;
use isle_testkit::contract::coordination::{World, Writer};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};

use super::services::Memory;

const NONE: Consent = Consent { loss: false, sound: false };
const LOSS: Consent = Consent { loss: true, sound: false };

/// A database with two segments before a checkpoint and three after it, its head lost.
async fn lost() -> (World, Writer) {
    let world = World::new(Memory::fresh());
    let mut writer = world.writer().await;
    writer.append(2).await;
    writer.append(2).await;
    fold::fold(&writer.db, &writer.at).await.unwrap();
    for _ in 0..3 {
        writer.append(2).await;
    }
    world.service.wipe().await;
    (world, writer)
}

async fn plan(world: &World, consent: Consent) -> Result<Plan, RecoverError> {
    Recoverer::seeing(world, world.bucket()).await.plan(consent).await
}

async fn contradiction(world: &World) -> String {
    let nothing_helps = plan(world, Consent { loss: true, sound: true }).await;
    let Err(RecoverError::Contradiction(why)) = nothing_helps else { panic!("{nothing_helps:?}") };
    assert_eq!(lineage::newest(world.bucket().as_ref()).await.unwrap().unwrap().number, 1);
    why
}

/// A hole beyond the cut may be an upload that never ended, or a loss: nobody can tell, so a person decides.
#[tokio::test]
async fn a_hole_beyond_the_cut_is_named_and_not_judged() {
    let (world, writer) = lost().await;
    let tail = writer.at.manifest.tail;
    let missing = writer.segment(tail, 3).entry;
    let beyond = writer.segment(Some(tail_of(&missing)), 1);
    writer.upload(&beyond).await;
    let Err(RecoverError::Loss { gap, kept }) = plan(&world, NONE).await else { panic!("a hole is refused") };
    assert_eq!((gap.fate, gap.first, gap.last, kept), (Fate::Unknown, SeqNo(11), SeqNo(13), SeqNo(10)));
    assert_eq!(gap.beyond, [beyond.entry.id]);
    let rebuilt = recover(&world, LOSS).await.unwrap().manifest;
    assert_eq!(rebuilt.last_seq, SeqNo(10));
}

/// A damaged segment was uploaded, so it may have been acknowledged, also where nothing comes after it.
#[tokio::test]
async fn a_damaged_last_segment_is_a_loss_and_not_the_end() {
    let (world, writer) = lost().await;
    let last = writer.segment(writer.at.manifest.tail, 2);
    let mut bytes = last.body.to_bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    writer.db.bucket.put(&last.entry.path(), bytes.into()).await.unwrap();
    let Err(RecoverError::Loss { gap, kept }) = plan(&world, NONE).await else { panic!("damage is refused") };
    assert_eq!((gap.fate, gap.first, kept), (Fate::Uploaded, SeqNo(11), SeqNo(10)));
    assert_eq!(plan(&world, LOSS).await.unwrap().manifest.last_seq, SeqNo(10));
}

/// A segment under the right name that names another predecessor is no continuation.
#[tokio::test]
async fn a_segment_with_another_predecessor_is_not_adopted() {
    let (world, writer) = lost().await;
    let mut other = writer.at.manifest.tail.unwrap();
    other.id.incarnation = Incarnation(other.id.incarnation.0 ^ 1);
    writer.upload(&writer.segment(Some(other), 2)).await;
    let plan = plan(&world, NONE).await.unwrap();
    assert_eq!((plan.manifest.last_seq, plan.orphans.log), (SeqNo(10), 1));
}

/// Nor is one of a lineage that the bucket does not list.
#[tokio::test]
async fn a_segment_of_a_foreign_lineage_is_not_adopted() {
    let (world, mut writer) = lost().await;
    let mut foreign = (*writer.at.manifest).clone();
    foreign.lineage = Lineage(77);
    let tail = foreign.tail;
    writer.at.manifest = foreign.into();
    writer.upload(&writer.segment(tail, 2)).await;
    assert_eq!(plan(&world, NONE).await.unwrap().manifest.last_seq, SeqNo(10));
}

/// A checkpoint that names what is not there is passed over for the one before it; with none left, all reasons are told.
#[tokio::test]
async fn a_checkpoint_whose_objects_are_gone_is_passed_over() {
    let world = World::new(Memory::fresh());
    let mut writer = world.writer().await;
    let first = writer.append(2).await;
    let second = writer.append(2).await;
    fold::fold(&writer.db, &writer.at).await.unwrap();
    world.service.wipe().await;
    world.bucket().delete(&second.path()).await.unwrap();
    let Err(RecoverError::Loss { gap, kept }) = plan(&world, NONE).await else { panic!("it was committed") };
    assert_eq!((gap.fate, gap.last, kept), (Fate::Committed, SeqNo(4), SeqNo(2)));
    let plan_ = plan(&world, LOSS).await.unwrap();
    assert!(plan_.rejected[0].why.contains(second.path().as_str()), "{:?}", plan_.rejected);
    assert_eq!(plan_.adopted.len(), 1);
    assert_eq!(plan_.adopted[0].id, first.id);
    // One byte shorter is not what was named either.
    let bytes = world.bucket().get(&first.path()).await.unwrap();
    world.bucket().put(&second.path(), bytes.slice(1..).into()).await.unwrap();
    let plan_ = plan(&world, LOSS).await.unwrap();
    assert!(plan_.rejected[0].why.contains("bytes instead of"), "{:?}", plan_.rejected);
}

/// A checkpoint of another history is none of ours.
#[tokio::test]
async fn a_checkpoint_of_an_unlisted_lineage_is_passed_over() {
    let (world, writer) = lost().await;
    let mut foreign = (*writer.at.manifest).clone();
    foreign.lineage = Lineage(77);
    let bucket = world.bucket();
    isle_storage::coordination::checkpoint::write_verified(bucket.as_ref(), &writer.db.env, &foreign)
        .await
        .unwrap();
    let plan = plan(&world, NONE).await.unwrap();
    assert!(plan.rejected[0].why.contains("no lineage object lists"), "{:?}", plan.rejected);
    assert_eq!(plan.manifest.last_seq, SeqNo(10));
}

/// The highest record decides where the log goes on; without it nothing is guessed. Where the checkpoint is of that epoch
/// itself it is not needed.
#[tokio::test]
async fn a_damaged_record_above_the_checkpoint_is_a_contradiction() {
    let (world, writer) = lost().await;
    let own = names::epoch(writer.claim.epoch);
    let whole = world.bucket().get(&own).await.unwrap();
    world.bucket().put(&own, b"isle-epoch 1 00000000\n{}\n".to_vec().into()).await.unwrap();
    assert_eq!(
        plan(&world, NONE).await.unwrap().manifest.last_seq,
        SeqNo(10),
        "the checkpoint is of this epoch"
    );
    world.bucket().put(&own, whole.into()).await.unwrap();
    let above = names::epoch(Epoch(9));
    world.bucket().put(&above, b"isle-epoch 1 00000000\n{}\n".to_vec().into()).await.unwrap();
    assert!(contradiction(&world).await.contains(above.as_str()));
}

/// A record that the checkpoint does not lie on, or of a foreign lineage, is a second service's.
#[tokio::test]
async fn a_record_of_another_path_is_a_contradiction() {
    let (world, writer) = lost().await;
    let mut record = epoch::read(world.bucket().as_ref(), writer.claim.epoch).await.unwrap().unwrap();
    record.epoch = Epoch(2);
    record.epochs[0].incarnation = Incarnation(1);
    record.epochs.push(isle_storage::manifest::EpochStart {
        epoch: Epoch(2),
        incarnation: Incarnation(2),
        cut: record.cut,
    });
    epoch::write(world.bucket().as_ref(), &record).await.unwrap();
    let why = contradiction(&world).await;
    assert!(why.contains("does not lead through"), "{why}");
    record.epoch = Epoch(3);
    record.lineage = Lineage(77);
    epoch::write(world.bucket().as_ref(), &record).await.unwrap();
    let why = contradiction(&world).await;
    assert!(why.contains("lineage"), "{why}");
}

/// A head that is still there tells how far the log was committed at least: a path that ends below it is a loss.
#[tokio::test]
async fn a_path_that_ends_below_the_head_is_a_loss() {
    let service = Memory::fresh();
    let world = World::new(service.clone());
    let mut writer = world.writer().await;
    writer.append(2).await;
    let last = writer.append(2).await;
    service.service.expire_writer_silently();
    world.bucket().delete(&last.path()).await.unwrap();
    let refused = plan(&world, NONE).await;
    let Err(RecoverError::Loss { gap, kept }) = refused else { panic!("{refused:?}") };
    assert_eq!((gap.fate, gap.first, gap.last, kept), (Fate::Committed, SeqNo(3), SeqNo(4), SeqNo(2)));
}

/// Whoever has the writer's role keeps it: recover waits for its lease, and gives up where it is kept alive.
#[tokio::test(start_paused = true)]
async fn a_living_writer_is_not_recovered_over() {
    let world = World::new(Memory::fresh());
    let mut writer = world.writer().await;
    writer.append(2).await;
    let refused = recover(&world, Consent { loss: false, sound: true }).await;
    let Err(RecoverError::InUse(why)) = refused else { panic!("{refused:?}") };
    assert!(
        why.contains(&writer.at.manifest.epochs.last().unwrap().epoch.to_string()) || why.contains("node-"),
        "{why}"
    );
    assert_eq!(lineage::newest(world.bucket().as_ref()).await.unwrap().unwrap().number, 1);
    writer.append(1).await;
}

/// A bucket or a service that cannot be asked is no evidence of loss.
#[tokio::test]
async fn what_cannot_be_read_at_present_is_not_taken_for_lost() {
    let (world, _writer) = lost().await;
    for path in ["log/*", "manifest/checkpoint-*", "manifest/epoch-*", "manifest/lineage-*", "isle.json"] {
        let faults = FaultBucket::new(world.bucket());
        faults.inject(Rule::on(Op::Get).path(path), Fault::Fail(StoreErrorKind::Transient));
        let refused = Recoverer::seeing(&world, faults).await.plan(LOSS).await;
        let passing = matches!(&refused, Err(RecoverError::Coordination(e)) if e.is_passing());
        assert!(passing, "{path}: {refused:?}");
    }
    let faults = FaultBucket::new(world.bucket());
    faults.inject(Rule::on(Op::List), Fault::Fail(StoreErrorKind::Denied));
    let refused = Recoverer::seeing(&world, faults).await.plan(LOSS).await;
    assert!(matches!(refused, Err(RecoverError::Coordination(CoordinationError::Denied(_)))), "{refused:?}");
}
