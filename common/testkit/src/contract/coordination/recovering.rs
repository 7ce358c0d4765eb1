//! Recover: the head rebuilt from the bucket, and the old history fenced.

use std::sync::Arc;

use futures::TryStreamExt;
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::follow::{Followed, follow};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::recover::{Consent, Fresh, Plan, RecoverError, carry_out, plan, survey};
use isle_storage::coordination::{Coordination, CoordinationError, JobAttempt, Loaded, epoch, fold, lineage};
use isle_storage::environment::Environment;
use isle_storage::ids::{CommitId, Incarnation, JobId, Lineage, SeqNo, Version};
use isle_storage::manifest::{Author, LogEntry, Manifest};
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::{Bucket, StoreErrorKind};

use super::world::{NAME, World, creating, deadline, edit, node, observe_until_in, times_in, within};
use crate::fault::{Fault, FaultBucket, Op, Rule};

/// One process that recovers.
pub struct Recoverer {
    bucket: Arc<dyn Bucket>,
    coordination: Arc<dyn Coordination>,
    env: Environment,
}

impl Recoverer {
    /// A process that sees the bucket as `bucket`.
    pub async fn seeing(world: &World, bucket: Arc<dyn Bucket>) -> Self {
        let coordination = world.service.connect(bucket.clone()).await;
        Self { bucket, coordination, env: Environment::system("test", NAME) }
    }

    /// What it would do.
    ///
    /// # Errors
    /// As [`plan`].
    pub async fn plan(&self, consent: Consent) -> Result<Plan, RecoverError> {
        let found = survey(&self.bucket, &self.coordination, &self.env, NAME, &|_| ()).await?;
        let fresh = Fresh {
            lineage: Lineage(self.env.entropy.next_u128()),
            incarnation: Incarnation(self.env.entropy.next_u64()),
            commit: CommitId(self.env.entropy.next_u64()),
        };
        plan(&found, consent, fresh)
    }

    /// Does it.
    ///
    /// # Errors
    /// As [`carry_out`].
    pub async fn carry_out(&self, plan: &Plan) -> Result<Loaded, RecoverError> {
        carry_out(&self.bucket, &self.coordination, &self.env, plan, &|_| ()).await
    }
}

/// Recovers in a process of its own.
///
/// # Errors
/// As [`plan`] and [`carry_out`].
pub async fn recover(world: &World, consent: Consent) -> Result<Loaded, RecoverError> {
    let process = Recoverer::seeing(world, world.bucket()).await;
    let plan = process.plan(consent).await?;
    process.carry_out(&plan).await
}

const NONE: Consent = Consent { loss: false, sound: false };

async fn refused_by_everybody(world: &World) {
    for mode in [creating(), OpenMode::Existing] {
        let opened = world.try_open(world.bucket(), NAME, &mode).await;
        let refused = matches!(opened, Err(CoordinationError::Lost(_) | CoordinationError::WrongDatabase(_)));
        assert!(refused, "{opened:?}");
    }
}

fn holds_all(manifest: &Manifest, entries: &[LogEntry]) {
    for entry in entries {
        assert_eq!(times_in(manifest, entry), 1, "{} in {:?}", entry.id, manifest.log);
    }
}

/// Everything that was acknowledged is there again, under a new lineage and an epoch above every one seen, and so is
/// what was uploaded after it; a writer goes on from there.
pub(super) async fn a_lost_head_is_rebuilt(world: World) {
    let mut first = world.writer().await;
    let mut all = vec![first.append(2).await];
    fold::fold(&first.db, &first.at).await.unwrap();
    all.push(first.append(1).await);
    let mut second = world.writer().await;
    for _ in 0..3 {
        all.push(second.append(2).await);
    }
    all.extend(second.upload_next(2).await);
    world.service.lose_head().await;
    refused_by_everybody(&world).await;

    let rebuilt = recover(&world, NONE).await.unwrap().manifest;
    holds_all(&rebuilt, &all);
    assert_eq!(rebuilt.last_seq, all.last().unwrap().last_seq);
    assert_ne!(rebuilt.lineage, second.at.manifest.lineage);
    assert!(rebuilt.epoch > second.claim.epoch && rebuilt.version > second.at.manifest.version);
    let newest = lineage::newest(world.bucket().as_ref()).await.unwrap().unwrap();
    assert_eq!((newest.number, newest.lineage), (2, rebuilt.lineage));
    let record = epoch::read(world.bucket().as_ref(), rebuilt.epoch).await.unwrap().unwrap();
    assert_eq!((record.cut, record.lineage), (rebuilt.tail, rebuilt.lineage));

    assert_eq!(world.fresh_load().await.manifest, rebuilt);
    let mut third = world.writer().await;
    assert_eq!(third.claim.epoch, rebuilt.epoch.next());
    all.push(third.append(1).await);
    holds_all(&world.fresh_load().await.manifest, &all);

    // And once more, from what the new history has left in the bucket.
    world.service.lose_head().await;
    let again = recover(&world, NONE).await.unwrap().manifest;
    holds_all(&again, &all);
    assert!(again.epoch > third.claim.epoch);
}

