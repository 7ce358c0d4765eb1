//! What is recorded.
//!
//! Order is all the time there is: an invocation is recorded before its request leaves, an answer after it has
//! arrived. What happened in between happened in between; whatever was answered before something else was invoked
//! happened before it.
//!
//! A history is judged best where every put has a value of its own: two equal values under one key cannot be told
//! apart where an outcome is unknown. A single delete needs no care; a batch should hold at least one put.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::{Digest, Key};
use crate::log::{Op, Record};

/// The name of a process incarnation, a client's session, a consumer, a snapshot.
pub type Name = Arc<str>;

/// An operation: the index of its invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// An event with its place in the order of real time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Counted from 0 through the whole run.
    pub index: u64,
    /// What happened.
    pub event: Arc<Event>,
}

/// What a mutation writes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This key.
    Key(Key),
    /// The key `<stream>/<sequence number as 16 hexadecimal digits>`, known once the number is.
    Stream(Key),
}

impl Target {
    /// The key it writes when its number is `seq`.
    #[must_use]
    pub fn key_at(&self, seq: u64) -> Key {
        match self {
            Self::Key(key) => key.clone(),
            Self::Stream(stream) => {
                let mut bytes = stream.as_bytes().to_vec();
                bytes.extend_from_slice(format!("/{seq:016x}").as_bytes());
                Key::new(&bytes)
            }
        }
    }
}

/// One mutation as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// Where to.
    pub target: Target,
    /// What.
    pub op: Op,
    /// How long it shall be visible, in microseconds.
    pub ttl: Option<i64>,
}

impl Mutation {
    /// A put that never expires.
    #[must_use]
    pub fn put(key: Key, value: &[u8]) -> Self {
        Self { target: Target::Key(key), op: Op::Put(Digest::of(value)), ttl: None }
    }

    /// A delete.
    #[must_use]
    pub fn delete(key: Key) -> Self {
        Self { target: Target::Key(key), op: Op::Delete, ttl: None }
    }

    /// An appended event.
    #[must_use]
    pub fn event(stream: Key, value: &[u8]) -> Self {
        Self { target: Target::Stream(stream), op: Op::Put(Digest::of(value)), ttl: None }
    }

    /// The same, visible for `micros` only.
    #[must_use]
    pub fn expiring(mut self, micros: i64) -> Self {
        self.ttl = Some(micros);
        self
    }
}

/// What an acknowledgement promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// The write is committed.
    Bucket,
    /// The write is accepted; it stands at its numbers or is lost.
    Provisional,
}

/// How a write ended, as its client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOutcome {
    /// Acknowledged: an atomic batch at exactly these numbers.
    Acknowledged {
        /// The writer's epoch.
        epoch: u64,
        /// The number of the first mutation.
        first_seq: u64,
        /// The number of the last.
        last_seq: u64,
        /// What the acknowledgement promises.
        ack: Ack,
    },
    /// An ingest (not atomic): its first `lines` mutations are committed in their order, the last of them as
    /// `last_seq`. One that was not refused as a whole is always answered with this, a broken connection included:
    /// without it, it would be taken for an atomic batch.
    Streamed {
        /// Committed mutations, counted from the first.
        lines: u64,
        /// The number of the last of them; unused when there is none.
        last_seq: u64,
        /// Whether those after them may have been committed too (in their order, up to some point). False: certainly
        /// not.
        rest_unknown: bool,
    },
    /// Certainly not applied, with the code that said so.
    Refused {
        /// The error's code.
        code: String,
    },
    /// May have been applied, whole, or not at all.
    Unknown {
        /// Why nobody knows: a code, a broken connection.
        why: String,
    },
}

/// What a read asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// These keys; the answer holds the rows of those present, in this order.
    Keys(Vec<Key>),
    /// A half-open range. A page's range starts where its predecessor ended.
    Range {
        /// First key.
        start: Key,
        /// First key beyond, if bounded.
        end: Option<Key>,
        /// Rows at most.
        limit: Option<u64>,
        /// Highest key first.
        reverse: bool,
    },
}

/// A page of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// A name that the pages of this scan share, and nothing else until another first page takes it.
    pub scan: Name,
    /// Whether this is the scan's first page. Later ones continue by token: their view may be an older one.
    pub first: bool,
    /// Whether the reader promised that every page answers from one view.
    pub consistent: bool,
}

