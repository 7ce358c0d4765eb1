//! Rules broken on purpose: the proof that the simulation's checkers bite.
//!
//! Without the feature `sabotage`, which only the simulation enables, [`broken`] is the constant `false` and every
//! question asked of it disappears. With it, a rule is broken on one thread, for one schedule, by whoever says so.

/// A rule of the protocol that a test breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A writer's commit compares lease and epoch, not only the head.
    FenceAtCommit,
    /// An acknowledgement leaves after the commit.
    AcknowledgeAfterCommit,
    /// Garbage waits for its grace, its checkpoints and its pins.
    GarbageWaits,
    /// A writer reads the head after its claim.
    ReadAfterClaim,
    /// An epoch object records the cut.
    RecordTheCut,
    /// The memtable is rebuilt after a re-claim.
    RebuildMemtable,
    /// A flush ends at or below what is committed.
    FlushAfterCommit,
    /// An unchanged head proves nothing.
    UnchangedHeadProvesNothing,
    /// A missing head is refused, not made.
    MissingHeadIsRefused,
    /// A merged run takes the place of its inputs.
    MergeInPlace,
    /// A merge keeps what snapshots see.
    MergeForSnapshots,
    /// Values that move are durable before a row that points at them is named.
    ValuesBeforePointers,
    /// A page of the tail is delivered once.
    DeliverOnce,
}

/// Whether the rule is broken here and now.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn broken(_: Rule) -> bool {
    false
}

#[cfg(feature = "sabotage")]
mod on {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::Rule;
    use crate::coordination::Loaded;
    use crate::ids::Incarnation;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
        static READ_TOO_EARLY: RefCell<BTreeMap<Incarnation, Loaded>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Whether the rule is broken here and now.
    #[must_use]
    pub fn broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }

    /// Breaks `rule` on this thread until what is returned is dropped.
    #[must_use]
    pub fn sabotage(rule: Rule) -> Sabotaged {
        BROKEN.set(Some(rule));
        Sabotaged(())
    }

    /// A rule is broken while this lives.
    #[derive(Debug)]
    pub struct Sabotaged(());

    impl Drop for Sabotaged {
        fn drop(&mut self) {
            BROKEN.set(None);
            READ_TOO_EARLY.take();
        }
    }

    /// What a claimer read before its claim.
    pub fn read_too_early(incarnation: Incarnation, loaded: Loaded) {
        READ_TOO_EARLY.with_borrow_mut(|all| all.insert(incarnation, loaded));
    }

    /// That, with the head to compare read after it.
    #[must_use]
    pub fn body_of_then(incarnation: Incarnation, now: Loaded) -> Loaded {
        match READ_TOO_EARLY.with_borrow_mut(|all| all.remove(&incarnation)) {
            Some(mut then) => {
                then.state.raw = now.state.raw;
                then
            }
            None => now,
        }
    }
}

#[cfg(feature = "sabotage")]
pub use on::{Sabotaged, body_of_then, broken, read_too_early, sabotage};
