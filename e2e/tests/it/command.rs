//! The `isle` command against itself: `isle up` serves, and the other commands load, read and follow.

use std::collections::HashMap;
use std::path::Path;
use std::process::Output;

use e2e::dataset::{self, Rows, assert_same, records, rows, with_prefix, write_gzip};
use e2e::node::{END, command, run};
use e2e::servers::{Daemon, Env, free_port};
use serde_json::Value;

/// `isle up`, and where its roles are.
struct Up {
    daemon: Daemon,
    /// `--writer URL …`, for the other commands.
    flags: Vec<String>,
}

impl Up {
    async fn start(dir: &Path) -> Self {
        let log = dir.join(format!("up-{}.log", std::fs::read_dir(dir).unwrap().count()));
        let data = dir.join("data");
        let args = ["up", "--dir", data.to_str().unwrap(), "--port", "0"];
        let mut daemon = Daemon::spawn("isle up", &mut command("isle", &args, &Env::new()), &log);
        let says = || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            std::future::ready(said.contains("Ctrl-C").then_some(said))
        };
        let said = daemon.ready(says).await;
        let addresses: HashMap<&str, &str> = said
            .lines()
            .filter_map(|l| l.trim().split_once(' '))
            .map(|(role, url)| (role, url.trim()))
            .collect();
        let flag = |role: &str| [format!("--{role}"), addresses[role].to_owned()];
        let flags = ["writer", "reader", "tailer", "compactor"].iter().flat_map(|role| flag(role)).collect();
        Self { daemon, flags }
    }

    async fn isle(&self, args: &[&str]) -> Output {
        let flags = self.flags.iter().map(String::as_str);
        let args: Vec<&str> = args.iter().copied().chain(flags).collect();
        run("isle", &args, &Env::new()).await
    }

    async fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.isle(args).await;
        assert!(output.status.success(), "isle {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    async fn stop(mut self) {
        self.daemon.signal("TERM");
        assert_eq!(self.daemon.ended(END).await.code(), Some(0), "{}", self.daemon.output());
    }
}

