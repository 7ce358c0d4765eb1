//! A value of 256 MiB through real programs: in and out again, while the programs stay small.

use std::convert::Infallible;

use bytes::Bytes;
use e2e::cluster::Cluster;
use e2e::node::{Node, Role};
use futures::stream;
use http::{Method, header};
use http_body_util::BodyExt;
use isle_service::client::{Body, Client, ClientSettings};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

const LEN: usize = 256 << 20;
const PIECE: usize = 1 << 20;

/// How much a program may grow by a value of [`LEN`].
const GROWTH: u64 = 64 << 20;

/// A piece of the value; every one is another.
fn piece(n: usize) -> Bytes {
    (0..PIECE).map(|i| (i / 251 + i * 7 + n * 31) as u8).collect::<Vec<_>>().into()
}

/// The most memory that the program has ever had, in bytes.
fn high_water(node: &mut Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon().pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_256_mib_takes_little_memory_on_the_embedded_default() {
    a_large_value(Cluster::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_256_mib_takes_little_memory_with_etcd_and_s3() {
    a_large_value(Cluster::etcd().await).await;
}

async fn a_large_value(cluster: Cluster) {
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut reader = cluster.start(Role::Reader).await;
    let client = Client::new(ClientSettings { head_timeout: None, ..ClientSettings::default() });
    let (at_writer, at_reader) = (writer.url().parse().unwrap(), reader.url().parse().unwrap());
    // Everything that a first request makes room for.
    client
        .request(Method::PUT, &at_writer, "/v1/kv/small")
        .body("v")
        .send()
        .await
        .unwrap()
        .ok()
        .await
        .unwrap();

    let before = high_water(&mut writer);
    let pieces = stream::iter((0..LEN / PIECE).map(|n| Ok::<_, Infallible>(piece(n))));
    let put = client.request(Method::PUT, &at_writer, "/v1/kv/large").body(Body::from_stream(pieces));
    let answer: Value = put.send().await.unwrap().ok().await.unwrap().json().await.unwrap();
    let grown = high_water(&mut writer) - before;
    assert!(grown < GROWTH, "the writer grew by {} MiB", grown >> 20);

    let before = high_water(&mut reader);
    let target = format!("/v1/kv/large?min_seq={}", answer["position"].as_str().unwrap());
    let got = client.request(Method::GET, &at_reader, &target).send().await.unwrap().ok().await.unwrap();
    assert_eq!(got.header("content-length"), Some(LEN.to_string().as_str()));
    let (mut body, mut found, mut len) = (got.into_body(), Xxh3::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap_or_default();
        len += data.len();
        found.update(&data);
    }
    let mut expected = Xxh3::new();
    (0..LEN / PIECE).for_each(|n| expected.update(&piece(n)));
    assert_eq!((len, found.digest()), (LEN, expected.digest()));
    let grown = high_water(&mut reader) - before;
    assert!(grown < GROWTH, "the reader grew by {} MiB", grown >> 20);

    let part =
        client.request(Method::GET, &at_reader, &target).header(header::RANGE, "bytes=200000000-200000999");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 206);
    let expected = [piece(190), piece(191)].concat()[200_000_000 - 190 * PIECE..][..1000].to_vec();
    assert_eq!(part.bytes(1 << 20).await.unwrap(), expected);
}
