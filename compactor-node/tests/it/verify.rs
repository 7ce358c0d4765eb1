//! Whatever a compactor does to a database, verification finds it sound.

use std::sync::Arc;
use std::time::Duration;

use compactor_node::Compactor;
use isle_storage::manifest::Manifest;
use isle_storage::object::Bucket;
use isle_storage::verify::{From, verify};
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::Scribe;

use crate::merge::{generation, node, settings};

#[tokio::test]
async fn merges_deletes_expiries_takeovers_and_collections_leave_a_sound_database() {
    let e = Embedded::new().await;
    let bucket: Arc<dyn Bucket> = e.bucket.clone();
    let mut scribe = Scribe::take_over(&e.db).await;
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    for n in 0..12 {
        if n % 4 == 3 {
            e.coordination.expire_writer();
            scribe = Scribe::take_over(&e.db).await;
        }
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
        // Expiries come to pass, and the grace of what was retired ends.
        e.clock.advance(Duration::from_secs(600));
        let version = scribe.manifest().version;
        let mut current = compactor.current();
        current.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version >= version)).await.unwrap();
        // While it goes on merging and collecting.
        let from = From::Coordination(e.coordination.clone());
        let report = verify(&bucket, from, "default", &()).await.unwrap();
        assert!(report.is_clean(), "after generation {n}: {:?}", report.damage);
        if n % 4 == 3 {
            // A machine that is busy with other things merges late; it merges all the same.
            let trigger = settings().l0_trigger;
            let merged = |m: &Manifest| m.runs.iter().filter(|r| r.l0).count() < trigger;
            current.wait_for(|c| c.as_ref().is_some_and(|c| merged(&c.manifest))).await.unwrap();
        }
    }
    let merges = compactor.status().merges;
    compactor.close().await;
    let report = verify(&bucket, From::Coordination(e.coordination.clone()), "default", &()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    assert!(merges > 1 && report.counts.tables > 0, "{merges} merges, {:?}", report.counts);
}
