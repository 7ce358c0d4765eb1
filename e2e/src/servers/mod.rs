//! Real servers, one file each: started on free loopback ports with directories of their own, ready when `start`
//! returns, gone when dropped.
//!
//! | server | for | conditional puts |
//! | --- | --- | --- |
//! | [`Etcd`] | coordination; one member or three | |
//! | [`S3`] | S3 in this process (or its own: [`S3Process`]) | looked at, not atomic; or [ignored](`Conditions::Ignored`) |
//! | [`Moto`] | S3 with honest conditional puts; slow | atomic |
//! | [`Azurite`] | Azure | atomic |
//! | [`Gcs`] | Google Cloud Storage, the few calls in use | atomic |
//!
//! Every store gives its `url(prefix)` and the credentials as environment variables, for child processes (`env`) and
//! for stores opened in the test (`credentials`).

mod azurite;
mod daemon;
mod etcd;
mod gcs;
mod http;
mod moto;
mod s3;

pub use azurite::Azurite;
pub use daemon::{Daemon, free_port, installed};
pub use etcd::{Backup, Etcd, Member};
pub use gcs::Gcs;
pub use moto::Moto;
pub use s3::{Conditions, S3, S3Process, serve};

use isle_storage::object::Credentials;

/// The environment variables by which a program reaches a store.
pub type Env = Vec<(String, String)>;

fn env<const N: usize>(variables: [(&str, &str); N]) -> Env {
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same variables for a store opened in the test itself.
#[must_use]
pub fn credentials(env: &Env) -> Credentials {
    env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
