//! Coordination in the bucket on S3: served where conditional puts are honest, refused where they are not.

use std::time::Duration;

use e2e::cluster::Cluster;
use e2e::dataset::{assert_same, records, rows};
use e2e::load::{Load, check_log};
use e2e::node::Role;
use e2e::servers::{Conditions, Moto, S3};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_coordinates_where_s3_has_honest_conditional_puts() {
    let moto = Moto::start().await;
    let cluster = Cluster::over(moto.url("db"), "bucket".to_owned(), moto.env());
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let all = records(1_000);
    let batches = Load::start(&[writer.api()], &all, 50, 4).finished().await;
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    assert_same("a scan", &reader.api().scan_at("", Some(last)).await.unwrap(), &rows(&all));
    let changes = tailer.api().tail("earliest").await.unwrap().until(last, Duration::from_secs(60)).await;
    check_log(&changes, &batches);
    let compacted = cluster.run(Role::Compactor, &["--once"]).await;
    assert_eq!(compacted.status.code(), Some(0), "{}", String::from_utf8_lossy(&compacted.stderr));
}

/// Some stores take a conditional put and ignore the condition. The probe at the start finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_conditions_is_refused_for_coordination_in_the_bucket() {
    let s3 = S3::with(Conditions::Ignored).await;
    let cluster = Cluster::over(s3.url("db"), "bucket".to_owned(), s3.env());
    let mut writer = cluster.spawn(Role::Writer);
    assert_eq!(writer.ended().await.code(), Some(2), "{}", writer.log());
    assert!(writer.log().contains("etcd"), "it says what to do instead: {}", writer.log());
    assert!(!s3.file("db", "isle.json").exists(), "nothing was created");
}
