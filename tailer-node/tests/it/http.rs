//! The tail over a real socket.

use std::time::Duration;

use http::Method;
use isle_service::client::{BaseUrl, Client};
use isle_service::health::Health;
use isle_service::openapi;
use isle_service::server::{Encoder, HttpMetrics, ServerHandle, ServerParts, bind, serve};
use isle_service::slot::Slot;
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::{Entry, Scribe};
use serde_json::Value;
use std::sync::Arc;
use tailer_node::server::router;
use tailer_node::{Tailer, TailerSettings};

use crate::consume::{entries, follow, settings};

pub(crate) struct Face {
    e: Embedded,
    pub(crate) scribe: Scribe,
    pub(crate) tailer: Tailer,
    client: Client,
    base: BaseUrl,
    _server: ServerHandle,
}

impl Face {
    pub(crate) async fn new(settings: TailerSettings) -> Self {
        let e = Embedded::new().await;
        let scribe = Scribe::take_over(&e.db).await;
        let tailer = Tailer::open(e.process("tailer"), settings).unwrap();
        tailer.ready().await;
        follow(&tailer, &scribe).await;
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let parts = ServerParts {
            program: "tailer-node",
            role: "tailer",
            health: Health::new("tailer"),
            metrics: Encoder::none(),
            http: HttpMetrics::new(),
            settings: Default::default(),
        };
        let server = serve(listener, router(Slot::filled(Arc::new(tailer.clone()))), parts);
        let base = format!("http://{}", server.local_addr()).parse().unwrap();
        Self { e, scribe, tailer, client: Client::default(), base, _server: server }
    }

    pub(crate) async fn append(&mut self, entries: &[Entry]) {
        self.scribe.append(entries).await;
        follow(&self.tailer, &self.scribe).await;
    }

    pub(crate) async fn page(&self, query: &str) -> Value {
        let target = format!("/v1/changes?{query}");
        let answer = self.client.request(Method::GET, &self.base, &target).send().await.unwrap();
        answer.ok().await.unwrap().json().await.unwrap()
    }

    async fn refusal(&self, target: &str) -> (u16, Value) {
        self.call(Method::GET, target, "").await
    }

