//! `isle dump`: readable contents, read straight from the bucket (and the coordination service).

use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, CoordinationSettings};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::manifest::{Manifest, checkpoint, text};
use isle_storage::names::ObjectPath;
use isle_storage::object::{self, Bucket, Credentials, StoreSettings};
use std::sync::Arc;

use crate::args::{Dump, DumpArgs, Place};
use crate::output::{self, Failure};

pub(crate) async fn dump(args: DumpArgs) -> Result<(), Failure> {
    let Dump::Manifest { reference, place, json } = args.what;
    let env = Environment::system("isle", &place.database);
    let bucket = open_store(&place, &env)?;
    let manifest = match reference {
        Some(path) => read_checkpoint(&bucket, &path).await?,
        None => newest(&place, bucket, env).await?,
    };
    if json {
        output::line(&serde_json::to_string_pretty(&manifest)?)
    } else {
        output::write(text::print(&manifest).as_bytes())
    }
}

async fn read_checkpoint(bucket: &Arc<dyn Bucket>, path: &str) -> Result<Manifest, Failure> {
    let path = ObjectPath::new(path).map_err(Failure::usage)?;
    let bytes = bucket.get(&path).await?;
    checkpoint::decode(&bytes).map_err(|e| Failure::new(format!("{path}: {e}")))
}

async fn newest(place: &Place, bucket: Arc<dyn Bucket>, env: Environment) -> Result<Manifest, Failure> {
    let told = CoordinationSettings::new(place.coordination.clone());
    let coordination = coordination::connect(&told, &place.database, Arc::clone(&bucket), &env).await?;
    let db = Database::open(bucket, coordination, env, &place.database, &OpenMode::Existing).await?;
    Ok(db.load().await?.manifest.as_ref().clone())
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
