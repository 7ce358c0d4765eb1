//! One client: does one thing after the other, chosen by its seed, and records what it asked and was told.

use std::sync::Arc;

use isle_history::Name;

use super::ground::{Ground, PAUSE};
use super::random::Random;
use super::{reads, writes};

/// One client.
pub(super) struct Worker {
    pub(super) ground: Arc<Ground>,
    pub(super) name: Name,
    pub(super) random: Random,
    /// Which writer it turns to; the next one after a failure.
    pub(super) writer: usize,
    /// Which reader it turns to.
    pub(super) reader: usize,
    /// The number of its newest acknowledged write.
    pub(super) newest: u64,
    /// Values made: no two are alike.
    pub(super) values: u64,
}

/// Runs client `n` until the run stops.
pub(super) async fn run(ground: Arc<Ground>, n: u64, seed: u64) {
    let mut worker = Worker {
        name: format!("client-{n}").into(),
        random: Random::of(seed, n),
        writer: n as usize,
        reader: n as usize,
        newest: 0,
        values: 0,
        ground,
    };
    while !worker.ground.is_stopped() {
        worker.ground.turn().await;
        if !worker.step().await {
            worker.writer += 1;
            worker.reader += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Worker {
    /// Does one thing; false where it was refused or failed.
    async fn step(&mut self) -> bool {
        match self.random.below(100) {
            0..=27 => writes::put(self).await,
            28..=34 => writes::delete(self).await,
            35..=44 => writes::batch(self).await,
            45..=47 => writes::ingest(self).await,
            48..=53 => writes::events(self).await,
            54..=76 => reads::get(self).await,
            77..=85 => reads::mget(self).await,
            86..=94 => reads::scan(self).await,
            _ => reads::pages(self).await,
        }
    }

    /// A key of the run; some are much more wanted than others.
    pub(super) fn key(&mut self) -> String {
        let keys = self.ground.keys;
        let n = if self.random.one_in(3) {
            self.random.below(keys.div_ceil(20))
        } else {
            self.random.below(keys)
        };
        self.ground.key(n)
    }

    /// A value nobody has ever written: mostly short, sometimes long.
    pub(super) fn value(&mut self) -> String {
        self.values += 1;
        let len = match self.random.below(100) {
            0 => 40_000,
            1..=9 => self.random.below(2000),
            _ => self.random.below(100),
        };
        format!("{}/{} {}", self.name, self.values, "x".repeat(len as usize))
    }
}
