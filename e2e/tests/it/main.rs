//! End-to-end tests: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod bootstrap;
mod bucket_faults;
mod chaos;
mod command;
mod compaction;
mod consumers;
mod damage;
mod deploy;
mod dump;
mod etcd_faults;
mod failures;
mod fleet;
mod freshness;
mod groups;
mod idle;
mod input;
mod large;
mod layering;
mod loading;
mod outages;
mod paused_writer;
mod proxy;
mod recover;
mod servers;
mod snapshots;
mod startup;
mod store_contract;
mod stores;
mod stress;
mod takeover;
mod takeover_time;
mod verify;
