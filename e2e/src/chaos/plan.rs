//! What is done when: a pure function of a seed, a length and the cluster's tuning.
//!
//! Faults come in rounds. In most rounds there is one; in the others two or three overlap. They are dealt from a
//! shuffled deck, so that every kind has its turn before one comes again, and a new deck begins when it is dealt out.
//! Between rounds there is a pause in which the cluster may recover, and the last rounds end before the time is over.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::cluster::Tuning;
use super::rng::Rng;

/// A plan from this length on has time for long faults.
const LONG: Duration = Duration::from_secs(600);

/// How long a long pause is.
const A_MINUTE: Duration = Duration::from_secs(60);

/// Whom a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The writer that leads when it is done.
    Leader,
    /// The other one.
    Standby,
    /// One of the readers.
    Reader(usize),
    /// One of the tailers.
    Tailer(usize),
    /// The compactor.
    Compactor,
}

/// What a program is cut off from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// All of etcd.
    Etcd,
    /// The bucket.
    Bucket,
    /// Both, not its clients.
    Both,
    /// Everybody (without namespaces: the same as both).
    World,
}

/// What is wrong with a connection or the server behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// Requests are answered 503 (the bucket only).
    Refuse,
    /// Everything takes longer.
    Slow,
    /// A trickle passes.
    Throttle,
    /// Connections are reset, again and again.
    Reset,
    /// Some answers are lost after the request was served.
    LoseReplies,
    /// Bytes vanish; connections are broken afterwards.
    BlackHole,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL; started again at the end.
    Kill(Who),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(Who),
    /// The leader, SIGSTOP for a minute (in long plans only).
    PauseLong,
    /// SIGTERM, which must end it in time; started again at the end.
    Stop(Who),
    /// Packets do not arrive; at the end they do.
    Partition(Who, Side),
    /// The bucket, as one program sees it (all of them with `None`).
    Bucket(Option<Who>, Trouble),
    /// etcd, as one program sees it.
    Etcd(Who, Trouble),
    /// etcd's leader is killed, and started again at the end.
    EtcdKillLeader,
    /// etcd's leader is frozen.
    EtcdPauseLeader,
    /// etcd's leader is cut off from everybody (frozen where there are no namespaces).
    EtcdCutLeader,
    /// Every member is killed at once, and started again at the end.
    EtcdKillAll,
    /// etcd's history is compacted away and its files are defragmented, at the beginning and at the end.
    EtcdCompact,
}

impl Fault {
    /// What two faults at once must not share.
    fn resource(&self) -> &'static str {
        match self {
            Self::PauseLong => "a writer's process",
            Self::Kill(who) | Self::Pause(who) | Self::Stop(who) => match who {
                Who::Leader | Who::Standby => "a writer's process",
                Who::Reader(0) => "reader 0's process",
                Who::Reader(_) => "reader 1's process",
                Who::Tailer(0) => "tailer 0's process",
                Who::Tailer(_) => "tailer 1's process",
                Who::Compactor => "the compactor's process",
            },
            Self::Partition(..) | Self::Bucket(..) | Self::Etcd(..) => "the network",
            Self::EtcdCompact => "etcd's history",
            _ => "etcd's members",
        }
    }

    /// The kind that it is counted as.
    #[must_use]
    pub fn kind(&self) -> String {
        let who = |who: &Who| match who {
            Who::Leader => "writer",
            Who::Standby => "standby",
            Who::Reader(_) => "reader",
            Who::Tailer(_) => "tailer",
            Who::Compactor => "compactor",
        };
        match self {
            Self::Kill(w) => format!("kill {}", who(w)),
            Self::Pause(w) => format!("pause {}", who(w)),
            Self::PauseLong => "pause writer for a minute".to_owned(),
            Self::Stop(w) => format!("stop {}", who(w)),
            Self::Partition(w, side) => format!("partition {} from {side}", who(w)),
            Self::Bucket(None, trouble) => format!("bucket {trouble} for all"),
            Self::Bucket(Some(w), trouble) => format!("bucket {trouble} for {}", who(w)),
            Self::Etcd(w, trouble) => format!("etcd {trouble} for {}", who(w)),
            Self::EtcdKillLeader => "etcd leader killed".to_owned(),
            Self::EtcdPauseLeader => "etcd leader paused".to_owned(),
            Self::EtcdCutLeader => "etcd leader cut off".to_owned(),
            Self::EtcdKillAll => "etcd killed whole".to_owned(),
            Self::EtcdCompact => "etcd compacted and defragmented".to_owned(),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Bucket => "bucket",
            Self::Both => "etcd and bucket",
            Self::World => "everybody",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "answers 503",
            Self::Slow => "slow",
            Self::Throttle => "throttled",
            Self::Reset => "resets",
            Self::LoseReplies => "loses replies",
            Self::BlackHole => "swallows",
        })
    }
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Since the beginning.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

