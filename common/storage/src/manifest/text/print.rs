//! Printing.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use serde_json::Value as Json;

use super::Span;
use crate::ids::Version;
use crate::manifest::staged::StagedMerge;
use crate::manifest::state::{
    CompactionMode, EpochStart, LogEntry, LogTail, Manifest, Retired, Run, Snapshot, TableEntry,
};
use crate::names::LogKind;

/// Writing to a `String` cannot fail, so the results of `write!` are dropped, in this one place.
struct Out(String);

impl Out {
    fn word(&mut self, word: impl Display) -> &mut Self {
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push(' ');
        }
        let _ = write!(self.0, "{word}");
        self
    }

    fn field(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.word(name);
        let _ = write!(self.0, "={value}");
        self
    }

    fn some(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    fn flag(&mut self, name: &str, set: bool) -> &mut Self {
        if set { self.word(name) } else { self }
    }

    fn list(&mut self, name: &str, items: &[String]) -> &mut Self {
        match items {
            [] => self,
            _ => self.field(name, quoted(&items)),
        }
    }

    /// Ends the line, with what a newer version has added.
    fn end(&mut self, extra: &BTreeMap<String, Json>) {
        if !extra.is_empty() {
            self.field("extra", quoted(extra));
        }
        self.0.push('\n');
    }
}

