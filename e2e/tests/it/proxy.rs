//! The fault proxy, over real sockets: each fault does what it says, at once, to connections old and new.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::proxy::{Fault, Protocol, Proxy};
use e2e::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Long enough that what has not come by then is not coming.
const NOT_COMING: Duration = Duration::from_millis(200);

/// A server that sends back what it is sent.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _broken = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A server that answers requests over HTTP and counts them by their connection's lines.
async fn http() -> (SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = std::sync::Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let count = std::sync::Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(1..) = socket.read(&mut buffer).await {
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let _gone = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (address, served)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn say(socket: &mut TcpStream, what: &str) {
    socket.write_all(what.as_bytes()).await.unwrap();
}

/// What comes back, which must.
async fn hear(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 16];
    let n = timeout(SOON, socket.read(&mut buffer)).await.expect("nothing came back")?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

async fn silent(socket: &mut TcpStream) {
    let mut byte = [0];
    let heard = timeout(NOT_COMING, socket.read(&mut byte)).await;
    assert!(heard.is_err(), "something came back: {heard:?}");
}

#[tokio::test]
async fn what_passes_passes_both_ways() {
    let proxy = Proxy::to(echo().await, Protocol::Tcp).await;
    let mut socket = connect(&proxy).await;
    say(&mut socket, "hello").await;
    assert_eq!(hear(&mut socket).await.unwrap(), "hello");
    let _second = connect(&proxy).await;
    until("the second connection", SOON, || std::future::ready((proxy.done().most_open == 2).then_some(())))
        .await;
    assert_eq!(proxy.done().connections, 2);
}

#[tokio::test]
async fn a_cut_ends_connections_in_order_and_a_reset_without() {
    let proxy = Proxy::to(echo().await, Protocol::Tcp).await;
    let mut old = connect(&proxy).await;
    say(&mut old, "x").await;
    assert_eq!(hear(&mut old).await.unwrap(), "x");
    proxy.set(Fault::Cut);
    assert_eq!(hear(&mut old).await.unwrap(), "", "an orderly end");
    assert_eq!(hear(&mut connect(&proxy).await).await.unwrap(), "", "new ones too");

    proxy.heal();
    let mut old = connect(&proxy).await;
    say(&mut old, "x").await;
    assert_eq!(hear(&mut old).await.unwrap(), "x");
    proxy.set(Fault::Reset);
    // Healed at once: a connection that was there must not miss it.
    proxy.heal();
    assert_eq!(hear(&mut old).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut new = connect(&proxy).await;
    say(&mut new, "y").await;
    assert_eq!(hear(&mut new).await.unwrap(), "y");
    assert_eq!(proxy.done().broken, 3);
}

#[tokio::test]
async fn a_black_hole_loses_what_it_is_given_and_its_connections_with_it() {
    let proxy = Proxy::to(echo().await, Protocol::Tcp).await;
    let mut holed = connect(&proxy).await;
    let mut idle = connect(&proxy).await;
    for socket in [&mut holed, &mut idle] {
        say(socket, "x").await;
        assert_eq!(hear(socket).await.unwrap(), "x");
    }
    proxy.set(Fault::BlackHole);
    say(&mut holed, "lost").await;
    silent(&mut holed).await;
    assert_eq!(proxy.done().swallowed, 4);
    proxy.heal();
    assert_eq!(hear(&mut holed).await.unwrap(), "", "a stream with a hole cannot go on");
    say(&mut idle, "y").await;
    assert_eq!(hear(&mut idle).await.unwrap(), "y", "one without can");
}

#[tokio::test]
async fn a_stall_delivers_late_what_a_black_hole_would_lose() {
    let proxy = Proxy::to(echo().await, Protocol::Tcp).await;
    let mut old = connect(&proxy).await;
    say(&mut old, "a").await;
    assert_eq!(hear(&mut old).await.unwrap(), "a");
    proxy.set(Fault::Stall);
    let mut new = connect(&proxy).await;
    for socket in [&mut old, &mut new] {
        say(socket, "late").await;
        silent(socket).await;
    }
    proxy.heal();
    for socket in [&mut old, &mut new] {
        assert_eq!(hear(socket).await.unwrap(), "late");
    }
}

#[tokio::test]
async fn delays_and_throttles_take_their_time() {
    let proxy = Proxy::to(echo().await, Protocol::Tcp).await;
    let mut socket = connect(&proxy).await;
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let sent = Instant::now();
    say(&mut socket, "x").await;
    assert_eq!(hear(&mut socket).await.unwrap(), "x");
    assert!(sent.elapsed() >= Duration::from_millis(200), "both ways: {:?}", sent.elapsed());

    proxy.set(Fault::Throttle(20_000));
    let sent = Instant::now();
    socket.write_all(&[0; 8_000]).await.unwrap();
    let mut back = vec![1; 8_000];
    timeout(SOON, socket.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, [0; 8_000]);
    assert!(sent.elapsed() >= Duration::from_millis(380), "{:?}", sent.elapsed());
}

#[tokio::test]
async fn a_refused_request_is_answered_and_never_forwarded() {
    const PUT: &str = "PUT /k HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
    let (server, served) = http().await;
    let count = || served.load(std::sync::atomic::Ordering::SeqCst);
    let proxy = Proxy::to(server, Protocol::Http).await;
    let mut socket = connect(&proxy).await;
    say(&mut socket, &format!("{PUT}body")).await;
    assert!(hear(&mut socket).await.unwrap().starts_with("HTTP/1.1 200"));
    proxy.set(Fault::Refuse);
    // The body in a piece of its own: the answer waits for the whole request.
    say(&mut socket, PUT).await;
    silent(&mut socket).await;
    say(&mut socket, "body").await;
    let answer = hear(&mut socket).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("<Code>SlowDown</Code>"), "{answer}");
    assert_eq!((count(), proxy.done().refused), (1, 1));
    // On the same connection, so that the client sees a throttling server and not a broken one.
    proxy.heal();
    say(&mut socket, &format!("{PUT}body")).await;
    assert!(hear(&mut socket).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn a_request_that_was_half_through_is_not_refused() {
    let (server, served) = http().await;
    let proxy = Proxy::to(server, Protocol::Http).await;
    let mut socket = connect(&proxy).await;
    say(&mut socket, "PUT /k HTTP/1.1\r\nContent-Length: 4\r\n\r\n").await;
    let half = || std::future::ready((served.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(()));
    until("half of the request", SOON, half).await;
    assert!(hear(&mut socket).await.unwrap().starts_with("HTTP/1.1 200"));
    proxy.set(Fault::Refuse);
    say(&mut socket, "body").await;
    assert!(hear(&mut socket).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.done().refused, 0);
}

#[tokio::test]
async fn a_lost_reply_is_lost_after_the_request_was_done() {
    let (server, served) = http().await;
    let proxy = Proxy::to(server, Protocol::Http).await;
    proxy.set(Fault::LoseReplies(1));
    let mut socket = connect(&proxy).await;
    say(&mut socket, "GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(hear(&mut socket).await.unwrap(), "", "no answer, and the connection closed");
    assert_eq!(served.load(std::sync::atomic::Ordering::SeqCst), 1, "the server has served it");
    assert_eq!(proxy.done().replies_lost, 1);
}

#[tokio::test]
async fn nobody_behind_it_looks_like_a_broken_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::to(nobody, Protocol::Tcp).await;
    let mut socket = connect(&proxy).await;
    let heard = hear(&mut socket).await;
    assert!(heard.as_ref().map_or(true, String::is_empty), "{heard:?}");
}
