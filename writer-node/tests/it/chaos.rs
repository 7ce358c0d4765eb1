//! Two writers, many clients, and everything that can go wrong at once, from a seed: what was acknowledged is there,
//! what was refused is not, and the log has neither gap nor repeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isle_storage::ids::Position;
use isle_storage::manifest::judge::{PositionState, position};
use isle_storage::object::StoreErrorKind;
use isle_testkit::fault::{Fault, Op, Rule};
use parking_lot::Mutex;
use writer_node::{Mutation, Options, Patience, WriteError, Writer, WriterSettings};

use crate::world::{BUCKET, World, small};

/// Numbers that only depend on the seed.
#[derive(Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)))
    }

    fn below(&self, n: u64) -> u64 {
        let mut s = self.0.lock();
        *s ^= *s << 13;
        *s ^= *s >> 7;
        *s ^= *s << 17;
        (*s >> 11) % n
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// What became of the writes, by key.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeMap<Vec<u8>, Position>,
    refused: Vec<Vec<u8>>,
    unknown: usize,
}

impl Ledger {
    fn note(&mut self, keys: &[Vec<u8>], outcome: Result<Position, WriteError>) {
        match outcome {
            Ok(last) => {
                let first = last.seq.0 + 1 - keys.len() as u64;
                for (i, key) in keys.iter().enumerate() {
                    let seq = isle_storage::ids::SeqNo(first + i as u64);
                    self.acknowledged.insert(key.clone(), Position { epoch: last.epoch, seq });
                }
            }
            Err(WriteError::OutcomeUnknown { .. }) => self.unknown += 1,
            Err(_) => self.refused.extend(keys.iter().cloned()),
        }
    }
}

type Writers = Arc<Mutex<Vec<Writer>>>;

fn settings() -> WriterSettings {
    WriterSettings {
        segment_bytes: 2 * 1024,
        generation_bytes: 24 * 1024,
        max_value_bytes: 4 * 1024,
        max_batch_bytes: 96 * 1024,
        fold_edits: 40,
        standby_poll_ms: 500,
        ..small()
    }
}

async fn client(writers: Writers, ledger: Arc<Mutex<Ledger>>, dice: Dice, stop: Arc<AtomicBool>, name: u64) {
    let patience = Patience::AtMost(Duration::from_secs(2));
    let options = Options { patience, ack_timeout: Some(Duration::from_secs(15)), ..BUCKET };
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let writer = {
            let all = writers.lock();
            all[dice.below(all.len() as u64) as usize].clone()
        };
        let count = if dice.below(3) == 0 { 1 + dice.below(12) } else { 1 };
        let keys: Vec<Vec<u8>> = (0..count).map(|i| format!("{name}-{n}-{i}").into_bytes()).collect();
        n += 1;
        let value = vec![name as u8; dice.below(600) as usize];
        let puts: Vec<Mutation<'_>> =
            keys.iter().map(|key| Mutation::Put { key, value: &value, ttl: None }).collect();
        let outcome = writer.apply_batch(&puts, options).await.map(|a| a.position());
        ledger.lock().note(&keys, outcome);
        tokio::time::sleep(dice.millis(1, 30)).await;
    }
}

/// A tenth of what is asked of the store fails, answers late, or is done without an answer.
fn inject(world: &World, dice: &Dice) {
    for fault in
        [Fault::Fail(StoreErrorKind::Transient), Fault::LoseReply, Fault::Delay(Duration::from_millis(300))]
    {
        let dice = dice.clone();
        let unlucky = Rule::any().when(move |op, _| op != Op::List && dice.below(30) == 0);
        world.bucket.inject(unlucky, fault);
    }
}

