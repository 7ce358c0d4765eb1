//! What the end-to-end tests share: real servers on free loopback ports, and waiting for conditions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here ends the test that asked for it"
)]

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod dataset;
pub mod load;
pub mod network;
pub mod node;
pub mod proxy;
pub mod servers;
pub mod takeover;
pub mod wait;