impl Planned {
    /// When it ends, since the beginning.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

/// Everything that will be done, by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, length: Duration, tuning: &Tuning) -> Self {
        let mut rng = Rng::new(seed);
        let (mut faults, mut deck) = (Vec::new(), Deck::new(length >= LONG));
        let mut now = Duration::from_secs(2);
        loop {
            let count = if rng.percent(60) { 1 } else { 2 + rng.below(2) };
            let round = round(&mut rng, &mut deck, count, now, tuning);
            let end = round.iter().map(Planned::end).max().unwrap_or(now);
            if end > length {
                break;
            }
            now = end + Duration::from_millis(rng.within(1_500..5_000));
            faults.extend(round);
        }
        faults.sort_by_key(|p| p.at);
        Self { seed, faults }
    }
}

/// What is still to be dealt.
struct Deck {
    cards: Vec<Fault>,
    /// Whether there is time for long faults.
    long: bool,
}

impl Deck {
    fn new(long: bool) -> Self {
        Self { cards: Vec::new(), long }
    }

    /// The next card that shares nothing with those already played in this round.
    fn deal(&mut self, rng: &mut Rng, taken: &BTreeSet<&str>) -> Option<Fault> {
        if self.cards.is_empty() {
            self.cards = all_kinds(rng);
            if self.long {
                self.cards.push(Fault::PauseLong);
            }
            rng.shuffle(&mut self.cards);
        }
        let at = self.cards.iter().rposition(|fault| !taken.contains(fault.resource()))?;
        Some(self.cards.remove(at))
    }
}

fn round(rng: &mut Rng, deck: &mut Deck, count: usize, now: Duration, tuning: &Tuning) -> Vec<Planned> {
    let mut round: Vec<Planned> = Vec::new();
    let mut taken = BTreeSet::new();
    while round.len() < count {
        // Where every card left shares something, the round is smaller.
        let Some(fault) = deck.deal(rng, &taken) else { break };
        taken.insert(fault.resource());
        let later = Duration::from_millis(if round.is_empty() { 0 } else { rng.within(0..3_000) });
        round.push(Planned { at: now + later, lasts: lasts(rng, fault, tuning), fault });
    }
    round
}

/// How long a fault lasts: a pause outlives what it is to outlive, the rest is over in seconds.
fn lasts(rng: &mut Rng, fault: Fault, tuning: &Tuning) -> Duration {
    let extra = Duration::from_millis(rng.within(500..3_000));
    match fault {
        Fault::PauseLong => A_MINUTE,
        Fault::Pause(Who::Leader) if rng.percent(70) => tuning.beyond_lease() + extra,
        Fault::Pause(Who::Reader(_) | Who::Tailer(_) | Who::Compactor) if rng.percent(70) => {
            tuning.beyond_garbage() + extra
        }
        Fault::Partition(Who::Leader, Side::Etcd | Side::Both | Side::World) => tuning.beyond_lease() + extra,
        Fault::Partition(Who::Compactor, _) if rng.percent(50) => 3 * tuning.beyond_lease() + extra,
        Fault::Partition(..) => 2 * extra + Duration::from_secs(1),
        _ => extra + Duration::from_secs(1),
    }
}

