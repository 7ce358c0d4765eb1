//! Ports for servers that a test starts, stops and starts again at the same address.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};

use parking_lot::Mutex;

/// Below the ports that the system hands out to outgoing connections: those come and go by the dozen, and one of them
/// would sit on a server's port while that server is down.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// The ports this process holds: the next one to try, and a locked file for each, so that no other test process takes
/// a port whose server happens to be down. The system lets go of the locks when the process ends, however it ends.
static HELD: Mutex<(u32, Vec<File>)> = Mutex::new((0, Vec::new()));

/// A loopback address nobody listens on, kept for this process for as long as it lives.
///
/// # Panics
/// If no port is free, or the files that keep them cannot be written.
#[must_use]
pub fn free_address() -> SocketAddr {
    let folder = std::env::temp_dir().join("isle-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let mut held = HELD.lock();
    for _ in PORTS {
        // Processes side by side begin at places of their own, so that they seldom meet.
        let nth = std::process::id().wrapping_mul(997).wrapping_add(held.0);
        held.0 += 1;
        let port = PORTS.start + (nth % PORTS.len() as u32) as u16;
        let keeper = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(port.to_string()))
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if keeper.try_lock().is_ok() && TcpListener::bind(address).is_ok() {
            held.1.push(keeper);
            return address;
        }
    }
    panic!("no port is free");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_port_is_given_once_and_never_one_for_outgoing_connections() {
        let given: Vec<u16> = (0..20).map(|_| free_address().port()).collect();
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 20);
        assert!(given.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_port_kept_by_somebody_else_is_passed_over() {
        let port = free_address().port();
        let keeper = File::open(std::env::temp_dir().join("isle-test-ports").join(port.to_string())).unwrap();
        assert!(keeper.try_lock().is_err(), "another process would be given port {port} too");
    }
}
