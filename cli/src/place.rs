//! A database that a command opens itself: settings as the nodes read them, and patience with what cannot be reached.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isle_node::{NodeEnvironment, coordination_settings};
use isle_service::config::{
    CoordinationSettings as CoordinationSection, Layers, ServerSettings, StoreSettings as StoreSection,
};
use isle_service::server::HttpMetrics;
use isle_service::shell::OpenError;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, Coordination, CoordinationError, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::object::{self, Bucket};
use tokio::time::Instant;

use crate::args::{Database as DatabaseArgs, Direct, Reach, Store, Target};
use crate::dump::store_url;
use crate::output::{self, Failure};

/// Pause between attempts to reach the store and the service.
const PAUSE: Duration = Duration::from_millis(500);

/// The database as settings, with its store and its coordination once they are open.
pub(crate) struct Place {
    pub(crate) environment: NodeEnvironment,
    pub(crate) store: StoreSection,
    coordination: CoordinationSection,
    patience: Duration,
}

impl Place {
    /// File, environment and flags, in this order.
    pub(crate) fn of(
        store: Option<&str>,
        coordination: Option<String>,
        database: Option<String>,
        config: Option<&Path>,
    ) -> Result<Self, Failure> {
        let vars =
            std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        let usage = |e: &dyn std::fmt::Display| Failure::usage(e.to_string());
        let mut layers = Layers::read(config, vars).map_err(|e| usage(&e))?;
        let store = store.map(store_url).transpose()?;
        for (flag, path, value) in [
            ("--store", "store.url", store),
            ("--database", "store.database", database),
            ("--coordination", "coordination.url", coordination),
        ] {
            if let Some(value) = value {
                layers.set_flag(flag, path, value);
            }
        }
        let store: StoreSection = layers.section("store").map_err(|e| usage(&e))?;
        let coordination: CoordinationSection = layers.section("coordination").map_err(|e| usage(&e))?;
        let server: ServerSettings = layers.section("server").map_err(|e| usage(&e))?;
        if store.url.is_empty() {
            return Err(Failure::usage(
                "no store: give --store URL (file:///path, s3://bucket/prefix, gs://…, az://…)",
            ));
        }
        coordination_settings(&coordination).validate().map_err(|lines| Failure::usage(lines.join("\n")))?;
        let (environment, _) = NodeEnvironment::system("isle", &store.database, &HttpMetrics::new());
        Ok(Self { environment, store, coordination, patience: server.startup_timeout })
    }

    /// The database that a command is to work on without a node, if it is told one.
    pub(crate) fn direct(told: &Direct) -> Result<Option<Self>, Failure> {
        let Some(store) = &told.store else { return Ok(None) };
        let (coordination, database) = (told.coordination.clone(), told.database.clone());
        Self::of(Some(store), coordination, database, told.config.as_deref()).map(Some)
    }

    /// This command as a node, for what it commits.
    pub(crate) fn node(&self) -> NodeInfo {
        self.environment.node("isle", "")
    }

    pub(crate) fn env(&self) -> &Environment {
        &self.environment.env
    }

    /// One attempt to open both.
    pub(crate) async fn open(&self) -> Result<(Arc<dyn Bucket>, Arc<dyn Coordination>), Failed> {
        let bucket = self.environment.store(&self.store)?.bucket;
        let told = coordination_settings(&self.coordination);
        let database = &self.store.database;
        let coordination = coordination::connect(&told, database, Arc::clone(&bucket), self.env()).await?;
        Ok((bucket, coordination))
    }

    /// The database, which must be there.
    pub(crate) async fn database(&self) -> Result<Database, Failure> {
        self.patiently(async || {
            let (bucket, coordination) = self.open().await?;
            let name = &self.store.database;
            Ok(Database::open(bucket, coordination, self.env().clone(), name, &OpenMode::Existing).await?)
        })
        .await
    }

    /// Another store, opened with the same settings (timeouts, credentials) under its own address.
    pub(crate) fn other_store(&self, url: &str) -> Result<Arc<dyn Bucket>, Failure> {
        let url = store_url(url)?;
        let settings = isle_node::store_settings(&StoreSection { url: url.clone(), ..self.store.clone() });
        settings.validate().map_err(|lines| Failure::usage(lines.join("\n")))?;
        // Its metrics are its own.
        let env = Environment::system("isle", &self.store.database);
        object::open(&url, &settings, &env).map_err(|e| Failure::usage(e.to_string()))
    }

    /// Tries until it succeeds, is refused, or the patience is over.
    pub(crate) async fn patiently<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, Failed>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            match attempt().await {
                Err(Failed::Passing(why)) if Instant::now() < deadline => {
                    output::note(&format!("waiting: {why}"));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Failed::Passing(why)) => return Err(Failure::new(why)),
                Err(Failed::Refused(failure)) => return Err(failure),
                Ok(done) => return Ok(done),
            }
        }
    }
}

impl Reach {
    fn place(&self, store: Option<&str>) -> Result<Place, Failure> {
        Place::of(store, self.coordination.clone(), self.database.clone(), self.config.as_deref())
    }
}

impl DatabaseArgs {
    /// The database that the flags name.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        self.reach.place(self.store.as_deref())
    }
}

impl Target {
    /// The database that is to be.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        self.reach.place(Some(&self.to))
    }
}

impl Store {
    /// The store with the backups, and the settings it is opened with.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        Place::of(Some(&self.from), None, None, self.config.as_deref())
    }
}

/// Why an attempt failed.
pub(crate) enum Failed {
    /// It may be tried again.
    Passing(String),
    /// It may not.
    Refused(Failure),
}

impl Failed {
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Passing(why) => Failure::new(why),
            Self::Refused(failure) => failure,
        }
    }
}

impl From<OpenError> for Failed {
    fn from(e: OpenError) -> Self {
        match e {
            OpenError::Passing(why) => Self::Passing(why),
            OpenError::Refused(refusal) => Self::Refused(Failure::with_exit(refusal.exit, refusal.message)),
        }
    }
}

impl From<CoordinationError> for Failed {
    fn from(e: CoordinationError) -> Self {
        match e {
            e if e.is_passing() => Self::Passing(e.to_string()),
            CoordinationError::NotFound(place) => Self::Refused(Failure::usage(format!(
                "{place} has no isle.json: there is no database (is this the database's own prefix?)"
            ))),
            e => {
                let refusal = isle_node::refusal(&e);
                Self::Refused(Failure::with_exit(refusal.exit, refusal.message))
            }
        }
    }
}
