//! Watching the head: every edit in order, without gap or repeat, over streams that break.
//!
//! ```text
//!   open at the last seen revision + 1 ──▶ events ──▶ Track ──▶ Edit | Folded
//!        ▲     │ every heartbeat: a progress request on the stream  ── unanswered in time ──▶ broken
//!        │     │                  a linearizable read of the head   ── ahead of the stream for too long ──▶ broken
//!        │     │                                                    ── not ahead ──▶ Alive
//!        └─────┴── broken: Down, back off, next endpoint            ── gone ──▶ Reset
//! ```
//!
//! Two probes, since neither is enough. The progress request proves that the stream is alive, but not that the view is
//! fresh: a member lagging behind its peers answers it too, and before 3.4.25 and 3.5.8 etcd answers it ahead of events
//! that are still queued. The read proves freshness as of its send, says at which revision a broken stream may safely
//! resume though nothing has happened for hours and etcd has compacted, and is the safety poll that ends a stream
//! which is alive and delivers nothing. It asks for the key's revision alone.
//!
//! A watch of a wiped or restored etcd at the old, higher revision would wait for ever in silence. The first answer on
//! every stream tells etcd's revision; below the expected one it is checked against a linearizable read. Changes that
//! any other call notices ([`super::witness`]) end the watch too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, KeyValue, WatchFilterType, WatchOptions, WatchResponse, WatchStream};
use futures::StreamExt;

use futures::stream::{self, BoxStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::EtcdCoordination;
use super::beat::{Beat, Probed, probe};
use super::client::{Dialed, Dialer, Kv, MAX_ANSWER_BYTES, get};
use super::edits::{self, EditReadError};
use super::error::CallError;
use super::keys::Keys;
use super::load::{SeenHead, decode_head};
use super::track::{Step, Track};
use crate::coordination::{HeadState, WatchEvent};
use crate::environment::Entropy;
use crate::manifest::Edit;
use crate::object::Bucket;

/// Events waiting for the consumer; when they are full, the stream from etcd waits too.
const EVENT_BUFFER: usize = 64;

/// First pause after a broken stream; doubles up to [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// Longest pause between attempts to reconnect.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// Probes of the head that may fail in a row before the service counts as away.
const PROBES_FAILED: u32 = 2;

impl EtcdCoordination {
    pub(super) fn watch_from(&self, from: &HeadState) -> BoxStream<'static, WatchEvent> {
        let (events, receiver) = mpsc::channel(EVENT_BUFFER);
        let watcher = Watcher {
            kv: Arc::clone(&self.kv),
            keys: Arc::clone(&self.keys),
            bucket: Arc::clone(&self.bucket),
            seen: Arc::clone(&self.seen),
            entropy: Arc::clone(&self.env.entropy),
            dialer: self.dialer(),
            heartbeat: self.settings.heartbeat,
            changes: self.kv.witness.changes(),
            track: Track::after(from),
            outlet: Outlet { events, down: false },
        };
        let task = AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        stream::unfold((receiver, task), |(mut receiver, task)| async move {
            receiver.recv().await.map(|event| (event, (receiver, task)))
        })
        .boxed()
    }
}

/// Why a stream, or the whole watch, has ended.
enum End {
    /// Nobody listens any more.
    Closed,
    /// The stream broke; another may do.
    Broken(String),
    /// The caller has to load again.
    Reset(String),
}

/// Where events go.
struct Outlet {
    events: mpsc::Sender<WatchEvent>,
    /// Whether the last word was `Down`.
    down: bool,
}

impl Outlet {
    async fn send(&mut self, event: WatchEvent) -> Result<(), End> {
        self.down = matches!(event, WatchEvent::Down(_));
        self.events.send(event).await.map_err(|_| End::Closed)
    }

    /// Says once per outage that the service is away.
    async fn down(&mut self, why: String) -> Result<(), End> {
        if self.down { Ok(()) } else { self.send(WatchEvent::Down(why)).await }
    }
}

