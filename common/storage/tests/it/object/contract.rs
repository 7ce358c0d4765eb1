//! The store contract on files and memory, bare and under every decorator.

use std::sync::Arc;

use isle_storage::object::{FileBucket, OpenError, OpenErrorKind, StoreSettings, open};
use isle_testkit::contract::{self, BucketContract};

use super::{environment, memory, retried};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = FileBucket::open(dir.path(), &environment()).unwrap();
    contract::bucket(Arc::new(bucket), BucketContract { many: 2_000, ..BucketContract::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    contract::bucket(memory(), BucketContract::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decorators_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/prefix", dir.path().display());
    let few_places = StoreSettings { max_concurrent_requests: 2, ..StoreSettings::default() };
    let bucket = open(&url, &few_places, &environment()).unwrap();
    assert_eq!(bucket.url(), url);
    contract::bucket(bucket, BucketContract { many: 300, ..BucketContract::default() }).await;
    contract::bucket(retried().1, BucketContract::default()).await;
}

/// Two directories, two named stores in memory, each under its decorators; and what is not near enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_buckets_of_a_kind_take_objects_of_each_other_by_reference() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |url: &str| open(url, &StoreSettings::default(), &environment()).unwrap();
    let [a, b] = [a, b].map(|dir| (open(&format!("file://{}/db", dir.path().display())), dir));
    contract::copies(&a.0, &b.0, "table/00", true).await;
    let (c, d) = (open("memory://copies-from"), open("memory://copies-to"));
    contract::copies(&c, &d, "table/00", true).await;
    contract::copies(&a.0, &c, "table/00", false).await;
    contract::copies(&c, &a.0, "table/00", false).await;
    contract::copies(&c, &open("null:"), "manifest", false).await;
}

#[tokio::test]
async fn memory_stores_with_a_name_are_shared_and_others_are_not() {
    let open = |url| open(url, &StoreSettings::default(), &environment()).unwrap();
    let x = super::path("x");
    open("memory://shared").put(&x, super::body("1")).await.unwrap();
    assert_eq!(open("memory://shared").get(&x).await.unwrap(), "1");
    assert!(open("memory://").get(&x).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_null_store_counts_data_and_keeps_only_the_manifest() {
    let bucket = open("null:", &StoreSettings::default(), &environment()).unwrap();
    let (data, manifest) = (super::path("log/x"), super::path("manifest/edit-1"));
    bucket.put(&data, super::body("1234")).await.unwrap();
    assert!(bucket.get(&data).await.unwrap_err().is_not_found());
    bucket.create(&manifest, super::body("1")).await.unwrap();
    assert!(bucket.create(&manifest, super::body("2")).await.is_err());
    assert_eq!(bucket.get(&manifest).await.unwrap(), "1");
}

#[test]
fn what_cannot_be_opened_says_why_and_what_the_program_does_about_it() {
    let refused = |url: &str, settings: &StoreSettings| open(url, settings, &environment()).unwrap_err();
    let defaults = StoreSettings::default();
    let missing = refused("file:///nonexistent-parent/child", &defaults);
    assert!(
        matches!(missing, OpenError::Missing { .. }) && missing.to_string().contains("/nonexistent-parent")
    );
    assert_eq!(missing.kind(), OpenErrorKind::Unavailable);
    let file = tempfile::NamedTempFile::new().unwrap();
    let not_a_directory = refused(&format!("file://{}", file.path().display()), &defaults);
    assert!(not_a_directory.to_string().contains("a file, not a directory"), "{not_a_directory}");
    assert_eq!(refused("s3://b/p?colour=red", &defaults).kind(), OpenErrorKind::Usage);
    let no_time = StoreSettings { request_timeout_seconds: 0, ..StoreSettings::default() };
    assert_eq!(refused("memory://", &no_time).kind(), OpenErrorKind::Usage);
}

/// Either the feature is missing and named, or the credentials are; never a request to a metadata address.
#[test]
fn a_cloud_store_without_credentials_or_feature_is_refused_at_once() {
    for (url, feature, variable) in [
        ("s3://b/p", cfg!(feature = "aws"), "AWS_ACCESS_KEY_ID"),
        ("gs://b/p", cfg!(feature = "gcp"), "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://b/p?account=a", cfg!(feature = "azure"), "AZURE_STORAGE_ACCOUNT_KEY"),
    ] {
        let error = open(url, &StoreSettings::default(), &environment()).unwrap_err();
        if feature {
            assert_eq!(error.kind(), OpenErrorKind::Denied, "{error}");
            assert!(error.to_string().contains(variable), "{error}");
        } else {
            assert!(error.to_string().contains("cargo feature"), "{error}");
        }
    }
}
