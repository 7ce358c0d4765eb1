//! A TCP proxy that does to connections what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes between its clients and one server.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    cuts: watch::Sender<u64>,
    accepts: JoinHandle<()>,
}

#[derive(Default)]
struct Faults {
    /// What the server sends disappears; connections stay open.
    swallow_replies: AtomicBool,
    /// Bytes swallowed so far.
    swallowed: AtomicUsize,
    /// Connections so far.
    connections: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::<Faults>::default();
        let cuts = watch::Sender::new(0);
        let accepts = tokio::spawn(accept(listener, server, Arc::clone(&faults), cuts.clone()));
        Self { address, faults, cuts, accepts }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on what the server sends disappears, or passes again.
    pub(crate) fn swallow_replies(&self, swallow: bool) {
        self.faults.swallow_replies.store(swallow, Ordering::SeqCst);
    }

    /// Bytes swallowed so far.
    pub(crate) fn swallowed(&self) -> usize {
        self.faults.swallowed.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.faults.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, faults: Arc<Faults>, cuts: watch::Sender<u64>) {
    while let Ok((client, _)) = listener.accept().await {
        faults.connections.fetch_add(1, Ordering::SeqCst);
        let (faults, mut cut) = (Arc::clone(&faults), cuts.subscribe());
        tokio::spawn(async move {
            // The server may be away: the client then sees its connection closed.
            let Ok(server) = TcpStream::connect(server).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, None) => {}
                () = pass(from_server, to_client, Some(&faults)) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: Option<&Faults>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        match faults {
            Some(f) if f.swallow_replies.load(Ordering::SeqCst) => {
                f.swallowed.fetch_add(n, Ordering::SeqCst);
            }
            _ => {
                if to.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
