//! Consumer groups: what a consumer that comes back is given, what a commit answers, and what it costs.

use std::sync::Arc;

use http::Method;
use isle_storage::ids::{Lineage, SeqNo};
use isle_storage::manifest::{Change, MaxLag};
use isle_testkit::coordination::LossyCoordination;
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::Scribe;
use serde_json::{Value, json};
use tailer_node::{Cursor, From, TailError, Tailer, TailerSettings};

use crate::consume::{entries, follow, settings};
use crate::http::{Face, seqs};

/// A tailer over `count` records, and what counts its changes of groups.
async fn tailer(count: u64, settings: TailerSettings) -> (Tailer, Arc<LossyCoordination>, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, count)).await;
    let mut db = e.process("tailer");
    let counted = LossyCoordination::new(Arc::clone(&db.coordination));
    db.coordination = counted.clone();
    let tailer = Tailer::open(db, settings).unwrap();
    tailer.ready().await;
    follow(&tailer, &scribe).await;
    (tailer, counted, scribe)
}

async fn started(tailer: &Tailer, start: From) -> Cursor {
    tailer.ensure_group("g", start, None).await.unwrap().0.cursor
}

fn to(seq: u64, cursor: Cursor) -> Cursor {
    Cursor { seq: SeqNo(seq), ..cursor }
}

/// A consumer that comes alone waits for nobody; a hundred that come together are two or three writes, each answered by
/// one that covers it.
#[tokio::test(start_paused = true)]
async fn many_commits_of_one_group_are_few_writes() {
    let (tailer, counted, _scribe) = tailer(100, settings()).await;
    let begin = started(&tailer, From::Earliest).await;
    let before = counted.group_changes();
    let alone = tailer.commit_group("g", to(1, begin)).await.unwrap();
    assert_eq!((alone.cursor.seq, alone.moved, counted.group_changes() - before), (SeqNo(1), true, 1));
    let commits = (2..=100).rev().map(|seq| {
        let tailer = tailer.clone();
        async move { (seq, tailer.commit_group("g", to(seq, begin)).await.unwrap()) }
    });
    for (seq, committed) in futures::future::join_all(commits).await {
        assert!(committed.cursor.seq >= SeqNo(seq), "{seq}: {committed:?}");
    }
    let writes = counted.group_changes() - before - 1;
    assert!((1..=3).contains(&writes), "{writes} writes");
    assert_eq!(tailer.group("g").await.unwrap().cursor.seq, SeqNo(100));
    let late = tailer.commit_group("g", to(50, begin)).await.unwrap();
    assert_eq!((late.cursor.seq, late.moved), (SeqNo(100), false), "it says that it moved nothing");
}

#[tokio::test(start_paused = true)]
async fn waiting_commits_are_bounded_and_those_accepted_are_answered_at_the_end() {
    let few = TailerSettings { max_group_commits: 4, ..settings() };
    let (tailer, _, _scribe) = tailer(10, few).await;
    let begin = started(&tailer, From::Earliest).await;
    let commits = (1..=10).map(|seq| {
        let tailer = tailer.clone();
        async move { tailer.commit_group("g", to(seq, begin)).await }
    });
    let answers = futures::future::join_all(commits).await;
    let busy = answers.iter().filter(|a| matches!(a, Err(TailError::Busy(_)))).count();
    assert_eq!((busy, answers.iter().filter(|a| a.is_ok()).count()), (6, 4), "{answers:?}");
    // The first is written, the second waits for the interval to pass when the tailer closes.
    tailer.commit_group("g", to(5, begin)).await.unwrap();
    let closing = async {
        tokio::task::yield_now().await;
        tailer.close();
    };
    let (waiting, ()) = tokio::join!(tailer.commit_group("g", to(6, begin)), closing);
    assert_eq!(waiting.unwrap().cursor.seq, SeqNo(6));
    assert!(matches!(tailer.commit_group("g", to(7, begin)).await, Err(TailError::Closing)));
}

#[tokio::test]
async fn cursors_that_do_not_fit_are_refused() {
    let (tailer, _, _scribe) = tailer(10, settings()).await;
    let begin = started(&tailer, From::Seq(SeqNo(4))).await;
    assert_eq!(begin.seq, SeqNo(3), "seq: is at the change");
    let beyond = tailer.commit_group("g", to(11, begin)).await.unwrap_err();
    assert!(beyond.to_string().contains("head, which is at 10"), "{beyond}");
    let foreign = Cursor { lineage: Lineage(7), ..begin };
    for refused in [tailer.commit_group("g", foreign).await, tailer.rewind_group("g", foreign).await] {
        let why = refused.unwrap_err().to_string();
        let both = why.contains(&Lineage(7).to_string()) && why.contains(&begin.lineage.to_string());
        assert!(both, "{why}");
    }
    let beyond = tailer.ensure_group("h", From::Seq(SeqNo(12)), None).await.unwrap_err();
    assert!(matches!(beyond, TailError::WrongCursor { .. }), "{beyond}");
    assert_eq!(tailer.group("g").await.unwrap().cursor.seq, SeqNo(3));
}

