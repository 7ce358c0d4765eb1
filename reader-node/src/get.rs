//! Point lookups: the newest row of one key, asked of the sources newest first.
//!
//! ```text
//! generations, newest first ─▶ runs, newest first: bounds ─▶ metadata ─▶ filter ─▶ block ─▶ row?
//! ```
//! Sources are ordered by sequence number, so the first row found decides. The lookup itself never waits: it is a
//! state that either ends or says which piece of which table it lacks. Where everything is at hand it runs through
//! without an await, an allocation per source, or a lock held.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::ids::SeqNo;
use isle_storage::row::Row;
use isle_storage::sst::{Block, Lookup as InBlock, TableMeta};

use crate::tables::{FetchError, Reads, Table};
use crate::view::View;

/// What a lookup lacks, or that it has ended.
pub(crate) enum Turn {
    /// The newest row at or below the asked number, deletes and expired ones included.
    Done(Option<Row>),
    /// This table's metadata.
    Meta(Arc<Table>),
    /// A block of it.
    Block(Arc<Table>, Arc<TableMeta>, usize),
}

/// What a lookup was given after it had said what it lacked.
pub(crate) enum Supply {
    Nothing,
    Meta(Arc<TableMeta>),
    Block(Arc<TableMeta>, Block),
}

/// What one run says of the key.
enum Answer {
    Row(Row),
    Absent,
    Lacks(Turn),
}

/// A lookup under way.
pub(crate) struct Lookup<'a> {
    view: &'a View,
    key: &'a [u8],
    max_seq: SeqNo,
    /// The run to be asked next.
    run: usize,
    /// The block to be asked next within that run, once its filter has admitted the key.
    block: Option<usize>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(view: &'a View, key: &'a [u8], max_seq: SeqNo) -> Self {
        Self { view, key, max_seq, run: 0, block: None }
    }

    /// The row, if memory decides.
    pub(crate) fn in_memory(&self) -> Option<Row> {
        if self.view.generations.is_empty() {
            return None;
        }
        let key = Bytes::copy_from_slice(self.key);
        self.view.generations.iter().find_map(|g| g.get(&key, self.max_seq))
    }

    /// Goes on until the end or until something is not at hand.
    pub(crate) fn advance(&mut self, reads: &Reads, mut supply: Supply) -> Turn {
        while let Some(run) = self.view.runs.get(self.run) {
            if run.min_seq <= self.max_seq
                && let Some(table) = run.table_for(self.key)
            {
                match self.ask(reads, table, std::mem::replace(&mut supply, Supply::Nothing)) {
                    Answer::Row(row) => return Turn::Done(Some(row)),
                    Answer::Lacks(turn) => return turn,
                    Answer::Absent => {}
                }
            }
            self.run += 1;
            self.block = None;
        }
        Turn::Done(None)
    }

    fn ask(&mut self, reads: &Reads, table: &Arc<Table>, supply: Supply) -> Answer {
        let (meta, mut given) = match supply {
            Supply::Meta(meta) => (meta, None),
            Supply::Block(meta, block) => (meta, Some(block)),
            Supply::Nothing => match reads.cached_meta(table) {
                Some(meta) => (meta, None),
                None => return Answer::Lacks(Turn::Meta(Arc::clone(table))),
            },
        };
        let mut at = match self.block {
            Some(at) => at,
            None if meta.may_contain(self.key) => meta.seek(self.key),
            None => return Answer::Absent,
        };
        while at < meta.block_count() {
            let Some(block) = given.take().or_else(|| reads.cached_block(table, at)) else {
                self.block = Some(at);
                return Answer::Lacks(Turn::Block(Arc::clone(table), meta, at));
            };
            match block.get(self.key, self.max_seq) {
                InBlock::Found(row) => return Answer::Row(row),
                InBlock::Next if meta.key_goes_on(at) => at += 1,
                InBlock::Next | InBlock::Absent => return Answer::Absent,
            }
        }
        Answer::Absent
    }
}

/// The newest row of `key` at or below `max_seq`, fetching what is not at hand.
///
/// # Errors
/// [`FetchError`].
pub(crate) async fn lookup(
    reads: &Arc<Reads>,
    mut lookup: Lookup<'_>,
    mut turn: Turn,
) -> Result<Option<Row>, FetchError> {
    loop {
        let supply = match turn {
            Turn::Done(row) => return Ok(row),
            Turn::Meta(table) => Supply::Meta(reads.meta(&table).await?),
            Turn::Block(table, meta, i) => {
                let block = reads.block(&table, &meta, i).await?;
                Supply::Block(meta, block)
            }
        };
        turn = lookup.advance(reads, supply);
    }
}
