//! Bootstraps: the copy and the log after its cursor are together the database, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::observe;
use isle_storage::database::Database;
use isle_storage::ids::{JobId, SeqNo, Timestamp};
use isle_storage::manifest::{Change, JudgedExpiry, Manifest, Snapshot, TableEntry};
use isle_storage::merge::{Held, Rewrite};
use isle_storage::object::StoreErrorKind;
use isle_storage::row::{Row, RowRef, Value, ValueRef};
use isle_storage::sst::{Block, TableBuilder, TableMeta, TableOptions};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Event, Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};
use tailer_node::{Bootstrap, BootstrapRequest, Copied, Cursor, From, TailError, Tailer, TailerSettings};
use tokio::time::Instant;

use crate::consume::{entries, follow, settings};

const SOON: Duration = Duration::from_secs(20);

/// A copy of the database: of each key the newest version known, deletes left out.
#[derive(Debug, Default, PartialEq)]
struct Copy(BTreeMap<Vec<u8>, (SeqNo, Vec<u8>, Option<Timestamp>)>);

impl Copy {
    fn add(&mut self, row: &Row) {
        let Value::Put(value) = &row.value else { panic!("{row:?} in a copy") };
        let before = self.0.insert(row.key.to_vec(), (row.seq, value.to_vec(), row.expires));
        assert!(before.is_none(), "{row:?} was delivered before");
    }

    fn apply(&mut self, row: RowRef<'_>) {
        match row.value {
            ValueRef::Put(value) => {
                self.0.insert(row.key.to_vec(), (row.seq, value.to_vec(), row.expires));
            }
            _ => {
                self.0.remove(row.key);
            }
        }
    }

    /// What it shows at `now`.
    fn seen(&self, now: Timestamp) -> BTreeMap<Vec<u8>, (SeqNo, Vec<u8>)> {
        let alive = self.0.iter().filter(|(_, (.., expires))| expires.is_none_or(|e| e > now));
        alive.map(|(key, (seq, value, _))| (key.clone(), (*seq, value.clone()))).collect()
    }
}

async fn open(e: &Embedded, scribe: &Scribe, settings: TailerSettings) -> Tailer {
    let tailer = Tailer::open(e.process("tailer"), settings).unwrap();
    tailer.ready().await;
    follow(&tailer, scribe).await;
    tailer
}

/// The rest of a bootstrap.
async fn rest(copy: &mut Copy, bootstrap: &mut Bootstrap) -> Result<Copied, TailError> {
    while let Some(rows) = tokio::time::timeout(SOON, bootstrap.next()).await.unwrap()? {
        rows.iter().for_each(|row| copy.add(row));
    }
    let copied = bootstrap.copied().unwrap().clone();
    assert_eq!(copied.cursor.seq, bootstrap.seq());
    Ok(copied)
}

async fn whole(tailer: &Tailer, request: BootstrapRequest) -> Result<(Copy, Copied), TailError> {
    let mut copy = Copy::default();
    let mut bootstrap = tailer.bootstrap(request).await?;
    let copied = rest(&mut copy, &mut bootstrap).await?;
    Ok((copy, copied))
}

/// Applies the changes from `cursor` up to the head.
async fn catch_up(tailer: &Tailer, copy: &mut Copy, cursor: Cursor, until: SeqNo) {
    let mut consumer = tailer.consume(From::Cursor(cursor)).await.unwrap();
    let mut next = cursor.seq.next();
    while next <= until {
        let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap();
        for row in delivery.rows() {
            assert_eq!(row.seq, next, "a gap, or a repeat");
            next = next.next();
            copy.apply(row);
        }
    }
}

/// Commits what `plan` makes of the newest manifest; nothing where it makes nothing.
async fn amend(db: &Database, mut plan: impl FnMut(&Manifest) -> Vec<Change>) {
    let plan = |m: &Manifest| Some(plan(m)).filter(|changes| !changes.is_empty()).ok_or("nothing");
    let deadline = Instant::now() + SOON;
    match observe::commit(db, "test", deadline, plan).await {
        Ok(_) | Err(observe::ObserveError::Refused(_)) => {}
        Err(e) => panic!("{e}"),
    }
}