    /// Status and body of any call.
    pub(crate) async fn call(&self, method: Method, target: &str, body: &str) -> (u16, Value) {
        let request = self.client.request(method, &self.base, target).body(body.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes(1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

pub(crate) fn seqs(page: &Value) -> Vec<u64> {
    page["changes"].as_array().unwrap().iter().map(|c| c["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_route_is_in_the_document() {
    let differences = openapi::differences("tailer", &router(Slot::new()));
    assert!(differences.is_empty(), "{differences:?}");
}

#[tokio::test]
async fn pages_chain_without_gap_or_repeat_at_every_size() {
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 60)).await;
    face.scribe.flush().await;
    face.append(&entries(1, 40)).await;
    for query in
        ["limit=1", "limit=7", "limit=100", "limit=1000", "max_bytes=1", "max_bytes=40", "max_bytes=4000"]
    {
        let (mut from, mut got) = ("earliest".to_owned(), Vec::new());
        loop {
            let page = face.page(&format!("from={from}&{query}")).await;
            assert_eq!(page["head"], 100);
            got.extend(seqs(&page));
            from = page["next"].as_str().unwrap().to_owned();
            if page["caught_up"] == true {
                break;
            }
        }
        assert_eq!(got, (1..=100).collect::<Vec<_>>(), "{query}");
    }
}

/// A page whose limit is exactly what its changes take holds them all; one byte less, and the last one comes first on
/// the next page.
#[tokio::test]
async fn a_page_exactly_at_its_byte_limit_holds_what_fits_and_loses_nothing() {
    let mut face = Face::new(settings()).await;
    let all = entries(0, 30);
    face.append(&all).await;
    let mut bytes = 0;
    for (n, entry) in (1u64..).zip(&all) {
        bytes += entry.key.len() + entry.value.as_ref().map_or(0, Vec::len);
        let whole = face.page(&format!("from=earliest&max_bytes={bytes}")).await;
        assert_eq!(seqs(&whole), (1..=n).collect::<Vec<_>>(), "{bytes}");
        let short = face.page(&format!("from=earliest&max_bytes={}", bytes - 1)).await;
        let held = seqs(&short).len() as u64;
        assert_eq!(held, (n - 1).max(1), "{bytes} less one");
        let next = face.page(&format!("from={}&limit=1", short["next"].as_str().unwrap())).await;
        assert!(held == 30 || seqs(&next) == [held + 1], "after {held}: {next}");
    }
}

#[tokio::test]
async fn a_filtered_page_may_be_empty_and_still_advances() {
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 30)).await;
    let none = face.page("from=earliest&prefix=zzz").await;
    assert!(seqs(&none).is_empty());
    assert_eq!(none["caught_up"], true);
    assert!(none["next"].as_str().unwrap().ends_with(".30"));
    let some = face.page("from=earliest&prefix=b/").await;
    assert_eq!(seqs(&some), (0..30).filter(|i| i % 3 == 1).map(|i| i + 1).collect::<Vec<_>>());
}

/// Nothing extends the wait budget, and a change ends the wait at once.
#[tokio::test]
async fn a_page_waits_for_a_change_and_no_longer_than_asked() {
    let mut face = Face::new(settings()).await;
    let started = std::time::Instant::now();
    let page = face.page("from=latest&wait=300ms").await;
    assert!(seqs(&page).is_empty() && started.elapsed() >= Duration::from_millis(300));
    let from = page["next"].as_str().unwrap().to_owned();
    let (client, base) = (face.client.clone(), face.base.clone());
    let waiting = tokio::spawn(async move {
        let target = format!("/v1/changes?from={from}&wait=60s");
        client.request(Method::GET, &base, &target).send().await.unwrap().json::<Value>().await.unwrap()
    });
    while face.tailer.status().consumers == 0 {
        tokio::task::yield_now().await;
    }
    face.append(&entries(0, 3)).await;
    assert_eq!(seqs(&waiting.await.unwrap()), [1, 2, 3]);
}

#[tokio::test]
async fn an_ndjson_stream_delivers_beats_and_closes() {
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 25)).await;
    let call = face.client.request(Method::GET, &face.base, "/v1/tail?from=earliest&format=ndjson");
    let mut lines = call.send().await.unwrap().ok().await.unwrap().lines(None);
    let mut next = 1;
    let mut next_line = async || -> Value {
        let line = lines.next().await.unwrap().expect("the stream ended");
        serde_json::from_slice(&line.bytes).unwrap()
    };
    while next <= 25 {
        let line = next_line().await;
        assert_eq!(line["seq"], next, "{line}");
        assert!(line["cursor"].as_str().unwrap().ends_with(&format!(".{next}")));
        next += 1;
    }
    let beat = next_line().await;
    assert_eq!(
        (&beat["heartbeat"], &beat["caught_up"], &beat["head"]),
        (&true.into(), &true.into(), &25.into())
    );
    face.append(&entries(1, 1)).await;
    assert_eq!(next_line().await["seq"], 26);
    face.tailer.close();
    assert_eq!(next_line().await["closing"], true);
    assert!(lines.next().await.unwrap().is_none());
}

#[tokio::test]
async fn server_sent_events_resume_by_their_last_id() {
    let mut face = Face::new(settings()).await;
    face.append(&[Entry::put("a", "1"), Entry::delete("a"), Entry::put(b"\xff".to_vec(), b"\xfe".to_vec())])
        .await;
    let call = face.client.request(Method::GET, &face.base, "/v1/tail?from=earliest");
    let answer = call.send().await.unwrap().ok().await.unwrap();
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let mut lines = answer.lines(None);
    let mut text = Vec::new();
    while text.len() < 9 {
        text.push(String::from_utf8(lines.next().await.unwrap().unwrap().bytes.to_vec()).unwrap());
    }
    assert!(
        text[0].starts_with("id: ")
            && text[1] == "event: put"
            && text[2].starts_with("data: {\"op\":\"put\"")
    );
    assert_eq!(text[4], "event: delete");
    assert!(text[8].contains("\"key_b64\":\"/w==\""), "{}", text[8]);
    let id = text[3].strip_prefix("id: ").unwrap().to_owned();
    let call = face.client.request(Method::GET, &face.base, "/v1/tail?from=earliest");
    let resumed = call.header(http::HeaderName::from_static("last-event-id"), &id).send().await.unwrap();
    let mut lines = resumed.ok().await.unwrap().lines(None);
    let first = String::from_utf8(lines.next().await.unwrap().unwrap().bytes.to_vec()).unwrap();
    assert!(first.ends_with(".3"), "{first}");
}

