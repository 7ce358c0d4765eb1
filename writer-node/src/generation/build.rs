//! Building a generation's objects: sorted tables and one log chunk. Pure and long: runs on a thread of its own.

use isle_storage::format::Compression;
use isle_storage::ids::SeqNo;
use isle_storage::log::{EncodedLog, LogHeader, RawBlock, encode_chunk};
use isle_storage::manifest::LogTail;
use isle_storage::names::LogKind;
use isle_storage::row::BlobId;
use isle_storage::sst::{EncodedTable, TableBuilder, TableOptions};

use super::Part;
use super::sort::sorted;
use crate::pipeline::Term;

/// How a generation's objects are built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableRules {
    pub(crate) table_bytes: u64,
    pub(crate) block_bytes: usize,
    pub(crate) chunk_block_bytes: usize,
    pub(crate) compression: Compression,
}

/// A generation's objects, encoded.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) tables: Vec<EncodedTable>,
    pub(super) chunk: EncodedLog,
    pub(super) last_seq: SeqNo,
}

/// Builds the objects of the generation made of `parts`. `None` where there is no row.
pub(super) fn build(parts: Vec<Part>, term: &Term, rules: TableRules) -> Option<Built> {
    let header = chunk_header(&parts, term)?;
    let blocks: Vec<RawBlock> = parts.into_iter().flat_map(|p| p.blocks).collect();
    let tables = build_tables(&blocks, term, rules);
    let chunk = encode_chunk(&header, &blocks, rules.chunk_block_bytes, rules.compression);
    Some(Built { tables, chunk, last_seq: header.last_seq })
}

/// Splits at about `table_bytes`, never inside one key's versions: tables of one run do not overlap.
fn build_tables(blocks: &[RawBlock], term: &Term, rules: TableRules) -> Vec<EncodedTable> {
    let options = TableOptions { block_bytes: rules.block_bytes, compression: rules.compression };
    let mut tables = Vec::new();
    let mut table = TableBuilder::new(options);
    for at in sorted(blocks) {
        let row = at.row(blocks);
        let full = !table.is_empty() && table.estimated_len() >= rules.table_bytes;
        if full && table.last_key() != Some(row.key) {
            let done = std::mem::replace(&mut table, TableBuilder::new(options));
            tables.push(done.finish(&term.next_name()));
        }
        table.push(row);
    }
    if !table.is_empty() {
        tables.push(table.finish(&term.next_name()));
    }
    tables
}

/// The chunk is this epoch's own object, whoever wrote the segments it is made of.
fn chunk_header(parts: &[Part], term: &Term) -> Option<LogHeader> {
    let (first, last) = (parts.first()?, parts.last()?);
    let mut blobs: Vec<BlobId> = parts.iter().flat_map(|p| p.blobs.iter().cloned()).collect();
    blobs.sort_unstable();
    blobs.dedup();
    let tails: Vec<LogTail> = parts.iter().map(|p| p.tail).collect();
    Some(LogHeader {
        kind: LogKind::Chunk,
        database: term.database,
        lineage: term.lineage,
        epoch: term.epoch,
        incarnation: term.incarnation,
        first_seq: first.tail.id.first_seq,
        last_seq: last.tail.last_seq,
        previous: first.previous,
        starts_generation: true,
        blobs,
        parts: tails,
    })
}
