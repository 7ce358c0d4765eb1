//! A bucket that fails on command: failure as an input, chosen by operation, path and count.
//!
//! ```
//! # use std::sync::Arc;
//! # use isle_storage::object::{Bucket, StoreErrorKind};
//! # use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};
//! # fn example(inner: Arc<dyn Bucket>) {
//! let store = FaultBucket::new(inner);
//! // The second put of a log segment is applied, and its reply lost.
//! store.inject(Rule::on(Op::Put).path("log/*.seg").nth(2), Fault::LoseReply);
//! // Every read fails until further notice.
//! let outage = store.inject(Rule::on(Op::Get), Fault::Fail(StoreErrorKind::Transient));
//! store.remove(outage);
//! // The next create waits until the test lets it go on.
//! let gate = store.hold(Rule::on(Op::Create).nth(1));
//! # }
//! ```

mod answer;
mod bucket;
mod gate;
mod rule;

pub use self::bucket::{Event, FaultBucket, FaultId};
pub use self::gate::{Fault, Gate};
pub use self::rule::{Op, Rule};
