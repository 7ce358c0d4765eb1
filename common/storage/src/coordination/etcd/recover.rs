//! Recover over etcd: what stands where the head stands, and the new head in its place.
//!
//! ```text
//! IF value(head) = as found AND value(epoch) = as found AND create_revision(writer) = 0
//!    AND every consumers/* mod_revision <= the highest found
//! THEN put head, put epoch, put each group; delete edits/, jobs/, pins/          ELSE get head
//! ```
//! Everything that belonged to the old history goes in the same transaction: an edit left behind would stand in the way
//! of the new history's own under the same number, and a claim or a pin would hold something in a history that no longer
//! is. The collector's floor stays (versions go on upwards, and what it has let go of is gone), and so do consumer groups:
//! they are positions in the log, which goes on, as far as it was rebuilt ([`crate::coordination::groups`]).

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp};

use super::EtcdCoordination;
use super::client::{get, get_prefix};
use super::error::CallError;
use super::groups;
use super::keys::EpochValue;
use super::load::decode_head;
use super::txn::{absent, encode_head};
use crate::coordination::CoordinationError;
use crate::coordination::recover::Remains;
use crate::ids::CommitId;
use crate::manifest::{CheckpointRef, Manifest};

/// Tries to put the head before the caller is told that nobody knows.
const TRIES: usize = 3;

impl EtcdCoordination {
    pub(super) async fn read_remains(&self) -> Result<Remains, CoordinationError> {
        let edits = GetOptions::new().with_prefix().with_keys_only();
        let answer = self
            .kv
            .read(vec![
                get(self.keys.head()),
                get(self.keys.epoch()),
                get(self.keys.writer()),
                TxnOp::get(self.keys.edits(), Some(edits)),
                get_prefix(self.keys.groups()),
            ])
            .await?;
        let copied = |n| answer.value(n).map(bytes::Bytes::copy_from_slice);
        // One that cannot be read is what is to be mended; its bytes are compared all the same.
        let head = answer.value(0).and_then(|raw| decode_head(raw).ok());
        let edits = answer.reads[3].iter().filter_map(|kv| self.keys.parse_edit(kv.key())).max();
        Ok(Remains {
            version: edits.max(head.as_ref().map(|h| h.version)).unwrap_or_default(),
            epoch: answer.value(1).and_then(EpochValue::parse).map(|e| e.epoch).unwrap_or_default(),
            writer: answer.one(2).map(super::claim::leader_or_unknown),
            edits: Vec::new(),
            groups: Some(groups::readable(&self.keys, &answer.reads[4])),
            mark: vec![copied(0), copied(1), Some(newest_of(&answer.reads[4]).into())],
            head,
        })
    }

    pub(super) async fn replace_head(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let commit = manifest.recent.last().map_or(CommitId(0), |(_, commit)| *commit);
        let head = manifest.head(checkpoint.clone(), commit);
        let raw = encode_head(&head).map_err(CoordinationError::Damaged)?;
        let epoch = EpochValue { lineage: manifest.lineage, epoch: manifest.epoch };
        let marked = |key: String, n: usize| match found.mark.get(n) {
            Some(Some(value)) => Compare::value(key, CompareOp::Equal, value.to_vec()),
            _ => absent(key),
        };
        let newest = found.mark.get(2).cloned().flatten().unwrap_or_default();
        let newest: i64 = String::from_utf8_lossy(&newest).parse().unwrap_or_default();
        let groups_stand =
            Compare::mod_revision(self.keys.groups(), CompareOp::Less, newest + 1).with_prefix();
        let below = |prefix: String| TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix()));
        let txn = Txn::new()
            .when([
                marked(self.keys.head(), 0),
                marked(self.keys.epoch(), 1),
                absent(self.keys.writer()),
                groups_stand,
            ])
            .and_then(
                [
                    TxnOp::put(self.keys.head(), raw.to_vec(), None),
                    TxnOp::put(self.keys.epoch(), epoch.to_string(), None),
                    below(self.keys.edits()),
                    below(self.keys.jobs()),
                    below(self.keys.pins()),
                ]
                .into_iter()
                .chain(groups::puts(&self.keys, &manifest.groups, commit)?)
                .collect::<Vec<_>>(),
            )
            .or_else([get(self.keys.head())]);
        let mut last = CallError::NotSent(String::new());
        for _ in 0..TRIES {
            match self.kv.txn(&txn).await {
                Ok(answer) => {
                    let ours = answer.succeeded || answer.value(0) == Some(&raw);
                    if ours {
                        self.seen.note(&head);
                    }
                    return Ok(ours);
                }
                Err(e) if e.is_connection() => last = e,
                Err(e) => return Err(e.into()),
            }
        }
        Err(last.into())
    }
}

/// The highest revision at which a group was stored.
fn newest_of(groups: &[KeyValue]) -> String {
    groups.iter().map(KeyValue::mod_revision).max().unwrap_or_default().to_string()
}
