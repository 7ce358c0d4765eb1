//! Consuming: pages of the log, each continued by the cursor of the one before, over whichever tailer answers. Now and then
//! the cursor is committed to a consumer group, and now and then it is forgotten, and the group's is gone on with: it may
//! be an older one, after coordination was lost too, and is never beyond what was committed.

use std::sync::Arc;
use std::time::Duration;

use isle_history::{Digest, Key, Op, Record, Start};
use isle_storage::ids::SeqNo;
use isle_storage::row::{RowRef, ValueRef};
use isle_storage::sabotage::{Rule, broken};
use tailer_node::{Cursor, From, TailError, Tailer};
use tokio::time::{Instant, sleep, timeout_at};

use super::Client;

const PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    pub(super) async fn consume_on(mut self, number: usize) {
        let shared = Arc::clone(&self.shared);
        let mut cursor: Option<Cursor> = None;
        let (group, mut furthest) = (format!("consumers-{number}"), None);
        while self.goes_on() {
            let at = self.rng.below(shared.tailers.len() as u64) as usize;
            let (most, wait) = (self.rng.between(1, 30), self.rng.between(0, 300));
            let from = cursor.map_or(From::Earliest, From::Cursor);
            let resumes = furthest.filter(|_| self.rng.per_mille(80));
            let of = resumes.map(|_: SeqNo| group.clone());
            let start = match cursor {
                Some(c) => Start::After(c.seq.0),
                // What retention has trimmed by then, nobody knows before the answer.
                None if shared.plan.compactor.log_retention_seconds > 0 => Start::Anywhere,
                None => Start::Earliest,
            };
            let answer = shared.tailers[at].call(&shared.world, PATIENCE, move |seat| async move {
                let from = match of {
                    Some(group) => From::Cursor(seat.engine.group(&group).await?.cursor),
                    None => from,
                };
                page(&seat.engine, from, most, Duration::from_millis(wait)).await
            });
            match answer.await {
                Ok(Ok(Page { began, rows, next })) => {
                    let start = if resumes.is_some() { Start::After(began.0) } else { start };
                    if resumes.is_some_and(|furthest| began > furthest) {
                        let why =
                            format!("{group} is at {began}, and was never committed beyond {furthest:?}");
                        shared.world.violation(why);
                    }
                    shared.recorder.consumer_started(&self.name, start, None);
                    shared.world.note(format_args!("{} has {} up to {}", self.name, rows.len(), next.seq));
                    let twice = broken(Rule::DeliverOnce) && !rows.is_empty();
                    let again = if twice { rows.clone() } else { Vec::new() };
                    for row in rows.into_iter().chain(again) {
                        shared.recorder.delivered(&self.name, row);
                    }
                    shared.recorder.advanced(&self.name, next.seq.0);
                    shared.consumed.lock()[number] = next.seq.0;
                    cursor = Some(next);
                    if self.rng.per_mille(150) {
                        furthest = furthest.max(Some(next.seq));
                        self.commit(&group, next).await;
                    }
                }
                Ok(Err(TailError::CursorExpired { earliest: first, .. })) => {
                    shared.world.note(format_args!("{}: the cursor has expired", self.name));
                    cursor = Some(first);
                }
                Ok(Err(TailError::WrongCursor { cursor: old, lineage, .. })) if old.lineage != lineage => {
                    // Another history, made of this one: the same numbers.
                    cursor = Some(Cursor { lineage, ..old });
                }
                Ok(Err(e)) => {
                    shared.world.note(format_args!("{}: {e}", self.name));
                    if let TailError::Damaged(why) = &e {
                        shared.world.violation(format!("a tailer says {why}"));
                    }
                    sleep(Duration::from_millis(self.rng.between(20, 150))).await;
                }
                Err(_) => sleep(Duration::from_millis(self.rng.between(20, 150))).await,
            }
            sleep(Duration::from_millis(self.rng.between(0, 60))).await;
        }
    }

    /// Commits a cursor to a group, which begins with it where there is none. What is answered is stored, or something
    /// later.
    async fn commit(&mut self, group: &str, cursor: Cursor) {
        let shared = Arc::clone(&self.shared);
        let at = self.rng.below(shared.tailers.len() as u64) as usize;
        let name = group.to_owned();
        let answer = shared.tailers[at].call(&shared.world, PATIENCE, move |seat| async move {
            match seat.engine.commit_group(&name, cursor).await {
                Err(TailError::UnknownGroup(_)) => {
                    seat.engine.ensure_group(&name, From::Cursor(cursor), None).await.map(|_| None)
                }
                committed => committed.map(|c| Some(c.cursor.seq)),
            }
        });
        match answer.await {
            Ok(Ok(Some(stored))) if stored < cursor.seq => {
                shared
                    .world
                    .violation(format!("{group} was committed at {}, and is at {stored}", cursor.seq));
            }
            Ok(Ok(_)) => shared.world.note(format_args!("{group} is committed at {}", cursor.seq)),
            Ok(Err(e)) => shared.world.note(format_args!("{group} cannot be committed: {e}")),
            Err(_) => {}
        }
    }
}

/// What one page brought.
pub(super) struct Page {
    /// It began after this one.
    began: SeqNo,
    /// Its changes.
    pub(super) rows: Vec<Record>,
    /// Where the next one begins.
    next: Cursor,
}

/// One page: at most so many changes, waiting at the head for so long.
pub(super) async fn page(tailer: &Tailer, from: From, most: u64, wait: Duration) -> Result<Page, TailError> {
    let mut consumer = tailer.consume(from).await?;
    let began = consumer.cursor().seq;
    let deadline = Instant::now() + wait;
    let (mut rows, mut through) = (Vec::new(), consumer.cursor());
    while (rows.len() as u64) < most {
        let Ok(delivery) = timeout_at(deadline, consumer.next()).await else { break };
        let delivery = delivery?;
        let left = most as usize - rows.len();
        for row in delivery.rows().take(left) {
            rows.push(record(tailer, row).await?);
        }
        if let Some(last) = rows.last() {
            through = consumer.cursor_at(SeqNo(last.seq));
            consumer.rewind_to(SeqNo(last.seq));
        }
    }
    Ok(Page { began, rows, next: through })
}

async fn record(tailer: &Tailer, row: RowRef<'_>) -> Result<Record, TailError> {
    let op = match row.value {
        ValueRef::Put(value) => Op::Put(Digest::of(value)),
        ValueRef::Blob(p) => Op::Put(Digest::of(&tailer.value(&p.to_owned()).await?)),
        ValueRef::Delete => Op::Delete,
    };
    let (key, expires) = (Key::new(row.key), row.expires.map(|e| e.0));
    Ok(Record { seq: row.seq.0, time: row.time.0, expires, epoch: None, key, op })
}