/// A writer of the old lineage commits nothing into the new one, and hears that its write is not part of it once a
/// record says so; claims of jobs and the writer's role are gone, and edits of the old history are not replayed.
pub(super) async fn the_old_history_is_fenced_and_forgotten(world: World) {
    let mut old = world.writer().await;
    old.append(1).await;
    let job = JobId(8);
    let claimed = old.db.coordination.claim_job(job, &node()).await.unwrap();
    let JobAttempt::Won(right, _lease) = claimed else { panic!("{claimed:?}") };
    old.at = old.db.load().await.unwrap();
    let late = old.segment(old.at.manifest.tail, 2);
    let (append, job_edit) = (old.propose(std::slice::from_ref(&late.entry)), {
        let edit = edit(&old.db, &old.at.manifest, Author::Job(job), Vec::new());
        commit::propose(&old.at.state, &old.at.manifest, edit, &right).unwrap()
    });
    world.service.expire_writer().await;
    let rebuilt = recover(&world, Consent { sound: true, loss: false }).await.unwrap().manifest;
    old.upload(&late).await;

    let other = world.process().await;
    assert!(!other.coordination.job_is_claimed(job).await.unwrap());
    let resolved = commit::commit(&old.db, &job_edit, deadline()).await;
    assert!(matches!(resolved, Resolved::Fenced(_) | Resolved::Moved(_)), "{resolved:?}");
    let resolved = commit::commit(&old.db, &append, deadline()).await;
    assert!(matches!(resolved, Resolved::Fenced(_)), "{resolved:?}");
    let next = world.writer().await;
    assert_eq!(times_in(&next.at.manifest, &late.entry), 0);
    assert_eq!(next.at.manifest.last_seq, rebuilt.last_seq);
    assert_eq!(next.at.manifest.version, rebuilt.version.next());
    // The old writer's process comes back as a writer of the new history.
    let back = world.writer_in(old.db.clone()).await;
    assert_eq!(back.at.manifest.lineage, rebuilt.lineage);
}

/// A recover that fails at any of its writes leaves every role refusing, and is finished by the next one.
pub(super) async fn a_crash_between_any_two_writes_is_finished(world: World) {
    let mut writer = world.writer().await;
    let mut all = vec![writer.append(2).await];
    fold::fold(&writer.db, &writer.at).await.unwrap();
    all.push(writer.append(1).await);
    let mut crashes = 0;
    for writes in 0..10 {
        all.extend(writer.upload_next(1).await);
        world.service.lose_head().await;
        let faults = FaultBucket::new(world.bucket());
        for op in [Op::Put, Op::Create] {
            let writing = Rule::on(op).when(|_, path| !path.starts_with("probe/"));
            faults.inject(writing.after(writes), Fault::Fail(StoreErrorKind::Denied));
        }
        let process = Recoverer::seeing(&world, faults).await;
        let plan = process.plan(NONE).await.unwrap();
        if process.carry_out(&plan).await.is_err() {
            crashes += 1;
            refused_by_everybody(&world).await;
            recover(&world, NONE).await.unwrap();
        }
        let now = world.fresh_load().await.manifest;
        holds_all(&now, &all);
        assert_eq!(now.last_seq, all.last().unwrap().last_seq);
        writer = world.writer().await;
    }
    assert!(crashes >= 2, "only {crashes} of them crashed");
}

