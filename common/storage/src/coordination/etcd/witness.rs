//! Noticing that etcd is not the one it was: another cluster, or the same one set back.
//!
//! Every answer carries the id of its cluster and the revision it was read at. Revisions only grow, so a linearizable
//! answer below one that was *known before the question was sent* means that data was lost: a wiped or restored
//! member. (An etcd wiped and started again with the same flags has the same cluster id: only the revision tells.) A
//! watch started against the old revision would wait silently for ever, so every watch is told to start over; what the
//! change means for the database is judged by whoever loads next.

use parking_lot::Mutex;
use tokio::sync::watch;

/// What the answers so far have shown.
#[derive(Debug)]
pub(super) struct Witness {
    seen: Mutex<Seen>,
    /// Counts the changes; the text says what the last one was.
    changes: watch::Sender<(u64, String)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    cluster: Option<u64>,
    highest: i64,
}

/// What was known before a question was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    cluster: Option<u64>,
    floor: i64,
}

impl Witness {
    pub(super) fn new() -> Self {
        Self { seen: Mutex::default(), changes: watch::Sender::new((0, String::new())) }
    }

    /// To be called before a question is sent.
    pub(super) fn before(&self) -> Before {
        let seen = self.seen.lock();
        Before { cluster: seen.cluster, floor: seen.highest }
    }

    /// Judges a linearizable answer against what was known before its question; tells every watch where it shows
    /// another cluster or an older state. Returns what changed.
    pub(super) fn judge(&self, before: Before, cluster: u64, revision: i64) -> Option<String> {
        let changed = change(before, cluster, revision);
        let mut seen = self.seen.lock();
        match &changed {
            None => {
                seen.cluster = Some(cluster);
                seen.highest = seen.highest.max(revision);
            }
            // An answer that another caller has judged before is not news.
            Some(_) if seen.cluster != before.cluster || seen.highest < before.floor => return None,
            Some(why) => {
                *seen = Seen { cluster: Some(cluster), highest: revision };
                let why = why.clone();
                self.changes.send_modify(|c| *c = (c.0 + 1, why));
            }
        }
        changed
    }

    /// Whether an answer that need not be linearizable (a watch's) is consistent with what is known.
    pub(super) fn is_plausible(&self, cluster: u64, revision: i64) -> bool {
        let seen = self.seen.lock();
        seen.cluster.is_none_or(|c| c == cluster) && revision >= seen.highest
    }

    /// The highest revision seen.
    pub(super) fn highest(&self) -> i64 {
        self.seen.lock().highest
    }

    /// Changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<(u64, String)> {
        self.changes.subscribe()
    }
}

fn change(before: Before, cluster: u64, revision: i64) -> Option<String> {
    match before.cluster {
        Some(known) if known != cluster => Some(format!(
            "etcd's cluster id has changed from {known:x} to {cluster:x}: this is another cluster"
        )),
        _ if revision < before.floor => Some(format!(
            "etcd's revision has gone back from {} to {revision}: it was wiped or restored",
            before.floor
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_revision_counts_only_against_what_was_known_before_the_question() {
        let witness = Witness::new();
        let early = witness.before();
        assert_eq!(witness.judge(witness.before(), 1, 100), None);
        assert_eq!(witness.judge(early, 1, 99), None, "a question sent earlier may be answered later");
        assert_eq!(witness.highest(), 100);
        let changes = witness.changes();
        assert!(witness.judge(witness.before(), 1, 5).unwrap().contains("wiped or restored"));
        assert!(changes.has_changed().unwrap());
        assert_eq!(
            witness.judge(witness.before(), 1, 6),
            None,
            "reported once, then the new state is the base"
        );
    }

    #[test]
    fn another_cluster_is_reported_once_among_concurrent_callers() {
        let witness = Witness::new();
        witness.judge(witness.before(), 1, 100);
        let (one, two) = (witness.before(), witness.before());
        assert!(witness.judge(one, 2, 200).unwrap().contains("another cluster"));
        assert_eq!(witness.judge(two, 2, 200), None);
        assert!(
            !witness.is_plausible(1, 300) && witness.is_plausible(2, 200) && !witness.is_plausible(2, 199)
        );
    }
}