async fn trouble(world: &World, writers: &Writers, dice: &Dice) {
    match dice.below(6) {
        0 => world.coordination.expire_writer(),
        1 => world.coordination.expire_writer_silently(),
        2 => {
            world.coordination.set_down(true);
            tokio::time::sleep(dice.millis(50, 4_000)).await;
            world.coordination.set_down(false);
        }
        3 => writers.lock().iter().for_each(Writer::end_generation),
        4 => {
            // One goes away without a word and another comes.
            let fresh = world.contender("again", settings()).await;
            let at = dice.below(2) as usize;
            let _gone = std::mem::replace(&mut writers.lock()[at], fresh);
        }
        _ => {
            let fresh = world.contender("again", settings()).await;
            let at = dice.below(2) as usize;
            let old = std::mem::replace(&mut writers.lock()[at], fresh);
            old.close(Duration::from_secs(3)).await;
        }
    }
}

async fn run(seed: u64) {
    let world = World::new();
    let dice = Dice::new(seed);
    let writers: Writers = Arc::new(Mutex::new(vec![
        world.contender("w1", settings()).await,
        world.contender("w2", settings()).await,
    ]));
    let (ledger, stop) = (Arc::new(Mutex::new(Ledger::default())), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..6)
        .map(|name| {
            tokio::spawn(client(
                Arc::clone(&writers),
                Arc::clone(&ledger),
                dice.clone(),
                Arc::clone(&stop),
                name,
            ))
        })
        .collect();
    inject(&world, &dice);
    for _ in 0..25 {
        tokio::time::sleep(dice.millis(20, 700)).await;
        let held = world.bucket.clone();
        // A new process reads identity objects before it is a writer; its own retries are not what is tried here.
        held.heal();
        trouble(&world, &writers, &dice).await;
        inject(&world, &dice);
    }
    world.bucket.heal();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    flush_everything(&world, &writers).await;
    let ledger = std::mem::take(&mut *ledger.lock());
    judge(&world, &ledger, seed).await;
}

/// Until all of the log is in tables. Who leads may still change: the last trouble may have been a lost lease that its
/// holder has not heard of.
async fn flush_everything(world: &World, writers: &Writers) {
    let began = tokio::time::Instant::now();
    loop {
        let all = writers.lock().clone();
        for writer in all.iter().filter(|w| w.status().leader) {
            // A commit of its own shows a stale leader that it is one.
            if writer.put(b"last", b"", None, BUCKET).await.is_ok() && writer.flush(None).await.is_ok() {
                writer.end_generation();
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let manifest = world.head().await.manifest;
        if manifest.flushed_seq == manifest.last_seq {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "the log is never flushed whole");
    }
}

async fn judge(world: &World, ledger: &Ledger, seed: u64) {
    let log = world.log().await;
    let manifest = world.head().await.manifest;
    let written = || log.iter().filter(|r| r.key != "last");
    let by_key: BTreeMap<&[u8], u64> = written().map(|r| (&*r.key, r.seq.0)).collect();
    assert_eq!(by_key.len(), written().count(), "seed {seed}: a write stands twice in the log");
    for (key, at) in &ledger.acknowledged {
        let text = String::from_utf8_lossy(key);
        assert_eq!(
            by_key.get(key.as_slice()),
            Some(&at.seq.0),
            "seed {seed}: {text} was acknowledged at {at}"
        );
        assert_eq!(position(&manifest, *at), PositionState::Here, "seed {seed}: {text} at {at}");
    }
    for key in &ledger.refused {
        let text = String::from_utf8_lossy(key);
        assert!(!by_key.contains_key(key.as_slice()), "seed {seed}: {text} was refused, and is in the log");
    }
    let mut tables = world.tables().await;
    tables.sort_by_key(|r| r.seq);
    assert_eq!(tables, log, "seed {seed}: the tables hold something else than the log");
    let acknowledged = ledger.acknowledged.len();
    assert!(acknowledged > 50, "seed {seed}: only {acknowledged} acknowledged, {} unknown", ledger.unknown);
}

/// Failing stores, lost replies, lost leases with and without a word, coordination that goes away, writers that die and
/// come back.
#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_and_nothing_refused_is_applied() {
    for seed in 1..=12 {
        run(seed).await;
    }
}
