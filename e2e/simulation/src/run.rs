//! One schedule, from its seed to its verdict.
//!
//! ```text
//!   start everything ─▶ clients at work, steps as planned ─▶ heal ─▶ writes succeed again, within bounds
//!                                                              ─▶ clients end ─▶ everybody has caught up ─▶ judge
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isle_history::Limits;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::coordination::memory::faults::Backup;
use isle_storage::names;
use isle_storage::object::Bucket;
use parking_lot::Mutex;

use crate::clients::Clients;
use crate::coordination::{Cluster, Leases};
use crate::node::{Address, Node, Steered};
use crate::oracle::Oracle;
use crate::plan::{Form, Plan, Step, Trouble};
use crate::process::Process;
use crate::rng::Rng;
use crate::roles::{Parts, Seat};
use crate::store::SimBucket;
use crate::world::{MILLI, Micros, Odds, ProcessId, SECOND, World};

/// How long after everything is mended writes may still fail. Claims, leases and back-offs add up; a minute means that
/// somebody waits for what will not come.
const RECOVERS_WITHIN: Micros = 60 * SECOND;

/// What came of a schedule.
#[derive(Debug, Clone)]
pub struct Report {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Promises broken.
    pub violations: Vec<String>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The hash of everything that happened.
    pub fingerprint: u64,
    /// Things that happened.
    pub events: u64,
    /// Durable writes acknowledged.
    pub acknowledged: u64,
    /// Reads answered.
    pub answered: u64,
    /// Versions committed.
    pub versions: u64,
    /// Mutations committed.
    pub committed: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// What it came to of what few schedules come to: see [`crate::oracle::MILESTONES`].
    pub reached: BTreeSet<&'static str>,
    /// Simulated microseconds.
    pub lasted: Micros,
    /// The log, where it was asked for.
    pub log: String,
}

impl Report {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.plan)?;
        writeln!(
            f,
            "{} versions, {} mutations committed, {} writes acknowledged, {} reads answered, {} objects deleted, {} events \
             in {} ms; fingerprint {:016x}",
            self.versions,
            self.committed,
            self.acknowledged,
            self.answered,
            self.deleted,
            self.events,
            self.lasted / MILLI,
            self.fingerprint
        )?;
        for (kind, n) in &self.faults {
            writeln!(f, "  {n} x {kind}")?;
        }
        for what in &self.reached {
            writeln!(f, "  {what}")?;
        }
        for why in &self.violations {
            writeln!(f, "VIOLATION {why}")?;
        }
        Ok(())
    }
}

/// Runs the schedule of `seed`; `trace` keeps the log.
#[must_use]
pub fn run(seed: u64, trace: bool) -> Report {
    run_plan(Plan::new(seed), trace)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, trace: bool) -> Report {
    let mut schedule = Schedule::new(plan, trace);
    schedule.play();
    schedule.report()
}

struct Schedule {
    world: Arc<World>,
    oracle: Arc<Oracle>,
    plan: Arc<Plan>,
    cluster: Arc<Cluster>,
    nodes: Vec<Box<dyn Steered>>,
    clients: Arc<Clients>,
    at_work: Option<Process>,
    parts: Parts,
    /// What the service had before it was emptied for a while.
    backup: Option<Backup>,
    /// A copy made some time ago.
    copy: Option<Backup>,
    recovering: Option<(Process, Arc<AtomicBool>)>,
    verifying: Option<Process>,
    /// Who was told to close, and whether it has.
    closing: Vec<(ProcessId, Arc<AtomicBool>)>,
    down: bool,
}

fn add<H: Clone + Send + 'static>(
    nodes: &mut Vec<Box<dyn Steered>>,
    made: impl Iterator<Item = Node<Seat<H>>>,
) -> Vec<Arc<Address<Seat<H>>>> {
    let mut addresses = Vec::new();
    for node in made {
        addresses.push(Arc::clone(&node.address));
        nodes.push(Box::new(node));
    }
    addresses
}

