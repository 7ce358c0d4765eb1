//! Bytes that are wrong, objects that are gone.

use isle_storage::verify::{From, Report, VerifyError};
use isle_testkit::scribe::Entry;

use super::scene::Scene;

/// Offsets tried in each object: its ends, and places spread over it.
fn offsets(len: usize) -> Vec<usize> {
    let mut at: Vec<usize> = (0..6).map(|i| len * i / 6).chain([len / 7, len - 2, len - 1]).collect();
    at.retain(|at| *at < len);
    at.sort_unstable();
    at.dedup();
    at
}

/// Whether the report names the object, or what hangs on it could not be told at all.
fn names(found: &Result<Report, VerifyError>, object: &str) -> bool {
    match found {
        Ok(report) => {
            !report.is_clean()
                && report.damage.first.iter().any(|d| d.object == object || d.what.contains(object))
        }
        Err(_) => object == "isle.json",
    }
}

#[tokio::test]
async fn a_flipped_byte_in_any_object_is_found_and_named() {
    let scene = Scene::new().await;
    let objects = scene.objects().await;
    for kind in
        ["log/", "table/", "blob/", "isle.json", "checkpoint-", "edit-", "fold-", "lineage-", "epoch-"]
    {
        assert!(objects.iter().any(|o| o.contains(kind)), "the scene has no {kind}");
    }
    let mut tried = 0;
    for object in objects {
        let good = scene.get(&object).await;
        for at in offsets(good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            scene.put(&object, &bad).await;
            // Looked at from both sides in turn.
            tried += 1;
            let from = if tried % 2 == 0 { scene.live() } else { From::Bucket };
            let found = scene.try_verify(from.clone()).await;
            assert!(names(&found, &object), "{object}, byte {at} of {}, {from:?}: {found:?}", good.len());
        }
        scene.put(&object, &good).await;
    }
    assert!(scene.verify(scene.live()).await.is_clean());
}

#[tokio::test]
async fn a_cut_or_grown_object_is_found_and_named() {
    let scene = Scene::new().await;
    for object in scene.objects().await {
        let good = scene.get(&object).await;
        let half = good[..good.len() / 2].to_vec();
        let grown = [good.as_slice(), b"more"].concat();
        for bad in [half, grown, Vec::new()] {
            scene.put(&object, &bad).await;
            let found = scene.try_verify(scene.live()).await;
            assert!(names(&found, &object), "{object} with {} bytes: {found:?}", bad.len());
        }
        scene.put(&object, &good).await;
    }
}

#[tokio::test]
async fn a_missing_object_is_found_and_named() {
    let scene = Scene::new().await;
    for object in scene.objects().await.into_iter().filter(|o| scene.is_live(o)) {
        let good = scene.get(&object).await;
        scene.delete(&object).await;
        for from in [scene.live(), From::Bucket] {
            let found = scene.verify(from).await;
            assert!(found.damage.first.iter().any(|d| d.object == object), "{object}: {found:?}");
        }
        scene.put(&object, &good).await;
    }
    for object in ["manifest/lineage-00000000000000000001", "isle.json"] {
        let good = scene.get(object).await;
        scene.delete(object).await;
        assert!(!scene.verify(From::Bucket).await.is_clean(), "{object}");
        scene.put(object, &good).await;
    }
    let folds: Vec<String> = scene.objects().await.into_iter().filter(|o| o.contains("fold-")).collect();
    scene.delete(&folds[1]).await;
    assert!(!scene.verify(From::Bucket).await.is_clean(), "{}", folds[1]);
}

#[tokio::test]
async fn the_object_of_another_place_is_found() {
    let scene = Scene::new().await;
    let mut objects = scene.objects().await;
    objects.retain(|o| scene.is_live(o));
    let tables: Vec<&String> = objects.iter().filter(|o| o.starts_with("table/")).collect();
    let logs: Vec<&String> = objects.iter().filter(|o| o.ends_with(".seg")).collect();
    for pair in [[tables[0], tables[1]], [logs[0], logs[1]]] {
        let (a, b) = (scene.get(pair[0]).await, scene.get(pair[1]).await);
        scene.put(pair[0], &b).await;
        let found = scene.verify(scene.live()).await;
        assert!(found.damage.first.iter().any(|d| &d.object == pair[0]), "{found:?}");
        scene.put(pair[0], &a).await;
    }
}

#[tokio::test]
async fn all_damage_is_listed_and_not_only_the_first() {
    let scene = Scene::new().await;
    let mut hurt: Vec<String> = scene.objects().await;
    hurt.retain(|o| scene.is_live(o));
    for object in &hurt {
        let mut bytes = scene.get(object).await;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        scene.put(object, &bytes).await;
    }
    let report = scene.verify(scene.live()).await;
    for object in &hurt {
        assert!(report.damage.first.iter().any(|d| d.object == *object), "{object} is not named");
    }
}

/// What only a load or a recover would miss.
#[tokio::test]
async fn what_loads_and_recovers_start_from_is_missed() {
    let mut scene = Scene::new().await;
    for n in 0..3 {
        scene.scribe.append(&[Entry::put(format!("late/{n}"), "v")]).await;
    }
    let objects = scene.objects().await;
    let of = |kind: &str| objects.iter().filter(|o| o.contains(kind)).cloned().collect::<Vec<String>>();
    let (checkpoints, edits, epochs) = (of("checkpoint-"), of("edit-"), of("epoch-"));
    let newest: Vec<&String> = checkpoints.iter().rev().take(2).collect();
    let start = isle_storage::names::parse_checkpoint(newest[0]).unwrap();
    let after: Vec<&String> =
        edits.iter().filter(|e| isle_storage::names::parse_edit(e).unwrap() > start).collect();
    assert!(after.len() > 1, "{edits:?}");
    for object in [newest[0], newest[1], epochs.last().unwrap(), after[0]] {
        let good = scene.get(object).await;
        scene.delete(object).await;
        let found = scene.verify(From::Bucket).await;
        assert!(found.damage.first.iter().any(|d| d.object == *object), "{object}: {:?}", found.damage);
        assert!(!scene.verify(scene.live()).await.is_clean(), "{object}");
        scene.put(object, &good).await;
    }
    assert!(scene.verify(From::Bucket).await.is_clean());
}

/// One damaged object is one finding, and its name stands there once.
#[tokio::test]
async fn one_damaged_record_is_said_once() {
    let scene = Scene::new().await;
    for kind in ["lineage-", "fold-", "epoch-"] {
        let object = scene.objects().await.into_iter().find(|o| o.contains(kind)).unwrap();
        let good = scene.get(&object).await;
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        scene.put(&object, &bad).await;
        let found = scene.verify(From::Bucket).await;
        assert_eq!(found.damage.total, 1, "{:?}", found.damage);
        let said = found.damage.first[0].to_string();
        assert_eq!(said.matches(&object).count(), 1, "{said}");
        scene.put(&object, &good).await;
    }
}
