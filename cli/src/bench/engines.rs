//! A database opened in this process for a workload: its store, and engines that each have their own metrics.

use std::sync::Arc;
use std::time::Duration;

use compactor_node::{Compactor, CompactorSettings};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{self, Credentials, MemoryBucket, Meter, StoreSettings};
use reader_node::{Reader, ReaderSettings};
use tailer_node::{Tailer, TailerSettings};
use writer_node::{Writer, WriterSettings};

use super::report::{Usage, cpu_time};
use crate::args::BenchArgs;

/// The name the database has where the store is new.
const DATABASE: &str = "default";

/// How long the writer may take to commit what is left at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// How long preparing waits for the writer's flush, between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A store and its database.
pub(super) struct Engines {
    db: Database,
    meter: Arc<Meter>,
    /// The store itself, where it lies in this process.
    memory: Option<Arc<MemoryBucket>>,
    compactor: Option<Compactor>,
}

/// What was used up to an instant.
pub(super) struct Mark {
    requests: u64,
    cpu: Duration,
}

impl Engines {
    /// Opens the store, and in it the database, which is made where it is missing.
    pub(super) async fn open(args: &BenchArgs) -> Result<Self, String> {
        let env = Environment::system("bench", DATABASE);
        let in_memory = args.store == "memory://";
        // Under a name, so that the store can be asked what it holds.
        let name = format!("bench-{:x}", env.entropy.next_u64());
        let url = if in_memory { format!("memory://{name}") } else { args.store.clone() };
        let memory = in_memory.then(|| MemoryBucket::named(&name, &env.clock));
        let settings = StoreSettings {
            url: url.clone(),
            credentials: Credentials::from_vars(std::env::vars_os()),
            ..StoreSettings::default()
        };
        let opened = object::open_metered(&url, &settings, &env).map_err(|e| e.to_string())?;
        let told = CoordinationSettings::new(args.coordination.as_deref().unwrap_or_else(|| {
            let volatile = url.starts_with("memory:") || url.starts_with("null:");
            if volatile { "memory" } else { "bucket" }
        }));
        let bucket = opened.bucket;
        let form = coordination::settings::connect(&told, DATABASE, Arc::clone(&bucket), &env).await;
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let db = Database::open(bucket, form.map_err(|e| e.to_string())?, env, DATABASE, &mode).await;
        let db = db.map_err(|e| e.to_string())?;
        let mut this = Self { db, meter: opened.meter, memory, compactor: None };
        if args.compactor {
            let compactor =
                Compactor::open(this.of("compactor"), node("compactor"), CompactorSettings::default())?;
            this.compactor = Some(compactor);
        }
        Ok(this)
    }

    /// The database with metrics of its own, so that engines do not mix theirs.
    fn of(&self, role: &str) -> Database {
        Database { env: Environment::system(role, DATABASE), ..self.db.clone() }
    }

    /// A writer that leads.
    pub(super) async fn writer(&self) -> Result<Writer, String> {
        let writer = Writer::open(self.of("writer"), WriterSettings::default(), node("writer"));
        let writer = writer.map_err(|e| e.to_string())?;
        match writer.leading().await {
            Some(_) => Ok(writer),
            None => Err(writer.refusal().map_or_else(String::new, |e| e.to_string())),
        }
    }

    /// A reader whose cache may hold `cache_bytes`.
    pub(super) async fn reader(&self, cache_bytes: u64) -> Result<Reader, String> {
        let defaults = ReaderSettings::default();
        let cache_bytes = cache_bytes.max(defaults.cache_bytes);
        let reader = Reader::open(self.of("reader"), ReaderSettings { cache_bytes, ..defaults });
        let reader = reader.map_err(|e| e.to_string())?;
        reader.ready().await.map_err(|e| e.to_string())?;
        Ok(reader)
    }

    pub(super) async fn tailer(&self) -> Result<Tailer, String> {
        let tailer = Tailer::open(self.of("tailer"), TailerSettings::default())?;
        tailer.ready().await;
        Ok(tailer)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { requests: self.meter.usage().requests(), cpu: cpu_time() }
    }

    /// What was used since `mark`.
    pub(super) fn since(&self, mark: &Mark) -> Usage {
        Usage {
            requests: Some(self.meter.usage().requests() - mark.requests),
            cpu: cpu_time().saturating_sub(mark.cpu),
            store_memory_bytes: self.memory.as_ref().map_or(0, |m| m.held_bytes()),
        }
    }

    /// Commits what the writer holds, and stops.
    pub(super) async fn close(self, writer: &Writer) {
        writer.close(CLOSE_WITHIN).await;
        if let Some(compactor) = self.compactor {
            compactor.close().await;
        }
    }
}

/// Commits everything the writer has accepted and turns it into tables.
pub(super) async fn flush(writer: &Writer) -> Result<(), String> {
    let newest = writer.flush(None).await.map_err(|e| e.to_string())?.seq;
    writer.end_generation();
    while writer.status().flushed_seq < newest {
        if let Some(refusal) = writer.refusal() {
            return Err(refusal.to_string());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn node(role: &str) -> NodeInfo {
    NodeInfo { node: format!("bench-{role}"), advertise: String::new() }
}
