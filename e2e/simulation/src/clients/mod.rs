//! The clients: they write, read and consume over addresses, and record what they asked and what they were told.

mod consume;
mod copy;
mod hold;
mod read;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use isle_history::{Name, Recorder};
use isle_storage::ids::Position;
use parking_lot::Mutex;
use reader_node::Reader;
use tailer_node::Tailer;
use writer_node::Writer;

use crate::node::Address;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::roles::Seat;
use crate::world::World;

/// How long a writer has for its drain.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// Everything the clients share.
#[derive(Debug)]
pub struct Clients {
    world: Arc<World>,
    oracle: Arc<Oracle>,
    plan: Arc<Plan>,
    /// What they saw.
    pub recorder: Recorder,
    writers: Vec<Arc<Address<Seat<Writer>>>>,
    readers: Vec<Arc<Address<Seat<Reader>>>>,
    tailers: Vec<Arc<Address<Seat<Tailer>>>>,
    /// The writer that last took something.
    leader: AtomicUsize,
    /// The newest acknowledged position.
    newest: Mutex<Option<Position>>,
    /// No more writes.
    quiet: AtomicBool,
    stop: AtomicBool,
    writing: Arc<AtomicUsize>,
    working: AtomicUsize,
    acknowledged: AtomicU64,
    answered: AtomicU64,
    /// How far the consumer that has come least far has come, by consumer.
    consumed: Mutex<Vec<u64>>,
    /// The version each reader has reached, as it said last.
    viewed: Arc<Mutex<Vec<u64>>>,
}

/// One client.
#[derive(Debug)]
struct Client {
    shared: Arc<Clients>,
    name: Name,
    rng: Rng,
    /// Counts its values, so that each is another.
    made: u64,
}

impl Clients {
    /// Clients of these roles.
    #[must_use]
    pub fn new(
        world: &Arc<World>,
        oracle: &Arc<Oracle>,
        plan: &Arc<Plan>,
        writers: Vec<Arc<Address<Seat<Writer>>>>,
        readers: Vec<Arc<Address<Seat<Reader>>>>,
        tailers: Vec<Arc<Address<Seat<Tailer>>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            oracle: Arc::clone(oracle),
            plan: Arc::clone(plan),
            recorder: Recorder::new(),
            writers,
            readers,
            tailers,
            leader: AtomicUsize::new(0),
            newest: Mutex::new(None),
            quiet: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            writing: Arc::default(),
            working: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            consumed: Mutex::default(),
            viewed: Arc::default(),
        })
    }

    /// All of them at work, until they are told to stop.
    pub async fn work(self: Arc<Self>, mut rng: Rng) {
        let plan = Arc::clone(&self.plan);
        for i in 0..plan.writing {
            self.writing.fetch_add(1, Ordering::Relaxed);
            let writing = Arc::clone(&self.writing);
            self.spawn(format!("writing-{i}"), &mut rng, |client| async move {
                client.write_on().await;
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for i in 0..plan.reading {
            self.spawn(format!("reading-{i}"), &mut rng, Client::read_on);
        }
        for i in 0..plan.holding {
            self.writing.fetch_add(1, Ordering::Relaxed);
            let writing = Arc::clone(&self.writing);
            self.spawn(format!("holding-{i}"), &mut rng, |client| async move {
                client.hold_on().await;
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for i in 0..plan.copying {
            self.writing.fetch_add(1, Ordering::Relaxed);
            let writing = Arc::clone(&self.writing);
            self.spawn(format!("copying-{i}"), &mut rng, |client| async move {
                client.copy_on().await;
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for (i, reader) in self.readers.iter().enumerate() {
            let reader = Arc::clone(reader);
            self.viewed.lock().push(0);
            self.spawn(format!("viewing-{i}"), &mut rng, move |client| client.view_on(i, reader));
        }
        for i in 0..plan.consuming {
            self.consumed.lock().push(0);
            self.spawn(format!("consuming-{i}"), &mut rng, move |client| client.consume_on(i));
        }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        name: String,
        rng: &mut Rng,
        work: impl FnOnce(Client) -> F,
    ) {
        self.working.fetch_add(1, Ordering::Relaxed);
        let client = Client { shared: Arc::clone(self), name: name.into(), rng: rng.fork(), made: 0 };
        let (shared, work) = (Arc::clone(self), work(client));
        tokio::spawn(async move {
            work.await;
            shared.working.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Lets a writer drain and close; says so when it has.
    pub async fn close_writer(self: Arc<Self>, number: usize, closed: Arc<AtomicBool>) {
        let answer = self.writers[number].call(&self.world, CLOSES_WITHIN * 2, |seat| async move {
            seat.engine.close(CLOSES_WITHIN).await;
        });
        let how = if answer.await.is_ok() { "has closed" } else { "does not answer" };
        self.world.note_of(self.writers[number].process, format_args!("{how}"));
        closed.store(true, Ordering::Relaxed);
    }

    /// Asks every writer and reader how it is: for people who wonder what somebody waits for.
    pub async fn ask_around(self: Arc<Self>, told: Arc<Mutex<Vec<String>>>) {
        let patience = Duration::from_millis(500);
        for writer in &self.writers {
            let told_by = self.world.name(writer.process);
            let status = writer.call(&self.world, patience, |seat| async move {
                format!("{:?}; {:?}", seat.engine.status(), *seat.engine.standing().borrow())
            });
            let status = status.await.unwrap_or_else(|e| e.to_string());
            told.lock().push(format!("{told_by}: {status}"));
        }
        for reader in &self.readers {
            let told_by = self.world.name(reader.process);
            let status = reader.call(&self.world, patience, |seat| async move {
                format!("at {:?}, {:?}", seat.engine.position(), seat.engine.health().reasons)
            });
            let status = status.await.unwrap_or_else(|e| e.to_string());
            told.lock().push(format!("{told_by}: {status}"));
        }
    }

    /// Ends the writing ones after what they are doing.
    pub fn be_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// How many still write.
    #[must_use]
    pub fn writing(&self) -> usize {
        self.writing.load(Ordering::Relaxed)
    }

    /// The lowest version that a reader has reached, as they said last.
    #[must_use]
    pub fn viewed(&self) -> u64 {
        self.viewed.lock().iter().copied().min().unwrap_or(u64::MAX)
    }

    /// Ends them after what they are doing.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether they were told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// How many still work.
    #[must_use]
    pub fn working(&self) -> usize {
        self.working.load(Ordering::Relaxed)
    }

    /// Durable writes acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Reads answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How far the consumers have come, the slowest of them.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed.lock().iter().copied().min().unwrap_or(u64::MAX)
    }
}

impl Client {
    fn goes_on(&self) -> bool {
        !self.shared.is_stopping()
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(self.shared.plan.keys);
        // Some keys are prefixes of others.
        if n.is_multiple_of(3) { format!("k{n}/x").into_bytes() } else { format!("k{n}").into_bytes() }
    }
}
