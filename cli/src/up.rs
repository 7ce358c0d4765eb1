//! `isle up`: all four roles in one process over one bucket and one coordination, which wake each other directly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use isle_node::NodeEnvironment;
use isle_service::config::{Layers, LogSettings, ServerSettings, Settings};
use isle_service::health::Health;
use isle_service::server::{Drain, Encoder, HttpMetrics, Routes, ServerHandle, ServerParts, bind, serve};
use isle_service::shell::{OpenError, Signals};
use isle_service::slot::Slot;
use isle_service::telemetry;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{Backend, NodeInfo};
use isle_storage::database::Database;
use isle_storage::manifest::CompactionMode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::args::UpArgs;
use crate::dump::store_url;
use crate::output::{self, Failure};

/// Exit code of a setting that cannot be.
const EXIT_SETTINGS: u8 = 2;

/// Pause between two attempts to open the database.
const OPEN_PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn up(args: UpArgs) -> Result<(), Failure> {
    let layers = layers(&args)?;
    let log: LogSettings = layers.section("log").map_err(|e| Failure::usage(e.to_string()))?;
    telemetry::init(&log).map_err(Failure::usage)?;
    let signals = Signals::install().map_err(|e| Failure::new(format!("signals cannot be handled: {e}")))?;
    let up = tokio::select! {
        () = signals.first() => return Ok(()),
        up = Up::start(&args, &layers) => up?,
    };
    tokio::select! {
        () = signals.first() => {}
        () = up.ready() => {
            say_where(&up.store, &up.addresses)?;
            signals.first().await;
        }
    }
    up.stop().await;
    Ok(())
}

/// All four roles, running in this process.
pub(crate) struct Up {
    store: String,
    /// Of the writer, the reader, the tailer and the compactor, in this order.
    pub(crate) addresses: Vec<String>,
    faces: [Face; 4],
    servers: [ServerHandle; 4],
    drain: Drain,
    writer: writer_node::Writer,
    reader: reader_node::Reader,
    tailer: tailer_node::Tailer,
    compactor: compactor_node::Compactor,
    shutdown_timeout: Duration,
}

impl Up {
    /// Starts them and opens the database, however long that takes.
    pub(crate) async fn start(args: &UpArgs, layers: &Layers) -> Result<Self, Failure> {
        let writer: Settings<writer_node::WriterSettings> = section(layers, "writer")?;
        let reader: Settings<reader_node::ReaderSettings> = section(layers, "reader")?;
        let tailer: Settings<tailer_node::TailerSettings> = section(layers, "tailer")?;
        let compactor: Settings<compactor_node::CompactorSettings> = section(layers, "compactor")?;
        let drain = Drain::new();
        let mut ports = Ports::new(args)?;
        let w = Face::new("writer", "writer-node", &writer.store.database, ports.next());
        let r = Face::new("reader", "reader-node", &writer.store.database, ports.next());
        let t = Face::new("tailer", "tailer-node", &writer.store.database, ports.next());
        let c = Face::new("compactor", "compactor-node", &writer.store.database, ports.next());
        let (ws, rs, ts, cs) = (Slot::new(), Slot::new(), Slot::new(), Slot::new());
        let writer_routes = writer_node::server::routes(ws.clone(), drain.clone(), &writer.role);
        let servers = [
            w.serve(writer_routes, &writer.server).await?,
            r.serve(reader_node::server::router(rs.clone()), &writer.server).await?,
            t.serve(tailer_node::server::router(ts.clone()), &writer.server).await?,
            c.serve(compactor_node::server::router(cs.clone()), &writer.server).await?,
        ];
        let addresses: Vec<String> = servers.iter().map(|s| format!("http://{}", s.local_addr())).collect();

        let opened = open(&w.environment, &writer).await?;
        let node = |face: &Face, i: usize| -> NodeInfo { face.environment.node(face.role, &addresses[i]) };
        let mut writer_settings = writer.role.clone();
        if opened.coordination.backend() == Backend::Etcd {
            writer_settings.max_commits_per_second.get_or_insert(writer.coordination.max_commits_per_second);
        }
        let usage = |e: String| Failure::usage(e);
        let the_writer = writer_node::Writer::open(w.database(&opened), writer_settings, node(&w, 0))
            .map_err(|e| usage(format!("writer: {e}")))?;
        let the_reader = reader_node::Reader::open(r.database(&opened), reader.role.clone())
            .map_err(|e| usage(format!("reader: {e}")))?;
        let the_tailer =
            tailer_node::Tailer::open(t.database(&opened), tailer.role.clone()).map_err(usage)?;
        let the_compactor =
            compactor_node::Compactor::open(c.database(&opened), node(&c, 3), compactor.role.clone())
                .map_err(usage)?;
        // Before the first look at an engine, or its role would pass for ready with nothing to serve.
        for (health, component) in
            [(&w.health, "writer"), (&r.health, "view"), (&t.health, "view"), (&c.health, "compaction")]
        {
            health.set(component, isle_service::health::State::not_ready("opening"));
        }
        tokio::spawn(writer_node::server::show_health(the_writer.clone(), w.health.clone()));
        tokio::spawn(reader_node::server::show_health(the_reader.clone(), r.health.clone()));
        tokio::spawn(tailer_node::server::show_health(the_tailer.clone(), t.health.clone()));
        tokio::spawn(compactor_node::server::show_health(the_compactor.clone(), c.health.clone()));
        ws.fill(Arc::new(the_writer.clone()));
        rs.fill(Arc::new(the_reader.clone()));
        ts.fill(Arc::new(the_tailer.clone()));
        cs.fill(Arc::new(the_compactor.clone()));

        Ok(Self {
            store: writer.store.url.clone(),
            addresses,
            faces: [w, r, t, c],
            servers,
            drain,
            writer: the_writer,
            reader: the_reader,
            tailer: the_tailer,
            compactor: the_compactor,
            shutdown_timeout: writer.server.shutdown_timeout,
        })
    }

