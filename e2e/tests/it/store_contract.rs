//! The store contract on real servers, who passes the start-up probe, and what is said when nothing works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::servers::{Azurite, Conditions, Env, Gcs, Moto, S3, S3Process, credentials};
use futures::TryStreamExt;
use isle_storage::environment::{Environment, SystemEntropy};
use isle_storage::names::ObjectPath;
use isle_storage::object::{
    Bucket, Copied, OpenErrorKind, ProbeError, StoreError, StoreErrorKind, StoreSettings, conditional_create,
    open,
};
use isle_testkit::contract::{self, BucketContract, Uploads};

/// A store as a program would open it, with a short patience.
fn opened(url: &str, env: &Env) -> Arc<dyn Bucket> {
    let settings = StoreSettings {
        credentials: credentials(env),
        retry_budget_seconds: 3,
        request_timeout_seconds: 10,
        ..StoreSettings::default()
    };
    open(url, &settings, &Environment::system("test", "test")).unwrap()
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_without_atomic_creates_keeps_the_rest_of_the_contract() {
    let s3 = S3::start().await;
    let bucket = opened(&s3.url("a/prefix"), &s3.env());
    let plain =
        BucketContract { atomic_create: false, uploads: Uploads::AbortedOnce, ..BucketContract::default() };
    contract::bucket(bucket, plain).await;
    // The whole bucket as one database: no prefix at all.
    let bucket = opened(&s3.url(""), &s3.env());
    contract::bucket(bucket, BucketContract { many: 10, large: 1 << 20, ..plain }).await;
    copied_between_prefixes(|prefix| opened(&s3.url(prefix), &s3.env())).await;
}

/// Two prefixes of one bucket, and the whole of it.
async fn copied_between_prefixes(open: impl Fn(&str) -> Arc<dyn Bucket>) {
    let (one, other, whole) = (open("one/prefix"), open("other"), open(""));
    contract::copies(&one, &other, "table/00", true).await;
    contract::copies(&whole, &one, "table/00", true).await;
}

/// Rights on one bucket are not taken for rights on another, nor one account's for another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reached_in_another_way_is_not_copied_by_reference() {
    let (s3, dir) = (S3::start().await, tempfile::tempdir().unwrap());
    let bucket = opened(&s3.url("p"), &s3.env());
    let mut elsewhere = vec![
        opened(&s3.url("p").replace("://isle/", "://isle-2/"), &s3.env()),
        opened(&s3.url("p"), &vec![("AWS_ACCESS_KEY_ID".to_owned(), "x".to_owned()), s3.env()[1].clone()]),
    ];
    elsewhere.extend(
        [format!("file://{}", dir.path().display()), "memory://".to_owned()].map(|u| opened(&u, &Env::new())),
    );
    for other in elsewhere {
        let copied = bucket.copy_from(&other.origin(), &path("x"), &path("x")).await.unwrap();
        assert_eq!(copied, Copied::Cannot, "{}", other.url());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_with_atomic_creates_keeps_the_contract_and_passes_the_probe() {
    let moto = Moto::start().await;
    let bucket = opened(&moto.url("prefix"), &moto.env());
    contract::bucket(Arc::clone(&bucket), BucketContract::default()).await;
    conditional_create(&bucket, &SystemEntropy).await.unwrap();
    copied_between_prefixes(|prefix| opened(&moto.url(prefix), &moto.env())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_keeps_the_contract_and_passes_the_probe() {
    let azurite = Azurite::start().await;
    let bucket = opened(&azurite.url("prefix"), &azurite.env());
    contract::bucket(Arc::clone(&bucket), BucketContract::default()).await;
    conditional_create(&bucket, &SystemEntropy).await.unwrap();
    copied_between_prefixes(|prefix| opened(&azurite.url(prefix), &azurite.env())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_keeps_the_contract_and_passes_the_probe() {
    let gcs = Gcs::start().await;
    let bucket = opened(&gcs.url("prefix"), &gcs.env());
    let whole_objects = BucketContract { uploads: Uploads::Never, ..BucketContract::default() };
    contract::bucket(Arc::clone(&bucket), whole_objects).await;
    conditional_create(&bucket, &SystemEntropy).await.unwrap();
    copied_between_prefixes(|prefix| opened(&gcs.url(prefix), &gcs.env())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_memory_keep_the_contract_and_pass_the_probe() {
    let dir = tempfile::tempdir().unwrap();
    for url in [format!("file://{}", dir.path().display()), "memory://".to_owned()] {
        let bucket = opened(&url, &Env::new());
        contract::bucket(Arc::clone(&bucket), BucketContract::default()).await;
        conditional_create(&bucket, &SystemEntropy).await.unwrap();
    }
}

/// Some stores ignore conditional headers silently; a database whose history rests on them must not be put there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_conditions_is_refused_by_the_probe() {
    let s3 = S3::with(Conditions::Ignored).await;
    let bucket = opened(&s3.url("prefix"), &s3.env());
    // This server knows neither parts nor copies.
    let plain = BucketContract {
        atomic_create: false,
        many: 10,
        large: 1 << 20,
        uploads: Uploads::Never,
        copies: false,
    };
    contract::bucket(Arc::clone(&bucket), plain).await;
    let error = conditional_create(&bucket, &SystemEntropy).await.unwrap_err();
    assert!(matches!(error, ProbeError::NotAtomic { .. }), "{error}");
    assert!(error.to_string().contains("etcd"), "{error}");
    let left: Vec<_> = bucket.list("probe").try_collect().await.unwrap();
    assert!(left.is_empty(), "the probe cleans up: {left:?}");
}

/// One that looks before it writes is right in a row and wrong in a race.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_creates_are_not_atomic_is_refused_by_the_probe() {
    let s3 = S3::start().await;
    let bucket = opened(&s3.url("prefix"), &s3.env());
    // Each run is four races, of which such a store loses most; only all of them together could go unnoticed.
    for _ in 0..5 {
        match conditional_create(&bucket, &SystemEntropy).await {
            Ok(()) => {}
            Err(ProbeError::NotAtomic { .. }) => return,
            Err(e) => panic!("{e}"),
        }
    }
    panic!("twenty races with one winner each");
}

/// What every operation says when asked of a store.
async fn asked_of(bucket: &Arc<dyn Bucket>) -> Vec<StoreError> {
    let x = path("x");
    let told = [
        bucket.get(&x).await.map(drop),
        bucket.get_range(&x, 0..1).await.map(drop),
        bucket.head(&x).await.map(drop),
        bucket.put(&x, vec![1].into()).await,
        bucket.create(&x, vec![1].into()).await,
        bucket.list("log").try_collect::<Vec<_>>().await.map(drop),
    ];
    told.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_at_once_and_clearly() {
    let (s3, azurite, gcs) = (S3::start().await, Azurite::start().await, Gcs::start().await);
    let wrong = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (url, env) in [
        (s3.url("p"), vec![s3.env()[0].clone(), wrong("AWS_SECRET_ACCESS_KEY", "wrong")]),
        (s3.url("p"), vec![wrong("AWS_ACCESS_KEY_ID", "nobody"), s3.env()[1].clone()]),
        (azurite.url("p"), vec![wrong("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")]),
        (gcs.url("p"), vec![wrong("GOOGLE_BEARER_TOKEN", "wrong")]),
    ] {
        let started = Instant::now();
        let bucket = opened(&url, &env);
        for error in asked_of(&bucket).await {
            assert_eq!(error.kind, StoreErrorKind::Denied, "{url}: {error}");
            assert!(error.message.contains("refused the credentials"), "{error}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{url} took {:?}", started.elapsed());
    }
}

#[test]
fn missing_credentials_are_refused_before_any_request() {
    for (url, variable) in [
        ("s3://bucket/p?region=x", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket/p", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://container/p?account=a", "AZURE_STORAGE_ACCOUNT_KEY"),
    ] {
        let refused = open(url, &StoreSettings::default(), &Environment::system("test", "test")).unwrap_err();
        assert_eq!(refused.kind(), OpenErrorKind::Denied, "{refused}");
        assert!(refused.to_string().contains(variable), "{refused}");
    }
}

/// An empty answer to "is there a database here?" is how one gets overwritten, so a missing bucket is never that.
/// (The embedded S3 server is left out: it makes buckets as they are named.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_bucket_is_never_a_missing_object() {
    let (moto, azurite, gcs) = (Moto::start().await, Azurite::start().await, Gcs::start().await);
    for (url, env) in
        [(moto.url("p"), moto.env()), (azurite.url("p"), azurite.env()), (gcs.url("p"), gcs.env())]
    {
        let bucket = opened(&url.replace("://isle/", "://elsewhere/"), &env);
        for error in asked_of(&bucket).await {
            assert_eq!(error.kind, StoreErrorKind::Permanent, "{url}: {error}");
            assert!(error.message.contains("the bucket does not exist"), "{error}");
        }
    }
}

/// The bucket away and back: what is tried meanwhile waits and succeeds, within its budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_within_the_budget_costs_time_and_nothing_else() {
    let mut s3 = S3::start().await;
    let bucket = opened(&s3.url("p"), &s3.env());
    bucket.put(&path("x"), vec![1].into()).await.unwrap();
    s3.outage(Some(503));
    let before = s3.requests();
    let waiting = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { bucket.get(&path("x")).await }
    });
    e2e::wait::until("two attempts", Duration::from_secs(10), || {
        std::future::ready((s3.requests() >= before + 2).then_some(()))
    })
    .await;
    s3.outage(None);
    assert_eq!(waiting.await.unwrap().unwrap(), vec![1]);
    s3.stop();
    let refused = bucket.get(&path("x")).await.unwrap_err();
    assert!(refused.is_transient() && refused.message.contains("gave up"), "{refused}");
    s3.restart().await;
    assert_eq!(bucket.get(&path("x")).await.unwrap(), vec![1]);
}

/// A server that keeps its connections and answers nothing hangs nobody, and is fine again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_given_up_in_time() {
    let s3 = S3Process::start(std::path::Path::new(env!("CARGO_BIN_EXE_e2e-s3"))).await;
    let settings = StoreSettings {
        credentials: credentials(&s3.env()),
        retry_budget_seconds: 0,
        request_timeout_seconds: 1,
        ..StoreSettings::default()
    };
    let bucket = open(&s3.url("p"), &settings, &Environment::system("test", "test")).unwrap();
    bucket.put(&path("x"), vec![1].into()).await.unwrap();
    s3.stop();
    let started = Instant::now();
    for error in asked_of(&bucket).await {
        assert!(error.is_transient(), "{error}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "six requests of a second each: {:?}",
        started.elapsed()
    );
    s3.cont();
    e2e::wait::until("an answer", Duration::from_secs(20), || async { bucket.get(&path("x")).await.ok() })
        .await;
}
