//! What a fault makes of an operation's answer.

use bytes::Bytes;
use isle_storage::object::{Copied, ObjectMeta, StoredPart, UploadId};

use super::Fault;

/// What faults can do to an operation's answer.
pub(super) trait Answer: Sized {
    /// The answer of a store that did nothing.
    fn lie(path: &str) -> Self;

    /// Bytes read.
    fn read(&self) -> u64 {
        0
    }

    /// The answer with its bytes damaged.
    fn damage(self, _: &Fault) -> Self {
        self
    }
}

impl Answer for () {
    fn lie(_: &str) -> Self {}
}

impl Answer for Bytes {
    fn lie(_: &str) -> Self {
        Self::new()
    }

    fn read(&self) -> u64 {
        self.len() as u64
    }

    fn damage(self, fault: &Fault) -> Self {
        match *fault {
            Fault::Truncate(len) => self.slice(..len.min(self.len())),
            Fault::FlipBit(offset) if !self.is_empty() => {
                let mut bytes = self.to_vec();
                let at = offset.rem_euclid(bytes.len() as i64) as usize;
                bytes[at] ^= 1;
                bytes.into()
            }
            _ => self,
        }
    }
}

impl Answer for Copied {
    fn lie(_: &str) -> Self {
        Self::ByReference
    }
}

impl Answer for UploadId {
    fn lie(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl Answer for StoredPart {
    fn lie(_: &str) -> Self {
        Self { len: 0, tag: String::new() }
    }
}

impl Answer for ObjectMeta {
    fn lie(path: &str) -> Self {
        Self { path: path.to_owned(), len: 0, last_modified: isle_storage::ids::Timestamp::default() }
    }
}
