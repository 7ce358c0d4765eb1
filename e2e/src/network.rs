//! Where programs run: on loopback, or each in a network namespace of its own behind one bridge.
//!
//! ```text
//!   the process that tests: 10.0.0.1 ── isle0 (bridge) ──┬── h10 ── eth0 10.0.0.10  a role
//!                                                        ├── h11 ── eth0 10.0.0.11  another
//!                                                        └── …                      etcd's members
//! ```
//!
//! Namespaces need root and a private network: a program that wants them starts itself again in one ([`isolate`]), where
//! it can neither disturb nor be disturbed by others on the machine, and which is gone with its last process. There,
//! packets vanish (iptables DROP) and cables are pulled (link down) for real. Elsewhere everything is on loopback, and
//! only the fault proxies cut.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::servers::free_port;

/// Set for a program that runs in a private network already.
const ISOLATED: &str = "ISLE_E2E_ISOLATED";

/// What a private network needs, tried out once: the same calls as later.
const TRY: &str = "set -e; mount -t tmpfs none /run; mkdir /run/netns; ip link set lo up; \
    ip link add isle0 type bridge; ip netns add probe; ip link add p0 type veth peer name eth0 netns probe; \
    ip netns exec probe iptables -w -A OUTPUT -p tcp -d 10.0.0.1 -m multiport --dports 1,2 -j DROP";

/// Starts this program again in a private network, where the machine allows it. Does not return then.
///
/// # Errors
/// Why it does not.
pub fn isolate() -> Result<(), String> {
    if isolated() {
        return Ok(());
    }
    let tried = unshare().args(["sh", "-c", TRY]).stdin(Stdio::null()).output();
    let tried = tried.map_err(|e| format!("unshare: {e}"))?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    Err(unshare().arg(program).args(std::env::args_os().skip(1)).env(ISOLATED, "1").exec().to_string())
}

/// Whether this program runs in a private network.
#[must_use]
pub fn isolated() -> bool {
    std::env::var_os(ISOLATED).is_some()
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--"]);
    command
}

/// The network that hosts are made in.
#[derive(Debug)]
pub struct Network {
    namespaces: bool,
    next: u8,
}

impl Network {
    /// The form that this process can have.
    ///
    /// # Panics
    /// If a private network cannot be set up.
    #[must_use]
    pub fn new() -> Self {
        let namespaces = isolated();
        if namespaces {
            // `ip netns` keeps its names in files, which must not meet the machine's own.
            run("mount", &["-t", "tmpfs", "none", "/run"]);
            std::fs::create_dir("/run/netns").unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            run("ip", &["link", "add", "isle0", "type", "bridge"]);
            run("ip", &["addr", "add", "10.0.0.1/24", "dev", "isle0"]);
            run("ip", &["link", "set", "isle0", "up"]);
        }
        Self { namespaces, next: 10 }
    }

    /// Whether hosts are namespaces.
    #[must_use]
    pub fn has_namespaces(&self) -> bool {
        self.namespaces
    }

    /// Where the process that tests is reached from hosts.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        if self.namespaces { Ipv4Addr::new(10, 0, 0, 1).into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// A new host.
    ///
    /// # Panics
    /// If it cannot be set up.
    pub fn host(&mut self) -> Host {
        if !self.namespaces {
            return Host::loopback();
        }
        let number = self.next;
        self.next += 1;
        let (name, port) = (format!("isle-{number}"), format!("h{number}"));
        let address = Ipv4Addr::new(10, 0, 0, number);
        run("ip", &["netns", "add", &name]);
        run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        run("ip", &["link", "set", &port, "master", "isle0", "up"]);
        let inside = |args: &[&str]| run("ip", &[&["-n", &name][..], args].concat());
        inside(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        inside(&["link", "set", "lo", "up"]);
        inside(&["link", "set", "eth0", "up"]);
        Host { ip: address.into(), namespace: Some(Namespace { name, port }) }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// A place where a program runs, with an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    ip: IpAddr,
    namespace: Option<Namespace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Namespace {
    name: String,
    /// The bridge's end of its cable.
    port: String,
}

impl Host {
    /// This machine's loopback address, shared by all.
    #[must_use]
    pub fn loopback() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), namespace: None }
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// A port on it that nobody listens on.
    #[must_use]
    pub fn free_port(&self) -> u16 {
        free_port()
    }

    /// The same command, run there.
    #[must_use]
    pub fn place(&self, command: Command) -> Command {
        let Some(Namespace { name, .. }) = &self.namespace else { return command };
        let mut placed = Command::new("ip");
        placed.args(["netns", "exec", name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => placed.env(name, value),
                None => placed.env_remove(name),
            };
        }
        placed
    }

    /// Lets packets between it and these addresses vanish, or arrive again. False where there is no such network.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn drop_packets(&self, others: &[SocketAddr], vanish: bool) -> bool {
        let Some(Namespace { name, .. }) = &self.namespace else { return false };
        for other in others {
            let (ip, port) = (other.ip().to_string(), other.port().to_string());
            let change = if vanish { "-A" } else { "-D" };
            let rule = |chain: &str, address: &str, side: &str| {
                let rule = ["-w", change, chain, "-p", "tcp", address, &ip, side, &port, "-j", "DROP"];
                run("ip", &[&["netns", "exec", name, "iptables"][..], &rule].concat());
            };
            rule("OUTPUT", "-d", "--dport");
            rule("INPUT", "-s", "--sport");
        }
        true
    }

    /// Pulls its cable, or plugs it in again. False where there is none.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn unplug(&self, unplug: bool) -> bool {
        let Some(Namespace { port, .. }) = &self.namespace else { return false };
        run("ip", &["link", "set", port, if unplug { "down" } else { "up" }]);
        true
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
