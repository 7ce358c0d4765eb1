//! Clones by reference: what they leave unread, that both databases live on by themselves, and when objects are read after
//! all.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use isle_storage::object::{FileBucket, Meter, MeterBucket, Prices};

use super::*;

/// A database in a directory, its requests counted.
struct Files {
    dir: tempfile::TempDir,
    bucket: Arc<dyn Bucket>,
    coordination: Arc<dyn Coordination>,
    meter: Arc<Meter>,
    env: Environment,
}

impl Files {
    fn new() -> Self {
        let (dir, env) = (tempfile::tempdir().unwrap(), Environment::system("test", "files"));
        let meter = Meter::new(Prices::default(), &env.metrics);
        let files = Arc::new(FileBucket::open(&dir.path().join("db"), &env).unwrap());
        let bucket: Arc<dyn Bucket> = Arc::new(MeterBucket::new(files, Arc::clone(&meter)));
        let coordination = MemoryCoordination::new(Arc::clone(&bucket));
        Self { dir, bucket, coordination, meter, env }
    }

    async fn open(&self, name: &str) -> Database {
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let (bucket, coordination) = (Arc::clone(&self.bucket), Arc::clone(&self.coordination));
        Database::open(bucket, coordination, self.env.clone(), name, &mode).await.unwrap()
    }