/// The rows that a command printed, one JSON object a line.
fn printed(stdout: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines = stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let rows = lines.map(|l| serde_json::from_slice::<Value>(l).unwrap()).filter(|l| l.get("key").is_some());
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().as_bytes().to_vec();
    rows.map(|row| (text(&row, "key"), text(&row, "value"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_loaded_by_the_command_is_read_and_followed_by_the_command() {
    let dir = tempfile::Builder::new().prefix("isle-e2e-").tempdir().unwrap();
    let all = records(dataset::ALL);
    let expected = rows(&all);
    let file = dir.path().join("packages.ndjson.gz");
    write_gzip(&all, &file);

    let up = Up::start(dir.path()).await;
    up.ok(&["load", file.to_str().unwrap()]).await;
    let last = all.len().to_string();
    let scanned: Rows = printed(&up.ok(&["scan", "--min-seq", &last]).await).into_iter().collect();
    assert_same("isle scan", &scanned, &expected);
    let games: Rows = printed(&up.ok(&["scan", "--prefix", "deb/games/"]).await).into_iter().collect();
    assert_same("isle scan --prefix", &games, &with_prefix(&expected, "deb/games/"));
    let told = printed(&up.ok(&["tail", "--from", "earliest", "--limit", &last]).await);
    let in_order = all.iter().map(|r| (r.key.as_bytes(), r.value.as_bytes()));
    assert!(told.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).eq(in_order), "the tail is another list");
    let first = &all[0];
    let value = up.ok(&["get", &first.key]).await;
    assert_eq!(value.strip_suffix(b"\n").unwrap_or(&value), first.value.as_bytes());
    assert_eq!(up.isle(&["get", "no/such/key"]).await.status.code(), Some(5));
    up.ok(&["delete", &first.key]).await;
    up.stop().await;

    // It finds everything again.
    let up = Up::start(dir.path()).await;
    assert_eq!(up.isle(&["get", &first.key]).await.status.code(), Some(5), "a delete was forgotten");
    assert_eq!(printed(&up.ok(&["scan"]).await).len(), expected.len() - 1);
    up.ok(&["put", &first.key, "again"]).await;
    let value = up.ok(&["get", &first.key, "--min-seq", &(all.len() + 2).to_string()]).await;
    assert_eq!(value.strip_suffix(b"\n").unwrap_or(&value), b"again");
    up.ok(&["status"]).await;
    up.stop().await;
}

/// A mode that deletes is shown first, set only on consent, and stays with the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mode_is_shown_foreseen_and_set_by_the_command() {
    let dir = tempfile::Builder::new().prefix("isle-e2e-").tempdir().unwrap();
    let up = Up::start(dir.path()).await;
    let shown = async |up: &Up| String::from_utf8(up.ok(&["mode", "show"]).await).unwrap();
    assert!(shown(&up).await.starts_with("merge, tiered"));
    let fifo = ["mode", "set", "fifo", "--retention", "7d", "--keep", "5"];
    let asked = up.isle(&fifo).await;
    assert_eq!(asked.status.code(), Some(2), "nothing is changed without consent");
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(said.contains("older than 7d") && said.contains("newest 5 tables stay"), "{said}");
    up.ok(&[&fifo[..], &["--dry-run"]].concat()).await;
    assert!(shown(&up).await.starts_with("merge, tiered"));
    let refused = up.isle(&["mode", "set", "fifo", "--retention", "0s", "--yes"]).await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("deletes everything"));
    up.ok(&[&fifo[..], &["--yes"]].concat()).await;
    assert!(shown(&up).await.starts_with("fifo"));
    up.ok(&["put", "k", "v"]).await;
    up.stop().await;

    let up = Up::start(dir.path()).await;
    assert!(shown(&up).await.starts_with("fifo"), "the mode is the database's");
    up.ok(&["mode", "set", "merge", "--policy", "leveled", "--yes"]).await;
    assert!(shown(&up).await.starts_with("merge, leveled"));
    assert_eq!(String::from_utf8_lossy(&up.ok(&["get", "k"]).await).trim_end(), "v");
    up.stop().await;
}

/// A database whose compactor is a job of cron is operated without any node, and a node that is missing is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_nodes_is_operated_by_the_command() {
    let dir = tempfile::Builder::new().prefix("isle-e2e-").tempdir().unwrap();
    let up = Up::start(dir.path()).await;
    up.ok(&["put", "k", "v"]).await;
    up.stop().await;
    let data = dir.path().join("data");
    let store = data.to_str().unwrap();
    let isle = async |args: &[&str]| run("isle", args, &Env::new()).await;
    let ok = async |args: &[&str]| {
        let output = isle(&[args, &["--store", store, "--json"]].concat()).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(ok(&["mode", "show"]).await["mode"], "merge");
    let fifo = ["mode", "set", "fifo", "--retention", "60d"];
    assert_eq!(isle(&[&fifo[..], &["--store", store]].concat()).await.status.code(), Some(2), "no consent");
    assert_eq!(ok(&[&fifo[..], &["--yes"]].concat()).await["retention"], "60d");
    let paused = ok(&["pause", "--for", "2h"]).await;
    assert!(paused["pause"]["until"].as_str().unwrap().ends_with('Z'), "{paused}");
    assert_eq!(ok(&["resume"]).await["paused"], false);
    for (args, why) in [
        (&["mode", "set", "time-window", "--retention", "7d", "--yes"][..], "did you mean time_window?"),
        (&["mode", "set", "time_window", "--retention", "7d", "--yes"], "--segment"),
        (&["pause", "--for", "99999999999d"], "at most 36500d"),
    ] {
        let output = isle(&[args, &["--store", store]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(why), "{args:?}: {said}");
    }
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let output = isle(&["pause", "--compactor", &nobody]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("compactor-node") && said.contains("--compactor") && said.contains("--store"),
        "{said}"
    );
}
