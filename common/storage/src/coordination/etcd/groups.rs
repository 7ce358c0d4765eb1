//! Consumer groups: a key each beside the head (PROTOCOL section 13).
//!
//! ```text
//! change:   IF value(epoch) begins with <lineage>: AND value(consumers/<group>), mod_revision = as read (or absent)
//!           THEN put or delete consumers/<group>
//! create, rewind, another lag: besides
//!           IF value(consumers_mark) = as read      THEN put consumers_mark <random>
//! ```
//! The mark is what the retention of the log compares ([`super::txn`]). It is compared by those who change it too, so that
//! the number of groups that a creation has counted is still right when it is stored. It is random and not a revision:
//! revisions repeat in an etcd that was restored. The group's own revision is compared beside its value, or a copy of a
//! rewind that arrives late would find the value of then again, and rewind a second time.
//!
//! Where an answer is lost the group is read again and the change decided anew: an advance finds itself done, or does
//! it again.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};
use tokio::time::sleep;

use super::EtcdCoordination;
use super::claim::to_json;
use super::client::{Answer, get, get_prefix};
use super::error::CallError;
use super::keys::{EpochValue, Keys};
use super::txn::absent;
use crate::coordination::CoordinationError;
use crate::coordination::backoff::Backoff;
use crate::coordination::groups::{Decision, GroupChange, GroupOutcome, Groups};
use crate::ids::{CommitId, Lineage, SeqNo};
use crate::manifest::GroupCursor;

/// How often a change is tried against others before the caller is told that it may try again.
const TRIES: usize = 16;

/// Pauses between such attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

impl EtcdCoordination {
    pub(super) async fn read_groups(&self) -> Result<Groups, CoordinationError> {
        let reads = vec![get_prefix(self.keys.groups()), get(self.keys.groups_mark())];
        let answer = self.kv.read(reads).await?;
        Ok(Groups { cursors: cursors(&self.keys, &answer.reads[0])?, mark: mark_of(answer.value(1)) })
    }

    pub(super) async fn change_one_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let (mut again, mut last) = (false, "others change it at the same time".to_owned());
        for _ in 0..TRIES {
            let found = Found::of(&self.read_group(group).await?)?;
            if found.epoch.lineage != lineage {
                return Ok(GroupOutcome::OtherLineage(found.epoch.lineage));
            }
            let cursor = found.cursor(change)?;
            let (txn, outcome) = match change.decide(cursor.as_ref(), found.count, again) {
                Decision::Nothing(outcome) => return Ok(outcome),
                Decision::Remove(was) => {
                    let delete = TxnOp::delete(self.keys.group(group), None);
                    (found.txn(&self.keys, group, vec![delete], false), GroupOutcome::Deleted(was))
                }
                Decision::Put(cursor, holds_more) => {
                    let mut puts = vec![TxnOp::put(self.keys.group(group), to_json(&cursor)?, None)];
                    puts.extend(holds_more.then(|| put_mark(&self.keys, self.env.entropy.next_u64())));
                    (found.txn(&self.keys, group, puts, holds_more), GroupOutcome::Stored(cursor))
                }
            };
            match self.kv.txn(&txn).await {
                Ok(answer) if answer.succeeded => return Ok(outcome),
                Ok(_) => {}
                Err(e @ (CallError::NotSent(_) | CallError::Unclear(_))) => {
                    again = true;
                    e.reason().clone_into(&mut last);
                }
                Err(e) => return Err(e.into()),
            }
            sleep(backoff.pause()).await;
        }
        Err(CoordinationError::Unavailable(format!("the group {group:?} could not be changed: {last}")))
    }

    async fn read_group(&self, group: &str) -> Result<Answer, CoordinationError> {
        let reads = vec![
            get(self.keys.epoch()),
            get(self.keys.groups_mark()),
            get(self.keys.group(group)),
            get_prefix(self.keys.groups()),
        ];
        let answer = self.kv.read(reads).await?;
        match answer.one(0) {
            Some(_) => Ok(answer),
            None => Err(CoordinationError::NotFound(self.place())),
        }
    }
}

/// What a change is decided on, all read at one revision.
struct Found {
    epoch: EpochValue,
    mark: u64,
    group: Option<KeyValue>,
    count: usize,
}