async fn rows_of(db: &Database, table: &TableEntry) -> Vec<Row> {
    let bytes = db.bucket.get(&table.path()).await.unwrap();
    let meta = TableMeta::decode(bytes.slice(table.meta_offset as usize..), table.meta_offset).unwrap();
    let mut rows = Vec::new();
    for i in 0..meta.block_count() {
        let at = meta.block_range(i);
        let mut cursor = Block::decode(&bytes.slice(at.start as usize..at.end as usize)).unwrap().cursor();
        cursor.first();
        while let Some(row) = cursor.row() {
            rows.push(row.to_row());
            cursor.next();
        }
    }
    rows
}

/// Merges every run into one, as a compactor does, and deletes what is retired then, as none does so soon.
async fn merge_and_delete(db: &Database) {
    let m = db.load().await.unwrap().manifest;
    if m.runs.len() > 1 {
        let mut rows = Vec::new();
        for table in m.tables() {
            rows.extend(rows_of(db, table).await);
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
        let held: Vec<Held> = m.snapshots.values().map(Held::from).collect();
        let mut rewrite = Rewrite::new(&held, true, Some(db.env.clock.now()));
        let mut builder = TableBuilder::new(TableOptions { block_bytes: 512, ..TableOptions::default() });
        let mut kept = 0;
        for row in &rows {
            if let Some(row) = rewrite.judge(row.as_ref()) {
                builder.push(row);
                kept += 1;
            }
        }
        let owner = format!("{}-{:016x}", JobId(db.env.entropy.next_u64()), db.env.entropy.next_u64());
        let mut tables = Vec::new();
        if kept > 0 {
            let table = builder.finish(&format!("{owner}-0"));
            db.bucket.put(&table.entry.path(), table.body).await.unwrap();
            tables.push(Arc::new(table.entry));
        }
        let newest = m.runs.iter().map(|r| r.max_seq()).max().unwrap_or_default();
        let merge = Change::Merge {
            inputs: m.runs.iter().map(|r| r.id).collect(),
            tables,
            snapshots: m.snapshots.values().map(|s| s.seq).collect(),
            planned_mode: m.compaction.clone(),
            dropped: rewrite.dropped(),
            judged: newest,
            expiry: Some(JudgedExpiry::new(rewrite.expired_by(), &held)),
        };
        // Refused where a snapshot was taken meanwhile that it may harm; then it was for nothing.
        let before = m.version;
        let plan = |now: &Manifest| match now.version == before {
            true => vec![merge.clone()],
            false => Vec::new(),
        };
        amend(db, plan).await;
    }
    let m = db.load().await.unwrap().manifest;
    for retired in &m.retired {
        db.bucket.delete(&retired.path).await.unwrap();
    }
}

/// Lets go of all the log that nothing holds.
async fn trim(db: &Database) {
    amend(db, |m| {
        let held = m.snapshots.values().filter(|s| s.holds_log).map(|s| s.seq).min().unwrap_or(m.last_seq);
        let most = held.min(m.flushed_seq);
        let ends = m.log.iter().map(|e| e.last_seq).filter(|end| *end <= most);
        ends.max().map(|trimmed_seq| Change::TrimLog { trimmed_seq }).into_iter().collect()
    })
    .await;
}

/// What a writer does in one step, from a few random bits.
async fn write(scribe: &mut Scribe, e: &Embedded, random: u64) {
    let now = e.db.env.clock.now();
    let key =
        |i: u64| format!("{}/{:03}", ["a", "b"][(i % 2) as usize], (random >> 8).wrapping_add(i * 7) % 150);
    let of = |i: u64| match (random >> (i % 50)) % 8 {
        0 | 1 => Entry::delete(key(i)),
        2 => Entry { expires: Some(now.plus(Duration::from_secs(1 + i % 5))), ..Entry::put(key(i), "short") },
        _ => Entry::put(key(i), format!("{random:x} {i} {}", "v".repeat((random % 900) as usize))),
    };
    scribe.append(&(0..1 + random % 40).map(of).collect::<Vec<_>>()).await;
    match random >> 60 {
        0..=3 => scribe.flush().await,
        4..=5 => merge_and_delete(&e.db).await,
        6..=7 => trim(&e.db).await,
        8 => e.clock.advance(Duration::from_millis(random % 1500)),
        _ => {}
    }
}

/// Bytes that nothing compresses.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Random writes, flushes, merges whose inputs are deleted at once, expiry, and a log that is trimmed as far as it may
/// be, all of it while the copy is on its way: copy and log are the database.
#[tokio::test]
async fn a_copy_and_the_log_after_its_cursor_are_the_database() {
    let mut moved_on = 0;
    for seed in 0..5u64 {
        let e = Embedded::new().await;
        let mut scribe = Scribe::take_over(&e.db).await;
        scribe.table_bytes = 4 << 10;
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        // More than fits the batches that a bootstrap is ahead of its consumer.
        for n in 0..8u64 {
            let bulk = |i: u64| Entry::put(format!("a/bulk/{:03}", (i * 8 + n) % 80), noise(i * 8 + n, 9000));
            scribe.append(&(0..40).map(bulk).collect::<Vec<_>>()).await;
            scribe.flush().await;
        }
        for _ in 0..20 {
            write(&mut scribe, &e, next()).await;
        }
        let settings = TailerSettings { bootstrap_read_bytes: 64 << 10, ..settings() };
        let tailer = open(&e, &scribe, settings).await;
        let prefix = if seed % 3 == 2 { "a/" } else { "" };
        let request = BootstrapRequest { prefix: prefix.into(), ..Default::default() };
        let mut bootstrap = tailer.bootstrap(request).await.unwrap();
        let (at, taken) = (bootstrap.seq(), e.db.env.clock.now());
        let mut copy = Copy::default();
        while let Some(rows) = tokio::time::timeout(SOON, bootstrap.next()).await.unwrap().unwrap() {
            rows.iter().for_each(|row| copy.add(row));
            for _ in 0..4 {
                write(&mut scribe, &e, next()).await;
            }
            scribe.flush().await;
            merge_and_delete(&e.db).await;
            trim(&e.db).await;
        }
        let only = |mut seen: BTreeMap<Vec<u8>, (SeqNo, Vec<u8>)>| {
            seen.retain(|key, _| key.starts_with(prefix.as_bytes()));
            seen
        };
        assert_eq!(copy.seen(taken), only(scribe.visible_at(at, taken)), "seed {seed}");
        let gone = |h: &Event| h.path.starts_with("table/") && h.told == Some(Err(StoreErrorKind::NotFound));
        moved_on += e.bucket.history().iter().filter(|h| gone(h)).count();
        let cursor = bootstrap.copied().unwrap().cursor;
        for _ in 0..10 {
            write(&mut scribe, &e, next()).await;
        }
        trim(&e.db).await;
        follow(&tailer, &scribe).await;
        let head = scribe.manifest().last_seq;
        assert!(head > at);
        catch_up(&tailer, &mut copy, cursor, head).await;
        let now = e.db.env.clock.now();
        assert_eq!(only(copy.seen(now)), only(scribe.visible_at(head, now)), "seed {seed}");
    }
    assert!(moved_on > 0, "no copy had to go on over a newer manifest");
}

fn holds(m: &Manifest) -> BTreeSet<String> {
    m.snapshots.keys().cloned().collect()
}

/// In a test whose time is paused.
async fn until_no_hold(e: &Embedded) {
    let free = async {
        while !holds(&e.db.load().await.unwrap().manifest).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), free).await.unwrap();
}

