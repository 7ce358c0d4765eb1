//! A database that moves on while it is walked.

use isle_testkit::fault::{Op, Rule};
use isle_testkit::scribe::Entry;

use super::scene::Scene;

/// The segments of the version loaded are flushed and deleted before they are read.
#[tokio::test]
async fn what_was_collected_meanwhile_is_no_damage() {
    let mut scene = Scene::new().await;
    let before: Vec<String> =
        scene.scribe.manifest().unflushed().iter().map(|e| e.path().to_string()).collect();
    assert!(!before.is_empty());
    let gate = scene.faults.hold(Rule::on(Op::Get).path(&before[0]).nth(1));
    let (bucket, from) = (scene.bucket(), scene.live());
    let walk = tokio::spawn(async move { isle_storage::verify::verify(&bucket, from, "default", &()).await });
    gate.arrived(1).await;
    scene.scribe.append(&[Entry::put("later", "1")]).await;
    scene.scribe.flush().await;
    for object in &before {
        scene.delete(object).await;
    }
    gate.open();
    let report = walk.await.unwrap().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    assert!(report.counts.collected_meanwhile > 0, "{:?}", report.counts);
}

/// The same, but the newest manifest still names them.
#[tokio::test]
async fn what_vanished_meanwhile_is_damage() {
    let scene = Scene::new().await;
    let before: Vec<String> =
        scene.scribe.manifest().unflushed().iter().map(|e| e.path().to_string()).collect();
    let gate = scene.faults.hold(Rule::on(Op::Get).path(&before[0]).nth(1));
    let (bucket, from) = (scene.bucket(), scene.live());
    let walk = tokio::spawn(async move { isle_storage::verify::verify(&bucket, from, "default", &()).await });
    gate.arrived(1).await;
    scene.delete(&before[0]).await;
    gate.open();
    let report = walk.await.unwrap().unwrap();
    assert!(report.damage.first.iter().any(|d| d.object == before[0]), "{report:?}");
}

/// Objects uploaded and committed during the walk are no orphans.
#[tokio::test]
async fn what_was_committed_meanwhile_is_no_orphan() {
    let mut scene = Scene::new().await;
    let gate = scene.faults.hold(Rule::on(Op::List).path("").nth(1));
    // The listing of everything; the load lists `manifest` only.
    let (bucket, from) = (scene.bucket(), scene.live());
    let walk = tokio::spawn(async move { isle_storage::verify::verify(&bucket, from, "default", &()).await });
    gate.arrived(1).await;
    scene.scribe.append(&[Entry::put("later", "1")]).await;
    gate.open();
    let report = walk.await.unwrap().unwrap();
    assert!(report.is_clean() && report.orphans.total == 0, "{report:?}");
}
