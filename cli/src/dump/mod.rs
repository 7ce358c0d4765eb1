//! `isle dump`: readable contents of any object, read straight from the bucket (and the coordination service), or from
//! a file. What is damaged is read as far as it can be, and the command then fails, naming the places.

mod blob;
mod log;
mod manifest;
mod print;
mod record;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::environment::Environment;
use isle_storage::names::ObjectPath;
use isle_storage::object::{self, Bucket, Credentials, StoreSettings};
use isle_storage::recognise::{self, Content};

use crate::args::{Dump, DumpArgs, HowToDump, Place};
use crate::output::Failure;

pub(crate) async fn dump(args: DumpArgs) -> Result<(), Failure> {
    match args.what {
        Dump::Manifest { reference, how } => manifest::dump(reference.as_deref(), &how).await,
        Dump::Checkpoint { reference, how } => {
            let object = Object::fetch(&reference, &how, path_of).await?;
            object.must_be(|c| *c == Content::Checkpoint)?;
            manifest::checkpoint(&object, &how)
        }
        Dump::Table { reference, how } => {
            let object = Object::fetch(&reference, &how, table::path).await?;
            object.must_be(|c| *c == Content::Table)?;
            table::dump(&object, &how)
        }
        Dump::Blob { reference, how } => {
            let object = Object::fetch(&reference, &how, blob::path).await?;
            object.must_be(|c| *c == Content::Blob)?;
            blob::dump(&object, &how)
        }
        Dump::Log { reference, how } => {
            let object = Object::fetch(&reference, &how, log::path).await?;
            object.must_be(|c| *c == Content::Log)?;
            log::dump(&object, &how)
        }
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

    /// What it is: by its bytes, or, where they are damaged, by its folder.
    fn content(&self) -> Option<Content<'_>> {
        recognise::content(&self.bytes).or_else(|| match self.name.split_once('/')?.0 {
            "table" => Some(Content::Table),
            "log" => Some(Content::Log),
            "blob" => Some(Content::Blob),
            _ => None,
        })
    }

    /// Refuses an object that is certainly of another kind than the one asked for.
    fn must_be(&self, wanted: impl Fn(&Content<'_>) -> bool) -> Result<(), Failure> {
        let Some(other) = self.content().filter(|c| !wanted(c)) else { return Ok(()) };
        let command = match other {
            Content::Table => "table",
            Content::Log => "log",
            Content::Blob => "blob",
            Content::Checkpoint | Content::Sealed(_) => "manifest",
        };
        let (name, kind) = (&self.name, other.named());
        Err(Failure::usage(format!("{name} is {kind}: `isle dump {command} {name}` shows it")))
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
