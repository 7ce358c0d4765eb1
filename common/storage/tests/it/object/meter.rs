//! Metering and admission.

use std::sync::Arc;

use futures::future::join_all;
use isle_storage::object::{
    Bucket, Copied, LimitBucket, Meter, Origin, Prices, StoreErrorKind, StoreSettings, decorate,
};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};

use super::{body, environment, memory, path};

#[tokio::test(start_paused = true)]
async fn every_request_counts_retries_included() {
    let env = environment();
    let faults = FaultBucket::new(memory());
    let prices = Prices { million_writes: 5.0, million_reads: 0.4, gib_read: 0.0 };
    let meter = Meter::new(prices, &env.metrics);
    let store = decorate(faults.clone(), &StoreSettings::default(), &env, meter);
    faults.inject(Rule::on(Op::Put).times(2), Fault::Fail(StoreErrorKind::Transient));
    store.bucket.put(&path("x"), body("12345")).await.unwrap();
    let before = store.meter.usage();
    assert_eq!((before.puts, before.failures, before.bytes_written), (3, 2, 5));
    assert!((before.cost_usd - 15e-6).abs() < 1e-12, "{before:?}");
    store.bucket.get_range(&path("x"), 1..3).await.unwrap();
    assert!(store.bucket.head(&path("gone")).await.is_err());
    let since = store.meter.usage().since(&before);
    assert_eq!((since.requests(), since.gets, since.heads, since.bytes_read), (2, 1, 1, 2));
    assert_eq!(since.failures, 0, "an absent object is an answer");

    let text = env.metrics.encode();
    for line in [
        r#"isle_store_requests_total{role="test",database="test",op="put",result="transient"} 2"#,
        r#"isle_store_requests_total{role="test",database="test",op="put",result="ok"} 1"#,
        r#"isle_store_requests_total{role="test",database="test",op="head",result="not_found"} 1"#,
        r#"isle_store_bytes_total{role="test",database="test",direction="write"} 5"#,
        r#"isle_store_request_seconds_count{role="test",database="test",op="get"} 1"#,
        "isle_store_cost_usd_total",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// A copy by reference is one request at the price of a put; where the store is not asked there is none.
#[tokio::test(start_paused = true)]
async fn a_copy_is_a_request_of_its_own_and_repeated_like_any_other() {
    let env = environment();
    let faults = FaultBucket::new(memory());
    let prices = Prices { million_writes: 5.0, million_reads: 0.4, gib_read: 0.0 };
    let meter = Meter::new(prices, &env.metrics);
    let store = decorate(faults.clone(), &StoreSettings::default(), &env, meter);
    store.bucket.put(&path("x"), body("12345")).await.unwrap();
    let before = store.meter.usage();
    faults.inject(Rule::on(Op::Copy).times(1), Fault::LoseReply);
    let copied = store.bucket.copy_from(&store.bucket.origin(), &path("x"), &path("y")).await.unwrap();
    assert_eq!(copied, Copied::ByReference);
    let cannot = store.bucket.copy_from(&Origin::nowhere(), &path("x"), &path("y")).await.unwrap();
    assert_eq!(cannot, Copied::Cannot);
    let since = store.meter.usage().since(&before);
    assert_eq!((since.requests(), since.copies, since.failures), (2, 2, 1), "{since:?}");
    assert_eq!((since.bytes_read, since.bytes_written), (0, 0));
    assert!((since.cost_usd - 10e-6).abs() < 1e-12, "{since:?}");
    let line = r#"isle_store_requests_total{role="test",database="test",op="copy",result="ok"} 1"#;
    assert!(env.metrics.encode().contains(line));
}

/// A cold start's reads have an admission budget, and never hold up a write.
#[tokio::test]
async fn reads_beyond_the_limit_wait_and_writes_pass_them_by() {
    let faults = FaultBucket::new(memory());
    let bucket: Arc<dyn Bucket> = Arc::new(LimitBucket::new(faults.clone(), 3));
    let gate = faults.hold(Rule::on(Op::Get));
    let reads: Vec<_> = (0..10)
        .map(|n| {
            let bucket = Arc::clone(&bucket);
            tokio::spawn(async move { bucket.get(&path(&format!("x{n}"))).await })
        })
        .collect();
    gate.arrived(3).await;
    bucket.put(&path("x"), body("1")).await.unwrap();
    assert_eq!(faults.count(Op::Get, "*"), 3);
    gate.open();
    for read in join_all(reads).await {
        assert!(read.unwrap().unwrap_err().is_not_found());
    }
    assert_eq!(faults.count(Op::Get, "*"), 10);
}
