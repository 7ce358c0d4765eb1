//! The contract of [`Bucket`]: run over files and memory by the storage crate, over real servers by e2e.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use isle_storage::names::ObjectPath;
use isle_storage::object::{Body, Bucket, Copied, Origin, PartAt, PartBudget, StoreErrorKind, Upload};

/// How hard a store is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketContract {
    /// Whether racing creates must have one winner. A store without needs another's coordination.
    pub atomic_create: bool,
    /// Objects in one folder; beyond a thousand a listing has several pages.
    pub many: usize,
    /// Bytes of the large body.
    pub large: usize,
    /// What the server understands of uploads in parts.
    pub uploads: Uploads,
    /// Whether it copies objects by itself. Where a server that stands for a store in tests does not, it must say so.
    pub copies: bool,
}

/// What a server understands of uploads in parts. Every store that Isle is made for understands all of it; some servers
/// that stand for one in tests do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// Everything.
    InParts,
    /// Everything, but it takes the abort of an upload that is gone for somebody else's.
    AbortedOnce,
    /// Nothing: such a server is asked for none.
    Never,
}

impl Default for BucketContract {
    fn default() -> Self {
        Self { atomic_create: true, many: 1_100, large: 9 << 20, uploads: Uploads::InParts, copies: true }
    }
}

/// Tasks that race for one name.
const RACERS: usize = 32;
/// Length of a part: the least that the cloud stores take.
const PART: usize = 5 << 20;
/// Requests in flight while many objects are written.
const PARALLEL: usize = 16;

/// Runs the whole contract. Leaves nothing behind but what lies below one fresh folder `contract-…/`.
pub async fn bucket(store: Arc<dyn Bucket>, contract: BucketContract) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let run = format!("contract-{}-{}", std::process::id(), RUN.fetch_add(1, Ordering::Relaxed));
    let suite = Suite { store, run, contract };
    suite.puts_and_gets().await;
    suite.ranges().await;
    suite.missing_objects().await;
    suite.bodies_in_pieces().await;
    suite.uploads_in_parts().await;
    copies(&suite.store, &suite.store, &format!("{}/copies", suite.run), contract.copies).await;
    suite.heads().await;
    suite.creates().await;
    suite.listings().await;
    suite.many_objects().await;
    suite.clean().await;
}

/// What one bucket takes of another by reference, below `folder` of both: they are two prefixes of one store, or the same.
/// Where the store does not copy by itself (`copies` is false) it must say so, or fail for good.
pub async fn copies(source: &Arc<dyn Bucket>, target: &Arc<dyn Bucket>, folder: &str, copies: bool) {
    let path = |name: &str| ObjectPath::new(format!("{folder}/{name}")).unwrap();
    let bytes = |text: &'static [u8]| Bytes::from_static(text);
    let (from, to) = (path("a/original"), path("b/copy"));
    source.put(&from, bytes(b"first").into()).await.unwrap();
    let far = target.copy_from(&Origin::nowhere(), &from, &to).await.unwrap();
    assert_eq!(far, Copied::Cannot, "nothing is had from nowhere");
    let take = async || target.copy_from(&source.origin(), &from, &to).await;
    if !copies {
        match take().await {
            Ok(copied) => assert_eq!(copied, Copied::Cannot),
            Err(e) => assert!(!e.is_transient(), "whoever copies goes on by reading: {e}"),
        }
        return;
    }
    for _ in 0..2 {
        assert_eq!(take().await.unwrap(), Copied::ByReference, "twice is fine");
        assert_eq!(target.get(&to).await.unwrap(), "first");
        assert_eq!(target.head(&to).await.unwrap().len, 5);
    }
    source.put(&from, bytes(b"second").into()).await.unwrap();
    assert_eq!(target.get(&to).await.unwrap(), "first", "the original is replaced, the copy is not");
    assert_eq!(take().await.unwrap(), Copied::ByReference);
    assert_eq!(target.get(&to).await.unwrap(), "second", "a copy replaces what was there");
    target.put(&to, bytes(b"third").into()).await.unwrap();
    assert_eq!(source.get(&from).await.unwrap(), "second", "the copy is replaced, the original is not");
    assert_eq!(take().await.unwrap(), Copied::ByReference);
    source.delete(&from).await.unwrap();
    assert_eq!(target.get(&to).await.unwrap(), "second", "the copy outlives the original");
    assert!(take().await.unwrap_err().is_not_found(), "what is gone cannot be copied");
    let large = Bytes::from((0..PART + 1).map(|n| (n / 257 + n) as u8).collect::<Vec<_>>());
    source.put(&from, large.clone().into()).await.unwrap();
    assert_eq!(take().await.unwrap(), Copied::ByReference);
    target.delete(&to).await.unwrap();
    assert!(source.get(&from).await.unwrap() == large, "the original outlives the copy");
    source.delete(&from).await.unwrap();
}

