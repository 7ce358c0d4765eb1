//! Consumers: follow the run's prefix, break off now and then, and go on after the cursor they kept.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use isle_history::{Key, Name, Start};
use isle_service::wire::escape_key;
use serde_json::Value;

use super::ground::{Ground, PAUSE, count};
use super::random::Random;
use super::truth::{position, record};

/// A stream that says nothing for so long (heartbeats included) is given up.
const SILENCE: Duration = Duration::from_secs(45);

/// Breaks off after about so many lines.
const BREAK: u64 = 2000;

/// Runs consumer `n` until it is aborted: it has to see what was written last, too.
pub(super) async fn run(ground: Arc<Ground>, n: u64, seed: u64, cursor: String) {
    let mut consumer = Consumer {
        name: format!("consumer-{n}").into(),
        tailer: n as usize,
        random: Random::of(seed, u64::MAX - n),
        kept: cursor,
        ground,
    };
    loop {
        // A stream ends by a fault of a tailer or by the consumer's own will; both go on from the kept cursor.
        if consumer.follow().await.is_err() {
            consumer.tailer += 1;
            tokio::time::sleep(PAUSE).await;
        }
        count(&consumer.ground.tally.restarts);
    }
}

struct Consumer {
    ground: Arc<Ground>,
    name: Name,
    tailer: usize,
    random: Random,
    /// The cursor it would find again after a crash.
    kept: String,
}

impl Consumer {
    async fn follow(&mut self) -> Result<(), String> {
        let ground = Arc::clone(&self.ground);
        let base = &ground.tailers[self.tailer % ground.tailers.len()];
        let target = format!(
            "/v1/tail?format=ndjson&from={}&prefix={}",
            self.kept,
            escape_key(ground.prefix.as_bytes())
        );
        let answer = ground.client.request(Method::GET, base, &target).send().await;
        let answer = answer.map_err(|e| e.to_string())?.ok().await.map_err(|e| e.to_string())?;
        let start = Start::After(position(&self.kept)?);
        ground.recorder.consumer_started(&self.name, start, Some(Key::new(ground.prefix.as_bytes())));
        let mut lines = answer.lines(Some(SILENCE));
        loop {
            ground.turn().await;
            let line = lines.next().await.map_err(|e| e.to_string())?.ok_or("the stream ended")?;
            let line: Value = serde_json::from_slice(&line.bytes).map_err(|e| e.to_string())?;
            self.take(&line)?;
            if self.random.one_in(BREAK) {
                return Ok(());
            }
        }
    }

    fn take(&mut self, line: &Value) -> Result<(), String> {
        if line.get("error").is_some() {
            return Err(line.to_string());
        }
        if let Some(next) = line["next"].as_str() {
            self.ground.recorder.advanced(&self.name, position(next)?);
            next.clone_into(&mut self.kept);
            return if line.get("closing").is_some() { Err("the tailer stops".to_owned()) } else { Ok(()) };
        }
        self.ground.recorder.delivered(&self.name, record(line)?);
        // A consumer keeps its cursor from time to time: what came after it comes again after a restart.
        if self.random.one_in(7)
            && let Some(cursor) = line["cursor"].as_str()
        {
            cursor.clone_into(&mut self.kept);
        }
        Ok(())
    }
}
