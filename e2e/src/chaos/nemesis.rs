//! Does what the plan says, undoes it, counts it, and watches for programs that end by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use isle_history::Recorder;

use super::cluster::ChaosCluster;
use super::plan::{Fault, Plan, Planned, Side, Trouble, Who};
use crate::node::Role;
use crate::proxy;

/// How often programs are looked at.
const TICK: Duration = Duration::from_millis(200);

/// A program that was told to stop must have ended by then: its own limit is 20 s.
const STOP_AT_MOST: Duration = Duration::from_secs(30);

/// What a fault left behind that has to be undone.
#[derive(Debug)]
enum Undo {
    Start(usize),
    StartStopped(usize, Instant),
    Continue(usize),
    Reconnect(usize, Side),
    Bucket(Vec<usize>),
    Etcd(usize),
    MemberStart,
    MemberContinue(usize),
    MemberPlug(usize),
    Compact,
}

/// Does faults to a cluster.
#[derive(Debug)]
pub struct Nemesis<'a> {
    cluster: &'a mut ChaosCluster,
    recorder: Recorder,
    aloud: fn(&str),
    began: Instant,
    active: Vec<(Instant, Planned, Undo)>,
    /// Programs that do not run because a fault says so.
    down: BTreeSet<usize>,
    /// How often each kind was done.
    pub done: BTreeMap<String, u64>,
    /// Faults for which there was nobody to do them to (no leader at the moment).
    pub skipped: u64,
    /// What no fault excuses.
    pub violations: Vec<String>,
}

impl<'a> Nemesis<'a> {
    /// A nemesis of a cluster that is well; it says `aloud` what it does.
    #[must_use]
    pub fn new(cluster: &'a mut ChaosCluster, recorder: Recorder, aloud: fn(&str)) -> Self {
        Self {
            cluster,
            recorder,
            aloud,
            began: Instant::now(),
            active: Vec::new(),
            down: BTreeSet::new(),
            done: BTreeMap::new(),
            skipped: 0,
            violations: Vec::new(),
        }
    }

    /// Does everything that is planned, in real time, and undoes it.
    pub async fn run(&mut self, plan: &Plan) {
        self.began = Instant::now();
        for planned in &plan.faults {
            self.wait_until(self.began + planned.at).await;
            self.begin(*planned).await;
        }
        while let Some(end) = self.active.iter().map(|(end, _, _)| *end).max() {
            self.wait_until(end).await;
        }
    }

    /// One fault for as long as it lasts, and nothing else.
    pub async fn one(&mut self, fault: Fault, lasts: Duration) {
        self.begin(Planned { at: self.began.elapsed(), lasts, fault }).await;
        self.wait_until(Instant::now() + lasts).await;
    }

    /// Waits, undoing what is over by then.
    async fn wait_until(&mut self, then: Instant) {
        loop {
            self.watch();
            let over = self.active.iter().filter(|(end, _, _)| *end <= then).map(|(end, _, _)| *end).min();
            let next = over.unwrap_or(then);
            if Instant::now() < next {
                tokio::time::sleep((next - Instant::now()).min(TICK)).await;
            } else if over.is_some() {
                self.undo_next().await;
            } else {
                return;
            }
        }
    }

    async fn undo_next(&mut self) {
        let first = (0..self.active.len()).min_by_key(|n| self.active[*n].0);
        let Some(first) = first else { return };
        let (_, planned, undo) = self.active.remove(first);
        self.undo(undo).await;
        self.say(format!("over: {}", planned.fault.kind()));
    }

    fn say(&self, what: String) {
        (self.aloud)(&what);
        self.recorder.remark(format!("{:.1} s: {what}", self.began.elapsed().as_secs_f64()));
    }

    /// A program that ended and should not have.
    fn watch(&mut self) {
        for n in 0..self.cluster.actors.len() {
            let actor = &mut self.cluster.actors[n];
            if self.down.contains(&n) || actor.node.is_running() {
                continue;
            }
            let log = actor.node.log();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            actor.node.restart();
            let what = format!("{} ended by itself:\n{}", actor.name, tail.join("\n"));
            self.say(what.clone());
            self.violations.push(what);
        }
    }

