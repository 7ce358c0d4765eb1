//! The executor: runs and a range of keys in, tables in the bucket out.
//!
//! ```text
//!   source ─┐ stored blocks      ┌ engine ──────────────────────────────┐  finished   uploads
//!   source ─┼────────────────────▶ open ─▶ tree ─▶ policy ─▶ build, seal ├──────────▶ (bounded
//!   source ─┘ read ahead, bounded└──── in turns, off the async threads ─┘   parts      bytes)
//! ```
//! Tasks read ahead and upload; all that costs processor time is done by the [`engine`], turn by turn, on a thread beside
//! the runtime's own (in a simulation: inline), so heartbeats and commits are never held up by a long merge, and a merge
//! that is cut off ends after its turn. Several cores are used by several merges, of other runs or of other keys
//! ([`crate::parts`]).
//!
//! Values in blob files are not read, but for those that move out of files of which little is alive: these are copied
//! beside the merge ([`values`]).
//!
//! # Memory
//! Whatever the store's latency and however large its tables, a process holds at most: its read-ahead windows (a fixed
//! budget, shared by its merges), `upload_bytes_in_flight` of tables, in parts that are being built or uploaded, and for
//! each of its merges what the open table will say of itself at its end: some bytes a block, and eight a key. Where
//! values move: half as many bytes of blob files in parts again, and a few windows of values for each merge.
//!
//! # Crash cases
//! Until an edit names them nobody names the outputs. A merge that fails, loses its claim, runs out of time or is closed
//! aborts the uploads that are under way and deletes what it has uploaded; one that dies leaves orphans under a name that carries its job, for the sweep, and so
//! does an upload whose end was under way and arrives after the delete. Parts of an upload that nobody ends are no object,
//! and left to the bucket's lifecycle rule.

mod engine;
mod outputs;
mod resources;
mod source;
mod stretches;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isle_storage::database::Database;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{KeyRange, Run, TableEntry};
use isle_storage::merge::{Held, Relocation, Rewrite};
use isle_storage::names::ObjectPath;
use isle_storage::row::BlobId;
use isle_storage::sst::TableOptions;

use self::engine::{Engine, Making, Turn, untouched};
use self::outputs::Outputs;
use self::source::Source;
use self::stretches::Stretch;
use self::values::Values;
use crate::error::JobError;
use crate::job::Claimed;
use crate::settings::CompactorSettings;

pub use self::outputs::take_back;
pub use self::resources::Resources;
pub(crate) use self::source::read_meta;

/// So many times `part_bytes` of values one merge, or part of one, moves at most; what is left is moved by the next.
const MOST_MOVED_PARTS: u64 = 2;

/// A table that stands alone is kept as it is from this part of `table_bytes` on; smaller ones are joined.
const KEEP_FROM_PART: u64 = 2;

/// What is to be merged.
#[derive(Debug, Clone)]
pub struct Work {
    /// The runs, newest first.
    pub inputs: Vec<Arc<Run>>,
    /// Of these keys.
    pub range: KeyRange,
    /// Every snapshot there is, and those that whoever planned it reckoned with.
    pub snapshots: Vec<Held>,
    /// Rows that have expired by this instant may be taken for expired.
    pub expired_by: Timestamp,
    /// Whether nothing lies beneath: deletes and expired rows may go.
    pub bottom: bool,
    /// Outputs are named `<owner>-<n>`.
    pub owner: String,
    /// Blob files whose values move, as far as rows that are kept point at them.
    pub emptied: Arc<BTreeSet<BlobId>>,
    /// Where the merge is about nothing but values: the tables to be written again. All others stay as they are.
    pub only: Option<BTreeSet<String>>,
}

/// What a merge has made and nobody names yet.
#[derive(Debug, Clone, Default)]
pub struct Made {
    /// Ascending and disjoint by key; some may be inputs' tables as they were.
    pub tables: Vec<Arc<TableEntry>>,
    /// The objects that were made, for whoever must take them back.
    pub outputs: Vec<ObjectPath>,
    /// Blob files that were made, with their lengths.
    pub blobs: BTreeMap<BlobId, u64>,
    /// Stored bytes of the tables and the blob files that were made.
    pub bytes_written: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written, or kept in a table as it was.
    pub rows_out: u64,
    /// Whether deletes or expired rows were dropped.
    pub dropped: bool,
    /// The inputs' newest number, where any version was dropped; zero otherwise.
    pub judged: SeqNo,
    /// The highest expiry of a row that was taken for expired, if one was.
    pub expired_by: Option<Timestamp>,
}