impl Schedule {
    fn new(plan: Plan, trace: bool) -> Self {
        let plan = Arc::new(plan);
        let mut rng = Rng::new(plan.seed ^ 0xa5a5_5a5a_1234_4321);
        let world = World::new(rng.fork(), plan.names(), trace);
        let oracle = Oracle::new(&world, plan.compactor.grace_seconds * SECOND);
        // The state needs a bucket of its own for nothing: every process reads checkpoints through its own.
        let bucket: Arc<dyn Bucket> = Arc::new(SimBucket::new(&world, &oracle, ProcessId(0)));
        let cluster =
            Arc::new(Cluster { memory: MemoryCoordination::new(bucket), leases: Leases::new(plan.lease) });
        let parts = Parts {
            world: Arc::clone(&world),
            oracle: Arc::clone(&oracle),
            cluster: Arc::clone(&cluster),
            plan: Arc::clone(&plan),
        };
        let mut nodes: Vec<Box<dyn Steered>> = Vec::new();
        let writers = add(&mut nodes, (0..plan.writers).map(|i| parts.writer(i)));
        let readers = add(&mut nodes, (0..plan.readers).map(|i| parts.reader(i)));
        let tailers = add(&mut nodes, (0..plan.tailers).map(|i| parts.tailer(i)));
        let compactors = add(&mut nodes, (0..plan.compactors).map(|i| parts.compactor(i)));
        drop(compactors);
        let clients = Clients::new(&world, &oracle, &plan, writers, readers, tailers);
        let at_work = Process::start(0, Arc::clone(&clients).work(rng.fork())).ok();
        Self {
            world,
            oracle,
            plan,
            cluster,
            nodes,
            clients,
            at_work,
            parts,
            backup: None,
            copy: None,
            recovering: None,
            verifying: None,
            closing: Vec::new(),
            down: false,
        }
    }

    fn play(&mut self) {
        for i in 0..self.nodes.len() {
            // In the bucket form whoever opens for writing takes over: the others are replacements.
            if self.plan.form == Form::Service || i == 0 || i >= self.plan.writers {
                self.nodes[i].start();
            }
        }
        let mut steps = self.plan.steps.clone().into_iter().peekable();
        while self.world.now() < self.plan.active && !self.world.is_violated() {
            self.tick();
            while let Some((_, step)) = steps.next_if(|(at, _)| *at <= self.world.now()) {
                self.step(step);
            }
        }
        self.heal();
        let healed = self.clients.acknowledged();
        if self.wait("a durable write to succeed", |s| s.clients.acknowledged() > healed) {
            self.settle();
        }
        self.judge();
    }

    /// Everything that was under way has ended, and everybody has seen all of it.
    fn settle(&mut self) {
        self.clients.be_quiet();
        let settled = self.wait("the writing clients to end", |s| s.clients.writing() == 0)
            && self
                .wait("every consumer to have everything", |s| s.clients.consumed() >= s.oracle.head().1.0)
            && self.wait("the collector to delete what was retired", |s| {
                s.oracle.manifest().is_none_or(|m| m.retired.is_empty())
            })
            && self.wait("the sweep to delete what nobody names", |s| s.oracle.litter().is_empty())
            && self.wait("every reader to reach the head", |s| s.clients.viewed() >= s.oracle.head().0.0);
        self.clients.stop();
        if settled && self.wait("the clients to end", |s| s.clients.working() == 0) {
            self.oracle.check_objects();
            self.verify();
        }
    }

    fn verify(&mut self) {
        let done = Arc::new(AtomicBool::new(false));
        let verifying = Process::start(self.world.now(), self.parts.clone().verify(Arc::clone(&done)));
        let Ok(verifying) = verifying else { return };
        self.verifying = Some(verifying);
        let _verified = self.wait("verify to end", |_| done.load(Ordering::Relaxed));
    }