/// One fault of every kind.
fn all_kinds(rng: &mut Rng) -> Vec<Fault> {
    use Trouble::{BlackHole, LoseReplies, Refuse, Reset, Slow, Throttle};
    let everybody = |rng: &mut Rng| {
        [Who::Leader, Who::Standby, Who::Reader(rng.below(2)), Who::Tailer(rng.below(2)), Who::Compactor]
    };
    let mut deck = vec![
        Fault::EtcdKillLeader,
        Fault::EtcdPauseLeader,
        Fault::EtcdCutLeader,
        Fault::EtcdKillAll,
        Fault::EtcdCompact,
        // Twice as often: these are what the protocol is about.
        Fault::Kill(Who::Leader),
        Fault::Pause(Who::Leader),
        Fault::Stop(Who::Leader),
    ];
    deck.extend(everybody(rng).map(Fault::Kill));
    deck.extend(everybody(rng).map(Fault::Pause));
    deck.extend(everybody(rng).map(Fault::Stop));
    for side in [Side::Etcd, Side::Bucket, Side::Both, Side::World] {
        deck.push(Fault::Partition(Who::Leader, side));
        let others = everybody(rng);
        let other = *rng.pick(&others[1..]);
        deck.push(Fault::Partition(other, side));
    }
    for (n, trouble) in [Refuse, Slow, Throttle, Reset, LoseReplies, BlackHole].into_iter().enumerate() {
        deck.push(Fault::Bucket(None, trouble));
        let one = everybody(rng)[n % 5];
        deck.push(Fault::Bucket(Some(one), trouble));
    }
    for trouble in [Slow, Reset, LoseReplies, BlackHole] {
        deck.push(Fault::Etcd(Who::Leader, trouble));
        let others = everybody(rng);
        let other = *rng.pick(&others[1..]);
        deck.push(Fault::Etcd(other, trouble));
    }
    deck
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

    #[test]
    fn a_seed_repeats_its_plan_and_another_has_another() {
        let tuning = Tuning::default();
        let plan = Plan::new(7, HALF_AN_HOUR, &tuning);
        assert_eq!(plan, Plan::new(7, HALF_AN_HOUR, &tuning));
        assert_ne!(plan.faults, Plan::new(8, HALF_AN_HOUR, &tuning).faults);
    }

    #[test]
    fn half_an_hour_holds_every_kind_and_overlaps_and_ends_in_time() {
        let tuning = Tuning::default();
        for seed in 0..20 {
            let plan = Plan::new(seed, HALF_AN_HOUR, &tuning);
            assert!(plan.faults.iter().all(|p| p.end() <= HALF_AN_HOUR));
            let kinds: BTreeSet<_> = plan.faults.iter().map(|p| p.fault.kind()).collect();
            for kind in [
                "kill writer",
                "pause writer for a minute",
                "pause compactor",
                "stop writer",
                "etcd killed whole",
            ] {
                assert!(kinds.contains(kind), "seed {seed} has no {kind}");
            }
            assert!(kinds.len() > 40, "seed {seed} has {} kinds", kinds.len());
            let overlap = |pair: &[Planned]| pair[1].at < pair[0].end();
            assert!(plan.faults.windows(2).filter(|pair| overlap(pair)).count() > 20);
        }
    }

    #[test]
    fn nothing_is_done_twice_at_once_to_the_same_thing() {
        let plan = Plan::new(3, HALF_AN_HOUR, &Tuning::default());
        for (n, one) in plan.faults.iter().enumerate() {
            for other in &plan.faults[n + 1..] {
                let apart = other.at >= one.end() || one.at >= other.end();
                assert!(apart || one.fault.resource() != other.fault.resource(), "{one:?} and {other:?}");
            }
        }
    }
}
