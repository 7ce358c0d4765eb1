//! Input that is wrong, odd, or at a limit: refused whole with the reason, or kept byte for byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::dataset::{Rows, assert_same};
use e2e::node::{Node, Role};
use http::Method;
use isle_service::wire::base64;
use serde_json::json;

/// Longest value of the writers here.
const VALUE_LIMIT: usize = 1 << 20;

/// Longest key.
const KEY_LIMIT: usize = 65_536;

async fn writer_and_reader(cluster: &mut Cluster) -> (Node, Node) {
    cluster.set("writer.max_value_bytes", &VALUE_LIMIT.to_string());
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let reader = cluster.start(Role::Reader).await;
    (writer, reader)
}

fn b64(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    base64::encode_standard(&mut out, bytes);
    String::from_utf8(out).unwrap()
}

/// Everything a reader holds once it holds the newest write.
async fn all(writer: &Api, reader: &Api) -> Rows {
    let last = writer.put(b"~last", b"x").await.unwrap().last;
    let mut rows = reader.scan_at("", Some(last)).await.unwrap();
    rows.remove(b"~last".as_slice());
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_stops_a_batch_whole_and_an_ingest_where_it_stands() {
    let mut cluster = Cluster::embedded();
    let (writer, reader) = writer_and_reader(&mut cluster).await;
    let (writer, reader) = (writer.api(), reader.api());
    let too_long = "k".repeat(KEY_LIMIT + 1);
    let bad_lines = [
        "{\"op\":\"put\",\"key\":\"x\"".to_owned(),
        "not json".to_owned(),
        json!({"op": "put", "key": "x", "value": "v", "extra": 1}).to_string(),
        json!({"op": "put", "key": "x", "key_b64": "eA==", "value": "v"}).to_string(),
        json!({"op": "put", "key": "", "value": "v"}).to_string(),
        json!({"op": "put", "key": too_long, "value": "v"}).to_string(),
        json!({"op": "put", "key_b64": "!!", "value": "v"}).to_string(),
        json!({"op": "merge", "key": "x", "value": "v"}).to_string(),
        json!({"op": "put", "key": "x", "value": "v", "ttl": "0s"}).to_string(),
    ];
    for (n, bad) in bad_lines.iter().enumerate() {
        let line = |part: &str| json!({"op": "put", "key": format!("{part}/{n}"), "value": "v"}).to_string();
        let body = format!("{}\n{}\n{bad}\n{}\n", line("a1"), line("a2"), line("b"));
        let shown: String = bad.chars().take(80).collect();

        let refused =
            writer.plain(Method::POST, "/v1/batch", body.replace("\"a", "\"batch-a").into_bytes()).await;
        let refused = refused.unwrap();
        assert_eq!(refused.status, 400, "{shown}: {}", refused.json());
        assert_eq!(refused.json()["error"]["line"], 3, "{shown}: {}", refused.json());

        let stopped = writer.plain(Method::POST, "/v1/ingest", body.into_bytes()).await.unwrap();
        assert_eq!(stopped.status, 400, "{shown}: {}", stopped.json());
        let error = &stopped.json()["error"];
        assert_eq!(
            (error["line"].as_u64(), error["committed_lines"].as_u64()),
            (Some(3), Some(2)),
            "{shown}: {error}"
        );
    }
    let parts = (0..bad_lines.len()).flat_map(|n| [format!("a1/{n}"), format!("a2/{n}")]);
    let expected: Rows = parts.map(|key| (key.into_bytes(), b"v".to_vec())).collect();
    assert_same("what stood before the bad lines", &all(&writer, &reader).await, &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_any_bytes_come_back_as_they_were() {
    let mut cluster = Cluster::embedded();
    let (writer, reader) = writer_and_reader(&mut cluster).await;
    let tailer = cluster.start(Role::Tailer).await;
    let (writer, reader, tailer) = (writer.api(), reader.api(), tailer.api());
    let mut keys: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    keys.push((0..=255u8).collect());
    keys.extend(
        [
            ".", "..", "/", "//", "a//b", "/a", "a/", "./a", "a/../b", "%", "%2F", "%2f", "%00", "a+b",
            "a b", "?", "#",
        ]
        .map(|k| k.as_bytes().to_vec()),
    );
    let mut expected = Rows::new();
    let mut last = 0;
    for (n, key) in keys.iter().enumerate() {
        let value: Vec<u8> = key.iter().rev().copied().chain(n.to_string().into_bytes()).collect();
        last = writer.put_with(key, &value, "?ack=memory").await.unwrap().last;
        expected.insert(key.clone(), value);
    }
    let flushed = writer.plain(Method::POST, "/v1/flush", Vec::new()).await.unwrap();
    assert_eq!(flushed.status, 200, "{}", flushed.json());
    assert_same("a scan", &reader.scan_at("", Some(last)).await.unwrap(), &expected);
    for (key, value) in &expected {
        assert_eq!(&reader.get(key).await.unwrap().unwrap().value, value, "{key:?}");
        let target = format!("/v1/kv?key_b64={}", base64::encode_url(key));
        let found = reader.plain(Method::GET, &target, Vec::new()).await.unwrap();
        assert_eq!((found.status, &found.body), (200, value), "{key:?} by its base64");
    }
    let changes = tailer.tail("earliest").await.unwrap().until(last, Duration::from_secs(60)).await;
    let told: Rows = changes.into_iter().map(|c| (c.key, c.value.unwrap())).collect();
    assert_same("a tail", &told, &expected);
    // The path is raw: what a general client would resolve or fold is a key of its own here.
    for (target, key) in
        [("/v1/kv/%2F", "/"), ("/v1/kv/%252F", "%2F"), ("/v1/kv/a/../b", "a/../b"), ("/v1/kv/a//b", "a//b")]
    {
        let found = reader.plain(Method::GET, target, Vec::new()).await.unwrap();
        assert_eq!((found.status, &found.body), (200, &expected[key.as_bytes()]), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_at_and_over_their_limits() {
    let mut cluster = Cluster::embedded();
    let (writer_node, reader) = writer_and_reader(&mut cluster).await;
    let (writer, reader) = (writer_node.api(), reader.api());

    let empty = writer.plain(Method::PUT, "/v1/kv/", b"v".to_vec()).await.unwrap();
    assert_eq!((empty.status, empty.code().as_str()), (400, "invalid_key"));
    let long = vec![b'k'; KEY_LIMIT];
    let line = |key: &[u8]| json!({"op": "put", "key_b64": b64(key), "value": "v"}).to_string();
    writer.batch(line(&long).into_bytes()).await.unwrap();
    let over = writer
        .plain(Method::POST, "/v1/batch", line(&[&long[..], b"k"].concat()).into_bytes())
        .await
        .unwrap();
    assert_eq!((over.status, over.code().as_str()), (400, "invalid_key"), "{}", over.json());
    // A target this long is not even read.
    let status = raw(&writer_node, &format!("PUT /v1/kv/{} HTTP/1.1", "k".repeat(KEY_LIMIT + 1)), 0);
    assert!(status.starts_with("HTTP/1.1 4"), "{status}");

    let value = vec![7; VALUE_LIMIT];
    writer.put(b"full", &value).await.unwrap();
    // The client is still sending when the refusal is decided, and hears it all the same.
    let over = writer.plain(Method::PUT, "/v1/kv/over", vec![7; VALUE_LIMIT + 1]).await.unwrap();
    assert_eq!((over.status, over.code().as_str()), (413, "value_too_large"), "{}", over.json());
    assert_eq!(over.json()["error"]["limit"], VALUE_LIMIT);
    writer.put(b"empty", b"").await.unwrap();

    let expected =
        Rows::from([(long, b"v".to_vec()), (b"full".to_vec(), value), (b"empty".to_vec(), Vec::new())]);
    assert_same("what fits", &all(&writer, &reader).await, &expected);
}

/// What is not understood is refused rather than guessed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_refused_by_its_name() {
    let mut cluster = Cluster::embedded();
    let (writer, reader) = writer_and_reader(&mut cluster).await;
    let tailer = cluster.start(Role::Tailer).await;
    let cases: [(&Node, Method, &str, u16, &str); 12] = [
        (&writer, Method::PUT, "/v1/kv/k?acks=bucket", 400, "unknown_parameter"),
        (&writer, Method::PUT, "/v1/kv/k?ack=disk", 400, "unsupported"),
        (&writer, Method::PUT, "/v1/kv/k?ttl=-1", 400, "invalid_request"),
        (&writer, Method::GET, "/v1/nothing", 404, "unknown_endpoint"),
        (&writer, Method::PATCH, "/v1/batch", 405, "method_not_allowed"),
        (&reader, Method::GET, "/v1/kv/k?min_seq=x", 400, "invalid_request"),
        (&reader, Method::GET, "/v1/kv/k?min_seq=999999&wait=10ms", 504, "view_behind"),
        (&reader, Method::GET, "/v1/scan?prefix=a&start=b", 400, "invalid_request"),
        (&reader, Method::GET, "/v1/scan?limit=0", 400, "invalid_request"),
        (&reader, Method::GET, "/v1/scan?page=!", 400, "invalid_request"),
        (&tailer, Method::GET, "/v1/tail?from=yesterday", 400, "invalid_request"),
        (&tailer, Method::GET, "/v1/changes?limit=0", 400, "invalid_request"),
    ];
    for (node, method, target, status, code) in cases {
        let answer = node.api().plain(method, target, Vec::new()).await.unwrap();
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{target}: {shown}");
    }
}

/// Sends a head as it is, announcing a body that is not sent, and reads the answer.
fn raw(node: &Node, head: &str, length: usize) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    // The server may answer and close before it has read everything.
    let _cut = socket.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _reset = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
