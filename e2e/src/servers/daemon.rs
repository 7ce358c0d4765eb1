//! A server that runs as a process of its own.
//!
//! It is killed when dropped. If the test process itself dies without dropping anything (SIGKILL, abort), a guard, a
//! shell that waits for its standard input to close, kills the server in its place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use isle_testkit::ports::free_address;

use crate::wait;

/// How long a server may take to answer for the first time, on a busy machine.
const READY: Duration = Duration::from_secs(60);
/// How much of a server's output is shown when it fails.
const SHOWN: usize = 4_000;

/// A port nobody listens on, kept for this test process (see [`free_address`]).
///
/// # Panics
/// If the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    free_address().port()
}

/// The folder of a server that `e2e/install.sh` puts below `target/e2e-servers/`.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn installed(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        |dir| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir),
    );
    let folder = target.join("e2e-servers").join(name);
    assert!(folder.join(".version").exists(), "{name} is not installed; run e2e/install.sh (make test does)");
    folder
}

/// A running process and its output.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program; its output goes to `log` (appended).
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("{name} cannot be started ({e}); run e2e/install.sh (make test does)")
            });
        let guard = Command::new("sh")
            .args(["-c", r#"read -r _; kill -KILL "$0""#, &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child, guard, log: log.to_path_buf() }
    }

    /// Waits until `ready` gives an answer.
    ///
    /// # Panics
    /// If the process ends first or takes too long; with the end of its output.
    pub async fn ready<T, F>(&mut self, mut ready: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let what = format!("{} answering", self.name);
        wait::until(&what, READY, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status} before it was ready:\n{}", self.name, self.output());
            }
            ready()
        })
        .await
    }

    /// The end of what it has printed.
    ///
    /// # Panics
    /// If its log cannot be read.
    #[must_use]
    pub fn output(&self) -> String {
        let all = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned();
        let start = all.len().saturating_sub(SHOWN);
        all.char_indices()
            .find(|(at, _)| *at >= start)
            .map_or_else(String::new, |(at, _)| all[at..].to_owned())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// If the system cannot say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal: `STOP`, `CONT`, `TERM`, …
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "{signal} could not be sent to {}", self.name);
    }

    /// Freezes it: it keeps its connections and answers nothing.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets a frozen one go on.
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Kills it and waits until it is gone; fine if it has ended already.
    ///
    /// # Panics
    /// If the system cannot say how it ended.
    pub fn kill(&mut self) -> ExitStatus {
        // The guard first: while the child is not reaped, its id cannot belong to another.
        let _ended = self.guard.kill();
        let _reaped = self.guard.wait();
        let _ended = self.child.kill();
        self.child.wait().unwrap()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// After `limit`, with the end of its output.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ending", self.name);
        wait::until(&what, limit, || std::future::ready(self.child.try_wait().unwrap())).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