/// Two recovers at once end with one history.
pub(super) async fn of_two_recovers_at_once_one_wins(world: World) {
    let mut writer = world.writer().await;
    let entry = writer.append(2).await;
    world.service.lose_head().await;
    let one = Recoverer::seeing(&world, world.bucket()).await;
    let two = Recoverer::seeing(&world, world.bucket()).await;
    let (first, second) = (one.plan(NONE).await.unwrap(), two.plan(NONE).await.unwrap());
    let (first, second) = tokio::join!(one.carry_out(&first), two.carry_out(&second));
    let won = [&first, &second].into_iter().filter(|r| r.is_ok()).count();
    assert_eq!(won, 1, "{first:?} {second:?}");
    let lost = first.err().or(second.err()).unwrap();
    assert!(matches!(lost, RecoverError::InUse(_)), "{lost}");
    assert_eq!(times_in(&world.fresh_load().await.manifest, &entry), 1);
}

/// What was planned against one head is not carried out against another.
pub(super) async fn a_head_that_moves_is_not_replaced(world: World) {
    let mut writer = world.writer().await;
    writer.append(1).await;
    world.service.expire_writer().await;
    let process = Recoverer::seeing(&world, world.bucket()).await;
    let plan = process.plan(Consent { sound: true, loss: false }).await.unwrap();
    observe_until_in(&writer.db, "meanwhile", 0).await;
    let refused = process.carry_out(&plan).await;
    assert!(matches!(refused, Err(RecoverError::InUse(_))), "{refused:?}");
    assert_eq!(
        lineage::newest(world.bucket().as_ref()).await.unwrap().unwrap().number,
        1,
        "nothing was written"
    );
    // Neither below the check: the form itself compares.
    let replaced = process.coordination.replace(&plan.remains, &plan.manifest, &plan_checkpoint(&plan)).await;
    if !world.head_is_in_bucket() {
        assert!(matches!(replaced, Ok(false)), "{replaced:?}");
        assert_eq!(world.fresh_load().await.manifest.lineage, writer.at.manifest.lineage);
    }
}

fn plan_checkpoint(plan: &Plan) -> isle_storage::manifest::CheckpointRef {
    let version = plan.manifest.version;
    isle_storage::manifest::CheckpointRef { path: names::checkpoint(version, 1), len: 1, crc: 1, version }
}

