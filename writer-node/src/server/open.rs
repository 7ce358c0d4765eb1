//! From settings to an open database.

use std::sync::{Arc, OnceLock};

use isle_service::config::Settings;
use isle_service::shell::OpenError;
use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::settings::{CoordinationSettings, connect};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{self, Bucket, Credentials, OpenErrorKind, StoreSettings};

use crate::settings::WriterSettings;

/// What the program takes from the world, and the store once it is open: a store registers its metrics, so an
/// environment opens one, however often the database behind it has to be tried.
#[derive(Debug, Clone)]
pub struct NodeEnvironment {
    /// Clock, randomness, metrics.
    pub env: Environment,
    store: Arc<OnceLock<Arc<dyn Bucket>>>,
}

impl NodeEnvironment {
    /// Nothing open yet.
    #[must_use]
    pub fn new(env: Environment) -> Self {
        Self { env, store: Arc::default() }
    }
}

/// One attempt to open the database that the settings name.
pub(super) async fn database(
    settings: &Settings<WriterSettings>,
    node: &NodeEnvironment,
) -> Result<Database, OpenError> {
    let bucket = match node.store.get() {
        Some(bucket) => Arc::clone(bucket),
        None => {
            let opened = store(settings, &node.env)?;
            Arc::clone(node.store.get_or_init(|| opened))
        }
    };
    let name = &settings.store.database;
    let told = coordination_settings(settings);
    let coordination = connect(&told, name, Arc::clone(&bucket), &node.env).await;
    let coordination = coordination.map_err(|e| refusal(&e))?;
    let opened = Database::open(
        bucket,
        coordination,
        node.env.clone(),
        name,
        &OpenMode::CreateIfMissing(CompactionMode::default()),
    )
    .await;
    opened.map_err(|e| refusal(&e))
}

fn store(settings: &Settings<WriterSettings>, env: &Environment) -> Result<Arc<dyn Bucket>, OpenError> {
    let told = StoreSettings {
        url: settings.store.url.clone(),
        credentials: Credentials::from_vars(std::env::vars_os()),
        ..StoreSettings::default()
    };
    object::open(&told.url, &told, env).map_err(|e| match e.kind() {
        OpenErrorKind::Usage => OpenError::bad_setting(e.to_string()),
        OpenErrorKind::Denied => OpenError::failed(e.to_string()),
        OpenErrorKind::Unavailable => OpenError::Passing(e.to_string()),
    })
}

fn coordination_settings(settings: &Settings<WriterSettings>) -> CoordinationSettings {
    let given = &settings.coordination;
    CoordinationSettings {
        username: given.username.clone(),
        password_file: given.password_file.clone().map(Into::into),
        ca: given.ca.clone().map(Into::into),
        cert: given.cert.clone().map(Into::into),
        key: given.key.clone().map(Into::into),
        ..CoordinationSettings::new(given.url.clone())
    }
}

/// What the program does about it: waits for what may come or be mended under it, ends for what its settings get
/// wrong.
fn refusal(e: &CoordinationError) -> OpenError {
    match e {
        CoordinationError::Unavailable(_) | CoordinationError::NotFound(_) => {
            OpenError::Passing(e.to_string())
        }
        CoordinationError::WrongDatabase(_) | CoordinationError::Refused(_) => {
            OpenError::bad_setting(e.to_string())
        }
        CoordinationError::Lost(_) | CoordinationError::Regressed(_) | CoordinationError::Damaged(_) => {
            OpenError::failed(e.to_string())
        }
    }
}
