//! How an edit stands in etcd: as its JSON, or, over 32 KiB, as a reference to an object in the bucket that holds it.
//!
//! The object is written before the transaction that names it. Its name carries the commit's random id, so a repeated
//! attempt writes the same bytes under the same name, and two edits that compete for one version never share one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::coordination::CoordinationError;
use crate::ids::Version;
use crate::manifest::Edit;
use crate::names::{self, ObjectPath};
use crate::object::{Body, Bucket, StoreError, StoreErrorKind};

/// Edits above this many bytes are objects.
pub(super) const MAX_INLINE_BYTES: usize = 32 << 10;

/// An edit that lies in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EditObject {
    path: ObjectPath,
    len: u64,
    crc: u32,
}

/// What a reference looks like in etcd; an edit has no such field.
#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    edit_object: EditObject,
}

/// What a reference starts with, and no edit does.
const REFERENCE_START: &[u8] = b"{\"edit_object\":";

/// An edit's value in etcd, and the object that has to be written before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) value: Bytes,
    pub(super) object: Option<(ObjectPath, Bytes)>,
}

/// Encodes an edit: the same edit always gives the same bytes.
pub(super) fn encode(edit: &Edit) -> Result<Encoded, serde_json::Error> {
    let json = Bytes::from(serde_json::to_vec(edit)?);
    if json.len() <= MAX_INLINE_BYTES {
        return Ok(Encoded { value: json, object: None });
    }
    let path = names::big_edit(edit.version, edit.commit.0);
    let crc = crc32c::crc32c(&json);
    let reference = Reference { edit_object: EditObject { path: path.clone(), len: json.len() as u64, crc } };
    Ok(Encoded { value: serde_json::to_vec(&reference)?.into(), object: Some((path, json)) })
}

/// Writes the object an encoded edit refers to, if it refers to one.
pub(super) async fn write_object(bucket: &dyn Bucket, encoded: &Encoded) -> Result<(), StoreError> {
    match &encoded.object {
        None => Ok(()),
        Some((path, json)) => bucket.put(path, Body::from(json.clone())).await,
    }
}

/// An edit's value as read from etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EditValue {
    /// The edit itself.
    Inline(Box<Edit>),
    /// Where it lies.
    Object(EditObject),
}

/// Why an edit could not be had.
#[derive(Debug, Clone)]
pub(super) enum EditReadError {
    /// Its object is gone: it has been folded away and collected.
    Gone(String),
    /// The bucket cannot be reached at present.
    Passing(String),
    /// The value or the object is damaged or too new, or the bucket refuses.
    Definite(CoordinationError),
}

/// Decodes an edit's value; `version` is what its key says.
pub(super) fn decode(value: &[u8], version: Version) -> Result<EditValue, EditReadError> {
    if value.starts_with(REFERENCE_START) {
        let reference: Reference = serde_json::from_slice(value)
            .map_err(|e| damaged(format!("the reference to edit {version} cannot be read: {e}")))?;
        return Ok(EditValue::Object(reference.edit_object));
    }
    parse(value, version).map(|e| EditValue::Inline(Box::new(e)))
}

/// The edit behind a value, fetched from the bucket where it lies there.
pub(super) async fn fetch(
    bucket: &dyn Bucket,
    value: EditValue,
    version: Version,
) -> Result<Edit, EditReadError> {
    let object = match value {
        EditValue::Inline(edit) => return Ok(*edit),
        EditValue::Object(object) => object,
    };
    let bytes = bucket.get(&object.path).await.map_err(|e| match e.kind {
        StoreErrorKind::NotFound => EditReadError::Gone(e.to_string()),
        StoreErrorKind::Transient => EditReadError::Passing(e.to_string()),
        _ => EditReadError::Definite(CoordinationError::Refused(e.to_string())),
    })?;
    if bytes.len() as u64 != object.len || crc32c::crc32c(&bytes) != object.crc {
        return Err(damaged(format!("edit object {} is damaged: its checksum does not match", object.path)));
    }
    parse(&bytes, version)
}

fn parse(json: &[u8], version: Version) -> Result<Edit, EditReadError> {
    let edit: Edit = serde_json::from_slice(json).map_err(|e| {
        damaged(format!("edit {version} cannot be read (damaged, or of a newer program): {e}"))
    })?;
    if edit.version == version {
        Ok(edit)
    } else {
        Err(damaged(format!("the key of edit {version} holds edit {}", edit.version)))
    }
}

fn damaged(why: String) -> EditReadError {
    EditReadError::Definite(CoordinationError::Damaged(why))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::{CommitId, Epoch, Lineage};
    use crate::manifest::{Author, Change};

    fn edit(name_bytes: usize) -> Edit {
        Edit {
            version: Version(7),
            lineage: Lineage(1),
            epoch: Epoch(2),
            commit: CommitId(3),
            author: Author::Writer,
            changes: vec![Change::DropSnapshot { name: "x".repeat(name_bytes) }],
            required_features: Vec::new(),
            extra: BTreeMap::new(),
        }
    }

    #[test]
    fn small_edits_stand_in_etcd_and_large_ones_beside_it() {
        let small = encode(&edit(10)).unwrap();
        assert_eq!(small.object, None);
        assert_eq!(decode(&small.value, Version(7)).unwrap(), EditValue::Inline(Box::new(edit(10))));

        let large = encode(&edit(MAX_INLINE_BYTES)).unwrap();
        let (path, _) = large.object.clone().unwrap();
        assert_eq!(path, names::big_edit(Version(7), 3));
        assert!(large.value.len() < 300);
        assert!(matches!(decode(&large.value, Version(7)).unwrap(), EditValue::Object(_)));
        assert_eq!(
            encode(&edit(MAX_INLINE_BYTES)).unwrap(),
            large,
            "a repeated attempt sends the same bytes"
        );
    }

    #[test]
    fn an_edit_under_the_wrong_key_or_of_other_bytes_is_damaged() {
        let value = encode(&edit(1)).unwrap().value;
        assert!(matches!(
            decode(&value, Version(8)),
            Err(EditReadError::Definite(CoordinationError::Damaged(_)))
        ));
        assert!(matches!(
            decode(b"{}", Version(7)),
            Err(EditReadError::Definite(CoordinationError::Damaged(_)))
        ));
    }
}
