//! `isle dump`: readable contents of any object, read straight from the bucket (and the coordination service), or from
//! a file. What is damaged is read as far as it can be, and the command then fails, naming the places.

mod blob;
mod log;
mod manifest;
mod print;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::environment::Environment;
use isle_storage::names::ObjectPath;
use isle_storage::object::{self, Bucket, Credentials, StoreSettings};

use crate::args::{Dump, DumpArgs, HowToDump, Place};
use crate::output::Failure;

pub(crate) async fn dump(args: DumpArgs) -> Result<(), Failure> {
    match args.what {
        Dump::Manifest { reference, how } => manifest::dump(reference.as_deref(), &how).await,
        Dump::Checkpoint { reference, how } => {
            manifest::checkpoint(&Object::fetch(&reference, &how, path_of).await?, &how)
        }
        Dump::Table { reference, how } => {
            table::dump(&Object::fetch(&reference, &how, table::path).await?, &how)
        }
        Dump::Blob { reference, how } => {
            blob::dump(&Object::fetch(&reference, &how, blob::path).await?, &how)
        }
        Dump::Log { reference, how } => log::dump(&Object::fetch(&reference, &how, log::path).await?, &how),
    }
}

/// An object to be dumped.
struct Object {
    /// Its path below the prefix, or the file's.
    name: String,
    bytes: Bytes,
}

impl Object {
    /// The object that `reference` means: a file where it looks like one's path, else what `path` makes of it.
    async fn fetch(
        reference: &str,
        how: &HowToDump,
        path: impl Fn(&str) -> Result<ObjectPath, String>,
    ) -> Result<Self, Failure> {
        let name = reference.to_owned();
        if ["/", "./", "../"].iter().any(|start| reference.starts_with(start)) {
            let bytes = tokio::fs::read(reference).await;
            let bytes = bytes.map_err(|e| Failure::new(format!("{reference}: {e}")))?.into();
            return Ok(Self { name, bytes });
        }
        let path = path(reference).map_err(Failure::usage)?;
        let env = Environment::system("isle", &how.place.database);
        let bucket = open_store(&how.place, &env)?;
        let bytes =
            bucket.get(&path).await.map_err(|e| Failure::new(format!("{}/{path}: {e}", bucket.url())))?;
        Ok(Self { name: path.to_string(), bytes })
    }
}

/// A reference that is an object's path already.
fn path_of(reference: &str) -> Result<ObjectPath, String> {
    ObjectPath::new(reference)
}

/// The store a command line names, with the credentials of this process's environment.
pub(crate) fn open_store(place: &Place, env: &Environment) -> Result<Arc<dyn Bucket>, Failure> {
    let url = store_url(&place.store)?;
    let settings = StoreSettings {
        url: url.clone(),
        credentials: Credentials::from_vars(std::env::vars_os()),
        ..Default::default()
    };
    object::open(&url, &settings, env).map_err(|e| Failure::usage(e.to_string()))
}

/// A store's URL; a plain path stands for a directory.
pub(crate) fn store_url(text: &str) -> Result<String, Failure> {
    if text.contains(':') {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text).map_err(|e| Failure::usage(format!("{text}: {e}")))?;
    Ok(format!("file://{}", path.display()))
}