/// Enough that no bootstrap is done before its consumer takes something.
async fn filled(e: &Embedded) -> Scribe {
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        let row = |i| Entry::put(format!("{n}/{i:04}"), vec![b'x'; 4000]);
        scribe.append(&(0..200).map(row).collect::<Vec<_>>()).await;
        scribe.flush().await;
    }
    scribe
}

#[tokio::test(start_paused = true)]
async fn a_hold_outlives_the_copy_for_a_moment_and_a_consumer_that_goes_away_by_none() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let tailer = open(&e, &scribe, TailerSettings { bootstrap_linger_seconds: 1, ..settings() }).await;
    let (copy, copied) = whole(&tailer, BootstrapRequest::default()).await.unwrap();
    assert_eq!((copy.0.len(), copied.rows, copied.cursor.seq), (800, 800, SeqNo(800)));
    let m = e.db.load().await.unwrap().manifest;
    assert_eq!(holds(&m), BTreeSet::from([copied.snapshot.clone()]), "the cursor can be used");
    let hold = &m.snapshots[&copied.snapshot];
    assert!(hold.holds_log && hold.expires.is_some_and(|x| x > copied.held_until.unwrap()));
    until_no_hold(&e).await;

    let mut bootstrap = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();
    bootstrap.next().await.unwrap().unwrap();
    assert_eq!(holds(&e.db.load().await.unwrap().manifest).len(), 1);
    drop(bootstrap);
    until_no_hold(&e).await;
    assert_eq!(tailer.status().bootstraps, 0);

    // Closing ends what is under way with an error, and its hold; one that lingers is left to expire.
    let (_, lingering) = whole(&tailer, BootstrapRequest::default()).await.unwrap();
    let mut bootstrap = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();
    tailer.close();
    let ended = rest(&mut Copy::default(), &mut bootstrap).await;
    assert!(matches!(ended, Err(TailError::Closing)), "{ended:?}");
    tokio::time::timeout(SOON, tailer.drained()).await.unwrap();
    assert_eq!(holds(&e.db.load().await.unwrap().manifest), BTreeSet::from([lingering.snapshot]));
    let refused = tailer.bootstrap(BootstrapRequest::default()).await.map(drop);
    assert!(matches!(refused, Err(TailError::Closing)));
}

