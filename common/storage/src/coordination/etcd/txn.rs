//! The transactions that change the head: bootstrap, commit and fold (PROTOCOL sections 1, 4 and 5).
//!
//! ```text
//! commit, writer:   IF create_revision(writer) = mine AND value(epoch) = <lineage>:<mine> AND value(head) = as read
//!         job:      IF create_revision(jobs/<id>) = mine AND value(epoch) = as seen      AND value(head) = as read
//!         observer: IF                                      value(epoch) = as seen      AND value(head) = as read
//!                   THEN put edits/<v+1>, put head       ELSE get head, epoch, and the lease key
//!         retention of the log: besides                     value(consumers_mark) = as read
//! fold:             IF value(head) = as read THEN put head, delete edits/ below      ELSE get head
//! bootstrap:        IF create_revision(head) = 0 AND create_revision(epoch) = 0
//!                   THEN put head, put epoch, put each group ELSE get head
//! ```
//!
//! Each is built from the proposal alone, so that a repeated attempt sends the same bytes, and at most one copy can
//! apply: the first one changes the head, whose value carries a random commit id. The `ELSE` branch reads, at the
//! very revision at which the comparison failed, what is needed to say why; and where the head found there *is* the
//! one proposed, an earlier copy has been applied.
//!
//! A job or an observer that meets an epoch which is claimed but not adopted yet has lost nothing but time: it is told
//! that the head has moved, as the adoption is about to move it.

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, DeleteOptions, Txn, TxnOp};

use super::EtcdCoordination;
use super::client::{Answer, get};
use super::edits;
use super::error::CallError;
use super::groups;
use super::keys::{EpochValue, Keys};
use crate::coordination::{Authority, CommitOutcome, CoordinationError, HeadState, Proposal};
use crate::ids::{CommitId, Version};
use crate::manifest::{CheckpointRef, Head, Manifest};

/// Tries to create the head before the caller is told that nobody knows.
const BOOTSTRAP_TRIES: usize = 3;

impl EtcdCoordination {
    pub(super) async fn create_head(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let head = genesis.head(checkpoint.clone(), CommitId(self.env.entropy.next_u64()));
        let raw = encode_head(&head).map_err(CoordinationError::Damaged)?;
        let epoch = EpochValue { lineage: genesis.lineage, epoch: genesis.epoch };
        let txn = Txn::new()
            .when([absent(self.keys.head()), absent(self.keys.epoch())])
            .and_then(
                [
                    TxnOp::put(self.keys.head(), raw.to_vec(), None),
                    TxnOp::put(self.keys.epoch(), epoch.to_string(), None),
                ]
                .into_iter()
                .chain(groups::puts(&self.keys, &genesis.groups, head.commit)?)
                .collect::<Vec<_>>(),
            )
            .or_else([get(self.keys.head())]);
        let mut last = CallError::NotSent(String::new());
        for _ in 0..BOOTSTRAP_TRIES {
            match self.kv.txn(&txn).await {
                Ok(answer) => return Ok(answer.succeeded || answer.value(0) == Some(&raw)),
                Err(e) if e.is_connection() => last = e,
                Err(e) => return Err(e.into()),
            }
        }
        Err(last.into())
    }

    pub(super) async fn commit_once(&self, proposal: &Proposal) -> CommitOutcome {
        let prepared = match Prepared::of(&self.keys, proposal) {
            Ok(prepared) => prepared,
            Err(why) => return CommitOutcome::Unknown(why),
        };
        if let Err(e) = edits::write_object(self.bucket.as_ref(), &prepared.edit).await {
            return CommitOutcome::Unknown(format!("the edit's object cannot be written: {e}"));
        }
        let answer = match self.kv.txn(&prepared.txn).await {
            Ok(answer) => answer,
            Err(e) => return CommitOutcome::Unknown(e.reason().to_owned()),
        };
        let found = Found::of(&answer, proposal);
        match judge(&found, &prepared.raw, proposal) {
            Judged::Committed => {
                self.seen.note(&proposal.head);
                let revision = found.committed_at.unwrap_or(answer.revision);
                CommitOutcome::Committed(HeadState {
                    head: proposal.head.clone(),
                    raw: prepared.raw,
                    revision,
                })
            }
            Judged::Moved => CommitOutcome::Moved,
            Judged::Regrouped => CommitOutcome::Regrouped,
            Judged::Fenced(why) => CommitOutcome::Fenced(why),
        }
    }

