//! The servers themselves: what the scenarios lean on does what it says.

use std::path::Path;
use std::time::Duration;

use e2e::servers::{Etcd, S3Process, credentials};
use isle_storage::environment::Environment;
use isle_storage::names::ObjectPath;
use isle_storage::object::{StoreSettings, open};

#[tokio::test]
async fn one_etcd_is_wiped_set_back_and_restarted_at_the_same_address() {
    let mut etcd = Etcd::single().await;
    let url = etcd.url("isle");
    let value = |etcd: &Etcd| etcd.etcdctl(&["get", "k", "--print-value-only"]).trim().to_owned();
    let _ok = etcd.etcdctl(&["put", "k", "old"]);
    let old = etcd.backup();
    let _ok = etcd.etcdctl(&["put", "k", "new"]);
    etcd.kill();
    etcd.restart().await;
    assert_eq!(value(&etcd), "new", "data survives a kill");
    etcd.restore(&old).await;
    assert_eq!(value(&etcd), "old");
    etcd.wipe().await;
    assert_eq!(value(&etcd), "");
    assert_eq!(etcd.url("isle"), url);
    etcd.compact();
}

#[tokio::test]
async fn three_etcds_go_on_without_their_leader() {
    let mut etcd = Etcd::cluster().await;
    assert_eq!(etcd.endpoints().len(), 3);
    let _ok = etcd.etcdctl(&["put", "k", "1"]);
    let leader = etcd.leader();
    etcd.member(leader).kill();
    let others: Vec<_> = etcd.endpoints().into_iter().enumerate().filter(|(n, _)| *n != leader).collect();
    let put = || {
        let status = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &others[0].1, "--command-timeout", "1s", "put", "k", "2"])
            .output()
            .unwrap()
            .status;
        std::future::ready(status.success().then_some(()))
    };
    e2e::wait::until("a new leader", Duration::from_secs(20), put).await;
    etcd.member(leader).restart().await;
    assert_eq!(etcd.etcdctl(&["get", "k", "--print-value-only"]).trim(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_process_keeps_its_data_when_it_is_killed() {
    let mut s3 = S3Process::start(Path::new(env!("CARGO_BIN_EXE_e2e-s3"))).await;
    let settings = StoreSettings { credentials: credentials(&s3.env()), ..StoreSettings::default() };
    let bucket = open(&s3.url("p"), &settings, &Environment::system("test", "test")).unwrap();
    let x = ObjectPath::new("log/x").unwrap();
    bucket.put(&x, vec![1].into()).await.unwrap();
    s3.kill();
    s3.restart().await;
    assert_eq!(bucket.get(&x).await.unwrap(), vec![1]);
    assert_eq!(std::fs::read(s3.file("p", "log/x")).unwrap(), vec![1]);
}
