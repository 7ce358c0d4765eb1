//! Between the process shell, which knows no engine, and the engines, which know no process: from a program's settings
//! to an open database, and from an engine's refusal to an exit code.

use std::fmt;
use std::sync::{Arc, OnceLock};

use isle_service::config::{
    CoordinationSettings as CoordinationSection, Settings, StoreSettings as StoreSection,
};
use isle_service::server::{Encoder, HttpMetrics};
use isle_service::shell::{OpenError, Refusal};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, Coordination, CoordinationError, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::object::{self, Credentials, Meter, OpenErrorKind, Opened, StoreSettings};

/// Exit code of a program whose settings name the wrong thing.
const EXIT_SETTINGS: u8 = 2;

/// Exit code of a program that was refused for another reason.
const EXIT_FAILURE: u8 = 1;

/// What a program takes from the world, and the store once it is open: a store registers its metrics, so an environment
/// opens one, however often the database behind it has to be tried.
#[derive(Clone)]
pub struct NodeEnvironment {
    /// Clock, randomness, metrics.
    pub env: Environment,
    store: Arc<OnceLock<Opened>>,
}

impl fmt::Debug for NodeEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeEnvironment").field("open", &self.store.get().is_some()).finish()
    }
}

impl NodeEnvironment {
    /// The operating system's clock and randomness, a registry with the HTTP metrics in it, and how it is written out.
    #[must_use]
    pub fn system(role: &str, database: &str, http: &HttpMetrics) -> (Self, Encoder) {
        let env = Environment::system(role, database);
        let (name, help) = HttpMetrics::REQUESTS;
        env.metrics.register(name, help, http.requests.clone());
        let (name, help) = HttpMetrics::SECONDS;
        env.metrics.register(name, help, http.seconds.clone());
        let metrics = env.metrics.clone();
        (Self { env, store: Arc::default() }, Encoder::new(move || metrics.encode()))
    }

    /// The store the settings name; opened once.
    ///
    /// # Errors
    /// [`OpenError`]: passing where the store cannot be reached.
    pub fn store(&self, section: &StoreSection) -> Result<Opened, OpenError> {
        if let Some(opened) = self.store.get() {
            return Ok(opened.clone());
        }
        let settings = store_settings(section);
        settings.validate().map_err(|lines| OpenError::bad_setting(lines.join("\n")))?;
        let opened =
            object::open_metered(&settings.url, &settings, &self.env).map_err(|e| match e.kind() {
                OpenErrorKind::Usage => OpenError::bad_setting(e.to_string()),
                OpenErrorKind::Denied => OpenError::failed(e.to_string()),
                OpenErrorKind::Unavailable => OpenError::Passing(e.to_string()),
            })?;
        Ok(self.store.get_or_init(|| opened).clone())
    }

    /// What the store has been asked for so far, once it is open.
    #[must_use]
    pub fn meter(&self) -> Option<Arc<Meter>> {
        self.store.get().map(|o| Arc::clone(&o.meter))
    }

    /// One attempt to open the database that the settings name.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn database<R>(&self, settings: &Settings<R>, mode: &OpenMode) -> Result<Database, OpenError> {
        let bucket = self.store(&settings.store)?.bucket;
        let name = &settings.store.database;
        let told = coordination_settings(&settings.coordination);
        let coordination = coordination::connect(&told, name, Arc::clone(&bucket), &self.env).await;
        let coordination: Arc<dyn Coordination> = coordination.map_err(|e| refused(&e))?;
        let opened = Database::open(bucket, coordination, self.env.clone(), name, mode).await;
        opened.map_err(|e| refused(&e))
    }

    /// A name for this process, unique per start, and the address others are told.
    #[must_use]
    pub fn node(&self, role: &str, advertise: &str) -> NodeInfo {
        NodeInfo {
            node: format!("{role}-{:08x}", self.env.entropy.next_u64() as u32),
            advertise: advertise.to_owned(),
        }
    }
}

/// The store's settings with the credentials of this process's environment.
#[must_use]
pub fn store_settings(section: &StoreSection) -> StoreSettings {
    StoreSettings {
        url: section.url.clone(),
        retry_budget_seconds: section.retry_budget_seconds,
        request_timeout_seconds: section.request_timeout_seconds,
        max_concurrent_requests: section.max_concurrent_requests,
        instance_credentials: section.instance_credentials,
        usd_per_million_writes: section.usd_per_million_writes,
        usd_per_million_reads: section.usd_per_million_reads,
        usd_per_gib_read: section.usd_per_gib_read,
        credentials: Credentials::from_vars(std::env::vars_os()),
    }
}

/// The coordination's settings.
#[must_use]
pub fn coordination_settings(section: &CoordinationSection) -> CoordinationSettings {
    let path = |p: &Option<String>| p.clone().map(Into::into);
    CoordinationSettings {
        url: section.url.clone(),
        username: section.username.clone(),
        password_file: path(&section.password_file),
        ca: path(&section.ca),
        cert: path(&section.cert),
        key: path(&section.key),
        request_timeout_ms: section.request_timeout_ms,
        lease_ttl_seconds: section.lease_ttl_seconds,
        heartbeat_ms: section.heartbeat_ms,
        max_commits_per_second: section.max_commits_per_second,
        poll_min_ms: section.poll_min_ms,
        poll_max_ms: section.poll_max_ms,
        job_beat_seconds: section.job_beat_seconds,
        job_stale_seconds: section.job_stale_seconds,
    }
}

/// What a program does about a refusal: waits for what may come, ends for what its settings name wrongly (exit code 2)
/// and for what a person has to mend (exit code 1).
#[must_use]
pub fn refused(e: &CoordinationError) -> OpenError {
    match e {
        CoordinationError::Unavailable(_) | CoordinationError::Full(_) | CoordinationError::NotFound(_) => {
            OpenError::Passing(e.to_string())
        }
        _ => OpenError::Refused(refusal(e)),
    }
}

/// The same for an engine that is already open.
#[must_use]
pub fn refusal(e: &CoordinationError) -> Refusal {
    let exit = match e {
        CoordinationError::WrongDatabase(_) | CoordinationError::Refused(_) => EXIT_SETTINGS,
        _ => EXIT_FAILURE,
    };
    Refusal { exit, message: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shell's sections and the engines' settings say the same of what neither file nor flag mentions.
    #[test]
    fn defaults_are_the_engines_own() {
        let store =
            StoreSettings { credentials: Credentials::default(), ..store_settings(&StoreSection::default()) };
        assert_eq!(store, StoreSettings::default());
        assert_eq!(coordination_settings(&CoordinationSection::default()), CoordinationSettings::default());
    }

    #[test]
    fn what_may_come_is_waited_for_and_what_is_wrong_ends_the_program() {
        let passing = |e| matches!(refused(&e), OpenError::Passing(_));
        assert!(passing(CoordinationError::Unavailable("away".into())));
        assert!(passing(CoordinationError::NotFound("here".into())));
        assert!(passing(CoordinationError::Full("coordination_full: compact it".into())));
        assert_eq!(refusal(&CoordinationError::WrongDatabase("b".into())).exit, 2);
        assert_eq!(refusal(&CoordinationError::Lost("wiped".into())).exit, 1);
        assert_eq!(refusal(&CoordinationError::Denied("wrong secret".into())).exit, 1);
    }
}