    pub(super) async fn fold_once(
        &self,
        base: &HeadState,
        checkpoint: &CheckpointRef,
        keep: usize,
    ) -> CommitOutcome {
        // The start never moves back: the edits between it and the present one may be gone.
        if checkpoint.version < base.head.checkpoint.version {
            return CommitOutcome::Moved;
        }
        let head = Head { checkpoint: checkpoint.clone(), ..base.head.clone() };
        let raw = match encode_head(&head) {
            Ok(raw) => raw,
            Err(why) => return CommitOutcome::Unknown(why),
        };
        let answer = match self.kv.txn(&fold_txn(&self.keys, base, &raw, checkpoint.version, keep)).await {
            Ok(answer) => answer,
            Err(e) => return CommitOutcome::Unknown(e.reason().to_owned()),
        };
        let earlier = answer.one(0).filter(|kv| !answer.succeeded && kv.value() == raw);
        match (answer.succeeded, earlier) {
            (true, _) => CommitOutcome::Committed(HeadState { head, raw, revision: answer.revision }),
            (false, Some(kv)) => {
                CommitOutcome::Committed(HeadState { head, raw, revision: kv.mod_revision() })
            }
            (false, None) => CommitOutcome::Moved,
        }
    }
}

/// The head's bytes: compared raw, so the same head always gives the same ones.
pub(super) fn encode_head(head: &Head) -> Result<Bytes, String> {
    serde_json::to_vec(head).map(Bytes::from).map_err(|e| format!("the head cannot be written as JSON: {e}"))
}

/// Holds where there is no such key.
pub(super) fn absent(key: String) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

/// A commit's transaction with what is needed to judge its answer.
struct Prepared {
    txn: Txn,
    raw: Bytes,
    edit: edits::Encoded,
}

impl Prepared {
    fn of(keys: &Keys, proposal: &Proposal) -> Result<Self, String> {
        let raw = encode_head(&proposal.head)?;
        let edit =
            edits::encode(&proposal.edit).map_err(|e| format!("the edit cannot be written as JSON: {e}"))?;
        let mut compares = vec![
            Compare::value(keys.head(), CompareOp::Equal, proposal.base.raw.to_vec()),
            Compare::value(keys.epoch(), CompareOp::Equal, expected_epoch(proposal).to_string()),
        ];
        let mut reads = vec![get(keys.head()), get(keys.epoch())];
        if let Some((key, token)) = lease_key(keys, &proposal.authority) {
            compares.push(Compare::create_revision(key.clone(), CompareOp::Equal, token));
            reads.push(get(key));
        }
        if let Some(read) = proposal.groups {
            compares.push(groups::mark_is(keys, read));
            reads.push(get(keys.groups_mark()));
        }
        // The edit comes before the head: a watch delivers them in this order, and the head completes the pair.
        let puts = [
            TxnOp::put(keys.edit(proposal.edit.version), edit.value.to_vec(), None),
            TxnOp::put(keys.head(), raw.to_vec(), None),
        ];
        Ok(Self { txn: Txn::new().when(compares).and_then(puts).or_else(reads), raw, edit })
    }
}

/// The epoch a commit is made under.
fn expected_epoch(proposal: &Proposal) -> EpochValue {
    match proposal.authority {
        Authority::Writer { lineage, epoch, .. } => EpochValue { lineage, epoch },
        Authority::Job { .. } | Authority::Observer => {
            EpochValue { lineage: proposal.base.head.lineage, epoch: proposal.base.head.epoch }
        }
    }
}

/// The leased key a commit depends on, and the revision it must have been created at.
fn lease_key(keys: &Keys, authority: &Authority) -> Option<(String, i64)> {
    match authority {
        Authority::Writer { token, .. } => Some((keys.writer(), *token)),
        Authority::Job { job, token } => Some((keys.job(*job), *token)),
        Authority::Observer => None,
    }
}

