//! The model of orphans: two writers that take over from one another, two processes that do the same job one after the
//! other, and a sweep; each of them slow, or stopped, between any two steps.
//!
//! Wrong is: the head names an object that is gone, be it that it went after it was named, or that somebody who still
//! could named what had gone.

use super::{Model, Objects, has, judge, lowest, search, with, without};

/// A rule that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A writer's commit compares the epoch.
    WriterIsFenced,
    /// A job's commit compares its claim.
    JobIsFenced,
    /// The listing comes before the owners are judged.
    ListBeforeOwners,
    /// The owners are judged before the head is read.
    OwnersBeforeHead,
    /// A claimed job is alive.
    ClaimedIsAlive,
    /// The newest epoch is alive.
    NewestIsAlive,
    /// An epoch is over when a later one is adopted, not when it is claimed.
    AdoptedNotClaimed,
}

use Rule::{
    AdoptedNotClaimed, ClaimedIsAlive, JobIsFenced, ListBeforeOwners, NewestIsAlive, OwnersBeforeHead,
    WriterIsFenced,
};

const OBJECTS: u8 = 3;
const MOST_EPOCHS: u8 = 2;
const MOST_CLAIMS: u8 = 2;

/// Whose an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Nobody,
    Writer(u8),
    Job,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Away,
    /// Has claimed this epoch.
    Claimed(u8),
    /// Has read the head and the uncommitted tail.
    Read(u8, Objects),
    /// Accepts work.
    Active(u8),
    /// Has uploaded a segment.
    Uploaded(u8, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Job {
    Away,
    Claimed(u8),
    Uploaded(u8, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sweep {
    Idle,
    /// What was listed; whether the job is claimed; what the head names and its epoch: as far as each was read.
    Reads {
        listed: Option<Objects>,
        claimed: Option<bool>,
        head: Option<(Objects, u8)>,
    },
    Deletes(Objects),
    /// One pass is enough: it begins at any time.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    bucket: Objects,
    next: u8,
    owners: [Owner; OBJECTS as usize],
    live: Objects,
    retired: Objects,
    adopted: u8,
    claimed: u8,
    writers: [Writer; 2],
    jobs: [Job; 2],
    /// Who holds the job; 0: nobody.
    holder: u8,
    claims: u8,
    sweep: Sweep,
}

struct Orphans {
    without: Option<Rule>,
}

impl Orphans {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn upload(s: &State, owner: Owner) -> Option<(u8, State)> {
        if s.next == OBJECTS {
            return None;
        }
        let mut next = State { next: s.next + 1, bucket: with(s.bucket, s.next), ..*s };
        next.owners[s.next as usize] = owner;
        Some((s.next, next))
    }

    fn writer(&self, s: &State, i: usize, out: &mut Vec<(&'static str, State)>) {
        let now = |writer| {
            let mut next = *s;
            next.writers[i] = writer;
            next
        };
        match s.writers[i] {
            Writer::Away if s.claimed < MOST_EPOCHS => {
                let e = s.claimed + 1;
                out.push(("claim the role", State { claimed: e, ..now(Writer::Claimed(e)) }));
            }
            Writer::Away => {}
            Writer::Claimed(e) => {
                let is_tail = |o: &u8| {
                    let unnamed = !has(s.live | s.retired, *o);
                    has(s.bucket, *o) && unnamed && s.owners[*o as usize] == Owner::Writer(s.adopted)
                };
                let tail = (0..s.next).filter(is_tail).fold(0, with);
                out.push(("read head and tail", now(Writer::Read(e, tail))));
            }
            Writer::Read(e, tail) => {
                if s.claimed == e {
                    let live = s.live | (tail & !s.retired);
                    out.push(("adopt", State { adopted: e, live, ..now(Writer::Active(e)) }));
                } else {
                    out.push(("find itself fenced", now(Writer::Away)));
                }
            }
            Writer::Active(e) => {
                if let Some((o, mut next)) = Self::upload(s, Owner::Writer(e)) {
                    next.writers[i] = Writer::Uploaded(e, o);
                    out.push(("upload a segment", next));
                }
            }
            Writer::Uploaded(e, o) => {
                if s.claimed == e || !self.keeps(WriterIsFenced) {
                    out.push(("commit a segment", State { live: with(s.live, o), ..now(Writer::Active(e)) }));
                } else {
                    out.push(("find itself fenced", now(Writer::Away)));
                }
            }
        }
    }

    fn job(&self, s: &State, i: usize, out: &mut Vec<(&'static str, State)>) {
        let now = |job| {
            let mut next = *s;
            next.jobs[i] = job;
            next
        };
        match s.jobs[i] {
            Job::Away if s.holder == 0 && s.claims < MOST_CLAIMS => {
                let token = s.claims + 1;
                out.push((
                    "claim the job",
                    State { holder: token, claims: token, ..now(Job::Claimed(token)) },
                ));
            }
            Job::Away => {}
            Job::Claimed(token) => {
                if let Some((o, mut next)) = Self::upload(s, Owner::Job) {
                    next.jobs[i] = Job::Uploaded(token, o);
                    out.push(("upload an output", next));
                }
            }
            Job::Uploaded(token, o) => {
                let gone = now(Job::Away);
                if s.holder == token || !self.keeps(JobIsFenced) {
                    // The output takes the place of everything, and the claim is given back.
                    let holder = if s.holder == token { 0 } else { s.holder };
                    let retired = s.retired | s.live;
                    out.push(("commit a merge", State { live: with(0, o), retired, holder, ..gone }));
                } else {
                    out.push(("find itself fenced", gone));
                }
            }
        }
    }

    fn sweep(&self, s: &State, out: &mut Vec<(&'static str, State)>) {
        let go = |sweep| State { sweep, ..*s };
        match s.sweep {
            Sweep::Idle if s.next > 0 => {
                out.push(("begin a sweep", go(Sweep::Reads { listed: None, claimed: None, head: None })));
            }
            Sweep::Idle | Sweep::Done => {}
            Sweep::Reads { listed, claimed, head } => {
                let may_list = listed.is_none() && (claimed.is_none() || !self.keeps(ListBeforeOwners));
                if may_list && (head.is_none() || !self.keeps(OwnersBeforeHead)) {
                    let listed = Some(s.bucket);
                    out.push(("list", go(Sweep::Reads { listed, claimed, head })));
                }
                if claimed.is_none() && (listed.is_some() || !self.keeps(ListBeforeOwners)) {
                    let claimed = Some(s.holder != 0);
                    out.push(("judge owners", go(Sweep::Reads { listed, claimed, head })));
                }
                if head.is_none() && (claimed.is_some() || !self.keeps(OwnersBeforeHead)) {
                    let epoch = if self.keeps(AdoptedNotClaimed) { s.adopted } else { s.claimed };
                    let head = Some((s.live | s.retired, epoch));
                    out.push(("read the head", go(Sweep::Reads { listed, claimed, head })));
                }
                if let (Some(listed), Some(claimed), Some((named, epoch))) = (listed, claimed, head) {
                    let dead = |o: &u8| match s.owners[*o as usize] {
                        Owner::Writer(e) => e < epoch || (e == epoch && !self.keeps(NewestIsAlive)),
                        Owner::Job => !claimed || !self.keeps(ClaimedIsAlive),
                        Owner::Nobody => false,
                    };
                    let doomed = (0..OBJECTS).filter(|o| has(listed & !named, *o)).filter(dead);
                    out.push(("decide", go(Sweep::Deletes(doomed.fold(0, with)))));
                }
            }
            Sweep::Deletes(doomed) => match lowest(doomed) {
                Some(o) => {
                    let sweep = Sweep::Deletes(without(doomed, o));
                    out.push(("delete", State { bucket: without(s.bucket, o), sweep, ..*s }));
                }
                None => out.push(("end the sweep", go(Sweep::Done))),
            },
        }
    }
}

impl Model for Orphans {
    type State = State;

    fn start(&self) -> State {
        State {
            bucket: 0,
            next: 0,
            owners: [Owner::Nobody; OBJECTS as usize],
            live: 0,
            retired: 0,
            adopted: 0,
            claimed: 0,
            writers: [Writer::Away; 2],
            jobs: [Job::Away; 2],
            holder: 0,
            claims: 0,
            sweep: Sweep::Idle,
        }
    }

    fn steps(&self, s: &State) -> Vec<(&'static str, State)> {
        let mut out = Vec::new();
        for i in 0..2 {
            self.writer(s, i, &mut out);
            self.job(s, i, &mut out);
        }
        if s.holder != 0 {
            out.push(("the job's lease ends", State { holder: 0, ..*s }));
        }
        self.sweep(s, &mut out);
        out
    }

    fn wrong(&self, s: &State) -> Option<&'static str> {
        (s.live & !s.bucket != 0).then_some("the head names an object that is gone")
    }
}

#[test]
fn sweeping_is_safe_with_every_rule_and_unsafe_without_any_one() {
    let rules = [
        WriterIsFenced,
        JobIsFenced,
        ListBeforeOwners,
        OwnersBeforeHead,
        ClaimedIsAlive,
        NewestIsAlive,
        AdoptedNotClaimed,
    ];
    judge(|without| Orphans { without }, &rules, 5_000);
}

/// Once everybody is dead or done, a sweep leaves nothing behind but what the newest epoch may still have left.
#[test]
fn the_sweep_is_complete() {
    struct Left(Orphans);
    impl Model for Left {
        type State = State;
        fn start(&self) -> State {
            self.0.start()
        }
        fn steps(&self, s: &State) -> Vec<(&'static str, State)> {
            self.0.steps(s)
        }
        fn wrong(&self, s: &State) -> Option<&'static str> {
            // Nobody has stepped since the sweep began, or its decision would not be up to date.
            let Sweep::Reads { listed: Some(listed), claimed: Some(false), head: Some((named, epoch)) } =
                s.sweep
            else {
                return None;
            };
            let unnamed = |o: &u8| has(listed & !named, *o);
            let stays = (0..OBJECTS).filter(unnamed).any(|o| match s.owners[o as usize] {
                Owner::Writer(e) => e < epoch,
                _ => true,
            });
            let steps = self.0.steps(s);
            let decided = steps.iter().find(|(step, _)| *step == "decide").map(|(_, next)| next.sweep);
            (stays && decided == Some(Sweep::Deletes(0))).then_some("an orphan is passed over")
        }
    }
    let found = search(&Left(Orphans { without: None }));
    assert!(found.broken.is_none(), "{:?}", found.broken);
}
