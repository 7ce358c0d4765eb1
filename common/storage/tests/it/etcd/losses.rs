//! An etcd that is wiped, restored, full, elsewhere, or wants a password.

use std::time::Duration;

use isle_storage::coordination::{Authority, CommitOutcome, Coordination, CoordinationError, Member};
use isle_storage::ids::{SeqNo, Version};
use isle_testkit::ports::free_address;
use tokio::time::{Instant, timeout};

use super::proxy::Proxy;
use super::scene::{PATIENCE, Scene, Watched, commit_snapshot, node, propose, take_over};
use super::server::EtcdServer;

/// A wiped etcd is not an empty database: the watch is reset, the head is lost, and nobody may write.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_etcd_is_noticed_and_refused() {
    let (mut scene, db) = Scene::new().await;
    for n in 0..5 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    let loaded = db.load().await.unwrap();
    let mut watched = Watched::from(&db.coordination, &loaded.state);
    watched.until_alive().await;
    scene.etcd.wipe().await;
    watched.expect_reset().await;
    assert!(matches!(db.coordination.load().await, Err(CoordinationError::NotFound(_))));
    assert!(matches!(db.load().await, Err(CoordinationError::Lost(_))));
    let fresh = scene.connect().await;
    assert!(matches!(scene.open(fresh.clone()).await, Err(CoordinationError::Lost(_))));
    let claim = fresh.claim_writer(&node("w"), isle_storage::ids::Incarnation(1)).await;
    assert!(matches!(claim, Err(CoordinationError::NotFound(_))));
    let late = propose(&db, &loaded, "late", &Authority::Observer);
    assert!(!matches!(db.coordination.commit(&late).await, CommitOutcome::Committed(_)));
}

/// A watch begun at the old, higher revision of a wiped etcd does not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begun_on_a_wiped_etcd_is_reset() {
    let (mut scene, db) = Scene::new().await;
    let state = commit_snapshot(&db, "s").await;
    scene.etcd.wipe().await;
    let fresh: std::sync::Arc<dyn Coordination> = scene.connect().await;
    let mut watched = Watched::from(&fresh, &state);
    let why = watched.expect_reset().await;
    assert!(why.contains("wiped or restored"), "{why}");
}

/// etcd restored from an older copy: who has seen more refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_etcd_is_noticed_by_whoever_has_seen_more() {
    let (mut scene, db) = Scene::new().await;
    commit_snapshot(&db, "old").await;
    let copy = scene.etcd.backup().await;
    for n in 0..5 {
        commit_snapshot(&db, &format!("new{n}")).await;
    }
    let loaded = db.load().await.unwrap();
    let mut watched = Watched::from(&db.coordination, &loaded.state);
    watched.until_alive().await;
    scene.etcd.restore(&copy).await;
    watched.expect_reset().await;
    match db.coordination.load().await {
        Err(CoordinationError::Regressed(why)) => assert!(why.contains("isle recover"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Whatever may have put an older copy behind a connection is told apart from a quiet one, also where nothing was being
/// asked when it happened: the library reconnects without a word.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_connection_is_told_apart_from_a_quiet_one() {
    let (mut scene, db) = Scene::new().await;
    commit_snapshot(&db, "s").await;
    let quiet = db.coordination.connection();
    for n in 0..3 {
        commit_snapshot(&db, &format!("t{n}")).await;
    }
    assert_eq!(db.coordination.connection(), quiet);
    scene.etcd.kill();
    scene.etcd.run().await;
    timeout(PATIENCE, async { while db.load().await.is_err() {} }).await.unwrap();
    assert_ne!(db.coordination.connection(), quiet);
}

/// Another etcd behind the same address is another cluster, though it holds a database of that name.
#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_behind_the_same_address_resets_the_watch() {
    let (scene, db) = Scene::new().await;
    let start = commit_snapshot(&db, "s").await;
    let mut watched = Watched::from(&db.coordination, &start);
    watched.until_alive().await;
    let (mut other, _) = Scene::new().await;
    // The other one takes the address over: its data came to be under other peer addresses.
    let copy = other.etcd.backup().await;
    let mut scene = scene;
    scene.etcd.restore(&copy).await;
    watched.expect_reset().await;
}

/// Several endpoints, one of them dead, one stopped: every call finds the one that answers.
#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_over_between_endpoints() {
    let (scene, db) = Scene::new().await;
    let silent = EtcdServer::start().await;
    silent.pause();
    let addresses = [free_address(), silent.address(), scene.etcd.address()];
    let through = timeout(PATIENCE, async {
        loop {
            match scene.connect_with(&scene.settings_for(&addresses)).await {
                Ok(coordination) => break coordination,
                Err(e) => assert!(e.is_passing(), "{e}"),
            }
        }
    })
    .await
    .unwrap();
    let state = commit_snapshot(&db, "s").await;
    assert_eq!(through.load().await.unwrap().state.raw, state.raw);
    silent.resume();
}

