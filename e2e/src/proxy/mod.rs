//! A TCP proxy that does to connections what networks, middleboxes and overloaded servers do.
//!
//! ```text
//! client ──▶ accept ──▶ Link ── up ───▶ server        one link per connection; both directions look at the fault
//!                        ▲   ◀── down ──              before every read and every write, so that a switch takes
//!                        └── State (watch): fault, cuts   effect at once, on old connections and new ones alike
//! ```
//!
//! Most faults know nothing of what is carried. [`Fault::Refuse`] speaks HTTP/1.1: it follows the framing of requests
//! ([`http::Framing`]) so that a request is either forwarded whole or refused whole, never cut in two.
//!
//! Two faults look alike and are not: a [`Fault::BlackHole`] loses what it is given, so its connections are broken when
//! it ends; a [`Fault::Stall`] keeps it back and delivers it when it ends, as a partition does whose segments are sent
//! again. The second is the one that makes an old transaction arrive late.

mod http;
mod link;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use link::{End, Link};

/// What is done to every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Every piece waits, in both directions.
    Delay(Duration),
    /// So many bytes a second pass, in each direction of each connection.
    Throttle(u32),
    /// Connections are closed, old ones and new ones.
    Cut,
    /// The same with a reset instead of an orderly end.
    Reset,
    /// Connections stay open; whatever is sent, either way, is lost. They are broken when this ends.
    BlackHole,
    /// Connections stay open; whatever is sent is delivered when this ends.
    Stall,
    /// HTTP only: requests are answered `503 SlowDown` and not forwarded.
    Refuse,
    /// Requests pass; one piece in so many of what comes back is lost, and its connection closed.
    LoseReplies(u32),
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Anything.
    Tcp,
    /// HTTP/1.1 without pipelining.
    Http,
}

/// What a proxy has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Connections accepted.
    pub connections: u64,
    /// The most that were open at once.
    pub most_open: u64,
    /// Connections closed or reset by a fault.
    pub broken: u64,
    /// Bytes lost in black holes.
    pub swallowed: u64,
    /// Requests answered 503.
    pub refused: u64,
    /// Replies lost.
    pub replies_lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
    broken: AtomicU64,
    swallowed: AtomicU64,
    refused: AtomicU64,
    replies: AtomicU64,
    replies_lost: AtomicU64,
}

/// The fault, and how often connections were broken: a link that is older than the last break ends, even where it
/// missed the moment.
#[derive(Debug, Clone, Copy)]
struct State {
    fault: Fault,
    breaks: u64,
    by_reset: bool,
}

/// A proxy to one server. Dropped, it closes its port and every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    counters: Arc<Counters>,
    accepts: JoinHandle<()>,
}

impl Proxy {
    /// A proxy on a free loopback port.
    ///
    /// # Panics
    /// If there is none.
    pub async fn to(server: SocketAddr, protocol: Protocol) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), server, protocol).await
    }

    /// A proxy at an address; port 0 takes a free one.
    ///
    /// # Panics
    /// If it cannot listen there.
    pub async fn at(listen: SocketAddr, server: SocketAddr, protocol: Protocol) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State { fault: Fault::Pass, breaks: 0, by_reset: false });
        let counters = Arc::<Counters>::default();
        let link = Link::new(state.subscribe(), Arc::clone(&counters), protocol);
        let accepts = tokio::spawn(accept(listener, server, link));
        Self { address, state, counters, accepts }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Switches, for connections there are and those to come.
    pub fn set(&self, fault: Fault) {
        self.state.send_modify(|s| {
            if matches!(fault, Fault::Cut | Fault::Reset) {
                s.breaks += 1;
                s.by_reset = fault == Fault::Reset;
            }
            s.fault = fault;
        });
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.set(Fault::Pass);
    }

    /// What is done at present.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.state.borrow().fault
    }

    /// What it has done so far.
    #[must_use]
    pub fn done(&self) -> Done {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.counters;
        Done {
            connections: load(&c.connections),
            most_open: load(&c.most_open),
            broken: load(&c.broken),
            swallowed: load(&c.swallowed),
            refused: load(&c.refused),
            replies_lost: load(&c.replies_lost),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
        self.set(Fault::Cut);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, link: Link) {
    loop {
        // A connection that broke before it was accepted is its client's affair.
        let Ok((client, _)) = listener.accept().await else { continue };
        link.count(|c| &c.connections);
        let link = link.fresh();
        tokio::spawn(async move {
            link.opened();
            let ended = carry(&client, server, link.clone()).await;
            link.closed();
            if ended.by_fault {
                link.count(|c| &c.broken);
            }
            if ended.by_reset {
                // Linger of nothing makes the close that follows a reset; where it fails the close is orderly.
                let _orderly = client.set_zero_linger();
            }
        });
    }
}

/// Carries bytes both ways until one end closes or a fault breaks the connection.
async fn carry(client: &TcpStream, server: SocketAddr, link: Link) -> End {
    if let Err(end) = link.clone().may_connect().await {
        return end;
    }
    let server = match tokio::time::timeout(CONNECT, TcpStream::connect(server)).await {
        Ok(Ok(server)) => server,
        // As if nobody listened where the client believes to have connected.
        _ => return End { by_fault: false, by_reset: true },
    };
    // Small frames wait for nobody: a proxy must not add delays of its own.
    let _slower = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        end = link.clone().up(client, &server) => end,
        end = link.clone().down(&server, client) => end,
    }
}

/// How long the server may take to accept.
const CONNECT: Duration = Duration::from_secs(5);