    async fn begin(&mut self, planned: Planned) {
        let end = Instant::now() + planned.lasts;
        match self.act(planned.fault).await {
            Some((undo, whom)) => {
                self.say(format!("{} ({whom}) for {:?}", planned.fault.kind(), planned.lasts));
                *self.done.entry(planned.fault.kind()).or_default() += 1;
                self.active.push((end, planned, undo));
            }
            None => {
                self.say(format!("skipped: {}", planned.fault.kind()));
                self.skipped += 1;
            }
        }
    }

    async fn act(&mut self, fault: Fault) -> Option<(Undo, String)> {
        match fault {
            Fault::Kill(who) => {
                let n = self.running(who).await?;
                self.down.insert(n);
                self.cluster.actors[n].node.kill();
                Some((Undo::Start(n), self.name(n)))
            }
            Fault::Pause(_) | Fault::PauseLong => {
                let who = if let Fault::Pause(who) = fault { who } else { Who::Leader };
                let n = self.running(who).await?;
                self.cluster.actors[n].node.daemon().stop();
                Some((Undo::Continue(n), self.name(n)))
            }
            Fault::Stop(who) => {
                let n = self.running(who).await?;
                self.down.insert(n);
                self.cluster.actors[n].node.terminate();
                Some((Undo::StartStopped(n, Instant::now()), self.name(n)))
            }
            Fault::Partition(who, side) => {
                let n = self.find(who).await?;
                self.partition(n, side, true);
                Some((Undo::Reconnect(n, side), self.name(n)))
            }
            Fault::Bucket(None, trouble) => {
                let all: Vec<_> = (0..self.cluster.actors.len()).collect();
                self.set_bucket(&all, of(trouble));
                Some((Undo::Bucket(all), "all".to_owned()))
            }
            Fault::Bucket(Some(who), trouble) => {
                let n = self.find(who).await?;
                self.set_bucket(&[n], of(trouble));
                Some((Undo::Bucket(vec![n]), self.name(n)))
            }
            Fault::Etcd(who, trouble) => {
                let n = self.find(who).await?;
                self.cluster.actors[n].set_etcd(of(trouble));
                Some((Undo::Etcd(n), self.name(n)))
            }
            Fault::EtcdKillLeader => {
                let n = self.etcd_leader()?;
                self.cluster.etcd.member(n).kill();
                Some((Undo::MemberStart, format!("member {n}")))
            }
            Fault::EtcdPauseLeader => {
                let n = self.etcd_leader()?;
                self.cluster.etcd.member(n).stop();
                Some((Undo::MemberContinue(n), format!("member {n}")))
            }
            Fault::EtcdCutLeader => {
                let n = self.etcd_leader()?;
                let member = self.cluster.etcd.member(n);
                if member.host().unplug(true) {
                    return Some((Undo::MemberPlug(n), format!("member {n}")));
                }
                member.stop();
                Some((Undo::MemberContinue(n), format!("member {n}")))
            }
            Fault::EtcdKillAll => {
                self.cluster.etcd.kill();
                Some((Undo::MemberStart, "all members".to_owned()))
            }
            Fault::EtcdCompact => {
                self.compact();
                Some((Undo::Compact, "all members".to_owned()))
            }
        }
    }

