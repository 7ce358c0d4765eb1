//! The HTTP face through a real listener: keys of any bytes, bulk forms, pages, limits, errors with their codes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use isle_service::client::{Answer, BaseUrl, Client};
use isle_service::config::ServerSettings;
use isle_service::health::Health;
use isle_service::openapi;
use isle_service::server::{Encoder, HttpMetrics, ServerHandle, ServerParts, bind, serve};
use isle_service::slot::Slot;
use isle_service::wire::{Kind, frame, key_target};
use isle_storage::object::StoreErrorKind;
use isle_testkit::fault::{Fault, Op, Rule};
use reader_node::server::{ROLE, router, show_health};
use reader_node::{Reader, ReaderSettings};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fixture::World;

const LIMIT: usize = 64 << 20;

/// A reader behind a listener on a free port.
struct Face {
    client: Client,
    base: BaseUrl,
    server: ServerHandle,
    health: Health,
}

impl Face {
    async fn over(reader: Reader) -> Self {
        let health = Health::new(ROLE);
        tokio::spawn(show_health(reader.clone(), health.clone()));
        Self::with(Slot::filled(Arc::new(reader)), health).await
    }

    async fn with(slot: Slot<Reader>, health: Health) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let parts = ServerParts {
            program: "reader-node",
            role: ROLE,
            health: health.clone(),
            metrics: Encoder::none(),
            http: HttpMetrics::new(),
            settings: ServerSettings::default(),
        };
        let base = format!("http://{}", listener.local_addr()).parse().unwrap();
        Self { client: Client::default(), base, server: serve(listener, router(slot), parts), health }
    }

    async fn of(world: &World) -> Self {
        Self::over(world.reader().await).await
    }

    async fn send(&self, method: Method, target: &str, body: impl Into<Bytes>) -> Answer {
        let body: Bytes = body.into();
        self.client.request(method, &self.base, target).body(body).send().await.unwrap()
    }

    async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, "").await
    }

    /// Status and `error.code` of a refused request.
    async fn refusal(&self, target: &str) -> (u16, String) {
        let answer = self.get(target).await;
        let status = answer.status().as_u16();
        let json: Value = answer.json().await.unwrap();
        (status, json["error"]["code"].as_str().unwrap().to_owned())
    }

    /// The lines of an answer; the last is the trailer or the error.
    async fn lines(&self, answer: Answer) -> Vec<Value> {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header(header::CONTENT_TYPE), Some("application/x-ndjson"));
        let body = answer.bytes(LIMIT).await.unwrap();
        assert_eq!(body.last(), Some(&b'\n'));
        body.trim_ascii_end().split(|b| *b == b'\n').map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    async fn scan(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/scan?{query}")).await;
        self.lines(answer).await
    }

    async fn stop(self) {
        assert_eq!(self.server.stop(Instant::now() + Duration::from_secs(10)).await, 0);
    }
}

async fn letters() -> World {
    let mut world = World::new().await;
    for key in ["a/1", "a/2", "b/1", "b/2", "b/3"] {
        world.put(key.as_bytes(), key.as_bytes());
    }
    world.commit().await;
    world
}

/// Every route is in the document of the API, and every endpoint of the role is served.
#[test]
fn the_routes_are_the_documented_ones() {
    let differences = openapi::differences(ROLE, &router(Slot::new()));
    assert!(differences.iter().all(|d| d.starts_with("not served: GET /livez")), "{differences:?}");
}

