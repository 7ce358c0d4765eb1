//! `isle recover`: the head rebuilt from the bucket alone.
//!
//! Looks around, decides, shows the plan, and carries it out; what it is doing goes to standard error, the plan and what
//! came of it to standard output. `--dry-run` stops before the first write.

use std::sync::Arc;
use std::time::Duration;

use isle_node::{NodeEnvironment, coordination_settings};
use isle_service::config::{
    CoordinationSettings as CoordinationSection, Layers, ServerSettings, StoreSettings as StoreSection,
};
use isle_service::server::HttpMetrics;
use isle_service::shell::OpenError;
use isle_storage::coordination::recover::{self, Consent, Findings, Fresh, Plan, Step};
use isle_storage::coordination::{self, Coordination, CoordinationError};
use isle_storage::environment::Environment;
use isle_storage::ids::{CommitId, Incarnation, Lineage};
use isle_storage::object::Bucket;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::args::RecoverArgs;
use crate::dump::store_url;
use crate::output::{self, Failure};

/// Pause between attempts to reach the store and the service.
const PAUSE: Duration = Duration::from_millis(500);

/// How many adopted segments the text names.
const MOST_NAMED: usize = 5;

pub(crate) async fn recover(args: RecoverArgs) -> Result<(), Failure> {
    if !args.dry_run && !args.old_coordination_is_stopped {
        return Err(Failure::usage(
            "recover starts a new history and cannot fence a coordination service that still lives elsewhere: what is \
             acknowledged there afterwards would be lost. Stop every role and that service, then say so with \
             --old-coordination-is-stopped. (--dry-run shows what would be done, and changes nothing)",
        ));
    }
    let place = Place::of(&args)?;
    let found = place.survey().await?;
    let env = &place.environment.env;
    let fresh = Fresh {
        lineage: Lineage(env.entropy.next_u128()),
        incarnation: Incarnation(env.entropy.next_u64()),
        commit: CommitId(env.entropy.next_u64()),
    };
    let consent = Consent { loss: args.accept_loss, sound: args.even_if_sound };
    let plan = recover::plan(&found, consent, fresh)?;
    if !args.json {
        output::write(text(&found, &plan, &place.store.url).as_bytes())?;
    }
    if !args.dry_run {
        place.carry_out(&plan).await?;
    }
    match (args.json, args.dry_run) {
        (true, dry) => output::line(&json_of(&found, &plan, dry).to_string()),
        (false, true) => output::line("Nothing was changed."),
        (false, false) => output::line(
            "Done. Start the roles again; those that still run go over by themselves. Tail cursors and page tokens of \
             the old lineage are refused: consumers go on with seq:<n>.",
        ),
    }
}

/// The database as settings, with its store and its coordination once they are open.
struct Place {
    environment: NodeEnvironment,
    store: StoreSection,
    coordination: CoordinationSection,
    patience: Duration,
}

impl Place {
    /// File, environment and flags, in this order.
    fn of(args: &RecoverArgs) -> Result<Self, Failure> {
        let vars =
            std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        let usage = |e: &dyn std::fmt::Display| Failure::usage(e.to_string());
        let mut layers = Layers::read(args.config.as_deref(), vars).map_err(|e| usage(&e))?;
        let store = args.store.as_deref().map(store_url).transpose()?;
        for (flag, path, value) in [
            ("--store", "store.url", store),
            ("--database", "store.database", args.database.clone()),
            ("--coordination", "coordination.url", args.coordination.clone()),
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

    fn env(&self) -> &Environment {
        &self.environment.env
    }

    async fn open(&self) -> Result<(Arc<dyn Bucket>, Arc<dyn Coordination>), Failed> {
        let bucket = self.environment.store(&self.store)?.bucket;
        let told = coordination_settings(&self.coordination);
        let database = &self.store.database;
        let coordination = coordination::connect(&told, database, Arc::clone(&bucket), self.env()).await?;
        Ok((bucket, coordination))
    }

    /// Looks around, waiting a while for a store or a service that cannot be reached.
    async fn survey(&self) -> Result<Findings, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let looked = async {
                let (bucket, coordination) = self.open().await?;
                Ok(recover::survey(&bucket, &coordination, self.env(), &self.store.database, &show).await?)
            };
            match looked.await {
                Err(Failed::Passing(why)) if Instant::now() < deadline => {
                    output::note(&format!("waiting: {why}"));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Failed::Passing(why)) => return Err(Failure::new(why)),
                Err(Failed::Refused(failure)) => return Err(failure),
                Ok(found) => return Ok(found),
            }
        }
    }

    async fn carry_out(&self, plan: &Plan) -> Result<(), Failure> {
        let (bucket, coordination) = self.open().await.map_err(Failed::into_failure)?;
        recover::carry_out(&bucket, &coordination, self.env(), plan, &show).await?;
        Ok(())
    }
}

