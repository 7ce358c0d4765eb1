//! A real etcd, started from the `etcd` binary on free loopback ports with a folder of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isle_testkit::ports::free_address;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const INSTALL: &str = "apt-get install -y --no-install-recommends etcd-server etcd-client";

/// How long an etcd may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One member, ended when it is dropped.
pub(crate) struct EtcdServer {
    name: String,
    dir: TempDir,
    scheme: &'static str,
    client: SocketAddr,
    peer: SocketAddr,
    /// Where it tells its health without encryption, whatever clients have to use.
    health: SocketAddr,
    /// Every member of its cluster.
    cluster: String,
    flags: Vec<String>,
    child: Option<Child>,
}

impl EtcdServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A member with further flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let mut server = Self::planned("one", "http", flags);
        server.run().await;
        server
    }

    /// A member that clients reach by TLS alone; `flags` name its certificates.
    pub(crate) async fn start_tls(flags: &[&str]) -> Self {
        let mut server = Self::planned("one", "https", flags);
        server.run().await;
        server
    }

    /// A cluster of three members.
    pub(crate) async fn start_three() -> [Self; 3] {
        let mut members = ["one", "two", "three"].map(|name| Self::planned(name, "http", &[]));
        let cluster: Vec<String> = members.iter().map(|m| m.cluster.clone()).collect();
        for member in &mut members {
            member.cluster = cluster.join(",");
            member.spawn();
        }
        for member in &mut members {
            member.wait_until_ready().await;
        }
        members
    }

    fn planned(name: &str, scheme: &'static str, flags: &[&str]) -> Self {
        let peer = free_address();
        Self {
            name: name.to_owned(),
            dir: folder(),
            scheme,
            client: free_address(),
            peer,
            health: free_address(),
            cluster: format!("{name}=http://{peer}"),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
            child: None,
        }
    }

    /// Starts it again on the same ports, over whatever data there is.
    pub(crate) async fn run(&mut self) {
        self.spawn();
        self.wait_until_ready().await;
    }

    fn spawn(&mut self) {
        let client = format!("{}://{}", self.scheme, self.client);
        let peer = format!("http://{}", self.peer);
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &format!("http://{}", self.health)])
            .args(["--initial-cluster", &self.cluster])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("etcd cannot be started ({e}): {INSTALL}"));
        self.child = Some(child);
    }

    async fn wait_until_ready(&mut self) {
        let until = Instant::now() + READY_WITHIN;
        while !is_healthy(self.health).await {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            assert!(ended.is_none(), "etcd has ended: {ended:?}");
            assert!(Instant::now() < until, "etcd is not ready after {READY_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where clients reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.client
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP: connections stay open, nobody answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Killed, emptied and started again with the same flags: the cluster id is the same.
    pub(crate) async fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        self.run().await;
    }

    /// A copy of its data, taken while it is stopped for a moment.
    pub(crate) async fn backup(&mut self) -> TempDir {
        self.kill();
        let copy = folder();
        copy_folder(&self.data(), copy.path());
        self.run().await;
        copy
    }

    /// Killed and started again over a copy taken before.
    pub(crate) async fn restore(&mut self, copy: &TempDir) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        copy_folder(copy.path(), &self.data());
        self.run().await;
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Runs `etcdctl` and returns what it prints.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.client.to_string()])
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("etcdctl cannot be started ({e}): {INSTALL}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "etcdctl {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Whether it leads its cluster.
    pub(crate) fn leads(&self) -> bool {
        let status = self.ctl(&["endpoint", "status", "--write-out", "json"]);
        let id = |field: &str| {
            let (_, rest) = status.split_once(&format!("\"{field}\":")).expect("a status");
            rest.chars().take_while(char::is_ascii_digit).collect::<String>()
        };
        id("member_id") == id("leader")
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        let answer = self.ctl(&["get", "nothing", "--write-out", "json"]);
        let (_, rest) = answer.split_once("\"revision\":").expect("a header");
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

async fn is_healthy(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_secs(1), asked).await {
        Ok(Ok(answer)) => answer.contains("\"health\":\"true\""),
        _ => false,
    }
}

/// A folder that goes away with its owner; in memory where there is such a place, as dozens of members that all wait for
/// one disk answer nobody in time.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