/// A value comes as it was put, with its number and the view's; an absent key is 404 with the view's; HEAD says the
/// same without the value.
#[tokio::test]
async fn a_value_comes_as_it_was_put() {
    let mut world = World::new().await;
    world.put(b"k", b"\x00\xff binary");
    world.put(b"empty", b"");
    world.commit().await;
    let face = Face::of(&world).await;
    let answer = face.get("/v1/kv/k").await;
    assert_eq!((answer.status().as_u16(), answer.header("isle-seq")), (200, Some("1")));
    assert_eq!(answer.header("isle-view-seq"), Some("2"));
    assert_eq!(answer.header(header::CONTENT_TYPE), Some("application/octet-stream"));
    assert_eq!(answer.bytes(LIMIT).await.unwrap(), &b"\x00\xff binary"[..]);
    let head = face.send(Method::HEAD, "/v1/kv/k", "").await;
    assert_eq!(head.header(header::CONTENT_LENGTH), Some("9"));
    assert_eq!(head.header("isle-seq"), Some("1"));
    assert!(head.bytes(LIMIT).await.unwrap().is_empty());
    let empty = face.get("/v1/kv/empty").await;
    assert_eq!(empty.status(), 200);
    assert!(empty.bytes(LIMIT).await.unwrap().is_empty());
    let absent = face.get("/v1/kv/none").await;
    assert_eq!((absent.status().as_u16(), absent.header("isle-view-seq")), (404, Some("2")));
    assert_eq!(absent.json::<Value>().await.unwrap()["error"]["code"], "not_found");
    assert_eq!(face.send(Method::HEAD, "/v1/kv/none", "").await.status(), 404);
    face.stop().await;
}

/// Keys are bytes: slashes, dots, empty segments, percent signs, every single byte, and long ones.
#[tokio::test]
async fn keys_of_any_bytes_are_reached() {
    let mut world = World::new().await;
    let mut keys: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    keys.extend(
        [&b"a/b"[..], b"a//b", b".", b"..", b"a/../b", b"%2F", b"a+b c", b"/", b"\xff\xff"]
            .map(<[u8]>::to_vec),
    );
    keys.push(vec![b'l'; 60_000]);
    for key in &keys {
        world.put(key, key);
    }
    world.commit().await;
    let face = Face::of(&world).await;
    for key in &keys {
        let target = key_target("/v1/kv", key).unwrap();
        let answer = face.get(&target).await;
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(answer.bytes(LIMIT).await.unwrap(), key, "{target}");
    }
    // Literal forms, as a client that does not rewrite paths sends them.
    for (target, key) in
        [("/v1/kv/a//b", "a//b"), ("/v1/kv/a%2Fb", "a/b"), ("/v1/kv//", "/"), ("/v1/kv/a%2fb", "a/b")]
    {
        assert_eq!(face.get(target).await.bytes(LIMIT).await.unwrap(), key, "{target}");
    }
    assert_eq!(face.refusal("/v1/kv/").await, (400, "invalid_key".to_owned()));
    assert_eq!(face.refusal("/v1/kv/%zz").await, (400, "invalid_key".to_owned()));
    face.stop().await;
}

/// Unknown parameters, bad tokens, limits and values are refused by name, and nothing is guessed.
#[tokio::test]
async fn bad_requests_are_refused_with_their_code() {
    let world = letters().await;
    let face = Face::of(&world).await;
    for (target, code) in [
        ("/v1/kv/a?minseq=1", "unknown_parameter"),
        ("/v1/scan?prefx=a", "unknown_parameter"),
        ("/v1/status?x", "unknown_parameter"),
        ("/v1/kv/a?min_seq=x", "invalid_request"),
        ("/v1/kv/a?wait=forever", "invalid_request"),
        ("/v1/scan?limit=0", "invalid_request"),
        ("/v1/scan?limit=100001", "invalid_request"),
        ("/v1/scan?limit=-1", "invalid_request"),
        ("/v1/scan?prefix=a&start=b", "invalid_request"),
        ("/v1/scan?start=a&start_b64=YQ", "invalid_request"),
        ("/v1/scan?reverse=perhaps", "invalid_request"),
        ("/v1/scan?page=notatoken", "invalid_request"),
        ("/v1/scan?page=a%20b", "invalid_request"),
        ("/v1/scan?format=xml", "invalid_request"),
    ] {
        assert_eq!(face.refusal(target).await, (400, code.to_owned()), "{target}");
    }
    assert_eq!(face.refusal("/v1/kv/a?snapshot=nope").await, (404, "unknown_snapshot".to_owned()));
    assert_eq!(face.refusal("/v1/nothing").await, (404, "unknown_endpoint".to_owned()));
    assert_eq!(face.send(Method::PUT, "/v1/kv/a", "x").await.status(), 405);
    for body in [r#"{"limt":1}"#, r#"{"limit":"ten"}"#, "[", r#"{"prefix":"a","prefix_b64":"YQ"}"#] {
        assert_eq!(face.send(Method::POST, "/v1/scan", body).await.status(), 400, "{body}");
    }
    face.stop().await;
}