/// The task behind one watch.
struct Watcher {
    kv: Arc<Kv>,
    keys: Arc<Keys>,
    bucket: Arc<dyn Bucket>,
    seen: Arc<SeenHead>,
    entropy: Arc<dyn Entropy>,
    dialer: Dialer,
    heartbeat: Duration,
    changes: watch::Receiver<(u64, String)>,
    track: Track,
    outlet: Outlet,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut opened = false;
            let why = match self.stream(&mut opened).await {
                End::Closed => return,
                End::Reset(why) => return self.reset(why).await,
                End::Broken(why) => why,
            };
            if self.outlet.down(why).await.is_err() {
                return;
            }
            pause = if opened { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MOST) };
            let events = self.outlet.events.clone();
            tokio::select! {
                () = sleep(jittered(pause, self.entropy.as_ref())) => {}
                () = events.closed() => return,
            }
        }
    }

    /// The last event; the stream stays open, as nothing more can be said on it.
    async fn reset(mut self, why: String) {
        if self.outlet.send(WatchEvent::Reset(why)).await.is_ok() {
            self.outlet.events.closed().await;
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self, opened: &mut bool) -> End {
        self.track.resume();
        let dialed = match self.dialer.dial().await {
            Ok(dialed) => dialed,
            Err(e) => return End::Broken(e.reason().to_owned()),
        };
        let end = match self.open(&dialed).await {
            Ok(stream) => {
                *opened = true;
                self.follow(stream).await
            }
            Err(end) => end,
        };
        self.dialer.discard(&dialed).await;
        match end {
            End::Broken(why) => End::Broken(format!("{}: {why}", dialed.endpoint)),
            other => other,
        }
    }

    /// Opens a stream and checks etcd's first answer on it.
    async fn open(&mut self, dialed: &Dialed) -> Result<WatchStream, End> {
        let (from, to) = self.keys.watched();
        let options = WatchOptions::new()
            .with_range(to)
            .with_start_revision(self.track.next_revision())
            // Folds delete hundreds of edits at a time, and nobody here wants to know.
            .with_filters([WatchFilterType::NoDelete]);
        let mut client = dialed.client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES);
        let bound = self.dialer.request_timeout();
        let opening = async {
            let mut stream = client.watch(from, Some(options)).await?;
            let first = stream.message().await?;
            Ok::<_, etcd_client::Error>((stream, first))
        };
        let (stream, first) = match timeout(bound, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(e)) => return Err(End::Broken(CallError::of(&e).reason().to_owned())),
            Err(_) => return Err(End::Broken(format!("a watch was not answered within {bound:?}"))),
        };
        let first = first.ok_or_else(|| End::Broken("etcd ended the watch at once".to_owned()))?;
        judge_cancel(&first)?;
        self.judge_opening(&first).await?;
        Ok(stream)
    }

    /// A revision below the expected one, or another cluster id: either this member lags, or etcd is not what it was.
    async fn judge_opening(&mut self, first: &WatchResponse) -> Result<(), End> {
        let Some(header) = first.header() else { return Ok(()) };
        let reached = self.track.next_revision() - 1;
        let same = self.kv.witness.is_plausible(header.cluster_id(), i64::MAX);
        if same && header.revision() >= reached {
            return Ok(());
        }
        let read = self.kv.read(vec![get(self.keys.head())]).await;
        self.judge_changes()?;
        match read {
            Ok(answer) if answer.revision < reached => Err(End::Reset(format!(
                "etcd's revision is {} and was {reached}: it was wiped or restored",
                answer.revision
            ))),
            Ok(_) if !same => {
                Err(End::Broken("this endpoint belongs to another cluster than the others".to_owned()))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(End::Broken(e.reason().to_owned())),
        }
    }

    fn judge_changes(&mut self) -> Result<(), End> {
        match self.changes.has_changed() {
            Ok(true) => Err(End::Reset(self.changes.borrow_and_update().1.clone())),
            _ => Ok(()),
        }
    }

    /// Follows an open stream until it ends.
    async fn follow(&mut self, mut stream: WatchStream) -> End {
        let mut beat = Beat::new(self.heartbeat, self.dialer.request_timeout() * 2);
        let events = self.outlet.events.clone();
        loop {
            let (due, next) = (beat.due(), beat.next);
            let happening = tokio::select! {
                () = events.closed() => return End::Closed,
                _ = self.changes.changed() => return End::Reset(self.changes.borrow().1.clone()),
                message = stream.message() => Happening::Message(message),
                probed = beat.probe() => Happening::Probed(probed),
                () = sleep_until(next) => Happening::Beat,
                () = sleep_until(due) => return End::Broken(beat.overdue()),
            };
            let begun = Instant::now();
            let outcome = match happening {
                Happening::Message(message) => self.take_message(message, &mut beat).await,
                Happening::Probed(probed) => self.take_probe(probed, &mut beat).await,
                Happening::Beat => self.begin_beat(&mut stream, &mut beat).await,
            };
            if let Err(end) = outcome {
                return end;
            }
            // A consumer that takes its time is not held against the stream.
            beat.excuse(begun.elapsed());
        }
    }

    async fn begin_beat(&mut self, stream: &mut WatchStream, beat: &mut Beat) -> Result<(), End> {
        if beat.begin() {
            stream.request_progress().await.map_err(|e| End::Broken(e.to_string()))?;
        }
        if beat.probe.is_none() {
            beat.probe = Some(Box::pin(probe(Arc::clone(&self.kv), self.keys.head())));
        }
        Ok(())
    }

    async fn take_message(
        &mut self,
        message: Result<Option<WatchResponse>, etcd_client::Error>,
        beat: &mut Beat,
    ) -> Result<(), End> {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err(End::Broken("etcd ended the watch".to_owned())),
            Err(e) => return Err(End::Broken(CallError::of(&e).reason().to_owned())),
        };
        judge_cancel(&message)?;
        for event in message.events() {
            if let (EventType::Put, Some(kv)) = (event.event_type(), event.kv()) {
                self.take_put(kv).await?;
            }
        }
        beat.heard(&self.track);
        Ok(())
    }

    async fn take_put(&mut self, kv: &KeyValue) -> Result<(), End> {
        let as_of = Instant::now();
        if let Some(version) = self.keys.parse_edit(kv.key()) {
            self.track.edit(version, kv.mod_revision(), kv.value());
            return Ok(());
        }
        if kv.key() != self.keys.head().as_bytes() {
            return Ok(());
        }
        let head = decode_head(kv.value()).map_err(|e| End::Reset(e.to_string()))?;
        match self.track.head(head, Bytes::copy_from_slice(kv.value()), kv.mod_revision()) {
            Step::Nothing => Ok(()),
            Step::Reset(why) => Err(End::Reset(why)),
            Step::Folded(state) => self.outlet.send(WatchEvent::Folded(state)).await,
            Step::Edit(state, value) => {
                let edit = Arc::new(self.fetch(&value, &state).await?);
                self.seen.note(&state.head);
                self.outlet.send(WatchEvent::Edit { edit: Some(edit), state, as_of }).await
            }
        }
    }

    /// The edit itself, from the bucket where it lies there; waits for the bucket as long as it takes.
    async fn fetch(&mut self, value: &[u8], state: &HeadState) -> Result<Edit, End> {
        let version = state.head.version;
        let mut pause = PAUSE_FIRST;
        loop {
            let value = edits::decode(value, version);
            let fetched = match value {
                Ok(value) => edits::fetch(self.bucket.as_ref(), value, version).await,
                Err(e) => Err(e),
            };
            match fetched {
                Ok(edit) => return Ok(edit),
                Err(EditReadError::Gone(why)) => return Err(End::Reset(why)),
                Err(EditReadError::Definite(e)) => return Err(End::Reset(e.to_string())),
                Err(EditReadError::Passing(why)) => self.outlet.down(why).await?,
            }
            sleep(jittered(pause, self.entropy.as_ref())).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }

    async fn take_probe(&mut self, probed: Probed, beat: &mut Beat) -> Result<(), End> {
        let answer = match probed.outcome {
            Ok(answer) => answer,
            Err(e) => {
                beat.probes_failed += 1;
                let away = beat.probes_failed >= PROBES_FAILED;
                return if away { self.outlet.down(e.reason().to_owned()).await } else { Ok(()) };
            }
        };
        beat.probes_failed = 0;
        let Some(head) = answer.one(0) else {
            return Err(End::Reset("the head is gone from etcd".to_owned()));
        };
        if self.track.has_seen(head.mod_revision()) {
            self.track.quiet_until(answer.revision);
            return self.outlet.send(WatchEvent::Alive(probed.sent)).await;
        }
        beat.expect(head.mod_revision());
        Ok(())
    }
}

/// What a stream's loop wakes up for.
enum Happening {
    Message(Result<Option<WatchResponse>, etcd_client::Error>),
    Probed(Probed),
    Beat,
}

/// A cancelled watch: compacted beyond where it stood, or refused.
fn judge_cancel(message: &WatchResponse) -> Result<(), End> {
    if message.compact_revision() != 0 {
        return Err(End::Reset(format!(
            "etcd has compacted its history up to revision {}, beyond what was seen",
            message.compact_revision()
        )));
    }
    if message.canceled() {
        return Err(End::Broken(format!("etcd cancelled the watch: {}", message.cancel_reason())));
    }
    Ok(())
}

/// Half to all of a pause, so that a hundred readers do not come back at once.
fn jittered(pause: Duration, entropy: &dyn Entropy) -> Duration {
    pause / 2 + (pause / 2).mul_f64((entropy.next_u64() % 1000) as f64 / 1000.0)
}
