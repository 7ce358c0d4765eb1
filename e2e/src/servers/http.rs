//! The one bare HTTP request the servers' set-up needs.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request without a body; the status, or `None` while nobody answers.
pub(super) async fn status(
    at: impl Into<SocketAddr>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<u16> {
    let at = at.into();
    let mut stream = TcpStream::connect(at).await.ok()?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Content-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1)?.parse().ok()
}