/// What a commit's transaction answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    succeeded: bool,
    /// The head where the comparison failed.
    head: Option<Vec<u8>>,
    /// The revision that head was written at.
    committed_at: Option<i64>,
    epoch: Option<Vec<u8>>,
    /// When the lease key there was created, and what it says.
    holder: Option<(i64, Vec<u8>)>,
    /// The mark of the consumer groups, where it was compared.
    groups: Option<u64>,
}

impl Found {
    fn of(answer: &Answer, proposal: &Proposal) -> Self {
        let has_lease = !matches!(proposal.authority, Authority::Observer);
        let groups = proposal.groups.map(|_| groups::mark_of(answer.value(2 + usize::from(has_lease))));
        let head = answer.one(0).filter(|_| !answer.succeeded);
        Self {
            succeeded: answer.succeeded,
            head: head.map(|kv| kv.value().to_vec()),
            committed_at: head.map(etcd_client::KeyValue::mod_revision),
            epoch: answer.value(1).map(<[u8]>::to_vec),
            holder: answer.one(2).filter(|_| has_lease).map(|kv| (kv.create_revision(), kv.value().to_vec())),
            groups,
        }
    }
}

/// How a commit's answer is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judged {
    Committed,
    Moved,
    Regrouped,
    Fenced(String),
}

fn judge(found: &Found, proposed: &[u8], proposal: &Proposal) -> Judged {
    if found.succeeded || found.head.as_deref() == Some(proposed) {
        return Judged::Committed;
    }
    if let Some(why) = fenced(found, &proposal.authority) {
        return Judged::Fenced(why);
    }
    let head_stands = found.head.as_deref() == Some(proposal.base.raw.as_ref());
    if head_stands && found.groups != proposal.groups { Judged::Regrouped } else { Judged::Moved }
}

/// Why the right a commit was made under is gone, if it is.
fn fenced(found: &Found, authority: &Authority) -> Option<String> {
    let text = |raw: &Option<Vec<u8>>| {
        raw.as_ref().map_or_else(|| "absent".to_owned(), |r| String::from_utf8_lossy(r).into_owned())
    };
    let holder = found.holder.as_ref();
    match authority {
        Authority::Writer { lineage, epoch, token } => {
            let mine = EpochValue { lineage: *lineage, epoch: *epoch }.to_string();
            if found.epoch.as_deref() != Some(mine.as_bytes()) {
                return Some(format!("epoch {mine} is over: the newest is {}", text(&found.epoch)));
            }
            match holder {
                Some((created, _)) if created == token => None,
                Some((_, who)) => {
                    Some(format!("the writer's lease is held by {}", String::from_utf8_lossy(who)))
                }
                None => Some(format!("the writer's lease of epoch {mine} has ended")),
            }
        }
        Authority::Job { job, token } => match holder {
            Some((created, _)) if created == token => None,
            Some((_, who)) => Some(format!("job {job} is claimed by {}", String::from_utf8_lossy(who))),
            None => Some(format!("the claim of job {job} has ended")),
        },
        Authority::Observer => None,
    }
}

