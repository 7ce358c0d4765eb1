//! Verification: innocent databases are clean, and every kind of damage is found and named.

mod damage;
mod lies;
mod live;
mod scene;

use std::sync::Arc;

use isle_storage::object::Bucket;
use isle_storage::verify::{From, Owner, VerifyError, verify};
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::{Entry, Scribe};
use scene::*;

#[tokio::test]
async fn a_sound_database_is_clean_from_either_side() {
    let scene = Scene::new().await;
    for from in [scene.live(), From::Bucket] {
        let report = scene.verify(from).await;
        assert!(report.is_clean(), "{:?}", report.damage);
        assert_eq!(report.last_seq, scene.scribe.manifest().last_seq);
        assert_eq!(report.version, scene.scribe.manifest().version);
        let c = report.counts;
        assert!(c.tables > 4 && c.rows > 400 && c.keys > 100 && c.records > 500, "{c:?}");
        assert!(c.checkpoints > 1 && c.records_of_coordination > 5 && c.log_objects > 5, "{c:?}");
        assert!(report.retired.total > 3 && report.orphans.total == 0 && report.unknown.total == 0);
    }
}

#[tokio::test]
async fn what_nobody_names_is_listed_and_no_damage() {
    let scene = Scene::new().await;
    let old_table = "table/00/1-00000000000000ff-9.sst";
    let epoch = scene.scribe.manifest().epochs.last().unwrap().clone();
    let name = format!("{}-{}-77", epoch.epoch, epoch.incarnation);
    let own = isle_storage::names::table(&name).to_string();
    let dead = isle_storage::names::table("1-00000000000000ff-9").to_string();
    let job = isle_storage::names::table("00000000000000aa-00000000000000bb-1").to_string();
    for path in [old_table, &own, &dead, &job, "readme.txt", "manifest/odd"] {
        scene.put(path, b"whatever").await;
    }
    let report = scene.verify(scene.live()).await;
    assert!(report.is_clean(), "{:?}", report.damage);
    let state = |object: &str| report.orphans.first.iter().find(|o| o.object == object).map(|o| o.state);
    assert_eq!(state(&own), Some(Owner::Alive));
    assert_eq!(state(&dead), Some(Owner::Dead));
    assert_eq!(state(&job), Some(Owner::Dead));
    let unknown: Vec<&str> = report.unknown.first.iter().map(|u| u.object.as_str()).collect();
    assert!(unknown.contains(&"readme.txt") && unknown.contains(&"manifest/odd"), "{unknown:?}");
    assert!(unknown.contains(&old_table), "a table under another shard than its name's: {unknown:?}");
}

#[tokio::test]
async fn the_wrong_place_is_no_damage() {
    let empty = Scene::empty_bucket();
    let refused = verify(&empty, From::Bucket, "default", &()).await;
    assert!(
        matches!(&refused, Err(VerifyError::WrongPlace(why)) if why.contains("no database")),
        "{refused:?}"
    );
    let scene = Scene::new().await;
    let refused = verify(&scene.bucket(), From::Bucket, "other", &()).await;
    assert!(matches!(&refused, Err(VerifyError::WrongPlace(why)) if why.contains("default")), "{refused:?}");
}

/// A wiped coordination service is no invitation to begin anew.
#[tokio::test]
async fn a_lost_head_is_called_lost() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&[Entry::put("key".to_owned(), "value".to_owned())]).await;
    let bucket: Arc<dyn Bucket> = e.bucket.clone();
    assert!(
        verify(&bucket, From::Coordination(e.coordination.clone()), "default", &()).await.unwrap().is_clean()
    );
    e.coordination.wipe();
    let found = verify(&bucket, From::Coordination(e.coordination.clone()), "default", &()).await.unwrap();
    let said = found.damage.first[0].to_string();
    assert!(said.contains("coordination_lost") && said.contains("isle recover"), "{said}");
    assert!(!said.contains("start a writer"), "{said}");
}
