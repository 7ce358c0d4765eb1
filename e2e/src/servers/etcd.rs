//! etcd: one member or three, each of which can be frozen, killed, restarted, wiped or set back to an older copy.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::daemon::Daemon;
use super::http;
use crate::network::Host;

/// A running etcd, gone with its data when dropped.
#[derive(Debug)]
pub struct Etcd {
    // Dropped before the directory they write to.
    members: Vec<Member>,
    _dir: TempDir,
}

/// A copy of every member's data, taken by [`Etcd::backup`].
#[derive(Debug)]
pub struct Backup(TempDir);

/// One member.
#[derive(Debug)]
pub struct Member {
    name: String,
    host: Host,
    client_port: u16,
    peer_port: u16,
    /// Names and peer addresses of all members.
    cluster: String,
    /// Changes when the cluster is wiped, so that a wiped member cannot meet an old one.
    token: String,
    /// Further flags.
    flags: Vec<String>,
    dir: PathBuf,
    daemon: Option<Daemon>,
}

impl Etcd {
    /// A single member.
    pub async fn single() -> Self {
        Self::start(1, &[]).await
    }

    /// A single member whose database may have so many bytes.
    pub async fn with_quota(bytes: u64) -> Self {
        Self::start(1, &["--quota-backend-bytes", &bytes.to_string()]).await
    }

    /// Three members.
    pub async fn cluster() -> Self {
        Self::start(3, &[]).await
    }

    async fn start(count: usize, flags: &[&str]) -> Self {
        Self::on_with(vec![Host::loopback(); count], flags).await
    }

    /// A member on each of these hosts.
    ///
    /// # Panics
    /// If they do not come up.
    pub async fn on(hosts: Vec<Host>) -> Self {
        Self::on_with(hosts, &[]).await
    }

    async fn on_with(hosts: Vec<Host>, flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("isle-etcd-").tempdir().unwrap();
        let mut members: Vec<_> =
            hosts.into_iter().enumerate().map(|(n, host)| Member::new(n, host, dir.path())).collect();
        let cluster: Vec<_> = members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect();
        for member in &mut members {
            member.cluster = cluster.join(",");
            member.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        }
        let mut etcd = Self { members, _dir: dir };
        etcd.restart().await;
        etcd
    }

    /// `127.0.0.1:port` of every member.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// The coordination URL over all members: `etcd://host:port,host:port/root`.
    #[must_use]
    pub fn url(&self, root: &str) -> String {
        format!("etcd://{}/{root}", self.endpoints().join(","))
    }

