//! Taking an address.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// An address that could not be taken; ends the program with exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {addr}: {why}{hint}")]
pub struct BindError {
    addr: SocketAddr,
    /// The system's own words.
    pub why: io::Error,
    hint: &'static str,
}

/// An address that is ours.
#[derive(Debug)]
pub struct Listener {
    pub(super) tcp: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// The address, with its real port where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Takes `addr`; port 0 takes any free one.
pub async fn bind(addr: SocketAddr) -> Result<Listener, BindError> {
    let failed = |why: io::Error| {
        let hint = match why.kind() {
            io::ErrorKind::AddrInUse => "; another program holds it, choose a different one with --listen",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has it",
            _ => "",
        };
        BindError { addr, why, hint }
    };
    let tcp = TcpListener::bind(addr).await.map_err(failed)?;
    let local = tcp.local_addr().map_err(failed)?;
    Ok(Listener { tcp, local })
}
