//! A role's process as others reach it: over an address, by requests that can be lost, with answers that can be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, timeout};

use crate::process::Process;
use crate::world::{MILLI, Micros, ProcessId, World};

/// A request as it waits in a process: given the engine, it works and answers by itself.
type Job<H> = Box<dyn FnOnce(H) -> BoxFuture<'static, ()> + Send>;

/// Why a call to a process has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens there: the request was certainly not taken.
    Refused,
    /// The connection broke, or the caller's patience ended, after the request was sent.
    Unknown,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection_refused",
            Self::Unknown => "connection_broken",
        })
    }
}

/// Where a role is reached; stays the same when its process is replaced.
#[derive(Debug)]
pub struct Address<H> {
    /// Which process it is.
    pub process: ProcessId,
    present: Mutex<Present<H>>,
}

struct Present<H> {
    inbox: Option<mpsc::UnboundedSender<Job<H>>>,
    /// Counts the processes started under this address.
    incarnation: u64,
    /// Connections so far.
    connected: u64,
    /// Open ones, by number. They break in this order when the process ends: the order in which a runtime drops its
    /// tasks hangs on how many tasks other schedules have spawned.
    connections: BTreeMap<u64, oneshot::Sender<()>>,
}

impl<H> Default for Present<H> {
    fn default() -> Self {
        Self { inbox: None, incarnation: 0, connected: 0, connections: BTreeMap::new() }
    }
}

impl<H> fmt::Debug for Present<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "incarnation {}", self.incarnation)
    }
}

/// The process's end of an address.
pub type Inbox<H> = mpsc::UnboundedReceiver<Job<H>>;

impl<H: Clone + Send + 'static> Address<H> {
    /// An address where nobody listens yet.
    #[must_use]
    pub fn new(process: ProcessId) -> Arc<Self> {
        Arc::new(Self { process, present: Mutex::new(Present::default()) })
    }

    fn open(&self) -> Inbox<H> {
        let (inbox, receiver) = mpsc::unbounded_channel();
        let mut present = self.present.lock();
        present.incarnation += 1;
        present.inbox = Some(inbox);
        receiver
    }

    fn close(&self) {
        let mut present = self.present.lock();
        present.inbox = None;
        present.connections.clear();
    }

    /// The number of the process that listens, if one does.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.present.lock().incarnation
    }

    /// Asks whoever listens there, and waits at most `patience` for the answer.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn call<T: Send + 'static, F>(
        self: &Arc<Self>,
        world: &Arc<World>,
        patience: Duration,
        ask: impl FnOnce(H) -> F + Send + 'static,
    ) -> Result<T, Broken>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        let (breaks, broken) = oneshot::channel();
        let (there, back, lost) = world
            .draw(|rng| (rng.between(MILLI / 4, MILLI), rng.between(MILLI / 4, MILLI), rng.per_mille(4)));
        let (this, home) = (Arc::clone(self), Arc::clone(world));
        world.later(there, move |world| {
            let Some((inbox, number)) = this.connect(breaks) else {
                world.later(back, move |_| drop(tx.send(Err(Broken::Refused))));
                return;
            };
            let job: Job<H> = Box::new(move |engine| {
                Box::pin(async move {
                    let answer = ask(engine).await;
                    home.later(back, move |world| {
                        if lost {
                            world.fault("lost answer to a client", format_args!(""));
                        } else {
                            drop(tx.send(Ok(answer)));
                        }
                        this.disconnect(number);
                    });
                })
            });
            drop(inbox.send(job));
        });
        let answer = async {
            tokio::select! {
                biased;
                Ok(answer) = rx => answer,
                _ = broken => Err(Broken::Unknown),
            }
        };
        timeout(patience, answer).await.unwrap_or(Err(Broken::Unknown))
    }

    /// A new connection to whoever listens; it breaks when `breaks` is dropped.
    fn connect(&self, breaks: oneshot::Sender<()>) -> Option<(mpsc::UnboundedSender<Job<H>>, u64)> {
        let mut present = self.present.lock();
        let inbox = present.inbox.clone()?;
        present.connected += 1;
        let number = present.connected;
        present.connections.insert(number, breaks);
        Some((inbox, number))
    }

    fn disconnect(&self, number: u64) {
        self.present.lock().connections.remove(&number);
    }
}

/// Answers what comes in, each request in a task of its own.
pub async fn serve<H: Clone + Send + 'static>(mut inbox: Inbox<H>, engine: H) {
    while let Some(job) = inbox.recv().await {
        tokio::spawn(job(engine.clone()));
    }
}

/// A place for a role's process: started, paused, crashed, started again.
pub struct Node<H> {
    /// Where it is reached.
    pub address: Arc<Address<H>>,
    world: Arc<World>,
    process: Option<Process>,
    main: Box<dyn FnMut(Inbox<H>, u64) -> BoxFuture<'static, ()>>,
}

impl<H> fmt::Debug for Node<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node {:?}", self.address.process)
    }
}

/// What the scheduler and the nemesis do to a node, whatever its role.
pub trait Steered {
    /// Which process it is.
    fn id(&self) -> ProcessId;
    /// Starts it, unless it runs.
    fn start(&mut self);
    /// Ends it without a word.
    fn crash(&mut self);
    /// Stops polling it.
    fn pause(&mut self);
    /// Polls it again.
    fn resume(&mut self);
    /// Lets it run until its clock shows `now`.
    fn run_until(&mut self, now: Micros);
    /// Whether there is a process.
    fn is_up(&self) -> bool;
    /// Whether it is paused.
    fn is_paused(&self) -> bool;
}

impl<H: Clone + Send + 'static> Node<H> {
    /// A place with nothing in it; `main` is what its processes do, given their inbox and incarnation.
    pub fn new(
        world: &Arc<World>,
        address: Arc<Address<H>>,
        main: impl FnMut(Inbox<H>, u64) -> BoxFuture<'static, ()> + 'static,
    ) -> Self {
        Self { address, world: Arc::clone(world), process: None, main: Box::new(main) }
    }
}

impl<H: Clone + Send + 'static> Steered for Node<H> {
    fn id(&self) -> ProcessId {
        self.address.process
    }

    fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let inbox = self.address.open();
        let main = (self.main)(inbox, self.address.incarnation());
        match Process::start(self.world.now(), main) {
            Ok(process) => self.process = Some(process),
            Err(e) => self.world.violation(format!("a runtime cannot be built: {e}")),
        }
        self.world.note_of(self.id(), format_args!("starts"));
    }

    fn crash(&mut self) {
        self.address.close();
        if self.process.take().is_some() {
            self.world.note_of(self.id(), format_args!("is gone"));
        }
    }

    fn pause(&mut self) {
        if let Some(process) = &mut self.process {
            process.pause();
        }
    }

    fn resume(&mut self) {
        let now = self.world.now();
        if let Some(process) = self.process.as_mut().filter(|p| p.is_paused()) {
            process.resume(now);
        }
    }

    fn run_until(&mut self, now: Micros) {
        if let Some(process) = &mut self.process {
            process.run_until(now);
        }
    }

    fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn is_paused(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_paused)
    }
}
