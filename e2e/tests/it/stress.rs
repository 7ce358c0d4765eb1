//! `isle stress`: passes beside a fault, and bites where an answer is wrong.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::cluster::Cluster;
use e2e::node::{Node, Role, run};
use e2e::servers::Env;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn stress(args: Vec<String>) -> Output {
    let args: Vec<&str> = ["stress", "--json"].into_iter().chain(args.iter().map(String::as_str)).collect();
    run("isle", &args, &Env::new()).await
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

fn flags(nodes: &[(&str, String)], duration: &str) -> Vec<String> {
    let mut flags: Vec<String> =
        ["--duration", duration, "--clients", "6", "--keys", "300", "--seed", "7", "--patience", "25"]
            .map(str::to_owned)
            .into();
    for (role, url) in nodes {
        flags.extend([format!("--{role}"), url.clone()]);
    }
    flags
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_killed_in_the_middle_breaks_no_promise() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("writer.generation_segments", "16");
    let mut first = cluster.start(Role::Writer).await;
    first.leads().await;
    let mut standby = cluster.start(Role::Writer).await;
    let rest = [
        cluster.start(Role::Reader).await,
        cluster.start(Role::Reader).await,
        cluster.start(Role::Tailer).await,
        cluster.start(Role::Compactor).await,
    ];
    let nodes = [
        ("writer", first.url()),
        ("writer", standby.url()),
        ("reader", rest[0].url()),
        ("reader", rest[1].url()),
        ("tailer", rest[2].url()),
    ];
    let running = tokio::spawn(stress(flags(&nodes, "14s")));
    goes_on(&first, 100).await;
    first.kill();
    standby.leads().await;
    let output = running.await.unwrap();
    let found = report(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    let judged = &found["judged"];
    for what in ["records", "acknowledged", "reads", "rows", "deliveries"] {
        assert!(judged[what].as_u64().unwrap() > 50, "few {what} were judged: {found}");
    }
    assert!(judged["refused"].as_u64().unwrap() + judged["unknown"].as_u64().unwrap() > 0, "{found}");
    drop(rest);
}

/// Waits until the writer has committed so many numbers more.
async fn goes_on(writer: &Node, numbers: u64) {
    let api = writer.api();
    let committed = || async { api.status().await.ok().and_then(|s| s["committed_seq"].as_u64()) };
    let start = e2e::wait::until("the writer's status", e2e::node::READY, committed).await;
    let further = || async { committed().await.filter(|now| *now >= start + numbers) };
    e2e::wait::until("the stress going on", e2e::node::READY, further).await;
}

/// Stands between a client and a node and changes, once in a while, one letter of a value on its way back. Lengths
/// stay, so nothing but the value is wrong.
async fn tamper(node: &Node) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (target, seen) = (SocketAddr::from(([127, 0, 0, 1], node.port())), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, target, Arc::clone(&seen)));
        }
    });
    url
}

async fn pass(client: TcpStream, target: SocketAddr, seen: Arc<AtomicUsize>) {
    let Ok(node) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_node).await });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from_node.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        // A value as the clients write them: `client-3/17 xxx`. Every fortieth loses its first letter's case.
        for at in 0..n.saturating_sub(7) {
            let is_value = buffer[at..].starts_with(b"client-") && buffer.get(at + 8) == Some(&b'/');
            if is_value && seen.fetch_add(1, Ordering::Relaxed) % 40 == 39 {
                buffer[at] = b'C';
            }
        }
        if to_client.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_or_a_tailer_that_answers_wrongly_is_caught() {
    let cluster = Cluster::embedded();
    let (writer, reader, tailer) = (
        cluster.start(Role::Writer).await,
        cluster.start(Role::Reader).await,
        cluster.start(Role::Tailer).await,
    );
    let honest = [("writer", writer.url()), ("reader", reader.url()), ("tailer", tailer.url())];
    let output = stress(flags(&honest, "3s")).await;
    assert_eq!(output.status.code(), Some(0), "{}", report(&output));
    for liar in ["reader", "tailer"] {
        let mut nodes = honest.clone();
        for (role, url) in &mut nodes {
            if *role == liar {
                *url = tamper(if liar == "reader" { &reader } else { &tailer }).await;
            }
        }
        let output = stress(flags(&nodes, "20s")).await;
        let found = report(&output);
        assert_eq!(output.status.code(), Some(1), "{liar}: {found}");
        assert!(found["violations"].as_u64().unwrap() > 0, "{liar}: {found}");
        let evidence = &found["evidence"][0];
        assert!(!evidence["events"].as_array().unwrap().is_empty(), "{liar}: {evidence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let path = path.to_str().unwrap();
    let nobody = "http://127.0.0.1:1";
    for (args, word) in [
        (vec!["--dir", path, "--duration", "soon"], "--duration"),
        (vec!["--dir", path, "--duration", "0"], "--duration"),
        (vec!["--dir", path, "--clients", "0"], "--clients"),
        (vec!["--dir", path, "--keys", "0"], "--keys"),
        (vec!["--dir", path, "--writer", nobody], "--writer"),
        (vec!["--writer", "nonsense"], "--writer"),
        (vec!["--writer", nobody, "--patience", "1"], "no writer answers"),
    ] {
        let all: Vec<&str> = ["stress"].into_iter().chain(args.iter().copied()).collect();
        let output = run("isle", &all, &Env::new()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
    assert!(!std::path::Path::new(path).exists());
}