    fn place(&self) -> Place<'_> {
        Place { bucket: &self.bucket, coordination: &self.coordination, env: &self.env, name: "copy" }
    }

    fn file(&self, path: &ObjectPath) -> PathBuf {
        self.dir.path().join("db").join(path.as_str())
    }

    async fn is_clean(&self, name: &str) {
        let from = From::Coordination(Arc::clone(&self.coordination));
        let report = verify(&self.bucket, from, name, &()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// Bytes that no compression makes small.
pub(super) fn noise(n: u64, len: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

/// Tables and blob files.
async fn filled_with_noise(db: &Database) -> Scribe {
    let mut scribe = Scribe::take_over(db).await;
    scribe.table_options.block_bytes = 16 << 10;
    scribe.table_bytes = 256 << 10;
    for n in 0..4u64 {
        let row = |i: u64| Entry::put(format!("key/{n}/{i:04}"), noise(n * 1000 + i, 2 << 10));
        scribe.append(&(0..200).map(row).collect::<Vec<_>>()).await;
        scribe.flush().await;
    }
    scribe.blob_threshold = 1 << 10;
    scribe.append(&[Entry::put("large", noise(7, 300 << 10))]).await;
    scribe.flush().await;
    scribe
}

#[tokio::test]
async fn a_clone_of_files_shares_them_reads_none_and_both_live_on() {
    let (source, target) = (Files::new(), Files::new());
    let db = source.open("files").await;
    let scribe = filled_with_noise(&db).await;
    let tables: Vec<_> = scribe.manifest().tables().cloned().collect();
    let bytes: u64 = tables.iter().map(|t| t.len).sum();
    let before = source.meter.usage();
    let made =
        transfer::clone_database(&db, &node(), Begin::default(), target.place(), &|_| {}).await.unwrap();
    let objects = tables.len() + scribe.manifest().blobs.len();
    assert!(tables.len() >= 8 && !scribe.manifest().blobs.is_empty());
    assert_eq!((made.referenced, made.copied, made.rewritten), (objects, 0, 0));
    let read = source.meter.usage().since(&before).bytes_read + target.meter.usage().bytes_read;
    assert!(read < bytes / 20, "{read} bytes were read of {bytes}");
    assert_eq!(target.meter.usage().copies, objects as u64);

    let paths: Vec<_> = tables.iter().map(|t| t.path()).collect();
    for path in &paths {
        assert_eq!(inode(&source.file(path)), inode(&target.file(path)), "{path} is one file");
    }
    // What a retry of the clone's does never reaches the original.
    let (first, whole) = (&paths[0], std::fs::read(source.file(&paths[0])).unwrap());
    target.bucket.put(first, b"something else".to_vec().into()).await.unwrap();
    assert_eq!(source.bucket.get(first).await.unwrap(), whole);
    target.bucket.put(first, whole.into()).await.unwrap();
    source.is_clean("files").await;
    // And the end of one is not that of the other.
    for path in &paths {
        source.bucket.delete(path).await.unwrap();
    }
    target.is_clean("copy").await;
    assert!(target.bucket.get(first).await.is_ok());
}

/// Another kind of store: everything is read once, and verified.
#[tokio::test]
async fn a_clone_elsewhere_is_copied() {
    let source = Files::new();
    let db = source.open("files").await;
    let scribe = filled_with_noise(&db).await;
    let target = Target::memory_form();
    let bucket: Arc<dyn Bucket> = target.store.clone();
    let place = Place { bucket: &bucket, coordination: &target.coordination, env: &target.env, name: "copy" };
    let made = transfer::clone_database(&db, &node(), Begin::default(), place, &|_| {}).await.unwrap();
    let objects = scribe.manifest().tables().count() + scribe.manifest().blobs.len();
    assert_eq!((made.referenced, made.copied, made.rewritten), (0, objects, 0));
    let from = From::Coordination(Arc::clone(&target.coordination));
    let report = verify(&bucket, from, "copy", &()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(target.open().await.unwrap().load().await.unwrap().manifest.runs, scribe.manifest().runs);
}

/// A store that refuses, lies, or is not done yet: what did not come is read.
#[tokio::test]
async fn what_the_store_does_not_copy_is_read_and_written() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let tables = scribe.manifest().tables().count();
    let refusals = [StoreErrorKind::Denied, StoreErrorKind::Unsupported, StoreErrorKind::Permanent];
    let faults = refusals.map(Fault::Fail).into_iter().chain([Fault::Swallow]);
    for fault in faults {
        let target = Target::bucket_form();
        target.store.inject(Rule::on(Op::Copy).times(1), fault);
        let made = target.clone_of(&e, None).await.unwrap();
        assert_eq!((made.referenced, made.copied, made.rewritten), (tables - 1, 1, 1));
        target.holds(&scribe, scribe.manifest().last_seq).await;
    }
    let target = Target::bucket_form();
    target.store.inject(Rule::on(Op::Copy).times(1), Fault::Fail(StoreErrorKind::Transient));
    assert!(matches!(target.clone_of(&e, None).await, Err(TransferError::Store(_))), "it may be run again");
    target.clone_of(&e, None).await.unwrap();
    target.holds(&scribe, scribe.manifest().last_seq).await;
}

/// Metadata is always held against the manifest; the blocks only where that is asked for.
#[tokio::test]
async fn damage_shows_in_a_clone_as_far_as_it_is_read() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let table = Arc::clone(scribe.manifest().tables().next().unwrap());
    let whole = e.bucket.get(&table.path()).await.unwrap();
    let damage = async |at: usize| {
        let mut bad = whole.to_vec();
        bad[at] ^= 1;
        e.bucket.put(&table.path(), bad.into()).await.unwrap();
    };
    damage(table.meta_offset as usize + 3).await;
    let refused = Target::bucket_form().clone_of(&e, None).await;
    assert!(matches!(refused, Err(TransferError::Damaged { .. })), "{refused:?}");
    damage(9).await;
    let target = Target::bucket_form();
    let bucket: Arc<dyn Bucket> = target.store.clone();
    let place =
        || Place { bucket: &bucket, coordination: &target.coordination, env: &target.env, name: "copy" };
    let all = Begin { snapshot: None, verify: true };
    let refused = transfer::clone_database(&e.db, &node(), all, place(), &|_| {}).await;
    assert!(matches!(refused, Err(TransferError::Damaged { .. })), "{refused:?}");
    assert!(target.open().await.is_err(), "nothing opens");
    e.bucket.put(&table.path(), whole.clone().into()).await.unwrap();
    transfer::clone_database(&e.db, &node(), all, place(), &|_| {}).await.unwrap();
    target.holds(&scribe, scribe.manifest().last_seq).await;
}
