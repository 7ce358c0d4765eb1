//! Settings from four layers: flag over environment (`ISLE__<SECTION>__<NAME>`) over file (TOML) over default.
//!
//! ```text
//! isle.toml ──┐
//! ISLE__… ────┼──> Tree (every value with its origin) ──> section("writer") ──> plain struct
//! flags ──────┘
//! ```
//!
//! One file serves every program: the sections of other roles are let through unread. Whatever a program does read is
//! read strictly: an unknown key is an error that names the nearest known one and where it was written.

mod args;
mod de;
mod error;
mod print;
mod settings;
mod tree;

pub use args::CommonArgs;
pub use error::ConfigError;
pub use print::print;
pub use settings::{
    CoordinationSettings, DEFAULT_DATABASE, LogFormat, LogSettings, ServerSettings, Settings, StoreSettings,
    check_database_name, duration,
};
pub use tree::{Layers, SECTIONS};

/// A size as flags give it: `20GiB`, `500MB`, or plain bytes.
///
/// # Errors
/// A sentence saying what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let parsed: Result<bytesize::ByteSize, _> = text.parse();
    parsed.map(|s| s.as_u64()).map_err(|_| format!("{text:?} is not a size such as 20GiB, 500MB or 1048576"))
}

/// The known name nearest to `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
