//! The etcd form against a real etcd, with what happens to real ones: killed, stopped, wiped, restored, compacted, and
//! cut off by the network.

mod cluster;
mod commits;
mod contract;
mod groups;
mod leases;
mod losses;
mod proxy;
mod scene;
mod server;
mod tls;
mod watching;
