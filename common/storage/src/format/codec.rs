//! The compression libraries, with what they want to keep from block to block: a context, a table, a buffer. To make
//! them anew for each block costs as much as a small block itself.

use std::cell::RefCell;

use lz4_flex::block::{self as lz4, CompressTable};
use zstd::bulk;
use zstd::zstd_safe::compress_bound;

use super::Compression;

const ZSTD_LEVEL: i32 = 3;

/// Compresses one block after the other.
pub(super) struct Compressor {
    kind: Kind,
    /// What the newest block became; its memory is used again.
    out: Vec<u8>,
}

enum Kind {
    None,
    Lz4(CompressTable),
    /// `None` where the library could not make one: then nothing is compressed.
    Zstd(Option<bulk::Compressor<'static>>),
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Self {
        let kind = match compression {
            Compression::None => Kind::None,
            Compression::Lz4 => Kind::Lz4(CompressTable::default()),
            Compression::Zstd => Kind::Zstd(bulk::Compressor::new(ZSTD_LEVEL).ok()),
        };
        Self { kind, out: Vec::new() }
    }

    /// The compressed form of `raw`.
    pub(super) fn compress(&mut self, raw: &[u8]) -> Option<&[u8]> {
        match &mut self.kind {
            Kind::None => None,
            Kind::Lz4(table) => {
                let most = lz4::get_maximum_output_size(raw.len());
                if self.out.len() < most {
                    self.out.resize(most, 0);
                }
                let len = lz4::compress_into_with_table(raw, &mut self.out, table).ok()?;
                self.out.get(..len)
            }
            Kind::Zstd(context) => {
                self.out.clear();
                self.out.reserve(compress_bound(raw.len()));
                context.as_mut()?.compress_to_buffer(raw, &mut self.out).ok()?;
                Some(&self.out)
            }
        }
    }
}

/// What the LZ4 block `payload` holds, which must be `raw_len` bytes; or why not.
pub(super) fn expand_lz4(payload: &[u8], raw_len: usize) -> Result<Vec<u8>, String> {
    let mut raw = vec![0; raw_len];
    match lz4::decompress_into(payload, &mut raw) {
        Ok(n) if n == raw_len => Ok(raw),
        Ok(n) => Err(format!("{n} bytes where {raw_len} were declared")),
        Err(e) => Err(format!("LZ4: {e}")),
    }
}

/// What the zstd frame `payload` holds, which must be `raw_len` bytes; or why not.
pub(super) fn expand_zstd(payload: &[u8], raw_len: usize) -> Result<Vec<u8>, String> {
    thread_local! {
        static CONTEXT: RefCell<Option<bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let mut raw = Vec::with_capacity(raw_len);
    let expanded = CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Some(bulk::Decompressor::new()?);
        }
        let Some(context) = context else { return Ok(0) };
        context.decompress_to_buffer(payload, &mut raw)
    });
    match expanded {
        Ok(n) if n == raw_len => Ok(raw),
        Ok(n) => Err(format!("{n} bytes where {raw_len} were declared")),
        Err(e) => Err(format!("zstd: {e}")),
    }
}
