//! Uploads in parts: nothing appears before its end, lost replies are settled, what is given up is aborted.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::environment::SystemClock;
use isle_storage::object::{
    Bucket, MemoryBucket, PartBudget, RetryBucket, RetryPolicy, StoreErrorKind, Upload,
};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};

use super::{environment, path, retried};

const PART: usize = 4096;

fn budget() -> PartBudget {
    PartBudget::new(3 * PART as u64, PART)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 7 + n) as u8).collect()
}

async fn upload(bucket: &Arc<dyn Bucket>, len: usize) -> Result<u64, isle_storage::object::StoreError> {
    let mut upload = Upload::begin(bucket, path("blob/x"), &budget(), None).await;
    upload.write(&bytes(len)).await?;
    upload.finish().await
}

#[tokio::test(start_paused = true)]
async fn every_lost_reply_of_an_upload_is_settled() {
    for op in [Op::Begin, Op::Part, Op::Complete] {
        let (faults, bucket) = retried();
        faults.inject(Rule::on(op).nth(1), Fault::LoseReply);
        assert_eq!(upload(&bucket, 3 * PART + 5).await.unwrap(), 3 * PART as u64 + 5, "{op:?}");
        assert_eq!(bucket.get(&path("blob/x")).await.unwrap(), bytes(3 * PART + 5), "{op:?}");
    }
}

/// A completion that was lost before it was applied, and whose upload the store has forgotten since, is no success.
#[tokio::test(start_paused = true)]
async fn a_forgotten_upload_is_a_failure_unless_the_object_is_there() {
    let (faults, bucket) = retried();
    faults.inject(Rule::on(Op::Complete).nth(1), Fault::Fail(StoreErrorKind::Transient));
    faults.inject(Rule::on(Op::Complete).nth(1), Fault::Fail(StoreErrorKind::NotFound));
    assert!(upload(&bucket, 2 * PART + 1).await.is_err());
    assert!(bucket.head(&path("blob/x")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn small_objects_are_one_put_and_failed_uploads_leave_nothing() {
    let memory = Arc::new(MemoryBucket::new(Arc::new(SystemClock)));
    let faults = FaultBucket::new(Arc::clone(&memory) as Arc<dyn Bucket>);
    let bucket: Arc<dyn Bucket> = faults.clone();
    upload(&bucket, PART - 1).await.unwrap();
    assert_eq!((faults.count(Op::Put, "*"), faults.count(Op::Begin, "*")), (1, 0));

    bucket.delete(&path("blob/x")).await.unwrap();
    faults.inject(Rule::on(Op::Part).nth(3), Fault::Fail(StoreErrorKind::Permanent));
    assert!(upload(&bucket, 8 * PART).await.is_err());
    while faults.count(Op::Abort, "*") == 0 || memory.open_uploads() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(bucket.head(&path("blob/x")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_dropped_upload_is_aborted_and_gives_its_budget_back() {
    let memory = Arc::new(MemoryBucket::new(Arc::new(SystemClock)));
    let bucket: Arc<dyn Bucket> = memory.clone();
    let budget = budget();
    let mut upload = Upload::begin(&bucket, path("blob/x"), &budget, None).await;
    upload.write(&bytes(3 * PART + 1)).await.unwrap();
    assert_eq!(memory.open_uploads(), 1);
    drop(upload);
    while memory.open_uploads() > 0 || budget.taken() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Pieces that are handed over and bytes that are copied, in any mixture, are the object in their order.
#[tokio::test]
async fn pieces_and_copies_make_one_object() {
    let memory = Arc::new(MemoryBucket::new(Arc::new(SystemClock)));
    let bucket: Arc<dyn Bucket> = memory.clone();
    for len in [0, 5, PART - 1, PART, PART + 1, 5 * PART + 77] {
        for step in [1 + len / 7, PART, 3 * PART + 1] {
            let (whole, budget) = (Bytes::from(bytes(len)), budget());
            let mut upload = Upload::begin(&bucket, path("table/x"), &budget, Some(100)).await;
            for (n, at) in (0..len).step_by(step).enumerate() {
                upload.ready().await;
                let piece = whole.slice(at..len.min(at + step));
                if n % 3 == 1 {
                    upload.write(&piece).await.unwrap();
                } else {
                    upload.append(piece).await.unwrap();
                }
            }
            assert_eq!(upload.finish_unless(std::future::pending()).await.unwrap(), Some(len as u64));
            assert_eq!(bucket.get(&path("table/x")).await.unwrap(), whole, "{len} by {step}");
            assert_eq!((memory.open_uploads(), budget.taken()), (0, 0));
        }
    }
}

/// Whoever gives an upload up and waits for it has it cleared away, wherever it stood.
#[tokio::test]
async fn what_is_stopped_or_fails_is_aborted_on_return() {
    let memory = Arc::new(MemoryBucket::new(Arc::new(SystemClock)));
    let faults = FaultBucket::new(Arc::clone(&memory) as Arc<dyn Bucket>);
    let bucket: Arc<dyn Bucket> = faults.clone();
    let begin = async || {
        let mut upload = Upload::begin(&bucket, path("table/x"), &budget(), None).await;
        upload.append(bytes(3 * PART + 5).into()).await.unwrap();
        upload
    };
    begin().await.abort().await;
    assert_eq!((memory.open_uploads(), faults.count(Op::Abort, "*")), (0, 1));

    for op in [Op::Part, Op::Complete] {
        faults.inject(Rule::on(op).path("table/*").nth(if op == Op::Part { 4 } else { 1 }), Fault::Hang);
        let hung = async {
            while !faults.history().iter().any(|e| e.op == op && e.told.is_none()) {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(begin().await.finish_unless(hung).await.unwrap(), None, "{op:?}");
        assert_eq!(memory.open_uploads(), 0, "{op:?}");
        faults.heal();
        let _ = faults.take_history();

        faults.inject(Rule::on(Op::Complete), Fault::Fail(StoreErrorKind::Permanent));
        begin().await.finish_unless(std::future::pending()).await.unwrap_err();
        assert_eq!(memory.open_uploads(), 0, "{op:?}");
        faults.heal();
    }
    assert!(bucket.head(&path("table/x")).await.unwrap_err().is_not_found());
}

/// However many uploads share a budget of a few parts, all of them come to their end, and never more is held.
#[tokio::test]
async fn uploads_share_a_budget_and_never_wait_for_each_other_for_ever() {
    let memory: Arc<dyn Bucket> = Arc::new(MemoryBucket::new(Arc::new(SystemClock)));
    let policy = RetryPolicy::with_budget(std::time::Duration::from_secs(1));
    let bucket: Arc<dyn Bucket> = Arc::new(RetryBucket::new(memory, policy, environment().entropy));
    let budget = PartBudget::new(2 * PART as u64, PART);
    let uploads = (0..20).map(|n| {
        let (bucket, budget) = (Arc::clone(&bucket), budget.clone());
        tokio::spawn(async move {
            let mut upload = Upload::begin(&bucket, path(&format!("blob/{n}")), &budget, None).await;
            for piece in bytes(5 * PART + n).chunks(777) {
                assert!(budget.taken() <= 2 * PART as u64);
                upload.write(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            upload.finish().await.unwrap()
        })
    });
    for (n, done) in futures::future::join_all(uploads).await.into_iter().enumerate() {
        assert_eq!(done.unwrap(), (5 * PART + n) as u64);
    }
    assert_eq!(budget.taken(), 0);
}
