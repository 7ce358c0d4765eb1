//! Parsing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Span;
use super::line::{Line, json};
use crate::ids::{DatabaseId, Lineage, RunId, SeqNo, Timestamp, Version};
use crate::manifest::staged::{Pause, StagedMerge, StagedPart};
use crate::manifest::state::{
    CompactionMode, EpochStart, Expiring, GroupCursor, JobClaim, LogEntry, LogTail, Manifest, Retired, Run,
    Snapshot, TableEntry,
};
use crate::names::{LogKind, ObjectPath};

pub(super) fn manifest(text: &str) -> Result<Manifest, String> {
    let mut m = Manifest::genesis(DatabaseId(0), Lineage(0), CompactionMode::Merge);
    m.format = 0;
    for (n, line) in text.lines().enumerate() {
        if !line.is_empty() && !line.starts_with('#') {
            take(&mut m, line).map_err(|why| format!("line {}: {why}", n + 1))?;
        }
    }
    if m.format == 0 { Err("there is no line `manifest format=…`".to_owned()) } else { Ok(m) }
}

fn take(m: &mut Manifest, line: &str) -> Result<(), String> {
    let mut l = Line::new(line)?;
    match l.word("what the line is about")? {
        "manifest" => head(m, &mut l)?,
        "numbers" => numbers(m, &mut l)?,
        "compaction" => m.compaction = compaction(&mut l)?,
        "default_ttl" => m.default_ttl_us = Some(l.field("us")?),
        "requires" => m.required_features.push(l.text("feature")?),
        "epoch" => m.epochs.push(epoch(&mut l)?),
        "tail" => m.tail = Some(link(l.word("segment")?)?),
        "log" => m.log.push(Arc::new(log(&mut l)?)),
        "run" => m.runs.push(Arc::new(run(&mut l)?)),
        "table" => {
            let table = Arc::new(table(&mut l)?);
            tables_above(m).ok_or("a table without a run or a part above it")?.push(table);
        }
        "blob" => {
            let name = l.text("name")?;
            Arc::make_mut(&mut m.blobs).insert(name, l.field("len")?);
        }
        "staged" => {
            let id = count(&mut l, "version")?.into();
            m.staged.insert(id, Arc::new(staged(&mut l)?));
        }
        "part" => {
            let i = l.value("part")?;
            let part = StagedPart {
                judged: SeqNo(l.field("judged")?),
                dropped: l.flag("dropped"),
                expired_by: l.optional("expired_by")?.map(Timestamp),
                tables: Vec::new(),
            };
            let merge = m.staged.values_mut().next_back().ok_or("a part without a merge above it")?;
            Arc::make_mut(merge).parts.insert(i, Arc::new(part));
        }
        "pause" => {
            m.pause = Some(Pause {
                by: json("by", l.need("by")?)?,
                since: Timestamp(l.field("since")?),
                until: l.optional("until")?.map(Timestamp),
            });
        }
        "snapshot" => {
            let name = l.text("name")?;
            m.snapshots.insert(name, snapshot(&mut l)?);
        }
        "retired" => m.retired.push(Arc::new(retired(&mut l)?)),
        "job" => {
            let id = l.value("job")?;
            let claim = JobClaim {
                node: json("node", l.need("node")?)?,
                beat: l.field("beat")?,
                at: l.optional("at")?.map(Version),
            };
            m.jobs.insert(id, claim);
        }
        "group" => {
            let name = l.text("name")?;
            let cursor = GroupCursor { seq: seq(&mut l)?, max_lag: l.json("max_lag")?, extra: l.extra()? };
            m.groups.insert(name, cursor);
        }
        "commit" => m.recent.push((count(&mut l, "version")?.into(), l.value("commit")?)),
        other => return Err(format!("{other:?} is no fact of a manifest")),
    }
    l.end()
}

/// Where a table on the next line belongs: merges in parts stand behind all runs, in ascending order.
fn tables_above(m: &mut Manifest) -> Option<&mut Vec<Arc<TableEntry>>> {
    match m.staged.values_mut().next_back() {
        Some(merge) => {
            let part = Arc::make_mut(merge).parts.values_mut().next_back()?;
            Some(&mut Arc::make_mut(part).tables)
        }
        None => m.runs.last_mut().map(|run| &mut Arc::make_mut(run).tables),
    }
}

fn staged(l: &mut Line<'_>) -> Result<StagedMerge, String> {
    Ok(StagedMerge {
        inputs: l.json("inputs")?,
        splits: l.json("splits")?,
        snapshots: l.json("snapshots")?,
        planned_mode: json("mode", l.need("mode")?)?,
        bottom: l.flag("bottom"),
        expiry: l.find("expiry").map(|text| json("expiry", text)).transpose()?,
        touched: Timestamp(l.field("touched")?),
        parts: BTreeMap::new(),
        extra: l.extra()?,
    })
}

fn count(l: &mut Line<'_>, what: &str) -> Result<u64, String> {
    l.value(what)
}

fn seq(l: &mut Line<'_>) -> Result<SeqNo, String> {
    Ok(SeqNo(l.field("seq")?))
}