    /// How many members there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none, which is never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// One member.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn member(&mut self, n: usize) -> &mut Member {
        &mut self.members[n]
    }

    /// Freezes every member.
    pub fn stop(&self) {
        self.members.iter().for_each(Member::stop);
    }

    /// Lets every frozen member go on.
    pub fn cont(&self) {
        self.members.iter().for_each(Member::cont);
    }

    /// Kills every member; the data stays.
    pub fn kill(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }

    /// Starts every member that is not running, and waits until they serve.
    pub async fn restart(&mut self) {
        self.members.iter_mut().for_each(Member::launch);
        for member in &mut self.members {
            member.ready().await;
        }
    }

    /// Kills every member, deletes all data, and starts an empty cluster at the same addresses.
    ///
    /// # Panics
    /// If the data cannot be deleted.
    pub async fn wipe(&mut self) {
        self.kill();
        for member in &mut self.members {
            fs::remove_dir_all(member.data()).unwrap();
            member.token.push('x');
        }
        self.restart().await;
    }

    /// Copies every member's data, as a crash would leave it; they are frozen meanwhile and go on after.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[must_use]
    pub fn backup(&self) -> Backup {
        let to = tempfile::Builder::new().prefix("isle-etcd-backup-").tempdir().unwrap();
        self.stop();
        for member in &self.members {
            copy(&member.data(), &to.path().join(&member.name));
        }
        self.cont();
        Backup(to)
    }

    /// Kills every member, puts the copy in place of the data, and starts again.
    ///
    /// # Panics
    /// If it cannot be put in place.
    pub async fn restore(&mut self, backup: &Backup) {
        self.kill();
        for member in &self.members {
            fs::remove_dir_all(member.data()).unwrap();
            copy(&backup.0.path().join(&member.name), &member.data());
        }
        self.restart().await;
    }

    /// Runs `etcdctl` (version 3 of the interface) against all members; its standard output.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn etcdctl(&self, args: &[&str]) -> String {
        let output = self.try_etcdctl(args);
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn try_etcdctl(&self, args: &[&str]) -> Output {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(args)
            .output()
            .expect("etcdctl is not installed; run e2e/install.sh (make test does)")
    }

    /// Writes until every further write is refused.
    ///
    /// # Panics
    /// If it is never refused.
    pub fn fill(&self) {
        let filler = "x".repeat(100 << 10);
        let refused = (0..1_000)
            .any(|n| !self.try_etcdctl(&["put", &format!("/filler/{}", n % 4), &filler]).status.success());
        assert!(refused, "etcd has no quota");
    }

    /// Makes room again, by the commands that programs name.
    pub fn mend(&self) {
        self.compact();
        for args in [&["defrag"][..], &["alarm", "disarm"]] {
            let _output = self.etcdctl(args);
        }
    }

    /// The index of the member that leads.
    ///
    /// # Panics
    /// If none does.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.found_leader().expect("a leader")
    }

    /// The index of the member that leads, as far as those that answer know.
    #[must_use]
    pub fn found_leader(&self) -> Option<usize> {
        // Asked of each by itself: one that is away must not keep the others from saying.
        self.members.iter().position(|m| {
            let status = m.etcdctl(&["endpoint", "status", "--write-out", "json"]).ok();
            let status: Option<serde_json::Value> = status.and_then(|s| serde_json::from_str(&s).ok());
            let status = status.unwrap_or_default();
            let status = &status[0]["Status"];
            status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
        })
    }

    /// Compacts everything below the newest revision and defragments every member, as far as they answer; what they said.
    pub fn compact_and_defragment(&self) -> Vec<Result<String, String>> {
        let revision = |m: &Member| {
            let status = m.etcdctl(&["get", "none", "--write-out", "json"]).ok()?;
            let status: serde_json::Value = serde_json::from_str(&status).ok()?;
            Some(status["header"]["revision"].to_string())
        };
        let found = self.members.iter().find_map(|m| revision(m).map(|r| (m, r)));
        let compacted = found.map(|(m, revision)| m.etcdctl(&["compact", &revision]));
        compacted.into_iter().chain(self.members.iter().map(|m| m.etcdctl(&["defrag"]))).collect()
    }

    /// Compacts everything below the newest revision, so that watches further behind are cut off.
    ///
    /// # Panics
    /// If etcd refuses.
    pub fn compact(&self) {
        let status = self.etcdctl(&["get", "none", "--write-out", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = status["header"]["revision"].to_string();
        let _output = self.etcdctl(&["compact", &revision]);
    }
}

impl Member {
    fn new(n: usize, host: Host, dir: &Path) -> Self {
        let name = format!("m{n}");
        Self {
            dir: dir.to_path_buf(),
            client_port: host.free_port(),
            peer_port: host.free_port(),
            host,
            cluster: String::new(),
            token: format!("isle-{}", dir.file_name().unwrap().to_string_lossy()),
            daemon: None,
            flags: Vec::new(),
            name,
        }
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.address().to_string()
    }

    /// The same as an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host.ip(), self.client_port)
    }

    fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host.ip(), self.peer_port)
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether it has been started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    /// Where its data lies.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Freezes it, if it is running.
    pub fn stop(&self) {
        self.daemon.iter().for_each(Daemon::stop);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.daemon.iter().for_each(Daemon::cont);
    }

    /// Kills it; the data stays.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Starts it again and waits until it serves.
    pub async fn restart(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Runs `etcdctl` (version 3 of the interface) against this member, within seconds; its standard output, or what it
    /// said instead.
    ///
    /// # Errors
    /// What it said.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint(), "--dial-timeout", "1s", "--command-timeout", "3s"])
            .args(args)
            .output()
            .expect("etcdctl is not installed; run e2e/install.sh (make test does)");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn launch(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        let client = format!("http://{}", self.endpoint());
        let peer = self.peer_url();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.data())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster, "--initial-cluster-token", &self.token])
            .args(["--initial-cluster-state", "new", "--logger", "zap", "--log-level", "warn"])
            .args(&self.flags);
        let mut command = self.host.place(command);
        let log = self.dir.join(format!("{}.log", self.name));
        self.daemon = Some(Daemon::spawn(&format!("etcd member {}", self.name), &mut command, &log));
    }

    async fn ready(&mut self) {
        let address = self.address();
        if let Some(daemon) = &mut self.daemon {
            // Health includes that there is a leader, so it needs a majority.
            daemon
                .ready(
                    || async move { http::status(address, "GET", "/health", &[]).await.filter(|&s| s == 200) },
                )
                .await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