struct Suite {
    store: Arc<dyn Bucket>,
    run: String,
    contract: BucketContract,
}

impl Suite {
    fn path(&self, name: &str) -> ObjectPath {
        ObjectPath::new(format!("{}/{name}", self.run)).unwrap()
    }

    async fn put(&self, name: &str, body: impl Into<Body>) -> ObjectPath {
        let path = self.path(name);
        self.store.put(&path, body.into()).await.unwrap();
        path
    }

    async fn puts_and_gets(&self) {
        let x = self.put("x", Bytes::from_static(b"first")).await;
        assert_eq!(self.store.get(&x).await.unwrap(), "first");
        self.put("x", Bytes::from_static(b"second")).await;
        assert_eq!(self.store.get(&x).await.unwrap(), "second", "a put replaces");
        let empty = self.put("empty", Bytes::new()).await;
        assert_eq!(self.store.get(&empty).await.unwrap(), "", "an empty object is an object");
        assert_eq!(self.store.head(&empty).await.unwrap().len, 0);
        let odd = self.put("a.b-c_D/0.sst", Bytes::from_static(b"odd")).await;
        assert_eq!(self.store.get(&odd).await.unwrap(), "odd");
    }

    async fn ranges(&self) {
        let path = self.put("ranges", Bytes::from_static(b"0123456789")).await;
        for range in [0..1, 0..10, 3..7, 9..10] {
            let expected = &b"0123456789"[range.start..range.end];
            let range = range.start as u64..range.end as u64;
            assert_eq!(self.store.get_range(&path, range.clone()).await.unwrap(), expected, "{range:?}");
        }
        assert_eq!(self.store.get_range(&path, 4..4).await.unwrap(), "", "an empty range is empty");
        for range in [5..11, 9..100, 10..11, 50..60] {
            self.refuses_range(&path, range).await;
        }
        let empty = self.path("empty");
        self.refuses_range(&empty, 0..1).await;
    }

    async fn refuses_range(&self, path: &ObjectPath, range: Range<u64>) {
        match self.store.get_range(path, range.clone()).await {
            Ok(bytes) => panic!("{range:?} of {path} was answered with {} bytes", bytes.len()),
            Err(e) => assert_eq!(e.kind, StoreErrorKind::Permanent, "{range:?} of {path}: {e}"),
        }
    }

    async fn missing_objects(&self) {
        let gone = self.path("gone");
        assert!(self.store.get(&gone).await.unwrap_err().is_not_found());
        assert!(self.store.get_range(&gone, 0..1).await.unwrap_err().is_not_found());
        assert!(self.store.head(&gone).await.unwrap_err().is_not_found());
        self.store.delete(&gone).await.expect("deleting what is not there is fine");
        let x = self.put("short-lived", Bytes::from_static(b"x")).await;
        self.store.delete(&x).await.unwrap();
        assert!(self.store.get(&x).await.unwrap_err().is_not_found(), "a deleted object is gone");
        self.store.delete(&x).await.expect("deleting twice is fine");
    }

