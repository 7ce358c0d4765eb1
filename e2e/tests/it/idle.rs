//! An idle cluster costs nothing: with etcd, nobody asks the bucket for anything.

use std::time::Duration;

use e2e::cluster::Cluster;
use e2e::dataset::{ndjson, records};
use e2e::node::Role;
use e2e::wait::until;

/// How long nothing may be asked.
const IDLE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_with_etcd_asks_the_bucket_for_nothing() {
    let cluster = Cluster::etcd().await;
    let mut nodes = Vec::new();
    for role in [Role::Writer, Role::Writer, Role::Reader, Role::Tailer, Role::Compactor] {
        nodes.push(cluster.start(role).await);
    }
    let summary = nodes[0].api().ingest(ndjson(&records(2_000))).await.unwrap();
    let last = summary["last_seq"].as_u64().unwrap();
    nodes[2].api().get_at(b"k", &format!("?min_seq={last}")).await.unwrap();
    let tail = nodes[3].api().tail("latest").await.unwrap();

    let s3 = cluster.s3.as_ref().unwrap();
    let (mut seen, mut since) = (s3.requests(), tokio::time::Instant::now());
    let quiet = || {
        if s3.requests() != seen {
            (seen, since) = (s3.requests(), tokio::time::Instant::now());
        }
        std::future::ready((since.elapsed() >= IDLE).then_some(()))
    };
    // What the load left to do ends first; then a stretch without one request must come.
    until("ten seconds without a request to the bucket", 4 * IDLE, quiet).await;
    // The counters of the programs agree with the server's.
    let mut counted = 0.0;
    for node in &nodes {
        counted += node.api().metric("isle_store_requests_total").await.unwrap();
    }
    assert!(counted > 0.0, "the programs count no requests");
    assert_eq!(s3.requests(), seen, "looking at metrics asks the bucket for nothing");
    drop(tail);
}