/// A stream whose filter lets nothing through still says where it is.
#[tokio::test]
async fn a_filtered_stream_advances_by_heartbeats() {
    let mut face = Face::new(TailerSettings { heartbeat_seconds: 1, ..settings() }).await;
    face.append(&entries(0, 25)).await;
    let call =
        face.client.request(Method::GET, &face.base, "/v1/tail?from=earliest&format=ndjson&prefix=zzz");
    let mut lines = call.send().await.unwrap().ok().await.unwrap().lines(None);
    let mut beat = Value::Null;
    while beat["caught_up"] != true {
        beat = serde_json::from_slice(&lines.next().await.unwrap().unwrap().bytes).unwrap();
        assert_eq!(beat["heartbeat"], true, "{beat}");
    }
    assert!(beat["next"].as_str().unwrap().ends_with(".25"));
}

#[tokio::test]
async fn frames_carry_the_same_changes() {
    use isle_service::wire::Kind;
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 25)).await;
    let call = face.client.request(Method::GET, &face.base, "/v1/tail?from=earliest&format=frames");
    let mut frames = call.send().await.unwrap().ok().await.unwrap().frames(None);
    for seq in 1..=25u64 {
        let frame = frames.next().await.unwrap().unwrap();
        let entry = &face.scribe.history[seq as usize - 1].1;
        assert_eq!((frame.seq, &frame.key[..]), (seq, &entry.key[..]));
        assert_eq!(frame.kind == Kind::Delete, entry.value.is_none());
    }
    assert_eq!(frames.next().await.unwrap().unwrap().kind, Kind::Trailer);
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let face = Face::new(settings()).await;
    for (target, code) in [
        ("/v1/tail?form=earliest", "unknown_parameter"),
        ("/v1/tail?from=yesterday", "invalid_request"),
        ("/v1/tail?from=group:", "invalid_request"),
        ("/v1/tail?from=group:a%2Fb", "invalid_request"),
        ("/v1/groups?all", "unknown_parameter"),
        ("/v1/groups/a%2Fb", "invalid_request"),
        ("/v1/bootstrap?limit=1", "unknown_parameter"),
        ("/v1/bootstrap?format=sse", "invalid_request"),
        ("/v1/bootstrap?prefix=a&prefix_b64=YQ", "invalid_request"),
        ("/v1/bootstrap?snapshot=a%2Fb", "invalid_request"),
        ("/v1/bootstrap?ttl=2h", "invalid_request"),
        ("/v1/bootstrap?ttl=none", "invalid_request"),
        ("/v1/tail?format=xml", "invalid_request"),
        ("/v1/changes?limit=0", "invalid_request"),
        ("/v1/changes?wait=3600s", "invalid_request"),
        ("/v1/changes?max_bytes=0", "invalid_request"),
    ] {
        let (status, body) = face.refusal(target).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some(code)), "{target}: {body}");
    }
    assert_eq!(face.e.db.identity.name, "default");
}

fn long(len: usize) -> String {
    (0..len).map(|n| char::from(b'a' + (n % 23) as u8)).collect()
}