fn link(text: &str) -> Result<LogTail, String> {
    let Span(id, last_seq) = Span::parse(text).ok_or_else(|| format!("{text:?} is no <log id>..<last>"))?;
    Ok(LogTail { id, last_seq })
}

fn head(m: &mut Manifest, l: &mut Line<'_>) -> Result<(), String> {
    m.format = l.field("format")?;
    m.database = l.field("database")?;
    m.lineage = l.field("lineage")?;
    m.version = l.field::<u64>("version")?.into();
    m.epoch = l.field::<u64>("epoch")?.into();
    m.extra = l.extra()?;
    Ok(())
}

fn numbers(m: &mut Manifest, l: &mut Line<'_>) -> Result<(), String> {
    m.last_seq = SeqNo(l.field("last")?);
    m.last_write_time = Timestamp(l.field("last_time")?);
    m.flushed_seq = SeqNo(l.field("flushed")?);
    m.trimmed_seq = SeqNo(l.field("trimmed")?);
    m.history_floor = SeqNo(l.field("floor")?);
    m.expiry_floor = l.optional("expiry_floor")?.map(Timestamp);
    Ok(())
}

fn compaction(l: &mut Line<'_>) -> Result<CompactionMode, String> {
    match l.need("mode")? {
        "merge" => Ok(CompactionMode::Merge),
        "leveled" => Ok(CompactionMode::Leveled),
        "fifo" => Ok(CompactionMode::Fifo {
            retention_us: l.field("retention_us")?,
            retention_count: l.field("retention_count")?,
        }),
        "time_window" => Ok(CompactionMode::TimeWindow {
            segment_us: l.field("segment_us")?,
            retention_us: l.field("retention_us")?,
            retention_count: l.field("retention_count")?,
        }),
        other => Err(format!("{other:?} is no compaction mode")),
    }
}

fn epoch(l: &mut Line<'_>) -> Result<EpochStart, String> {
    Ok(EpochStart {
        epoch: count(l, "epoch")?.into(),
        incarnation: l.field("incarnation")?,
        cut: l.find("cut").map(link).transpose()?,
    })
}

fn log(l: &mut Line<'_>) -> Result<LogEntry, String> {
    let kind = match l.word("kind")? {
        "segment" => LogKind::Segment,
        "chunk" => LogKind::Chunk,
        other => return Err(format!("{other:?} is no kind of log object")),
    };
    let LogTail { id, last_seq } = link(l.word("log object")?)?;
    let (first_time, last_time) = l.range("time")?;
    Ok(LogEntry {
        kind,
        id,
        last_seq,
        len: l.field("len")?,
        index_offset: l.field("index")?,
        crc: l.crc()?,
        first_time: Timestamp(first_time),
        last_time: Timestamp(last_time),
        raw_bytes: l.field("raw")?,
        starts_generation: l.flag("starts"),
        blobs: l.json("blobs")?,
        extra: l.extra()?,
    })
}

fn run(l: &mut Line<'_>) -> Result<Run, String> {
    Ok(Run { id: RunId(count(l, "run")?), l0: l.flag("l0"), tables: Vec::new() })
}

fn table(l: &mut Line<'_>) -> Result<TableEntry, String> {
    let name = l.text("name")?;
    let (min_seq, max_seq) = l.range("seq")?;
    let (min_time, max_time) = l.range("time")?;
    Ok(TableEntry {
        name,
        len: l.field("len")?,
        meta_offset: l.field("meta")?,
        crc: l.crc()?,
        smallest: json("from", l.need("from")?)?,
        largest: json("to", l.need("to")?)?,
        min_seq: SeqNo(min_seq),
        max_seq: SeqNo(max_seq),
        min_time: Timestamp(min_time),
        max_time: Timestamp(max_time),
        rows: l.field("rows")?,
        deletes: l.field("deletes")?,
        min_expires: l.optional("min_expires")?.map(Timestamp),
        expiring: l.find("expiring").map(expiring).transpose()?,
        raw_bytes: l.field("raw")?,
        blobs: l.json("blobs")?,
        blob_use: l.json("used")?,
        extra: l.extra()?,
    })
}

fn expiring(text: &str) -> Result<Expiring, String> {
    let parsed =
        text.split_once("..").and_then(|(rows, last)| Some((rows.parse().ok()?, last.parse().ok()?)));
    let (rows, last) = parsed.ok_or_else(|| format!("expiring={text} is no <rows>..<last expiry>"))?;
    Ok(Expiring { rows, last: Timestamp(last) })
}

fn snapshot(l: &mut Line<'_>) -> Result<Snapshot, String> {
    Ok(Snapshot {
        seq: seq(l)?,
        created: Timestamp(l.field("created")?),
        expires: l.optional("expires")?.map(Timestamp),
        holds_log: l.flag("holds_log"),
        extra: l.extra()?,
    })
}

fn retired(l: &mut Line<'_>) -> Result<Retired, String> {
    let path = ObjectPath::new(l.word("path")?)?;
    let version = l.field::<u64>("version")?.into();
    Ok(Retired { path, len: l.field("len")?, version, blobs: l.json("blobs")? })
}
