//! One connection through the proxy: two directions, each under the fault of the moment.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};

use super::http::{Framing, SLOW_DOWN};
use super::{Counters, Fault, Protocol, State};

/// Bytes carried at once.
const PIECE: usize = 64 << 10;

/// A throttled connection moves this often.
const THROTTLE_STEP: Duration = Duration::from_millis(50);

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Whether a fault ended it, and not one of its ends.
    pub(super) by_fault: bool,
    /// Whether its client is to see a reset.
    pub(super) by_reset: bool,
}

/// One of the ends has closed.
const CLOSED: End = End { by_fault: false, by_reset: false };
/// A fault closes it.
const BROKEN: End = End { by_fault: true, by_reset: false };

/// What the two directions of a connection share.
#[derive(Debug, Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    counters: Arc<Counters>,
    protocol: Protocol,
    /// Breaks before this one began.
    breaks: u64,
    /// Whether bytes of it were lost: it cannot go on when the black hole ends.
    holed: Arc<AtomicBool>,
    /// Held by whoever writes to the client: what the server says, or a refusal.
    to_client: Arc<Mutex<()>>,
}

impl Link {
    pub(super) fn new(state: watch::Receiver<State>, counters: Arc<Counters>, protocol: Protocol) -> Self {
        Self { state, counters, protocol, breaks: 0, holed: Arc::default(), to_client: Arc::default() }
    }

    /// A link for a connection that begins now.
    pub(super) fn fresh(&self) -> Self {
        let breaks = self.state.borrow().breaks;
        Self { breaks, holed: Arc::default(), to_client: Arc::default(), ..self.clone() }
    }

    pub(super) fn count(&self, of: impl Fn(&Counters) -> &AtomicU64) {
        self.add(of, 1);
    }

