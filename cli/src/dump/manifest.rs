//! `isle dump manifest` and `isle dump checkpoint`.

use std::sync::Arc;

use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, CoordinationSettings};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::manifest::{BlobFile, Manifest, checkpoint as format, text};
use isle_storage::names;
use isle_storage::recognise::Content;

use super::print::Printer;
use super::record::{self, printable};
use super::{Object, open_store, path_of};
use crate::args::{HowToDump, Place};
use crate::output::{self, Failure};

pub(super) async fn dump(reference: Option<&str>, how: &HowToDump) -> Result<(), Failure> {
    let Some(reference) = reference else {
        return print(&newest(&how.place).await?, how.json);
    };
    let object = Object::fetch(reference, how, path_of).await?;
    object.must_be(|c| matches!(c, Content::Checkpoint | Content::Sealed(_)))?;
    let of_checkpoint = object.content() == Some(Content::Checkpoint);
    if of_checkpoint || names::parse_checkpoint(&in_manifest(&object)).is_some() {
        return checkpoint(&object, how);
    }
    record::dump(&object, how)
}

/// The path that an object's file name would have in the folder `manifest/`.
pub(super) fn in_manifest(object: &Object) -> String {
    format!("manifest/{}", object.name.rsplit('/').next().unwrap_or_default())
}

/// A checkpoint: the manifest it holds; of a damaged one, its JSON as far as it goes.
pub(super) fn checkpoint(object: &Object, how: &HowToDump) -> Result<(), Failure> {
    let (json, damage) = format::salvage(&object.bytes);
    match serde_json::from_slice::<Manifest>(&json) {
        Ok(manifest) => print(&manifest, how.json)?,
        Err(_) => {
            let mut part = Printer::new(object, how);
            let text = printable(&json);
            part.fact("part", &text, &text)?;
            part.end()?;
        }
    }
    let mut out = Printer::new(object, how);
    damage.iter().try_for_each(|d| out.damage(d))?;
    out.end()?;
    // What no checksum noticed: a newer version's checkpoint, or one that breaks an invariant.
    format::decode(&object.bytes).map(drop).map_err(|e| Failure::new(format!("{}: {e}", object.name)))
}

fn print(manifest: &Manifest, json: bool) -> Result<(), Failure> {
    if json {
        output::line(&serde_json::to_string_pretty(manifest)?)
    } else {
        output::write(text::print(manifest).as_bytes())?;
        output::write(blob_files(manifest).as_bytes())
    }
}

/// How much of each blob file is alive, as comments: it follows from what the tables say.
fn blob_files(manifest: &Manifest) -> String {
    let line = |(name, file): (&String, BlobFile)| {
        let BlobFile { len, live, counted } = file;
        let known = if counted { "" } else { " held by the log, or not counted by every table" };
        let garbage = file.garbage();
        format!(
            "# blob {name:?} len={len} live={} values={} garbage={garbage}{known}\n",
            live.bytes, live.values
        )
    };
    manifest.blob_files().into_iter().map(line).collect()
}

async fn newest(place: &Place) -> Result<Manifest, Failure> {
    let env = Environment::system("isle", &place.database);
    let bucket = open_store(place, &env)?;
    let told = CoordinationSettings::new(place.coordination.clone());
    let coordination = coordination::connect(&told, &place.database, Arc::clone(&bucket), &env).await?;
    let db = Database::open(bucket, coordination, env, &place.database, &OpenMode::Existing).await?;
    Ok(db.load().await?.manifest.as_ref().clone())
}
