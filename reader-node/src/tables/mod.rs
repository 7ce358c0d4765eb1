//! Tables as the reader meets them: which there are, what of them is in memory, and how the rest is fetched.
//!
//! ```text
//!   Catalog ── handles of a view's tables, kept while a view names them
//!   Cache   ── decoded blocks and metadata under one byte budget
//!   Reads   ── a miss: one flight per range, admitted by permits, verified, decoded, cached
//! ```

mod cache;
mod catalog;
mod reads;
mod values;

pub(crate) use cache::Cache;
pub(crate) use catalog::{Catalog, RunTables, Table};
pub(crate) use reads::{FetchError, Reads, Window};
pub use values::OpenValue;
pub(crate) use values::WINDOW_BYTES;
