//! Tables: rows sorted by (key ascending, sequence number descending).
//!
//! ```text
//! ┌──────────────┬──────────────┬─ … ─┬────────┬───────┬────────────┬────────┐
//! │ data block 0 │ data block 1 │     │ filter │ index │ properties │ footer │
//! └──────────────┴──────────────┴─ … ─┴────────┴───────┴────────────┴────────┘
//!  about 16 KiB of rows each,          └── one ranged read from `meta_offset` ──┘
//!  checksummed by themselves
//! ```
//!
//! With a table's metadata at hand ([`TableMeta`]) a key is at most one block away: the filter admits it or not, the
//! index names the block, and [`Block::get`] searches that without allocating. Everything is decoded once and wholly
//! checked; after that cursors and lookups cannot fail.
//!
//! Versions of one key may straddle blocks. So the index seeks the *first* block that may hold a key, a lookup can
//! answer [`Lookup::Next`], and the index knows for each block whether its last key goes on.
//!
//! | file | holds |
//! | --- | --- |
//! | `entry` | one row in a block, byte by byte |
//! | `block`, `block_encoder` | [`Block`]: restart points, lookup |
//! | `check` | what is proved of a block before it is used |
//! | `cursor` | [`BlockCursor`]: both ways through a block |
//! | `filter` | the key filter |
//! | `index` | separators and lengths of the blocks |
//! | `properties` | [`Properties`]: counts and bounds |
//! | `meta` | [`TableMeta`]: the three above, their checksums, the footer |
//! | `builder` | [`TableBuilder`] |
//! | `audit` | [`TableAudit`]: whether a table says the truth of its rows |
//! | `salvage` | [`Salvage`]: what can still be read of a damaged table |
//!
//! All of it is pure: bytes in, bytes out.

mod audit;
mod block;
mod block_encoder;
mod builder;
mod check;
mod cursor;
mod entry;
mod filter;
mod index;
mod meta;
mod properties;
mod salvage;

pub use audit::TableAudit;
pub use block::{Block, Lookup, LookupRef};
pub use builder::{EncodedTable, TableBuilder};
pub use cursor::BlockCursor;
pub(crate) use meta::ends_like_a_table;
pub use meta::{FOOTER_LEN, TableMeta, meta_offset};
pub use properties::Properties;
pub use salvage::Salvage;

use crate::format::Compression;

/// How a table is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// A data block is closed at about this many bytes of rows.
    pub block_bytes: usize,
    /// How data blocks are compressed.
    pub compression: Compression,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { block_bytes: 16 * 1024, compression: Compression::Lz4 }
    }
}
