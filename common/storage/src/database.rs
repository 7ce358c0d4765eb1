//! One open database: what every engine is built on.

use std::sync::Arc;

use crate::coordination::identity::{self, Identity, OpenMode};
use crate::coordination::{Coordination, CoordinationError};
use crate::environment::Environment;
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
}