/// A consumer that takes nothing holds a place, versions and log for as long as it may, and then none of them.
#[tokio::test(start_paused = true)]
async fn a_bootstrap_that_takes_too_long_ends_in_an_error_and_without_its_hold() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let tailer = open(&e, &scribe, settings()).await;
    let request = BootstrapRequest { at_most: Some(Duration::from_secs(100)), ..Default::default() };
    let mut bootstrap = tailer.bootstrap(request).await.unwrap();
    bootstrap.next().await.unwrap().unwrap();
    let m = e.db.load().await.unwrap().manifest;
    let hold = m.snapshots.values().next().unwrap();
    let linger = TailerSettings::default().bootstrap_linger_seconds;
    assert_eq!(hold.expires, Some(hold.created.plus(Duration::from_secs(100 + linger))));
    until_no_hold(&e).await;
    assert_eq!(tailer.status().bootstraps, 0, "its place is free");
    let ended = rest(&mut Copy::default(), &mut bootstrap).await;
    assert!(matches!(ended, Err(TailError::HoldEnded(_))), "{ended:?}");
    // Never an end after an error.
    assert!(bootstrap.next().await.is_err() && bootstrap.copied().is_none());
}

#[tokio::test]
async fn there_are_only_so_many_bootstraps_at_once() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let tailer = open(&e, &scribe, TailerSettings { max_bootstraps: 2, ..settings() }).await;
    let first = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();
    let _second = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();
    let refused = tailer.bootstrap(BootstrapRequest::default()).await.map(drop);
    assert!(matches!(&refused, Err(TailError::Busy(why)) if why.contains('2')), "{refused:?}");
    drop(first);
    while tailer.status().bootstraps == 2 {
        tokio::task::yield_now().await;
    }
    let _third = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();

    let little = TailerSettings { bootstrap_log_bytes: 10, ..settings() };
    let mut scribe = scribe;
    scribe.append(&entries(9, 20)).await;
    let tailer = open(&e, &scribe, little).await;
    let refused = whole(&tailer, BootstrapRequest::default()).await.map(|(_, copied)| copied);
    assert!(matches!(&refused, Err(TailError::Busy(why)) if why.contains("not in tables")), "{refused:?}");
    scribe.flush().await;
    whole(&tailer, BootstrapRequest::default()).await.unwrap();
}