    async fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(n) => self.start(n),
            Undo::StartStopped(n, told) => {
                self.must_have_stopped(n, told).await;
                self.start(n);
            }
            Undo::Continue(n) => self.cluster.actors[n].node.daemon().cont(),
            Undo::Reconnect(n, side) => self.partition(n, side, false),
            Undo::Bucket(all) => self.set_bucket(&all, proxy::Fault::Pass),
            Undo::Etcd(n) => self.cluster.actors[n].set_etcd(proxy::Fault::Pass),
            Undo::MemberStart => self.cluster.etcd.restart().await,
            Undo::MemberContinue(n) => self.cluster.etcd.member(n).cont(),
            Undo::MemberPlug(n) => {
                self.cluster.etcd.member(n).host().unplug(false);
            }
            Undo::Compact => self.compact(),
        }
    }

    fn start(&mut self, n: usize) {
        self.cluster.actors[n].node.restart();
        self.down.remove(&n);
    }

    async fn must_have_stopped(&mut self, n: usize, told: Instant) {
        let name = self.name(n);
        let left = STOP_AT_MOST.saturating_sub(told.elapsed());
        match tokio::time::timeout(left, self.cluster.actors[n].node.ended()).await {
            Ok(status) if status.success() => {}
            Ok(status) => self.violations.push(format!("{name} ended with {status} after SIGTERM")),
            Err(_) => self.violations.push(format!("{name} runs {STOP_AT_MOST:?} after SIGTERM")),
        }
    }

    /// In namespaces packets vanish; elsewhere the proxies keep everything back until the end.
    fn partition(&self, n: usize, side: Side, apart: bool) {
        let actor = &self.cluster.actors[n];
        let (etcd, bucket) = (actor.etcd_addresses(), vec![actor.bucket.address()]);
        let really = match side {
            Side::Etcd => actor.host().drop_packets(&etcd, apart),
            Side::Bucket => actor.host().drop_packets(&bucket, apart),
            Side::Both => actor.host().drop_packets(&[etcd, bucket].concat(), apart),
            Side::World => actor.host().unplug(apart),
        };
        if really {
            return;
        }
        let fault = if apart { proxy::Fault::Stall } else { proxy::Fault::Pass };
        if side != Side::Bucket {
            actor.set_etcd(fault);
        }
        if side != Side::Etcd {
            actor.bucket.set(fault);
        }
    }

    fn set_bucket(&self, actors: &[usize], fault: proxy::Fault) {
        actors.iter().for_each(|n| self.cluster.actors[*n].bucket.set(fault));
    }

    /// Best effort: a member that is away is left out, and what it says is for the curious.
    fn compact(&mut self) {
        tokio::task::block_in_place(|| {
            let said = self.cluster.etcd.compact_and_defragment();
            tracing::debug!(?said, "compacted and defragmented");
        });
    }

    fn etcd_leader(&self) -> Option<usize> {
        tokio::task::block_in_place(|| self.cluster.etcd.found_leader())
    }

    fn name(&self, n: usize) -> String {
        self.cluster.actors[n].name.clone()
    }

    async fn running(&mut self, who: Who) -> Option<usize> {
        let n = self.find(who).await?;
        (!self.down.contains(&n) && self.cluster.actors[n].node.is_running()).then_some(n)
    }

    async fn find(&self, who: Who) -> Option<usize> {
        let nth = |role: Role, n: usize| {
            let of_role = |(_, a): &(usize, &super::cluster::Actor)| a.node.role() == role;
            self.cluster.actors.iter().enumerate().filter(of_role).nth(n).map(|(n, _)| n)
        };
        match who {
            Who::Leader => self.cluster.leader().await,
            Who::Standby => {
                let leader = self.cluster.leader().await?;
                nth(Role::Writer, usize::from(nth(Role::Writer, 0) == Some(leader)))
            }
            Who::Reader(n) => nth(Role::Reader, n),
            Who::Tailer(n) => nth(Role::Tailer, n),
            Who::Compactor => nth(Role::Compactor, 0),
        }
    }
}

/// What a proxy does for it.
fn of(trouble: Trouble) -> proxy::Fault {
    match trouble {
        Trouble::Refuse => proxy::Fault::Refuse,
        Trouble::Slow => proxy::Fault::Delay(Duration::from_millis(150)),
        Trouble::Throttle => proxy::Fault::Throttle(20_000),
        Trouble::Reset => proxy::Fault::Reset,
        Trouble::LoseReplies => proxy::Fault::LoseReplies(3),
        Trouble::BlackHole => proxy::Fault::BlackHole,
    }
}
