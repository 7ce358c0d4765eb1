//! Contract suites: what every implementation of a trait must do, run by each of them.
//!
//! A suite panics at the first broken promise, with what was done and what came back.

mod bucket;
pub mod coordination;

pub use bucket::{BucketContract, Uploads, bucket, copies};
pub use coordination::coordination;