    /// Lets time pass until `done`; false, and a violation, where that takes too long.
    fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.world.now() + RECOVERS_WITHIN;
        while !done(self) {
            if self.world.is_violated() {
                return false;
            }
            if self.world.now() >= until {
                let told = self.ask_around();
                self.world.violation(format!("waited {} s for {what}; {told}", RECOVERS_WITHIN / SECOND));
                return false;
            }
            self.tick();
        }
        true
    }

    /// What everybody says of itself.
    fn ask_around(&mut self) -> String {
        let told = Arc::new(Mutex::new(Vec::new()));
        if let Some(clients) = &self.at_work {
            clients.spawn(Arc::clone(&self.clients).ask_around(Arc::clone(&told)));
        }
        let until = self.world.now() + 5 * SECOND;
        while self.world.now() < until {
            self.tick();
        }
        let manifest = self.oracle.manifest();
        let head = manifest.map(|m| format!("{} retired at version {}", m.retired.len(), m.version));
        let litter = self.oracle.litter();
        let told = told.lock().join("; ");
        format!("{told}; {}; unnamed: {litter:?}", head.unwrap_or_default())
    }

    fn tick(&mut self) {
        let now = self.world.now() + self.plan.tick;
        self.world.run_until(now);
        if !self.down {
            self.cluster.leases.expire_due(&self.world);
        }
        for node in &mut self.nodes {
            node.run_until(now);
        }
        self.restart_closed();
        self.recover(now);
        if let Some(verifying) = &mut self.verifying {
            verifying.run_until(now);
        }
        if let Some(clients) = &mut self.at_work {
            clients.run_until(now);
        }
    }

    fn step(&mut self, step: Step) {
        let name = |p: ProcessId| self.world.name(p);
        match step {
            Step::Crash(p) if self.nodes[p.0].is_up() => {
                self.world.fault("crash", format_args!("{}", name(p)));
                self.nodes[p.0].crash();
            }
            Step::Pause(p) if self.nodes[p.0].is_up() && !self.nodes[p.0].is_paused() => {
                self.world.fault("pause", format_args!("{}", name(p)));
                self.nodes[p.0].pause();
            }
            Step::Crash(_) | Step::Pause(_) => {}
            Step::Start(p) => self.start(p),
            Step::Resume(p) => {
                if self.nodes[p.0].is_paused() {
                    self.world.note_of(p, format_args!("goes on"));
                    self.nodes[p.0].resume();
                }
            }
            Step::Shutdown(p) => {
                self.world.fault("restart", format_args!("{}", name(p)));
                let closed = Arc::new(AtomicBool::new(p.0 >= self.plan.writers));
                if let Some(clients) = self.at_work.as_ref().filter(|_| p.0 < self.plan.writers) {
                    clients.spawn(Arc::clone(&self.clients).close_writer(p.0, Arc::clone(&closed)));
                }
                self.closing.push((p, closed));
            }
            Step::Cut(p, service, cut) => {
                if cut {
                    self.world.fault("partition", format_args!("{} from {service:?}", name(p)));
                } else {
                    self.world.note_of(p, format_args!("reaches {service:?} again"));
                }
                self.world.set_weather(|w| w.cut[service as usize][p.0] = cut);
            }
            Step::Trouble(service, trouble) => {
                let odds = match trouble {
                    Trouble::None => Odds::fair(service),
                    Trouble::Storm => Odds::storm(service),
                    Trouble::Throttling => Odds::throttling(service),
                };
                self.world.fault("weather", format_args!("{service:?}: {trouble:?}"));
                self.world.set_weather(|w| w.odds[service as usize] = odds);
            }
            Step::Down(down) => self.set_down(down),
            Step::Expire(what) => self.cluster.leases.expire_all(&self.world, what),
            Step::Skew(p, by) => {
                self.world.fault("clock set", format_args!("{} by {} ms", name(p), by / 1000));
                self.world.set_weather(|w| w.skew[p.0] = by);
            }
            Step::Deaf(p, deaf) => {
                if deaf {
                    self.world.fault("deaf watch", format_args!("{}", name(p)));
                }
                self.world.set_weather(|w| w.deaf[p.0] = deaf);
            }
            Step::Lost(true) if self.recovering.is_none() => {
                self.world.fault("coordination emptied", format_args!("for a while"));
                self.backup = Some(self.cluster.memory.backup());
                self.cluster.leases.expire_all(&self.world, "writer");
                self.cluster.leases.expire_all(&self.world, "job");
                self.cluster.memory.wipe();
            }
            Step::Lost(true) => {}
            Step::Lost(false) => self.give_back(),
            Step::Backup => self.copy = Some(self.cluster.memory.backup()),
            // A database that was never created has nothing to recover: a writer creates it.
            Step::Recover(_) if self.oracle.objects().get(names::identity().as_str()).is_none() => {}
            Step::Recover(set_back) => self.lose(set_back),
        }
    }

    /// Who was told to close and has is started anew.
    fn restart_closed(&mut self) {
        let closed = |(_, closed): &(ProcessId, Arc<AtomicBool>)| closed.load(Ordering::Relaxed);
        let (done, closing) = std::mem::take(&mut self.closing).into_iter().partition(closed);
        self.closing = closing;
        for (p, _) in done {
            self.nodes[p.0].crash();
            self.start(p);
        }
    }

    /// Every role is stopped, the service's state is lost, and somebody recovers.
    fn lose(&mut self, set_back: bool) {
        self.give_back();
        for node in &mut self.nodes {
            node.crash();
        }
        for what in ["writer", "job", "pin"] {
            self.cluster.leases.expire_all(&self.world, what);
        }
        match self.copy.take().filter(|_| set_back) {
            Some(copy) => {
                self.world.fault("coordination set back", format_args!("and recovered"));
                self.cluster.memory.restore(&copy);
            }
            None => {
                self.world.fault("coordination wiped", format_args!("and recovered"));
                self.cluster.memory.wipe();
            }
        }
        self.cluster.memory.set_down(self.down);
        self.oracle.lost();
        let done = Arc::new(AtomicBool::new(false));
        let main = self.parts.clone().recover(1, Arc::clone(&done));
        self.recovering = Process::start(self.world.now(), main).ok().map(|process| (process, done));
    }

    /// Once the recover has come to its end the roles are started.
    fn recover(&mut self, now: Micros) {
        let Some((process, done)) = &mut self.recovering else { return };
        process.run_until(now);
        if !done.load(Ordering::Relaxed) {
            return;
        }
        self.world.note(format_args!("recovered"));
        self.recovering = None;
        self.oracle.found_again();
        for node in &mut self.nodes {
            node.start();
        }
    }

    /// In the bucket form a writer that starts takes over, so only one is meant to run.
    fn start(&mut self, p: ProcessId) {
        if self.recovering.is_some() {
            return;
        }
        if self.plan.form == Form::Bucket && p.0 < self.plan.writers {
            let others = (0..self.plan.writers).filter(|i| *i != p.0);
            let alive = others.filter(|i| self.nodes[*i].is_up() && !self.nodes[*i].is_paused()).count();
            if alive > 0 && self.nodes[p.0].is_up() {
                return;
            }
        }
        self.nodes[p.0].start();
    }

    fn set_down(&mut self, down: bool) {
        if down {
            self.world.fault("coordination down", format_args!(""));
        } else {
            self.world.note(format_args!("coordination answers again"));
            self.cluster.leases.extend_all(&self.world);
        }
        self.down = down;
        self.cluster.memory.set_down(down);
    }

    fn give_back(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.world.note(format_args!("coordination has its content back"));
            self.cluster.memory.restore(&backup);
            self.cluster.memory.set_down(self.down);
        }
    }

    fn heal(&mut self) {
        self.world.note(format_args!("everything is mended"));
        self.give_back();
        if self.down {
            self.set_down(false);
        }
        self.world.set_weather(|w| w.heal());
        for i in 0..self.nodes.len() {
            self.nodes[i].resume();
            let replaced = self.plan.form == Form::Bucket && i < self.plan.writers;
            if replaced {
                // Without leases a fenced writer stays down until somebody starts it anew; one is enough.
                self.nodes[i].crash();
            }
            if !replaced || i == 0 {
                self.start(ProcessId(i));
            }
        }
    }

    fn judge(&mut self) {
        if self.world.is_violated() {
            return;
        }
        let report =
            isle_history::check(&self.clients.recorder.events(), self.oracle.log(), Limits::default());
        for violation in &report.violations {
            self.world.violation(violation.to_string());
        }
    }

    fn report(self) -> Report {
        let (_, last) = self.oracle.head();
        Report {
            plan: Arc::clone(&self.plan),
            violations: self.world.violations(),
            faults: self.world.faults(),
            fingerprint: self.world.fingerprint(),
            events: self.world.events(),
            acknowledged: self.clients.acknowledged(),
            answered: self.clients.answered(),
            versions: self.oracle.commits(),
            committed: last.0,
            deleted: self.oracle.deleted(),
            reached: self.oracle.reached(),
            lasted: self.world.now(),
            log: self.world.log(),
        }
    }
}
