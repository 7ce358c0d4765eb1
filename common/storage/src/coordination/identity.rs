//! Identity and bootstrap: `isle.json`, the lineage objects, and the refusals of PROTOCOL section 1.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Backend, Coordination, CoordinationError};
use crate::environment::Environment;
use crate::ids::{DatabaseId, Lineage};
use crate::manifest::CompactionMode;
use crate::object::Bucket;

/// Content of `isle.json`, written once at creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The database, for ever.
    pub database: DatabaseId,
    /// Its name: selects the etcd subtree, labels metrics.
    pub name: String,
    /// Version of the layout; a larger one is refused.
    pub format: u32,
    /// What drives it.
    pub backend: Backend,
    /// Its first lineage.
    pub lineage: Lineage,
}

/// Whether a role may create the database where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenMode {
    /// The writer, and `isle up`.
    CreateIfMissing(CompactionMode),
    /// Everybody else: [`CoordinationError::NotFound`] until a writer has created it.
    Existing,
}

/// Opens a database's identity: refuses a wrong name, backend or format, a lost head, a store without conditional
/// create where the bucket form needs it; creates where allowed.
///
/// # Errors
/// [`CoordinationError`]; passing ones may be retried.
pub async fn open(
    _bucket: &Arc<dyn Bucket>,
    _coordination: &Arc<dyn Coordination>,
    _env: &Environment,
    _name: &str,
    _mode: &OpenMode,
) -> Result<Identity, CoordinationError> {
    todo!()
}
