//! What two or more of Isle's roles share: object access, formats, the manifest, coordination, the merge.
//!
//! The folder tree mirrors what lies in the bucket. Pure modules (bytes in, bytes out; no I/O, no clock, no
//! randomness): [`ids`], [`row`], [`names`], [`format`], [`blob`], [`log`], [`sst`], [`manifest`], [`merge`], [`recognise`].
//! Modules that touch the world: [`object`] (the only place that names the `object_store` crate), [`coordination`] (the only
//! place that names `etcd-client`), [`environment`], [`scan`], [`values`], [`verify`], [`transfer`]. [`watch`] is a channel
//! whose order is a matter of the program alone.

pub mod blob;
pub mod coordination;
pub mod database;
pub mod environment;
pub mod format;
pub mod ids;
pub mod log;
pub mod manifest;
pub mod merge;
pub mod names;
pub mod object;
pub mod range;
pub mod recognise;
pub mod row;
pub mod sabotage;
pub mod scan;
pub mod sst;
pub mod transfer;
pub mod values;
pub mod verify;
pub mod watch;
