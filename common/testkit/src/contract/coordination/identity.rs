//! Who a prefix belongs to, and what is refused.

use bytes::Bytes;
use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::lineage::{self, LineageObject};
use isle_storage::ids::Lineage;
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::StoreErrorKind;

use super::world::{NAME, World, creating, open};
use crate::coordination::LossyCoordination;
use crate::fault::{Fault, FaultBucket, Op, Rule};

/// `isle.json` of another name, backend, format or database is refused in every mode.
pub(super) async fn other_names_and_other_backends_are_refused(world: World) {
    let none = world.try_open(world.bucket(), NAME, &OpenMode::Existing).await;
    assert!(matches!(none, Err(CoordinationError::NotFound(_))), "{none:?}");
    world.process().await;
    let original = read_identity(&world).await;
    let wrong = [
        ("\"name\": \"contract\"", "\"name\": \"other\""),
        ("\"format\": 1", "\"format\": 2"),
        (&format!("\"backend\": \"{}\"", world.service.backend()), "\"backend\": \"zookeeper\""),
        (&format!("\"backend\": \"{}\"", world.service.backend()), other_backend(&world)),
    ];
    for (from, to) in wrong {
        let changed = original.replace(from, to);
        assert_ne!(changed, original, "{from} is not in {original}");
        write_identity(&world, &changed).await;
        for mode in [creating(), OpenMode::Existing] {
            let opened = world.try_open(world.bucket(), NAME, &mode).await;
            let refused =
                matches!(opened, Err(CoordinationError::WrongDatabase(_) | CoordinationError::Damaged(_)));
            assert!(refused, "{to}: {opened:?}");
        }
    }
    let json: serde_json_like::Fields = serde_json_like::fields(&original);
    let changed = original.replace(&json.database, "00000000000000000000000000000001");
    write_identity(&world, &changed).await;
    let opened = world.try_open(world.bucket(), NAME, &creating()).await;
    assert!(matches!(opened, Err(CoordinationError::WrongDatabase(_))), "{opened:?}");
    write_identity(&world, &original).await;
    world.process().await;
    let named = world.try_open(world.bucket(), "Not A Name", &creating()).await;
    assert!(matches!(named, Err(CoordinationError::Refused(_))), "{named:?}");
}

fn other_backend(world: &World) -> &'static str {
    if world.head_is_in_bucket() { "\"backend\": \"etcd\"" } else { "\"backend\": \"bucket\"" }
}

/// A few fields of `isle.json`, cut out of its text.
mod serde_json_like {
    pub(super) struct Fields {
        pub(super) database: String,
    }

    pub(super) fn fields(text: &str) -> Fields {
        let after = text.split("\"database\": \"").nth(1).unwrap();
        Fields { database: after[..32].to_owned() }
    }
}

async fn read_identity(world: &World) -> String {
    String::from_utf8(world.bucket().get(&names::identity()).await.unwrap().to_vec()).unwrap()
}

async fn write_identity(world: &World, text: &str) {
    world.bucket().put(&names::identity(), Bytes::copy_from_slice(text.as_bytes()).into()).await.unwrap();
}

/// `isle.json` is there and the head is not: every role refuses, and nothing is created anew.
pub(super) async fn a_head_that_is_gone_is_lost_and_never_an_empty_database(world: World) {
    let mut writer = world.writer().await;
    writer.append(1).await;
    world.service.wipe().await;
    for mode in [creating(), OpenMode::Existing] {
        let opened = world.try_open(world.bucket(), NAME, &mode).await;
        assert!(matches!(opened, Err(CoordinationError::Lost(_))), "{opened:?}");
    }
}

/// A creator that crashes after any of its writes leaves what the next one finishes, with one identity in the end.
pub(super) async fn a_creation_that_crashed_anywhere_is_finished(world: World) {
    // How many objects a whole creation writes, found out on the way.
    for writes in 0..10 {
        world.service.wipe().await;
        clear(&world).await;
        let faults = FaultBucket::new(world.bucket());
        for op in [Op::Put, Op::Create] {
            // Each kind counts by itself, so every prefix of the writes is met.
            let writing = Rule::on(op).when(|_, path| !path.starts_with("probe/"));
            faults.inject(writing.after(writes), Fault::Fail(StoreErrorKind::Transient));
        }
        let crashed = world.try_open(faults, NAME, &creating()).await;
        let reader = world.try_open(world.bucket(), NAME, &OpenMode::Existing).await;
        match &crashed {
            Err(e) => {
                assert!(e.is_passing(), "{e:?}");
                let waits = matches!(reader, Err(CoordinationError::NotFound(_)));
                assert!(waits, "after {writes} writes a reader met {reader:?}");
            }
            Ok(_) => assert!(reader.is_ok(), "{reader:?}"),
        }
        let next = world.process().await;
        if let Ok(first) = &crashed {
            assert_eq!(first.identity, next.identity);
        }
        assert_eq!(world.process().await.identity, next.identity);
        assert_eq!(world.fresh_load().await.manifest.database, next.identity.database);
        if crashed.is_ok() {
            return;
        }
    }
    panic!("the creation never ended");
}

/// Objects of a database without an `isle.json` are nothing to create a database around.
pub(super) async fn objects_without_an_identity_are_no_fresh_prefix(world: World) {
    for stray in ["log/x.seg", "table/00/x.sst", "blob/00/x.blob", "manifest/epoch-00000000000000000001"] {
        let path = ObjectPath::new(stray).unwrap();
        world.bucket().put(&path, Bytes::from_static(b"x").into()).await.unwrap();
        let opened = world.try_open(world.bucket(), NAME, &creating()).await;
        assert!(matches!(opened, Err(CoordinationError::Refused(_))), "{stray}: {opened:?}");
        world.bucket().delete(&path).await.unwrap();
    }
    world.process().await;
}

/// Once the bucket lists a newer lineage, a head of the old one is refused by whoever opens, claims or loads anew.
pub(super) async fn another_lineage_is_refused(world: World) {
    let db = world.process().await;
    let newer = LineageObject { database: db.identity.database, number: 2, lineage: Lineage(0xfeed) };
    lineage::write(world.bucket().as_ref(), &newer).await.unwrap();
    let opened = world.try_open(world.bucket(), NAME, &creating()).await;
    assert!(matches!(opened, Err(CoordinationError::WrongDatabase(_))), "{opened:?}");
    let checked = db.check_lineage(db.identity.lineage).await;
    assert!(matches!(checked, Err(CoordinationError::WrongDatabase(_))), "{checked:?}");
    let lossless = LossyCoordination::new(world.service.connect(world.bucket()).await);
    let again = open(world.bucket(), lossless, NAME, &OpenMode::Existing).await;
    assert!(matches!(again, Err(CoordinationError::WrongDatabase(_))), "{again:?}");
}

async fn clear(world: &World) {
    use futures::TryStreamExt;
    let all: Vec<_> = world.bucket().list("").try_collect().await.unwrap();
    for object in all {
        world.bucket().delete(&ObjectPath::new(object.path).unwrap()).await.unwrap();
    }
}