    /// Waits until every role has something to serve.
    pub(crate) async fn ready(&self) {
        while !self.faces.iter().all(|face| face.health.is_ready()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops them; what was accepted is committed first.
    pub(crate) async fn stop(self) {
        let deadline = Instant::now() + self.shutdown_timeout;
        for face in &self.faces {
            face.health.set("shutdown", isle_service::health::State::not_ready("the program is stopping"));
        }
        self.drain.start();
        self.writer.close(deadline.saturating_duration_since(Instant::now())).await;
        self.compactor.close().await;
        self.tailer.close();
        self.reader.close();
        // What is cut off here expires by itself.
        let _cut = tokio::time::timeout_at(deadline, self.tailer.drained()).await;
        for server in self.servers {
            server.stop(deadline).await;
        }
    }
}

fn say_where(store: &str, addresses: &[String]) -> Result<(), Failure> {
    let mut text = format!("isle is up on {store}\n");
    for (role, address) in ["writer", "reader", "tailer", "compactor"].iter().zip(addresses) {
        text.push_str(&format!("  {role:<10} {address}\n"));
    }
    text.push_str("Ctrl-C stops it; what was accepted is committed first.\n");
    output::write(text.as_bytes())
}

/// File and environment, with the flags of `isle up` on top.
pub(crate) fn layers(args: &UpArgs) -> Result<Layers, Failure> {
    let environment =
        std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    let mut layers =
        Layers::read(args.config.as_deref(), environment).map_err(|e| Failure::usage(e.to_string()))?;
    let url = match &args.store {
        Some(url) => store_url(url)?,
        None => {
            std::fs::create_dir_all(&args.dir)
                .map_err(|e| Failure::new(format!("{}: {e}", args.dir.display())))?;
            store_url(&args.dir.display().to_string())?
        }
    };
    layers.set_flag("store", "store.url", url);
    layers.set_flag("database", "store.database", args.database.clone());
    layers.set_flag("coordination", "coordination.url", args.coordination.clone());
    layers.set_flag("log-format", "log.format", args.log_format.clone());
    layers.set_flag("log-level", "log.level", args.log_level.clone());
    Ok(layers)
}

fn section<R>(layers: &Layers, role: &str) -> Result<Settings<R>, Failure>
where
    R: Serialize + DeserializeOwned + Default,
{
    Settings::from_layers(layers, role).map_err(|e| Failure::with_exit(EXIT_SETTINGS, e.to_string()))
}

/// Waits for a bucket or an etcd that cannot be reached yet; ends for what will not change.
async fn open<R>(environment: &NodeEnvironment, settings: &Settings<R>) -> Result<Database, Failure> {
    let mode = OpenMode::CreateIfMissing(CompactionMode::default());
    let mut said = String::new();
    loop {
        match environment.database(settings, &mode).await {
            Ok(db) => return Ok(db),
            Err(OpenError::Refused(refusal)) => {
                return Err(Failure::with_exit(refusal.exit, refusal.message));
            }
            Err(OpenError::Passing(why)) => {
                if why != said {
                    output::note(&format!("waiting: {why}"));
                    said = why;
                }
            }
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    }
}

/// Four ports in a row, or whatever the system gives.
struct Ports {
    host: std::net::IpAddr,
    next: u16,
}

impl Ports {
    fn new(args: &UpArgs) -> Result<Self, Failure> {
        let host = args
            .host
            .parse()
            .map_err(|_| Failure::usage(format!("--host {}: not an IP address", args.host)))?;
        if args.port > u16::MAX - 3 {
            return Err(Failure::usage(format!("--port {}: the next three ports are needed too", args.port)));
        }
        Ok(Self { host, next: args.port })
    }

    fn next(&mut self) -> SocketAddr {
        let port = self.next;
        if port != 0 {
            self.next += 1;
        }
        SocketAddr::new(self.host, port)
    }
}

/// One role's face within the process.
struct Face {
    role: &'static str,
    program: &'static str,
    listen: SocketAddr,
    health: Health,
    environment: NodeEnvironment,
    encoder: Encoder,
    http: HttpMetrics,
}

impl Face {
    fn new(role: &'static str, program: &'static str, database: &str, listen: SocketAddr) -> Self {
        let http = HttpMetrics::new();
        let (environment, encoder) = NodeEnvironment::system(role, database, &http);
        let health = Health::new(role);
        health.set("start", isle_service::health::State::not_ready("opening"));
        Self { role, program, listen, health, environment, encoder, http }
    }

    async fn serve(&self, routes: Routes, settings: &ServerSettings) -> Result<ServerHandle, Failure> {
        let listener = bind(self.listen).await.map_err(|e| match e.why.kind() {
            std::io::ErrorKind::AddrInUse => Failure::new(format!(
                "the {} cannot listen at {}: {}; another program holds it (another `isle up`?). Choose other ports with \
                 --port N, which takes N and the next three, or --port 0",
                self.role, self.listen, e.why
            )),
            _ => e.into(),
        })?;
        let parts = ServerParts {
            program: self.program,
            role: self.role,
            health: self.health.clone(),
            metrics: self.encoder.clone(),
            http: self.http.clone(),
            settings: settings.clone(),
        };
        Ok(serve(listener, routes, parts))
    }

    /// The shared database with this role's own metrics.
    fn database(&self, shared: &Database) -> Database {
        self.health.clear("start");
        Database { env: self.environment.env.clone(), ..shared.clone() }
    }
}
