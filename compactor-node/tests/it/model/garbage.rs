//! The model of retirement: a writer and a merger that name and retire objects, two folders, a collector, and a reader
//! that pins. The grace is zero, since it only spares readers without a pin, who may find that their view has expired.
//!
//! Merges in parts are a form of their own, from a database that has one table: a part is uploaded, staged, perhaps by a
//! commit whose answer is lost, and installed or abandoned. A part may also keep the table as it is.
//!
//! Wrong is: the head, a staged part, a pinned view, or either of the newest two sound checkpoints names an object that is gone; the
//! head's checkpoint is gone or unsound; the edits between it and the head are gone.

use super::{Model, Objects, has, judge, lowest, search, with, without};

/// A rule that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The floor stops at pins.
    FloorHeedsPins,
    /// A pin is refused below the floor.
    PinHeedsFloor,
    /// The floor is raised before anything is deleted.
    FloorBeforeDeletes,
    /// Two checkpoints cover what is deleted, not one.
    TwoCover,
    /// A checkpoint is read before it counts.
    OnlySoundCover,
    /// A checkpoint above the head's is not surplus: it may be the head's next.
    AboveTheHeadsStays,
    /// A fold never moves the start back.
    FoldNeverBack,
    /// A checkpoint is read back before the head names it.
    FoldOnlyVerified,
    /// Bucket form: the pin is put before the floors are looked at.
    PinBeforeLook,
    /// Bucket form: the floor is put before the pins are looked at.
    FloorBeforeLook,
    /// A merge that is abandoned retires what it has staged, but no table of an input that a part kept.
    KeptStaysLive,
    /// A worker takes its part back only where it is certain that no commit names it.
    TakeBackOnlyRefused,
    /// A staged part is named like any other table: what it replaces is not retired before the whole is installed.
    InputsUntilInstalled,
}

use Rule::{
    AboveTheHeadsStays, FloorBeforeDeletes, FloorBeforeLook, FloorHeedsPins, FoldNeverBack, FoldOnlyVerified,
    InputsUntilInstalled, KeptStaysLive, OnlySoundCover, PinBeforeLook, PinHeedsFloor, TakeBackOnlyRefused,
    TwoCover,
};

