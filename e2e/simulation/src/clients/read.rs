//! Reading: gets, multi-gets, scans and their pages, some of them bound to what was acknowledged last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use isle_history::{Digest, Key, Name, Page, Query, ReadAnswer, SeenRow, Span, Want};
use isle_storage::ids::Position;
use reader_node::{KeyRange, MinSeq, PageToken, ReadError, ReadOptions, Reader, ScanRequest};
use tokio::time::sleep;

use super::Client;
use crate::node::Address;
use crate::roles::Seat;

const PATIENCE: Duration = Duration::from_secs(6);

/// A snapshot that a client holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: Name,
    /// The instant at which its reads judge expiry.
    pub(super) created: i64,
    /// Whether it must be there.
    pub(super) for_sure: bool,
}

/// A whole page answered: its rows, the view, where the next page begins, when expiry was judged.
type Answer = (Vec<SeenRow>, u64, Option<PageToken>, Span);

/// What a reader says, or that it is another process by now.
type Said = Option<Result<Answer, ReadError>>;

impl Client {
    pub(super) async fn read_on(mut self) {
        while self.goes_on() {
            let at = self.rng.below(self.shared.readers.len() as u64) as usize;
            let reader = Arc::clone(&self.shared.readers[at]);
            match self.rng.below(10) {
                0..=4 => self.get(&reader, 1, None).await,
                5..=6 => {
                    let n = self.rng.between(2, 5);
                    self.get(&reader, n, None).await;
                }
                _ => self.scan(&reader, None).await,
            }
            let pause = self.rng.between(1, 10) * self.rng.between(1, 12);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Reports the reader's view, again and again.
    pub(super) async fn view_on(mut self, number: usize, reader: Arc<Address<Seat<Reader>>>) {
        while self.goes_on() {
            let (recorder, process) = (self.shared.recorder.clone(), reader.process);
            let (world, viewed) = (Arc::clone(&self.shared.world), Arc::clone(&self.shared.viewed));
            let answered = reader.call(&self.shared.world, PATIENCE, move |seat| async move {
                let (version, seq) = seat.engine.position();
                viewed.lock()[number] = version.0;
                if version.0 > 0 {
                    let name: Name = format!("{}-{}", world.name(process), seat.incarnation).into();
                    recorder.view_reported(&name, None, version.0, seq.0);
                }
            });
            let _unanswered = answered.await;
            sleep(Duration::from_millis(self.rng.between(20, 200))).await;
        }
    }

    fn options(&mut self, held: Option<&Held>) -> (ReadOptions, Option<Position>) {
        if let Some(held) = held {
            let snapshot = Some(held.name.to_string());
            return (ReadOptions { snapshot, ..ReadOptions::default() }, None);
        }
        let newest = *self.shared.newest.lock();
        let wanted = newest.filter(|_| self.rng.per_mille(350));
        let by_number = self.rng.per_mille(500);
        let min_seq = wanted.map(|p| if by_number { MinSeq::Seq(p.seq) } else { MinSeq::Position(p) });
        (ReadOptions { min_seq, ..ReadOptions::default() }, wanted)
    }

    pub(super) async fn get(&mut self, reader: &Arc<Address<Seat<Reader>>>, keys: u64, held: Option<&Held>) {
        let mut keys: Vec<Vec<u8>> = (0..keys).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let (options, wanted) = self.options(held);
        let mut query = Query::keys(keys.iter().map(|k| Key::new(k)));
        query.min_seq = wanted.map(|p| p.seq.0);
        query.snapshot = held.map(|h| h.name.clone());
        self.ask(reader, query, wanted, held, move |reader| async move {
            let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
            if let [key] = &keys[..] {
                let answer = reader.get(key, &options).await?;
                let rows = answer.found.iter().map(|f| seen(key, f.seq.0, &f.value)).collect();
                return Ok((rows, answer.view_seq.0, None));
            }
            let answer = reader.mget(&keys, &options).await?;
            let found = keys.iter().zip(&answer.found);
            let rows = found.filter_map(|(k, f)| f.as_ref().map(|f| seen(k, f.seq.0, &f.value))).collect();
            Ok((rows, answer.view_seq.0, None))
        })
        .await;
    }

    /// A scan, page by page, or at once.
    pub(super) async fn scan(&mut self, reader: &Arc<Address<Seat<Reader>>>, held: Option<&Held>) {
        self.made += 1;
        let scan: Name = format!("{}-scan-{}", self.name, self.made).into();
        let (mut start, end) = self.range();
        let mut end = end;
        let (reverse, consistent) = (self.rng.per_mille(300), self.rng.per_mille(500));
        let paged = self.rng.per_mille(700);
        let limit = paged.then(|| self.rng.between(1, 6));
        let (options, wanted) = self.options(held);
        let mut page: Option<PageToken> = None;
        loop {
            let want = Want::Range {
                start: Key::new(&start),
                end: end.as_ref().map(|e| Key::new(e)),
                limit,
                reverse,
            };
            let mut query = Query::of(want);
            query.min_seq = wanted.map(|p| p.seq.0);
            query.snapshot = held.map(|h| h.name.clone());
            query.page = paged.then(|| Page { scan: scan.clone(), first: page.is_none(), consistent });
            let range = KeyRange { start: start.clone().into(), end: end.clone().map(Bytes::from) };
            let request = ScanRequest {
                range,
                limit: limit.map(|n| n as usize),
                reverse,
                page: page.take(),
                consistent,
                options: options.clone(),
                ..ScanRequest::default()
            };
            let answer = self.ask(reader, query, wanted, held, move |reader| async move {
                let mut scan = reader.scan(&request).await?;
                let mut rows = Vec::new();
                while let Some(record) = scan.next().await? {
                    rows.push(seen(&record.key, record.seq.0, &record.value));
                }
                Ok((rows, scan.view_seq().0, scan.next_page()))
            });
            let Some((rows, next)) = answer.await else { return };
            let (Some(next), Some(last)) = (next, rows.last()) else { return };
            if reverse {
                end = Some(last.key.as_bytes().to_vec());
            } else {
                start = last.key.successor().as_bytes().to_vec();
            }
            page = Some(next);
            sleep(Duration::from_millis(self.rng.between(0, 20) * self.rng.between(0, 20))).await;
        }
    }

    fn range(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        match self.rng.below(3) {
            0 => (Vec::new(), None),
            1 => (b"s".to_vec(), Some(b"t".to_vec())),
            _ => {
                let (a, b) = (self.key(), self.key());
                let (start, end) = if a <= b { (a, b) } else { (b, a) };
                (start, Some(end))
            }
        }
    }

    /// One recorded read of the process that listens now.
    async fn ask<F>(
        &mut self,
        reader: &Arc<Address<Seat<Reader>>>,
        query: Query,
        wanted: Option<Position>,
        held: Option<&Held>,
        read: impl FnOnce(Reader) -> F + Send + 'static,
    ) -> Option<(Vec<SeenRow>, Option<PageToken>)>
    where
        F: Future<Output = Result<(Vec<SeenRow>, u64, Option<PageToken>), ReadError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let incarnation = reader.incarnation();
        let name: Name = format!("{}-{incarnation}", shared.world.name(reader.process)).into();
        let later_page = query.page.as_ref().is_some_and(|p| !p.first);
        let op = shared.recorder.read_invoked(&self.name, Some(&name), None, query);
        let said = reader.call(&shared.world, PATIENCE, move |seat| async move {
            if seat.incarnation != incarnation {
                return None;
            }
            let clock = Arc::clone(&seat.engine.database().env.clock);
            let from = clock.now().0;
            let answer = read(seat.engine).await;
            let judged = Span { from, to: clock.now().0 };
            Some(answer.map(|(rows, view, next)| (rows, view, next, judged)))
        });
        let said: Result<Said, _> = said.await;
        let code = match said {
            Ok(Some(Ok((rows, view_seq, next, judged)))) => {
                shared.world.note(format_args!(
                    "{} read {}: {} rows at {view_seq}",
                    self.name,
                    op.0,
                    rows.len()
                ));
                shared.answered.fetch_add(1, Ordering::Relaxed);
                // A snapshot's reads judge at the instant at which it was taken, every page of them.
                let judged = match held {
                    Some(h) => Some(Span { from: h.created, to: h.created }),
                    None => Some(judged).filter(|_| !later_page),
                };
                let answer = ReadAnswer { rows: rows.clone(), view_seq, more: next.is_some(), judged };
                shared.recorder.read_answered(op, answer);
                return Some((rows, next));
            }
            Ok(Some(Err(e))) => {
                if let (ReadError::WriteLost { position }, Some(wanted)) = (&e, wanted)
                    && *position == wanted
                {
                    shared
                        .world
                        .violation(format!("{position} was acknowledged, and a reader says it was lost"));
                }
                if let (ReadError::UnknownSnapshot(_) | ReadError::SnapshotChanged(_), Some(true)) =
                    (&e, held.map(|h| h.for_sure))
                {
                    shared.world.violation(format!("{} holds a snapshot, and a reader says: {e}", self.name));
                }
                shared.world.note(format_args!("{} read {}: {e}", self.name, op.0));
                code(&e)
            }
            Ok(None) => "replaced",
            Err(_) => "broken_connection",
        };
        shared.recorder.read_failed(op, code);
        None
    }
}

fn seen(key: &[u8], seq: u64, value: &[u8]) -> SeenRow {
    SeenRow { key: Key::new(key), seq: Some(seq), value: Some(Digest::of(value)) }
}

fn code(e: &ReadError) -> &'static str {
    match e {
        ReadError::Damaged { .. } => "damaged",
        ReadError::ViewExpired { .. } => "view_expired",
        ReadError::PageExpired => "page_expired",
        ReadError::ViewBehind { .. } => "view_behind",
        ReadError::NotReady(_) => "not_ready",
        ReadError::Store(_) => "store",
        ReadError::WriteLost { .. } => "write_lost",
        _ => "other",
    }
}