#[tokio::test]
async fn groups_are_bounded_and_named() {
    let (tailer, _, _scribe) = tailer(3, TailerSettings { max_groups: 2, ..settings() }).await;
    for name in ["a", "b"] {
        assert!(tailer.ensure_group(name, From::Latest, None).await.unwrap().1);
    }
    let full = tailer.ensure_group("c", From::Latest, None).await.unwrap_err();
    assert!(matches!(full, TailError::TooManyGroups(2)), "{full}");
    assert!(!tailer.ensure_group("b", From::Earliest, None).await.unwrap().1, "one that is there fits");
    for bad in ["", "a/b", ".a", &"a".repeat(65)] {
        let refused = tailer.ensure_group(bad, From::Latest, None).await.unwrap_err();
        assert!(matches!(refused, TailError::InvalidGroup(_)), "{bad}: {refused}");
    }
    assert!(TailerSettings { max_groups: 101, ..settings() }.validate().is_err());
}

/// Whoever is left behind by the log is told so, by whatever way it comes; one that begins, begins where the log does.
#[tokio::test]
async fn a_group_that_was_left_behind_is_told_where_the_log_begins() {
    let (tailer, _, mut scribe) = tailer(30, settings()).await;
    scribe.flush().await;
    scribe.append(&entries(1, 5)).await;
    let begin = started(&tailer, From::Earliest).await;
    assert_eq!(begin.seq, SeqNo::ZERO);
    scribe.commit(vec![Change::TrimLog { trimmed_seq: SeqNo(30) }]).await;
    follow(&tailer, &scribe).await;
    let group = tailer.group("g").await.unwrap();
    assert!(group.expired && group.lag.records == 35, "{group:?}");
    let earliest = match tailer.consume_group("g").await.unwrap_err() {
        TailError::CursorExpired { earliest, .. } => earliest,
        other => panic!("{other}"),
    };
    assert_eq!(earliest.seq, SeqNo(30));
    let back = tailer.rewind_group("g", to(7, begin)).await.unwrap_err();
    assert!(matches!(back, TailError::CursorExpired { .. }), "{back}");
    assert!(tailer.commit_group("g", earliest).await.unwrap().moved);
    let mut consumer = tailer.consume_group("g").await.unwrap();
    assert_eq!(consumer.next().await.unwrap().rows().next().unwrap().seq, SeqNo(31));
    assert_eq!(tailer.ensure_group("h", From::Earliest, None).await.unwrap().0.cursor.seq, SeqNo(30));
}

#[tokio::test]
async fn a_group_deleted_while_it_is_consumed_is_named() {
    let (tailer, _, _scribe) = tailer(5, settings()).await;
    let begin = started(&tailer, From::Earliest).await;
    let mut consumer = tailer.consume_group("g").await.unwrap();
    consumer.next().await.unwrap();
    tailer.delete_group("g").await.unwrap();
    for gone in [
        tailer.commit_group("g", to(1, begin)).await.unwrap_err(),
        tailer.consume_group("g").await.unwrap_err(),
        tailer.delete_group("g").await.unwrap_err(),
    ] {
        assert!(matches!(&gone, TailError::UnknownGroup(name) if name == "g"), "{gone}");
    }
}

/// The group that begins may be one that another tailer has just begun.
#[tokio::test]
async fn a_lag_is_set_with_the_group_and_later() {
    let (tailer, _, _scribe) = tailer(5, settings()).await;
    let max_lag = |records| Some(MaxLag { records: Some(records), ..MaxLag::default() });
    assert_eq!(
        tailer.ensure_group("g", From::Earliest, max_lag(7)).await.unwrap().0.max_lag.records,
        Some(7)
    );
    let (same, created) = tailer.ensure_group("g", From::Latest, None).await.unwrap();
    assert_eq!((same.cursor.seq, same.max_lag.records, created), (SeqNo::ZERO, Some(7), false));
    assert_eq!(tailer.ensure_group("g", From::Latest, max_lag(9)).await.unwrap().0.max_lag.records, Some(9));
}

