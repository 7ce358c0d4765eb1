//! `isle verify`: walks a whole database and believes nothing. Exit code 0 clean, 1 damage, 2 nothing could be said.

use std::sync::Arc;

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isle_service::config::{CoordinationSettings, Layers, StoreSettings};
use isle_storage::coordination;
use isle_storage::environment::Environment;
use isle_storage::object::{self, Bucket};
use isle_storage::verify::report::Listed;
use isle_storage::verify::{self, From, Owner, Progress, Report};

use crate::args::{Database, VerifyArgs};
use crate::dump::store_url;
use crate::output::{self, Failure};

/// Where a database lies that no setting names.
const DEFAULT_DIR: &str = "./isle-data";

pub(crate) async fn verify(args: VerifyArgs) -> Result<(), Failure> {
    let place = Place::of(&args)?;
    let env = Environment::system("isle", &place.store.database);
    let bucket = place.bucket(&env)?;
    let from = place.from(&args, &bucket, &env).await?;
    let bar = progress_bar(&args);
    let report = verify::verify(&bucket, from, &place.store.database, &bar).await;
    bar.0.finish_and_clear();
    let report = report.map_err(|e| Failure::usage(format!("nothing could be verified: {e}")))?;
    if args.at.reach.json {
        output::line(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::write(text(&report).as_bytes())?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let (damaged, unreadable) = (report.damage.total, report.unreadable.total);
    Err(Failure::new(format!(
        "{} is not clean: {damaged} damaged, {unreadable} could not be read; keep a copy of the bucket before \
         anything is mended",
        report.store
    )))
}

/// The same settings as a node's: flags, environment, file.
struct Place {
    store: StoreSettings,
    coordination: CoordinationSettings,
}

impl Place {
    fn of(args: &VerifyArgs) -> Result<Self, Failure> {
        let environment =
            std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        let usage = |e: isle_service::config::ConfigError| Failure::usage(e.to_string());
        let Database { store, reach } = &args.at;
        let mut layers = Layers::read(reach.config.as_deref(), environment).map_err(usage)?;
        if let Some(store) = store {
            layers.set_flag("store", "store.url", store_url(store)?);
        }
        if let Some(coordination) = &reach.coordination {
            layers.set_flag("coordination", "coordination.url", coordination.clone());
        }
        if let Some(database) = &reach.database {
            layers.set_flag("database", "store.database", database.clone());
        }
        let mut store: StoreSettings = layers.section("store").map_err(usage)?;
        let coordination = layers.section("coordination").map_err(usage)?;
        if store.url.is_empty() {
            store.url = store_url(DEFAULT_DIR)?;
        }
        isle_service::config::check_database_name(&store.database).map_err(Failure::usage)?;
        Ok(Self { store, coordination })
    }

    fn bucket(&self, env: &Environment) -> Result<Arc<dyn Bucket>, Failure> {
        if let Some(dir) = self.store.url.strip_prefix("file://")
            && !std::path::Path::new(dir.split('?').next().unwrap_or(dir)).is_dir()
        {
            return Err(Failure::usage(format!("there is no directory {dir}, so there is no database")));
        }
        let settings = isle_node::store_settings(&self.store);
        settings.validate().map_err(|lines| Failure::usage(lines.join("\n")))?;
        object::open(&settings.url, &settings, env).map_err(|e| Failure::usage(e.to_string()))
    }

    async fn from(
        &self,
        args: &VerifyArgs,
        bucket: &Arc<dyn Bucket>,
        env: &Environment,
    ) -> Result<From, Failure> {
        if args.offline {
            return Ok(From::Bucket);
        }
        let told = isle_node::coordination_settings(&self.coordination);
        let connected = coordination::connect(&told, &self.store.database, Arc::clone(bucket), env).await;
        connected
            .map(From::Coordination)
            .map_err(|e| Failure::usage(format!("{e} (`--offline` verifies what the bucket alone tells)")))
    }
}

/// Moves a bar on a terminal.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn moved(&self, done: u64, of: u64) {
        self.0.set_length(of.max(done));
        self.0.set_position(done);
    }
}

fn progress_bar(args: &VerifyArgs) -> Bar {
    if args.at.reach.json {
        return Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
    }
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} objects, {elapsed}") {
        bar.set_style(style);
    }
    Bar(bar)
}

fn text(report: &Report) -> String {
    let c = &report.counts;
    let mut out = format!("{}\n", report.store);
    let mut say = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    say(format!("  verified    {}, up to sequence number {}", report.source, report.last_seq));
    say(format!("  looked at   {} objects, read {}", c.objects, ByteSize(c.bytes_read)));
    say(format!("  log         {} objects, {} records", c.log_objects, c.records));
    say(format!("  tables      {}, {} rows, {} keys asked of their filters", c.tables, c.rows, c.keys));
    say(format!("  manifest    {} checkpoints, {} other objects", c.checkpoints, c.records_of_coordination));
    if c.collected_meanwhile > 0 {
        say(format!("  meanwhile   {} objects were collected, as they should be", c.collected_meanwhile));
    }
    let waiting = report.retired.first.iter().filter(|r| r.present).count();
    let bytes: u64 = report.retired.first.iter().filter(|r| r.present).map(|r| r.len).sum();
    say(format!(
        "  retired     {} objects, of the first {} of them {waiting} still there ({})",
        report.retired.total,
        report.retired.first.len(),
        ByteSize(bytes)
    ));
    list(&mut say, "orphans", &report.orphans, |o| {
        let state = match o.state {
            Owner::Alive => "which may still name it",
            Owner::Dead => "which is gone: the collector will sweep it",
            Owner::Unknown => "of which nothing is known from here",
        };
        format!("{} ({}), by {}, {state}", o.object, ByteSize(o.len), o.owner)
    });
    list(&mut say, "unknown", &report.unknown, |u| format!("{} ({})", u.object, ByteSize(u.len)));
    list(&mut say, "unreadable", &report.unreadable, ToString::to_string);
    list(&mut say, "damage", &report.damage, ToString::to_string);
    say(if report.is_clean() { "clean".to_owned() } else { "NOT CLEAN".to_owned() });
    out
}

fn list<T>(say: &mut impl FnMut(String), name: &str, listed: &Listed<T>, line: impl Fn(&T) -> String) {
    say(format!("  {name:<11} {}", listed.total));
    listed.first.iter().for_each(|entry| say(format!("    {}", line(entry))));
    let more = listed.total - listed.first.len() as u64;
    if more > 0 {
        say(format!("    and {more} more"));
    }
}