/// A head that is whole, and that the bucket knows nothing beyond, is not thrown away.
pub(super) async fn a_sound_head_is_left_alone(world: World) {
    let mut writer = world.writer().await;
    writer.append(1).await;
    world.service.expire_writer().await;
    let refused = recover(&world, NONE).await;
    let Err(RecoverError::Sound(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("sequence number 1"), "{why}");
    assert_eq!(world.fresh_load().await.manifest, writer.at.manifest);
    let none = World::new(world.service.clone());
    world.service.wipe().await;
    let listed: Vec<_> = world.bucket().list("").try_collect().await.unwrap();
    for object in listed {
        world.bucket().delete(&ObjectPath::new(object.path).unwrap()).await.unwrap();
    }
    let refused = recover(&none, NONE).await;
    assert!(
        matches!(refused, Err(RecoverError::Coordination(CoordinationError::NotFound(_)))),
        "{refused:?}"
    );
}

/// A process that follows the old history is told, and goes on with the new one; a writer that was writing contests
/// anew.
pub(super) async fn whoever_follows_goes_over_to_the_new_history(world: World) {
    let mut writer = world.writer().await;
    let entry = writer.append(1).await;
    let db = world.try_open(world.bucket(), NAME, &OpenMode::Existing).await.unwrap();
    let (mut events, _current) = follow(&db);
    assert!(matches!(within(events.recv()).await, Some(Followed::Loaded(_))));
    world.service.expire_writer().await;
    let rebuilt = recover(&world, Consent { sound: true, loss: false }).await.unwrap();
    let seen = within(async {
        loop {
            if let Some(Followed::Loaded(at)) = events.recv().await
                && at.manifest.lineage == rebuilt.manifest.lineage
            {
                return at;
            }
        }
    })
    .await;
    assert_eq!(times_in(&seen.manifest, &entry), 1);
    let mut next = world.writer().await;
    next.append(1).await;
    within(async { while !matches!(events.recv().await, Some(Followed::Advanced { .. })) {} }).await;
    let proposal = writer.propose(&[writer.segment(writer.at.manifest.tail, 1).entry]);
    let resolved = commit::commit(&writer.db, &proposal, deadline()).await;
    assert!(matches!(resolved, Resolved::Fenced(_)), "{resolved:?}");
}

/// The newest checkpoint is damaged, or is of nobody: the one before it and the log give the same rows.
pub(super) async fn a_damaged_checkpoint_is_passed_over(world: World) {
    let mut writer = world.writer().await;
    let mut all = vec![writer.append(2).await];
    fold::fold(&writer.db, &writer.at).await.unwrap();
    for _ in 0..3 {
        all.push(writer.append(1).await);
    }
    writer.at = writer.db.load().await.unwrap();
    fold::fold(&writer.db, &writer.at).await.unwrap();
    let (version, newest) = newest_checkpoint(&world).await;
    let mut bytes = world.bucket().get(&newest).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.bucket().put(&newest, bytes.into()).await.unwrap();
    world.service.lose_head().await;
    let process = Recoverer::seeing(&world, world.bucket()).await;
    let plan = process.plan(NONE).await.unwrap();
    assert_eq!(plan.rejected.len(), 1, "{:?}", plan.rejected);
    assert!(plan.rejected[0].why.contains("damaged") && plan.base_version < version, "{plan:?}");
    let rebuilt = process.carry_out(&plan).await.unwrap().manifest;
    holds_all(&rebuilt, &all);
    // From now on the newest two are sound.
    let (version, newest) = newest_checkpoint(&world).await;
    assert_eq!(version, rebuilt.version);
    world.bucket().delete(&newest).await.unwrap();
    world.service.lose_head().await;
    holds_all(&recover(&world, NONE).await.unwrap().manifest, &all);
    // And with none left there is nothing to build on.
    let listed: Vec<_> = world.bucket().list("manifest").try_collect().await.unwrap();
    for object in listed.iter().filter(|o| names::parse_checkpoint(&o.path).is_some()) {
        world.bucket().delete(&ObjectPath::new(object.path.clone()).unwrap()).await.unwrap();
    }
    world.service.lose_head().await;
    let refused = recover(&world, Consent { loss: true, sound: true }).await;
    assert!(matches!(refused, Err(RecoverError::NoBase(_))), "{refused:?}");
}

async fn newest_checkpoint(world: &World) -> (Version, ObjectPath) {
    let listed: Vec<_> = world.bucket().list("manifest").try_collect().await.unwrap();
    let checkpoints = listed.iter().filter_map(|o| Some((names::parse_checkpoint(&o.path)?, o.path.clone())));
    let (version, path) = checkpoints.max().unwrap();
    (version, ObjectPath::new(path).unwrap())
}

/// A segment on the path is gone: the range is named, and nothing is changed until somebody accepts the loss; then the
/// log ends before it, and what lies beyond stays void.
pub(super) async fn a_missing_link_is_a_refusal_that_names_it(world: World) {
    let mut writer = world.writer().await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(writer.append(2).await);
    }
    world.service.lose_head().await;
    world.bucket().delete(&all[2].path()).await.unwrap();
    let refused = recover(&world, NONE).await;
    let Err(RecoverError::Loss { gap, kept }) = refused else { panic!("{refused:?}") };
    assert_eq!((gap.first, gap.last, kept), (SeqNo(5), SeqNo(6), SeqNo(4)));
    assert_eq!(gap.beyond, [all[3].id]);
    assert_eq!(
        lineage::newest(world.bucket().as_ref()).await.unwrap().unwrap().number,
        1,
        "nothing was written"
    );
    refused_by_everybody(&world).await;
    let rebuilt = recover(&world, Consent { loss: true, sound: false }).await.unwrap().manifest;
    holds_all(&rebuilt, &all[..2]);
    assert_eq!(rebuilt.last_seq, SeqNo(4));
    let mut next = world.writer().await;
    assert_eq!(next.append(1).await.id.first_seq, SeqNo(5));
    assert_eq!(times_in(&world.fresh_load().await.manifest, &all[3]), 0);
}