async fn ok(face: &Face, method: Method, target: &str, body: &str) -> Value {
    let (status, answer) = face.call(method, target, body).await;
    assert_eq!(status, 200, "{target}: {answer}");
    answer
}

#[tokio::test]
async fn a_group_lives_over_http() {
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 20)).await;
    let wanted = r#"{"start": "earliest", "max_lag": {"records": 1000, "seconds": "1h"}}"#;
    let made = ok(&face, Method::PUT, "/v1/groups/mail.ers-1", wanted).await;
    assert_eq!((&made["created"], &made["lag"]["records"]), (&json!(true), &json!(20)), "{made}");
    assert_eq!(made["max_lag"], json!({"records": 1000, "bytes": null, "seconds": 3600.0}));
    assert!(made["lag"]["bytes"].as_u64() > Some(0) && made["expired"] == false, "{made}");

    let page = face.page("from=group:mail.ers-1&limit=8").await;
    assert_eq!(seqs(&page), (1..=8).collect::<Vec<_>>());
    let next = page["next"].as_str().unwrap();
    let commit = format!(r#"{{"cursor": "{next}"}}"#);
    let target = "/v1/groups/mail.ers-1/commit";
    let stored = ok(&face, Method::POST, target, &commit).await;
    assert_eq!((stored["cursor"].as_str(), &stored["moved"]), (Some(next), &json!(true)));
    assert_eq!(seqs(&face.page("from=group:mail.ers-1&limit=2").await), [9, 10]);
    let again = ok(&face, Method::PUT, "/v1/groups/mail.ers-1", r#"{"start": "earliest"}"#).await;
    assert_eq!((again["cursor"].as_str(), &again["created"]), (Some(next), &json!(false)));

    let first = page["changes"][0]["cursor"].as_str().unwrap();
    let late = ok(&face, Method::POST, target, &format!(r#"{{"cursor": "{first}"}}"#)).await;
    assert_eq!((late["cursor"].as_str(), &late["moved"]), (Some(next), &json!(false)));
    let back = ok(&face, Method::POST, target, &format!(r#"{{"cursor": "{first}", "rewind": true}}"#)).await;
    assert_eq!((back["cursor"].as_str(), &back["moved"]), (Some(first), &json!(true)));
    assert_eq!(seqs(&face.page("from=group:mail.ers-1&limit=1").await), [2]);

    let all = ok(&face, Method::GET, "/v1/groups", "").await;
    assert_eq!((&all["groups"][0]["group"], &all["head"]), (&json!("mail.ers-1"), &json!(20)), "{all}");
    assert_eq!(ok(&face, Method::GET, "/v1/groups/mail.ers-1", "").await["lag"]["records"], 19);
    ok(&face, Method::DELETE, "/v1/groups/mail.ers-1", "").await;
    for (method, target, body) in [
        (Method::GET, "/v1/groups/mail.ers-1", ""),
        (Method::DELETE, "/v1/groups/mail.ers-1", ""),
        (Method::POST, target, commit.as_str()),
        (Method::GET, "/v1/tail?from=group:mail.ers-1", ""),
    ] {
        let (status, error) = face.call(method, target, body).await;
        assert_eq!(
            (status, error["error"]["code"].as_str()),
            (404, Some("unknown_group")),
            "{target}: {error}"
        );
        assert_eq!(error["error"]["group"], "mail.ers-1");
    }
}

#[tokio::test]
async fn what_cannot_be_a_group_is_refused_with_a_reason() {
    let mut face = Face::new(settings()).await;
    face.append(&entries(0, 3)).await;
    for (method, target, body) in [
        (Method::PUT, "/v1/groups/a%20b", "{}"),
        (Method::PUT, "/v1/groups/g", r#"{"start": "group:h"}"#),
        (Method::PUT, "/v1/groups/g", r#"{"start": "seq:99"}"#),
        (Method::PUT, "/v1/groups/g", r#"{"begin": "earliest"}"#),
        (Method::PUT, "/v1/groups/g", r#"{"max_lag": {"hours": 1}}"#),
        (Method::PUT, "/v1/groups/g", r#"{"max_lag": {"seconds": "soon"}}"#),
        (Method::POST, "/v1/groups/g/commit", "{}"),
        (Method::POST, "/v1/groups/g/commit", r#"{"cursor": "latest"}"#),
    ] {
        let (status, error) = face.call(method, target, body).await;
        assert_eq!(
            (status, error["error"]["code"].as_str()),
            (400, Some("invalid_request")),
            "{body}: {error}"
        );
    }
    assert_eq!(face.tailer.groups().await.unwrap(), []);
}