/// Enough for something to be named, and retired. (With one more of each the search takes minutes and finds the same.)
const MOST_VERSIONS: u8 = 3;
const CHECKPOINTS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Checkpoint {
    version: u8,
    live: Objects,
    sound: bool,
    there: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Folder {
    Idle,
    /// Has written this checkpoint, and will fold.
    Wrote(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    Away,
    /// Sees a view of that version.
    Views(u8, Objects),
    /// In the two-step form: has put its pin and not looked at the floor yet (or, with that rule taken out, the other
    /// way round).
    Between(u8, Objects),
    /// Believes that its view is pinned.
    Pinned(u8, Objects),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Collector {
    Idle,
    /// What may go as far as checkpoints tell; surplus checkpoints.
    Judged(Objects, u8),
    /// In the two-step form: between its two halves, with what the first half brought.
    Between(Objects, u8, u8),
    Deletes(Objects, u8),
}

/// A worker at a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    /// Has uploaded this object, and will stage it.
    Made(u8),
    /// Has staged it, and does not know.
    Doubts(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    bucket: Objects,
    /// What the parts of a merge have staged: named, and not read.
    staged: Objects,
    worker: Worker,
    next: u8,
    version: u8,
    live: Objects,
    /// The version that retired each object; 0: none.
    retired: [u8; 4],
    checkpoints: [Checkpoint; CHECKPOINTS],
    written: u8,
    /// The head's.
    named: u8,
    /// Edits up to here are gone.
    folded: u8,
    folders: [Folder; 2],
    reader: Reader,
    /// The pin as the service has it.
    pin: Option<u8>,
    floor: u8,
    collector: Collector,
}

struct Garbage {
    without: Option<Rule>,
    /// Pins and floors meet by two steps each (bucket form) and not in one transaction.
    two_steps: bool,
    /// Merges in parts, and neither appends nor a second folder.
    in_parts: bool,
}

impl Garbage {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The head's checkpoint and the newest other one up to it.
    fn covering(&self, s: &State) -> Vec<Checkpoint> {
        let counts = |c: &Checkpoint| c.there && (c.sound || !self.keeps(OnlySoundCover));
        let named = s.checkpoints[s.named as usize];
        let others = (0..s.written as usize).filter(|i| *i != s.named as usize).map(|i| s.checkpoints[i]);
        let other = others.filter(|c| counts(c) && c.version <= named.version).max_by_key(|c| c.version);
        if self.keeps(TwoCover) { [Some(named), other].into_iter().flatten().collect() } else { vec![named] }
    }

    fn surplus(&self, s: &State) -> u8 {
        let head = s.checkpoints[s.named as usize].version;
        let mut others: Vec<usize> = (0..s.written as usize)
            .filter(|i| *i != s.named as usize && s.checkpoints[*i].there)
            .filter(|i| !self.keeps(AboveTheHeadsStays) || s.checkpoints[*i].version <= head)
            .collect();
        others.sort_by_key(|i| std::cmp::Reverse((s.checkpoints[*i].sound, s.checkpoints[*i].version)));
        let old = |i: &&usize| !self.keeps(AboveTheHeadsStays) || s.checkpoints[**i].version < head;
        others.iter().skip(1).filter(old).fold(0, |set, i| set | 1 << i)
    }

    fn judged(&self, s: &State) -> Objects {
        let covering = self.covering(s);
        if covering.len() < if self.keeps(TwoCover) { 2 } else { 1 } {
            return 0;
        }
        let free = |o: &u8| {
            let v = s.retired[*o as usize];
            v > 0 && has(s.bucket, *o) && covering.iter().all(|c| c.version >= v)
        };
        (0..s.next).filter(free).fold(0, with)
    }

    fn upto(s: &State, set: Objects) -> u8 {
        (0..s.next).filter(|o| has(set, *o)).map(|o| s.retired[o as usize]).max().unwrap_or(0)
    }

    fn below(s: &State, set: Objects, floor: u8) -> Objects {
        (0..s.next).filter(|o| has(set, *o) && s.retired[*o as usize] <= floor).fold(0, with)
    }

    fn writers(&self, s: &State, out: &mut Vec<(&'static str, State)>) {
        if self.in_parts {
            return self.parts(s, out);
        }
        if s.version >= MOST_VERSIONS || s.next >= 4 {
            return;
        }
        let new = s.next;
        let mut next = State { next: new + 1, version: s.version + 1, bucket: with(s.bucket, new), ..*s };
        next.live = with(s.live, new);
        out.push(("append", next));
        if s.live != 0 {
            next.live = with(0, new);
            for o in (0..new).filter(|o| has(s.live, *o)) {
                next.retired[o as usize] = s.version + 1;
            }
            out.push(("merge", next));
        }
    }

    /// The step that abandons the merge in parts, or that installs it with its last part, which is empty.
    fn parts(&self, s: &State, out: &mut Vec<(&'static str, State)>) {
        match s.worker {
            Worker::Idle if s.next < 4 => {
                let made = State { next: s.next + 1, bucket: with(s.bucket, s.next), ..*s };
                out.push(("upload a part", State { worker: Worker::Made(s.next), ..made }));
            }
            Worker::Made(o) if s.version < MOST_VERSIONS => {
                let staged = self.staged(s, o);
                out.push(("stage it", State { worker: Worker::Idle, ..staged }));
                out.push(("stage it and lose the answer", State { worker: Worker::Doubts(o), ..staged }));
                let back = State { worker: Worker::Idle, bucket: without(s.bucket, o), ..*s };
                out.push(("be refused and take it back", back));
            }
            Worker::Doubts(o) if !self.keeps(TakeBackOnlyRefused) => {
                let back = State { worker: Worker::Idle, bucket: without(s.bucket, o), ..*s };
                out.push(("take it back in doubt", back));
            }
            _ => {}
        }
        if s.version >= MOST_VERSIONS {
            return;
        }
        if s.staged == 0 {
            if let Some(input) = lowest(s.live) {
                out.push(("keep a table", self.staged(s, input)));
            }
            return;
        }
        let version = s.version + 1;
        let ended = State { version, staged: 0, ..*s };
        out.push(("install", State { live: s.staged, ..Self::retired(ended, s.live & !s.staged) }));
        let dead = if self.keeps(KeptStaysLive) { s.staged & !s.live } else { s.staged };
        out.push(("abandon", Self::retired(ended, dead)));
    }

    /// The object is a part now.
    fn staged(&self, s: &State, o: u8) -> State {
        let next = State { version: s.version + 1, staged: with(s.staged, o), ..*s };
        let replaced = if self.keeps(InputsUntilInstalled) { 0 } else { s.live & !next.staged };
        Self::retired(next, replaced)
    }

    /// `s` with `dead` on the retired list, since its version.
    fn retired(mut s: State, dead: Objects) -> State {
        for o in (0..s.next).filter(|o| has(dead, *o)) {
            let since = &mut s.retired[o as usize];
            *since = if *since == 0 { s.version } else { *since };
        }
        s
    }

    fn folders(&self, s: &State, out: &mut Vec<(&'static str, State)>) {
        let folders = if self.in_parts { 1 } else { s.folders.len() };
        for (i, folder) in s.folders.iter().enumerate().take(folders) {
            match *folder {
                Folder::Idle if (s.written as usize) < CHECKPOINTS => {
                    let mut next = State { written: s.written + 1, ..*s };
                    let at = s.written as usize;
                    next.checkpoints[at] =
                        Checkpoint { version: s.version, live: s.live | s.staged, sound: true, there: true };
                    next.folders[i] = Folder::Wrote(s.written);
                    out.push(("write a checkpoint", next));
                    next.checkpoints[at].sound = false;
                    if !self.keeps(FoldOnlyVerified) {
                        out.push(("write a torn checkpoint and go on", next));
                    }
                    next.folders[i] = Folder::Idle;
                    out.push(("write a torn checkpoint", next));
                }
                Folder::Idle => {}
                // One that dies here is one that is never heard of again.
                Folder::Wrote(c) => {
                    let mut next = *s;
                    next.folders[i] = Folder::Idle;
                    let (new, old) = (s.checkpoints[c as usize], s.checkpoints[s.named as usize]);
                    if new.version >= old.version || !self.keeps(FoldNeverBack) {
                        next.named = c;
                        next.folded = s.folded.max(new.version);
                        out.push(("fold", next));
                    }
                }
            }
        }
    }

    fn reader(&self, s: &State, out: &mut Vec<(&'static str, State)>) {
        match s.reader {
            Reader::Done => {}
            Reader::Away => out.push(("load", State { reader: Reader::Views(s.version, s.live), ..*s })),
            Reader::Views(v, live) => {
                let pinned = State { reader: Reader::Pinned(v, live), pin: Some(v), ..*s };
                let between = State { reader: Reader::Between(v, live), ..*s };
                if !self.two_steps {
                    if s.floor <= v || !self.keeps(PinHeedsFloor) {
                        out.push(("pin", pinned));
                    }
                } else if self.keeps(PinBeforeLook) {
                    out.push(("put a pin", State { pin: Some(v), ..between }));
                } else if s.floor <= v {
                    out.push(("look at the floor", between));
                }
            }
            Reader::Between(v, live) => {
                let pinned = State { reader: Reader::Pinned(v, live), ..*s };
                if !self.keeps(PinBeforeLook) {
                    out.push(("put a pin", State { pin: Some(v), ..pinned }));
                } else if s.floor <= v || !self.keeps(PinHeedsFloor) {
                    out.push(("look at the floor", pinned));
                } else {
                    out.push(("be refused", State { reader: Reader::Done, pin: None, ..*s }));
                }
            }
            Reader::Pinned(..) => {
                out.push(("give the pin back", State { reader: Reader::Done, pin: None, ..*s }));
            }
        }
    }

    fn collector(&self, s: &State, out: &mut Vec<(&'static str, State)>) {
        let pins = if self.keeps(FloorHeedsPins) { s.pin } else { None };
        match s.collector {
            Collector::Idle => {
                let (set, surplus) = (self.judged(s), self.surplus(s));
                if set != 0 || surplus != 0 {
                    out.push(("judge", State { collector: Collector::Judged(set, surplus), ..*s }));
                }
            }
            Collector::Judged(set, surplus) if !self.keeps(FloorBeforeDeletes) => {
                // Looks at the pins, deletes, and raises the floor afterwards.
                let may = pins.map_or(set, |pin| Self::below(s, set, pin));
                out.push(("look at pins", State { collector: Collector::Deletes(may, surplus), ..*s }));
            }
            Collector::Judged(set, surplus) => {
                let wanted = Self::upto(s, set);
                let most = pins.map_or(wanted, |pin| pin.min(wanted));
                let floor = s.floor.max(most);
                if !self.two_steps {
                    let may = Self::below(s, set, floor);
                    let collector = Collector::Deletes(may, surplus);
                    out.push(("raise the floor", State { floor, collector, ..*s }));
                } else if self.keeps(FloorBeforeLook) {
                    let collector = Collector::Between(set, surplus, floor);
                    out.push(("put the floor", State { floor, collector, ..*s }));
                } else {
                    let collector = Collector::Between(set, surplus, floor);
                    out.push(("look at pins", State { collector, ..*s }));
                }
            }
            Collector::Between(set, surplus, floor) => {
                let most =
                    if self.keeps(FloorBeforeLook) { pins.map_or(floor, |p| p.min(floor)) } else { floor };
                let collector = Collector::Deletes(Self::below(s, set, most), surplus);
                let floor = s.floor.max(floor);
                out.push(("go on to delete", State { floor, collector, ..*s }));
            }
            Collector::Deletes(set, surplus) => {
                if let Some(o) = lowest(set) {
                    let collector = Collector::Deletes(without(set, o), surplus);
                    out.push(("delete", State { bucket: without(s.bucket, o), collector, ..*s }));
                } else {
                    let mut next = State { collector: Collector::Idle, ..*s };
                    for i in (0..CHECKPOINTS).filter(|i| surplus & (1 << i) != 0) {
                        next.checkpoints[i].there = false;
                    }
                    if !self.keeps(FloorBeforeDeletes) {
                        next.floor = s.version;
                    }
                    out.push(("delete checkpoints", next));
                }
            }
        }
    }
}

impl Model for Garbage {
    type State = State;

    fn start(&self) -> State {
        // Merges in parts have something to merge: one table.
        let live = if self.in_parts { with(0, 0) } else { 0 };
        let genesis = Checkpoint { version: 1, live, sound: true, there: true };
        let none = Checkpoint { version: 0, live: 0, sound: false, there: false };
        State {
            bucket: live,
            staged: 0,
            worker: Worker::Idle,
            next: u8::from(self.in_parts),
            version: 1,
            live,
            retired: [0; 4],
            checkpoints: [genesis, none, none, none],
            written: 1,
            named: 0,
            folded: 1,
            folders: [Folder::Idle; 2],
            reader: Reader::Away,
            pin: None,
            floor: 0,
            collector: Collector::Idle,
        }
    }

    fn steps(&self, s: &State) -> Vec<(&'static str, State)> {
        let mut out = Vec::new();
        self.writers(s, &mut out);
        self.folders(s, &mut out);
        self.reader(s, &mut out);
        self.collector(s, &mut out);
        out
    }

    fn wrong(&self, s: &State) -> Option<&'static str> {
        let gone = |named: Objects| named & !s.bucket != 0;
        if gone(s.live) {
            return Some("the head names an object that is gone");
        }
        if gone(s.staged) {
            return Some("a staged part is gone");
        }
        let head = s.checkpoints[s.named as usize];
        if !head.there || !head.sound {
            return Some("the head's checkpoint cannot be read");
        }
        if head.version < s.folded {
            return Some("edits after the head's checkpoint are gone");
        }
        if matches!(s.reader, Reader::Pinned(_, live) if gone(live)) {
            return Some("a pinned view has a hole");
        }
        let mut sound: Vec<&Checkpoint> = s.checkpoints.iter().filter(|c| c.there && c.sound).collect();
        sound.sort_by_key(|c| std::cmp::Reverse(c.version));
        sound.iter().take(2).any(|c| gone(c.live)).then_some("a checkpoint to recover from has a hole")
    }
}

#[test]
fn pins_and_checkpoints_hold_with_every_rule_and_break_without_any_one() {
    let common = [
        FloorHeedsPins,
        PinHeedsFloor,
        FloorBeforeDeletes,
        TwoCover,
        OnlySoundCover,
        AboveTheHeadsStays,
        FoldNeverBack,
        FoldOnlyVerified,
    ];
    judge(|without| Garbage { without, two_steps: false, in_parts: false }, &common, 5_000);
}

#[test]
fn pins_of_two_steps_hold_and_break_in_any_other_order() {
    let rules = [FloorHeedsPins, PinHeedsFloor, PinBeforeLook, FloorBeforeLook];
    judge(|without| Garbage { without, two_steps: true, in_parts: false }, &rules, 5_000);
}

#[test]
fn merges_in_parts_lose_nothing_and_break_without_any_one_rule() {
    let rules = [KeptStaysLive, TakeBackOnlyRefused, InputsUntilInstalled, FloorHeedsPins, TwoCover];
    judge(|without| Garbage { without, two_steps: false, in_parts: true }, &rules, 5_000);
}

/// The model can do what it is about: something is deleted, and a pin stands in the way of it.
#[test]
fn the_model_deletes() {
    struct Deletes(Garbage);
    impl Model for Deletes {
        type State = State;
        fn start(&self) -> State {
            self.0.start()
        }
        fn steps(&self, s: &State) -> Vec<(&'static str, State)> {
            self.0.steps(s)
        }
        fn wrong(&self, s: &State) -> Option<&'static str> {
            let deleted = s.bucket.count_ones() < u32::from(s.next);
            (deleted && matches!(s.reader, Reader::Pinned(..))).then_some("deleted under a pin")
        }
    }
    let found = search(&Deletes(Garbage { without: None, two_steps: true, in_parts: false }));
    assert!(found.broken.is_some(), "{} states", found.states);
}