/// A scan is lines and a trailer; pages follow one another by its token; JSON bodies ask the same.
#[tokio::test]
async fn a_scan_is_rows_and_a_trailer() {
    let world = letters().await;
    let face = Face::of(&world).await;
    let lines = face.scan("prefix=a/").await;
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[0]["key"], &lines[0]["value"], &lines[0]["seq"]),
        (&json!("a/1"), &json!("a/1"), &json!(1))
    );
    assert_eq!((&lines[0]["expires"], lines[0]["time"].as_str().unwrap().len()), (&Value::Null, 27));
    assert_eq!(lines[2], json!({"next_page": null, "view_seq": 5}));

    let mut keys = Vec::new();
    let mut query = "start=a/2&limit=2".to_owned();
    loop {
        let mut lines = face.scan(&query).await;
        let trailer = lines.pop().unwrap();
        assert!(lines.len() <= 2);
        keys.extend(lines.iter().map(|l| l["key"].as_str().unwrap().to_owned()));
        let Some(page) = trailer["next_page"].as_str() else { break };
        query = format!("start=a/2&limit=2&page={page}");
    }
    assert_eq!(keys, ["a/2", "b/1", "b/2", "b/3"]);

    let body =
        json!({"prefix": "b/", "reverse": true, "keys_only": true, "min_seq": 5, "wait": "1s", "limit": 2});
    let answer = face.send(Method::POST, "/v1/scan", body.to_string()).await;
    assert_eq!(answer.header("isle-view-seq"), Some("5"));
    let lines = face.lines(answer).await;
    assert_eq!((&lines[0]["key"], &lines[1]["key"]), (&json!("b/3"), &json!("b/2")));
    assert!(lines[0].get("value").is_none());
    assert!(lines[2]["next_page"].is_string());
    let body = json!({"prefix": "b/", "reverse": true, "page": lines[2]["next_page"], "min_seq": "1.5"});
    let answer = face.send(Method::POST, "/v1/scan", body.to_string()).await;
    assert_eq!(face.lines(answer).await[0]["key"], "b/1");
    face.stop().await;
}

/// Keys and values that are no text are base64 by themselves, and all of them where that is asked for.
#[tokio::test]
async fn binary_is_base64_in_json() {
    let mut world = World::new().await;
    world.put(b"\xff\x00", b"\xfe");
    world.put(b"text", b"text");
    world.commit().await;
    let face = Face::of(&world).await;
    let lines = face.scan("start_b64=_wA").await;
    assert_eq!((&lines[0]["key_b64"], &lines[0]["value_b64"]), (&json!("/wA="), &json!("/g==")));
    let lines = face.scan("prefix=text&encoding=b64").await;
    assert_eq!((&lines[0]["key_b64"], lines[0].get("key")), (&json!("dGV4dA=="), None));
    face.stop().await;
}

