//! Newtypes for everything that is counted or named: sequence numbers, epochs, versions, incarnations, lineages.
//!
//! They are validated at construction, order as their numbers do, and print as they are written in object names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that should have been an id and was not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {why}")]
pub struct InvalidId {
    /// What was expected: `lineage`, `job id`, …
    pub what: &'static str,
    /// The offending text.
    pub text: String,
    /// The rule it breaks.
    pub why: &'static str,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before the first one: "none yet".
            pub const ZERO: Self = Self(0);

            /// The one after this. Saturates, so that a hostile number from outside is refused by whoever compares
            /// it and never overflows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The number itself.
            #[must_use]
            pub fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(n: u64) -> Self {
                Self(n)
            }
        }
    };
}

number! {
    /// Sequence number of a mutation: dense from 1, assigned by the writer in commit order, never reused once
    /// committed. Zero means "before the first mutation".
    SeqNo
}
number! {
    /// Fencing token of one writer incarnation; grows by one at every takeover. Zero: nobody has ever written.
    Epoch
}
number! {
    /// Version of the manifest; grows by one with every edit.
    Version
}
number! {
    /// Identity of a sorted run within one database.
    RunId
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $what:literal, $digits:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:0width$x}", self.0, width = $digits)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let bad = |why| InvalidId { what: $what, text: text.to_owned(), why };
                if text.len() != $digits || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(bad(concat!("expected ", stringify!($digits), " lower-case hexadecimal digits")));
                }
                <$int>::from_str_radix(text, 16).map(Self).map_err(|_| bad("not a hexadecimal number"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// 64 random bits drawn at every claim of the writer's role, so that names are never used twice even where an
    /// epoch number is issued again by a restored etcd.
    Incarnation(u64), "incarnation", 16
}
hex_id! {
    /// Random identity of one history of a database: new at creation and at every recover.
    Lineage(u128), "lineage", 32
}
hex_id! {
    /// Random identity of a database, for ever.
    DatabaseId(u128), "database id", 32
}
hex_id! {
    /// Random identity of one commit, carried by the edit and by the head.
    CommitId(u64), "commit id", 16
}
hex_id! {
    /// Random identity of one compaction job.
    JobId(u64), "job id", 16
}

/// An instant of write time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// This instant and `d` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, d: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This instant and `d` earlier; saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, d: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// A write's full position: the epoch that accepted it and its sequence number, written `<epoch>.<seq>`.
///
/// A committed sequence number is never reused, but one answered with `ack=memory` or `ack=disk` may be, by a later
/// epoch, if it was lost; the epoch tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The mutation's sequence number.
    pub seq: SeqNo,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parsed = text.split_once('.').and_then(|(e, s)| Some((e.parse().ok()?, s.parse().ok()?)));
        let (epoch, seq) = parsed.ok_or_else(|| InvalidId {
            what: "position",
            text: text.to_owned(),
            why: "expected <epoch>.<sequence number>",
        })?;
        Ok(Self { epoch: Epoch(epoch), seq: SeqNo(seq) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_ids_round_trip_and_refuse_other_texts() {
        let id = Lineage(0xdead_beef);
        assert_eq!(id.to_string().parse::<Lineage>().unwrap(), id);
        for bad in ["", "xyz", "DEADBEEFDEADBEEFDEADBEEFDEADBEEF", "0", "+0000000000000000000000000000001"] {
            assert!(bad.parse::<Lineage>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_round_trip() {
        let p: Position = "7.42".parse().unwrap();
        assert_eq!((p.epoch, p.seq), (Epoch(7), SeqNo(42)));
        assert_eq!(p.to_string(), "7.42");
        assert!("42".parse::<Position>().is_err());
    }
}
