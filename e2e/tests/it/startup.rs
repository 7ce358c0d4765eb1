//! Starts that are refused: the exit code and the word that helps.

use e2e::cluster::Cluster;
use e2e::node::{Node, Role};
use e2e::servers::{Env, Etcd, S3};

/// Runs a program that must end by itself with `exit`; what it said.
async fn refused(mut node: Node, exit: i32) -> String {
    let status = node.ended().await;
    let log = node.log();
    assert_eq!(status.code(), Some(exit), "{:?} says {log}", node.role());
    log
}

/// A cluster that exists, without a process.
async fn created(cluster: Cluster) -> Cluster {
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    writer.api().put(b"k", b"v").await.unwrap();
    assert_eq!(writer.stopped().await, 0);
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_setting_is_refused_and_the_nearest_known_one_named() {
    let cluster = Cluster::embedded();
    let file = cluster.dir().join("isle.toml");
    for (role, section, wrong, right) in [
        (Role::Writer, "writer", "linger_msec = 5", "linger_ms"),
        (Role::Reader, "reader", "cache_byte = 5", "cache_bytes"),
        (Role::Tailer, "tailer", "max_consumer = 5", "max_consumers"),
        (Role::Compactor, "compactor", "grace_second = 5", "grace_seconds"),
        (Role::Reader, "store", "urls = \"x\"", "url"),
    ] {
        std::fs::write(&file, format!("[{section}]\n{wrong}\n")).unwrap();
        let output = cluster.run(role, &["--config", file.to_str().unwrap()]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong}: {said}");
        assert!(said.contains(right), "{wrong}: {said}");
    }
    let mut cluster = cluster;
    cluster.set("writer.lingerms", "5");
    let output = cluster.run(Role::Writer, &[]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("LINGER_MS"), "{said}");
    let output = cluster.run(Role::Writer, &["--no-such-flag"]).await;
    assert_eq!(output.status.code(), Some(2));
}

/// One prefix is never driven by two forms of coordination at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_refused_with_another_coordination_than_it_was_made_with() {
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let made = created(Cluster::over(s3.url("db"), etcd.url("isle"), s3.env())).await;
    let other = Cluster::over(s3.url("db"), "bucket".to_owned(), s3.env());
    for role in Role::ALL {
        let said = refused(other.spawn(role), 2).await;
        assert!(said.contains("etcd"), "{role:?} says {said}");
    }
    drop(made);

    let made = created(Cluster::embedded()).await;
    let store = format!("file://{}", made.dir().join("bucket").display());
    let other = Cluster::over(store, etcd.url("other"), Env::new());
    for role in Role::ALL {
        let said = refused(other.spawn(role), 2).await;
        assert!(said.contains("bucket"), "{role:?} says {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_another_name_is_refused() {
    let mut cluster = created(Cluster::embedded()).await;
    cluster.set("store.database", "other");
    for role in Role::ALL {
        let said = refused(cluster.spawn(role), 2).await;
        assert!(said.contains("wrong_database"), "{role:?} says {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_end_a_program_with_a_failure() {
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let wrong: Env = s3
        .env()
        .into_iter()
        .map(|(name, value)| if name.contains("SECRET") { (name, "wrong".to_owned()) } else { (name, value) })
        .collect();
    let cluster = Cluster::over(s3.url("db"), etcd.url("isle"), wrong);
    for role in Role::ALL {
        let said = refused(cluster.spawn(role), 1).await;
        assert!(said.contains("ERROR"), "{role:?} says {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_ends_a_program_with_a_failure() {
    let cluster = Cluster::embedded();
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let logs = cluster.dir().join("second");
    std::fs::create_dir(&logs).unwrap();
    let second = Node::spawn_at(Role::Reader, writer.port(), cluster.flags(), cluster.env().clone(), &logs);
    let said = refused(second, 1).await;
    assert!(said.contains(&writer.port().to_string()), "{said}");
    writer.api().put(b"k", b"v").await.unwrap();
}