/// A multi-get answers in the order of its keys, absent ones in their place, in either form.
#[tokio::test]
async fn a_multi_get_answers_in_order() {
    let world = letters().await;
    let face = Face::of(&world).await;
    let body = "{\"key\":\"b/1\"}\n{\"key_b64\":\"_w\"}\n{\"key\":\"a/1\"}\n";
    let answer = face.send(Method::POST, "/v1/mget", body).await;
    let lines = face.lines(answer).await;
    assert_eq!(lines[0]["value"], "b/1");
    assert_eq!(lines[1], json!({"key_b64": "/w==", "found": false}));
    assert_eq!(lines[2]["value"], "a/1");
    assert_eq!(lines[3], json!({"view_seq": 5}));

    let mut frames = Vec::new();
    frame::encode(&mut frames, Kind::Key, 0, 0, 0, b"b/2", b"");
    frame::encode(&mut frames, Kind::Key, 0, 0, 0, b"none", b"");
    let answer = face
        .client
        .request(Method::POST, &face.base, "/v1/mget?format=frames")
        .header(header::CONTENT_TYPE, "application/vnd.isle.frames")
        .body(frames)
        .send()
        .await
        .unwrap();
    let mut frames = answer.frames(None);
    let first = frames.next().await.unwrap().unwrap();
    assert_eq!((first.kind, &first.value[..]), (Kind::Put, &b"b/2"[..]));
    assert_eq!(frames.next().await.unwrap().unwrap().kind, Kind::Absent);
    assert_eq!(frames.next().await.unwrap().unwrap().kind, Kind::Trailer);
    assert!(frames.next().await.unwrap().is_none());

    for (body, line) in [("{\"key\":\"a\"}\n{\"kez\":1}\n", 2), ("{\"key\":\"\"}\n", 1), ("nonsense", 1)] {
        let answer = face.send(Method::POST, "/v1/mget", body).await;
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.json::<Value>().await.unwrap()["line"], line, "{body}");
    }
    face.stop().await;
}

/// Multi-gets and pages have limits, which the refusals and tokens name.
#[tokio::test]
async fn limits_are_named() {
    let world = letters().await;
    let settings = ReaderSettings {
        max_mget_keys: 2,
        default_limit: 2,
        max_limit: 3,
        max_page_bytes: 8,
        ..ReaderSettings::default()
    };
    let face = Face::over(world.reader_with(settings).await).await;
    let answer = face.send(Method::POST, "/v1/mget", "{\"key\":\"a\"}\n".repeat(3)).await;
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["limit"], 2);
    assert_eq!(face.refusal("/v1/scan?limit=4").await.0, 400);
    let lines = face.scan("limit=3").await;
    assert_eq!(lines.len(), 3, "two rows of six bytes pass the bound of eight");
    assert!(lines[2]["next_page"].is_string());
    face.stop().await;
}

/// A large scan streams in frames and in lines, and both hold everything, once, in order.
#[tokio::test]
async fn large_scans_stream() {
    let mut world = World::new().await;
    for n in 0..5000u32 {
        world.put(format!("{n:06}").as_bytes(), &[n as u8; 100]);
    }
    world.commit().await;
    world.flush(1).await;
    let face = Face::of(&world).await;
    let lines = face.scan("limit=100000").await;
    assert_eq!(lines.len(), 5001);
    let mut frames = face.get("/v1/scan?limit=100000&format=frames").await.frames(None);
    for n in 0..5000u32 {
        let frame = frames.next().await.unwrap().unwrap();
        assert_eq!((frame.kind, &frame.key[..]), (Kind::Put, format!("{n:06}").as_bytes()));
        assert_eq!(frame.value, vec![n as u8; 100]);
    }
    assert_eq!(frames.next().await.unwrap().unwrap().kind, Kind::Trailer);
    face.stop().await;
}

/// A read with `min_seq` waits and then has the write; what never comes is 504, a lost write 409.
#[tokio::test]
async fn min_seq_over_http() {
    let mut world = letters().await;
    let face = Face::of(&world).await;
    let waiting = face.get("/v1/kv/new?min_seq=6&wait=30s");
    let writing = async {
        world.put(b"new", b"here");
        world.commit().await;
    };
    let (answer, ()) = tokio::join!(waiting, writing);
    assert_eq!(answer.bytes(LIMIT).await.unwrap(), "here");
    assert_eq!(face.refusal("/v1/kv/new?min_seq=7&wait=50ms").await, (504, "view_behind".to_owned()));
    let old = world.claim.epoch;
    world.take_over().await;
    let target = format!("/v1/kv/new?min_seq={old}.7&wait=30s");
    assert_eq!(face.refusal(&target).await, (409, "write_lost".to_owned()));
    face.stop().await;
}