    async fn bodies_in_pieces(&self) {
        let pieces = ["ab", "", "c", "defg"].map(|p| Bytes::from_static(p.as_bytes()));
        let path = self.put("pieces", pieces.to_vec()).await;
        assert_eq!(self.store.get(&path).await.unwrap(), "abcdefg");

        let large: Vec<u8> = (0..self.contract.large).map(|n| (n / 251 + n) as u8).collect();
        let large = Bytes::from(large);
        let cuts = (0..large.len()).step_by(1_000_003);
        let pieces: Vec<_> = cuts.map(|at| large.slice(at..large.len().min(at + 1_000_003))).collect();
        let path = self.put("large", pieces).await;
        assert!(self.store.get(&path).await.unwrap() == large, "a large body comes back as it was");
        let middle = large.len() / 2;
        let range = middle as u64 - 50_000..middle as u64 + 50_000;
        let read = self.store.get_range(&path, range).await.unwrap();
        assert!(read == large[middle - 50_000..middle + 50_000], "a range of a large body is that range");
    }

    /// What comes in parts appears whole, at the end, or never; parts may come twice and out of order.
    async fn uploads_in_parts(&self) {
        if self.contract.uploads == Uploads::Never {
            return;
        }
        let whole: Vec<u8> = (0..PART * 2 + 12_345).map(|n| (n / 253 + n) as u8).collect();
        let (store, path) = (&self.store, self.path("parts"));
        let part = |n: usize| Bytes::copy_from_slice(&whole[n * PART..whole.len().min((n + 1) * PART)]);
        let at = |n: usize| PartAt { number: n as u32, offset: (n * PART) as u64 };
        let id = store.begin_upload(&path).await.unwrap();
        let mut parts = vec![None; 3];
        for n in [2, 0, 1, 0] {
            parts[n] = Some(store.upload_part(&path, &id, at(n), part(n).into()).await.unwrap());
            assert!(store.head(&path).await.unwrap_err().is_not_found(), "nothing appears before its end");
        }
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        store.complete_upload(&path, &id, &parts).await.unwrap();
        assert!(store.get(&path).await.unwrap() == whole, "the parts in their order are the object");

        let given_up = self.path("given-up");
        let id = store.begin_upload(&given_up).await.unwrap();
        store.upload_part(&given_up, &id, at(0), part(0).into()).await.unwrap();
        store.abort_upload(&given_up, &id).await.unwrap();
        if self.contract.uploads == Uploads::InParts {
            store.abort_upload(&given_up, &id).await.expect("aborting twice is fine");
        }
        assert!(store.head(&given_up).await.unwrap_err().is_not_found(), "an aborted upload leaves nothing");

        let budget = PartBudget::new(3 * PART as u64, PART);
        for len in [0, 1, PART - 1, PART, PART + 1, whole.len()] {
            let path = self.path(&format!("upload-{len}"));
            let mut upload = Upload::begin(store, path.clone(), &budget, None).await;
            for piece in whole[..len].chunks(1_000_003) {
                upload.write(piece).await.unwrap();
            }
            assert_eq!(upload.finish().await.unwrap(), len as u64);
            assert!(store.get(&path).await.unwrap() == whole[..len], "{len} bytes come back as they were");
        }
        assert_eq!(budget.taken(), 0, "what was held for parts is given back");
    }

    async fn heads(&self) {
        let path = self.put("heads", Bytes::from_static(b"12345")).await;
        let meta = self.store.head(&path).await.unwrap();
        assert_eq!((meta.path.as_str(), meta.len), (path.as_str(), 5));
        let day = 86_400_000_000;
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
        assert!(
            (meta.last_modified.micros() - now).abs() < day,
            "a time of this day, in microseconds: {meta:?}"
        );
    }