async fn snapshot(e: &Embedded, name: &str, holds_log: bool) -> Snapshot {
    let mut taken = None;
    amend(&e.db, |m| {
        let created = e.db.env.clock.now().max(m.last_write_time);
        let snapshot =
            Snapshot { seq: m.last_seq, created, expires: None, holds_log, extra: Default::default() };
        taken = Some(snapshot.clone());
        vec![Change::TakeSnapshot { name: name.to_owned(), snapshot }]
    })
    .await;
    taken.unwrap()
}

fn at(name: &str) -> BootstrapRequest {
    BootstrapRequest { snapshot: Some(name.to_owned()), ..Default::default() }
}

/// A named snapshot is copied as often as one likes, the same each time; its cursor is good as long as the log is there.
#[tokio::test]
async fn a_named_snapshot_can_be_copied_again_while_the_log_reaches_back_to_it() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let taken = snapshot(&e, "held", true).await;
    snapshot(&e, "plain", false).await;
    let tailer = open(&e, &scribe, settings()).await;
    let (first, copied) = whole(&tailer, at("held")).await.unwrap();
    assert_eq!((copied.cursor.seq, copied.held_until), (taken.seq, None));
    for n in 0..3 {
        scribe.append(&(0..200).map(|i| Entry::delete(format!("{n}/{i:04}"))).collect::<Vec<_>>()).await;
        scribe.flush().await;
        merge_and_delete(&e.db).await;
        trim(&e.db).await;
    }
    let (again, copied) = whole(&tailer, at("held")).await.unwrap();
    assert_eq!(first, again);
    whole(&tailer, at("plain")).await.unwrap();
    follow(&tailer, &scribe).await;
    let mut copy = again;
    catch_up(&tailer, &mut copy, copied.cursor, scribe.manifest().last_seq).await;
    let now = e.db.env.clock.now();
    assert_eq!(copy.seen(now), scribe.visible_at(scribe.manifest().last_seq, now));
    assert_eq!(holds(&e.db.load().await.unwrap().manifest).len(), 2, "no hold but the named ones");

    amend(&e.db, |_| vec![Change::DropSnapshot { name: "held".into() }]).await;
    trim(&e.db).await;
    let refused = tailer.bootstrap(at("held")).await.map(drop);
    assert!(matches!(&refused, Err(TailError::UnknownSnapshot(name)) if name == "held"), "{refused:?}");
    let refused = tailer.bootstrap(at("plain")).await.map(drop);
    let Err(TailError::CursorExpired { earliest, .. }) = refused else { panic!("{refused:?}") };
    assert!(earliest.seq > taken.seq);
}

