//! Pages: they continue where the last one ended, in the same view while it is held.

use std::time::Duration;

use reader_node::{PageToken, ReadError, ReadOptions, Reader, ReaderSettings, ScanRequest};

use crate::fixture::World;

async fn page(reader: &Reader, request: &ScanRequest) -> (Vec<String>, Option<PageToken>, u64) {
    let mut scan = reader.scan(request).await.unwrap();
    let mut keys = Vec::new();
    while let Some(record) = scan.next().await.unwrap() {
        keys.push(String::from_utf8(record.key.to_vec()).unwrap());
    }
    (keys, scan.next_page(), scan.view_seq().0)
}

async fn world() -> World {
    let mut world = World::new().await;
    for key in ["a", "b", "c", "d", "e"] {
        world.put(key.as_bytes(), b"1");
    }
    world.commit().await;
    world
}

fn of_two() -> ScanRequest {
    ScanRequest { limit: Some(2), ..ScanRequest::default() }
}

/// A page of a view that is still held continues in that view, however far the database has moved on; elsewhere the
/// scan goes on in the reader's own view and says which, or is refused where that was asked for.
#[tokio::test]
async fn pages_continue_in_their_own_view_while_it_is_held() {
    let mut world = world().await;
    let reader = world.reader().await;
    let other = world.reader().await;
    let (keys, next, seq) = page(&reader, &of_two()).await;
    assert_eq!((keys, seq), (vec!["a".to_owned(), "b".to_owned()], 5));
    world.delete(b"c");
    world.put(b"bb", b"new");
    world.commit().await;
    world.flush(9).await;
    world.merge(0, 1).await;
    world.catch_up(&reader).await;
    world.catch_up(&other).await;
    let request = ScanRequest { page: next, ..of_two() };
    let (keys, _, seq) = page(&reader, &request).await;
    assert_eq!((keys, seq), (vec!["c".to_owned(), "d".to_owned()], 5));
    let (keys, _, seq) = page(&other, &request).await;
    assert_eq!((keys, seq), (vec!["bb".to_owned(), "d".to_owned()], 7));
    let request = ScanRequest { consistent: true, ..request };
    assert!(matches!(other.scan(&request).await, Err(ReadError::PageExpired)));
    assert_eq!(page(&reader, &request).await.0, ["c", "d"]);
}

/// All pages of one view judge expiry at the instant of the first.
#[tokio::test]
async fn pages_of_one_view_judge_expiry_at_one_instant() {
    let mut world = World::new().await;
    let expires = world.now().plus(Duration::from_secs(10));
    for key in ["a", "b", "c"] {
        world.put_until(key.as_bytes(), b"1", expires);
    }
    world.commit().await;
    let reader = world.reader().await;
    let (first, next, _) = page(&reader, &of_two()).await;
    world.clock.advance(Duration::from_secs(11));
    let (second, _, _) = page(&reader, &ScanRequest { page: next, ..of_two() }).await;
    assert_eq!([first, second].concat(), ["a", "b", "c"]);
    assert!(reader.get(b"c", &ReadOptions::default()).await.unwrap().found.is_none());
    assert!(page(&reader, &of_two()).await.0.is_empty());
}

/// At a snapshot pages repeat exactly in every reader, whatever has happened to the views; and a page never goes on in
/// another snapshot that has got the name since.
#[tokio::test]
async fn pages_at_a_snapshot_repeat_exactly_in_every_reader() {
    let mut world = world().await;
    world.snapshot("s").await;
    let reader = world.reader().await;
    let at = |name: &str| ReadOptions { snapshot: Some(name.to_owned()), ..ReadOptions::default() };
    let request = ScanRequest { options: at("s"), ..of_two() };
    let (keys, next, seq) = page(&reader, &request).await;
    assert_eq!((keys, seq), (vec!["a".to_owned(), "b".to_owned()], 5));
    world.delete(b"c");
    world.put(b"bb", b"new");
    world.commit().await;
    world.flush(9).await;
    world.merge(0, 9).await;
    let request = ScanRequest { page: next, ..request };
    let other = world.reader().await;
    for reader in [&reader, &other, &world.reader().await] {
        let (keys, _, seq) = page(reader, &request).await;
        assert_eq!((keys, seq), (vec!["c".to_owned(), "d".to_owned()], 5));
    }
    world.drop_snapshot("s").await;
    world.snapshot("s").await;
    world.catch_up(&reader).await;
    assert!(matches!(reader.scan(&request).await, Err(ReadError::SnapshotChanged(name)) if name == "s"));
}