/// etcd away for a while: a commit says that nobody knows, reads say that it is away, and all goes on afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_etcd_is_survived_without_a_restart() {
    let (scene, db) = Scene::new().await;
    let loaded = db.load().await.unwrap();
    let proposal = propose(&db, &loaded, "s", &Authority::Observer);
    scene.etcd.pause();
    let begun = Instant::now();
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Unknown(_)));
    assert!(
        begun.elapsed() < scene.settings().request_timeout * 2,
        "a call is bounded: {:?}",
        begun.elapsed()
    );
    assert!(db.coordination.load().await.unwrap_err().is_passing());
    assert!(db.coordination.describe().contains("trouble"), "{}", db.coordination.describe());
    scene.etcd.resume();
    let committed = timeout(PATIENCE, async {
        loop {
            match db.coordination.commit(&proposal).await {
                CommitOutcome::Committed(state) => break state,
                CommitOutcome::Unknown(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(committed.head, proposal.head);
    assert!(!db.coordination.describe().contains("trouble"), "{}", db.coordination.describe());
}

/// An unreachable etcd is a passing failure that names the reason.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_etcd_is_a_passing_failure() {
    let (scene, _db) = Scene::new().await;
    let error = scene.connect_with(&scene.settings_for(&[free_address()])).await.unwrap_err();
    assert!(error.is_passing());
    assert!(error.to_string().contains("refused"), "{error}");
}

/// A full etcd refuses with the commands that mend it, and those mend it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_says_how_to_mend_it() {
    let etcd = EtcdServer::start_with(&["--quota-backend-bytes", "1048576"]).await;
    let (full, db) = Scene::on(etcd).await;
    let filler = "x".repeat(200 << 10);
    for n in 0..30 {
        let _refused_at_last = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &full.etcd.address().to_string(), "put", "/filler"])
            .arg(format!("{n}{}", &filler[..100 << 10]))
            .output()
            .unwrap();
    }
    let member =
        Member { role: "reader".to_owned(), node: node("r"), version: Version(1), last_seq: SeqNo(0) };
    match db.coordination.register(&member).await {
        Err(e @ CoordinationError::Full(_)) => {
            assert!(e.is_passing() && e.to_string().contains("coordination_full"), "{e}");
        }
        other => panic!("{other:?}"),
    }
    let loaded = db.load().await.unwrap();
    let proposal = propose(&db, &loaded, "s", &Authority::Observer);
    match db.coordination.commit(&proposal).await {
        CommitOutcome::Unknown(why) => assert!(why.contains("coordination_full"), "{why}"),
        other => panic!("{other:?}"),
    }
    full.etcd.ctl(&["compact", &full.etcd.revision().to_string()]);
    full.etcd.ctl(&["defrag"]);
    full.etcd.ctl(&["alarm", "disarm"]);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Committed(_)));
    db.coordination.register(&member).await.unwrap();
}

