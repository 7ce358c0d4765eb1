//! Measures tables and merges: `cargo run --release -p isle-storage --example bench_formats`.
//!
//! Prints the best of several rounds for each operation, in nanoseconds and, where it moves data, in bytes a second.
//! Best, not mean: on a shared machine the disturbance is only ever in one direction.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_storage::format::{Compression, FormatError};
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::merge::{Direction, Feed, Merge, Rewrite, Step, Visibility, Visible};
use isle_storage::row::{RowRef, ValueRef};
use isle_storage::sst::{Block, EncodedTable, TableBuilder, TableMeta, TableOptions};

const ROUNDS: usize = 7;
const SOURCES: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let large = Data::new(64 * 1024, 1024, false);
    let small = Data::new(400_000, 100, true);
    for (name, data) in [("1 KiB random values", &large), ("100 B text values", &small)] {
        println!("{name}, {} rows", data.keys.len());
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let took = best(|| black_box(data.build(compression)));
            report(&format!("build, {compression:?}"), took, data.keys.len(), data.bytes());
        }
        reads(data)?;
        merges(data)?;
    }
    Ok(())
}

/// Lookups and scans of one table whose blocks are decoded already.
fn reads(data: &Data) -> Result<(), FormatError> {
    let table = Table::open(data.build(Compression::Lz4))?;
    let blocks = table.blocks()?;
    let stored = table.meta.block_count();
    report("meta decode", best(|| table.decode_meta().is_ok()), 1, table.tail().len());
    report("block decode", best(|| table.blocks().is_ok()), stored, data.bytes());

    let probes: Vec<&[u8]> = (0..20_000).map(|i| data.key(i * 7919 % data.keys.len())).collect();
    let absent: Vec<Vec<u8>> = probes.iter().map(|k| [k, &b"?"[..]].concat()).collect();
    let max = SeqNo(u64::MAX);
    let filter = || absent.iter().filter(|k| table.meta.may_contain(k)).count();
    report("filter, absent key", best(filter), absent.len(), 0);
    let seek = || probes.iter().map(|k| table.meta.seek(k)).sum::<usize>();
    report("index seek", best(seek), probes.len(), 0);
    let at: Vec<(usize, &[u8])> = probes.iter().map(|k| (table.meta.seek(k), *k)).collect();
    let get = || at.iter().for_each(|(i, k)| drop(black_box(blocks[*i].get(k, max))));
    report("block get", best(get), at.len(), 0);
    let get_ref = || at.iter().for_each(|(i, k)| _ = black_box(blocks[*i].get_ref(k, max)));
    report("block get, borrowed", best(get_ref), at.len(), 0);
    report("scan forward", best(|| scan(&blocks, Direction::Forward)), data.keys.len(), data.bytes());
    report("scan reverse", best(|| scan(&blocks, Direction::Reverse)), data.keys.len(), data.bytes());
    Ok(())
}

/// The rows spread over several sources, brought together again.
fn merges(data: &Data) -> Result<(), FormatError> {
    let mut sources = Vec::new();
    for source in 0..SOURCES {
        sources.push(Table::open(data.build_every(source))?.blocks()?);
    }
    for direction in [Direction::Forward, Direction::Reverse] {
        let took = best(|| {
            let mut merge = Merge::new(SOURCES, direction);
            drive(&sources, direction, &mut merge, |merge| {
                black_box(merge.row());
            })
        });
        report(&format!("merge of {SOURCES}, {direction:?}"), took, data.keys.len(), data.bytes());
        let took = best(|| {
            let at = Visibility { max_seq: SeqNo(u64::MAX), now: Timestamp(0) };
            let mut visible = Visible::new(Merge::new(SOURCES, direction), at);
            drive(&sources, direction, &mut visible, |visible| {
                black_box(visible.row());
            })
        });
        report(&format!("visible rows of {SOURCES}, {direction:?}"), took, data.keys.len(), data.bytes());
    }
    let took = best(|| {
        let mut rewrite = Rewrite::new(&[], true, Some(Timestamp(0)));
        let mut builder = TableBuilder::new(TableOptions::default());
        let mut merge = Merge::new(SOURCES, Direction::Forward);
        drive(&sources, Direction::Forward, &mut merge, |merge| {
            if let Some(row) = merge.row().and_then(|row| rewrite.judge(row)) {
                builder.push(row);
            }
        });
        builder.finish("1-00000000000000aa-1").entry.len
    });
    report("merge, rewrite, build", took, data.keys.len(), data.bytes());
    Ok(())
}

/// Steps a merge of any kind to its end, feeding blocks as they are asked for.
fn drive<M: Stepped>(
    sources: &[Vec<Block>],
    direction: Direction,
    merge: &mut M,
    mut row: impl FnMut(&mut M),
) {
    let mut next = vec![0; sources.len()];
    loop {
        match merge.step() {
            Step::Need(i) => {
                let of = &sources[i];
                let at = if direction == Direction::Forward {
                    Some(next[i])
                } else {
                    of.len().checked_sub(next[i] + 1)
                };
                next[i] += 1;
                merge.feed(i, at.and_then(|at| of.get(at)).map_or(Feed::End, |block| feed(block, direction)));
            }
            Step::Row => {
                row(merge);
                merge.pop();
            }
            Step::Done => return,
        }
    }
}