/// A snapshot that was just taken is found by a reader whose view does not know it yet; one that is not there is refused
/// without waiting; and one that nobody can ask about is neither.
#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_behind_asks_the_head_for_a_snapshot() {
    let mut world = world().await;
    let reader = world.reader().await;
    let at = |name: &str| ReadOptions { snapshot: Some(name.to_owned()), ..ReadOptions::default() };
    world.snapshot("new").await;
    assert_eq!(reader.get(b"a", &at("new")).await.unwrap().view_seq.0, 5);
    let began = tokio::time::Instant::now();
    let refused = reader.get(b"a", &at("absent")).await;
    assert!(matches!(refused, Err(ReadError::UnknownSnapshot(name)) if name == "absent"));
    assert!(began.elapsed() < Duration::from_secs(1), "it was not waited for");
    world.coordination.set_down(true);
    let options = ReadOptions { wait: Some(Duration::from_secs(3)), ..at("absent") };
    assert!(matches!(reader.get(b"a", &options).await, Err(ReadError::ViewBehind { .. })));
    assert!(began.elapsed() >= Duration::from_secs(3));
}

/// A held view is let go after its time, and when too many are held.
#[tokio::test(start_paused = true)]
async fn held_views_are_bounded_in_number_and_age() {
    let mut world = world().await;
    let settings = ReaderSettings { held_views: 1, ..ReaderSettings::default() };
    let reader = world.reader_with(settings).await;
    let (_, first, _) = page(&reader, &of_two()).await;
    world.put(b"f", b"1");
    world.commit().await;
    world.catch_up(&reader).await;
    let consistent =
        |page: &Option<PageToken>| ScanRequest { page: page.clone(), consistent: true, ..of_two() };
    assert_eq!(page(&reader, &consistent(&first)).await.2, 5);
    let (_, second, _) = page(&reader, &of_two()).await;
    assert!(matches!(reader.scan(&consistent(&first)).await, Err(ReadError::PageExpired)));
    world.put(b"g", b"1");
    world.commit().await;
    world.catch_up(&reader).await;
    assert_eq!(page(&reader, &consistent(&second)).await.2, 6);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(matches!(reader.scan(&consistent(&second)).await, Err(ReadError::PageExpired)));
}

/// The last page says that it is the last, also where the limit falls exactly on the end, and where only deleted rows
/// would follow.
#[tokio::test]
async fn the_last_page_has_no_next_one() {
    let mut world = world().await;
    let reader = world.reader().await;
    for limit in [5, 6] {
        let (keys, next, _) =
            page(&reader, &ScanRequest { limit: Some(limit), ..ScanRequest::default() }).await;
        assert_eq!((keys.len(), next), (5, None), "limit {limit}");
    }
    world.delete(b"e");
    world.commit().await;
    world.catch_up(&reader).await;
    let (keys, next, _) = page(&reader, &ScanRequest { limit: Some(4), ..ScanRequest::default() }).await;
    assert_eq!((keys.len(), next), (4, None));
    let (keys, next, _) =
        page(&reader, &ScanRequest { limit: Some(4), reverse: true, ..ScanRequest::default() }).await;
    assert_eq!((keys.len(), next), (4, None));
}

/// A page also ends by bytes, after the row that passes the bound: it always moves on.
#[tokio::test]
async fn a_page_ends_by_bytes() {
    let mut world = World::new().await;
    for key in ["a", "b", "c"] {
        world.put(key.as_bytes(), &[0; 1000]);
    }
    world.commit().await;
    let reader = world.reader().await;
    let mut request = ScanRequest { max_bytes: Some(1500), ..ScanRequest::default() };
    let (keys, next, _) = page(&reader, &request).await;
    assert_eq!(keys, ["a", "b"]);
    request.page = next;
    request.max_bytes = Some(1);
    assert_eq!(page(&reader, &request).await.0, ["c"]);
}

/// A token of another direction is refused, and so is one of another history.
#[tokio::test]
async fn a_token_belongs_to_its_scan() {
    let world = world().await;
    let reader = world.reader().await;
    let (_, next, _) = page(&reader, &of_two()).await;
    let request = ScanRequest { page: next, reverse: true, ..of_two() };
    assert!(matches!(reader.scan(&request).await, Err(ReadError::InvalidPage(_))));
    let elsewhere = self::world().await;
    let stranger = elsewhere.reader().await;
    let request = ScanRequest { reverse: false, ..request };
    assert!(matches!(stranger.scan(&request).await, Err(ReadError::InvalidPage(_))));
}