/// JSON. It fails only for maps whose keys are not texts; there is none among what is printed here.
fn quoted(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn hex(crc: u32) -> String {
    format!("{crc:#010x}")
}

fn span(t: &LogTail) -> Span {
    Span(t.id, t.last_seq)
}

pub(super) fn manifest(m: &Manifest) -> String {
    let nothing = BTreeMap::new();
    let mut out = Out(String::new());
    out.word("manifest").field("format", m.format).field("database", m.database).field("lineage", m.lineage);
    out.field("version", m.version).field("epoch", m.epoch).end(&m.extra);
    out.word("numbers").field("last", m.last_seq).field("last_time", m.last_write_time.0);
    out.field("flushed", m.flushed_seq).field("trimmed", m.trimmed_seq).field("floor", m.history_floor);
    out.some("expiry_floor", m.expiry_floor.map(|t| t.0)).end(&nothing);
    compaction(&mut out, &m.compaction);
    if let Some(us) = m.default_ttl_us {
        out.word("default_ttl").field("us", us).end(&nothing);
    }
    for feature in &m.required_features {
        out.word("requires").word(quoted(feature)).end(&nothing);
    }
    m.epochs.iter().for_each(|e| epoch(&mut out, e));
    if let Some(tail) = &m.tail {
        out.word("tail").word(span(tail)).end(&nothing);
    }
    m.log.iter().for_each(|e| log(&mut out, e));
    m.runs.iter().for_each(|r| run(&mut out, r));
    m.staged.iter().for_each(|(id, merge)| staged(&mut out, *id, merge));
    if let Some(pause) = &m.pause {
        out.word("pause").field("by", quoted(&pause.by)).field("since", pause.since.0);
        out.some("until", pause.until.map(|u| u.0)).end(&nothing);
    }
    for (name, len) in m.blobs.iter() {
        out.word("blob").word(quoted(name)).field("len", len).end(&nothing);
    }
    m.snapshots.iter().for_each(|(name, s)| snapshot(&mut out, name, s));
    m.retired.iter().for_each(|r| retired(&mut out, r));
    for (id, claim) in &m.jobs {
        out.word("job").word(id).field("node", quoted(&claim.node)).field("beat", claim.beat);
        out.some("at", claim.at).end(&nothing);
    }
    for (name, cursor) in &m.groups {
        out.word("group").word(quoted(name)).field("seq", cursor.seq);
        let max_lag = (!cursor.max_lag.is_default()).then(|| quoted(&cursor.max_lag));
        out.some("max_lag", max_lag).end(&cursor.extra);
    }
    for (version, id) in &m.recent {
        out.word("commit").word(version).word(id).end(&nothing);
    }
    out.0
}

fn compaction(out: &mut Out, mode: &CompactionMode) {
    out.word("compaction");
    match mode {
        CompactionMode::Merge => out.field("mode", "merge"),
        CompactionMode::Leveled => out.field("mode", "leveled"),
        CompactionMode::Fifo { retention_us, retention_count } => out
            .field("mode", "fifo")
            .field("retention_us", retention_us)
            .field("retention_count", retention_count),
        CompactionMode::TimeWindow { segment_us, retention_us, retention_count } => out
            .field("mode", "time_window")
            .field("segment_us", segment_us)
            .field("retention_us", retention_us)
            .field("retention_count", retention_count),
    };
    out.end(&BTreeMap::new());
}

fn epoch(out: &mut Out, e: &EpochStart) {
    out.word("epoch").word(e.epoch).field("incarnation", e.incarnation);
    out.some("cut", e.cut.as_ref().map(span)).end(&BTreeMap::new());
}

fn log(out: &mut Out, e: &LogEntry) {
    let kind = match e.kind {
        LogKind::Segment => "segment",
        LogKind::Chunk => "chunk",
    };
    out.word("log")
        .word(kind)
        .word(Span(e.id, e.last_seq))
        .field("len", e.len)
        .field("index", e.index_offset);
    out.field("crc", hex(e.crc)).field("time", format_args!("{}..{}", e.first_time.0, e.last_time.0));
    out.field("raw", e.raw_bytes).flag("starts", e.starts_generation).list("blobs", &e.blobs).end(&e.extra);
}

fn run(out: &mut Out, r: &Run) {
    out.word("run").word(r.id).flag("l0", r.l0).end(&BTreeMap::new());
    r.tables.iter().for_each(|t| table(out, t));
}

fn staged(out: &mut Out, id: Version, m: &StagedMerge) {
    out.word("staged").word(id).field("inputs", quoted(&m.inputs)).field("splits", quoted(&m.splits));
    if !m.snapshots.is_empty() {
        out.field("snapshots", quoted(&m.snapshots));
    }
    out.field("mode", quoted(&m.planned_mode)).field("touched", m.touched.0);
    out.some("expiry", m.expiry.as_ref().map(quoted));
    out.flag("bottom", m.bottom).end(&m.extra);
    for (i, part) in &m.parts {
        out.word("part").word(i).field("judged", part.judged).flag("dropped", part.dropped);
        out.some("expired_by", part.expired_by.map(|t| t.0));
        out.end(&BTreeMap::new());
        part.tables.iter().for_each(|t| table(out, t));
    }
}

fn table(out: &mut Out, t: &TableEntry) {
    out.word("table")
        .word(quoted(&t.name))
        .field("len", t.len)
        .field("meta", t.meta_offset)
        .field("crc", hex(t.crc));
    out.field("from", quoted(&t.smallest)).field("to", quoted(&t.largest));
    out.field("seq", format_args!("{}..{}", t.min_seq, t.max_seq));
    out.field("time", format_args!("{}..{}", t.min_time.0, t.max_time.0));
    out.field("rows", t.rows).field("deletes", t.deletes).field("raw", t.raw_bytes);
    out.some("min_expires", t.min_expires.map(|e| e.0));
    out.some("expiring", t.expiring.map(|e| format!("{}..{}", e.rows, e.last.0)));
    out.list("blobs", &t.blobs);
    if !t.blob_use.is_empty() {
        out.field("used", quoted(&t.blob_use));
    }
    out.end(&t.extra);
}

fn snapshot(out: &mut Out, name: &str, s: &Snapshot) {
    out.word("snapshot").word(quoted(name)).field("seq", s.seq).field("created", s.created.0);
    out.some("expires", s.expires.map(|e| e.0)).flag("holds_log", s.holds_log).end(&s.extra);
}

fn retired(out: &mut Out, r: &Retired) {
    out.word("retired").word(&r.path).field("len", r.len).field("version", r.version).list("blobs", &r.blobs);
    out.end(&BTreeMap::new());
}