/// Values in blob files are delivered with their changes, once fetched for everybody; of those above 8 MiB the length
/// is, and the value has an address of its own.
#[tokio::test]
async fn values_in_blob_files_are_delivered() {
    let mut face = Face::new(TailerSettings { cache_bytes: 64 << 20, ..settings() }).await;
    face.scribe.blob_threshold = 100;
    let (fits, beyond) = (long(200_000), long((8 << 20) + 1));
    let batch = [Entry::put("a", fits.clone()), Entry::put("b", beyond.clone()), Entry::put("c", "small")];
    face.append(&batch).await;
    for _ in 0..3 {
        let page = face.page("from=earliest").await;
        assert_eq!(seqs(&page), [1, 2, 3]);
        let changes = page["changes"].as_array().unwrap();
        assert_eq!(changes[0]["value"], fits);
        assert_eq!(
            (changes[1]["op"].as_str(), changes[1]["value_len"].as_u64()),
            (Some("put"), Some((8 << 20) + 1))
        );
        assert!(changes[1].get("value").is_none());
        assert_eq!(changes[2]["value"], "small");
    }
    let windows = 200_000_usize.div_ceil(64 << 10);
    assert_eq!(face.e.bucket.count(isle_testkit::fault::Op::Get, "blob/*"), windows, "fetched once");
    let bounded = face.page("from=earliest&max_bytes=1000").await;
    assert_eq!(seqs(&bounded), [1], "a value counts as its bytes");

    let call = |target: &str| face.client.request(Method::GET, &face.base, target);
    let whole = call("/v1/value?seq=2").send().await.unwrap();
    assert_eq!(whole.header("content-length"), Some(beyond.len().to_string().as_str()));
    assert!(whole.bytes(64 << 20).await.unwrap() == beyond.as_bytes());
    let part = call("/v1/value?seq=2").header(http::header::RANGE, "bytes=8388606-").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert!(part.bytes(64).await.unwrap() == beyond.as_bytes()[8_388_606..]);
    assert_eq!(call("/v1/value?seq=3").send().await.unwrap().bytes(64).await.unwrap(), "small");
    assert_eq!(face.refusal("/v1/value?seq=4").await.0, 404);
    assert_eq!(face.refusal("/v1/value").await.0, 400);

    // A stream renders no more of a block of pointers than it sends.
    let answer = call("/v1/tail?from=earliest&format=ndjson").send().await.unwrap();
    let mut lines = answer.lines(None);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let line = lines.next().await.unwrap().unwrap();
        let change: Value = serde_json::from_slice(&line.bytes).unwrap();
        seen.extend(change["seq"].as_u64().map(|seq| (seq, change["value"].as_str().map(str::len))));
    }
    assert_eq!(seen, [(1, Some(200_000)), (2, None), (3, Some(5))]);
}

#[tokio::test]
async fn a_damaged_value_ends_the_delivery() {
    let mut face = Face::new(settings()).await;
    face.scribe.blob_threshold = 100;
    face.append(&[Entry::put("a", long(200_000))]).await;
    let damage = isle_testkit::fault::Fault::FlipBit(5);
    let rule = isle_testkit::fault::Rule::on(isle_testkit::fault::Op::Get).path("blob/*").nth(1);
    face.e.bucket.inject(rule, damage);
    let (status, error) = face.refusal("/v1/changes?from=earliest").await;
    assert_eq!((status, error["error"]["code"].as_str()), (500, Some("damaged")));
    assert_eq!(seqs(&face.page("from=earliest").await), [1], "and the next look is right");
}

impl Face {
    /// The lines of a bootstrap; the last is the trailer, or an error.
    async fn lines(&self, query: &str) -> Vec<Value> {
        let target = format!("/v1/bootstrap?{query}");
        let answer = self.client.request(Method::GET, &self.base, &target).send().await.unwrap();
        let body = answer.ok().await.unwrap().bytes(64 << 20).await.unwrap();
        body.split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }
}

fn keys(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|r| r["key"].as_str().unwrap()).collect()
}

/// Rows as a scan has them, in key order, and a trailer whose cursor goes on exactly.
#[tokio::test]
async fn a_bootstrap_is_rows_and_then_the_cursor_after_them() {
    let mut face = Face::new(settings()).await;
    face.scribe.blob_threshold = 100;
    let large = long((8 << 20) + 1);
    let batch =
        [Entry::put("b/1", "one"), Entry::put("a/1", "x"), Entry::delete("b/1"), Entry::put("a/2", large)];
    face.append(&batch).await;
    face.scribe.flush().await;
    face.append(&[Entry::put("b/2", long(200_000)), Entry::put(b"\xff".to_vec(), b"\xfe".to_vec())]).await;
    let lines = face.lines("").await;
    let (trailer, rows) = lines.split_last().unwrap();
    assert_eq!(
        (rows[0]["key"].as_str(), rows[0]["value"].as_str(), rows[0]["seq"].as_u64()),
        (Some("a/1"), Some("x"), Some(2))
    );
    assert!(rows[0].get("op").is_none() && rows[0].get("cursor").is_none() && rows[0]["expires"].is_null());
    assert_eq!(rows[1]["value_len"].as_u64(), Some((8 << 20) + 1));
    assert!(rows[1].get("value").is_none());
    assert_eq!(rows[2]["value"], long(200_000));
    assert_eq!((rows[3]["key_b64"].as_str(), rows[3]["value_b64"].as_str()), (Some("/w=="), Some("/g==")));
    assert_eq!(rows.len(), 4);
    assert_eq!((trailer["rows"].as_u64(), trailer["view_seq"].as_u64()), (Some(4), Some(6)));
    assert!(trailer["held_until"].is_string() && trailer["snapshot"].is_string());
    let cursor = trailer["cursor"].as_str().unwrap();
    face.append(&[Entry::delete("a/1")]).await;
    assert_eq!(seqs(&face.page(&format!("from={cursor}")).await), [7]);

    let lines = face.lines("prefix=b%2F&encoding=b64").await;
    assert_eq!((lines.len(), lines[0]["key_b64"].as_str()), (2, Some("Yi8y")));
    assert_eq!(keys(&face.lines("prefix_b64=Yi8").await[..1]), ["b/2"]);
    let none = face.lines("prefix=nothing").await;
    assert_eq!((none.len(), none[0]["rows"].as_u64(), none[0]["view_seq"].as_u64()), (1, Some(0), Some(7)));
}

