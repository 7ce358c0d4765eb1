//! Events and violations in words.

use std::fmt;

use crate::event::{Event, Mutation, Query, ReadAnswer, Stamped, Target, Want, WriteOutcome};

/// Mutations and rows printed of one event; the rest is counted.
const SHOWN: usize = 12;

/// The items, the first few of them, separated by commas.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().take(SHOWN).enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
    }
    if items.len() > SHOWN { write!(f, ", … {} more", items.len() - SHOWN) } else { Ok(()) }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Key(key) => write!(f, "{key:?} {}", self.op)?,
            Target::Stream(stream) => write!(f, "event of {stream:?} {}", self.op)?,
        }
        self.ttl.map_or(Ok(()), |ttl| write!(f, " for {ttl} µs"))
    }
}

impl fmt::Display for WriteOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged { epoch, first_seq, last_seq, ack } => {
                write!(f, "acknowledged ({ack:?}) as {first_seq} to {last_seq} of epoch {epoch}")
            }
            Self::Streamed { lines, last_seq, rest_unknown } => {
                let rest = if *rest_unknown { "unknown" } else { "not applied" };
                write!(f, "{lines} lines committed, the last as {last_seq}; the rest is {rest}")
            }
            Self::Refused { code } => write!(f, "refused: {code}"),
            Self::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.want {
            Want::Keys(keys) => {
                f.write_str("keys ")?;
                let keys: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
                list(f, &keys)?;
            }
            Want::Range { start, end, limit, reverse } => {
                write!(f, "range [{start:?}, ")?;
                match end {
                    Some(end) => write!(f, "{end:?})")?,
                    None => f.write_str("the end)")?,
                }
                limit.map_or(Ok(()), |n| write!(f, " limit {n}"))?;
                f.write_str(if *reverse { " reverse" } else { "" })?;
            }
        }
        self.min_seq.map_or(Ok(()), |n| write!(f, " min_seq {n}"))?;
        self.snapshot.as_ref().map_or(Ok(()), |s| write!(f, " of snapshot {s}"))?;
        self.page.as_ref().map_or(Ok(()), |p| {
            let kind = if p.first { "first" } else { "next" };
            write!(f, " ({kind} page of {}{})", p.scan, if p.consistent { ", consistent" } else { "" })
        })
    }
}

impl fmt::Display for ReadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "view {} with {} rows", self.view_seq, self.rows.len())?;
        if let Some(at) = self.judged {
            write!(f, " judged in [{}, {}]", at.from, at.to)?;
        }
        let rows: Vec<String> = self.rows.iter().map(ToString::to_string).collect();
        f.write_str(if rows.is_empty() { "" } else { ": " })?;
        list(f, &rows)?;
        f.write_str(if self.more { ", and more to come" } else { "" })
    }
}

impl fmt::Display for crate::event::SeenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.key)?;
        self.seq.map_or(Ok(()), |seq| write!(f, " seq {seq}"))?;
        self.value.map_or(Ok(()), |value| write!(f, " {value}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteInvoked { client, mutations } => {
                write!(f, "{client} writes ")?;
                list(f, mutations)
            }
            Self::WriteAnswered { op, outcome } => write!(f, "write {} {outcome}", op.0),
            Self::ReadInvoked { client, reader, session, query } => {
                write!(f, "{client} reads {query}")?;
                reader.as_ref().map_or(Ok(()), |r| write!(f, " from {r}"))?;
                session.as_ref().map_or(Ok(()), |s| write!(f, " in session {s}"))
            }
            Self::ReadAnswered { op, answer } => write!(f, "read {} answered {answer}", op.0),
            Self::ReadFailed { op, code } => write!(f, "read {} failed: {code}", op.0),
            Self::ViewReported { process, lineage, version, seq } => {
                write!(f, "{process} holds version {version} up to {seq}")?;
                lineage.as_ref().map_or(Ok(()), |l| write!(f, " of lineage {l}"))
            }
            Self::SnapshotTaken { name, seq } => write!(f, "snapshot {name} taken at {seq}"),
            Self::ConsumerStarted { consumer, from, prefix } => {
                write!(f, "consumer {consumer} starts {from:?}")?;
                prefix.as_ref().map_or(Ok(()), |p| write!(f, " with prefix {p:?}"))
            }
            Self::Delivered { consumer, record } => write!(f, "consumer {consumer} gets {record}"),
            Self::Advanced { consumer, through } => write!(f, "consumer {consumer} is told it has {through}"),
            Self::Remark { text } => write!(f, "-- {text}"),
        }
    }
}

impl fmt::Display for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.index, self.event)
    }
}