/// Why a look around failed.
enum Failed {
    /// It may be tried again.
    Passing(String),
    /// It may not.
    Refused(Failure),
}

impl Failed {
    fn into_failure(self) -> Failure {
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
                "{place} has no isle.json: there is no database to recover (is this the database's own prefix?)"
            ))),
            e => {
                let refusal = isle_node::refusal(&e);
                Self::Refused(Failure::with_exit(refusal.exit, refusal.message))
            }
        }
    }
}

/// One line of progress.
fn show(step: Step) {
    output::note(&match step {
        Step::Listed { folder, objects } => format!("{folder}/: {objects} objects"),
        Step::Rejected(rejected) => format!("passed over {rejected}"),
        Step::Base(path) => format!("building on {path}"),
        Step::Segments { read, of } => format!("segments beyond it read and verified: {read} of {of}"),
        Step::Wrote(path) => format!("wrote {path}"),
        Step::WaitingFor(node) => format!("waiting: {node} has the writer's role, until its lease ends"),
    });
}

fn text(found: &Findings, plan: &Plan, url: &str) -> String {
    let m = &plan.manifest;
    let mut lines = vec![format!("Database {:?} ({}) in {url}", found.identity.name, m.database)];
    for rejected in &plan.rejected {
        lines.push(format!("  passed over  {rejected}"));
    }
    lines.push(format!(
        "  built on     {} (version {}, up to sequence number {})",
        plan.base, plan.base_version, plan.base_seq
    ));
    lines.push(match (plan.adopted.first(), plan.adopted.last()) {
        (Some(first), Some(last)) => format!(
            "  adopted      {} segments, sequence numbers {} to {}: {}",
            plan.adopted.len(),
            first.id.first_seq,
            last.last_seq,
            named(plan)
        ),
        _ => "  adopted      no segment: the checkpoint holds everything".to_owned(),
    });
    if let Some(gap) = &plan.gap {
        lines.push(format!("  GIVEN UP     everything after sequence number {}: {gap}", m.last_seq));
    }
    lines.push(match &plan.remains.head {
        Some(h) => format!(
            "  replaces     the head at version {}, epoch {}, sequence number {}",
            h.version, h.epoch, h.last_seq
        ),
        None => "  replaces     no head: there is none that can be read".to_owned(),
    });
    lines.push(format!(
        "  new head     version {}, epoch {}, sequence number {}, lineage {} (number {})",
        m.version, m.epoch, m.last_seq, m.lineage, plan.lineage_number
    ));
    let o = plan.orphans;
    lines.push(format!(
        "  left behind  {} log objects, {} tables, {} blob files ({} bytes), named by nothing: for the orphan sweep",
        o.log, o.tables, o.blobs, o.bytes
    ));
    lines.push(format!(
        "  as of version {}: snapshots, consumer groups, compaction mode (changes made since are not in the bucket)",
        plan.base_version
    ));
    lines.join("\n") + "\n"
}

/// The first adopted segments, and how many more.
fn named(plan: &Plan) -> String {
    let mut names: Vec<String> = plan.adopted.iter().take(MOST_NAMED).map(|e| e.path().to_string()).collect();
    if plan.adopted.len() > MOST_NAMED {
        names.push(format!("and {} more", plan.adopted.len() - MOST_NAMED));
    }
    names.join(", ")
}

fn json_of(found: &Findings, plan: &Plan, dry_run: bool) -> Value {
    let m = &plan.manifest;
    json!({
        "dry_run": dry_run,
        "database": m.database.to_string(),
        "name": found.identity.name,
        "rejected": plan.rejected.iter().map(|r| json!({"checkpoint": r.path, "why": r.why})).collect::<Vec<_>>(),
        "base": {"checkpoint": plan.base, "version": plan.base_version, "last_seq": plan.base_seq},
        "adopted": plan.adopted.iter().map(|e| {
            json!({"object": e.path().to_string(), "first_seq": e.id.first_seq, "last_seq": e.last_seq})
        }).collect::<Vec<_>>(),
        "lost": plan.gap.as_ref().map(|gap| json!({
            "first_seq": gap.first,
            "last_seq": gap.last,
            "why": gap.why,
            "unreachable": gap.beyond.iter().map(|id| id.path(isle_storage::names::LogKind::Segment).to_string()).collect::<Vec<_>>(),
        })),
        "replaced": plan.remains.head.as_ref().map(|h| {
            json!({"version": h.version, "epoch": h.epoch, "last_seq": h.last_seq, "lineage": h.lineage})
        }),
        "head": {
            "version": m.version, "epoch": m.epoch, "last_seq": m.last_seq,
            "lineage": m.lineage, "lineage_number": plan.lineage_number,
        },
        "orphans": {
            "log": plan.orphans.log, "tables": plan.orphans.tables, "blobs": plan.orphans.blobs,
            "bytes": plan.orphans.bytes,
        },
    })
}
