//! One open database: what every engine is built on.

use std::sync::Arc;

use crate::coordination::identity::{self, Identity, OpenMode};
use crate::coordination::{Coordination, CoordinationError, Loaded, lineage};
use crate::environment::Environment;
use crate::ids::Lineage;
use crate::object::Bucket;

/// A database that was opened and found to be the right one. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Database {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Where its objects lie.
    pub bucket: Arc<dyn Bucket>,
    /// Where its head lies.
    pub coordination: Arc<dyn Coordination>,
    /// Clock, randomness, metrics.
    pub env: Environment,
}

impl Database {
    /// Opens a database: see [`identity::open`].
    ///
    /// # Errors
    /// [`CoordinationError`]; passing ones may be retried.
    pub async fn open(
        bucket: Arc<dyn Bucket>,
        coordination: Arc<dyn Coordination>,
        env: Environment,
        name: &str,
        mode: &OpenMode,
    ) -> Result<Self, CoordinationError> {
        let identity = Arc::new(identity::open(&bucket, &coordination, &env, name, mode).await?);
        Ok(Self { identity, bucket, coordination, env })
    }

    /// Loads the head's manifest and makes sure that it is this database's.
    ///
    /// # Errors
    /// `Lost` where the head is gone, `WrongDatabase` where it is another database's; else as
    /// [`Coordination::load`].
    pub async fn load(&self) -> Result<Loaded, CoordinationError> {
        let loaded = self.coordination.load().await.map_err(Self::lost)?;
        let found = loaded.manifest.database;
        if found == self.identity.database {
            return Ok(loaded);
        }
        Err(CoordinationError::WrongDatabase(format!(
            "the head is that of database {found}, not {}",
            self.identity.database
        )))
    }

    /// What an error means to somebody who has the database open: that there is none yet cannot be.
    #[must_use]
    pub fn lost(e: CoordinationError) -> CoordinationError {
        match e {
            CoordinationError::NotFound(place) => CoordinationError::Lost(format!(
                "the head of {place} is gone: the coordination service was wiped; rebuild the head with `isle recover`"
            )),
            other => other,
        }
    }

    /// Refuses to go on under a lineage that is not the bucket's newest: asked at every claim, after a reset of the
    /// watch, and before each batch of deletes and each checkpoint.
    ///
    /// # Errors
    /// As [`lineage::check`].
    pub async fn check_lineage(&self, lineage: Lineage) -> Result<(), CoordinationError> {
        lineage::check(self.bucket.as_ref(), self.identity.database, lineage).await
    }
}