impl Found {
    fn of(answer: &Answer) -> Result<Self, CoordinationError> {
        let epoch = answer.value(0).and_then(EpochValue::parse);
        let epoch = epoch.ok_or_else(|| {
            CoordinationError::Damaged("the epoch in etcd is not <lineage>:<number>".to_owned())
        })?;
        Ok(Self {
            epoch,
            mark: mark_of(answer.value(1)),
            group: answer.one(2).cloned(),
            count: answer.reads.get(3).map_or(0, Vec::len),
        })
    }

    /// The group's cursor. One that cannot be read can at least be deleted.
    fn cursor(&self, change: &GroupChange) -> Result<Option<GroupCursor>, CoordinationError> {
        match (self.group.as_ref().map(decode), change) {
            (None, _) => Ok(None),
            (Some(Ok(cursor)), _) => Ok(Some(cursor)),
            (Some(Err(_)), GroupChange::Delete) => Ok(Some(GroupCursor::after(SeqNo::ZERO))),
            (Some(Err(e)), _) => Err(e),
        }
    }

    fn txn(&self, keys: &Keys, group: &str, then: Vec<TxnOp>, marks: bool) -> Txn {
        let key = keys.group(group);
        let mut compares = of_lineage(keys, self.epoch.lineage).to_vec();
        match &self.group {
            Some(kv) => compares.extend([
                Compare::value(key.clone(), CompareOp::Equal, kv.value()),
                Compare::mod_revision(key, CompareOp::Equal, kv.mod_revision()),
            ]),
            None => compares.push(absent(key)),
        }
        compares.extend(marks.then(|| mark_is(keys, self.mark)));
        Txn::new().when(compares).and_then(then)
    }
}

/// Holds while the newest epoch is one of this history: `<lineage>:…`, whatever its number.
fn of_lineage(keys: &Keys, lineage: Lineage) -> [Compare; 2] {
    // ';' is the byte after ':'.
    [
        Compare::value(keys.epoch(), CompareOp::Greater, format!("{lineage}:")),
        Compare::value(keys.epoch(), CompareOp::Less, format!("{lineage};")),
    ]
}

/// Holds while no group has come to hold more of the log since `mark` was read.
pub(super) fn mark_is(keys: &Keys, mark: u64) -> Compare {
    match mark {
        0 => absent(keys.groups_mark()),
        mark => Compare::value(keys.groups_mark(), CompareOp::Equal, mark.to_string()),
    }
}

/// The mark as it stands there; 0 where there has never been a group.
pub(super) fn mark_of(value: Option<&[u8]>) -> u64 {
    // One that cannot be read is not ours, and no comparison with it holds.
    value.map_or(0, |raw| std::str::from_utf8(raw).ok().and_then(|t| t.parse().ok()).unwrap_or(u64::MAX))
}

fn put_mark(keys: &Keys, random: u64) -> TxnOp {
    TxnOp::put(keys.groups_mark(), random.max(1).to_string(), None)
}

/// Stores the groups of a head that is put by a restore or a recover, in the same transaction.
pub(super) fn puts(
    keys: &Keys,
    groups: &BTreeMap<String, GroupCursor>,
    commit: CommitId,
) -> Result<Vec<TxnOp>, CoordinationError> {
    let mut puts = Vec::new();
    for (name, cursor) in groups {
        puts.push(TxnOp::put(keys.group(name), to_json(cursor)?, None));
    }
    if !puts.is_empty() {
        puts.push(put_mark(keys, commit.0));
    }
    Ok(puts)
}

/// The groups by name.
fn cursors(keys: &Keys, found: &[KeyValue]) -> Result<BTreeMap<String, GroupCursor>, CoordinationError> {
    let named = found.iter().filter_map(|kv| Some((keys.parse_group(kv.key())?.to_owned(), kv)));
    named.map(|(name, kv)| Ok((name, decode(kv)?))).collect()
}

/// Those that can be read: no other is to stand in the way of a recover.
pub(super) fn readable(keys: &Keys, found: &[KeyValue]) -> BTreeMap<String, GroupCursor> {
    found.iter().filter_map(|kv| cursors(keys, std::slice::from_ref(kv)).ok()).flatten().collect()
}

fn decode(kv: &KeyValue) -> Result<GroupCursor, CoordinationError> {
    serde_json::from_slice(kv.value()).map_err(|e| {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        CoordinationError::Damaged(format!("{key} in etcd is no consumer group's cursor: {e}"))
    })
}
