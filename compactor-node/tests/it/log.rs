//! The retention of the log beside consumer groups, in both ways of keeping them.

use std::sync::Arc;

use compactor_node::CompactorSettings;
use compactor_node::once::{self, Limits};
use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::groups::{GroupChange, GroupOutcome};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::settings::CoordinationSettings;
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::ids::SeqNo;
use isle_storage::manifest::{CompactionMode, GroupCursor, Manifest, MaxLag};
use isle_storage::object::{Bucket, MemoryBucket};
use isle_testkit::coordination::{CommitFault, LATE_GROUP, LossyCoordination};
use isle_testkit::embedded::{Embedded, ManualClock};
use isle_testkit::scribe::{Entry, Scribe};

use crate::merge::{node, settings};

/// A database with its log in tables, and a compactor's view of it whose commits meet what is injected.
struct Scene {
    compactor: Database,
    lossy: Arc<LossyCoordination>,
    /// The last number of each flushed generation.
    flushed: Vec<SeqNo>,
    _embedded: Option<Embedded>,
}

impl Scene {
    async fn of(db: &Database, mut compactor: Database, embedded: Option<Embedded>) -> Self {
        let mut scribe = Scribe::take_over(db).await;
        let mut flushed = Vec::new();
        for n in 0..3u32 {
            flushed.push(scribe.append(&[Entry::put(format!("{n}"), "v"), Entry::put("k", "v")]).await);
            scribe.flush().await;
        }
        let lossy = LossyCoordination::new(Arc::clone(&compactor.coordination));
        compactor.coordination = lossy.clone();
        let scene = Self { compactor, lossy, flushed, _embedded: embedded };
        // What there is to merge is merged: the next commit is the retention's.
        scene.keep_house(&settings()).await;
        scene
    }

    async fn in_memory() -> Self {
        let e = Embedded::new().await;
        Self::of(&e.db.clone(), e.process("compactor"), Some(e)).await
    }

    async fn in_the_bucket() -> Self {
        let bucket: Arc<dyn Bucket> = Arc::new(MemoryBucket::new(ManualClock::at(1_700_000_000)));
        let env = Environment::system("test", "default");
        let settings = CoordinationSettings::new("bucket".to_owned());
        let coordination = BucketCoordination::new(&settings, bucket.clone(), &env);
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let db = Database::open(bucket, coordination, env, "default", &mode).await.unwrap();
        Self::of(&db, db.clone(), None).await
    }

    async fn keep_house(&self, settings: &CompactorSettings) -> Manifest {
        let run = once::once(self.compactor.clone(), node("c"), settings.clone(), Limits::default());
        run.await.unwrap();
        self.manifest().await
    }

    async fn manifest(&self) -> Manifest {
        self.compactor.load().await.unwrap().manifest.as_ref().clone()
    }

    async fn change(&self, group: &str, change: GroupChange) -> GroupOutcome {
        let lineage = self.manifest().await.lineage;
        self.compactor.coordination.change_group(lineage, group, &change).await.unwrap()
    }

    async fn create(&self, group: &str, seq: SeqNo, max_lag: MaxLag) {
        let cursor = GroupCursor { max_lag, ..GroupCursor::after(seq) };
        let created = self.change(group, GroupChange::Create { cursor, most: 9 }).await;
        assert!(matches!(created, GroupOutcome::Stored(_)), "{created:?}");
    }
}

/// Nothing of the log is kept for its own sake.
fn keep_nothing() -> CompactorSettings {
    CompactorSettings { log_retention_bytes: 1, group_max_lag_seconds: 0, ..settings() }
}

async fn the_slowest_group_holds_the_log(scene: Scene) {
    let [first, second, third] = scene.flushed[..] else { panic!("three generations") };
    scene.create("fast", second, MaxLag::default()).await;
    scene.create("slow", first, MaxLag::default()).await;
    let records = third.0 - 1;
    scene.create("dead", SeqNo::ZERO, MaxLag { records: Some(records), ..MaxLag::default() }).await;
    assert_eq!(scene.keep_house(&keep_nothing()).await.trimmed_seq, first, "up to the slowest alive");
    scene.change("slow", GroupChange::Advance(third)).await;
    assert_eq!(scene.keep_house(&keep_nothing()).await.trimmed_seq, second);
    scene.change("fast", GroupChange::Delete).await;
    assert_eq!(scene.keep_house(&keep_nothing()).await.trimmed_seq, third);
}

/// A group is created after the retention was planned and before it is committed: what it needs stays.
async fn a_group_that_begins_meanwhile_keeps_its_log(scene: Scene) {
    scene.lossy.inject(CommitFault::GroupBegins);
    let m = scene.keep_house(&keep_nothing()).await;
    assert_eq!(m.trimmed_seq, SeqNo::ZERO, "the late group has consumed nothing");
    assert!(scene.compactor.coordination.groups().await.unwrap().cursors.contains_key(LATE_GROUP));
    scene.lossy.heal();
    scene.change(LATE_GROUP, GroupChange::Advance(scene.flushed[1])).await;
    assert_eq!(scene.keep_house(&keep_nothing()).await.trimmed_seq, scene.flushed[1]);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_group_within_its_lag_holds_the_log() {
    the_slowest_group_holds_the_log(Scene::in_memory().await).await;
    the_slowest_group_holds_the_log(Scene::in_the_bucket().await).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_created_between_plan_and_commit_keeps_its_log() {
    a_group_that_begins_meanwhile_keeps_its_log(Scene::in_memory().await).await;
    a_group_that_begins_meanwhile_keeps_its_log(Scene::in_the_bucket().await).await;
}
