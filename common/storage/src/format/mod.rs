//! What every format shares: the error, checksums, compression, variable-length integers.
//!
//! Pure: bytes in, bytes out. Every length and count read from bytes is bounded before anything is allocated.

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