/// What the bucket has lost or spoiled is an error with its object, before the first row as a status and after it as
/// the last line, never an end that looks whole.
#[tokio::test]
async fn damage_over_http_is_never_an_answer() {
    let mut world = World::new().await;
    for n in 0..2000u32 {
        world.put(format!("{n:06}").as_bytes(), &[n as u8; 100]);
    }
    world.commit().await;
    world.flush(1).await;
    let tables = world.table_paths();
    let face = Face::of(&world).await;
    let (first, late) = (&tables[0], &tables[200]);
    world.faults.inject(Rule::on(Op::Get).path(first.as_str()), Fault::FlipBit(3));
    world.faults.inject(Rule::on(Op::Get).path(late.as_str()), Fault::Fail(StoreErrorKind::NotFound));
    let damaged = face.get("/v1/scan").await;
    assert_eq!(damaged.status(), 500);
    let error: Value = damaged.json().await.unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["object"]),
        (&json!("damaged"), &json!(first.as_str()))
    );
    let lines = face.scan("start=000008&limit=100000").await;
    let error = lines.last().unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["object"]),
        (&json!("view_expired"), &json!(late.as_str()))
    );
    assert_eq!(lines.len(), 1593, "200 tables of eight rows, less the first one's, and the error");
    let answer = face.get("/v1/kv/001600").await;
    assert_eq!((answer.status().as_u16(), answer.header(header::RETRY_AFTER)), (503, Some("1")));
    face.stop().await;
}

/// A page whose view is gone is 410 where the client insisted on it.
#[tokio::test]
async fn a_page_of_a_view_no_longer_held_is_gone() {
    let mut world = letters().await;
    let face = Face::of(&world).await;
    let other = Face::of(&world).await;
    let lines = face.scan("limit=2").await;
    let page = lines[2]["next_page"].as_str().unwrap();
    world.put(b"c", b"c");
    world.commit().await;
    let target = format!("/v1/scan?limit=2&page={page}&consistent=true&min_seq=6");
    assert_eq!(other.refusal(&target).await, (410, "view_expired".to_owned()));
    let lines = other.scan(&format!("limit=2&page={page}&min_seq=6")).await;
    assert_eq!((&lines[0]["key"], &lines[2]["view_seq"]), (&json!("b/1"), &json!(6)));
    face.stop().await;
    other.stop().await;
}