    pub(super) fn opened(&self) {
        let open = self.counters.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.counters.most_open.fetch_max(open, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn add(&self, of: impl Fn(&Counters) -> &AtomicU64, n: u64) {
        of(&self.counters).fetch_add(n, Ordering::Relaxed);
    }

    /// The fault to act on, once it is not a stall.
    async fn fault(&mut self) -> Result<Fault, End> {
        loop {
            let state = *self.state.borrow_and_update();
            self.unbroken(state)?;
            if state.fault != Fault::Stall {
                return Ok(state.fault);
            }
            self.changed().await?;
        }
    }

    fn unbroken(&self, state: State) -> Result<(), End> {
        let standing = matches!(state.fault, Fault::Cut | Fault::Reset);
        if standing || state.breaks > self.breaks {
            return Err(End { by_fault: true, by_reset: state.by_reset });
        }
        let holed = self.holed.load(Ordering::Relaxed) && state.fault != Fault::BlackHole;
        if holed { Err(BROKEN) } else { Ok(()) }
    }

    async fn changed(&mut self) -> Result<(), End> {
        self.state.changed().await.map_err(|_| BROKEN)
    }

    /// Resolves when a fault breaks the connection.
    async fn broken(&self) -> End {
        let mut state = self.state.clone();
        loop {
            let now = *state.borrow_and_update();
            if let Err(end) = self.unbroken(now) {
                return end;
            }
            if state.changed().await.is_err() {
                return BROKEN;
            }
        }
    }

    /// A new connection under a standing fault: broken at once, or kept waiting.
    pub(super) async fn may_connect(mut self) -> Result<(), End> {
        self.fault().await.map(|_| ())
    }

    /// The next bytes and the fault they meet.
    async fn read(&mut self, from: &TcpStream, buffer: &mut [u8]) -> Result<(usize, Fault), End> {
        loop {
            let fault = self.fault().await?;
            let most = match fault {
                Fault::Throttle(rate) => step(rate).min(buffer.len()),
                _ => buffer.len(),
            };
            tokio::select! {
                biased;
                changed = self.state.changed() => changed.map_err(|_| BROKEN)?,
                read = read_some(from, &mut buffer[..most]) => return Ok((read?, fault)),
            }
        }
    }

    /// Writes at the pace of the fault.
    async fn write(&mut self, to: &TcpStream, bytes: &[u8], fault: Fault) -> Result<(), End> {
        let pause = match fault {
            Fault::Delay(pause) => Some(pause),
            Fault::Throttle(_) => Some(THROTTLE_STEP),
            _ => None,
        };
        let carried = async {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            write_all(to, bytes).await
        };
        tokio::select! {
            biased;
            end = self.broken() => Err(end),
            written = carried => written,
        }
    }

    /// From the client to the server.
    pub(super) async fn up(mut self, client: &TcpStream, server: &TcpStream) -> End {
        let mut framing = if self.protocol == Protocol::Http { Framing::new() } else { Framing::Opaque };
        let mut buffer = vec![0; PIECE];
        loop {
            let (n, fault) = match self.read(client, &mut buffer).await {
                Ok(read) => read,
                Err(end) => return end,
            };
            let bytes = &buffer[..n];
            let done = match fault {
                Fault::BlackHole => {
                    self.swallow(n);
                    Ok(())
                }
                Fault::Refuse if framing.at_boundary() => self.refuse(client, &mut framing, bytes).await,
                _ => {
                    framing.follow(bytes);
                    self.write(server, bytes, fault).await
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// From the server to the client.
    pub(super) async fn down(mut self, server: &TcpStream, client: &TcpStream) -> End {
        let mut buffer = vec![0; PIECE];
        loop {
            let (n, fault) = match self.read(server, &mut buffer).await {
                Ok(read) => read,
                Err(end) => return end,
            };
            let done = match fault {
                Fault::BlackHole => {
                    self.swallow(n);
                    Ok(())
                }
                Fault::LoseReplies(one_in) if self.loses(one_in) => Err(BROKEN),
                _ => {
                    let to_client = Arc::clone(&self.to_client);
                    let _turn = to_client.lock().await;
                    self.write(client, &buffer[..n], fault).await
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    fn swallow(&self, n: usize) {
        self.holed.store(true, Ordering::Relaxed);
        self.add(|c| &c.swallowed, n as u64);
    }

    fn loses(&self, one_in: u32) -> bool {
        let n = self.counters.replies.fetch_add(1, Ordering::Relaxed);
        let lost = n.is_multiple_of(u64::from(one_in.max(1)));
        if lost {
            self.count(|c| &c.replies_lost);
        }
        lost
    }

    /// Swallows the request that begins with `bytes`, then answers it.
    async fn refuse(&mut self, client: &TcpStream, framing: &mut Framing, bytes: &[u8]) -> Result<(), End> {
        let mut ended = framing.follow(bytes);
        let mut buffer = vec![0; PIECE];
        while ended == 0 {
            if *framing == Framing::Opaque {
                return Err(BROKEN);
            }
            let n = tokio::select! {
                biased;
                end = self.broken() => return Err(end),
                read = read_some(client, &mut buffer) => read?,
            };
            ended = framing.follow(&buffer[..n]);
        }
        self.add(|c| &c.refused, ended);
        let to_client = Arc::clone(&self.to_client);
        let _turn = to_client.lock().await;
        self.write(client, SLOW_DOWN.as_bytes(), Fault::Pass).await
    }
}

/// Bytes that a throttled connection moves at each step.
fn step(rate: u32) -> usize {
    (u128::from(rate) * THROTTLE_STEP.as_millis() / 1_000).max(1) as usize
}

async fn read_some(from: &TcpStream, buffer: &mut [u8]) -> Result<usize, End> {
    loop {
        from.readable().await.map_err(|_| CLOSED)?;
        match from.try_read(buffer) {
            Ok(0) => return Err(CLOSED),
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(CLOSED),
        }
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> Result<(), End> {
    while !bytes.is_empty() {
        to.writable().await.map_err(|_| CLOSED)?;
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(CLOSED),
        }
    }
    Ok(())
}
