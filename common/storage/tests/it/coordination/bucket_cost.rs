//! What the bucket form costs: requests of an idle process, requests and time of a commit.

use std::time::{Duration, Instant};

use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::follow::follow;
use isle_storage::coordination::settings::CoordinationSettings;
use isle_storage::coordination::{CommitOutcome, CoordinationError};
use isle_storage::environment::Environment;
use isle_testkit::contract::coordination::World;
use isle_testkit::contract::coordination::world::{NAME, creating, observe, open};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};

use super::services::{Objects, memory_bucket};

/// Several idle roles of one process look for new edits together: two requests a second once the pauses have grown.
#[tokio::test(start_paused = true)]
async fn an_idle_process_asks_twice_a_second_however_many_roles_it_has() {
    let faults = FaultBucket::new(memory_bucket());
    let env = Environment::system("test", NAME);
    let service = BucketCoordination::trusting(&CoordinationSettings::default(), faults.clone(), &env);
    let db = open(faults.clone(), service, NAME, &creating()).await.unwrap();
    let roles: Vec<_> = (0..4).map(|_| follow(&db).1).collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let _ = faults.take_history();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = faults.take_history();
    assert!(asked.iter().all(|e| e.op == Op::Get), "{asked:?}");
    assert!((60..=130).contains(&asked.len()), "{} requests in a minute", asked.len());
    for current in &roles {
        let age = current.borrow().as_ref().unwrap().as_of.elapsed();
        assert!(age < Duration::from_secs(3), "a view that nothing happens to is {age:?} old");
    }
}

/// Over files, with everything made durable, and over memory: far more commits a second than one writer sends.
#[tokio::test(flavor = "multi_thread")]
async fn local_commits_take_well_under_a_millisecond_of_our_own() {
    for (service, bound) in [(Objects::in_memory(), 1_000.0), (Objects::in_files(), 50.0)] {
        let world = World::new(service);
        let db = world.process().await;
        let mut at = db.load().await.unwrap();
        let began = Instant::now();
        let commits = 200;
        for n in 0..commits {
            let proposal = observe(&db, &at, "commit", 0);
            let mut edit = (*proposal.edit).clone();
            edit.changes.clear();
            let proposal = isle_storage::coordination::commit::propose(
                &at.state,
                &at.manifest,
                edit,
                &isle_storage::coordination::Authority::Observer,
            )
            .unwrap();
            let CommitOutcome::Committed(state) = db.coordination.commit(&proposal).await else {
                panic!("commit {n}")
            };
            at = isle_storage::coordination::Loaded {
                state,
                manifest: proposal.manifest.clone(),
                as_of: at.as_of,
            };
        }
        let rate = f64::from(commits) / began.elapsed().as_secs_f64();
        println!("{}: {rate:.0} commits/s", world.bucket().url());
        assert!(rate > bound, "{}: {rate:.0} commits/s", world.bucket().url());
    }
}

/// A store whose conditional create is ignored is refused before anything is written to the prefix; a role that only
/// reads never puts it on trial.
#[tokio::test]
async fn a_store_without_atomic_create_is_refused() {
    let faults = FaultBucket::new(memory_bucket());
    faults.inject(Rule::on(Op::Create), Fault::Swallow);
    let env = Environment::system("test", NAME);
    let service = BucketCoordination::new(&CoordinationSettings::default(), faults.clone(), &env);
    let refused = open(faults.clone(), service, NAME, &creating()).await;
    assert!(matches!(refused, Err(CoordinationError::Refused(_))), "{refused:?}");
    assert_eq!(faults.count(Op::Put, "*") + faults.count(Op::Create, "manifest/*"), 0);
    faults.heal();
    let service = BucketCoordination::new(&CoordinationSettings::default(), faults.clone(), &env);
    open(faults.clone(), service, NAME, &creating()).await.unwrap();
    let _ = faults.take_history();
    let service = BucketCoordination::new(&CoordinationSettings::default(), faults.clone(), &env);
    let existing = isle_storage::coordination::identity::OpenMode::Existing;
    let reader = open(faults.clone(), service, NAME, &existing).await.unwrap();
    reader.load().await.unwrap();
    let wrote = faults.take_history().into_iter().filter(|e| matches!(e.op, Op::Put | Op::Create)).count();
    assert_eq!(wrote, 0);
}
