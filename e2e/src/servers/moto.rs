//! moto: an S3 server in memory with honest conditional puts, run single-threaded, which is what makes them atomic
//! (some five hundred puts a second). It does not check signatures.

use std::process::Command;

use tempfile::TempDir;

use super::daemon::{Daemon, free_port, installed};
use super::{Env, env, http};

const PROGRAM: &str = include_str!("moto.py");
const BUCKET: &str = "isle";

/// A running moto with an empty bucket.
#[derive(Debug)]
pub struct Moto {
    port: u16,
    daemon: Daemon,
    _dir: TempDir,
}

impl Moto {
    /// Starts it.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("isle-moto-").tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(installed("moto").join("bin/python"));
        command.args(["-c", PROGRAM, &port.to_string()]);
        let mut daemon = Daemon::spawn("moto", &mut command, &dir.path().join("log"));
        // The account and region of a request are read from its (unchecked) authorization.
        let key = "AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let headers = [("Authorization", key)];
        let made = daemon.ready(|| http::status(([127, 0, 0, 1], port), "PUT", "/isle", &headers)).await;
        assert_eq!(made, 200, "the bucket could not be made: {}", daemon.output());
        Self { port, daemon, _dir: dir }
    }

    /// The store URL of a prefix in its bucket.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        format!("s3://{BUCKET}/{prefix}?region=us-east-1&endpoint={endpoint}&allow_http=true")
    }

    /// The credentials, as environment variables.
    #[must_use]
    pub fn env(&self) -> Env {
        env([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