/// Carries out `work`, as long as the claim stands and the time lasts.
///
/// # Errors
/// [`JobError`]; what was uploaded has been deleted again, as far as the store allowed.
pub async fn merge(
    db: &Database,
    settings: &CompactorSettings,
    resources: &Resources,
    work: &Work,
    claimed: &Claimed,
) -> Result<Made, JobError> {
    let mut out = Outputs::new(db, resources, settings.table_bytes);
    let mut values = Values::new(db, resources);
    let done = claimed
        .guard(async {
            let done = Execution { db, settings, resources, work }.run(&mut out, &mut values).await?;
            out.uploaded().await?;
            Ok(Made { blobs: values.durable().await?, ..done })
        })
        .await;
    if done.is_err() {
        values.take_back().await;
        out.take_back().await;
    }
    let made = done?;
    let bytes_written = out.bytes + made.blobs.values().sum::<u64>();
    out.names.append(&mut values.names);
    Ok(Made { tables: out.entries, outputs: out.names, bytes_written, ..made })
}

struct Execution<'a> {
    db: &'a Database,
    settings: &'a CompactorSettings,
    resources: &'a Resources,
    work: &'a Work,
}

impl Execution<'_> {
    async fn run(&self, out: &mut Outputs<'_>, values: &mut Values<'_>) -> Result<Made, JobError> {
        let keep = self.kept().await?;
        let newest = self.work.inputs.iter().map(|r| r.max_seq()).max().unwrap_or_default();
        let (mut made, mut next) = (Made::default(), 0);
        let most = self.settings.part_bytes.saturating_mul(MOST_MOVED_PARTS);
        let Work { emptied, owner, .. } = self.work;
        let mut places = Relocation::new(Arc::clone(emptied), owner, self.settings.blob_file_bytes, most);
        for stretch in stretches::around(&self.work.inputs, &self.work.range, &keep) {
            match stretch {
                Stretch::Keep(table) => {
                    made.rows_in += table.rows;
                    made.rows_out += table.rows;
                    out.entries.push(table);
                }
                Stretch::Merge(range) => {
                    let engine = self.merge(&range, next, places, out, values).await?;
                    let (rows_in, rows_out, rewrite, relocation, number) = engine.end();
                    (places, next) = (relocation, number);
                    made.rows_in += rows_in;
                    made.rows_out += rows_out;
                    made.dropped |= rewrite.dropped();
                    made.expired_by = made.expired_by.max(rewrite.expired_by());
                    if !untouched(rewrite.counts()) {
                        made.judged = newest;
                    }
                }
            }
        }
        Ok(made)
    }

    /// The tables that stay as they are: alone, large enough, and with nothing in them that may go. Whether a table has
    /// old versions of its own keys is known only to itself.
    async fn kept(&self) -> Result<Vec<Arc<TableEntry>>, JobError> {
        let mut kept = Vec::new();
        let alone = stretches::alone(&self.work.inputs, &self.work.range);
        if let Some(only) = &self.work.only {
            return Ok(alone.into_iter().filter(|t| !only.contains(&t.name)).collect());
        }
        for table in alone {
            let clean = (table.deletes == 0 || !self.work.bottom)
                && table.min_expires.is_none_or(|expires| expires > self.work.expired_by);
            if clean && table.len >= self.settings.table_bytes / KEEP_FROM_PART {
                let meta = read_meta(self.db, &table).await?;
                if meta.properties().keys == table.rows {
                    kept.push(table);
                }
            }
        }
        Ok(kept)
    }

    /// Merges the rows of `range`.
    async fn merge(
        &self,
        range: &KeyRange,
        next: u64,
        places: Relocation,
        out: &mut Outputs<'_>,
        values: &mut Values<'_>,
    ) -> Result<Engine, JobError> {
        let met = |r: &&Arc<Run>| r.tables.iter().any(|t| range.meets(t));
        let inputs: Vec<&Arc<Run>> = self.work.inputs.iter().filter(met).collect();
        let window = self.resources.window_bytes(inputs.len());
        let mut sources: Vec<Source> =
            inputs.iter().map(|run| Source::open(self.db, self.resources, run, range, window)).collect();
        let rewrite = Rewrite::new(&self.work.snapshots, self.work.bottom, Some(self.work.expired_by));
        let options =
            TableOptions { block_bytes: self.settings.block_bytes, compression: self.settings.compression };
        let making = Making {
            options,
            table_bytes: self.settings.table_bytes,
            part_bytes: self.resources.uploads.part_bytes(),
            owner: self.work.owner.clone(),
        };
        let mut engine = Engine::new(sources.len(), range, rewrite, places, making, next);
        loop {
            out.room(|| engine.table_name()).await;
            let turn;
            (engine, turn) = self
                .db
                .env
                .offload
                .run(move || {
                    let turn = engine.turn();
                    (engine, turn)
                })
                .await
                .map_err(|e| JobError::Internal(e.to_string()))?;
            let turn = turn?;
            values.take(engine.take_moves()).await?;
            match turn {
                Turn::Needs(i) => {
                    let window = sources[i].next().await?;
                    engine.feed(i, window);
                }
                Turn::Pieces(pieces) => out.pieces(pieces).await?,
                Turn::Table(table) => out.table(*table).await?,
                Turn::Breath => tokio::task::yield_now().await,
                Turn::Done => return Ok(engine),
            }
        }
    }
}
