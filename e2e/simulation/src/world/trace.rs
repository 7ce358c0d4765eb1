//! The log of what happened, one line an event. Its hash is the run's fingerprint; its text is kept on request only.

use std::fmt::{self, Write};

use xxhash_rust::xxh3::Xxh3;

use super::{MILLI, Micros};

/// A hash, and the text it is of.
pub struct Trace {
    hash: Box<Xxh3>,
    buffer: String,
    text: Option<String>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace {:016x}", self.fingerprint())
    }
}

impl Trace {
    /// An empty log.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self { hash: Box::new(Xxh3::new()), buffer: String::new(), text: keep.then(String::new) }
    }

    pub(super) fn line(&mut self, now: Micros, line: fmt::Arguments<'_>) {
        self.buffer.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(self.buffer, "{:>6}.{:03} {line}", now / MILLI, now % MILLI);
        self.hash.update(self.buffer.as_bytes());
        if let Some(text) = &mut self.text {
            text.push_str(&self.buffer);
        }
    }

    /// The hash of every line so far.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hash.digest()
    }

    /// The lines, where they were kept.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}
