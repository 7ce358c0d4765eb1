//! One of Isle's programs as a process.
//!
//! The programs are those built beside the test executable; `make test` builds them first.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::client::Api;
use crate::network::Host;
use crate::servers::{Daemon, Env, free_port};
use crate::wait;

/// How long a program may take to become ready on a busy machine.
pub const READY: Duration = Duration::from_secs(60);

/// How long a program that must end by itself may take.
pub const END: Duration = Duration::from_secs(40);

/// The four roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `writer-node`.
    Writer,
    /// `reader-node`.
    Reader,
    /// `tailer-node`.
    Tailer,
    /// `compactor-node`.
    Compactor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Writer, Self::Reader, Self::Tailer, Self::Compactor];

    /// The name of its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Writer => "writer-node",
            Self::Reader => "reader-node",
            Self::Tailer => "tailer-node",
            Self::Compactor => "compactor-node",
        }
    }
}

/// Where a program lies: beside this one, or beside the directory of the test executable.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} has not been built; make test does"))
}

/// Runs a program to its end and gives its exit code and output.
///
/// # Panics
/// If it cannot be started, or does not end within [`END`]; with its output.
pub async fn run(name: &str, args: &[&str], env: &Env) -> Output {
    let mut command = tokio::process::Command::from(command(name, args, env));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(END, command.output()).await;
    ended.unwrap_or_else(|_| panic!("{name} {args:?} did not end within {END:?}")).unwrap()
}

/// How a program is started: with these arguments, and nothing of the environment but `env`.
#[must_use]
pub fn command(name: &str, args: &[&str], env: &Env) -> Command {
    let mut command = Command::new(program(name));
    command.args(args);
    // Only what the test says: the developer's own settings and credentials stay out.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_BACKTRACE", "1");
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command
}

/// A program that runs, or has run, at one address.
#[derive(Debug)]
pub struct Node {
    role: Role,
    args: Vec<String>,
    env: Env,
    host: Host,
    port: u16,
    log: PathBuf,
    daemon: Option<Daemon>,
}

impl Node {
    /// Starts a program on a free port; its output goes to a file in `logs`.
    #[must_use]
    pub fn spawn(role: Role, args: Vec<String>, env: Env, logs: &Path) -> Self {
        Self::spawn_at(role, free_port(), args, env, logs)
    }

    /// The same on a port that was chosen before.
    #[must_use]
    pub fn spawn_at(role: Role, port: u16, args: Vec<String>, env: Env, logs: &Path) -> Self {
        Self::spawn_on(Host::loopback(), role, port, args, env, logs)
    }

    /// The same on a host of its own.
    #[must_use]
    pub fn spawn_on(host: Host, role: Role, port: u16, args: Vec<String>, env: Env, logs: &Path) -> Self {
        let log = logs.join(format!("{}-{port}.log", role.program()));
        let mut node = Self { role, args, env, host, port, log, daemon: None };
        node.launch();
        node
    }

    fn launch(&mut self) {
        let listen = format!("{}:{}", self.host.ip(), self.port);
        let mut args = vec!["--listen", listen.as_str()];
        args.extend(self.args.iter().map(String::as_str));
        let mut command = self.host.place(command(self.role.program(), &args, &self.env));
        self.daemon = Some(Daemon::spawn(self.role.program(), &mut command, &self.log));
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host.ip(), self.port)
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether it has been started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::is_running)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Calls to it.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.url())
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the program runs")
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&mut self) {
        self.readiness("ready", |status, _| status == 200).await;
    }

    /// Waits for a state of `/readyz?verbose`; its JSON.
    pub async fn readiness(&mut self, what: &str, is: impl Fn(u16, &Value) -> bool) -> Value {
        let api = self.api();
        let is = &is;
        let daemon = self.daemon();
        let mut last = String::from("nothing yet");
        let started = std::time::Instant::now();
        loop {
            if !daemon.is_running() {
                panic!("the program ended before it was {what}:\n{}", daemon.output());
            }
            if let Ok((status, body)) = api.readyz().await {
                if is(status, &body) {
                    return body;
                }
                last = format!("{status} {body}");
            }
            assert!(started.elapsed() < READY, "the program was not {what} within {READY:?}; it says {last}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the writer has put a generation into tables.
    ///
    /// # Panics
    /// If that takes longer than any flush does.
    pub async fn flushed(&self) {
        let api = self.api();
        let some = || async { api.status().await.ok().filter(|s| s["flushed_seq"].as_u64() > Some(0)) };
        wait::until("a flush", READY, some).await;
    }

    /// Waits until this writer leads.
    pub async fn leads(&mut self) {
        let api = self.api();
        let is_leader = || async { api.status().await.ok().filter(|s| s["leader"] == true) };
        wait::until("the writer leading", READY, is_leader).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGTERM without waiting.
    pub fn terminate(&mut self) {
        self.daemon().signal("TERM");
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.daemon().ended(END).await
    }

    /// SIGTERM, and the exit code.
    ///
    /// # Panics
    /// If it ends by a signal, or not in time.
    pub async fn stopped(&mut self) -> i32 {
        self.terminate();
        let status = self.ended().await;
        let code = status.code().unwrap_or_else(|| panic!("{} ended with {status}", self.role.program()));
        self.daemon = None;
        code
    }

    /// Starts it again at the same address.
    pub fn restart(&mut self) {
        self.daemon = None;
        self.launch();
    }

    /// Everything it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Node {
    /// A test that fails shows what its programs said last.
    fn drop(&mut self) {
        const SHOWN: usize = 60;
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
            // Not print!: the test harness would not show what a drop during a panic says otherwise.
            let _nobody = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("---- {} on port {}\n{tail}\n", self.role.program(), self.port).as_bytes(),
            );
        }
    }
}
