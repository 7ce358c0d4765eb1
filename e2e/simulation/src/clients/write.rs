//! Writing: puts, deletes, batches, events, some of them expiring, some acknowledged before they are durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isle_history::{Ack as Promise, Key, Mutation as Asked, WriteOutcome};
use isle_storage::ids::Position;
use tokio::time::sleep;
use writer_node::{Ack, Event, Mutation, Options, Patience, WriteError, Writer};

use super::Client;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One mutation as the client owns it.
#[derive(Debug, Clone)]
enum Owned {
    Put(Vec<u8>, Vec<u8>, Option<Duration>),
    Delete(Vec<u8>),
}

/// What one request asks for.
#[derive(Debug, Clone)]
enum Order {
    One(Owned),
    Batch(Vec<Owned>),
    Append(Vec<u8>, Vec<Vec<u8>>),
}

/// The numbers a write was given.
type Numbers = (Position, u64);

impl Client {
    pub(super) async fn write_on(mut self) {
        while self.goes_on() && !self.shared.quiet.load(Ordering::Relaxed) {
            self.write_once().await;
            let pause = self.rng.between(0, 8) * self.rng.between(0, 12);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn write_once(&mut self) {
        let order = self.order();
        let ack = if self.rng.per_mille(60) { Ack::Memory } else { Ack::Bucket };
        let shared = Arc::clone(&self.shared);
        let op = shared.recorder.write_invoked(&self.name, order.asked());
        let at = shared.leader.load(Ordering::Relaxed) % shared.writers.len();
        let options =
            Options { ack, patience: Patience::AtMost(Duration::from_millis(400)), ack_timeout: None };
        let oracle = Arc::clone(&shared.oracle);
        let ends_generation = self.rng.per_mille(15);
        let answer = shared.writers[at]
            .call(&shared.world, PATIENCE, move |seat| async move {
                let answer = order.carry_out(&seat.engine, options).await;
                if let (Ok((position, _)), Ack::Bucket) = (&answer, ack) {
                    oracle.acknowledging(*position);
                }
                if ends_generation {
                    seat.engine.end_generation();
                }
                answer
            })
            .await;
        let outcome = match answer {
            Ok(Ok((position, first))) => {
                if ack == Ack::Bucket {
                    *shared.newest.lock() = Some(position);
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                WriteOutcome::Acknowledged {
                    epoch: position.epoch.0,
                    first_seq: first,
                    last_seq: position.seq.0,
                    ack: if ack == Ack::Bucket { Promise::Bucket } else { Promise::Provisional },
                }
            }
            Ok(Err(e @ WriteError::OutcomeUnknown { .. })) => WriteOutcome::Unknown { why: e.to_string() },
            Ok(Err(e)) => WriteOutcome::Refused { code: e.to_string() },
            Err(crate::node::Broken::Refused) => {
                WriteOutcome::Refused { code: "connection_refused".to_owned() }
            }
            Err(broken) => WriteOutcome::Unknown { why: broken.to_string() },
        };
        shared.world.note(format_args!("{} write {}: {outcome}", self.name, op.0));
        let taken = matches!(outcome, WriteOutcome::Acknowledged { .. });
        shared.recorder.write_answered(op, outcome);
        if !taken {
            // Somebody else may lead.
            let next = (at + 1) % shared.writers.len();
            let _raced = shared.leader.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            sleep(Duration::from_millis(self.rng.between(10, 120))).await;
        }
    }

    fn order(&mut self) -> Order {
        match self.rng.below(20) {
            0..=11 => Order::One(self.one()),
            12..=17 => {
                let n = self.rng.between(1, 6);
                Order::Batch((0..n).map(|_| self.one()).collect())
            }
            _ => {
                let n = self.rng.between(1, 3);
                let stream = format!("s{}", self.rng.below(2)).into_bytes();
                Order::Append(stream, (0..n).map(|_| self.value()).collect())
            }
        }
    }

    fn one(&mut self) -> Owned {
        let key = self.key();
        match self.rng.below(10) {
            0..=1 => Owned::Delete(key),
            2 => {
                let ttl = Duration::from_millis(self.rng.between(1, 3_000));
                Owned::Put(key, self.value(), Some(ttl))
            }
            _ => Owned::Put(key, self.value(), None),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.made += 1;
        let mut value = format!("{}:{}", self.name, self.made).into_bytes();
        if self.rng.per_mille(100) {
            let len = self.rng.between(0, 900) as usize;
            value.resize(value.len() + len, b'.');
        }
        value
    }
}

impl Owned {
    fn asked(&self) -> Asked {
        match self {
            Self::Put(key, value, ttl) => {
                let put = Asked::put(Key::new(key), value);
                ttl.map_or(put.clone(), |ttl| put.expiring(ttl.as_micros() as i64))
            }
            Self::Delete(key) => Asked::delete(Key::new(key)),
        }
    }

    fn mutation(&self) -> Mutation<'_> {
        match self {
            Self::Put(key, value, ttl) => Mutation::Put { key, value, ttl: *ttl },
            Self::Delete(key) => Mutation::Delete { key },
        }
    }
}

impl Order {
    fn asked(&self) -> Vec<Asked> {
        match self {
            Self::One(one) => vec![one.asked()],
            Self::Batch(all) => all.iter().map(Owned::asked).collect(),
            Self::Append(stream, values) => {
                values.iter().map(|v| Asked::event(Key::new(stream), v)).collect()
            }
        }
    }

    async fn carry_out(&self, writer: &Writer, options: Options) -> Result<Numbers, WriteError> {
        let accepted = match self {
            Self::One(Owned::Put(key, value, ttl)) => {
                let position = writer.put(key, value, *ttl, options).await?;
                return Ok((position, position.seq.0));
            }
            Self::One(Owned::Delete(key)) => {
                let position = writer.delete(key, options).await?;
                return Ok((position, position.seq.0));
            }
            Self::Batch(all) => {
                let all: Vec<_> = all.iter().map(Owned::mutation).collect();
                writer.apply_batch(&all, options).await?
            }
            Self::Append(stream, values) => {
                let events: Vec<_> = values.iter().map(|value| Event { value, ttl: None }).collect();
                writer.append(stream, &events, options).await?
            }
        };
        Ok((accepted.position(), accepted.first_seq().0))
    }
}