/// Without a view the program is not ready and says why; while coordination is away it is ready, degraded, and serves.
#[tokio::test]
async fn readiness_tells_the_view() {
    let world = letters().await;
    let slot = Slot::new();
    let face = Face::with(slot.clone(), Health::new(ROLE)).await;
    assert_eq!(face.refusal("/v1/kv/a").await, (503, "not_ready".to_owned()));
    let reader = world.reader().await;
    tokio::spawn(show_health(reader.clone(), face.health.clone()));
    slot.fill(Arc::new(reader.clone()));
    let status: Value = face.get("/v1/status").await.json().await.unwrap();
    assert_eq!((&status["seq"], &status["tree"]["memory_rows"]), (&json!(5), &json!(5)));
    world.coordination.set_down(true);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let verbose: Value = face.get("/readyz?verbose").await.json().await.unwrap();
        if verbose["components"]["view"]["state"] == "degraded" {
            assert_eq!((&verbose["ready"], &verbose["view_seq"]), (&json!(true), &json!(5)));
            break;
        }
        assert!(Instant::now() < until, "{verbose}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(face.get("/v1/kv/a%2F1").await.status(), 200);
    face.stop().await;
}

/// Ranges, entity tags and lengths, of a value in a blob file and of one that is not.
#[tokio::test]
async fn ranges_of_a_value() {
    let mut stored = crate::blobs::Stored::new().await;
    let long = crate::blobs::bytes(9 << 20, 0);
    stored.put("long", &long).await;
    stored.put("short", &long[..50]).await;
    let face = Face::over(stored.reader.clone()).await;
    for (target, value) in [("/v1/kv/long", &long[..]), ("/v1/kv/short", &long[..50])] {
        let whole = face.send(Method::GET, target, "").await;
        assert_eq!((whole.status().as_u16(), whole.header("accept-ranges")), (200, Some("bytes")));
        assert_eq!(whole.header("content-length"), Some(value.len().to_string().as_str()));
        let tag = whole.header("etag").unwrap().to_owned();
        assert!(whole.bytes(LIMIT).await.unwrap() == value);
        let head = face.send(Method::HEAD, target, "").await;
        assert_eq!(head.header("content-length"), Some(value.len().to_string().as_str()));
        for (range, from, to) in
            [("bytes=3-9", 3, 10), ("bytes=40-", 40, value.len()), ("bytes=-1", value.len() - 1, value.len())]
        {
            let call = face.client.request(Method::GET, &face.base, target).header(header::RANGE, range);
            let part = call.header(header::IF_RANGE, &tag).send().await.unwrap();
            assert_eq!(part.status(), 206, "{range}");
            let told = format!("bytes {from}-{}/{}", to - 1, value.len());
            assert_eq!(part.header("content-range"), Some(told.as_str()));
            assert!(part.bytes(LIMIT).await.unwrap() == value[from..to], "{range}");
        }
        for method in [Method::GET, Method::HEAD] {
            let call = face.client.request(method.clone(), &face.base, target);
            let known = call.header(header::IF_NONE_MATCH, &tag).send().await.unwrap();
            assert_eq!((known.status().as_u16(), known.header("etag")), (304, Some(tag.as_str())));
            assert!(known.bytes(LIMIT).await.unwrap().is_empty());
            let call = face.client.request(method, &face.base, target);
            assert_eq!(call.header(header::IF_NONE_MATCH, "\"9\"").send().await.unwrap().status(), 200);
        }
        let call = face.client.request(Method::GET, &face.base, target).header(header::RANGE, "bytes=0-1");
        assert_eq!(call.header(header::IF_RANGE, "\"9\"").send().await.unwrap().status(), 200);
        let call =
            face.client.request(Method::GET, &face.base, target).header(header::RANGE, "bytes=99999999-");
        let beyond = call.send().await.unwrap();
        let told = format!("bytes */{}", value.len());
        assert_eq!((beyond.status().as_u16(), beyond.header("content-range")), (416, Some(told.as_str())));
    }
    let rows = face.send(Method::GET, "/v1/scan", "").await.bytes(LIMIT).await.unwrap();
    let first: Value = serde_json::from_slice(rows.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!((first["key"].as_str(), first["value_len"].as_u64()), (Some("long"), Some(9 << 20)));
    assert!(first.get("value").is_none() && first.get("value_b64").is_none());
}

/// What turns out damaged in the middle is broken off, short of the length that was announced.
#[tokio::test]
async fn a_damaged_value_is_never_sent_whole() {
    let mut stored = crate::blobs::Stored::new().await;
    stored.put("k", &crate::blobs::bytes(9 << 20, 0)).await;
    let face = Face::over(stored.reader.clone()).await;
    stored.e.bucket.inject(Rule::on(Op::Get).path("blob/*").nth(2), Fault::FlipBit(77));
    let answer = face.send(Method::GET, "/v1/kv/k", "").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes(LIMIT).await.is_err());
    stored.e.bucket.inject(Rule::on(Op::Get).path("blob/*").nth(1), Fault::FlipBit(77));
    assert_eq!(face.send(Method::GET, "/v1/kv/k", "").await.status(), 500);
}