trait Stepped {
    fn step(&mut self) -> Step;
    fn feed(&mut self, i: usize, feed: Feed);
    fn pop(&mut self);
}

macro_rules! stepped {
    ($($t:ty),*) => {$(
        impl Stepped for $t {
            fn step(&mut self) -> Step {
                self.step()
            }
            fn feed(&mut self, i: usize, feed: Feed) {
                self.feed(i, feed);
            }
            fn pop(&mut self) {
                self.pop();
            }
        }
    )*};
}
stepped!(Merge, Visible);

fn feed(block: &Block, direction: Direction) -> Feed {
    let mut cursor = block.cursor();
    match direction {
        Direction::Forward => cursor.first(),
        Direction::Reverse => cursor.last(),
    }
    Feed::Block(cursor)
}

fn scan(blocks: &[Block], direction: Direction) -> usize {
    let mut rows = 0;
    for block in blocks {
        let mut cursor = block.cursor();
        match direction {
            Direction::Forward => cursor.next(),
            Direction::Reverse => cursor.last(),
        }
        while cursor.is_on() {
            black_box(cursor.row());
            rows += 1;
            match direction {
                Direction::Forward => cursor.next(),
                Direction::Reverse => cursor.prev(),
            }
        }
    }
    rows
}

fn best<T>(mut f: impl FnMut() -> T) -> Duration {
    let round = |_| {
        let start = Instant::now();
        black_box(f());
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

fn report(what: &str, took: Duration, operations: usize, bytes: usize) {
    let each = took.as_nanos() as f64 / operations as f64;
    let rate = bytes as f64 / took.as_secs_f64() / 1e9;
    let rate = if bytes > 0 { format!("{rate:8.2} GB/s") } else { String::new() };
    println!("  {what:32} {each:10.1} ns/op {rate}");
}

struct Table {
    object: Bytes,
    offset: u64,
    meta: TableMeta,
}

impl Table {
    fn open(table: EncodedTable) -> Result<Self, FormatError> {
        let (object, offset) = (table.body.to_bytes(), table.entry.meta_offset);
        let meta = TableMeta::decode(object.slice(offset as usize..), offset)?;
        Ok(Self { object, offset, meta })
    }

    fn tail(&self) -> Bytes {
        self.object.slice(self.offset as usize..)
    }

    fn decode_meta(&self) -> Result<TableMeta, FormatError> {
        TableMeta::decode(self.tail(), self.offset)
    }

    fn blocks(&self) -> Result<Vec<Block>, FormatError> {
        (0..self.meta.block_count())
            .map(|i| {
                let range = self.meta.block_range(i);
                Block::decode_shared(&self.object.slice(range.start as usize..range.end as usize))
            })
            .collect()
    }
}

/// Sorted keys of 16 bytes and their values.
struct Data {
    keys: Vec<[u8; 16]>,
    values: Vec<u8>,
    value_len: usize,
}

impl Data {
    fn new(rows: usize, value_len: usize, text: bool) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut keys: Vec<[u8; 16]> =
            (0..rows).map(|_| ((u128::from(random()) << 64) | u128::from(random())).to_be_bytes()).collect();
        keys.sort_unstable();
        let mut values = Vec::with_capacity(rows * value_len + 8);
        while values.len() < rows * value_len {
            let n = random();
            if text {
                values.extend_from_slice(b"package-version: ");
                values.extend_from_slice((n % 1000).to_string().as_bytes());
            } else {
                values.extend_from_slice(&n.to_le_bytes());
            }
        }
        Self { keys, values, value_len }
    }

    fn key(&self, i: usize) -> &[u8] {
        &self.keys[i]
    }

    fn bytes(&self) -> usize {
        self.keys.len() * (16 + self.value_len)
    }

    fn row(&self, i: usize) -> RowRef<'_> {
        RowRef {
            key: self.key(i),
            seq: SeqNo((i * 7919 % self.keys.len()) as u64 + 1),
            time: Timestamp(1_700_000_000_000_000 + i as i64),
            expires: None,
            value: ValueRef::Put(&self.values[i * self.value_len..][..self.value_len]),
        }
    }

    fn build(&self, compression: Compression) -> EncodedTable {
        let mut builder = TableBuilder::new(TableOptions { compression, ..TableOptions::default() });
        (0..self.keys.len()).for_each(|i| builder.push(self.row(i)));
        builder.finish("1-00000000000000aa-1")
    }

    fn build_every(&self, source: usize) -> EncodedTable {
        let mut builder = TableBuilder::new(TableOptions::default());
        (source..self.keys.len()).step_by(SOURCES).for_each(|i| builder.push(self.row(i)));
        builder.finish("1-00000000000000aa-1")
    }
}