#[tokio::test]
async fn a_bootstrap_in_frames_holds_the_same() {
    use isle_service::wire::Kind;
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 30)).await;
    let call = face.client.request(Method::GET, &face.base, "/v1/bootstrap?format=frames&prefix=a/");
    let answer = call.send().await.unwrap().ok().await.unwrap();
    assert_eq!(answer.header("isle-view-seq"), Some("30"));
    let mut frames = answer.frames(None);
    let mut got = Vec::new();
    let last = loop {
        let frame = frames.next().await.unwrap().unwrap();
        if frame.kind != Kind::Put {
            break frame;
        }
        got.push((frame.key.to_vec(), frame.value.to_vec()));
    };
    let now = face.e.db.env.clock.now();
    let mut seen = face.scribe.visible_at(isle_storage::ids::SeqNo(30), now);
    seen.retain(|key, _| key.starts_with(b"a/"));
    assert_eq!(got, seen.into_iter().map(|(key, (_, value))| (key, value)).collect::<Vec<_>>());
    assert_eq!(last.kind, Kind::Trailer);
    let trailer: Value = serde_json::from_slice(&last.value).unwrap();
    assert_eq!(trailer["rows"].as_u64(), Some(got.len() as u64));
    assert!(frames.next().await.unwrap().is_none());
}

/// What can be refused is, before the answer begins; what breaks later is the last line.
#[tokio::test]
async fn a_bootstrap_says_why_it_cannot_be_had() {
    use isle_testkit::fault::{Fault, Op, Rule};
    let settings = TailerSettings { max_bootstraps: 1, bootstrap_read_bytes: 64 << 10, ..settings() };
    let mut face = Face::new(settings).await;
    for n in 0..3 {
        let row = |i| Entry::put(format!("{n}/{i:04}"), long(9000));
        face.append(&(0..200).map(row).collect::<Vec<_>>()).await;
        face.scribe.flush().await;
    }
    follow(&face.tailer, &face.scribe).await;
    let (status, error) = face.refusal("/v1/bootstrap?snapshot=nobody").await;
    assert_eq!((status, error["error"]["code"].as_str()), (404, Some("unknown_snapshot")));
    let call = face.client.request(Method::GET, &face.base, "/v1/bootstrap");
    let mut lines = call.send().await.unwrap().ok().await.unwrap().lines(None);
    lines.next().await.unwrap().unwrap();
    let (status, error) = face.refusal("/v1/bootstrap").await;
    assert_eq!((status, error["error"]["code"].as_str()), (429, Some("overloaded")), "{error}");
    drop(lines);
    while face.tailer.status().bootstraps > 0 {
        tokio::task::yield_now().await;
    }
    let tables = face.scribe.manifest().tables().count();
    face.e.bucket.inject(Rule::on(Op::Get).path("table/*").after(tables as u64), Fault::FlipBit(9));
    let lines = face.lines("").await;
    let (last, rows) = lines.split_last().unwrap();
    assert_eq!(last["error"]["code"], "damaged", "{last}");
    assert!(last["error"]["message"].as_str().unwrap().contains("table/"));
    assert!(!rows.is_empty() && rows.iter().all(|r| r["key"].is_string()), "rows came before");
    face.e.bucket.heal();

    let lines = face.lines("").await;
    let old = lines[lines.len() - 1]["snapshot"].as_str().unwrap().to_owned();
    while face.e.db.load().await.unwrap().manifest.snapshots.len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(face.lines(&format!("snapshot={old}")).await.len(), lines.len(), "as long as it lingers");
}
