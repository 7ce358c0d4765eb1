//! Watching and following: every version once, in order, and the same as a fresh load.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use isle_storage::coordination::follow::{Followed, follow};
use isle_storage::coordination::{Loaded, WatchEvent, fold};
use isle_storage::ids::Version;
use isle_storage::manifest::Manifest;

use super::world::{World, observe_until_in, within};

/// Edits of concurrent committers reach every watcher in every process one by one.
pub(super) async fn a_watch_has_neither_gaps_nor_repeats(world: World) {
    let mut writer = world.writer().await;
    let other = world.process().await;
    let from = other.load().await.unwrap();
    let mut watchers = Vec::new();
    for db in [world.process().await, writer.db.clone(), other.clone()] {
        let watcher = db.coordination.watch(&from.state);
        watchers.push(tokio::spawn(collect(watcher, from.clone(), Version(from.manifest.version.0 + 30))));
    }
    let committing = async {
        for _ in 0..15 {
            writer.append(1).await;
        }
    };
    let observing = async {
        for n in 0..15 {
            observe_until_in(&other, "watched", n).await;
        }
    };
    tokio::join!(committing, observing);
    let now = world.fresh_load().await;
    for watcher in watchers {
        let seen = within(watcher).await.unwrap();
        assert_eq!(seen.manifest, now.manifest);
        assert_eq!(seen.state.head, now.state.head);
    }
}

/// A watcher that begins at an old position gets everything since.
pub(super) async fn a_watch_from_an_old_position_catches_up(world: World) {
    let db = world.process().await;
    let old = db.load().await.unwrap();
    for n in 0..20 {
        observe_until_in(&db, "old", n).await;
    }
    let now = world.fresh_load().await;
    for process in [world.process().await, db] {
        let watcher = process.coordination.watch(&old.state);
        let seen = within(collect(watcher, old.clone(), now.manifest.version)).await;
        assert_eq!(seen.manifest, now.manifest);
    }
}

/// Follows a watch up to a version, asserting that every step is the next one.
async fn collect(
    mut watch: futures::stream::BoxStream<'static, WatchEvent>,
    from: Loaded,
    until: Version,
) -> Loaded {
    let mut at = from;
    while at.manifest.version < until {
        match watch.next().await.expect("a watch never ends") {
            WatchEvent::Edit { edit, state, as_of } => {
                let edit = edit.expect("no void edits here");
                let manifest: Manifest = at.manifest.apply(&edit).unwrap();
                assert_eq!(state.head.version, manifest.version);
                at = Loaded { state, manifest: Arc::new(manifest), as_of };
            }
            WatchEvent::Reset(why) => panic!("reset: {why}"),
            WatchEvent::Folded(_) | WatchEvent::Alive(_) | WatchEvent::Down(_) => {}
        }
    }
    at
}

/// At every version, what a follower has pieced together equals what a process that has just started loads.
pub(super) async fn followers_end_where_a_fresh_load_does(world: World) {
    let mut writer = world.writer().await;
    let db = world.process().await;
    let (mut events, mut current) = follow(&db);
    for round in 0..6 {
        let before = writer.at.manifest.version;
        writer.append(2).await;
        if round == 3 {
            writer = world.writer().await;
        }
        let fresh = world.fresh_load().await;
        let reached = within(async {
            loop {
                match events.recv().await.expect("the follower goes on") {
                    Followed::Loaded(at) | Followed::Advanced { loaded: at, .. } => {
                        assert!(at.manifest.version >= before || round == 0);
                        if at.manifest.version == fresh.manifest.version {
                            return at;
                        }
                    }
                    Followed::Fresh(..) | Followed::Down(_) => {}
                    Followed::Refused(e) => panic!("{e:?}"),
                }
            }
        })
        .await;
        assert_eq!(reached.manifest, fresh.manifest);
        let version = fresh.manifest.version;
        let newest =
            within(current.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version >= version))).await;
        assert_eq!(newest.unwrap().as_ref().unwrap().manifest, fresh.manifest);
    }
}

/// Folds in the middle of the stream cost a follower nothing: versions go on one by one.
pub(super) async fn a_follower_goes_on_across_a_fold(world: World) {
    let mut writer = world.writer().await;
    let followers: Vec<_> = join_all((0..2).map(|_| world.process())).await.iter().map(follow).collect();
    let mut tasks = Vec::new();
    let until = Version(writer.at.manifest.version.0 + 24);
    for (mut events, _current) in followers {
        tasks.push(tokio::spawn(async move {
            let mut at: Option<Loaded> = None;
            loop {
                match events.recv().await.expect("the follower goes on") {
                    Followed::Loaded(loaded) => {
                        let back = at.as_ref().is_some_and(|a| a.manifest.version > loaded.manifest.version);
                        assert!(!back, "went back");
                        at = Some(loaded);
                    }
                    Followed::Advanced { loaded, .. } => {
                        let before = at.as_ref().expect("a load comes first").manifest.version;
                        assert_eq!(loaded.manifest.version, before.next());
                        at = Some(loaded);
                    }
                    Followed::Fresh(state, _) => {
                        assert_eq!(state.head.version, at.as_ref().unwrap().manifest.version);
                    }
                    Followed::Down(_) => {}
                    Followed::Refused(e) => panic!("{e:?}"),
                }
                if let Some(at) = at.as_ref().filter(|a| a.manifest.version >= until) {
                    return at.manifest.clone();
                }
            }
        }));
    }
    for n in 0..24 {
        writer.append(1).await;
        if n % 6 == 5 {
            assert!(fold::fold(&writer.db, &writer.at).await.unwrap().is_some());
            writer.at = writer.db.load().await.unwrap();
        }
    }
    let now = world.fresh_load().await.manifest;
    for task in tasks {
        assert_eq!(within(task).await.unwrap(), now);
    }
}