/// What is lost or damaged is said; there is no end without everything.
#[tokio::test]
async fn loss_and_damage_are_the_last_word() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let tailer = open(&e, &scribe, settings()).await;
    for (fault, nth) in [(Fault::FlipBit(99), 2), (Fault::FlipBit(99), 7)] {
        e.bucket.inject(Rule::on(Op::Get).path("table/*").nth(nth), fault);
        let ended = whole(&tailer, BootstrapRequest::default()).await.map(|(_, copied)| copied);
        assert!(matches!(&ended, Err(TailError::Damaged(why)) if why.contains("table/")), "{ended:?}");
        e.bucket.heal();
    }
    e.bucket.inject(Rule::on(Op::Get).path("table/*"), Fault::Fail(StoreErrorKind::Transient));
    let ended = whole(&tailer, BootstrapRequest::default()).await.map(|(_, copied)| copied);
    assert!(matches!(&ended, Err(TailError::Store(_))), "{ended:?}");
    e.bucket.heal();

    let lost = scribe.manifest().tables().last().unwrap().path();
    e.db.bucket.delete(&lost).await.unwrap();
    for writes in [false, true] {
        if writes {
            // A newer manifest names it all the same.
            scribe.append(&entries(1, 1)).await;
        }
        let ended = whole(&tailer, BootstrapRequest::default()).await.map(|(_, copied)| copied);
        assert!(matches!(&ended, Err(TailError::Gone(why)) if why.contains(lost.as_str())), "{ended:?}");
    }
}

/// The hold is gone and so is what it held: the copy cannot be completed, and says so.
#[tokio::test]
async fn a_copy_whose_snapshot_is_dropped_under_it_is_never_completed_wrongly() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let settings = TailerSettings { bootstrap_read_bytes: 64 << 10, ..settings() };
    let tailer = open(&e, &scribe, settings).await;
    let mut bootstrap = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();
    let mut copy = Copy::default();
    let first = bootstrap.next().await.unwrap().unwrap();
    first.iter().for_each(|row| copy.add(row));
    let name = bootstrap.snapshot().to_owned();
    amend(&e.db, |_| vec![Change::DropSnapshot { name: name.clone() }]).await;
    scribe.append(&[Entry::delete("3/0199")]).await;
    scribe.flush().await;
    merge_and_delete(&e.db).await;
    let ended = rest(&mut copy, &mut bootstrap).await;
    assert!(matches!(&ended, Err(TailError::HoldEnded(why)) if why.contains(&name)), "{ended:?}");
}

/// Values in blob files come with their rows, but for those too large for any row.
#[tokio::test]
async fn values_in_blob_files_are_copied() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.blob_threshold = 100;
    let value = |n: usize, len: usize| vec![b'a' + n as u8; len];
    let row = |n: usize| Entry::put(format!("k{n}"), value(n, [10, 200_000][n % 2]));
    scribe.append(&(0..20).map(row).collect::<Vec<_>>()).await;
    scribe.append(&[Entry::put("large", value(0, (8 << 20) + 1))]).await;
    scribe.flush().await;
    let tailer = open(&e, &scribe, settings()).await;
    let mut bootstrap = tailer.bootstrap(BootstrapRequest::default()).await.unwrap();
    let mut lens = BTreeMap::new();
    while let Some(rows) = bootstrap.next().await.unwrap() {
        for row in rows {
            let len = match row.value {
                Value::Put(value) => Ok(value.len()),
                Value::Blob(pointer) => Err(pointer.len),
                Value::Delete => panic!("a delete"),
            };
            lens.insert(String::from_utf8(row.key.to_vec()).unwrap(), len);
        }
    }
    assert_eq!(lens.len(), 21);
    assert_eq!(lens["large"], Err((8 << 20) + 1));
    assert!((0..20).all(|n| lens[&format!("k{n}")] == Ok([10, 200_000][n % 2])));
}

/// While the head cannot be reached no hold can be taken, and nothing is promised.
#[tokio::test(start_paused = true)]
async fn without_coordination_a_bootstrap_is_refused() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let tailer = open(&e, &scribe, settings()).await;
    e.coordination.set_down(true);
    let refused = tailer.bootstrap(BootstrapRequest::default()).await.map(drop);
    assert!(matches!(&refused, Err(TailError::NotReady(_))), "{refused:?}");
    let refused = tailer.bootstrap(at("any")).await.map(drop);
    assert!(matches!(&refused, Err(TailError::NotReady(_))), "{refused:?}");
    e.coordination.set_down(false);
    until_no_hold(&e).await;
    whole(&tailer, BootstrapRequest::default()).await.unwrap();
}
