//! Clients that hold: they take a named snapshot, read it again and again at every reader, and drop it.

use std::time::Duration;

use http::Method;
use isle_history::{Event, Name};
use serde_json::{Value, json};

use super::clients::{PAGE, Shared, key};
use super::read::{Held, Scan, Session};
use super::rng::Rng;

/// A client that takes, reads and drops snapshots until it is told to stop.
pub(super) struct Holding {
    shared: Shared,
    name: Name,
    rng: Rng,
    writer: usize,
}

impl Holding {
    pub(super) fn new(shared: Shared, n: usize, rng: Rng) -> Self {
        Self { shared, name: format!("holding-{n}").into(), rng, writer: n }
    }

    /// Runs until all is stopped; what no fault excuses, if there was such a thing.
    pub(super) async fn run(mut self) -> Result<(), String> {
        for n in 1.. {
            let name = format!("{}-{n}", self.name);
            let Some(held) = self.take(&name).await? else { break };
            self.read_at(&held).await?;
            self.let_go(&name).await;
            tokio::time::sleep(Duration::from_millis(self.rng.within(100..1_500))).await;
        }
        Ok(())
    }

    /// Takes one; a snapshot whose outcome was unknown is found under its name. `None` when all is stopped.
    async fn take(&mut self, name: &str) -> Result<Option<Held>, String> {
        let body = json!({"name": name}).to_string();
        while let Some((status, answer)) = self.ask(Method::POST, "/v1/snapshots", &body).await {
            let taken = match (status, answer["error"]["code"].as_str()) {
                (200 | 201, _) => &answer,
                (_, Some("snapshot_exists")) => &answer["error"]["snapshot"],
                (_, Some("invalid_request" | "internal" | "damaged")) => {
                    return Err(format!("{name} cannot be taken: {answer}"));
                }
                _ => continue,
            };
            let created = taken["created"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let (Some(seq), Some(created)) = (taken["seq"].as_u64(), created) else {
                return Err(format!("{name} was taken, and the answer does not say what it holds: {answer}"));
            };
            self.shared.recorder.record(Event::SnapshotTaken { name: name.into(), seq });
            return Ok(Some(Held { name: name.into(), created: created.as_microsecond() }));
        }
        Ok(None)
    }

    async fn read_at(&mut self, held: &Held) -> Result<(), String> {
        for _ in 0..self.rng.within(3..25) {
            if self.shared.stopped() {
                return Ok(());
            }
            let reader = self.rng.below(self.shared.readers.len());
            let session = Session { held: Some(held.clone()), ..self.shared.session(&self.name, reader) };
            let failed = if self.rng.percent(60) {
                session.get(&key(&mut self.rng), None).await
            } else {
                let mut ends = [key(&mut self.rng), key(&mut self.rng)];
                ends.sort();
                let [start, end] = ends;
                let (name, reverse) = (self.shared.scan_name(), self.rng.percent(40));
                session
                    .scan(Scan { name, start, end: Some(end), limit: PAGE, reverse, at_least: None })
                    .await
                    .err()
            };
            if failed.as_deref() == Some("unknown_snapshot") {
                return Err(format!(
                    "{} holds {}, and a reader knows no such snapshot",
                    self.name, held.name
                ));
            }
            tokio::time::sleep(Duration::from_millis(self.rng.within(5..400))).await;
        }
        Ok(())
    }

    async fn let_go(&mut self, name: &str) {
        let target = format!("/v1/snapshots/{name}");
        while let Some((status, _)) = self.ask(Method::DELETE, &target, "").await {
            if matches!(status, 200 | 404) {
                return;
            }
        }
    }

    /// Asks a writer; another one next time, after a pause, where it was not done. `None` when all is stopped.
    async fn ask(&mut self, method: Method, target: &str, body: &str) -> Option<(u16, Value)> {
        while !self.shared.stopped() {
            let (_, api) = self.shared.writers[self.writer % self.shared.writers.len()].clone();
            let answer = api.whole(method.clone(), target, body.as_bytes().to_vec()).await;
            if !matches!(&answer, Ok(plain) if plain.status < 300) {
                self.writer += 1;
                tokio::time::sleep(Duration::from_millis(self.rng.within(20..200))).await;
            }
            if let Ok(plain) = answer {
                return Some((plain.status, serde_json::from_slice(&plain.body).unwrap_or_default()));
            }
        }
        None
    }
}
