//! Azurite, the emulator of Azure Blob Storage: signatures are checked, conditional puts atomic.

use std::process::Command;

use tempfile::TempDir;

use super::daemon::{Daemon, free_port, installed};
use super::{Env, env, http};

/// The emulator's only account and its key, as its documentation publishes them.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER: &str = "isle";
const MAKE_CONTAINER: &str = include_str!("azurite_container.js");

/// A running emulator with an empty container.
#[derive(Debug)]
pub struct Azurite {
    port: u16,
    daemon: Daemon,
    _dir: TempDir,
}

impl Azurite {
    /// Starts it.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("isle-azurite-").tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new("node");
        command
            .arg(installed("azurite").join("node_modules/azurite/dist/src/blob/main.js"))
            .args(["--skipApiVersionCheck", "--silent", "--disableTelemetry", "--location"])
            .arg(dir.path().join("data"))
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        let mut daemon = Daemon::spawn("azurite", &mut command, &dir.path().join("log"));
        daemon.ready(|| http::status(([127, 0, 0, 1], port), "GET", "/", &[])).await;
        let made = Command::new("node")
            .args(["-e", MAKE_CONTAINER, &port.to_string(), ACCOUNT, KEY, CONTAINER])
            .output()
            .unwrap();
        assert!(made.status.success(), "no container: {}", String::from_utf8_lossy(&made.stderr));
        Self { port, daemon, _dir: dir }
    }

    /// The store URL of a prefix in its container.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", self.port);
        format!("az://{CONTAINER}/{prefix}?account={ACCOUNT}&endpoint={endpoint}&allow_http=true")
    }

    /// The credentials, as environment variables.
    #[must_use]
    pub fn env(&self) -> Env {
        env([("AZURE_STORAGE_ACCOUNT_KEY", KEY)])
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