fn fold_txn(keys: &Keys, base: &HeadState, raw: &Bytes, checkpoint: Version, keep: usize) -> Txn {
    let below = Version(checkpoint.0.saturating_sub(keep as u64).saturating_add(1));
    let covered = DeleteOptions::new().with_range(keys.edit(below));
    Txn::new()
        .when([Compare::value(keys.head(), CompareOp::Equal, base.raw.to_vec())])
        .and_then([
            TxnOp::put(keys.head(), raw.to_vec(), None),
            TxnOp::delete(keys.edit(Version::ZERO), Some(covered)),
        ])
        .or_else([get(keys.head())])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::ids::{DatabaseId, Epoch, JobId, Lineage};
    use crate::manifest::{Author, CompactionMode, Edit};
    use crate::names;

    const LINEAGE: Lineage = Lineage(9);

    fn proposal(authority: Authority) -> Proposal {
        let manifest = Manifest::genesis(DatabaseId(1), LINEAGE, CompactionMode::Merge);
        let path = names::checkpoint(manifest.version, 0);
        let checkpoint = CheckpointRef { path, len: 1, crc: 2, version: manifest.version };
        let head = manifest.head(checkpoint, CommitId(5));
        let raw = encode_head(&head).unwrap();
        let edit = Edit {
            version: manifest.version.next(),
            lineage: LINEAGE,
            epoch: manifest.epoch,
            commit: CommitId(6),
            author: Author::Writer,
            changes: Vec::new(),
            required_features: Vec::new(),
            extra: BTreeMap::new(),
        };
        let next = manifest.apply(&edit).unwrap();
        let made = next.head(head.checkpoint.clone(), edit.commit);
        let base = HeadState { head, raw, revision: 3 };
        Proposal { base, edit: Arc::new(edit), head: made, manifest: Arc::new(next), authority, groups: None }
    }

    fn writer() -> Proposal {
        proposal(Authority::Writer { lineage: LINEAGE, epoch: Epoch(4), token: 70 })
    }

    fn found(proposal: &Proposal, epoch: &str, holder: Option<i64>) -> Found {
        Found {
            succeeded: false,
            head: Some(proposal.base.raw.to_vec()),
            committed_at: Some(3),
            epoch: Some(epoch.as_bytes().to_vec()),
            holder: holder.map(|created| (created, b"somebody".to_vec())),
            groups: proposal.groups,
        }
    }

    fn verdict(found: &Found, proposal: &Proposal) -> Judged {
        judge(found, &encode_head(&proposal.head).unwrap(), proposal)
    }

    #[test]
    fn the_same_proposal_is_always_the_same_transaction() {
        let keys = Keys::new("isle", "default");
        let p = writer();
        let bytes = |p: &Proposal| format!("{:?}", Prepared::of(&keys, p).unwrap().txn);
        assert_eq!(bytes(&p), bytes(&p.clone()));
        assert!(bytes(&p).contains("CreateRevision(70)"), "{}", bytes(&p));
    }

    #[test]
    fn ones_own_head_means_committed_whoever_has_the_role_now() {
        let p = writer();
        let mut found = found(&p, "other:9", None);
        found.head = Some(encode_head(&p.head).unwrap().to_vec());
        assert_eq!(verdict(&found, &p), Judged::Committed);
    }

    #[test]
    fn a_writer_is_fenced_by_epoch_lineage_or_lease() {
        let p = writer();
        let mine = EpochValue { lineage: LINEAGE, epoch: Epoch(4) }.to_string();
        let next = EpochValue { lineage: LINEAGE, epoch: Epoch(5) }.to_string();
        let recovered = EpochValue { lineage: Lineage(8), epoch: Epoch(4) }.to_string();
        for (epoch, holder) in [(&next, Some(70)), (&recovered, Some(70)), (&mine, Some(71)), (&mine, None)] {
            assert!(
                matches!(verdict(&found(&p, epoch, holder), &p), Judged::Fenced(_)),
                "{epoch} {holder:?}"
            );
        }
        assert_eq!(verdict(&found(&p, &mine, Some(70)), &p), Judged::Moved);
    }

    #[test]
    fn groups_that_hold_more_are_told_only_of_the_head_that_was_read() {
        let mut job = proposal(Authority::Job { job: JobId(1), token: 70 });
        job.groups = Some(5);
        let mut found = found(&job, "any", Some(70));
        assert_eq!(verdict(&found, &job), Judged::Moved, "the epoch, then");
        found.groups = Some(6);
        assert_eq!(verdict(&found, &job), Judged::Regrouped);
        found.head = Some(b"another".to_vec());
        assert_eq!(verdict(&found, &job), Judged::Moved);
        found.holder = None;
        assert!(matches!(verdict(&found, &job), Judged::Fenced(_)));
    }

    #[test]
    fn a_job_is_fenced_by_its_claim_alone_and_an_observer_by_nothing() {
        let job = proposal(Authority::Job { job: JobId(1), token: 70 });
        assert_eq!(verdict(&found(&job, "any", Some(70)), &job), Judged::Moved);
        assert!(matches!(verdict(&found(&job, "any", Some(71)), &job), Judged::Fenced(_)));
        assert!(matches!(verdict(&found(&job, "any", None), &job), Judged::Fenced(_)));
        let observer = proposal(Authority::Observer);
        assert_eq!(verdict(&found(&observer, "any", None), &observer), Judged::Moved);
    }
}