/// A read as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Which keys.
    pub want: Want,
    /// The view must hold this number.
    pub min_seq: Option<u64>,
    /// Set on every page of a paged scan.
    pub page: Option<Page>,
    /// The named snapshot it was read at.
    pub snapshot: Option<Name>,
}

impl Query {
    /// A get of one key or of several, from whatever view is current.
    #[must_use]
    pub fn keys(keys: impl IntoIterator<Item = Key>) -> Self {
        Self::of(Want::Keys(keys.into_iter().collect()))
    }

    /// A whole range, forward, from whatever view is current.
    #[must_use]
    pub fn range(start: Key, end: Option<Key>) -> Self {
        Self::of(Want::Range { start, end, limit: None, reverse: false })
    }

    /// This, from whatever view is current.
    #[must_use]
    pub fn of(want: Want) -> Self {
        Self { want, min_seq: None, page: None, snapshot: None }
    }

    /// The same, from a view that holds `seq`.
    #[must_use]
    pub fn at_least(mut self, seq: u64) -> Self {
        self.min_seq = Some(seq);
        self
    }
}

/// A row as an answer showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    /// Its key.
    pub key: Key,
    /// Its number, where the answer told.
    pub seq: Option<u64>,
    /// Its value, where the answer told.
    pub value: Option<Digest>,
}

/// The instants, microseconds since 1970, between which the reader judged expiry. One read judges at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Not before.
    pub from: i64,
    /// Not after.
    pub to: i64,
}

/// What a read was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAnswer {
    /// The rows, in the order of the answer.
    pub rows: Vec<SeenRow>,
    /// The view it was read from.
    pub view_seq: u64,
    /// Whether the answer said that the range goes on (a next page).
    pub more: bool,
    /// When expiry was judged; without it every row with an expiry may be there or not.
    pub judged: Option<Span>,
}

/// Where a consumer (re)starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// After this number: a cursor.
    After(u64),
    /// Wherever the log starts when asked.
    Earliest,
    /// Anywhere: `latest`, a time.
    Anywhere,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A client is about to send a write: an atomic batch, or the lines of an ingest.
    WriteInvoked {
        /// Who.
        client: Name,
        /// What, in order.
        mutations: Vec<Mutation>,
    },
    /// A write ended.
    WriteAnswered {
        /// Which.
        op: OpId,
        /// How.
        outcome: WriteOutcome,
    },
    /// A client is about to send a read.
    ReadInvoked {
        /// Who.
        client: Name,
        /// The reader's process incarnation, where the client knows which one will answer.
        reader: Option<Name>,
        /// The session whose views must never go back, if the client keeps one (one reader, or `min_seq` set to what
        /// it saw last).
        session: Option<Name>,
        /// What.
        query: Query,
    },
    /// A read was answered.
    ReadAnswered {
        /// Which.
        op: OpId,
        /// With what.
        answer: ReadAnswer,
    },
    /// A read failed.
    ReadFailed {
        /// Which.
        op: OpId,
        /// The error's code, or why there is none.
        code: String,
    },
    /// A process told which view it holds. To be recorded in the order the views were held.
    ViewReported {
        /// The process incarnation.
        process: Name,
        /// The lineage, where known.
        lineage: Option<Name>,
        /// The manifest's version.
        version: u64,
        /// The last number of the view.
        seq: u64,
    },
    /// A named snapshot was taken at a number. A name is used once in a history.
    SnapshotTaken {
        /// Its name.
        name: Name,
        /// Its number.
        seq: u64,
    },
    /// A consumer started, or started again.
    ConsumerStarted {
        /// Who.
        consumer: Name,
        /// Where.
        from: Start,
        /// Only keys that start with this.
        prefix: Option<Key>,
    },
    /// A change was delivered to a consumer.
    Delivered {
        /// To whom.
        consumer: Name,
        /// The change.
        record: Record,
    },
    /// A consumer was told that everything up to here has been delivered to it (a heartbeat, a page's `next`).
    Advanced {
        /// Who.
        consumer: Name,
        /// The number of the cursor.
        through: u64,
    },
    /// Something that explains: a process killed, a partition healed. Judged by nobody, printed in context.
    Remark {
        /// What.
        text: String,
    },
}
