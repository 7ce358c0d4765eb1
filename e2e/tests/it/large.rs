//! A value of 256 MiB through real programs: in and out again, while the programs stay small.

use std::convert::Infallible;
use std::process::Stdio;

use bytes::Bytes;
use e2e::cluster::Cluster;
use e2e::node::{Node, Role, command};
use e2e::servers::Env;
use futures::stream;
use http::{Method, header};
use http_body_util::BodyExt;
use isle_service::client::{Body, Client, ClientSettings};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
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
    high_water_of(node.daemon().pid())
}

fn high_water_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
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

/// `isle put KEY -` sends what it reads as it comes, and needs no more memory for it than for a small value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_256_mib_goes_through_the_command_in_little_memory() {
    let cluster = Cluster::embedded();
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let reader = cluster.start(Role::Reader).await;
    let (at_writer, at_reader) = (writer.url(), reader.url());
    // The first address leads nothing, and is passed over.
    let args = ["put", "large", "-", "--writer", "http://127.0.0.1:1", "--writer", &at_writer];
    let mut command = tokio::process::Command::from(command("isle", &args, &Env::new()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut put = command.spawn().unwrap();
    let mut input = put.stdin.take().unwrap();
    for n in 0..LEN / PIECE {
        input.write_all(&piece(n)).await.unwrap();
    }
    // All but what fits in a pipe and the pieces read ahead has gone by now.
    let grown = high_water_of(put.id().unwrap());
    assert!(grown < GROWTH, "isle put takes {} MiB", grown >> 20);
    drop(input);
    let put = put.wait_with_output().await.unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let position = String::from_utf8(put.stdout).unwrap();

    let client = Client::new(ClientSettings { head_timeout: None, ..ClientSettings::default() });
    let target = format!("/v1/kv/large?min_seq={}", position.trim());
    let part = client
        .request(Method::GET, &at_reader.parse().unwrap(), &target)
        .header(header::RANGE, "bytes=268435000-268435455");
    let part = part.send().await.unwrap();
    assert_eq!(part.header("content-range"), Some(format!("bytes 268435000-268435455/{LEN}").as_str()));
    assert_eq!(part.bytes(1 << 20).await.unwrap(), piece(255)[PIECE - 456..]);
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