    async fn creates(&self) {
        let path = self.path("created");
        self.store.create(&path, Bytes::from_static(b"first").into()).await.unwrap();
        if !self.contract.atomic_create {
            return;
        }
        let again = self.store.create(&path, Bytes::from_static(b"second").into()).await.unwrap_err();
        assert_eq!(again.kind, StoreErrorKind::AlreadyExists, "{again}");
        assert_eq!(self.store.get(&path).await.unwrap(), "first", "a refused create changes nothing");
        self.store.delete(&path).await.unwrap();
        self.store.create(&path, Bytes::from_static(b"third").into()).await.unwrap();
        for round in 0..8 {
            self.race(round).await;
        }
    }

    /// One winner among many tasks, and its bytes are what is there.
    async fn race(&self, round: usize) {
        let path = self.path(&format!("race-{round}"));
        let racers = (0..RACERS).map(|n| {
            let (store, path) = (Arc::clone(&self.store), path.clone());
            tokio::spawn(async move { store.create(&path, Bytes::from(format!("racer {n}")).into()).await })
        });
        let mut winners = Vec::new();
        for (n, result) in join_all(racers).await.into_iter().enumerate() {
            match result.unwrap() {
                Ok(()) => winners.push(n),
                Err(e) => assert_eq!(e.kind, StoreErrorKind::AlreadyExists, "{e}"),
            }
        }
        assert_eq!(winners.len(), 1, "winners of one name: {winners:?}");
        assert_eq!(self.store.get(&path).await.unwrap(), format!("racer {}", winners[0]));
    }

    async fn listed(&self, folder: &str) -> BTreeSet<String> {
        let all: Vec<_> = self.store.list(folder).try_collect().await.unwrap();
        let names: BTreeSet<_> = all.iter().map(|meta| meta.path.clone()).collect();
        assert_eq!(names.len(), all.len(), "a listing names every object once");
        names
    }

    async fn listings(&self) {
        for name in ["list/log/1", "list/log/sub/2", "list/log2/3", "list/log.4"] {
            self.put(name, Bytes::from(name.to_owned())).await;
        }
        let folder = format!("{}/list/log", self.run);
        let expected = [format!("{folder}/1"), format!("{folder}/sub/2")];
        assert_eq!(self.listed(&folder).await, BTreeSet::from(expected), "siblings do not belong");
        let whole = self.listed(&format!("{}/list", self.run)).await;
        assert_eq!(whole.len(), 4);
        assert!(self.listed("").await.is_superset(&whole), "the empty folder is everything");
        assert!(self.listed(&format!("{}/list/nobody", self.run)).await.is_empty());
        let metas: Vec<_> = self.store.list(&folder).try_collect().await.unwrap();
        for meta in metas {
            let path = ObjectPath::new(meta.path.clone()).unwrap();
            let head = self.store.head(&path).await.unwrap();
            assert_eq!((&meta.path, meta.len), (&head.path, head.len), "a listing and a head say the same");
            // One of them may have whole seconds only.
            let apart = (meta.last_modified.micros() - head.last_modified.micros()).abs();
            assert!(apart < 1_000_000, "{meta:?} {head:?}");
        }
    }

    async fn many_objects(&self) {
        let names: Vec<_> = (0..self.contract.many).map(|n| format!("many/{n:06}")).collect();
        stream::iter(&names)
            .for_each_concurrent(PARALLEL, |name| async move {
                self.put(name, Bytes::from(name.clone())).await;
            })
            .await;
        let listed = self.listed(&format!("{}/many", self.run)).await;
        let expected: BTreeSet<_> = names.iter().map(|n| format!("{}/{n}", self.run)).collect();
        assert!(listed == expected, "{} of {} objects are listed", listed.len(), expected.len());
    }

    async fn clean(&self) {
        let all = self.listed(&self.run).await;
        stream::iter(all)
            .for_each_concurrent(PARALLEL, |name| async move {
                self.store.delete(&ObjectPath::new(name).unwrap()).await.unwrap();
            })
            .await;
        assert!(self.listed(&self.run).await.is_empty());
    }
}
