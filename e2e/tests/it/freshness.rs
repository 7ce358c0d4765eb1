//! Read your writes: what was acknowledged is found by any reader that is told its number or position.

use std::sync::Arc;

use e2e::cluster::Cluster;
use e2e::node::Role;
use tokio::task::JoinSet;

const CLIENTS: usize = 4;
const WRITES: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_finds_what_was_acknowledged_on_the_embedded_default() {
    every_reader_finds_it(&Cluster::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_finds_what_was_acknowledged_with_etcd() {
    every_reader_finds_it(&Cluster::etcd().await).await;
}

async fn every_reader_finds_it(cluster: &Cluster) {
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let nodes = [cluster.start(Role::Reader).await, cluster.start(Role::Reader).await];
    let readers: Arc<Vec<_>> = Arc::new(nodes.iter().map(|n| n.api()).collect());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (writer, readers) = (writer.api(), Arc::clone(&readers));
        clients.spawn(async move {
            let key = format!("client/{client}").into_bytes();
            for n in 0..WRITES {
                let value = n.to_string().into_bytes();
                let written = writer.put(&key, &value).await.unwrap();
                for min_seq in [written.position.clone(), written.last.to_string()] {
                    for reader in readers.iter() {
                        let found = reader.get_at(&key, &format!("?min_seq={min_seq}")).await.unwrap();
                        let found = found.unwrap_or_else(|| panic!("write {n} at {min_seq} is absent"));
                        assert_eq!(found.value, value, "at {min_seq}");
                        assert_eq!(found.seq, written.last);
                        assert!(found.view_seq >= written.last);
                    }
                }
            }
        });
    }
    clients.join_all().await;
}
