//! Object access: the contract on local stores, and each decorator's promise.

mod contract;
mod fault;
mod file;
mod meter;
mod probe;
mod retry;
mod uploads;

use std::sync::Arc;

use isle_storage::environment::{Environment, SystemClock};
use isle_storage::names::ObjectPath;
use isle_storage::object::{Body, Bucket, MemoryBucket, RetryBucket, RetryPolicy};
use isle_testkit::fault::FaultBucket;

fn environment() -> Environment {
    Environment::system("test", "test")
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

fn body(text: &'static str) -> Body {
    Body::from(text.as_bytes().to_vec())
}

fn memory() -> Arc<dyn Bucket> {
    Arc::new(MemoryBucket::new(Arc::new(SystemClock)))
}

/// A memory store that fails on command, under the usual retries with a budget of a minute (of paused time).
fn retried() -> (Arc<FaultBucket>, Arc<dyn Bucket>) {
    let faults = FaultBucket::new(memory());
    let policy = RetryPolicy::with_budget(std::time::Duration::from_secs(60));
    let bucket = RetryBucket::new(Arc::clone(&faults) as Arc<dyn Bucket>, policy, environment().entropy);
    (faults, Arc::new(bucket))
}