/// A password is used where it is right, and refused where it is wrong; a restarted etcd, which forgets its tokens, is
/// given a new one.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_used_and_refused() {
    let (mut scene, _) = Scene::new().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "right\n").unwrap();
    scene.etcd.ctl(&["user", "add", "root:right"]);
    scene.etcd.ctl(&["user", "grant-role", "root", "root"]);
    scene.etcd.ctl(&["auth", "enable"]);

    let bare = scene.connect_with(&scene.settings()).await.err();
    let mut settings = scene.settings();
    assert!(matches!(bare, Some(CoordinationError::Denied(_))), "{bare:?}");
    settings.username = Some("root".to_owned());
    settings.password_file = Some(secret.path().to_owned());
    let db = scene.database_with(&settings).await;
    commit_snapshot(&db, "s").await;
    let _claimed = take_over(&db, "w").await;
    let mut watched = Watched::from(&db.coordination, &db.load().await.unwrap().state);
    watched.until_alive().await;

    scene.etcd.kill();
    watched.until_down().await;
    scene.etcd.run().await;
    timeout(PATIENCE, async { while db.load().await.is_err() {} }).await.unwrap();
    let loaded = db.load().await.unwrap();
    let proposal = propose(&db, &loaded, "again", &Authority::Observer);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Committed(_)));
    watched.expect_snapshot("again").await;

    std::fs::write(secret.path(), "wrong").unwrap();
    match scene.connect_with(&settings).await {
        Err(CoordinationError::Denied(why)) => assert!(why.contains("credentials"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Members are listed with what they said last; a process that writes too often is not heard in between.
#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed() {
    let (scene, db) = Scene::new().await;
    let other = scene.database().await;
    let member = |role: &str, name: &str, version| Member {
        role: role.to_owned(),
        node: node(name),
        version: Version(version),
        last_seq: SeqNo(version),
    };
    db.coordination.register(&member("reader", "a", 1)).await.unwrap();
    other.coordination.register(&member("tailer", "b", 2)).await.unwrap();
    db.coordination.register(&member("reader", "a", 9)).await.unwrap();
    let mut found = db.coordination.members().await.unwrap();
    found.sort_by(|x, y| x.role.cmp(&y.role));
    assert_eq!(found, [member("reader", "a", 1), member("tailer", "b", 2)]);
}

/// The collector's floor goes as far as pins allow, never back, and never over a pin made meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_floor_stops_at_pins() {
    let (scene, db) = Scene::new().await;
    let raise = |v| db.coordination.raise_gc_floor(Version(v));
    assert_eq!(raise(3).await.unwrap(), Version(3));
    assert_eq!(raise(2).await.unwrap(), Version(3), "it never goes back");
    scene.etcd.ctl(&["put", "/isle/default/pins/a", r#"{"version":5}"#]);
    scene.etcd.ctl(&["put", "/isle/default/pins/b", r#"{"version":7}"#]);
    assert_eq!(raise(9).await.unwrap(), Version(5));
    scene.etcd.ctl(&["del", "/isle/default/pins/a"]);
    assert_eq!(raise(9).await.unwrap(), Version(7));
    scene.etcd.ctl(&["put", "/isle/default/pins/b", "what is this"]);
    assert_eq!(raise(9).await.unwrap(), Version(7), "a pin that cannot be read holds everything");
    scene.etcd.ctl(&["del", "/isle/default/pins/b"]);
    assert_eq!(raise(9).await.unwrap(), Version(9));
}

/// Two roots on one etcd are two databases.
#[tokio::test(flavor = "multi_thread")]
async fn roots_keep_databases_apart() {
    let (scene, db) = Scene::new().await;
    let mut settings = scene.settings();
    settings.url.push_str("/elsewhere");
    let elsewhere = scene.connect_with(&settings).await.unwrap();
    assert!(db.coordination.exists().await.unwrap());
    assert!(!elsewhere.exists().await.unwrap());
    // A wrong root on an existing prefix is a lost head, not a new database.
    assert!(matches!(scene.open(elsewhere).await, Err(CoordinationError::Lost(_))));
}

/// An idle connection is not churned: etcd closes connections that ping too often, or that ping without a stream.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_keeps_its_connections() {
    let (scene, _db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let mut settings = scene.settings_for(&[proxy.address()]);
    settings.request_timeout = PATIENCE;
    settings.heartbeat = PATIENCE * 2;
    let through = scene.database_with(&settings).await;
    let state = through.load().await.unwrap().state;
    let mut watched = Watched::from(&through.coordination, &state);
    watched.until_alive().await;
    let connections = proxy.connections();
    // Long enough for four pings: etcd closes at the third that breaks its rules.
    assert!(timeout(Duration::from_secs(25), watched.until_down()).await.is_err());
    through.load().await.unwrap();
    assert_eq!(proxy.connections(), connections);
}
