//! What every format shares: the error, checksums, compression, sealed blocks, tagged sections, bounded reading.
//!
//! Pure: bytes in, bytes out. Every length and count read from bytes is bounded before anything is allocated, and
//! every checksum is verified before what it covers is used.
//!
//! ```text
//!   object = preamble · sealed blocks … · metadata (sections, index) · footer
//!            magic,     payload + how +     tagged: an unknown tag is
//!            version    checksum            skipped or refused, by its high bit
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`read`] | [`Reader`]: a cursor that cannot run past its end |
//! | [`varint`] | unsigned integers of one to ten bytes, one encoding each |
//! | [`checksum`] | CRC32C over pieces, joined without reading anything twice |
//! | [`block`] | [`Sealer`] and [`open`]: a block's compression and checksum |
//! | `codec` | the compression libraries, and what they keep from block to block |
//! | [`section`] | [`SectionWriter`] and [`Sections`]: metadata an older reader may skip or must refuse |
//! | [`preamble`] | magic and version |

pub mod block;
pub mod checksum;
mod codec;
pub mod preamble;
pub mod read;
pub mod section;
pub mod varint;

pub use block::{MAX_BLOCK_RAW, Sealed, Sealer, open};
pub use checksum::Crc;
pub use preamble::Preamble;
pub use read::Reader;
pub use section::{REQUIRED, SectionWriter, Sections};

/// Bytes that do not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A checksum does not match, or a structure contradicts itself: the object is damaged.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which structure: `table footer`, `log block`, …
        what: &'static str,
        /// What contradicts what.
        why: String,
    },
    /// The object was written by a newer version, or needs a feature this build does not know.
    #[error("{what} was written by a newer version: {why}")]
    TooNew {
        /// Which structure.
        what: &'static str,
        /// What is unknown.
        why: String,
    },
}

impl FormatError {
    /// A structure that contradicts itself.
    pub fn damaged(what: &'static str, why: impl Into<String>) -> Self {
        Self::Damaged { what, why: why.into() }
    }

    /// A structure from a newer version.
    pub fn too_new(what: &'static str, why: impl Into<String>) -> Self {
        Self::TooNew { what, why: why.into() }
    }
}

/// A part of an object that cannot be read, as a tool finds it that reads on past it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its bytes in the object.
    pub range: std::ops::Range<u64>,
    /// What is wrong with it.
    pub error: FormatError,
}

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 block format: cheap, the default.
    #[default]
    Lz4,
    /// zstd level 3: smaller, slower.
    Zstd,
}
